"""Reads a file, gzipped or not, in blocks of whole lines.

Gzip is recognised by what the file holds, since exports are often renamed. A byte-order mark of UTF-8 is dropped, a
file in UTF-16 is refused. What cannot be read is an InputError that names the file.

Units: bytes, of the text as it is after decompression; offsets count from the beginning of that text. A digest is of
the file as it lies on disk.
"""

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from io import UnsupportedOperation
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


class Digest:
    """The SHA-256 of a file, and of its text, taken while it is read for another purpose."""

    __slots__ = ("_sum", "text")

    def __init__(self) -> None:
        self.text = self  # another one where the file is gzipped
        self._sum = hashlib.sha256()

    def take(self, data: bytes) -> None:
        """Add the next bytes of the file."""
        self._sum.update(data)

    @property
    def hex(self) -> str:
        """The digest of what was taken."""
        return self._sum.hexdigest()


def read_blocks(
    path: Path,
    *,
    block_bytes: int = BLOCK_BYTES,
    start: int = 0,
    digest: Digest | None = None,
    stamp: Stamp | None = None,
) -> Iterator[tuple[int, bytes]]:
    """Give the file in blocks that end where a line ends, except perhaps the last, each with its offset.

    A line ends with a line feed, a carriage return, or both together, which no block tears apart. ``start`` is the
    offset of a line at which to begin: it is sought, and found at the cost of decompressing what is before it in a
    file that is gzipped. With ``digest``, the whole file goes through it. With ``stamp``, what is given was read while
    the file was as it was then; another that took its name meanwhile makes no difference. Raises InputError.
    """
    _check_unchanged(path, file_stamp(path), stamp)
    try:
        with path.open("rb") as raw:
            for block in _whole_lines(path, _opened(raw, digest), block_bytes, start):
                _check_unchanged(path, _stamp_of(os.fstat(raw.fileno())), stamp)
                yield block
            _check_unchanged(path, _stamp_of(os.fstat(raw.fileno())), stamp)  # it may have been cut short
            if digest is not None:
                while rest := raw.read(block_bytes):  # what follows gzipped data
                    digest.take(rest)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip data is cut short or damaged ({error}); fetch the file again") from None
    except UnsupportedOperation:
        raise _pipe(path) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hex; raises InputError."""
    try:
        with path.open("rb") as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def file_stamp(path: Path) -> Stamp:
    """Return what changes when the file is written to; raises InputError.

    A pipe is refused here already: to open one that nobody writes into would wait for ever.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if stat.S_ISFIFO(status.st_mode):
        raise _pipe(path)
    return _stamp_of(status)


def _pipe(path: Path) -> InputError:
    return InputError(
        f"{path}: is a pipe, and has to be read more than once; write it into a file first (jobs can come on standard "
        "input: -)"
    )


def _stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns)


def _check_unchanged(path: Path, now: Stamp, stamp: Stamp | None) -> None:
    if stamp is not None and now != stamp:
        raise InputError(
            f"{path}: has changed since it was checked, and nothing of the change was sent; put it back as it was, "
            "or begin anew where nothing was sent at all"
        )


class _Tapped:
    """A file that is read from its beginning to its end, each byte once, and goes through a digest on the way."""

    __slots__ = ("_digest", "_raw")

    def __init__(self, raw: "BinaryIO | gzip.GzipFile", digest: Digest) -> None:
        self._raw = raw
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._digest.take(data)
        return data


def _opened(raw: BinaryIO, digest: Digest | None) -> "BinaryIO | gzip.GzipFile | _Tapped":
    magic = raw.read(2)
    raw.seek(0)
    source = raw if digest is None else _Tapped(raw, digest)
    if magic != _GZIP:
        return source
    unzipped = gzip.GzipFile(fileobj=source, mode="rb")  # type: ignore[arg-type]  # it only reads
    if digest is None:
        return unzipped
    digest.text = Digest()
    return _Tapped(unzipped, digest.text)


def _whole_lines(
    path: Path, source: "BinaryIO | gzip.GzipFile | _Tapped", block_bytes: int, start: int
) -> Iterator[tuple[int, bytes]]:
    offset = start
    if start and not isinstance(source, _Tapped):
        source.seek(start)
    held = source.read(block_bytes)
    if not start:
        if held.startswith(_UTF16_MARKS):
            raise InputError(f"{path}: is UTF-16 text; save it as UTF-8")
        if held.startswith(_UTF8_MARK):
            held, offset = held[len(_UTF8_MARK) :], len(_UTF8_MARK)
    while more := source.read(block_bytes):
        end = _last_line_end(held)
        if end:
            yield offset, held[:end]
        elif len(held) > LONGEST_LINE_BYTES:
            raise InputError(f"{path}: has a line of more than {LONGEST_LINE_BYTES:,} bytes; is it a text file?")
        held = held[end:] + more
        offset += end
    if held:
        yield offset, held


def _last_line_end(held: bytes) -> int:
    """Return where the last line that is surely over ends; a carriage return at the very end may have a line feed."""
    return held.rfind(b"\n") + 1 or held.rfind(b"\r", 0, -1) + 1
