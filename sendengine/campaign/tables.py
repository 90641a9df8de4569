"""What the readers of recipients files have in common: chunks of columns, and faults of rows.

Files are read a chunk of some thousand rows at a time, column by column, because an object a row would cost more
than everything else that is done with it.

Units: rows are counted from 0, lines from 1 as an editor shows them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from sendengine.campaign.spelling import mend
from sendengine.core.jobs import Json
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


class Chunk(Struct, frozen=True):
    """Rows that were read together. ``ids`` and every list of ``cells`` have one entry a row.

    ``faults`` are by index in the chunk; such a row's id is `UNREADABLE`. ``unusable`` are the rows that the file
    itself, an export of OneSignal's, calls unusable. ``lines`` tells where each row starts, where rows and lines
    differ.
    """

    first_row: int
    first_line: int
    ids: Sequence[str]
    cells: Mapping[str, Sequence[Json]]
    faults: Mapping[int, Fault]
    unusable: Sequence[int] = ()
    lines: Sequence[int] | None = None

    def line(self, index: int) -> int:
        """Return the line on which a row of this chunk starts."""
        return self.first_line + index if self.lines is None else self.lines[index]

    def fault(self, index: int, field: str, reason: str) -> Fault:
        """Make a fault of a row of this chunk."""
        return Fault(self.line(index), field, reason)


class Cursor:
    """How far a reader has come."""

    __slots__ = ("line", "row")

    def __init__(self) -> None:
        self.row = 0
        self.line = 1


Chunks = Iterator[Chunk]


def missing_column(path: Path, column: str, known: Iterable[str], *, where: str) -> InputError:
    """Make the error for a column that the file does not have."""
    return InputError(f"{path}: {where} has no column {column!r}; {mend(column, known, what='it has')}")
