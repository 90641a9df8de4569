"""How much may wait in a lane, by jobs and by bytes, and who waits outside for room.

A quarter of each bound is kept for high jobs. Room is given in the order of asking, high and normal apart, so that
nobody overtakes. A job that is larger than the whole bound goes in when it is alone.

Units: bytes are what a job's recipients and message weigh on the wire.
"""

import asyncio
from collections import deque

from sendengine.errors import SendEngineError

_NORMAL_SHARE = 0.75


class Intake:
    """The bound of one lane: jobs enter when they are admitted and leave when they settle."""

    __slots__ = (
        "_high_bytes", "_invited", "_max_bytes", "_max_jobs", "_most_normal_bytes", "_most_normal_jobs", "_outside",
        "high_jobs", "jobs", "size_bytes",
    )  # fmt: skip

    def __init__(self, *, max_jobs: int, max_bytes: int) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._most_normal_jobs = max_jobs * _NORMAL_SHARE
        self._most_normal_bytes = max_bytes * _NORMAL_SHARE
        self.jobs = self.size_bytes = 0  # inside, and what they weigh
        self.high_jobs = self._high_bytes = 0  # of them
        self._invited = 0  # have room, and are on their way in
        self._outside: dict[bool, deque[tuple[int, asyncio.Future[None]]]] = {True: deque(), False: deque()}

    def try_enter(self, size_bytes: int, *, high: bool) -> bool:
        """Go in if there is room and nobody of the same urgency waits outside, or is on the way in."""
        if self._invited or self._outside[high] or self._outside[True] or not self._has_room(size_bytes, high=high):
            return False
        self.enter_anyhow(size_bytes, high=high)
        return True

    async def enter(self, size_bytes: int, *, high: bool) -> None:
        """Go in, waiting for room in the order of asking. Cancelling it takes no room."""
        if self.try_enter(size_bytes, high=high):
            return
        turn = asyncio.get_running_loop().create_future()
        self._outside[high].append((size_bytes, turn))
        if high or not self._outside[True]:
            self._let_in(high=high)  # there may be room, and somebody on the way in
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._invited -= 1
                self.leave(size_bytes, high=high)
            else:
                self._let_next_in()  # whoever stood behind may be smaller
            raise
        self._invited -= 1

    def enter_anyhow(self, size_bytes: int, *, high: bool) -> None:
        """Go in, room or not: who asks has looked, or an earlier process let the job in."""
        self.jobs += 1
        self.size_bytes += size_bytes
        if high:
            self.high_jobs += 1
            self._high_bytes += size_bytes

    def leave(self, size_bytes: int, *, high: bool) -> None:
        """A job has settled: its room is free, and whoever is next outside goes in."""
        self.jobs -= 1
        self.size_bytes -= size_bytes
        if high:
            self.high_jobs -= 1
            self._high_bytes -= size_bytes
        if self._outside[True] or self._outside[False]:
            self._let_next_in()

    def turn_away(self, error: SendEngineError) -> None:
        """Everybody outside gets ``error``: the app is held, or the engine stops."""
        for outside in self._outside.values():
            while outside:
                _, turn = outside.popleft()
                if not turn.done():
                    turn.set_exception(error)

    def _has_room(self, size_bytes: int, *, high: bool) -> bool:
        jobs, inside_bytes = self.jobs, self.size_bytes
        if not jobs:
            return True
        if jobs >= self._max_jobs or inside_bytes + size_bytes > self._max_bytes:
            return False
        normal_jobs = jobs - self.high_jobs
        if high or not normal_jobs:
            return True
        normal_bytes = inside_bytes - self._high_bytes + size_bytes
        return normal_jobs < self._most_normal_jobs and normal_bytes <= self._most_normal_bytes

    def _let_next_in(self) -> None:
        """Let in who is next: high ones first, since one too large for its quarter must not wait for ever."""
        self._let_in(high=True)
        if not self._outside[True]:
            self._let_in(high=False)

    def _let_in(self, *, high: bool) -> None:
        outside = self._outside[high]
        while outside:
            size_bytes, turn = outside[0]
            if turn.done():
                outside.popleft()
            elif self._has_room(size_bytes, high=high):
                outside.popleft()
                self.enter_anyhow(size_bytes, high=high)
                self._invited += 1
                turn.set_result(None)
            else:
                return
