"""What requests.jsonl tells of behind what the run's journal knows: a witness of a journal that was set back.

The lines of a group are written just before the group. So after a crash a few lines more may be there than the journal
knows of; what they tell of was on disk before it was sent, and still is. Where it is not, the journal has lost what was
in it, as one does whose write-ahead log is gone: it says nothing about that itself, and what was sent would go again
under other keys.

Units: bytes; rows are counted from 0.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sendengine.campaign.disk import as_storage_error, is_there
from sendengine.journal.frames import Record
from sendengine.journal.records import JOB, REQUEST, UnreadableRecordError, read_job, read_request

_MOST_BYTES: Final = 4_194_304  # a group has less; a journal that lost more than that has lost what was last, too


class Unbooked(Struct, frozen=True):
    """What was accepted, as lines tell that are not booked: keys of requests, and the rows of what has no key.

    ``end`` is the row behind the last of all of them.
    """

    keys: frozenset[str] = frozenset()
    keyless_rows: frozenset[int] = frozenset()
    end: int = 0

    def __bool__(self) -> bool:
        return bool(self.keys or self.keyless_rows)


class _Line(Struct, frozen=True):
    outcome: str
    key: str | None = None
    rows: tuple[tuple[int, int], ...] = ()


def unbooked(path: Path, *, size_bytes: int) -> Unbooked:
    """Read the last lines behind ``size_bytes``; one that is torn or damaged says nothing. Raises StorageError."""
    if not is_there(path):
        return Unbooked()
    with as_storage_error(path), path.open("rb") as file:
        file.seek(max(size_bytes, path.stat().st_size - _MOST_BYTES))
        lines = [line for line in map(_read, file.read().splitlines()) if line is not None]
    accepted = [line for line in lines if line.outcome == "accepted"]
    keys = frozenset(line.key for line in accepted if line.key is not None)
    keyless_rows = frozenset(_rows(line for line in accepted if line.key is None))
    return Unbooked(keys, keyless_rows, max((last for line in accepted for _, last in line.rows), default=0))


def is_known(what: Unbooked, records: Iterable[Record]) -> bool:
    """Whether all of it stands in what a journal holds; for a thread: it reads every record."""
    keys, rows = set(what.keys), set(what.keyless_rows)
    for record in records:
        try:
            if record.kind == REQUEST:
                keys.discard(read_request(record.payload).seal.key or "")
            elif record.kind == JOB:
                entry = read_job(record.payload)
                keys.discard(entry.request_key or "")
                rows.discard(-1 if entry.row is None else entry.row)
        except UnreadableRecordError:
            continue
    return not keys and not rows


def _rows(lines: Iterable[_Line]) -> Iterator[int]:
    return (row - 1 for line in lines for first, last in line.rows for row in range(first, last + 1))


def _read(line: bytes) -> _Line | None:
    try:
        return msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
