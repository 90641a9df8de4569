"""Bounds what is under way in a run, so that a file of any length goes through in bounded memory.

Units: bytes of requests' bodies; what is under way takes about five times as much memory.
"""

import asyncio
from collections.abc import Callable
from typing import Final

MOST_ITEMS: Final = 15_000
"""Above what 6,000 requests/s with replies after two seconds need."""

MOST_BYTES: Final = 16_000_000


class Flow:
    """Counts what is under way, and lets one task wait until that changes."""

    __slots__ = ("_changed", "_is_cut", "items", "size_bytes")

    def __init__(self) -> None:
        self.items = 0
        self.size_bytes = 0
        self._changed = asyncio.Event()
        self._is_cut = False

    def enter(self, size_bytes: int) -> None:
        """An item is under way."""
        self.items += 1
        self.size_bytes += size_bytes

    def leave(self, size_bytes: int) -> None:
        """An item has come to its end."""
        self.items -= 1
        self.size_bytes -= size_bytes
        self._changed.set()

    def cut(self) -> None:
        """Wake who waits, now and from now on: nothing more is dispatched."""
        self._is_cut = True
        self._changed.set()

    async def until_room(self) -> None:
        """Wait until another item may enter."""
        await self._until(lambda: self.items < MOST_ITEMS and self.size_bytes < MOST_BYTES)

    async def until_idle(self) -> None:
        """Wait until nothing is under way."""
        await self._until(lambda: not self.items)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not self._is_cut and not is_so():
            self._changed.clear()
            await self._changed.wait()
