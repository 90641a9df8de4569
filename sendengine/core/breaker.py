"""The breaker of a lane: stops sending when nothing is answered, and probes until something is.

Units: ``_s`` is seconds on a monotonic clock, handed in.

Method: twenty failures in a row open it. A failure is a transport error or a server fault; anything else that
comes back is an answer, and the first one closes it. While it is open one probe a second goes out for the first
minute; then the time between probes is a sixtieth of the outage so far, and never more than fifteen seconds, so
that sending resumes soon after the outage ends, measured against how long it lasted.
"""

from typing import Final

OPENS_AFTER: Final = 20  # failures in a row
SHORTEST_PROBE_S: Final = 1.0
LONGEST_PROBE_S: Final = 15.0
_PROBE_PART: Final = 60  # an outage's length divided by this is the time to the next probe


class Breaker:
    """Starts closed, which means that everything goes through."""

    __slots__ = ("_closed_at_s", "_probe_at_s", "failures", "opened_at_s")

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.opened_at_s: float | None = None  # since when only probes may be sent; None where it is closed
        self._closed_at_s: float | None = None
        self._probe_at_s = 0.0

    def __repr__(self) -> str:
        state = "closed" if self.opened_at_s is None else f"open since {self.opened_at_s:.3f}"
        return f"<Breaker {state}, {self.failures} failures in a row>"

    @property
    def next_probe_at_s(self) -> float | None:
        """When the next probe may be sent; None where the breaker is closed and everything may."""
        return None if self.opened_at_s is None else self._probe_at_s

    def fail(self, *, sent_at_s: float, now_s: float) -> bool:
        """Note a failure of what was sent at ``sent_at_s``; True where it opens the breaker.

        What was sent before the breaker last closed says nothing about the time since: a server that hung leaves
        hundreds of requests to time out after it has recovered.
        """
        if self._closed_at_s is not None and sent_at_s < self._closed_at_s:
            return False
        self.failures += 1
        if self.opened_at_s is not None or self.failures < OPENS_AFTER:
            return False
        self.opened_at_s = now_s
        self._probe_at_s = now_s + SHORTEST_PROBE_S
        return True

    def answer(self, *, now_s: float) -> bool:
        """Note an answer; True where it closes the breaker: what waits may go from its ``not_before_s`` on."""
        self.failures = 0
        if self.opened_at_s is None:
            return False
        self.opened_at_s = None
        self._closed_at_s = now_s
        return True

    def take_probe(self, *, now_s: float) -> bool:
        """Take the probe that is due; False where none is, or where the breaker is closed.

        It counts as sent. Where the taker cannot send it after all, the next one is due as if it had been.
        """
        if self.opened_at_s is None or now_s < self._probe_at_s:
            return False
        outage_s = now_s - self.opened_at_s
        self._probe_at_s = now_s + min(LONGEST_PROBE_S, max(SHORTEST_PROBE_S, outage_s / _PROBE_PART))
        return True
