"""Which rows of a file are done: a set of stretches, few where rows are done nearly in order.

Units: rows are counted from 0; a stretch goes from its first row up to its end.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class Stretches:
    """A set of rows, as stretches that neither meet nor overlap, in order."""

    __slots__ = ("_ends", "_firsts")

    def __init__(self, stretches: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []
        for first, end in stretches:
            self.add(first, end)

    def add(self, first: int, end: int) -> None:
        """Put the rows from ``first`` up to ``end`` in."""
        if end <= first:
            return
        low = bisect_left(self._ends, first)  # the first stretch that meets or overlaps, or comes behind
        high = bisect_right(self._firsts, end)
        if low < high:
            first = min(first, self._firsts[low])
            end = max(end, self._ends[high - 1])
        self._firsts[low:high] = [first]
        self._ends[low:high] = [end]

    def covers(self, first: int, end: int) -> bool:
        """Whether all rows from ``first`` up to ``end`` are in."""
        place = bisect_right(self._firsts, first) - 1
        return place >= 0 and self._ends[place] >= end

    def count(self, end: int) -> int:
        """How many of the rows before ``end`` are in."""
        return sum(min(last, end) - first for first, last in zip(self._firsts, self._ends, strict=True) if first < end)

    @property
    def prefix_end(self) -> int:
        """Up to where all rows from the first one on are in."""
        return self._ends[0] if self._firsts and self._firsts[0] == 0 else 0

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The stretches."""
        return list(zip(self._firsts, self._ends, strict=True))
