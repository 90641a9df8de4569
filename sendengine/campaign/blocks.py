"""Reads a file, gzipped or not, in blocks of whole lines.

Gzip is recognised by what the file holds, since exports are often renamed. A byte-order mark of UTF-8 is dropped, a
file in UTF-16 is refused. What cannot be read is an InputError that names the file.

Units: bytes, of the text as it is after decompression.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

from sendengine.errors import InputError

BLOCK_BYTES: Final = 65_536
"""Larger blocks were slower: a block's cells then no longer fit the processor's cache."""

LONGEST_LINE_BYTES: Final = 16_777_216
_GZIP: Final = b"\x1f\x8b"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


class Stamp(Struct, frozen=True):
    """A file's size, and when it was last written to."""

    size_bytes: int
    written_ns: int


def read_blocks(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Give the file in blocks that end where a line ends, except perhaps the last; raises InputError.

    A line ends with a line feed, a carriage return, or both together, which no block tears apart.
    """
    try:
        with path.open("rb") as raw:
            yield from _whole_lines(path, _opened(raw), block_bytes)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip data is cut short or damaged ({error}); fetch the file again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def file_stamp(path: Path) -> Stamp:
    """Return what changes when the file is written to; raises InputError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return Stamp(status.st_size, status.st_mtime_ns)


def _opened(raw: BinaryIO) -> BinaryIO | gzip.GzipFile:
    magic = raw.read(2)
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if magic == _GZIP else raw


def _whole_lines(path: Path, source: BinaryIO | gzip.GzipFile, block_bytes: int) -> Iterator[bytes]:
    held = source.read(block_bytes)
    if held.startswith(_UTF16_MARKS):
        raise InputError(f"{path}: is UTF-16 text; save it as UTF-8")
    held = held.removeprefix(_UTF8_MARK)
    while more := source.read(block_bytes):
        end = _last_line_end(held)
        if end:
            yield held[:end]
        elif len(held) > LONGEST_LINE_BYTES:
            raise InputError(f"{path}: has a line of more than {LONGEST_LINE_BYTES:,} bytes; is it a text file?")
        held = held[end:] + more
    if held:
        yield held


def _last_line_end(held: bytes) -> int:
    """Return where the last line that is surely over ends; a carriage return at the very end may have a line feed."""
    return held.rfind(b"\n") + 1 or held.rfind(b"\r", 0, -1) + 1
