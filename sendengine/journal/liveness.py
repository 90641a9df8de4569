"""Which groups of a log still hold records that count: what may be dropped, and what has to move to the log's end.

Units: sizes are bytes; groups are numbered as they are written.

Method: only the oldest groups are ever dropped. A removal stands in a later group than what it removes, so it is no
longer needed when its own group is the oldest; nothing that was removed comes back. Where a few records that stay
long keep much behind them from being dropped, they are written again at the end: the log is at most about twice as
long as what counts in it, and `SLACK_BYTES`. A record counts as large as its group's records are on average.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

SLACK_BYTES: Final = 16_777_216
MOVED_BYTES: Final = 1_048_576  # of groups that are read again at a time


class Liveness:
    """Where every record that counts stands."""

    __slots__ = ("_counts", "_live_bytes", "_means", "_places", "_sizes", "log_bytes")

    def __init__(self) -> None:
        self.log_bytes = 0
        self._live_bytes = 0
        self._places: dict[int, int] = {}
        self._counts: dict[int, int] = {}  # of the groups, in their order
        self._sizes: dict[int, int] = {}
        self._means: dict[int, int] = {}

    def __len__(self) -> int:
        """How many records count."""
        return len(self._places)

    @property
    def places(self) -> Mapping[int, int]:
        """The group in which each record that counts stands."""
        return self._places

    def appended(self, group: int, records: Collection[int], *, size_bytes: int) -> None:
        """A group was written, with these records; none of them stands anywhere else."""
        mean_bytes = size_bytes // len(records) if records else 0
        self._places.update(dict.fromkeys(records, group))
        self._counts[group] = len(records)
        self._sizes[group] = size_bytes
        self._means[group] = mean_bytes
        self._live_bytes += mean_bytes * len(records)
        self.log_bytes += size_bytes

    def removed(self, records: Iterable[int]) -> None:
        """Records do not count any more, where they did."""
        leave, counts, means, gone_bytes = self._places.pop, self._counts, self._means, 0
        for record in records:
            group = leave(record, None)
            if group is not None:
                counts[group] -= 1
                gone_bytes += means[group]
        self._live_bytes -= gone_bytes

    def first_needed(self) -> int | None:
        """The oldest group in which a record counts; None where nothing counts."""
        return next((group for group, count in self._counts.items() if count), None)

    def dropped_before(self, group: int) -> None:
        """Groups before this one are gone."""
        while (oldest := next(iter(self._counts), group)) < group:
            del self._counts[oldest], self._means[oldest]
            self.log_bytes -= self._sizes.pop(oldest)

    def last_to_move(self) -> int | None:
        """The last of the oldest groups whose records are to be written again; None where nothing is in the way."""
        if self.log_bytes <= 2 * self._live_bytes + SLACK_BYTES:
            return None
        read_bytes = 0
        for group, size_bytes in self._sizes.items():
            read_bytes += size_bytes
            if read_bytes >= MOVED_BYTES:
                return group
        return None
