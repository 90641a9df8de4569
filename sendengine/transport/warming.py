"""Opens connections ahead of need, so that no paced request waits for a handshake.

Units: connections.

Method: one standing goal, the highest that anybody waits for. As long as fewer are open, up to `AT_ONCE` are being
opened; a caller is answered when its own number is reached, or when opening failed or there is no room. A caller who
is cancelled leaves; connections that are being opened for it stay useful. No more are opened than were missing when
it was asked for: a host that hangs up at once would have them opened for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from itertools import count as numbers
from typing import Final

AT_ONCE: Final = 64  # connecting at the same time: a burst of handshakes is CPU of both sides, and a burst of SYNs


class Warming:
    """Who waits for how many, and what is being opened for them."""

    __slots__ = ("_callers", "_goal", "_missing", "_number", "_open_count", "_open_one", "_opening")

    def __init__(self, open_one: Callable[[], Awaitable[bool]], *, open_count: Callable[[], int]) -> None:
        """``open_one`` opens a connection and says whether it could; ``open_count`` is how many are open."""
        self._open_one = open_one
        self._open_count = open_count
        self._opening: set[asyncio.Task[bool]] = set()
        self._callers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = numbers()
        self._goal = 0
        self._missing = 0  # may be opened yet

    async def reach(self, goal: int) -> None:
        """Return when ``goal`` connections are open, or no more can be opened."""
        if self._open_count() >= goal:
            return
        self._goal = max(self._goal, goal)
        self._missing = max(self._missing, goal - self._open_count() - len(self._opening))
        self._pump()
        if self._opening:
            caller = asyncio.get_running_loop().create_future()
            heappush(self._callers, (goal, next(self._number), caller))
            await caller

    async def aclose(self) -> None:
        """Stop opening, and let everybody go."""
        self._goal = 0
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)

    def _pump(self) -> None:
        room = min(AT_ONCE, self._goal - self._open_count()) - len(self._opening)
        for _ in range(min(room, self._missing)):
            self._missing -= 1
            task = asyncio.ensure_future(self._open_one())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[bool]) -> None:
        self._opening.discard(task)
        if task.cancelled() or task.exception() is not None or not task.result():
            self._goal = 0  # the host is not there, or there is no room: whoever comes next tries again
        self._pump()
        if not self._opening:
            self._goal = 0
        while self._callers and (self._callers[0][0] <= self._open_count() or not self._opening):
            _, _, caller = heappop(self._callers)
            if not caller.done():
                caller.set_result(None)
