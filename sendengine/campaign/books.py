"""What a run keeps for a later process, in its journal beside what has settled: counts, and how long its files are.

Units: bytes; rows are counted from 0.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct, field

from sendengine.campaign.report import JobCounts, RecipientCounts
from sendengine.errors import StorageError
from sendengine.telemetry.counters import LaneCounters, LaneRecord

BOOKS: Final = "books"
LANES: Final = "lanes"
DAMAGE: Final = "damage"


class Books(Struct, frozen=True):
    """A run's books at one instant.

    ``counts`` leaves out the rows that are not sent, which the manifest knows, and what was abandoned, which goes on.
    ``sizes`` are those of the files of lines. Of a jobs file, the rows before ``handed`` and those ``ahead`` of it were
    handed over; those that ``joined`` another job, by its key, stand nowhere else until that settles.
    """

    started_at: str
    counts: JobCounts = field(default_factory=JobCounts)
    recipients: RecipientCounts = field(default_factory=RecipientCounts)
    sizes: Mapping[str, int] = field(default_factory=dict)
    handed: int = 0
    ahead: tuple[int, ...] = ()
    joined: tuple[int, ...] = ()


def render_books(books: Books) -> bytes:
    """Write them as JSON."""
    return msgspec.json.encode(books)


def parse_books(content: bytes | None) -> Books | None:
    """Read them; None where there are none yet. Raises StorageError."""
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=Books)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"the run's books are damaged: {error}") from None


def render_lanes(lanes: Mapping[str, LaneCounters]) -> bytes:
    """Write what the lanes have counted as JSON."""
    return msgspec.json.encode({name: counters.record() for name, counters in lanes.items()})


def parse_lanes(content: bytes | None) -> Mapping[str, LaneRecord]:
    """Read what the lanes of earlier processes have counted; nothing where it is damaged: it is for reports only."""
    try:
        return {} if content is None else msgspec.json.decode(content, type=dict[str, LaneRecord])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def with_earlier(lanes: Mapping[str, LaneCounters], earlier: Mapping[str, LaneRecord]) -> Mapping[str, LaneCounters]:
    """Add what earlier processes have counted, in counters of their own."""
    if not earlier:
        return lanes
    merged: dict[str, LaneCounters] = {}
    for name in (*earlier, *(name for name in lanes if name not in earlier)):
        merged[name] = LaneCounters()
        for record in (earlier.get(name), lanes[name].record() if name in lanes else None):
            if record is not None:
                merged[name].absorb(record)
    return merged
