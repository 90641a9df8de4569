"""Counts what a lane sent over the last seconds, so that counting one request costs next to nothing.

Units: ``_s`` is seconds on a monotonic clock, handed in.

Method: slots of a fiftieth of the window, eight windows of them: a reply may take seconds, and what had been sent
when its request was is what counts.
"""

from collections import deque
from typing import Final

SLOTS: Final = 50  # in a window
FEWEST_SLOTS: Final = 5  # a shorter spell says nothing about a rate
_KEPT: Final = 8 * SLOTS


class SentMeter:
    """How many requests were sent in the window before an instant in the last seconds."""

    __slots__ = ("_current", "_done", "_slot", "_slots_per_s", "window_s")

    def __init__(self, *, window_s: float) -> None:
        self.window_s = window_s
        self._slots_per_s = SLOTS / window_s
        self._slot = 0
        self._current = 0
        self._done: deque[int] = deque([0] * (_KEPT - 1), maxlen=_KEPT - 1)

    def add(self, count: int, *, now_s: float) -> None:
        """Count ``count`` more; ``now_s`` never goes back."""
        slot = int(now_s * self._slots_per_s)
        if slot != self._slot:
            self._move_to(slot)
        self._current += count

    def before(self, until_s: float, *, since_s: float) -> tuple[int, float]:
        """Return how many were sent in the window before ``until_s``, and in how many seconds.

        Fewer seconds than the window where sending began in it, or at ``since_s``: nothing before is looked at.
        What is no longer known is taken to have been as the oldest window that is.
        """
        oldest = self._slot - _KEPT + 1
        until = max(until_s * self._slots_per_s - oldest, float(SLOTS))
        since = float(int(since_s * self._slots_per_s) - oldest)
        start = max(0.0, since, until - SLOTS)
        slots = [*self._done, self._current]
        first = next((place for place in range(int(start), len(slots)) if slots[place]), len(slots))
        sent = _sum_before(slots, until) - _sum_before(slots, start)
        spell = max(until - max(start, first), float(FEWEST_SLOTS))
        return round(sent), spell / self._slots_per_s

    def _move_to(self, slot: int) -> None:
        for _ in range(min(slot - self._slot, _KEPT)):
            self._done.append(self._current)
            self._current = 0
        self._slot = slot


def _sum_before(slots: list[int], place: float) -> float:
    """Sum the slots before ``place``, the one that it is in by its part: sends are even within a fiftieth."""
    whole = int(place)
    return sum(slots[:whole]) + (slots[whole] * (place - whole) if whole < len(slots) else 0.0)
