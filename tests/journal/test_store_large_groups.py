"""What gathered while the disk was slow is too much for one group: a crash between its parts leaves what counts."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sendengine.journal.connection import Connection, Row, Value
from sendengine.journal.outbox import Outbox
from sendengine.journal.schema import WRITE
from sendengine.journal.store import Store
from tests.support.stores import Disk, a_job, a_seal, copied
from tests.support.virtual_loop import run_virtually

LARGE = 700_000  # bytes; two of them are too much for a group


class Photographed(Disk):
    """Keeps a copy of a store's files from after each group."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Path] = []

    def connect(self, path: Path) -> Connection:
        return _Watched(super().connect(path), path, self.pictures)


class _Watched:
    def __init__(self, connection: Connection, path: Path, pictures: list[Path]) -> None:
        self._connection = connection
        self._path = path
        self._pictures = pictures

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Iterator[Row]:
        done = self._connection.execute(sql, parameters)
        if sql == WRITE:
            into = self._path.parent / f"picture-{len(self._pictures)}"
            self._pictures.append(copied(self._path, into=into))
        return done

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def test_what_was_on_the_wire_is_begun_on_disk_when_its_request_is_gone(path: Path) -> None:
    disk = Photographed()

    async def main() -> None:
        outbox = await Outbox.open(path, connect=disk.connect)
        await outbox.recover(when_failed=print)
        job = outbox.accept(a_job(1), app="shop", done=lambda _: None)
        request = await outbox.seal(a_seal((job, ()), key=None))
        disk.shut()
        outbox.accept(a_job(2), app="shop", done=lambda _: None)
        await asyncio.sleep(0.005)
        await disk.until_arrived()
        for number in (7, 8, 9):
            outbox.store.put(number, bytes(LARGE), done=lambda _: None)  # as many jobs would
        outbox.unseal(request, maybe_received=True)
        disk.gate.set()
        await outbox.flush()
        await outbox.aclose()

    run_virtually(main())
    assert len(disk.pictures) > 3
    for picture in disk.pictures:
        assert_known_to_be_begun_or_on_the_wire(picture)


def assert_known_to_be_begun_or_on_the_wire(path: Path) -> None:
    async def main() -> None:
        outbox = await Outbox.open(path)
        found = await outbox.recover(when_failed=print)
        if len(found.jobs) > 1:  # before that nothing was on the wire
            assert found.jobs[0].was_begun
        await outbox.aclose()

    run_virtually(main())


def test_a_value_stands_where_it_stood_until_the_new_one_is_on_disk(path: Path) -> None:
    disk = Photographed()

    async def main() -> None:
        store = await Store.open(path, connect=disk.connect)
        store.set_value("frontier", b"1", done=lambda _: None)
        await store.flush()
        disk.shut()
        store.put(1, b"x", done=lambda _: None)
        await asyncio.sleep(0.005)
        await disk.until_arrived()
        for _ in range(5):
            store.put(1, bytes(LARGE), done=lambda _: None)
        store.set_value("frontier", b"2", done=lambda _: None)
        disk.gate.set()
        await store.flush()
        await store.aclose()

    run_virtually(main())
    assert len(disk.pictures) > 3
    for picture in disk.pictures:
        assert_has_the_value(picture)


def assert_has_the_value(path: Path) -> None:
    async def main() -> None:
        store = await Store.open(path)
        assert "frontier" in store.contents().values
        await store.aclose()

    run_virtually(main())
