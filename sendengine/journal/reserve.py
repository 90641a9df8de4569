"""Room that is kept for a full disk: a file of no use, taken away when what must be written finds no room.

Everything here blocks, and belongs on the store's thread.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from sendengine.journal.connection import OURS_ALONE

RESERVE_BYTES: Final = 4_194_304


class Reserve:
    """The file beside a store that keeps room for it."""

    __slots__ = ("_path",)

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(f"{store.name}.reserve")

    def keep(self) -> bool:
        """Take the room where it is not taken yet; False where there is none."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, OURS_ALONE)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self.give()
            return False
        return True

    def give(self) -> None:
        """Give the room back to the disk."""
        with suppress(OSError):  # it was not there, or the disk is beyond help
            self._path.unlink()
