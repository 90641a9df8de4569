"""Lines of JSON that a run leaves, held on the event loop and written elsewhere, in step with what its journal says.

What was taken from a file for writing has its place in it from then on, so that writing it once more after the disk
was full changes nothing, and a run that was killed cuts the file back to where its journal says that it ended.

Units: bytes.
"""

import os
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Final
from zlib import crc32

import orjson

from sendengine.campaign.disk import as_storage_error
from sendengine.journal.whole_file import sync_directory, write_all

_CLOSED: Final = -1  # what is written after that fails, and lands in no other file that has the number since
_log = getLogger(__name__)


def checksum(line: bytes) -> int:
    """Return what tells a line of a file from one with a flipped byte."""
    return crc32(line.rstrip(b"\n"))


class LineFile:
    """Lines of JSON, appended in memory. `take` is called on the loop; what it returns may run on another thread."""

    __slots__ = ("_descriptor", "_held", "_is_durable", "path", "size_bytes")

    def __init__(self, path: Path, *, size_bytes: int | None = None, is_durable: bool = False) -> None:
        """Open a file, and cut it back to ``size_bytes``, None for all of it. Raises StorageError.

        Where it ``is_durable``, what is written is on the disk when writing it returns.
        """
        self.path = path
        self._held: list[bytes] = []
        self._is_durable = is_durable
        with as_storage_error(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            on_disk = os.fstat(self._descriptor).st_size
            if size_bytes is not None and size_bytes < on_disk:
                os.ftruncate(self._descriptor, size_bytes)
            if is_durable:
                sync_directory(path.parent)
        self.size_bytes = on_disk if size_bytes is None else min(size_bytes, on_disk)
        if size_bytes is not None and on_disk < size_bytes:
            _log.warning("%s has lost its end: %d of %d bytes are there", path, on_disk, size_bytes)

    def append(self, line: object) -> bytes:
        """Hold a line, and return it as it is written; ``line`` is anything that has a JSON form."""
        written = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        self._held.append(written)
        return written

    @property
    def waiting(self) -> int:
        """How many lines have not been taken yet."""
        return len(self._held)

    def take(self) -> Callable[[], None] | None:
        """Take what is held, and return what writes it; None where nothing is. ``size_bytes`` then includes it.

        What is returned raises OSError, and may be called again: it writes to the same place.
        """
        if not self._held:
            return None
        content, place = b"".join(self._held), self.size_bytes
        self._held = []
        self.size_bytes += len(content)
        return lambda: self._write(content, place)

    def flush(self) -> None:
        """Write what is held; raises StorageError, and the lines are lost then."""
        if (write := self.take()) is not None:
            with as_storage_error(self.path):
                write()

    def close(self) -> None:
        """Write what is held, and close; raises StorageError."""
        try:
            self.flush()
        finally:
            descriptor, self._descriptor = self._descriptor, _CLOSED
            if descriptor != _CLOSED:
                os.close(descriptor)

    def _write(self, content: bytes, place: int) -> None:
        write_all(self._descriptor, content, place=place)
        if self._is_durable:
            os.fdatasync(self._descriptor)
