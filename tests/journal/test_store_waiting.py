"""Whoever waits for a store is told in the end, whatever others do meanwhile."""

import asyncio
import threading
from pathlib import Path

import pytest

from sendengine import StorageError
from sendengine.journal.flushing import GROUP_RECORDS
from sendengine.journal.outbox import Outbox
from sendengine.journal.store import Store
from sendengine.journal.telling import TOLD_AT_ONCE
from sendengine.journal.writer import Writer
from tests.support.stores import Disk, Told, a_job, held, put
from tests.support.virtual_loop import run_virtually

BOUND_S = 60  # virtual


def test_a_job_that_is_withdrawn_does_not_hold_up_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        outbox = await Outbox.open(tmp_path / "a.db")
        await outbox.recover(when_failed=print)
        first = outbox.accept(a_job(1), app="shop", done=Told())
        assert outbox.withdraw(first)
        await asyncio.sleep(1)
        told = Told()
        outbox.accept(a_job(2), app="shop", done=told)
        async with asyncio.timeout(BOUND_S):
            await told.wait()
        await outbox.aclose()

    run_virtually(main())


def test_who_waits_for_a_group_with_one_large_record_is_told(tmp_path: Path) -> None:
    disk = Disk()

    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        disk.shut()
        store.put(1, b"x", done=Told())
        await asyncio.sleep(0.005)
        await disk.until_arrived()
        store.put(1, bytes(2_000_000), done=Told())
        flushed = asyncio.get_running_loop().create_task(store.flush())
        await asyncio.sleep(0)
        disk.gate.set()
        async with asyncio.timeout(BOUND_S):
            await flushed
        await store.aclose()

    run_virtually(main())


async def test_a_callback_that_raises_is_reported_and_holds_up_nobody(tmp_path: Path) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    trouble = ZeroDivisionError("a caller's")

    def raising(_: StorageError | None) -> None:
        raise trouble

    store = await Store.open(tmp_path / "a.db")
    told = [Told() for _ in range(100)]
    for each in told:
        store.put(1, b"x", done=raising)
        store.put(1, b"x", done=each)
    async with asyncio.timeout(30):
        for each in told:
            await each.wait()
        store.put(1, b"x", done=raising)
        await store.aclose()
    assert reported == [trouble] * 101
    assert len(await held(store.path)) == 201


@pytest.mark.parametrize("fault", ["is_full", "is_broken"])
def test_a_callback_of_trouble_that_raises_holds_up_nobody(tmp_path: Path, fault: str) -> None:
    disk = Disk()
    reported: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)

        def raising() -> None:
            raise ZeroDivisionError

        store.when_trouble = raising
        setattr(disk, fault, True)
        told = Told()
        store.put(1, b"x", done=told)
        await asyncio.sleep(1)
        setattr(disk, fault, False)
        async with asyncio.timeout(BOUND_S):
            if fault == "is_full":
                await told.wait()
            else:
                with pytest.raises(StorageError):
                    await told.wait()
        await store.aclose()

    run_virtually(main())
    assert reported


async def test_a_hook_that_raises_ends_the_store_and_everybody_is_told(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    standing = await put(store, b"before")

    def raising(_: object) -> None:
        raise ZeroDivisionError

    store.collect(raising)
    told = Told()
    store.put(1, b"x", done=told)
    async with asyncio.timeout(30):
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            await store.flush()
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            await told.wait()
        await store.aclose()
    assert await held(store.path) == {standing: b"before"}


async def test_a_closing_that_was_cancelled_while_its_thread_ends_is_waited_for_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(tmp_path / "a.db")
    await put(store, b"x")
    end_thread = Writer.aclose

    async def cancelled(writer: Writer) -> None:
        closing.cancel()
        await end_thread(writer)

    monkeypatch.setattr(Writer, "aclose", cancelled)
    closing = asyncio.get_running_loop().create_task(store.aclose())
    await asyncio.gather(closing, return_exceptions=True)
    async with asyncio.timeout(30):
        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()
    assert len(await held(store.path)) == 1


async def test_what_is_asked_of_a_thread_that_has_ended_fails(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    asked = [asyncio.get_running_loop().create_task(store.find(1, f"name {number}")) for number in range(3)]
    await asyncio.sleep(0)  # the first is asked at once, the others when that is answered
    await store.aclose()
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(answer is None or isinstance(answer, StorageError) for answer in answers)
    with pytest.raises(StorageError, match="closed"):
        await store._writer.run(lambda: None)


async def test_who_waits_is_told_in_the_order_of_asking_although_the_next_group_lands_meanwhile(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    told: list[int] = []
    landed = threading.Event()

    def note(number: int) -> None:
        told.append(number)
        if number == TOLD_AT_ONCE:  # the second group is on its way: wait until the loop has heard of it
            store._writer.start(landed.set, done=lambda _: None, failed=print)
            assert landed.wait(BOUND_S)

    for number in range(2 * GROUP_RECORDS):
        store.take(1, b"x", lambda _, number=number: note(number))  # type: ignore[misc]
    async with asyncio.timeout(BOUND_S):
        await store.flush()
        await store.aclose()
    assert landed.is_set()
    assert told == list(range(2 * GROUP_RECORDS))
