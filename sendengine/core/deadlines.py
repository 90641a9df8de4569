"""Tells who expires next, among many who mostly leave before their deadline.

Units: ``_s`` is seconds on a monotonic clock, from 0 up and never going back.

Method: deadlines wait in buckets of a second, which are left at no cost, and from the beginning of their second in a
heap. A single heap would keep everybody who left until their deadline, and clearing it of 200,000 of them at once
stops the loop for 40 ms.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

_STALE_SECONDS = 64  # buckets that were emptied and are still listed, before the list is made anew


class Deadlines:
    """Deadlines by key; the owner tells a key that has left, or was used again, by its deadline."""

    __slots__ = ("_buckets", "_count", "_near", "_seconds")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[int, float]] = {}
        self._seconds: list[int] = []
        self._near: list[tuple[float, int, int]] = []  # equal deadlines in the order in which they were entered
        self._count = 0

    def add(self, key: int, *, deadline_s: float) -> None:
        """Enter a key."""
        second = int(deadline_s)
        if second not in self._buckets:
            self._buckets[second] = {}
            heappush(self._seconds, second)
        self._buckets[second][key] = deadline_s

    def discard(self, key: int, *, deadline_s: float) -> None:
        """Remove a key, unless `due` was asked since the second of its deadline began: then it still gives it."""
        second = int(deadline_s)
        bucket = self._buckets.get(second)
        if bucket is None:
            return
        bucket.pop(key, None)
        if not bucket:
            del self._buckets[second]
            if len(self._seconds) > 2 * len(self._buckets) + _STALE_SECONDS:
                self._seconds = sorted(self._buckets)

    def due(self, now_s: float) -> Iterator[tuple[float, int]]:
        """Give, once, the deadlines that have passed and their keys, earliest first."""
        while self._seconds and self._seconds[0] <= now_s:
            bucket = self._buckets.pop(heappop(self._seconds), {})
            first = self._count + 1
            self._count += len(bucket)
            self._near += [(deadline_s, first + index, key) for index, (key, deadline_s) in enumerate(bucket.items())]
            heapify(self._near)
        while self._near and self._near[0][0] <= now_s:
            deadline_s, _, key = heappop(self._near)
            yield deadline_s, key

    def next_s(self) -> float | None:
        """Return an instant before which no deadline passes, at most a second early; None where nobody waits."""
        if not self._seconds and not self._near:
            return None
        while self._seconds and self._seconds[0] not in self._buckets:
            heappop(self._seconds)
        earliest = [*self._seconds[:1], *(entry[0] for entry in self._near[:1])]
        return min(earliest, default=None)
