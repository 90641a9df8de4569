"""What an earlier process may have sent counts once more: against the application limit, and as a cause of death."""

import asyncio
import time
from pathlib import Path

import orjson
import pytest

from sendengine import Accepted, GaveUp
from sendengine.core.wire import WireRequest
from sendengine.engine.past import Past
from sendengine.journal.volume_ledger import open_volume_ledger
from sendengine.ports import Part, RecoveredJob, RecoveredRequest, Seal
from tests.support.engines import APP_ID, CREATE, change, note, settled
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport
from tests.support.journalled import durable
from tests.support.virtual_loop import run_virtually

KEY = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
WINDOW_S = 900
APP = {"subscribed_users": 10}


def sealed_ago(age_s: float, *ids: str, job: int) -> RecoveredRequest:
    body = {"idempotency_key": KEY, "contents": {"en": "Hi"}, "include_aliases": {"external_id": list(ids)}}
    wire = WireRequest("POST", "/notifications", orjson.dumps(body))
    return RecoveredRequest(77, Seal(CREATE, KEY, None, wire, ((job, ids),)), time.time() - age_s)


async def counted(state_dir: Path) -> int:
    """What the application limit's window holds when all is over."""
    return await open_volume_ledger(state_dir, app_id=APP_ID, window="rolling").used()


@pytest.mark.parametrize(("age_s", "count"), [(WINDOW_S - 60, 0), (WINDOW_S + 60, 3)])
def test_a_sealed_request_counts_again_when_it_has_left_the_limits_window(
    tmp_path: Path, age_s: float, count: int
) -> None:
    disk, transport = Disk(last_id=1), FakeTransport()
    disk.jobs[1] = RecoveredJob(1, note("a", "b", "c"), "shop", time.time() - age_s)
    disk.requests[77] = sealed_ago(age_s, "a", "b", "c", job=1)

    async def main() -> int:
        async with durable(tmp_path, transport, FakeJournal(disk), app=APP) as engine:
            assert isinstance(await settled(engine.recovered[0].receipt), Accepted)
        return await counted(tmp_path)

    assert run_virtually(main()) == count
    assert [arrival.key for arrival in transport.arrivals] == [KEY]


@pytest.mark.parametrize(
    ("since_s", "count"), [(WINDOW_S - 60, 0), (WINDOW_S + 60, 3), (None, 3)], ids=["lately", "long ago", "unknown"]
)
def test_a_row_that_may_have_been_sent_counts_again_unless_the_run_began_lately(
    tmp_path: Path, since_s: float | None, count: int
) -> None:
    transport = FakeTransport()
    past = Past(maybe_sent=True, sent_since_s=None if since_s is None else time.time() - since_s)

    async def main() -> int:
        async with durable(tmp_path, transport, FakeJournal(Disk()), app=APP) as engine:
            row = await engine.submit_row(note("a", "b", "c", idempotency_key=KEY), row=7, past=past)
            assert isinstance(await settled(row), Accepted)
        return await counted(tmp_path)

    assert run_virtually(main()) == count


@pytest.mark.parametrize(("age_s", "count"), [(60, 1), (WINDOW_S + 60, 2)])
def test_a_piece_of_a_row_counts_again_as_a_sealed_request_does(tmp_path: Path, age_s: float, count: int) -> None:
    transport = FakeTransport()
    settled_before = Part(("a",), Accepted(("m",)))
    past = Past(parts=(settled_before,), requests=(sealed_ago(age_s, "b", job=1),))

    async def main() -> int:
        async with durable(tmp_path, transport, FakeJournal(Disk()), app=APP) as engine:
            row = await engine.submit_row(note("a", "b", "c", idempotency_key="k"), row=7, past=past)
            assert isinstance(await settled(row), Accepted)
        return await counted(tmp_path)

    assert run_virtually(main()) == count  # c was never sent, and counts either way


def test_a_request_that_waits_for_the_limit_goes_when_there_is_room(tmp_path: Path) -> None:
    disk, transport = Disk(last_id=1), FakeTransport()
    disk.jobs[1] = RecoveredJob(1, note("a", "b", "c"), "shop", time.time() - 2000)
    disk.requests[77] = sealed_ago(2000, "a", "b", "c", job=1)

    async def main() -> None:
        ledger = open_volume_ledger(tmp_path, app_id=APP_ID, window="rolling")
        assert (await ledger.reserve(69, limit=71)).granted == 69  # 70 are allowed
        async with durable(tmp_path, transport, FakeJournal(disk), app=APP) as engine:
            receipt = engine.recovered[0].receipt
            await asyncio.sleep(200)
            assert not receipt.is_settled
            await ledger.give_back(69)
            assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())


def test_what_died_with_others_in_one_request_is_repeated_alone(tmp_path: Path) -> None:
    """So that only the attempts of a change itself tell whether it is what kills processes."""
    disk, transport = Disk(last_id=4), FakeTransport()
    for number in (1, 2, 3):
        job = change("u", **{f"t{number}": number})
        disk.jobs[number] = RecoveredJob(number, job, "shop", time.time(), deaths=1, was_begun=True)
    disk.jobs[4] = RecoveredJob(4, change("u", t4=4), "shop", time.time())
    disk.jobs[2] = RecoveredJob(2, change("u", t2=2), "shop", time.time(), deaths=6, was_begun=True)

    async def main() -> list[str]:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            outcomes = [await settled(found.receipt) for found in engine.recovered]
        return [type(outcome).__name__ for outcome in outcomes]

    assert run_virtually(main()) == ["Accepted", GaveUp.__name__, "Accepted", "Accepted"]
    assert [arrival.tags for arrival in transport.arrivals] == [{"t1": "1"}, {"t3": "3"}, {"t4": "4"}]


def test_where_the_limit_rejects_what_may_have_been_sent_is_given_up_and_can_be_retried(tmp_path: Path) -> None:
    disk, transport = Disk(last_id=1), FakeTransport()
    disk.jobs[1] = RecoveredJob(1, note("a", "b", "c"), "shop", time.time() - 2000)
    disk.requests[77] = sealed_ago(2000, "a", "b", "c", job=1)

    async def main() -> None:
        ledger = open_volume_ledger(tmp_path, app_id=APP_ID, window="rolling")
        assert (await ledger.reserve(69, limit=71)).granted == 69
        app = {**APP, "application_limit_policy": "reject"}
        async with durable(tmp_path, transport, FakeJournal(disk), app=app) as engine:
            outcome = await settled(engine.recovered[0].receipt)
        assert isinstance(outcome, GaveUp)
        assert outcome.maybe_sent

    run_virtually(main())
    assert [kept.seal.key for kept in disk.kept] == [KEY]
