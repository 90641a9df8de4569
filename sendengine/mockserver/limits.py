"""Counters that judge requests: let through, or refused and how long until there is room.

Units: instants are seconds on one monotonic clock, handed in; limits are requests per second.

Method: each counter is what its name says and nothing cleverer, so that it can be believed when it disagrees with a
client. None of their arithmetic comes from the engine.
"""

from collections import deque
from math import floor
from typing import Final, Protocol

from sendengine.mockserver.config import LaneLimit

LET_THROUGH: Final = 0.0
_WINDOW_S: Final = 1.0
_ROUNDING: Final = 1e-9  # what adding up fractions may lose; not somebody coming too early


class Counter(Protocol):
    """Judges requests one after another; ``limit`` may be changed at any time."""

    limit: float

    def take(self, now_s: float) -> float:
        """Count a request that arrived at ``now_s``: 0.0, or the seconds until one would be let through."""
        ...


class SlidingSecond:
    """At most ``limit`` requests in the second before and including each of them: an exact log."""

    __slots__ = ("_count_refused", "_stamps", "limit")

    def __init__(self, limit: float, *, count_refused: bool) -> None:
        self.limit = limit
        self._count_refused = count_refused
        self._stamps: deque[float] = deque()

    def take(self, now_s: float) -> float:
        """See `Counter.take`."""
        stamps = self._stamps
        while stamps and stamps[0] <= now_s - _WINDOW_S:
            stamps.popleft()
        most = floor(self.limit)
        if len(stamps) < most:
            stamps.append(now_s)
            return LET_THROUGH
        if self._count_refused:
            stamps.append(now_s)
        # There is room as soon as the log is one short of the limit, that is when this entry has left it.
        leaves = len(stamps) - most
        return stamps[leaves] + _WINDOW_S - now_s if leaves < len(stamps) else _WINDOW_S


class FixedSecond:
    """At most ``limit`` requests in each second of the clock."""

    __slots__ = ("_count", "_count_refused", "_second", "limit")

    def __init__(self, limit: float, *, count_refused: bool) -> None:
        self.limit = limit
        self._count_refused = count_refused
        self._second = -1
        self._count = 0

    def take(self, now_s: float) -> float:
        """See `Counter.take`."""
        second = floor(now_s)
        if second != self._second:
            self._second = second
            self._count = 0
        fits = self._count + 1 <= self.limit
        if fits or self._count_refused:
            self._count += 1
        return LET_THROUGH if fits else second + 1 - now_s


class TwoWindows:
    """The estimate of proxies and edges: this second's count, and what of the last second's still overlaps."""

    __slots__ = ("_before", "_count", "_count_refused", "_second", "limit")

    def __init__(self, limit: float, *, count_refused: bool) -> None:
        self.limit = limit
        self._count_refused = count_refused
        self._second = -1
        self._before = 0
        self._count = 0

    def take(self, now_s: float) -> float:
        """See `Counter.take`."""
        second = floor(now_s)
        if second != self._second:
            self._before = self._count if second == self._second + 1 else 0
            self._second = second
            self._count = 0
        left = second + 1 - now_s
        fits = self._before * left + self._count + 1 <= self.limit
        if fits or self._count_refused:
            self._count += 1
        return LET_THROUGH if fits else left


class Bucket:
    """Tokens that refill at ``limit`` a second up to ``burst``; it starts full.

    Where refused requests count they take a token too, down to a debt of ``burst``.
    """

    __slots__ = ("_burst", "_count_refused", "_seen_s", "_tokens", "limit")

    def __init__(self, limit: float, *, count_refused: bool, burst: float, now_s: float) -> None:
        self.limit = limit
        self._count_refused = count_refused
        self._burst = burst
        self._tokens = burst
        self._seen_s = now_s

    def take(self, now_s: float) -> float:
        """See `Counter.take`."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._seen_s) * self.limit)
        self._seen_s = now_s
        if self._tokens >= 1 - _ROUNDING:
            self._tokens -= 1
            return LET_THROUGH
        if self._count_refused:
            self._tokens = max(self._tokens - 1, -self._burst)
        return (1 - self._tokens) / self.limit if self.limit else _WINDOW_S


class Everything:
    """Lets everything through."""

    __slots__ = ("limit",)

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def take(self, now_s: float) -> float:  # noqa: ARG002  # a Counter's signature
        """See `Counter.take`."""
        return LET_THROUGH


class UserPace:
    """One update per user and ``interval_s``; remembers only who was seen within the last two intervals."""

    __slots__ = ("_before", "_count_refused", "_current", "_interval_s", "_turned_s")

    def __init__(self, interval_s: float, *, count_refused: bool, now_s: float) -> None:
        self._interval_s = interval_s
        self._count_refused = count_refused
        self._turned_s = now_s
        self._current: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def take(self, user: str, now_s: float) -> float:
        """Count an update of ``user``: 0.0, or the seconds until that user is free again."""
        if now_s - self._turned_s >= self._interval_s:
            self._before, self._current = self._current, {}
            self._turned_s = now_s
        last_s = self._current.get(user)
        if last_s is None:
            last_s = self._before.get(user, -self._interval_s)
        wait_s = last_s + self._interval_s - now_s
        if wait_s <= _ROUNDING:
            self._current[user] = now_s
            return LET_THROUGH
        if self._count_refused:
            self._current[user] = now_s
            return self._interval_s
        return wait_s


def counter_of(limit: LaneLimit, *, rate: float, now_s: float) -> Counter:
    """Make the counter that the settings ask for."""
    match limit.counter:
        case "sliding_second":
            return SlidingSecond(rate, count_refused=limit.count_refused)
        case "fixed_second":
            return FixedSecond(rate, count_refused=limit.count_refused)
        case "two_windows":
            return TwoWindows(rate, count_refused=limit.count_refused)
        case "bucket":
            return Bucket(rate, count_refused=limit.count_refused, burst=limit.burst or rate, now_s=now_s)
        case "off":
            return Everything(rate)
