"""A store: changes reach the disk in groups, in time, and come back as they were."""

import asyncio
import gc
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sendengine import StorageError
from sendengine.journal import database, liveness
from sendengine.journal.connection import Durability
from sendengine.journal.schema import WRITE
from sendengine.journal.store import Collector, Store
from tests.support.stores import Disk, Told, copied, held, put
from tests.support.virtual_loop import START_S, run_virtually


@pytest.fixture
def disk() -> Disk:
    return Disk()


# In time


def test_what_somebody_waits_for_is_on_disk_after_five_milliseconds(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        told = [Told() for _ in range(3)]
        for each in told:
            store.put(1, b"x", done=each)
        await told[2].wait()
        assert loop.time() == pytest.approx(START_S + 0.005)
        assert [each.calls for each in told] == [[None]] * 3
        assert len(disk.groups) == 1
        await store.aclose()

    run_virtually(main())


@pytest.mark.parametrize(("records", "size_bytes"), [(512, 10), (2, 131_072)])
def test_a_large_group_goes_at_once(tmp_path: Path, disk: Disk, records: int, size_bytes: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        told = Told()
        for _ in range(records - 1):
            store.put(1, bytes(size_bytes), done=Told())
        await asyncio.sleep(0)
        assert not disk.groups
        store.put(1, bytes(size_bytes), done=told)
        await told.wait()
        assert (loop.time(), len(disk.groups)) == (START_S, 1)
        await store.aclose()

    run_virtually(main())


def test_what_nobody_waits_for_goes_within_a_quarter_second_and_alone_if_need_be(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        record = await put(store, b"x")
        store.remove(record)
        assert not store.has_values_alone
        await asyncio.sleep(0.25)
        assert store.has_values_alone
        assert len(disk.groups) == 2
        await store.aclose()

    run_virtually(main())


def test_a_change_that_can_wait_does_not_ride_with_those_that_cannot_unless_it_is_ordered(
    tmp_path: Path, disk: Disk
) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        first, second, third = [await put(store, each) for each in (b"1", b"2", b"3")]
        store.remove(first)
        store.remove(second, is_ordered=True)
        store.put(1, b"3 again", record=third, is_ordered=True)
        fourth = await put(store, b"4")
        now = await held(copied(store.path, into=tmp_path / "copy"))
        assert now == {first: b"1", third: b"3 again", fourth: b"4"}
        await store.flush()
        assert await held(copied(store.path, into=tmp_path / "copy")) == {third: b"3 again", fourth: b"4"}
        await store.aclose()

    run_virtually(main())


async def test_what_gathers_during_a_write_goes_with_the_next(tmp_path: Path, disk: Disk) -> None:
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    disk.shut()
    told = [Told() for _ in range(11)]
    store.put(1, b"0", done=told[0])
    await disk.until_arrived()
    for number in range(1, 11):
        store.put(1, b"%d" % number, done=told[number])
    disk.gate.set()
    for each in told:
        await each.wait()
    assert len(disk.groups) == 2
    await store.aclose()


async def test_many_waiters_are_told_in_small_steps(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    order: list[object] = []
    loop = asyncio.get_running_loop()
    last = Told()

    def done(error: StorageError | None) -> None:
        if not order or order[-1] != "between":
            loop.call_soon(order.append, "between")
        order.append(error)

    for _ in range(200):
        store.put(1, b"x", done=done)
    store.put(1, b"x", done=last)
    await last.wait()
    steps = "".join("|" if each == "between" else "." for each in order).split("|")
    assert max(map(len, steps)) <= 64 * 2
    assert sum(map(len, steps)) == 200
    await store.aclose()


def test_how_long_a_flush_takes_is_known(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path / "a.db")
        for _ in range(5):
            await put(store, b"x")
        assert 0.004 < store.flush_s < 0.006
        await store.aclose()

    run_virtually(main())


# What comes back


async def test_records_come_back_in_the_order_of_their_ids(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    ids = [await put(store, b"%d" % number, kind=number) for number in (1, 2, 254)]
    store.remove(ids[1])
    store.put(7, b"0 again", record=ids[0])
    store.put(9, b"nobody waits")
    await store.aclose()
    store = await Store.open(tmp_path / "a.db")
    contents = store.contents()
    assert [(each.kind, each.payload) for each in contents.records] == [
        (7, b"0 again"),
        (254, b"254"),
        (9, b"nobody waits"),
    ]
    assert contents.damaged == ()
    with pytest.raises(AssertionError, match="asked for once"):
        store.contents()
    await store.aclose()


async def test_an_id_is_never_given_again(tmp_path: Path) -> None:
    given: list[int] = []
    for _ in range(3):
        store = await Store.open(tmp_path / "a.db")
        given += [await put(store, b"x"), await put(store, b"y")]
        store.remove(given[-1], given[-2])
        await store.aclose()
    assert len(set(given)) == 6
    assert given == sorted(given)


async def test_a_value_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for expected in (None, b"second", b"second"):
        store = await Store.open(tmp_path / "a.db")
        contents = store.contents()
        assert contents.values.get("frontier ü") == expected
        assert not contents.records
        told = Told()
        store.set_value("frontier ü", b"first", done=told)
        await told.wait()
        store.set_value("frontier ü", b"\0")
        store.set_value("frontier ü", b"second")
        await store.aclose()


async def test_a_crash_leaves_a_group_whole_or_not_at_all(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    told = Told()
    ids = [store.put(1, b"%d" % number, done=told) for number in range(40)]
    await told.wait()
    store.remove(*ids[:10])
    await store.flush()
    store.put(1, b"not yet", done=Told())
    assert sorted(await held(copied(store.path, into=tmp_path / "copy"))) == ids[10:]
    await store.aclose()


async def test_a_crash_at_any_statement_leaves_a_prefix_of_the_groups(tmp_path: Path) -> None:
    class CopyingDisk(Disk):
        copies: list[Path] = []  # noqa: RUF012 - one test's

        def pass_or_fail(self, sql: str, parameters: object) -> None:
            del parameters
            if sql == WRITE:
                self.copies.append(copied(tmp_path / "a.db", into=tmp_path / f"copy{len(self.copies)}"))

    disk = CopyingDisk()
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    for number in range(6):
        await put(store, b"%d" % number)
    await store.aclose()
    for number, copy in enumerate(disk.copies):
        assert list((await held(copy)).values()) == [b"%d" % each for each in range(min(number, 6))]


# Waiting and not waiting


async def test_a_put_may_be_withdrawn_until_it_is_being_written(tmp_path: Path, disk: Disk) -> None:
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    early, late, other = Told(), Told(), Told()
    disk.shut()
    first = store.put(1, b"being written", done=late, archived=((1, "a"), b"its key"))
    await disk.until_arrived()
    second = store.put(1, b"waits", done=early, archived=((1, "b"), b"its key"))
    store.put(1, b"other", done=other)
    assert not store.withdraw(first)
    assert store.withdraw(second)
    assert not store.withdraw(second)
    disk.gate.set()
    await other.wait()
    assert (early.calls, late.calls) == ([], [None])
    assert (await store.find(1, "a"), await store.find(1, "b")) == (b"its key", None)
    await store.aclose()
    assert sorted((await held(tmp_path / "a.db")).values()) == [b"being written", b"other"]


async def test_a_flush_waits_for_everything_and_may_be_cancelled(tmp_path: Path, disk: Disk) -> None:
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    disk.shut()
    told = Told()
    store.put(1, b"x", done=told)
    store.put(1, b"nobody waits")
    cancelled, waiting = (asyncio.get_running_loop().create_task(store.flush()) for _ in range(2))
    await disk.until_arrived()
    cancelled.cancel()
    disk.gate.set()
    await waiting
    assert cancelled.cancelled()
    assert told.calls == [None]
    assert len(await held(copied(store.path, into=tmp_path / "copy"))) == 2
    await store.aclose()


async def test_closing_writes_what_waits_and_turns_away_what_comes_later(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    told, late = Told(), Told()
    store.put(1, b"x", done=told)
    await store.aclose()
    assert told.calls == [None]
    store.put(1, b"y", done=late)
    store.remove(1)
    store.archive(1, "a", b"x")
    store.stir()
    with pytest.raises(StorageError, match="is closed"):
        await late.wait()
    with pytest.raises(StorageError, match="is closed"):
        await store.flush()
    with pytest.raises(StorageError, match="is closed"):
        await store.find(1, "a")
    assert store.problem is None  # it was closed in peace
    await store.aclose()
    assert list((await held(tmp_path / "a.db")).values()) == [b"x"]


async def test_closing_leaves_no_thread_and_no_file_but_the_stores(tmp_path: Path) -> None:
    import threading  # noqa: PLC0415 - only here

    before = threading.active_count()
    store = await Store.open(tmp_path / "new" / "a.db")
    assert threading.active_count() == before + 1
    await put(store, b"x")
    await store.aclose()
    gc.collect()
    assert threading.active_count() == before
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["a.db"]


# Hooks


def test_a_hook_adds_to_every_group_that_carries_what_nobody_waits_for(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path / "a.db", connect=disk.connect)
        lines, asked = tmp_path / "lines", list[int]()

        def hook(collector: Collector) -> None:
            asked.append(len(asked))
            number = len(asked)
            collector.set_value("lines", b"%d" % number)
            collector.do(lambda: write(number))

        def write(number: int) -> None:
            lines.write_text("line\n" * number)

        store.collect(hook)
        record = await put(store, b"x")
        assert not asked
        store.stir()
        await asyncio.sleep(0.25)
        assert (asked, lines.read_text()) == ([0], "line\n")
        store.remove(record)
        await store.flush()
        copy = await Store.open(copied(store.path, into=tmp_path / "copy"))
        assert copy.contents().values == {"lines": b"2"}
        await copy.aclose()
        await store.aclose()
        assert lines.read_text() == "line\n" * 3

    run_virtually(main())


# The archive


async def test_what_is_archived_is_found_before_and_after_it_is_on_disk(tmp_path: Path, disk: Disk) -> None:
    store = await Store.open(tmp_path / "a.db", connect=disk.connect)
    store.archive(1, "a", b"first")
    store.archive(1, "a", b"second")
    store.archive(2, "a", b"of another kind")
    assert (await store.find(1, "a"), await store.find(1, "b")) == (b"second", None)
    await store.flush()
    disk.statements.clear()
    found = await asyncio.gather(*(store.find(1, name) for name in ("a", "b", "a", "c")))
    assert found == [b"second", None, b"second", None]
    assert len(disk.statements) == 2  # the first at once, those that came meanwhile together
    await store.put_as_one((), forgotten=[(1, "a")])
    assert await store.find(1, "a") is None
    await store.aclose()
    store = await Store.open(tmp_path / "a.db")
    assert [(row.name, row.payload) for row in await store.archived(2, lambda row: row)] == [("a", b"of another kind")]
    assert await store.archived(1, lambda row: row) == []
    await store.aclose()


def test_what_is_too_old_leaves_the_archive_within_the_hour(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = await Store.open(tmp_path / "a.db", now_s=lambda: 1e9 + loop.time())
        store.archive(1, "short", b"x")
        store.archive(2, "long", b"x")
        for number in range(1200):  # more than are taken out at once
            store.archive(3, f"{number}", b"x")
        store.prune({1: 100.0, 2: 10_000.0, 3: 100.0})
        await store.flush()
        await asyncio.sleep(3590)
        assert await store.find(1, "short") == b"x"
        await asyncio.sleep(20)
        assert (await store.find(1, "short"), await store.find(2, "long")) == (None, b"x")
        await asyncio.sleep(1)
        assert await store.archived(3, lambda row: row) == []
        await store.aclose()

    run_virtually(main())


# Bounded


def test_the_log_is_as_long_as_what_counts_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "SLACK_BYTES", 20_000)
    monkeypatch.setattr(liveness, "MOVED_BYTES", 5_000)
    monkeypatch.setattr(database, "_checkpoint_bytes", lambda _: 50_000)

    async def main() -> None:
        store = await Store.open(tmp_path / "a.db")
        old = await put(store, b"stays")
        value = Told()
        store.set_value("v", b"stays too", done=value)
        await value.wait()
        for _ in range(600):
            record = await put(store, bytes(1000))
            store.remove(record)
        await store.flush()
        assert store._flusher._liveness.log_bytes < 40_000  # the longest that it may be with a group under way
        assert (tmp_path / "a.db").stat().st_size + (tmp_path / "a.db-wal").stat().st_size < 400_000
        copy = await Store.open(copied(store.path, into=tmp_path / "copy"))
        contents = copy.contents()
        assert {record.id: record.payload for record in contents.records} == {old: b"stays"}
        assert contents.values == {"v": b"stays too"}
        await copy.aclose()
        await store.aclose()
        assert await held(tmp_path / "a.db") == {old: b"stays"}

    run_virtually(main())


def test_a_record_that_is_moved_and_removed_in_one_step_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "SLACK_BYTES", 1_000)
    monkeypatch.setattr(liveness, "MOVED_BYTES", 100)

    async def main() -> None:
        store = await Store.open(tmp_path / "a.db")
        standing = [await put(store, b"%d" % number) for number in range(10)]
        for number in range(300):
            standing.append(await put(store, bytes(50)))
            store.remove(standing.pop(number % len(standing)), is_ordered=bool(number % 3))
            if number % 7 == 0:
                store.put(1, b"again", record=standing[0])
            if number % 50 == 0:
                await store.flush()
                assert sorted(await held(copied(store.path, into=tmp_path / "copy"))) == sorted(standing)
        await store.aclose()
        assert sorted(await held(tmp_path / "a.db")) == sorted(standing)

    run_virtually(main())


async def test_a_large_file_that_is_nearly_empty_gives_its_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_ROOMY_PAGES", 50)
    store = await Store.open(tmp_path / "a.db")
    large = await put(store, bytes(1_000_000))
    store.remove(large)
    kept = await put(store, b"stays")
    await store.flush()
    assert (tmp_path / "a.db").stat().st_size + (tmp_path / "a.db-wal").stat().st_size > 1_000_000
    store.prune({})
    await store.flush()
    assert (tmp_path / "a.db").stat().st_size + (tmp_path / "a.db-wal").stat().st_size < 1_000_000
    await store.aclose()
    assert await held(tmp_path / "a.db") == {kept: b"stays"}


# Whose it is


async def test_nobody_else_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.umask", lambda _: 0)
    store = await Store.open(tmp_path / "state" / "a.db")
    await put(store, b"x")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "state").iterdir()}
    assert modes == {"a.db": 0o600, "a.db-wal": 0o600, "a.db.reserve": 0o600}
    await store.aclose()


async def test_a_file_belongs_to_one_process(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db")
    with pytest.raises(StorageError, match=r"a\.db is in use by another process"):
        await Store.open(tmp_path / "a.db")
    await put(store, b"x")
    await store.aclose()
    await (await Store.open(tmp_path / "a.db")).aclose()


@pytest.mark.parametrize(("durability", "level"), [("durable", 2), ("relaxed", 1)])
async def test_durability_decides_what_a_commit_waits_for(tmp_path: Path, durability: Durability, level: int) -> None:
    store = await Store.open(tmp_path / "a.db", durability=durability)
    connection = store._database._connection

    def pragma(name: str) -> Callable[[], object]:
        return lambda: next(connection.execute(f"PRAGMA {name}"))[0]

    for name, value in [
        ("synchronous", level),
        ("locking_mode", "exclusive"),
        ("journal_mode", "wal"),
        ("mmap_size", 0),
        ("wal_autocheckpoint", 0),
    ]:
        assert await store._writer.run(pragma(name)) == value, name
    assert not (tmp_path / "a.db-shm").exists()
    await store.aclose()
