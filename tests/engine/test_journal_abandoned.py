"""What an engine could not finish stays on disk, and the next process sends it."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
import pytest

from sendengine import (
    Abandoned,
    Accepted,
    GaveUp,
    ReplyLostError,
    SendEngine,
)
from sendengine.settings import CeilingSettings, StoppingSettings
from tests.support.engines import (
    SOON,
    assert_nothing_leaked,
    change,
    lane_of,
    note,
    now_s,
    settled,
    until,
    within,
)
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport, accept, first, json_reply
from tests.support.journalled import assert_nothing_left, durable
from tests.support.virtual_loop import run_virtually

Stopping = Callable[[SendEngine], Coroutine[Any, Any, None]]


async def drain(engine: SendEngine) -> None:
    await engine.drain()


async def abort(engine: SendEngine) -> None:
    await engine.abort()


async def abort_at_once(engine: SendEngine) -> None:
    await engine.abort(grace_s=0)


@pytest.mark.parametrize("stop", [drain, abort, abort_at_once])
def test_what_was_abandoned_stays_on_disk_and_the_next_process_sends_it(tmp_path: Path, stop: Stopping) -> None:
    disk, transport = Disk(), FakeTransport()
    slow = {"ceilings": CeilingSettings(create_notification=2, update_user=2)}
    names = [f"n{number}" for number in range(20)]
    users = [f"u{number}" for number in range(20)]

    async def main() -> None:
        options: dict[str, Any] = {"app": slow, "stopping": StoppingSettings(drain_timeout_s=2, grace_s=1)}
        engine = durable(tmp_path, transport, FakeJournal(disk), **options)
        await engine.__aenter__()
        receipts = [await engine.submit(note(name, text=name, pack=False)) for name in names]
        receipts += [await engine.submit(change(user, a=1)) for user in users]
        await asyncio.sleep(1)
        await within(stop(engine))
        assert_nothing_leaked(engine, transport)
        abandoned = [receipt for receipt in receipts if isinstance(receipt.outcome, Abandoned)]
        assert 10 < len(abandoned) < 40
        assert sorted(map(str, [job.job for job in disk.jobs.values()])) == sorted(
            str(receipt.job) for receipt in abandoned
        )
        for record in disk.requests.values():
            assert record.seal.key is not None
        async with durable(tmp_path, transport, FakeJournal(disk), retry=SOON) as engine:
            assert len(engine.recovered) == len(abandoned)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert set(transport.deliveries) == set(names)
    keys = {arrival.ids[0]: arrival.key for arrival in transport.arrivals if arrival.method == "POST"}
    for arrival in transport.arrivals:
        if arrival.method == "POST":
            assert arrival.key == keys[arrival.ids[0]]
    assert set(transport.users[-60:]) >= set(users)


def test_what_waits_for_a_held_app_stays_on_disk(tmp_path: Path) -> None:
    disk = Disk()
    transport = FakeTransport(lambda _: json_reply(401, {"errors": ["Access denied"]}))

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            receipts = [engine.submit_nowait(note("a")), engine.submit_nowait(change("u", a=1))]
            await until(lambda: lane_of(engine).app.is_held)
        assert [receipt.outcome for receipt in receipts] == [Abandoned(not_sent=("a",)), Abandoned(not_sent=("u",))]
        assert_nothing_leaked(engine, transport)
        assert len(disk.jobs) == 2
        assert not disk.requests  # nobody has received them, so nothing binds the next process
        transport.behaviour = accept
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            pass
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert [type(outcome) for outcome in disk.settled.values()] == [Accepted, Accepted]


def test_what_was_given_up_and_may_have_been_sent_keeps_its_request(tmp_path: Path) -> None:
    disk = Disk()
    transport = FakeTransport(lambda _: ReplyLostError("lost"))

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk), retry=SOON) as engine:
            outcome = await settled(await engine.submit(note("a", urgency="high")))
            assert isinstance(outcome, GaveUp)
            assert outcome.maybe_sent
        assert_nothing_left(engine, transport, disk)
        assert list(disk.settled.values()) == [outcome]

    run_virtually(main())
    (kept,) = disk.kept
    assert kept.seal.key == transport.arrivals[0].key
    assert orjson.loads(kept.seal.wire.body) == transport.arrivals[0].body


def test_an_abandoned_request_that_may_have_been_received_goes_again_as_it_was(tmp_path: Path) -> None:
    disk, transport = Disk(), first([ReplyLostError("lost")])

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            for name in "abc":
                engine.submit_nowait(note(name))
            await asyncio.sleep(1)
            await engine.abort()
        (record,) = disk.requests.values()
        began_s = now_s()
        async with durable(tmp_path, transport, FakeJournal(disk), retry=SOON) as engine:
            pass
        assert transport.arrivals[1].at_s - began_s == pytest.approx(1, abs=0.01)
        assert record.seal.key == transport.arrivals[1].key
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.arrivals[0].body == transport.arrivals[1].body
    assert len(transport.arrivals) == 2
