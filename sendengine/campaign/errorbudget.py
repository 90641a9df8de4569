"""Stops a run that mostly fails: an error budget over its last requests, of a campaign over the original packs.

A pack of which anything was accepted is no error, and the pieces of a split never count: one poisoned recipient spoils
no campaign. A pack whose recipients are all unsubscribed is no error either. In a jobs file each request counts, the
pieces of a split among them.

Units: rates are parts of 1.
"""

from collections import deque
from typing import Final

WINDOW: Final = 200
LEAST: Final = 20
DEFAULT_RATE: Final = 0.05
"""Of a campaign. Jobs of a file are unlike one another, and all may well fail: they have a budget that is asked for."""


class ErrorBudget:
    """Looks at the last `WINDOW` requests; judges nothing before `LEAST` have ended."""

    __slots__ = ("_errors", "_last", "max_rate")

    def __init__(self, max_rate: float) -> None:
        self.max_rate = max_rate
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._errors = 0

    def note(self, *, is_error: bool) -> None:
        """Take note of how a request ended."""
        if len(self._last) == WINDOW:
            self._errors -= self._last[0]
        self._last.append(is_error)
        self._errors += is_error

    @property
    def is_spent(self) -> bool:
        """Whether more of the last requests failed than allowed."""
        return len(self._last) >= LEAST and self._errors > self.max_rate * len(self._last)

    def __str__(self) -> str:
        return f"{self._errors} of the last {len(self._last)} requests failed, and {self.max_rate:.1%} may"
