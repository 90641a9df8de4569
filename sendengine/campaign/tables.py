"""What the readers of recipients files have in common: chunks of columns, and faults of rows.

Files are read a chunk of some thousand rows at a time, column by column, because an object a row would cost more
than everything else that is done with it.

Units: rows are counted from 0, lines from 1 as an editor shows them; offsets are bytes of the text, decompressed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from sendengine.campaign.blocks import Digest, Stamp
from sendengine.core.jobs import Json
from sendengine.core.spelling import mend
from sendengine.errors import InputError

UNREADABLE: Final = ""
"""What stands for the id of a row that could not be read."""


class Fault(Struct, frozen=True, gc=False):
    """What is wrong with one row: where it starts, in which column, and why."""

    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}: {self.reason}" if self.field else f"line {self.line}: {self.reason}"


class Mark(Struct, frozen=True, gc=False):
    """A place in a file at which reading can begin: the row and the line there, and the offset of its first byte."""

    row: int
    line: int
    offset: int


START: Final = Mark(0, 1, 0)
"""The beginning of a file."""


class Reading(Struct, frozen=True):
    """A file of recipients, and how it is read: ``column`` has the ids, ``others`` are wanted beside it.

    ``start`` is where an earlier reading had a chunk begin. With ``digest``, the whole file goes through it; with
    ``stamp``, it must be as it was then all the while.
    """

    path: Path
    column: str
    others: Sequence[str] = ()
    start: Mark = START
    digest: Digest | None = None
    stamp: Stamp | None = None


class Chunk(Struct, frozen=True):
    """Rows that were read together. ``ids`` and every list of ``cells`` have one entry a row.

    ``faults`` are by index in the chunk; such a row's id is `UNREADABLE`. ``unusable`` are the rows that the file
    itself, an export of OneSignal's, calls unusable. ``lines`` tells where each row starts, where rows and lines
    differ. Reading can begin again at ``start``.
    """

    start: Mark
    ids: Sequence[str]
    cells: Mapping[str, Sequence[Json]]
    faults: Mapping[int, Fault]
    unusable: Sequence[int] = ()
    lines: Sequence[int] | None = None

    @property
    def first_row(self) -> int:
        """The number of its first row."""
        return self.start.row

    def line(self, index: int) -> int:
        """Return the line on which a row of this chunk starts."""
        return self.start.line + index if self.lines is None else self.lines[index]

    def fault(self, index: int, field: str, reason: str) -> Fault:
        """Make a fault of a row of this chunk."""
        return Fault(self.line(index), field, reason)


class Cursor:
    """How far a reader has come: the place at which its next chunk begins."""

    __slots__ = ("line", "offset", "row")

    def __init__(self, start: Mark = START) -> None:
        self.row = start.row
        self.line = start.line
        self.offset = start.offset

    @property
    def mark(self) -> Mark:
        """That place."""
        return Mark(self.row, self.line, self.offset)


Chunks = Iterator[Chunk]


def missing_column(path: Path, column: str, known: Iterable[str], *, where: str) -> InputError:
    """Make the error for a column that the file does not have."""
    return InputError(f"{path}: {where} has no column {column!r}; {mend(column, known, what='it has')}")
