"""A job is on disk before its caller is told so, and whoever stops waiting takes nothing, or everything, with it."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sendengine import (
    Abandoned,
    Accepted,
    AppHeldError,
    EngineClosedError,
    IntakeFullError,
    Receipt,
    SendEngine,
    StorageError,
)
from sendengine.settings import IntakeSettings, StoppingSettings
from tests.support.engines import (
    UPDATE,
    assert_nothing_leaked,
    change,
    lane_of,
    note,
    now_s,
    pass_turns,
    settled,
    within,
)
from tests.support.events import listening
from tests.support.fake_journal import URGENT_S, Disk, FakeJournal
from tests.support.fake_transport import FakeTransport
from tests.support.journalled import assert_nothing_left, durable, kill
from tests.support.virtual_loop import run_virtually

FSYNC_S = 0.002
QUEUED_S = URGENT_S / 2  # after so long a change still waits for its group,
WRITTEN_S = URGENT_S + FSYNC_S / 2  # and after so long the group is being written


def test_submit_returns_when_the_job_is_on_disk_and_it_goes_on_the_wire_after_that(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=FSYNC_S)) as engine:
            for job in (note("a"), change("u", a=1), note("b", urgency="high")):
                began_s = now_s()
                submitting = asyncio.ensure_future(engine.submit(job))
                await asyncio.sleep(URGENT_S + FSYNC_S - 1e-4)
                assert not submitting.done()
                assert job not in disk.accepted.values()
                assert lane_of(engine).waiting + lane_of(engine, UPDATE).waiting == 0
                receipt = await submitting
                assert now_s() - began_s == pytest.approx(URGENT_S + FSYNC_S)
                assert job in disk.accepted.values()
                assert isinstance(await settled(receipt), Accepted)
        assert_nothing_left(engine, transport, disk)
        assert len(disk.settled) == 3

    run_virtually(main())


def test_jobs_enter_their_lane_in_the_order_of_asking(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    texts = [str(number) for number in range(30)]

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            await asyncio.gather(*[engine.submit(note("a", text=text)) for text in texts])
            assert [job.message["contents"]["en"] for job in disk.accepted.values()] == texts  # type: ignore[union-attr,index,call-overload]

    run_virtually(main())
    assert transport.texts == texts


def test_cancelling_a_submit_that_waits_for_room_takes_nothing(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        options: dict[str, Any] = {"intake": IntakeSettings(max_jobs=1)}
        async with durable(tmp_path, transport, FakeJournal(disk), **options) as engine:
            engine.pause()
            receipt = await engine.submit(note("a"))
            waiting = asyncio.ensure_future(engine.submit(note("b")))
            await asyncio.sleep(1)
            await cancelled(waiting)
            assert lane_of(engine).intake.jobs == 1
            engine.unpause()
            await settled(receipt)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == {"a": 1}


@pytest.mark.parametrize(("after_s", "is_taken"), [(0.0, False), (QUEUED_S, False), (WRITTEN_S, True)])
def test_cancelling_a_submit_takes_the_job_only_once_it_is_being_written(
    tmp_path: Path, after_s: float, is_taken: bool
) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=FSYNC_S)) as engine:
            waiting = asyncio.ensure_future(engine.submit(note("a", idempotency_key="k" if not is_taken else None)))
            await asyncio.sleep(after_s)
            await cancelled(waiting)
            if not is_taken:
                assert_nothing_leaked(engine, transport)
            await asyncio.sleep(1)
            # the key of what was not taken is free for another body
            await engine.send(note("other", idempotency_key="k"))
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == ({"a": 1, "other": 1} if is_taken else {"other": 1})
    assert len(disk.accepted) == 1 + is_taken


def test_cancelling_a_submit_whose_key_is_being_looked_up_takes_nothing(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=0.1)) as engine:
            waiting = asyncio.ensure_future(engine.submit(note("a", idempotency_key="k")))
            behind = asyncio.ensure_future(engine.submit(note("b", idempotency_key="k")))
            await asyncio.sleep(0.05)
            await cancelled(waiting)
            receipt = await within(behind)
            assert list(disk.accepted.values()) == [receipt.job]
            await settled(receipt)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == {"b": 1}


def test_a_timeout_while_the_disk_is_full_takes_nothing_and_names_the_disk(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal) as engine:
            journal.problem = "the disk of /var is full: make room"
            assert engine.health().problems == ("the disk of /var is full: make room",)
            assert engine.health().is_alive
            began_s = now_s()
            with pytest.raises(IntakeFullError, match="the disk of /var is full: make room"):
                await engine.submit(note("a"), timeout_s=3)
            assert now_s() - began_s == pytest.approx(3)
            with pytest.raises(IntakeFullError, match="/var is full"):
                engine.submit_nowait(note("a"))
            assert_nothing_leaked(engine, transport)
            patient = asyncio.ensure_future(engine.submit(note("b")))
            await asyncio.sleep(60)
            assert not patient.done()
            journal.problem = None
            await settled(await engine.submit(note("c")))
            await settled(await within(patient))
            assert engine.health().problems == ()
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == {"b": 1, "c": 1}


@pytest.mark.parametrize("key", [None, "k"])
def test_a_timeout_takes_nothing_unless_the_job_is_just_being_written(tmp_path: Path, key: str | None) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=1)) as engine:
            began_s = now_s()
            if key is None:  # its group is written from 5 ms on, for a second
                await settled(await engine.submit(note("a"), timeout_s=0.1))
                assert now_s() - began_s == pytest.approx(2.1, abs=0.1)  # and then its seal is
            else:  # looking its key up takes a second
                with pytest.raises(IntakeFullError, match="in time"):
                    await engine.submit(note("a", idempotency_key=key), timeout_s=0.1)
                assert now_s() - began_s == pytest.approx(0.1)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == ({"a": 1} if key is None else {})


def test_submit_nowait_is_sent_when_it_is_on_disk(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            receipt = engine.submit_nowait(note("a"))
            assert not disk.accepted
            await settled(receipt)
            assert list(disk.accepted.values()) == [receipt.job]
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())


def test_a_row_does_not_wait_for_the_disk_and_is_on_it_with_its_number(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=1)) as engine:
            began_s = now_s()
            receipts = [await engine.submit_row(note(str(row)), row=row) for row in range(7, 10)]
            assert now_s() == began_s
            await asyncio.sleep(1.1)
            assert [job.row for job in disk.jobs.values()] == [7, 8, 9]
            for receipt in receipts:
                await settled(receipt)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())


def test_what_was_handed_over_without_waiting_is_sent_before_the_engine_leaves(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            receipts = [engine.submit_nowait(note("a")), await engine.submit_row(change("u", a=1), row=0)]
            submitting = asyncio.ensure_future(engine.submit(note("b")))
            await asyncio.sleep(0)
        receipts.append(await submitting)
        assert [type(receipt.outcome) for receipt in receipts] == [Accepted] * 3
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())


def test_what_reaches_the_disk_after_an_abort_is_abandoned_and_the_next_process_sends_it(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            receipt = engine.submit_nowait(note("a"))
            submitting = asyncio.ensure_future(engine.submit(note("b")))
            await asyncio.sleep(0)
            await engine.abort()
            assert [receipt.outcome, (await within(submitting)).outcome] == [
                Abandoned(not_sent=("a",)),
                Abandoned(not_sent=("b",)),
            ]
            assert_nothing_leaked(engine, transport)
        assert not transport.arrivals
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            pass
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == {"a": 1, "b": 1}


@pytest.mark.parametrize("is_held", [False, True])
def test_a_job_whose_key_was_looked_up_while_the_door_closed_is_not_taken(tmp_path: Path, is_held: bool) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=1)) as engine:
            submitting = asyncio.ensure_future(engine.submit(note("a", idempotency_key="k")))
            await asyncio.sleep(0.5)
            if is_held:
                lane_of(engine).app.disabled(sent_at_s=now_s())
            else:
                engine.begin_drain()
            with pytest.raises(AppHeldError if is_held else EngineClosedError):
                await within(submitting)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert not disk.accepted


Failing = Callable[[SendEngine], Coroutine[Any, Any, Receipt]]


async def by_nowait(engine: SendEngine) -> Receipt:
    return engine.submit_nowait(note("a", idempotency_key="k"))


async def by_row(engine: SendEngine) -> Receipt:
    return await engine.submit_row(note("a", idempotency_key="k"), row=1)


@pytest.mark.parametrize("submit", [by_nowait, by_row])
def test_what_the_disk_did_not_take_is_abandoned_and_so_is_who_joined_it(tmp_path: Path, submit: Failing) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal) as engine:
            receipt = await submit(engine)
            joiner = engine.submit_nowait(note("a", idempotency_key="k"))
            assert joiner is receipt
            journal.fail_with = StorageError("EIO")
            assert await settled(joiner) == Abandoned(not_sent=("a",))
            await pass_turns()
            assert_nothing_left(engine, transport, disk)

    gc.collect()  # receipts of other tests
    with listening() as events:
        run_virtually(main())
    assert not transport.arrivals
    assert events.names.count("unawaited_failure") == 0


def test_a_job_that_the_disk_did_not_take_and_nobody_awaited_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        journal = FakeJournal(Disk())
        async with durable(tmp_path, FakeTransport(), journal) as engine:
            journal.fail_with = StorageError("EIO")
            engine.submit_nowait(change("u", a=1))
            with pytest.raises(StorageError, match="EIO"):
                await engine.submit(change("u", a=2))
            await pass_turns()

    with listening() as events:
        run_virtually(main())
    assert [fields["outcome"] for fields in events.fields("unawaited_failure")] == ["abandoned"]


def test_a_process_that_dies_before_the_disk_has_a_job_told_nobody_that_it_did(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        engine = durable(tmp_path, transport, journal)
        await engine.__aenter__()
        submitting = asyncio.ensure_future(engine.submit(note("a")))
        await asyncio.sleep(WRITTEN_S)
        await kill(engine, journal)
        assert not submitting.done()
        assert not disk.accepted
        await cancelled(submitting)

    run_virtually(main())
    assert not transport.arrivals


def test_an_engine_that_may_not_wait_leaves_at_its_timeouts_although_the_disk_is_full(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        engine = durable(tmp_path, transport, journal, stopping=StoppingSettings(drain_timeout_s=20, grace_s=5))
        await engine.__aenter__()
        await engine.send(note("a"))
        journal.problem = "full"
        submitting = asyncio.ensure_future(engine.submit(note("b")))
        await asyncio.sleep(1)
        began_s = now_s()
        await within(engine.drain())
        assert now_s() - began_s == pytest.approx(25)
        with pytest.raises(StorageError, match="full"):
            await submitting
        assert_nothing_leaked(engine, transport)

    run_virtually(main())


async def cancelled(task: "asyncio.Future[Receipt]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
