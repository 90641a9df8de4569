"""A token bucket: how many permits there are at an instant.

Units: permits; ``_s`` is seconds on a monotonic clock, handed in as ``now_s`` and never going back.

Method: the generic cell rate algorithm (ITU-T I.371): one number, the instant at which the bucket will be full. What is
missing until then is what was taken, so that nothing has to be poured in as time goes by, and asking changes nothing.
Any t seconds get at most depth + rate·t.
"""

from math import ceil
from typing import Final

TICK_S: Final = 0.002
SLOWEST_RATE: Final = 1 / 60  # permits a second
_ROUNDING: Final = 1e-6  # permits, or ms: instants are floats, and what is due may come a hair short


class Bucket:
    """Holds at most one permit and what accrues in ``pause_s``, so that a pause as long as that loses nothing.

    Starts with ``permits``, or full.
    """

    __slots__ = ("_full_at_s", "_interval_s", "depth", "pause_s", "rate")

    def __init__(self, rate: float, *, pause_s: float, now_s: float = 0.0, permits: float | None = None) -> None:
        self.rate = rate
        self.pause_s = pause_s
        self.depth = 1 + rate * pause_s
        self._interval_s = 1 / rate
        self._full_at_s = now_s if permits is None else now_s + (self.depth - permits) / rate

    def __repr__(self) -> str:
        return f"<Bucket {self.rate:g}/s, {self.depth:g} deep, full at {self._full_at_s:.3f} s>"

    def permits(self, *, now_s: float) -> float:
        """Return how many there are, with the part of one that has accrued."""
        return max(0.0, min(self.depth, self.depth - (self._full_at_s - now_s) * self.rate))

    def whole_permits(self, *, now_s: float) -> int:
        """Return how many may be taken."""
        return int(self.permits(now_s=now_s) + _ROUNDING)

    def try_take(self, now_s: float) -> bool:
        """Take one permit, or return False where there is none."""
        full_at_s = self._full_at_s
        if full_at_s <= now_s:
            self._full_at_s = now_s + self._interval_s
            return True
        if full_at_s - now_s > self.pause_s:
            return False
        self._full_at_s = full_at_s + self._interval_s
        return True

    def take(self, count: int, *, now_s: float) -> None:
        """Take ``count`` of the `whole_permits`."""
        self._full_at_s = max(self._full_at_s, now_s) + count * self._interval_s

    def next_in_s(self, *, now_s: float) -> float:
        """Return one tick, or whole milliseconds until the next permit is there, whichever is longer."""
        missing = 1 - self.permits(now_s=now_s) % 1
        return max(TICK_S, ceil(missing / self.rate * 1000 - _ROUNDING) / 1000)
