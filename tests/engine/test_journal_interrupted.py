"""An engine that stops while it still puts back what another one left: nobody waits for ever, and nothing is lost."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from sendengine import Abandoned, Accepted, Expired, GaveUp, Job, Receipt, SendEngine, segments
from sendengine.core.wire import WireRequest
from sendengine.engine import recovery
from sendengine.engine.journals import LOOK_S
from sendengine.errors import StorageError
from sendengine.ports import Part, Recovered, RecoveredJob, RecoveredRequest, Seal
from sendengine.settings import JournalSettings, StoppingSettings
from tests.support.engines import CREATE, SOON, assert_nothing_leaked, change, note, pass_turns, settled, within
from tests.support.events import listening
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport
from tests.support.journalled import FakeSlots, assert_nothing_left, durable
from tests.support.virtual_loop import run_virtually

KEYED = 24
STEPS = 4  # so many jobs between two turns
TURNS = range(0, 30, 2)  # all of it is back after 27

Stopping = Callable[[SendEngine], Coroutine[Any, Any, None]]


class Found(FakeJournal):
    """It says when it has been read: the jobs come back in the turns that follow."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.is_read = asyncio.Event()

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        self.is_read.set()
        return await super().recover(when_failed=when_failed)


async def abort_at_once(engine: SendEngine) -> None:
    await engine.abort(grace_s=0)


async def drain(engine: SendEngine) -> None:
    await engine.drain()


def left(disk: Disk, *jobs: Job, age_s: float = 0.0, **options: Any) -> list[int]:
    ids = range(disk.last_id + 1, disk.last_id + 1 + len(jobs))
    for number, job in zip(ids, jobs, strict=True):
        disk.jobs[number] = RecoveredJob(number, job, "shop", time.time() - age_s, **options)
    disk.last_id += len(jobs)
    return list(ids)


def left_sealed(disk: Disk, *members: tuple[int, tuple[str, ...]], age_s: float = 0.0) -> None:
    disk.last_id += 1
    key = f"6ba7b810-9dad-11d1-80b4-{disk.last_id:012}"
    ids = [each for _, part in members for each in part]
    body = {"idempotency_key": key, "contents": {"en": "Hi"}, "include_aliases": {"external_id": ids}}
    seal = Seal(CREATE, key, None, WireRequest("POST", "/notifications", orjson.dumps(body)), members)
    disk.requests[disk.last_id] = RecoveredRequest(disk.last_id, seal, time.time() - age_s)


def everything(disk: Disk) -> None:
    """What a dead engine may leave, of every kind."""
    left(disk, *(note(f"u{number}", idempotency_key=f"k{number}") for number in range(KEYED)))
    whole, cut = left(disk, note("a"), note("b", "c", "d"))
    left_sealed(disk, (whole, ("a",)), (cut, ("b",)))
    left(disk, note("e", "f"), parts=(Part(("e",), Accepted()),))
    left(disk, note("over"), parts=(Part(("over",), Accepted()),))
    left(disk, change("x", t=1), change("y", t=1))
    left(disk, change("begun", t=1), was_begun=True)
    left(disk, note("old"), age_s=90_000)
    (stale,) = left(disk, note("z", urgency="high"), age_s=1000)
    left_sealed(disk, (stale, ("z",)), age_s=1000)
    (sealed,) = left(disk, replace(note("s"), to=segments("Everybody")))
    left_sealed(disk, (sealed, ()))


@pytest.mark.parametrize("stop", [abort_at_once, drain])
@pytest.mark.parametrize("turns", TURNS)
def test_whoever_joined_a_job_on_its_way_back_is_told_and_a_later_process_sends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Stopping, turns: int
) -> None:
    monkeypatch.setattr(recovery, "_SLICE", STEPS)
    own, other, transport = Disk(), Disk(), FakeTransport()
    everything(other)
    slots = FakeSlots(FakeJournal(own))
    slots.become_the_slots(monkeypatch)
    jobs = set(other.jobs)

    async def main() -> None:
        options: dict[str, Any] = {"ages": JournalSettings(), "stopping": StoppingSettings(drain_timeout_s=30)}
        engine = durable(tmp_path, transport, None, **options)
        async with engine:
            slots.dying.append(found := Found(other))
            joined = await joined_midway(engine, found, turns)
            await within(stop(engine))
        for receipt in joined:
            assert isinstance(receipt.outcome, (Accepted, Abandoned)), "it settles while the engine closes"
        assert_nothing_leaked(engine, transport)
        assert engine._admissions._keyed == {}
        assert set(other.jobs) | set(other.settled) == jobs, "what was not settled is on disk"
        assert {type(outcome) for outcome in other.settled.values()} <= {Accepted, Expired, GaveUp}
        FakeSlots(FakeJournal(own), [FakeJournal(other)]).become_the_slots(monkeypatch)
        async with durable(tmp_path, transport, None, ages=JournalSettings(), retry=SOON) as later:
            for one in later.recovered:
                await settled(one.receipt)
        assert_nothing_left(later, transport, other)

    run_virtually(main())
    keys: dict[str, set[str]] = defaultdict(set)
    for arrival in transport.arrivals:
        for each in arrival.ids:
            keys[each].add(arrival.key)
    assert set(keys) == {*(f"u{number}" for number in range(KEYED)), *"abcdf"}
    assert all(len(own_keys) == 1 for own_keys in keys.values()), "a repeat bears its key"
    assert {arrival.user for arrival in transport.arrivals if arrival.method == "PATCH"} == {"x", "y", "begun"}


async def joined_midway(engine: SendEngine, found: Found, turns: int) -> list[Receipt]:
    """Wait until jobs come back, and join some of them by their keys."""
    await within(found.is_read.wait(), seconds=LOOK_S + 1)
    await pass_turns(turns)
    return [engine.submit_nowait(note(f"u{number}", idempotency_key=f"k{number}")) for number in range(STEPS - 1)]


@pytest.mark.parametrize("turns", TURNS)
def test_an_opening_that_is_cancelled_settles_what_it_had_begun_to_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr(recovery, "_SLICE", STEPS)
    disk, transport = Disk(), FakeTransport()
    everything(disk)

    async def main() -> None:
        journal = Found(disk)
        engine = durable(tmp_path, transport, journal)
        opening = asyncio.get_running_loop().create_task(engine.__aenter__())
        await within(journal.is_read.wait())
        await pass_turns(turns)
        if not opening.done():
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            await engine.abort(grace_s=0)
        await pass_turns()
        assert_nothing_leaked(engine, transport)
        async with durable(tmp_path, transport, FakeJournal(disk), retry=SOON) as later:
            pass
        assert_nothing_left(later, transport, disk)

    run_virtually(main())


def test_what_may_have_been_sent_is_abandoned_as_such_and_the_line_says_what_stays_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_SLICE", STEPS)
    own, other, transport = Disk(), Disk(), FakeTransport()
    first, second, third, *_ = left(other, *(note(f"u{n}", idempotency_key=f"k{n}") for n in range(KEYED)))
    left_sealed(other, (first, ("u0",)))
    other.jobs[third] = replace(other.jobs[third], was_begun=True)
    slots = FakeSlots(FakeJournal(own))
    slots.become_the_slots(monkeypatch)

    async def main() -> None:
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            slots.dying.append(found := Found(other))
            joined = await joined_midway(engine, found, 0)
            engine.begin_drain()
            outcomes = [await settled(receipt) for receipt in joined]
        assert outcomes == [Abandoned(maybe_sent=each in "02", not_sent=(f"u{each}",)) for each in "012"]

    with listening() as events:
        run_virtually(main())
    assert second in other.jobs
    (said,) = events.fields("recovered")
    assert (said["jobs"], said["requests"]) == (0, 0)
    assert STEPS - 1 <= said["left"] < KEYED
    assert any(f"; {said['left']} stay on disk for a later process" in line for line in events.lines)
    assert not transport.arrivals


def test_an_engine_that_drains_looks_for_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other, transport = Disk(), Disk(), FakeTransport(latency_s=3 * LOOK_S)
    left(other, note("b"))
    slots = FakeSlots(FakeJournal(own))
    slots.become_the_slots(monkeypatch)

    async def main() -> None:
        options: dict[str, Any] = {"stopping": StoppingSettings(drain_timeout_s=10 * LOOK_S)}
        async with durable(tmp_path, transport, None, ages=JournalSettings(), **options) as engine:
            receipt = await engine.submit(note("a"))
            engine.begin_drain()
            slots.dying.append(FakeJournal(other))
            assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())
    assert len(slots.dying) == 1
    assert transport.deliveries == {"a": 1}
