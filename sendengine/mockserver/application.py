"""The application limit: deliveries within 15 minutes against ten times the subscribed users.

Units: instants are seconds on one monotonic clock, handed in.

Source: rate limits: reaching exactly ten times counts as over, and the app stays disabled until a person re-enables it.
"""

from collections import deque
from math import floor
from typing import Final, Literal

from sendengine.core.onesignal import APPLICATION_FACTOR, APPLICATION_WINDOW_S

_GRAIN_S: Final = 0.001  # deliveries of one millisecond share an entry, so a full window holds 900,000 at the most


class ApplicationLimit:
    """Counts deliveries, and says when they have tripped the limit."""

    __slots__ = ("_began_s", "_counts", "_stamps", "_static_window", "_total", "_window", "most_seen")

    def __init__(self, window: Literal["rolling", "static", "off"], *, now_s: float) -> None:
        self._window = window
        self._began_s = now_s
        self._stamps: deque[float] = deque()
        self._counts: deque[int] = deque()
        self._total = 0
        self._static_window = 0
        self.most_seen = 0

    def add(self, deliveries: int, *, subscribed_users: int, now_s: float) -> bool:
        """Count deliveries, and return whether the app is to be disabled for them."""
        if self._window == "off":
            return False
        self._forget(now_s)
        if self._stamps and now_s - self._stamps[-1] < _GRAIN_S:
            self._counts[-1] += deliveries
        else:
            self._stamps.append(now_s)
            self._counts.append(deliveries)
        self._total += deliveries
        self.most_seen = max(self.most_seen, self._total)
        return self._total >= APPLICATION_FACTOR * subscribed_users

    def _forget(self, now_s: float) -> None:
        if self._window == "static":
            window = floor((now_s - self._began_s) / APPLICATION_WINDOW_S)
            if window != self._static_window:
                self._static_window = window
                self._stamps.clear()
                self._counts.clear()
                self._total = 0
            return
        stamps = self._stamps
        while stamps and stamps[0] <= now_s - APPLICATION_WINDOW_S:
            stamps.popleft()
            self._total -= self._counts.popleft()
