"""Tells a server that floods us from one that is busy.

Units: frames; seconds on the running loop's clock.

Method: frames that carry nothing (pings, settings, resets of what is over, empty pieces, what nobody knows) are
counted within a second, against an allowance that grows with the requests that were sent in that second.
"""

from math import inf
from typing import Final

from sendengine.transport.direct.http2.faults import ENHANCE_YOUR_CALM, ConnectionFaultError

ALLOWED: Final = 1000
_ALLOWED_PER_STREAM: Final = 4
_PERIOD_S: Final = 1.0


class Guard:
    """Counts what carries nothing on one connection."""

    __slots__ = ("_begun", "_count", "_from_s")

    def __init__(self) -> None:
        self._from_s = -inf
        self._count = 0
        self._begun = 0

    def count(self, frames: int = 1, *, streams: int, now_s: float) -> None:
        """Count so many more; ``streams`` have been opened so far. Raises ConnectionFaultError where it is a flood."""
        if now_s >= self._from_s + _PERIOD_S:
            self._from_s, self._count, self._begun = now_s, 0, streams
        self._count += frames
        if self._count > ALLOWED + _ALLOWED_PER_STREAM * (streams - self._begun):
            raise ConnectionFaultError(ENHANCE_YOUR_CALM, f"the server sent {self._count} frames that carry nothing")
