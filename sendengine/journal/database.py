"""A store's file while it is open: read once, then written a group at a time.

Everything here blocks, and belongs on the store's thread.

Units: sizes are bytes; ``at`` is whole seconds since the epoch.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from struct import pack, unpack
from typing import Final, TypeVar

import orjson
from msgspec import Struct

from sendengine.journal.connection import Connection, DamagedFileError, DiskFullError, Row, errors_of
from sendengine.journal.frames import DamagedRecord, Record, framed, labelled, unframed, unlabelled
from sendengine.journal.group import Archived, ArchiveName
from sendengine.journal.schema import WRITE

GROUP: Final = 0
"""The kind of the record that stands first in a group: its id is the next free one, its payload the group's number and
the ids of the records that count no more, 8 bytes each."""

_Seen = TypeVar("_Seen")
_ID_BYTES: Final = 8
_CHECKPOINT_MOST_BYTES: Final = 16_777_216
_CHECKPOINT_LEAST_BYTES: Final = 131_072
_PRUNED_AT_ONCE: Final = 500
_ROOMY_PAGES: Final = 16_384  # 64 MiB of free pages are worth a rewrite where little else is there
_FEW_PAGES: Final = 4_096


class Batch(Struct, frozen=True):
    """A group as it is written.

    Groups before ``first_kept`` are dropped. What counts in those up to ``last_moved`` is written again: of their
    records those that stand there as ``places`` has it, which does not change meanwhile.
    """

    seq: int
    next_id: int
    frames: Sequence[bytes]
    removed: Sequence[int]
    first_kept: int
    last_moved: int | None
    places: Mapping[int, int]
    archived: Mapping[ArchiveName, Archived]
    forgotten: Sequence[ArchiveName]
    works: Sequence[Callable[[], None]]


class Written(Struct, frozen=True):
    """What was written: its size, and the records of earlier groups in it."""

    size_bytes: int
    moved: Sequence[int]


class StoredGroup(Struct, frozen=True):
    """A group as it was found; what its damaged first record would have said is not there."""

    seq: int
    records: Sequence[Record]
    damaged: Sequence[DamagedRecord]
    size_bytes: int
    removed: Sequence[int] = ()
    next_id: int = 0


class ArchivedRow(Struct, frozen=True):
    """What was found in the archive; ``payload`` None where it is damaged."""

    name: str
    at: int
    payload: bytes | None


class Database:
    """One open file. Everything raises StorageError: DiskFullError where nothing was written for want of room.

    ``checkpoint_bytes`` is how much may be written before the next checkpoint is due.
    """

    __slots__ = ("_connection", "checkpoint_bytes", "path")

    def __init__(self, connection: Connection, path: Path) -> None:
        self._connection = connection
        self.path = path
        self.checkpoint_bytes = _checkpoint_bytes(path)

    def groups(self) -> Iterator[StoredGroup]:
        """Read every group, in order."""
        with errors_of(self.path):
            for row in self._connection.execute("SELECT seq, records FROM log ORDER BY seq"):
                group = read_group(row)
                if group.seq != row[0]:
                    raise DamagedFileError(f"{self.path} is damaged: group {group.seq} is in the place of {row[0]!r}")
                yield group

    def write(self, batch: Batch) -> Written:
        """Write a group."""
        with errors_of(self.path):
            for work in batch.works:
                work()
            moved, frames = [], batch.frames
            if batch.last_moved is not None:
                moved = self._to_move(batch.last_moved, batch.places)
                frames = [*(framed(each.id, each.kind, each.payload) for each in moved), *frames]
            records = write_group(batch.seq, frames, removed=batch.removed, next_id=batch.next_id)
            archived, payloads = _positioned(batch.archived) if batch.archived else (None, None)
            forgotten = orjson.dumps(batch.forgotten).decode() if batch.forgotten else None
            self._connection.execute(WRITE, (batch.seq, records, batch.first_kept, archived, payloads, forgotten))
            return Written(len(records), [each.id for each in moved])

    def rewrite(self, seq: int, records: bytes) -> None:
        """Put what is whole of a damaged group in its place."""
        with errors_of(self.path):
            self._connection.execute("UPDATE log SET records = ? WHERE seq = ?", (records, seq))

    def checkpoint(self) -> None:
        """Bring what the write-ahead log holds into the file, so that the log begins anew."""
        with errors_of(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self.checkpoint_bytes = _checkpoint_bytes(self.path)

    def make_room(self) -> None:
        """Let the write-ahead log take no room, as far as there is room for that."""
        with suppress(DiskFullError), errors_of(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def find(self, kind: int, names: Sequence[str]) -> dict[str, bytes]:
        """Return what is archived under these names, as far as it is there and whole."""
        with errors_of(self.path):
            rows = self._connection.execute(
                "SELECT name, at, payload FROM archive WHERE kind = ? AND name IN (SELECT value FROM json_each(?))",
                (kind, orjson.dumps(names).decode()),
            )
            found = [_archived(kind, row) for row in rows]
        return {row.name: row.payload for row in found if row.payload is not None}

    def archived(self, kind: int, look: Callable[[ArchivedRow], _Seen]) -> list[_Seen]:
        """Return what ``look`` makes of everything archived of a kind, the oldest first."""
        with errors_of(self.path):
            rows = self._connection.execute(
                "SELECT name, at, payload FROM archive WHERE kind = ? ORDER BY at, name", (kind,)
            )
            return [look(_archived(kind, row)) for row in rows]

    def prune(self, kind: int, *, before: int) -> bool:
        """Take out of the archive what is older, a part at a time; True where more is left."""
        with errors_of(self.path):
            rows = self._connection.execute(
                "DELETE FROM archive WHERE (kind, name) IN"
                " (SELECT kind, name FROM archive WHERE kind = ? AND at < ? ORDER BY at LIMIT ?) RETURNING 1",
                (kind, before, _PRUNED_AT_ONCE),
            )
            return sum(1 for _ in rows) == _PRUNED_AT_ONCE

    def shrink(self) -> None:
        """Give room back to the disk where the file is large and nearly empty."""
        with errors_of(self.path):
            free, pages = (self._number(f"PRAGMA {name}") for name in ("freelist_count", "page_count"))
            if free >= _ROOMY_PAGES and pages - free <= _FEW_PAGES:
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Give the file back; its write-ahead log goes into it."""
        with errors_of(self.path):
            self._connection.close()

    def _to_move(self, last: int, places: Mapping[int, int]) -> list[Record]:
        """Return what counts in the groups up to ``last``."""
        rows = self._connection.execute("SELECT seq, records FROM log WHERE seq <= ? ORDER BY seq", (last,))
        groups = map(read_group, rows)
        return [each for group in groups for each in group.records if places.get(each.id) == group.seq]

    def _number(self, sql: str) -> int:
        (value,) = next(self._connection.execute(sql))
        return int(value or 0)


def _checkpoint_bytes(path: Path) -> int:
    """Checkpoint rarely, for it takes as long as several groups, but let the log not fill a small disk."""
    disk = os.statvfs(path)
    return min(_CHECKPOINT_MOST_BYTES, max(_CHECKPOINT_LEAST_BYTES, disk.f_bavail * disk.f_frsize // 8))


def read_group(row: Row) -> StoredGroup:
    """Read a row of the log; the number is the one that the group itself says. DamagedFileError where it is no row."""
    seq, data = row
    if not isinstance(seq, int) or not isinstance(data, bytes):
        raise DamagedFileError("a row of the log is none")
    records: list[Record] = []
    damaged: list[DamagedRecord] = []
    for found in unframed(data):
        records.append(found) if isinstance(found, Record) else damaged.append(found)
    if not records or records[0].kind != GROUP or not records[0].payload or len(records[0].payload) % _ID_BYTES:
        return StoredGroup(seq, records, damaged, len(data))
    head = records.pop(0)
    number, *removed = unpack(f">{len(head.payload) // _ID_BYTES}Q", head.payload)
    return StoredGroup(number, records, damaged, len(data), removed, head.id)


def write_group(seq: int, frames: Iterable[bytes], *, removed: Sequence[int], next_id: int) -> bytes:
    """Render a group."""
    ids = pack(f">{1 + len(removed)}Q", seq, *removed)
    return b"".join((framed(next_id, GROUP, ids), *frames))


def label(kind: int, name: str, *, at: int) -> str:
    """Say under what something is archived, for its checksum."""
    return f"{kind}/{at}/{name}"


def _archived(kind: int, row: Row) -> ArchivedRow:
    name, at, data = row
    if not isinstance(name, str) or not isinstance(at, int) or not isinstance(data, bytes):
        raise DamagedFileError("a row of the archive is none")
    return ArchivedRow(name, at, unlabelled(label(kind, name, at=at), data))


def _positioned(archived: Mapping[ArchiveName, Archived]) -> tuple[str, bytes]:
    """Return where each payload stands among the payloads, as JSON, and the payloads."""
    rows: list[tuple[int, str, int, int, int]] = []
    payloads: list[bytes] = []
    start = 0
    for (kind, name), entry in archived.items():
        payload = labelled(label(kind, name, at=entry.at), entry.payload)
        payloads.append(payload)
        rows.append((kind, name, entry.at, start, start + len(payload)))
        start += len(payload)
    return orjson.dumps(rows).decode(), b"".join(payloads)
