"""Room that is kept for a full disk: a file of no use, taken away when what must be written finds no room.

It is a quarter of what is free when it is first taken, and 4 MiB at most.

Everything here blocks, and belongs on the store's thread.

Units: bytes.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from sendengine.journal.connection import OURS_ALONE

MOST_BYTES: Final = 4_194_304
LEAST_BYTES: Final = 65_536
"""With less room than this nothing can be written that is worth it."""

_PART: Final = 4


class Reserve:
    """The file beside a store that keeps room for it."""

    __slots__ = ("_path", "_wanted_bytes")

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(f"{store.name}.reserve")
        self._wanted_bytes = 0  # as much as the first time: what goes on with less is soon full again

    @property
    def is_kept(self) -> bool:
        """Whether it is there: a process has the store open, or was killed."""
        return os.access(self._path, os.F_OK)

    def keep(self) -> bool:
        """Take the room where it is not taken yet; False where there is none."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, OURS_ALONE)
            try:
                return self._kept(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            self.give()
            return False

    def give(self) -> None:
        """Give the room back to the disk."""
        with suppress(OSError):  # it was not there, or the disk is beyond help
            self._path.unlink()

    def _kept(self, descriptor: int) -> bool:
        kept_bytes = os.fstat(descriptor).st_size
        disk = os.fstatvfs(descriptor)
        free_bytes = kept_bytes + disk.f_bavail * disk.f_frsize
        wanted_bytes = self._wanted_bytes or kept_bytes or min(MOST_BYTES, free_bytes // _PART)
        if wanted_bytes < LEAST_BYTES:
            self.give()
            return False
        os.posix_fallocate(descriptor, 0, wanted_bytes)
        self._wanted_bytes = wanted_bytes
        return True
