"""One timer for every deadline of a transport: connects, exchanges, idle connections, their age.

Units: seconds on the running loop's clock; a tick is `TICK_S`. A deadline is noticed up to a tick late, never early.

Method: a timing wheel that is lazy. Whoever has a deadline writes it down as ``due_s`` and lies in the bucket of one
tick; a deadline that moves away costs nothing, because only when its bucket comes up is ``due_s`` looked at, and what
is not due yet is filed again. Only one that comes nearer than its bucket must be filed anew. With deadlines of about
a minute, a connection that carries hundreds of requests a second is filed about once a minute.
"""

import asyncio
from heapq import heappop, heappush
from math import ceil, inf
from typing import Final

TICK_S: Final = 0.05
_ROUNDING_S: Final = 0.001  # uvloop's clock and timers are in whole milliseconds


class Timed:
    """Something with a deadline."""

    __slots__ = ("due_s", "filed_s")

    def __init__(self) -> None:
        self.due_s = inf
        self.filed_s = inf  # the wheel's: when it looks at ``due_s`` again

    def expire(self) -> None:
        """``due_s`` has come. It may set another one and be filed under that."""
        raise NotImplementedError


class Wheel:
    """Calls `Timed.expire` when it is time. Make it on a running loop."""

    __slots__ = ("_armed_s", "_buckets", "_loop", "_ticks", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buckets: dict[int, set[Timed]] = {}
        self._ticks: list[int] = []  # a heap of the buckets' ticks
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s = inf

    def file(self, timed: Timed) -> None:
        """Look at it when ``due_s`` comes; needed where ``due_s`` is before ``filed_s``, and harmless elsewhere."""
        if timed.due_s >= timed.filed_s:
            return
        self.forget(timed)
        tick = ceil(timed.due_s / TICK_S)
        timed.filed_s = tick * TICK_S
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {timed}
            heappush(self._ticks, tick)
            self._arm()
        else:
            bucket.add(timed)

    def forget(self, timed: Timed) -> None:
        """Look at it no more; harmless where it is not filed."""
        if timed.filed_s < inf:
            bucket = self._buckets.get(round(timed.filed_s / TICK_S))
            if bucket is not None:
                bucket.discard(timed)
            timed.filed_s = inf

    def close(self) -> None:
        """Forget all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for bucket in self._buckets.values():
            for timed in bucket:
                timed.filed_s = inf
        self._buckets.clear()
        self._ticks.clear()
        self._armed_s = inf

    def _arm(self) -> None:
        at_s = self._ticks[0] * TICK_S + _ROUNDING_S
        if at_s < self._armed_s:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_s = at_s
            self._timer = self._loop.call_at(at_s, self._turn)

    def _turn(self) -> None:
        """Look at every bucket whose tick has come."""
        self._timer = None
        self._armed_s = inf
        now_s = self._loop.time()
        while self._ticks and self._ticks[0] * TICK_S <= now_s:
            for timed in self._buckets.pop(heappop(self._ticks)):
                timed.filed_s = inf
                if timed.due_s <= now_s:
                    timed.expire()
                elif timed.due_s < inf:
                    self.file(timed)
        if self._ticks:
            self._arm()
