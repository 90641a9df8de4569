"""Tells those who wait that their changes are on disk, or never will be: a few in each turn of the loop, in order.

Jobs enter their lanes as they are told of. So a group that lands while an earlier one is still being told of waits for
the end of that, or a user's changes would overtake one another.

Units: none.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from sendengine.errors import StorageError
from sendengine.journal.connection import afresh
from sendengine.journal.group import Done

TOLD_AT_ONCE: Final = 64
"""So many are told in one turn of the loop."""


class Telling:
    """Called with who waits, and why their changes will never be on disk, None where they are."""

    __slots__ = ("_is_telling", "_loop", "_untold")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._untold: deque[tuple[Sequence[Done], StorageError | None]] = deque()
        self._is_telling = False

    def __call__(self, waiters: Sequence[Done], error: StorageError | None) -> None:
        """Tell them, the first at once where nobody is before them; what one of them raises ends nothing."""
        if waiters:
            self._untold.append((waiters, error))
            if not self._is_telling:
                self._tell_some()

    def _tell_some(self) -> None:
        self._is_telling = True
        waiters, error = self._untold.popleft()
        told = 0
        try:
            for told, done in enumerate(waiters[:TOLD_AT_ONCE], 1):  # noqa: B007 - how far it came is used below
                done(None if error is None else afresh(error))
        except asyncio.InvalidStateError:  # a future's `set_result`; whoever waited for it has been cancelled
            pass
        finally:  # where one of them raises, too
            if told < len(waiters):
                self._untold.appendleft((waiters[told:], error))
            self._is_telling = bool(self._untold)
            if self._is_telling:
                self._loop.call_soon(self._tell_some)
