"""What requests.jsonl tells of behind what the run's journal knows: a witness of a journal that was set back.

The lines of a group are written just before the group. So after a crash a few lines more may be there than the journal
knows of; what they tell of was on disk before it was sent, and still is. Where it is not, the journal has lost what was
in it, as one does whose write-ahead log is gone: it says nothing about that itself, and what was sent would go again
under other keys.

Units: bytes; rows are counted from 0.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from sendengine.campaign.disk import as_storage_error
from sendengine.journal.frames import Record
from sendengine.journal.records import JOB, REQUEST, UnreadableRecordError, read_job, read_request


class Unbooked(Struct, frozen=True):
    """What was accepted, as lines tell that are not booked: the keys of requests, the rows of what has no key."""

    keys: frozenset[str] = frozenset()
    rows: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.keys or self.rows)


class _Line(Struct, frozen=True):
    outcome: str
    key: str | None = None
    rows: tuple[tuple[int, int], ...] = ()


def unbooked(path: Path, *, size_bytes: int) -> Unbooked:
    """Read the lines behind ``size_bytes``; one that is torn or damaged says nothing. Raises StorageError."""
    if not path.exists():
        return Unbooked()
    with as_storage_error(path), path.open("rb") as file:
        file.seek(size_bytes)
        lines = [line for line in map(_read, file.read().splitlines()) if line is not None]
    accepted = [line for line in lines if line.outcome == "accepted"]
    keys = frozenset(line.key for line in accepted if line.key is not None)
    rows = frozenset(
        row - 1 for line in accepted if line.key is None for first, last in line.rows for row in range(first, last + 1)
    )
    return Unbooked(keys, rows)


def is_known(what: Unbooked, records: Iterable[Record]) -> bool:
    """Whether all of it stands in what a journal holds; for a thread: it reads every record."""
    keys, rows = set(what.keys), set(what.rows)
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


def _read(line: bytes) -> _Line | None:
    try:
        return msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
