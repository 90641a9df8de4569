"""How far a campaign may have been sent: a row that is on disk before any request with a row at or behind it goes.

After a crash what is before the frontier may have been received and waits as after a lost reply; what is behind it was
certainly not, and goes at once. So the frontier runs ahead of the sending, by about a quarter second of it: near enough
that little waits in vain, and far enough that nothing waits for the disk.

Units: ``_s`` seconds on a monotonic clock, handed in; rows are counted from 0.
"""

from typing import Final

AHEAD_S: Final = 0.25


class Frontier:
    """Decides when to move it, and where to."""

    __slots__ = ("_asked", "_before", "_now", "_since_s", "durable")

    def __init__(self, row: int = 0) -> None:
        self.durable = row  # on disk: requests of the rows before it may go
        self._asked = row
        self._before = 0  # rows pulled in the last whole quarter second, and in the one that goes on
        self._now = 0
        self._since_s = float("-inf")

    def lower(self, row: int) -> None:
        """Nothing at or behind this row was sent, and nothing goes any more without asking again."""
        self.durable = self._asked = row

    def pull(self, first: int, end: int, *, now_s: float) -> int | None:
        """Rows up to ``end`` are about to go; return where the frontier is to be moved, None where it is well ahead."""
        gone_s = now_s - self._since_s
        if gone_s >= AHEAD_S:
            self._before = self._now if gone_s < 2 * AHEAD_S else 0
            self._now, self._since_s = 0, now_s
        self._now += end - first
        lead = max(self._before, self._now)
        if self._asked >= end + lead // 2:
            return None
        self._asked = end + lead
        return self._asked
