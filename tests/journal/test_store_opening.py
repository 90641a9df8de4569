"""Opening a store: versions, damage, and what an interrupted repair left."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from sendengine import StorageError
from sendengine.journal.connection import Connection, connect_sqlite
from sendengine.journal.making import make_file
from sendengine.journal.reserve import Reserve
from sendengine.journal.schema import MIGRATIONS
from sendengine.journal.store import Store
from tests.support.stores import PATIENCE_S, copied, held, put
from tests.support.virtual_loop import run_virtually


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store of 40 groups, a record each, and an archive."""
    path = tmp_path_factory.mktemp("template") / "a.db"

    async def main() -> None:
        store = await Store.open(path)
        for number in range(40):
            store.archive(1, f"key {number}", b"value")
            assert await put(store, b"record %d " % number + bytes(300)) == IDS[number]
        await store.aclose()

    run_virtually(main())
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, template: bytes) -> Path:
    path = tmp_path / "a.db"
    path.write_bytes(template)
    return path


IDS = list(range(1, 41))


def changed(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_an_opening_that_is_cancelled_gives_the_file_back(path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    def connect(file: Path) -> Connection:
        begun.set()
        assert gate.wait(PATIENCE_S)
        return connect_sqlite(file)

    opening = asyncio.ensure_future(Store.open(path, connect=connect))
    assert await asyncio.to_thread(begun.wait, PATIENCE_S)
    opening.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not Reserve(path).is_kept, "it would tell of a process that was killed"
    store = await Store.open(path)  # nobody else has it
    assert len(store.contents().records) == len(IDS)
    await store.aclose()


async def test_a_new_file_has_the_present_version(tmp_path: Path) -> None:
    await (await Store.open(tmp_path / "a.db")).aclose()
    connection = sqlite3.connect(tmp_path / "a.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    connection.close()


async def test_an_older_file_is_brought_to_the_present_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = (*MIGRATIONS, ("CREATE TABLE more (x INTEGER) STRICT", "INSERT INTO more VALUES (5)"))
    monkeypatch.setattr("sendengine.journal.schema.MIGRATIONS", newer)
    monkeypatch.setattr("sendengine.journal.schema._expected", _newer_tables)
    assert list(await held(path)) == IDS
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT x FROM more").fetchall() == [(5,)]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
    connection.close()


def _newer_tables() -> frozenset[tuple[object, ...]]:
    connection = sqlite3.connect(":memory:")
    for statement in (*MIGRATIONS[0], "CREATE TABLE more (x INTEGER) STRICT"):
        connection.execute(statement)
    found = frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))
    connection.close()
    return found


async def test_a_newer_file_is_left_alone(path: Path) -> None:
    changed(path, "PRAGMA user_version = 7")
    before = data_of(path)
    with pytest.raises(StorageError) as caught:
        await Store.open(path)
    assert str(caught.value) == (
        f"{path} was written by a newer sendengine: its format is 7, and this one knows up to {len(MIGRATIONS)}; "
        "use the newer one, or another directory"
    )
    assert data_of(path) == before
    assert not path.with_name("a.db.damaged").exists()


@pytest.mark.parametrize("place", ["file/a.db", "directory.db"])
async def test_a_place_where_no_file_can_be_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory.db").mkdir()
    with pytest.raises(StorageError, match=r"cannot (write|read or write) .*(file|directory\.db)"):
        await Store.open(tmp_path / place)


# Damage


def data_of(path: Path) -> bytes:
    return path.read_bytes()


def overwritten(path: Path, data: bytes, *, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def fresh(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def flipped(path: Path, *, at: int) -> None:
    overwritten(path, bytes([data_of(path)[at] ^ 0xFF]), at=at)


async def test_a_damaged_record_is_set_aside_and_named_and_the_rest_is_served(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flipped(path, at=data_of(path).index(b"record 7 ") + 50)
    store = await Store.open(path)
    contents = store.contents()
    assert [record.id for record in contents.records] == [each for each in IDS if each != IDS[7]]
    aside = path.with_name("a.db.damaged.jsonl")
    assert contents.damaged == (f"{path} had 1 damaged records; they are set aside in {aside}, the rest is served",)
    assert contents.damaged[0] in caplog.text
    (line,) = map(orjson.loads, aside.read_bytes().splitlines())
    assert line["what"] == "a record of group 8"
    assert aside.stat().st_mode & 0o777 == 0o600
    assert await put(store, b"goes on") > IDS[-1]
    await store.aclose()
    store = await Store.open(path)
    assert store.contents().damaged == ()  # it is named once
    await store.aclose()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flipped(path, at=0),  # no database any more
        lambda path: flipped(path, at=17),  # another size of pages
        lambda path: flipped(path, at=103),  # the schema has more rows
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b"no database at all, but a text that somebody saved in its place" * 100),
        lambda path: changed(path, "DROP TABLE archive"),
        lambda path: changed(path, "CREATE TABLE other (x)"),
        lambda path: changed(path, "UPDATE log SET seq = seq + 100 WHERE seq > 20"),
        lambda path: changed(path, "PRAGMA user_version = -1"),
        lambda path: changed(path, "PRAGMA user_version = 0"),
    ],
)
async def test_a_damaged_file_is_kept_and_named_and_what_can_be_read_of_it_is_served(
    path: Path, damage: Callable[[Path], None]
) -> None:
    damage(path)
    store = await Store.open(path)
    contents = store.contents()
    (named,) = contents.damaged
    assert "a.db" in named
    assert f"the file is kept as {path}.damaged" in named
    assert path.with_name("a.db.damaged").exists()
    assert all(record.payload.startswith(b"record %d " % (record.id - 1)) for record in contents.records)
    await put(store, b"goes on")
    await store.aclose()
    store = await Store.open(path)
    assert store.contents().damaged == ()
    await store.aclose()


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("DROP TABLE archive", 40),
        ("UPDATE log SET seq = seq + 100 WHERE seq > 20", 40),
        ("PRAGMA user_version = -1", 40),
        ("DELETE FROM log WHERE seq BETWEEN 10 AND 12", 37),
    ],
)
async def test_every_group_that_can_be_read_is_salvaged(path: Path, statement: str, left: int) -> None:
    changed(path, statement, "PRAGMA application_id = 1")
    if left < 40:
        changed(path, "PRAGMA user_version = -1")
    assert len(await held(path)) == left
    store = await Store.open(path)
    assert await put(store, b"x") > IDS[-1]
    if "DROP" not in statement:
        assert await store.find(1, "key 39") == b"value"
    await store.aclose()


async def test_damage_in_the_middle_of_the_file_costs_what_stood_there(path: Path) -> None:
    page = data_of(path).index(b"record 20 ") // 4096
    overwritten(path, bytes(8), at=page * 4096)  # the head of a page of the log
    store = await Store.open(path)
    found = {record.id for record in store.contents().records}
    assert 20 <= len(found) < 40
    assert {IDS[0], IDS[-1]} <= found
    await store.aclose()


async def test_a_repair_that_was_interrupted_is_finished_or_begun_anew(path: Path) -> None:
    new = path.with_name("a.db.new")
    new.write_bytes(b"half of it")
    assert list(await held(path)) == IDS
    assert not new.exists()
    os.rename(path, new)  # noqa: PTH104 - pathlib is not for coroutines;  the damaged one had been taken away, and the new one was ready
    assert list(await held(path)) == IDS
    assert not new.exists()


async def test_a_damaged_entry_of_the_archive_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await Store.open(path)
    store.archive(1, "a", b"precious")
    store.archive(1, "b", b"whole")
    await store.aclose()
    changed(path, "UPDATE archive SET payload = substr(payload, 1, 5) WHERE name = 'a'")
    store = await Store.open(path)
    assert (await store.find(1, "a"), await store.find(1, "b")) == (None, b"whole")
    assert [row.payload for row in await store.archived(1, lambda row: row)] == [None, b"whole"]
    await store.aclose()


async def test_a_torn_write_ahead_log_leaves_what_was_told_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await Store.open(path)
    sizes = []
    for number in range(8):
        await put(store, b"%d" % number)
        sizes.append((tmp_path / "a.db-wal").stat().st_size)
    wal, main = (tmp_path / "a.db-wal").read_bytes(), path.read_bytes()
    await store.aclose()
    for number, size in enumerate(sizes):
        (tmp_path / "copy.db").write_bytes(main)
        (tmp_path / "copy.db-wal").write_bytes(wal[: size - 1])
        assert list((await held(tmp_path / "copy.db")).values()) == [b"%d" % each for each in range(number)]


async def test_damage_in_the_middle_of_the_write_ahead_log_is_told_from_its_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await Store.open(path)
    ends = []
    for number in range(8):
        await put(store, b"%d" % number)
        ends.append(path.with_name("a.db-wal").stat().st_size)
    copy = copied(path, into=tmp_path / "copy")
    await store.aclose()
    log = data_of(copy.with_name("a.db-wal"))
    main = data_of(copy)
    for group, lost in ((7, 0), (6, 1), (3, 4), (0, 7)):
        overwritten(copy, main, at=0)
        fresh(copy.with_name("a.db-wal"), log)
        flipped(copy.with_name("a.db-wal"), at=ends[group] - 10)
        opened = await Store.open(copy)
        contents = opened.contents()
        assert [record.payload for record in contents.records] == [b"%d" % each for each in range(group)]
        assert contents.damaged == (
            (f"the write-ahead log of {copy} is damaged: {lost} groups of changes are lost",) if lost else ()
        )
        await opened.aclose()


async def test_a_file_that_lost_everything_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await Store.open(path)
    await put(store, b"x")
    await store.aclose()
    path.write_bytes(b"")
    store = await Store.open(path)
    (damage,) = store.contents().damaged
    assert f"{path} is damaged: it is empty" in damage
    assert await put(store, b"y")
    await store.aclose()
    store = await Store.open(path)
    assert store.contents().damaged == ()
    await store.aclose()


async def test_a_write_ahead_log_without_its_file_is_read_as_far_as_it_goes_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await Store.open(path)
    await put(store, b"x")
    killed = copied(path, into=tmp_path / "killed")
    await store.aclose()
    killed.unlink()
    store = await Store.open(killed)
    assert store.contents().damaged
    await store.aclose()
    assert killed.with_name("a.db.damaged").exists()


async def test_a_process_that_dies_while_it_makes_the_file_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"

    def die(_: Path, __: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            make_file(path)
    (tmp_path / "a.db.fresh").write_bytes(b"half of it")
    store = await Store.open(path)
    assert store.contents().damaged == ()
    await store.aclose()
    assert os.listdir(tmp_path) == ["a.db"]  # noqa: PTH208 - names are all that is wanted
