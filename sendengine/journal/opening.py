"""Opens a store's file: makes it, brings it to the present version, reads it, sets aside what is damaged in it.

A damaged record goes into ``NAME.damaged.jsonl``, and the rest is served. A file that SQLite cannot read any more is
kept as ``NAME.damaged``, and what can still be read of it goes into a new one. Everything here but `open_on` blocks,
and belongs on the store's thread.

Units: sizes are bytes.
"""

import asyncio
import os
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson
from msgspec import Struct

from sendengine.errors import StorageError
from sendengine.journal.connection import (
    OURS_ALONE,
    Connect,
    Connection,
    DamagedFileError,
    DiskFullError,
    Durability,
    errors_of,
    prepare,
)
from sendengine.journal.database import Database, StoredGroup, write_group
from sendengine.journal.frames import Record, framed
from sendengine.journal.liveness import Liveness
from sendengine.journal.making import make_file
from sendengine.journal.reserve import Reserve
from sendengine.journal.salvage import finish_salvage, salvage
from sendengine.journal.schema import migrate
from sendengine.journal.values import ValueIds
from sendengine.journal.wal import survey_log
from sendengine.journal.writer import Writer

_CHECKED_BYTES: Final = 1_073_741_824  # a larger file is not checked as a whole: it would take minutes


class Found(Struct, frozen=True):
    """What a store holds when it is opened: the records that count, in the order of their ids."""

    records: tuple[Record, ...]
    liveness: Liveness
    next_id: int
    next_seq: int
    damaged: tuple[str, ...]


class Opened(Struct, frozen=True):
    """An open file, room that is kept for it, and what it held: values by their names, and the other records."""

    database: Database
    reserve: Reserve
    found: Found
    value_ids: ValueIds
    values: Mapping[str, bytes]
    records: tuple[Record, ...]

    def close(self) -> None:
        """Give the file back unused; the room first, since it never outlives the write-ahead log: see `lost_log`."""
        self.reserve.give()
        with suppress(StorageError):
            self.database.close()


async def open_on(writer: Writer, path: Path, *, durability: Durability, connect: Connect) -> Opened:
    """Do `open_whole` on a thread, which ends where that fails. Cancelling it gives the file back all the same."""
    done: list[Opened] = []

    def close_all() -> None:
        for opened in done:
            opened.close()

    try:
        await writer.run(lambda: done.append(open_whole(path, durability=durability, connect=connect)))
    except BaseException:
        closing = asyncio.gather(writer.run(close_all), writer.aclose())
        await asyncio.shield(closing)
        raise
    return done.pop()


def open_whole(path: Path, *, durability: Durability, connect: Connect) -> Opened:
    """Open the file as `open_database` does, sort what it holds, and keep room for a full disk.

    Where opening finds no room, what a process that was killed had kept of it is given back first.
    """
    reserve = Reserve(path)
    try:
        database, found = open_database(path, durability=durability, connect=connect)
    except DiskFullError:
        reserve.give()
        database, found = open_database(path, durability=durability, connect=connect)
    value_ids = ValueIds()
    values, records = value_ids.recognise(found.records)
    reserve.keep()
    return Opened(database, reserve, found, value_ids, values, records)


def open_database(path: Path, *, durability: Durability, connect: Connect) -> tuple[Database, Found]:
    """Open the file, alone, and read it. Raises StorageError where it cannot be had, or a newer version wrote it."""
    with errors_of(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    finish_salvage(path)
    try:
        return _opened(path, durability=durability, connect=connect, damaged=())
    except DamagedFileError as error:
        damaged = salvage(path, why=str(error))
    return _opened(path, durability=durability, connect=connect, damaged=(damaged,))


def set_aside(path: Path, pieces: Iterable[tuple[str, bytes]]) -> Path:
    """Keep damaged bytes, each with what they were, where a person can look at them; return the file's name."""
    aside = path.with_name(f"{path.name}.damaged.jsonl")
    lines = [
        orjson.dumps({"at": round(time.time()), "what": what, "data": b64encode(data).decode()}) + b"\n"
        for what, data in pieces
    ]
    with errors_of(aside), os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OURS_ALONE), "ab") as file:
        file.write(b"".join(lines))
    return aside


def _opened(
    path: Path, *, durability: Durability, connect: Connect, damaged: tuple[str, ...]
) -> tuple[Database, Found]:
    with errors_of(path):
        _see_that_it_is_there(path)
        survey = survey_log(path)
        connection = connect(path)
        try:
            prepare(connection, durability)
            if lost := survey.lost_groups(_frames_read(connection)):
                damaged = (*damaged, f"the write-ahead log of {path} is damaged: {lost} groups of changes are lost")
            migrate(connection, name=str(path))
            _check(connection, path)
            database = Database(connection, path)
            return database, _read(database, damaged)
        except BaseException:
            connection.close()
            raise


def _see_that_it_is_there(path: Path) -> None:
    """Make the file where there is none. It is put into its place with its tables, so that one without is damaged."""
    log = path.with_name(f"{path.name}-wal")
    if not path.exists() and not (log.exists() and log.stat().st_size):
        make_file(path)
        return
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OURS_ALONE))  # SQLite says less about what it meets
    if not path.stat().st_size:
        raise DamagedFileError(f"{path} is damaged: it is empty")


def _frames_read(connection: Connection) -> int:
    """Bring the log into the file, and return how many of its frames could be read."""
    _, frames, _ = next(connection.execute("PRAGMA wal_checkpoint(PASSIVE)"))
    return frames if isinstance(frames, int) else 0


def _check(connection: Connection, path: Path) -> None:
    if path.stat().st_size > _CHECKED_BYTES:
        return
    (found,) = next(connection.execute("PRAGMA quick_check(1)"))
    if found != "ok":
        raise DamagedFileError(f"{path} is damaged: {found!s}")


def _read(database: Database, damaged: tuple[str, ...]) -> Found:
    records: dict[int, Record] = {}
    liveness = Liveness()
    torn: list[StoredGroup] = []
    next_id, next_seq = 1, 1
    for group in database.groups():
        for record in group.records:
            records[record.id] = record
        ids = {record.id for record in group.records}
        liveness.removed(ids)  # where they stood before
        liveness.appended(group.seq, ids, size_bytes=group.size_bytes)
        liveness.removed(group.removed)
        for record_id in group.removed:
            records.pop(record_id, None)
        next_id = max(next_id, group.next_id, *(record.id + 1 for record in group.records))
        next_seq = group.seq + 1
        if group.damaged:
            torn.append(group)
    if torn:
        damaged = (*damaged, _mend(database, torn, next_id=next_id))
    return Found(tuple(records[each] for each in sorted(records)), liveness, next_id, next_seq, damaged)


def _mend(database: Database, torn: list[StoredGroup], *, next_id: int) -> str:
    """Set the damaged records aside, and leave the rest of their groups."""
    pieces = [(f"a record of group {group.seq}", piece.data) for group in torn for piece in group.damaged]
    aside = set_aside(database.path, pieces)
    for group in torn:
        frames = [framed(each.id, each.kind, each.payload) for each in group.records]
        whole = write_group(group.seq, frames, removed=group.removed, next_id=max(next_id, group.next_id))
        database.rewrite(group.seq, whole)
    return f"{database.path} had {len(pieces)} damaged records; they are set aside in {aside}, the rest is served"
