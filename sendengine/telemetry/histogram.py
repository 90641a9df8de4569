"""Latencies in a log-linear histogram: any number of them in bounded memory, each to within 0.8 percent.

Units: seconds in, milliseconds out, microseconds inside.

Method: each doubling of the time is split into 64 equal buckets; below 128 us a bucket is one microsecond. A table
names the bucket of every number below 65,536, and of a longer time its number of 1,024 us, which is again below
65,536 up to 67 s. That leaves one comparison and one look-up a record: about four empty calls, where a logarithm
costs nine. Percentiles are by nearest rank, as the middle of the bucket and never beyond the largest value.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from math import ceil
from typing import Final

_SPLIT_BITS: Final = 6  # 64 buckets a doubling
_STEP_BITS: Final = 10  # from one use of the table to the next
_STEP: Final = _STEP_BITS << _SPLIT_BITS
_TABLE_SIZE: Final = 1 << 16
_LONGEST_US: Final = (_TABLE_SIZE << _STEP_BITS << _STEP_BITS) - 1  # 19 hours; longer times count as this


def _bucket(number: int) -> int:
    """Name the bucket of ``number`` without the table."""
    shift = max(0, number.bit_length() - _SPLIT_BITS - 1)
    return (shift << _SPLIT_BITS) + (number >> shift)


_BUCKETS: Final = array("H", map(_bucket, range(_TABLE_SIZE)))


def _middle_us(bucket: int) -> float:
    """Return the middle of a bucket."""
    shift = max(0, (bucket >> _SPLIT_BITS) - 1)
    low = (bucket - (shift << _SPLIT_BITS)) << shift
    return low + (1 << shift) / 2


class Histogram:
    """Counts times. Starts empty, and an empty one has zero for every percentile."""

    __slots__ = ("_counts", "_longest_s")

    def __init__(self) -> None:
        self._counts = [0] * (_bucket(_LONGEST_US) + 1)
        self._longest_s = 0.0

    def __repr__(self) -> str:
        return f"<Histogram {self.count} times, p50 {self.percentile_ms(50):.3f} ms, max {self.max_ms:.3f} ms>"

    def record(self, seconds: float) -> None:
        """Count one time of ``seconds``, which is 0 or more."""
        time_us = int(seconds * 1e6)
        try:
            # The common case is inline because it runs once a request: a call more would double its cost.
            self._counts[_BUCKETS[time_us >> _STEP_BITS] + _STEP if time_us >= _TABLE_SIZE else _BUCKETS[time_us]] += 1
        except IndexError:
            self._counts[_bucket(min(time_us, _LONGEST_US))] += 1
        if seconds > self._longest_s:  # noqa: PLR1730 - calling max() would cost a third of the record
            self._longest_s = seconds

    def merge(self, other: "Histogram") -> None:
        """Count everything that ``other`` has counted, too."""
        self.absorb(enumerate(other.counts), longest_s=other.max_ms / 1e3)

    def absorb(self, counted: Iterable[tuple[int, int]], *, longest_s: float) -> None:
        """Count what another one had in its buckets, given as pairs of bucket and count."""
        for bucket, count in counted:
            self._counts[bucket] += count
        self._longest_s = max(self._longest_s, longest_s)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many times each bucket has counted."""
        return tuple(self._counts)

    @property
    def count(self) -> int:
        """How many times were counted."""
        return sum(self._counts)

    @property
    def max_ms(self) -> float:
        """The longest of them, exactly."""
        return self._longest_s * 1e3

    def percentile_ms(self, percent: float) -> float:
        """Return the time that ``percent`` of all (above 0, at most 100) do not exceed."""
        upto = list(accumulate(self._counts))
        if not upto[-1]:
            return 0.0
        # Rounded first: 99.9 % of a million is a whole number, and a float may put it just above.
        rank = max(1, ceil(round(upto[-1] * percent / 100, 6)))
        return min(_middle_us(bisect_left(upto, rank)) / 1e3, self.max_ms)
