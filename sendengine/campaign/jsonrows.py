"""Reads recipients from JSON Lines: an object a line, keyed by column; columns that are not asked for are skipped."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sendengine.campaign.blocks import read_blocks
from sendengine.campaign.tables import UNREADABLE, Chunk, Chunks, Cursor, Fault, Reading, missing_column
from sendengine.core.joblines import TOO_DEEP
from sendengine.core.jobs import Json

_ID: Final = "id"  # the name of the id in a typed row; the other columns are c0, c1, …
_PICK_ID: Final[Callable[[Struct], str | int | UnsetType]] = attrgetter(_ID)


class _Shape(Struct, frozen=True):
    """How a row is decoded: a type with a field for each column, made for the file."""

    column: str
    others: tuple[str, ...]
    decoder: msgspec.json.Decoder[Struct]
    picks: tuple[Callable[[Struct], Json], ...]


def read_jsonl(reading: Reading) -> Chunks:
    """Read a column of ids and other columns beside it, a chunk at a time.

    An id is a text or a whole number. A cell that is missing is None. Raises InputError where the file cannot be
    read, or its first row lacks the column of ids; rows with a fault are in their chunk's ``faults``. Empty lines
    are no rows.
    """
    column, start = reading.column, reading.start
    shape = _shape(column, tuple(dict.fromkeys(name for name in reading.others if name != column)))
    cursor = Cursor(start)
    for cursor.offset, block in read_blocks(
        reading.path, start=start.offset, digest=reading.digest, stamp=reading.stamp
    ):
        lines = block.splitlines()
        if cursor.row == 0:
            _check_first(reading.path, lines, column)
        chunk = _decode_quickly(block, lines, shape, cursor) or _decode_carefully(lines, shape, cursor)
        if chunk.ids:
            yield chunk
        cursor.row += len(chunk.ids)
        cursor.line += len(lines)


def _shape(column: str, others: tuple[str, ...]) -> _Shape:
    names = [f"c{index}" for index in range(len(others))]
    row = msgspec.defstruct(
        "Row",
        [(_ID, str | int | UnsetType, UNSET), *((name, object, None) for name in names)],
        rename=dict(zip([_ID, *names], [column, *others], strict=True)),
    )
    return _Shape(column, others, msgspec.json.Decoder(row), tuple(attrgetter(name) for name in names))


def _check_first(path: Path, lines: Sequence[bytes], column: str) -> None:
    """Refuse a file whose first readable row lacks the column of ids; later rows lack it on their own account."""
    first = next((line for line in lines if line.strip()), b"{}")
    try:
        row = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if isinstance(row, dict) and row and column not in row:
        raise missing_column(path, column, row, where="its first row")


def _decode_quickly(block: bytes, lines: Sequence[bytes], shape: _Shape, cursor: Cursor) -> Chunk | None:
    """Decode all lines at once; None where a line is faulty, empty, or holds anything but one object."""
    try:
        rows = shape.decoder.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    ids = list(map(_PICK_ID, rows))
    if len(rows) != len(lines) or UNSET in ids:
        return None
    texts = [item if isinstance(item, str) else str(item) for item in ids]
    return _chunk(rows, texts, shape, cursor, faults={}, lines=None)


def _decode_carefully(lines: Sequence[bytes], shape: _Shape, cursor: Cursor) -> Chunk:
    rows: list[Struct | None] = []
    ids: list[str] = []
    starts: list[int] = []
    faults: dict[int, Fault] = {}
    for number, line in enumerate(lines, cursor.line):
        if not line.strip():
            continue
        row = _decode_row(line, shape, number)
        if isinstance(row, Fault):
            faults[len(rows)] = row
        rows.append(None if isinstance(row, Fault) else row)
        ids.append(UNREADABLE if isinstance(row, Fault) else str(_PICK_ID(row)))
        starts.append(number)
    return _chunk(rows, ids, shape, cursor, faults=faults, lines=starts)


def _decode_row(line: bytes, shape: _Shape, number: int) -> Struct | Fault:
    try:
        row = shape.decoder.decode(line)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        return Fault(number, where.rstrip("`").lstrip("."), what[0].lower() + what[1:])
    except msgspec.DecodeError as error:
        return Fault(number, "", f"is no JSON object: {error}")
    except UnicodeDecodeError:
        return Fault(number, "", "holds bytes that are not UTF-8; save the file as UTF-8")
    except RecursionError:
        return Fault(number, "", TOO_DEEP)
    if _PICK_ID(row) is UNSET:
        return Fault(number, shape.column, "is missing")
    return row


def _chunk(
    rows: Sequence[Struct | None],
    ids: Sequence[str],
    shape: _Shape,
    cursor: Cursor,
    *,
    faults: Mapping[int, Fault],
    lines: Sequence[int] | None,
) -> Chunk:
    cells: dict[str, Sequence[Json]] = {
        name: [None if row is None else pick(row) for row in rows]
        for name, pick in zip(shape.others, shape.picks, strict=True)
    }
    cells[shape.column] = ids
    return Chunk(start=cursor.mark, ids=ids, cells=cells, faults=faults, lines=lines)
