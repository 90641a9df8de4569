"""Slots of engines that die while this one lives, keys that are remembered elsewhere, and small steps."""

import asyncio
import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sendengine import Accepted, KeyReusedError, StorageError
from sendengine.core.jobs import CreateNotification
from sendengine.engine import past, recovery
from sendengine.engine.engine import Health
from sendengine.engine.journals import LOOK_S
from sendengine.journal.slots import open_slots
from sendengine.ports import KeyRecall, Recovered, RecoveredJob
from sendengine.settings import JournalSettings
from tests.support.engines import note, settled
from tests.support.events import listening
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport
from tests.support.journalled import FakeSlots, assert_nothing_left, durable
from tests.support.virtual_loop import run_virtually


def left(disk: Disk, *jobs: CreateNotification) -> None:
    for job in jobs:
        disk.last_id += 1
        disk.jobs[disk.last_id] = RecoveredJob(disk.last_id, job, "shop", time.time())


def test_what_an_engine_beside_it_leaves_when_it_dies_is_taken_on_within_half_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other, transport = Disk(), Disk(), FakeTransport()
    left(other, note("a"), note("b"))
    slots = FakeSlots(FakeJournal(own))
    slots.become_the_slots(monkeypatch)

    async def main() -> None:
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            await engine.send(note("c"))
            assert not engine.recovered
            slots.dying.append(FakeJournal(other))
            await asyncio.sleep(LOOK_S + 1)
            assert [type(await settled(found.receipt)) for found in engine.recovered] == [Accepted] * 2
            assert len(slots.adopted) == 1
            await asyncio.sleep(LOOK_S)  # nothing is left in it, and it is given back
            assert (slots.adopted, len(slots.given_back)) == ([], 1)
            await engine.send(note("d"))
        for disk in (own, other):
            assert_nothing_left(engine, transport, disk)

    with listening() as events:
        run_virtually(main())
    assert transport.deliveries == dict.fromkeys("abcd", 1)
    (found,) = events.fields("recovered")
    assert found["jobs"] == 2
    assert slots.is_closed


def is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_real_slots_are_taken_on_emptied_and_given_back_too(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            for user in ("a", "b"):  # a slot that was given back is found again
                other = await open_slots(tmp_path, JournalSettings())
                assert other.own.store.path.name == "engine-2.db"
                await other.own.recover(when_failed=print)
                other.own.accept(note(user), app="shop", done=lambda _: None)
                await other.aclose()
                await asyncio.sleep(LOOK_S + 1)
                *_, found = engine.recovered
                assert isinstance(await settled(found.receipt), Accepted)
                while not is_free(tmp_path / "engine-2.lock"):  # noqa: ASYNC110 - a lock rings no bell
                    await asyncio.sleep(LOOK_S)
            assert len(engine.recovered) == 2

    run_virtually(main())
    assert transport.deliveries == dict.fromkeys("ab", 1)


class Torn(FakeJournal):
    """A slot whose disk fails while what it holds is read."""

    store = SimpleNamespace(path=Path("engine-3.db"))

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        error = StorageError("a damaged archive")
        when_failed(error)
        raise error


@pytest.mark.parametrize("is_early", [False, True])
def test_a_slot_that_cannot_be_read_is_given_back_and_tried_again_and_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_early: bool
) -> None:
    own, transport = Disk(), FakeTransport()
    disks = [Disk(), Disk(), Disk()]
    for name, disk in zip("abc", disks, strict=True):
        left(disk, note(name))
    first, torn, last = FakeJournal(disks[0]), Torn(disks[1]), FakeJournal(disks[2])
    slots = FakeSlots(FakeJournal(own), [first, torn, last] if is_early else [])
    slots.become_the_slots(monkeypatch)

    async def main() -> None:
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            if not is_early:
                slots.dying += [first, torn, last]
                await asyncio.sleep(LOOK_S)
            await asyncio.sleep(1)
            assert transport.deliveries == dict.fromkeys("ac", 1)
            assert slots.given_back == [torn]
            slots.dying.append(FakeJournal(disks[1]))
            await asyncio.sleep(LOOK_S)
            assert transport.deliveries == dict.fromkeys("abc", 1)
            assert engine.health() == Health(is_alive=True, is_accepting=True)
            await engine.send(note("new"))

    with listening() as events:
        run_virtually(main())
    assert sum("engine-3.db is left alone: a damaged archive" in line for line in events.lines) == 1
    for disk in disks:
        assert not disk.jobs


class Leaving(FakeJournal):
    """It is closed while somebody asks it for a key."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.is_closed = asyncio.Event()

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        await self.is_closed.wait()
        raise StorageError(f"closed: {app} {key}")

    async def aclose(self) -> None:
        await super().aclose()
        self.is_closed.set()


def test_whoever_asks_for_a_key_while_a_slot_is_given_back_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = FakeTransport()
    slots = FakeSlots(FakeJournal(Disk()), [Leaving(Disk())])
    slots.become_the_slots(monkeypatch)

    async def main() -> None:
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            assert isinstance(await engine.send(note("a", idempotency_key="k")), Accepted)

    run_virtually(main())
    assert len(slots.given_back) == 1


def test_a_key_that_an_adopted_slot_remembers_is_joined_and_not_used_for_another_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other, transport = Disk(), Disk(), FakeTransport()

    async def earlier() -> None:
        async with durable(tmp_path, transport, FakeJournal(other)) as engine:
            await engine.send(note("a", idempotency_key="k"))

    async def main() -> None:
        left(other, note("b"))
        FakeSlots(FakeJournal(own), [FakeJournal(other)]).become_the_slots(monkeypatch)
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            receipt = await engine.submit(note("a", idempotency_key="k"))
            assert isinstance(receipt.outcome, Accepted)
            with pytest.raises(KeyReusedError):
                await engine.submit(note("z", idempotency_key="k"))

    run_virtually(earlier())
    run_virtually(main())
    assert transport.deliveries == dict.fromkeys("ab", 1)


def test_what_is_recovered_is_put_back_in_small_steps_and_nothing_new_goes_before_it(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    left(disk, *(note(f"n{number}") for number in range(1000)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def main() -> None:
        counting = asyncio.create_task(count())
        engine = durable(tmp_path, transport, FakeJournal(disk))
        await engine.__aenter__()
        assert turns >= 3 * 1000 // recovery._SLICE
        assert len(engine.recovered) == 1000
        counting.cancel()
        await engine.drain()
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len(transport.deliveries) == 1000


def test_of_receipts_that_have_settled_only_the_last_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "MOST_SETTLED", 10)
    disk, transport = Disk(), FakeTransport()
    left(disk, *(note(f"n{number}", pack=False) for number in range(50)))

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            receipts = [found.receipt for found in engine.recovered]
            assert len(receipts) == 50
            for receipt in receipts:
                await settled(receipt)
            assert len(engine.recovered) == 10
            assert {found.receipt for found in engine.recovered} <= set(receipts)

    run_virtually(main())
