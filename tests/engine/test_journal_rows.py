"""Rows of a run, of which its own journal knows what an earlier process did."""

import time
from pathlib import Path

import pytest

from sendengine import (
    Accepted,
    Ambiguous,
    Job,
    Outcome,
    Rejected,
    SendEngine,
    UpdateUser,
    external_id,
)
from sendengine.engine.past import Past
from sendengine.ports import Part, RecoveredRequest
from tests.support.engines import assert_nothing_leaked, note, now_s, settled
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport
from tests.support.journalled import KEY, durable, seal_of
from tests.support.virtual_loop import run_virtually

DELTA = UpdateUser(external_id("u"), tags={"a": 1}, deltas={"session_count": 1})


async def send_row(engine: SendEngine, job: Job, past: Past) -> Outcome:
    return await settled(await engine.submit_row(job, row=7, past=past))


def run_row(folder: Path, transport: FakeTransport, job: Job, past: Past) -> Outcome:
    disk = Disk()

    async def main() -> Outcome:
        async with durable(folder, transport, FakeJournal(disk, fsync_s=1e-4)) as engine:
            outcome = await send_row(engine, job, past)
        assert_nothing_leaked(engine, transport)
        assert disk.jobs == {}
        return outcome

    return run_virtually(main())


PACK = note("a", "b", "c", idempotency_key=KEY)


def test_a_row_that_may_have_been_sent_goes_again_after_the_wait_under_its_key(tmp_path: Path) -> None:
    transport = FakeTransport()
    assert isinstance(run_row(tmp_path, transport, PACK, Past(maybe_sent=True)), Accepted)
    (arrival,) = transport.arrivals
    assert (arrival.key, arrival.ids) == (KEY, ["a", "b", "c"])
    assert arrival.at_s - 1000 == pytest.approx(100, abs=0.1)


def test_a_row_of_which_parts_have_settled_sends_its_pieces_and_the_rest(tmp_path: Path) -> None:
    transport = FakeTransport()
    piece = RecoveredRequest(77, seal_of((1, ("b",)), key=KEY.replace("6", "7")), time.time())
    refused = Part(("a",), Rejected(400, ("no",), 1, ("a",)))
    outcome = run_row(tmp_path, transport, PACK, Past(parts=(refused,), requests=(piece,)))
    assert isinstance(outcome, Rejected)
    assert outcome.not_sent == ("a",)
    assert [arrival.ids for arrival in transport.arrivals] == [["c"], ["b"]]
    assert len({arrival.key for arrival in transport.arrivals} - {KEY}) == 2


def test_a_row_that_had_settled_wholly_sends_nothing(tmp_path: Path) -> None:
    transport = FakeTransport()
    past = Past(parts=(Part(("a", "b", "c"), Accepted(("m",))),))
    outcome = run_row(tmp_path, transport, PACK, past)
    assert isinstance(outcome, Accepted)
    assert outcome.message_ids == ("m",)
    assert not transport.arrivals


@pytest.mark.parametrize(("maybe_sent", "kind", "at_s"), [(False, Accepted, 0), (True, Ambiguous, 100)])
def test_an_update_of_a_row_that_may_have_been_sent_waits_and_its_deltas_stay(
    tmp_path: Path, maybe_sent: bool, kind: type, at_s: float
) -> None:
    transport = FakeTransport()
    assert isinstance(run_row(tmp_path, transport, DELTA, Past(maybe_sent=maybe_sent)), kind)
    assert [("deltas" in arrival.body) for arrival in transport.arrivals] == [not maybe_sent]
    assert transport.arrivals[0].at_s - 1000 == pytest.approx(at_s, abs=0.1)


def test_a_row_with_a_past_that_comes_when_the_engine_has_stopped_is_abandoned(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    piece = RecoveredRequest(77, seal_of((1, ("b",))), time.time())

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            rows = [
                await engine.submit_row(PACK, row=1, past=Past(requests=(piece,))),
                await engine.submit_row(note("x", idempotency_key="x"), row=2, past=Past(maybe_sent=True)),
                await engine.submit_row(DELTA, row=3, past=Past(maybe_sent=True)),
            ]
            began_s = now_s()
            await engine.abort()
            assert now_s() - began_s < 1
            assert all(row.is_settled for row in rows)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert not transport.arrivals
    assert len(disk.jobs) == 3
