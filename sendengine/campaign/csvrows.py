"""Reads recipients from CSV, column by column: RFC 4180, with lines ended in any way, and OneSignal's own export.

Method: text without quotes, by far the most of it, is split with two calls for a whole block and checked with one
comparison, four times as fast as the csv module; text with quotes goes through the csv module; only blocks with a
fault, an empty line or a cell of several lines are looked at row by row.
"""

import csv
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from io import StringIO
from operator import itemgetter
from pathlib import Path
from typing import Final

from msgspec import Struct

from sendengine.campaign.blocks import read_blocks
from sendengine.campaign.tables import START, UNREADABLE, Chunk, Chunks, Cursor, Fault, Reading, missing_column
from sendengine.errors import InputError

_EXPORT_COLUMNS: Final = frozenset({"id", "identifier", "invalid_identifier"})
_INVALID_FLAG: Final = "invalid_identifier"
_OWN_ID: Final = "external_user_id"
_UNDECODED: Final = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are not UTF-8
_UNFINISHED: Final = "unexpected end of data"  # the csv module's words for a quote that is still open
_CELLS: Final = bytes(set(range(256)) - set(b",\n"))  # what cells are made of, in text without quotes
_TOO_LONG: Final = "field larger than field limit"  # its words for a cell of more than 131,072 characters


class _Rows(Struct):
    """A parsed block: columns as asked for, with a place for every row; ``rest`` begins an unfinished row."""

    columns: list[Sequence[str]]
    size: int
    line_count: int
    faults: dict[int, Fault]
    lines: list[int] | None = None
    rest: str = ""


class _Header(Struct, frozen=True):
    """The columns of a file: how many there are, and where the wanted ones stand."""

    names: tuple[str, ...]
    wanted: tuple[str, ...]
    places: tuple[int, ...]
    is_export: bool


def read_csv(reading: Reading) -> Chunks:
    """Read a column of ids and other columns beside it, a chunk at a time.

    Raises InputError where the file cannot be read, lacks a column, or has a quote that is never closed. Rows with a
    fault of their own are in their chunk's ``faults``. Empty lines are no rows. The line of column names is read
    wherever the reading starts.
    """
    path, start = reading.path, reading.start
    cursor = Cursor(start)
    header = None if start is START else _header_of(reading)
    rest = ""
    for offset, block in read_blocks(path, start=start.offset, digest=reading.digest, stamp=reading.stamp):
        cursor.offset = offset - _size(rest)
        text, is_whole = _decoded(block)
        is_whole = is_whole and not _UNDECODED.search(rest)
        text = rest + text
        if header is None:
            whole_bytes = _size(text)
            header, text = _read_header(reading, text, cursor)
            cursor.offset += whole_bytes - _size(text)
        parsed = _parse(path, text, header, cursor, is_whole=is_whole)
        rest = parsed.rest
        if parsed.size:
            yield _chunk(parsed, header, cursor)
        cursor.row += parsed.size
        cursor.line += parsed.line_count
    if header is None:
        raise InputError(f"{path}: is empty; its first line must name the columns, such as {reading.column!r}")
    if rest:
        raise InputError(f"{path}: line {cursor.line}: a quote is opened here and never closed; close it, or double it")


def _size(text: str) -> int:
    """Return how many bytes of the file a text was decoded from."""
    return len(text.encode(errors="surrogateescape")) if text else 0


def _header_of(reading: Reading) -> _Header | None:
    """Read the line of column names alone; None where the file is empty."""
    for _, block in read_blocks(reading.path, stamp=reading.stamp):
        return _read_header(reading, _decoded(block)[0], Cursor())[0]
    return None


def _decoded(block: bytes) -> tuple[str, bool]:
    try:
        return block.decode(), True
    except UnicodeDecodeError:
        return block.decode(errors="surrogateescape"), False


def _read_header(reading: Reading, text: str, cursor: Cursor) -> tuple[_Header, str]:
    path, column = reading.path, reading.column
    lines = StringIO(text, newline="")
    reader = csv.reader(lines)
    names: list[str] = []
    while not names:
        try:
            names = [name.strip() for name in next(reader)]
        except StopIteration:
            raise InputError(f"{path}: is empty; its first line must name the columns, such as {column!r}") from None
        except csv.Error as error:
            raise InputError(f"{path}: line 1: is no line of column names: {error}") from None
    cursor.line += reader.line_num
    is_export = _EXPORT_COLUMNS.issubset(names)
    wanted = dict.fromkeys((column, *reading.others, *((_INVALID_FLAG,) if is_export else ())))
    for name in wanted:
        _check_column(path, name, names)
    places = tuple(names.index(name) for name in wanted)
    return _Header(tuple(names), tuple(wanted), places, is_export), lines.read()


def _check_column(path: Path, column: str, names: Sequence[str]) -> None:
    if column not in names:
        for mark, word in ((";", "semicolons"), ("\t", "tabs")):
            if len(names) == 1 and mark in names[0]:
                raise InputError(f"{path}: its cells are separated by {word}; save it with commas")
        raise missing_column(path, column, names, where="its first line")
    if names.count(column) > 1:
        raise InputError(f"{path}: has two columns {column!r}; rename one of them")


def _parse(path: Path, text: str, header: _Header, cursor: Cursor, *, is_whole: bool) -> _Rows:
    parsed = None
    if is_whole:
        parsed = _split_quickly(text, header) if '"' not in text else _parse_quickly(text, header)
    return parsed or _parse_carefully(path, text, header, cursor)


def _split_quickly(text: str, header: _Header) -> _Rows | None:
    """Split text without quotes at once; None where a row has another number of cells than the header."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text and not text.endswith("\n"):
        text += "\n"
    stride, size = len(header.names), text.count("\n")
    # What is left without the cells says whether every row is complete, in a third of the time of splitting.
    if text.encode().translate(None, _CELLS) != (b"," * (stride - 1) + b"\n") * size:
        return None
    cells = text.replace("\n", ",").split(",")
    columns: list[Sequence[str]] = [cells[place : size * stride : stride] for place in header.places]
    if stride == 1 and "" in columns[0]:  # an empty line is no row
        return None
    return _Rows(columns, size, size, {})


def _parse_quickly(text: str, header: _Header) -> _Rows | None:
    """Let the csv module read all; None where a row is faulty, empty, unfinished or of several lines."""
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error:
        return None
    if reader.line_num != len(rows) or set(map(len, rows)) != {len(header.names)}:
        return None
    columns: list[Sequence[str]] = [list(map(itemgetter(place), rows)) for place in header.places]
    return _Rows(columns, len(rows), len(rows), {})


def _parse_carefully(path: Path, text: str, header: _Header, cursor: Cursor) -> _Rows:
    """Read row by row, keeping the line of each and a fault for each that cannot be used."""
    lines = list(StringIO(text, newline=""))
    reader = csv.reader(lines, strict=True)
    rows: list[list[str]] = []
    starts: list[int] = []
    faults: dict[int, Fault] = {}
    done = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            problem = str(error)
            if problem == _UNFINISHED:
                break
            if problem.startswith(_TOO_LONG):
                raise InputError(
                    f"{path}: line {cursor.line + done}: a cell has more than {csv.field_size_limit():,} characters; "
                    "is there a quote that is never closed?"
                ) from None
            faults[len(rows)] = Fault(cursor.line + done, "", f"is no CSV: {problem}")
            row = [UNREADABLE]
        if row:
            starts.append(cursor.line + done)
            _check_row(row, faults, len(rows), header, starts[-1])
            rows.append(row)
        done = reader.line_num
    _find_undecoded(lines[:done], starts, faults, cursor.line)
    kept = [[UNREADABLE] * len(header.names) if index in faults else row for index, row in enumerate(rows)]
    columns: list[Sequence[str]] = [list(map(itemgetter(place), kept)) for place in header.places]
    return _Rows(columns, len(rows), done, faults, starts, "".join(lines[done:]))


def _check_row(row: Sequence[str], faults: dict[int, Fault], index: int, header: _Header, line: int) -> None:
    if len(row) != len(header.names) and index not in faults:
        faults[index] = Fault(line, "", f"has {len(row)} cells where the header has {len(header.names)}")


def _find_undecoded(lines: Sequence[str], starts: Sequence[int], faults: dict[int, Fault], first_line: int) -> None:
    """Fault the rows that hold bytes which are no UTF-8."""
    for number, line in enumerate(lines, first_line):
        if _UNDECODED.search(line):
            index = bisect_left(starts, number + 1) - 1
            faults.setdefault(index, Fault(number, "", "holds bytes that are not UTF-8; save the file as UTF-8"))


def _chunk(parsed: _Rows, header: _Header, cursor: Cursor) -> Chunk:
    by_name: Mapping[str, Sequence[str]] = dict(zip(header.wanted, parsed.columns, strict=True))
    ids = by_name[header.wanted[0]]
    return Chunk(
        start=cursor.mark,
        ids=ids,
        cells=by_name,
        faults=parsed.faults,
        unusable=_unusable(ids, by_name, parsed.faults, header) if header.is_export else (),
        lines=parsed.lines,
    )


def _unusable(
    ids: Sequence[str], cells: Mapping[str, Sequence[str]], faults: Mapping[int, Fault], header: _Header
) -> Sequence[int]:
    """Rows of an export that name nobody: an invalid identifier, or a subscription without a user id of yours."""
    flags = cells[_INVALID_FLAG]
    is_own_id = header.wanted[0] == _OWN_ID
    if "t" not in flags and not (is_own_id and "" in ids):
        return ()
    return [
        index
        for index, flag in enumerate(flags)
        if (flag == "t" or (is_own_id and not ids[index])) and index not in faults
    ]
