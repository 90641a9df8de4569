"""A full disk pauses a store and loses nothing; a broken one stops it at once."""

import asyncio
import errno
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest

from sendengine import Accepted, StorageError
from sendengine.journal import database
from sendengine.journal.outbox import Outbox
from sendengine.journal.reserve import MOST_BYTES
from sendengine.journal.store import Collector, Store
from sendengine.ports import Portion
from tests.support.stores import Disk, Told, a_job, accepted, copied, held, no_space, put
from tests.support.virtual_loop import START_S, run_virtually


@pytest.fixture
def disk() -> Disk:
    return Disk()


# A full disk


def test_a_full_disk_is_waited_for_and_named_and_goes_on_within_five_seconds(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        problems: list[str | None] = []
        store.when_trouble = lambda: problems.append(store.problem)
        disk.is_full = True
        told = Told()
        record = store.put(1, b"x", done=told)
        flushed = loop.create_task(store.flush())
        await asyncio.sleep(600)
        assert told.calls == []
        assert not flushed.done()
        assert problems == [
            f"the disk that holds {store.path} is full; free some room there, and it goes on within 5 s"
        ]
        disk.is_full = False
        begun_s = loop.time()
        await flushed
        assert loop.time() - begun_s <= 1.1
        assert told.calls == [None]
        assert problems[1:] == [None]
        assert store.flush_s < 1  # the wait says nothing about the next one
        await store.aclose()
        assert await held(store.path) == {record: b"x"}

    run_virtually(main())


def test_what_lets_go_is_written_out_of_the_reserve(tmp_path: Path, disk: Disk) -> None:
    reserve = tmp_path / "a.db.reserve"

    class Reserved(Disk):
        def pass_or_fail(self, sql: str, parameters: object) -> None:
            self.is_full = self.has_filled and reserve.exists()
            super().pass_or_fail(sql, parameters)  # type: ignore[arg-type]

        has_filled = False

    disk = Reserved()

    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        first, second = await put(store, b"1"), await put(store, b"2")
        assert reserve.stat().st_size == MOST_BYTES
        disk.has_filled = True
        told = Told()
        third = store.put(1, b"3", done=told)
        store.remove(first, is_ordered=True)
        await asyncio.sleep(0.1)
        assert not reserve.exists()
        assert await held(copied(store.path, into=tmp_path / "copy")) == {second: b"2"}
        store.remove(second)
        store.archive(1, "a", b"b")
        await asyncio.sleep(0.25)
        assert await held(copied(store.path, into=tmp_path / "copy")) == {}
        assert told.calls == []
        disk.has_filled = False
        await told.wait()
        assert await held(copied(store.path, into=tmp_path / "copy")) == {third: b"3"}
        assert await store.find(1, "a") == b"b"
        assert reserve.stat().st_size == MOST_BYTES
        await store.aclose()
        assert not reserve.exists()

    run_virtually(main())


def test_a_store_whose_process_was_killed_opens_on_a_full_disk_out_of_the_reserve(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    reserve = folder / "a.db.reserve"

    class Reserved(Disk):
        def pass_or_fail(self, sql: str, parameters: object) -> None:
            self.is_full = reserve.exists()
            super().pass_or_fail(sql, parameters)  # type: ignore[arg-type]

    async def main() -> None:
        store = await Store.open(tmp_path / "a.db")
        record = await put(store, b"1")
        copied(store.path, into=folder)
        await store.aclose()
        reserve.write_bytes(bytes(MOST_BYTES))
        full = await Store.open(folder / "a.db", connect=Reserved().connect)
        assert {each.id: each.payload for each in full.contents().records} == {record: b"1"}
        await full.aclose()

    run_virtually(main())


def test_nothing_is_taken_on_before_there_is_room_for_the_reserve(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        disk.is_full = True
        told = Told()
        store.put(1, b"x", done=told)
        await asyncio.sleep(0.5)
        disk.is_full = False

        def refuse(*_: object) -> None:
            raise no_space()

        monkeypatch.setattr("os.posix_fallocate", refuse)
        await asyncio.sleep(5)
        assert told.calls == []
        monkeypatch.undo()
        await told.wait()
        await store.aclose()

    run_virtually(main())


def test_what_waits_for_room_may_be_withdrawn_or_let_go(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        told = [Told() for _ in range(3)]
        kept = store.put(1, b"stays", done=told[0], archived=((1, "a"), b"with it"))
        gone = store.put(1, b"goes", done=told[1], archived=((1, "b"), b"with it"))
        disk.is_full = True
        await asyncio.sleep(0.1)
        late = store.put(1, b"late", done=told[2])
        assert store.withdraw(late)
        store.remove(gone, is_ordered=True)
        await asyncio.sleep(3)
        assert await store.find(1, "a") == b"with it"
        disk.is_full = False
        await store.flush()
        assert [each.calls for each in told] == [[None], [None], []]
        assert (await store.find(1, "a"), await store.find(1, "b")) == (b"with it", None)
        await store.aclose()
        assert await held(store.path) == {kept: b"stays"}

    run_virtually(main())


def test_the_work_of_a_hook_is_done_again_until_there_is_room(tmp_path: Path, disk: Disk) -> None:
    lines = tmp_path / "lines"
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        if len(done) < 4:
            raise no_space()
        with lines.open("a") as file:
            file.write(f"{number}\n")

    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        numbers = iter(range(100))

        def hook(collector: Collector) -> None:
            number = next(numbers)
            collector.set_value("number", b"%d" % number)
            collector.do(lambda: work(number))

        store.collect(hook)
        record = store.put(1, b"x")
        await store.flush()
        written = lines.read_text().split()
        assert written == sorted(written, key=int)  # in their order, none left out
        assert written == [str(number) for number in range(len(written))]
        assert await held(copied(store.path, into=tmp_path / "copy")) == {record: b"x"}
        await store.aclose()

    run_virtually(main())


def test_closing_on_a_full_disk_says_what_was_not_taken(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        disk.is_full = True
        told = Told()
        store.put(1, b"x", done=told)
        await store.aclose()
        with pytest.raises(StorageError):
            await told.wait()
        assert loop.time() - START_S < 5
        assert await held(store.path) == {}

    run_virtually(main())


# A broken disk


async def test_a_failed_write_is_never_tried_again(tmp_path: Path, disk: Disk) -> None:
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    standing = await put(store, b"before")
    told = [Told() for _ in range(3)]
    troubles: list[str | None] = []
    store.when_trouble = lambda: troubles.append(store.problem)
    disk.shut()
    store.put(1, b"being written", done=told[0])
    await disk.until_arrived()
    store.put(1, b"waits", done=told[1])
    flushed = asyncio.get_running_loop().create_task(store.flush())
    disk.is_broken = True
    disk.gate.set()
    for each in (told[0].wait(), told[1].wait(), flushed):
        with pytest.raises(StorageError, match=r"a\.db: disk I/O error \(SQLITE_IOERR_FSYNC\)|disk I/O error"):
            await each
    disk.is_broken = False
    statements = len(disk.statements)
    store.put(1, b"later", done=told[2])
    assert told[2].calls == []
    with pytest.raises(StorageError, match="disk I/O error"):
        await told[2].wait()
    store.remove(standing)
    store.set_value("v", b"x")
    store.put(1, b"nobody waits")
    with pytest.raises(StorageError, match="disk I/O error"):
        await store.flush()
    assert len(troubles) == 1
    assert store.problem is not None
    assert "disk I/O error" in store.problem
    assert len(disk.statements) == statements
    await store.aclose()
    assert await held(store.path) == {standing: b"before"}


async def test_everybody_is_given_a_failure_of_his_own_to_raise(tmp_path: Path, disk: Disk) -> None:
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    disk.is_broken = True
    errors: list[StorageError | None] = []
    for _ in range(2):
        store.put(1, b"x", done=errors.append)
    with pytest.raises(StorageError) as first:
        await store.flush()
    with pytest.raises(StorageError) as second:
        await store.flush()
    raised = [*errors, first.value, second.value, store.failure]
    assert len({id(error) for error in raised}) == 5
    assert len({str(error) for error in raised}) == 1
    await store.aclose()


async def test_a_failed_checkpoint_is_a_failed_disk(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Checkpointing(Disk):
        def pass_or_fail(self, sql: str, parameters: object) -> None:
            self.is_broken = "wal_checkpoint" in sql and bool(self.groups)
            super().pass_or_fail(sql, parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "_checkpoint_bytes", lambda _: 1)
    disk = Checkpointing()
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    failed = asyncio.Event()
    store.when_trouble = failed.set
    await put(store, b"x")
    await failed.wait()
    assert store.failure is not None
    await store.aclose()
    assert list((await held(store.path)).values()) == [b"x"]


async def test_a_hooks_work_that_fails_stops_the_store(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")

    def work() -> None:
        raise OSError(errno.EIO, "Input/output error", "lines.jsonl")

    store.collect(lambda collector: collector.do(work))
    with pytest.raises(StorageError, match=r"cannot write lines\.jsonl: Input/output error"):
        await store.flush()
    await store.aclose()


async def test_a_failed_look_up_is_told_to_all_who_asked(tmp_path: Path, disk: Disk) -> None:
    class Unreadable(Disk):
        def pass_or_fail(self, sql: str, parameters: object) -> None:
            self.is_broken = sql.startswith("SELECT name")
            super().pass_or_fail("PRAGMA wal_checkpoint" if self.is_broken else sql, parameters)  # type: ignore[arg-type]

    disk = Unreadable()
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    answers = await asyncio.gather(store.find(1, "a"), store.find(1, "b"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageError, StorageError]
    await store.aclose()


# Real disks


@pytest.fixture(params=["16m"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 16 MB, or as a test says, where the tests may make one."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(  # noqa: S603 - nobody gives these words
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(place)],  # noqa: S607 - wherever it is
        capture_output=True,
        check=False,
        timeout=30,
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=30)  # noqa: S603, S607 - as above


async def test_a_disk_that_others_fill_is_waited_for(small_disk: Path) -> None:
    store = await Store.open(small_disk / "a.db")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(11_000_000))
    troubled = asyncio.Event()
    store.when_trouble = troubled.set
    told = [Told() for _ in range(60)]
    ids = [store.put(1, b"%4d" % number + bytes(50_000), done=each) for number, each in enumerate(told)]
    async with asyncio.timeout(30):
        await troubled.wait()
        assert store.problem is not None
        assert not all(each.calls for each in told)
        filler.unlink()
        await store.flush()
    assert all(each.calls == [None] for each in told)
    assert store.problem is None
    await store.aclose()
    assert sorted(await held(store.path)) == ids


@pytest.mark.parametrize("small_disk", ["1m", "2m", "4m"], indirect=True)
def test_on_the_smallest_disk_settlements_are_kept_while_it_is_full(small_disk: Path) -> None:
    async def main() -> None:
        outbox = await Outbox.open(small_disk / "a.db")
        await outbox.recover(when_failed=print)
        jobs = [outbox.accept(a_job(number), app="shop", done=Told()) for number in range(300)]
        await outbox.flush()
        fill(small_disk / "filler")
        for start in range(0, len(jobs), 10):
            portions = [Portion(job, ("u",), Accepted(("m",)), is_last=True) for job in jobs[start : start + 10]]
            outbox.settle(portions, request=None)
            await asyncio.sleep(0.25)
        await asyncio.sleep(3)
        crashed = await Outbox.open(copied(small_disk / "a.db", into=small_disk.parent / "copy"))
        assert crashed.is_empty
        await crashed.aclose()
        (small_disk / "filler").unlink()
        await accepted(outbox)
        await outbox.flush()
        assert outbox.problem is None
        await outbox.aclose()

    run_virtually(main())


def fill(path: Path) -> None:
    """Leave no room on a disk."""
    with path.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_a_file_that_may_not_grow_stops_the_store_and_what_was_told_stays(tmp_path: Path) -> None:
    program = dedent("""
        import asyncio, resource, signal, sys
        from pathlib import Path
        from sendengine import StorageError
        from sendengine.journal.store import Store

        async def main(path):
            store = await Store.open(path)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
            told = 0
            while True:
                written = asyncio.get_running_loop().create_future()
                store.put(1, bytes(20_000), done=written.set_result)
                error = await written
                if error is not None:
                    break
                told += 1
            assert isinstance(error, StorageError), error
            await store.aclose()
            print(told, error)

        asyncio.run(main(Path(sys.argv[1])))
    """)
    ran = subprocess.run(  # noqa: S603 - a program of this test
        [sys.executable, "-c", program, str(tmp_path / "a.db")], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    told = int(ran.stdout.split()[0])
    assert 0 < told < 10
    assert "disk I/O error" in ran.stdout
    assert len(asyncio.run(held(tmp_path / "a.db"))) == told
