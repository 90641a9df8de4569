"""A disk that fails for good, or is full: nothing new, what is on the wire finishes, nobody waits for ever."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sendengine import Abandoned, Accepted, EngineClosedError, IntakeFullError, Job, SendEngine, StorageError
from sendengine.ports import Recovered, Seal
from sendengine.settings import CeilingSettings, IntakeSettings, JournalSettings
from tests.support.engines import (
    CREATE,
    SOON,
    UPDATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_settings,
    note,
    now_s,
    settled,
    until,
    within,
)
from tests.support.events import listening
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport
from tests.support.journalled import FakeSlots, assert_nothing_left, durable
from tests.support.virtual_loop import run_virtually

EIO = "fsync of /var/journal.db failed: EIO"


def test_when_the_disk_fails_what_is_on_the_wire_finishes_and_nothing_new_goes(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport(latency_s=10)
    slow = {"ceilings": CeilingSettings(create_notification=20)}

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal, app=slow) as engine:
            jobs: list[Job] = [note(f"n{number}", pack=False) for number in range(50)]
            receipts = [await engine.submit(job) for job in (*jobs, change("u", a=1))]
            await until(lambda: len(transport.arrivals) >= 10)
            journal.fail_with = StorageError(EIO)
            lost = engine.submit_nowait(note("lost"))
            with pytest.raises(StorageError, match="EIO"):
                await within(engine.submit(note("b")))
            count = len(transport.arrivals)
            health = engine.health()
            assert (health.is_alive, health.is_accepting) == (False, False)
            assert health.problems == (EIO,)
            assert engine.storage_failure == EIO
            for submit in (engine.submit(note("c")), engine.submit_row(note("c"), row=1)):
                with pytest.raises(StorageError):
                    await within(submit)
            with pytest.raises(StorageError):
                engine.submit_nowait(note("c"))
            outcomes = [await settled(receipt) for receipt in receipts]
            assert [type(outcome) for outcome in outcomes].count(Accepted) == count == len(transport.arrivals)
            assert sum(isinstance(outcome, Abandoned) for outcome in outcomes) == 51 - count
            assert lost.outcome == Abandoned(not_sent=("lost",))
            assert_nothing_leaked(engine, transport)

        async with durable(tmp_path, transport, FakeJournal(disk), retry=SOON) as engine:
            assert engine.storage_failure is None
        assert_nothing_left(engine, transport, disk)

    with listening() as events:
        run_virtually(main())
    assert events.names.count("storage_failed") == 1
    keys = {(arrival.key, *arrival.ids) for arrival in transport.arrivals if arrival.method == "POST"}
    assert len(keys) == 50  # whoever went again did so under the old key


def test_whoever_waits_for_room_or_for_the_disk_is_told_when_it_fails(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal, intake=IntakeSettings(max_jobs=4)) as engine:
            submitting = [asyncio.ensure_future(engine.submit(note(f"n{number}"))) for number in range(10)]
            submitting += [asyncio.ensure_future(engine.submit(note("k", idempotency_key="k")))]
            draining = asyncio.ensure_future(sleep_and_drain(engine))
            journal.fail_with = StorageError(EIO)
            results = await within(asyncio.gather(*submitting, return_exceptions=True))
            assert {type(result) for result in results} == {StorageError, EngineClosedError}
            assert_nothing_leaked(engine, transport)
            began_s = now_s()
            await within(draining)
            assert now_s() - began_s < 1

    with listening():
        run_virtually(main())
    assert not transport.arrivals
    assert not disk.accepted


async def sleep_and_drain(engine: SendEngine) -> None:
    await asyncio.sleep(0.001)
    await engine.drain()


@pytest.mark.parametrize("job", [note("a"), change("u", a=1)])
def test_a_request_whose_seal_the_disk_did_not_take_is_not_sent(tmp_path: Path, job: Job) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal) as engine:
            receipt = await engine.submit(job)
            journal.fail_with = StorageError(EIO)
            assert isinstance(await settled(receipt), Abandoned)
            assert_nothing_leaked(engine, transport)
            assert all(lane.keeping == 0 for lane in engine._lanes.values())
        assert not transport.arrivals
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            pass
        assert_nothing_left(engine, transport, disk)

    with listening():
        run_virtually(main())
    assert len(transport.arrivals) == 1


@pytest.mark.parametrize("latency_s", [0.001, 0.004, 0.1, 1.0])
def test_a_disk_that_fails_at_any_step_of_a_request_leaves_nothing_behind(tmp_path: Path, latency_s: float) -> None:
    def fail_after(flushes: int) -> None:
        disk, transport = Disk(), FakeTransport(latency_s=latency_s)

        async def main() -> None:
            journal = FakeJournal(disk)
            async with durable(tmp_path, transport, journal, retry=SOON) as engine:
                receipts = [engine.submit_nowait(note("a")), engine.submit_nowait(change("u", a=1))]
                await until(lambda: journal.flushes >= flushes or all(one.is_settled for one in receipts), step_s=0.001)
                journal.fail_with = StorageError(EIO)
                for receipt in receipts:
                    await settled(receipt)
                assert_nothing_leaked(engine, transport)
            async with durable(tmp_path, transport, FakeJournal(disk), retry=SOON) as engine:
                pass
            assert_nothing_left(engine, transport, disk)
            assert len({arrival.key for arrival in transport.arrivals if arrival.method == "POST"}) <= 1

        run_virtually(main())

    with listening():
        for flushes in range(5):
            fail_after(flushes)


def test_a_full_disk_holds_what_needs_a_seal_and_it_goes_when_there_is_room(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal) as engine:
            receipts = [await engine.submit(note("a")), await engine.submit(change("u", a=1))]
            journal.problem = "full"
            await asyncio.sleep(30)
            assert not transport.arrivals
            assert engine.health().is_alive
            with pytest.raises(IntakeFullError, match="full"):
                engine.submit_nowait(note("b"))
            journal.problem = None
            receipts.append(await engine.submit(note("c")))
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())


def test_a_lane_whose_requests_wait_for_the_disk_is_bound_by_the_journal(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=0.01)

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(Disk(), fsync_s=0.5)) as engine:
            receipts = [
                await engine.submit_row(note("a", text=str(number), pack=False), row=number) for number in range(9)
            ]
            for receipt in receipts:
                await settled(receipt)
            bound = engine.counters()[CREATE].bound_by
            assert bound["journal"] > 0.8

    run_virtually(main())


def test_a_slow_disk_costs_latency_and_not_rate(tmp_path: Path) -> None:
    transport = FakeTransport()
    fast = {"ceilings": CeilingSettings(create_notification=500, update_user=500)}

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(Disk(), fsync_s=0.1), app=fast) as engine:
            engine.pause()
            for number in range(900):
                await engine.submit_row(note("a", text=str(number), pack=False), row=number)
                await engine.submit_row(change(f"u{number}", a=1), row=number)
            await asyncio.sleep(1)
            engine.unpause()
            await until(lambda: all(lane.books.is_settled for lane in engine._lanes.values()))

    run_virtually(main())
    for method in ("POST", "PATCH"):
        times = [arrival.at_s for arrival in transport.arrivals if arrival.method == method]
        assert 900 / (times[-1] - times[0]) > 430


class BrokenJournal(FakeJournal):
    """It cannot be opened."""

    is_closed = False

    async def recover(self, **_: object) -> Recovered:
        raise StorageError(EIO)

    async def aclose(self) -> None:
        self.is_closed = True


def test_an_engine_whose_journal_cannot_be_read_does_not_open(tmp_path: Path) -> None:
    transport = FakeTransport()
    journal = BrokenJournal(Disk())

    async def main() -> None:
        engine = durable(tmp_path, transport, journal)
        with pytest.raises(StorageError, match="EIO"):
            await engine.__aenter__()
        assert not engine.health().is_accepting
        assert transport.is_closed
        assert journal.is_closed

    run_virtually(main())


class DyingJournal(FakeJournal):
    """Its disk fails just after it was read."""

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        recovered = await super().recover(when_failed=when_failed)
        self._fail(StorageError(EIO))
        return recovered


def test_an_engine_whose_disk_fails_while_it_opens_takes_nothing(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, DyingJournal(Disk())) as engine:
            assert (engine.health().is_alive, engine.health().is_accepting) == (False, False)
            with pytest.raises(StorageError):
                await engine.submit(note("a"))

    with listening():
        run_virtually(main())
    assert not transport.arrivals


def test_an_engine_whose_own_slot_cannot_be_read_sends_nothing_of_others_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            engine.pause()
            await engine.submit(note("a"))
            await engine.abort()
        slots = FakeSlots(BrokenJournal(Disk()), [FakeJournal(disk)])
        slots.become_the_slots(monkeypatch)
        engine = durable(tmp_path, transport, None, ages=JournalSettings())
        with pytest.raises(StorageError, match="EIO"):
            await engine.__aenter__()
        assert slots.is_closed
        assert len(disk.jobs) == 1

    run_virtually(main())
    assert not transport.arrivals


@pytest.mark.parametrize("ages", [None, JournalSettings(durability="memory")])
def test_without_a_journal_nothing_is_put_on_disk(tmp_path: Path, ages: JournalSettings | None) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, None, ages=ages) as engine:
            began_s = now_s()
            receipts = [await engine.submit(note("a")), await engine.submit_row(change("u", a=1), row=1)]
            receipts.append(engine.submit_nowait(note("b", idempotency_key="k")))
            receipts.append(await engine.submit(note("b", idempotency_key="k")))
            assert receipts[-1] is receipts[-2]
            assert now_s() == began_s
            assert (engine.recovered, engine.storage_failure) == ((), None)
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
        assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert not list(tmp_path.glob("engine-*"))


class StuckJournal(FakeJournal):
    """Its seals never come back; the process may stop all the same."""

    async def seal(self, seal: Seal) -> int:
        await asyncio.sleep(1e6)
        return await super().seal(seal)


def test_an_abort_does_not_wait_for_seals_for_ever(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, StuckJournal(disk)) as engine:
            receipts = [await engine.submit(note("a")), await engine.submit(change("u", a=1))]
            await until(lambda: lane_of(engine).keeping + lane_of(engine, UPDATE).keeping == 2)
            began_s = now_s()
            await engine.abort(grace_s=3)
            assert now_s() - began_s == pytest.approx(3, abs=0.1)
            assert [receipt.outcome for receipt in receipts] == [Abandoned(not_sent=("a",)), Abandoned(not_sent=("u",))]
            assert_nothing_leaked(engine, transport)
            assert all(lane.keeping == 0 for lane in engine._lanes.values())
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            pass
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len(transport.arrivals) == 2


def test_the_engine_of_these_tests_has_the_settings_of_the_others(tmp_path: Path) -> None:
    engine = durable(tmp_path, FakeTransport(), FakeJournal(Disk()))
    assert engine._settings == make_settings(tmp_path)
