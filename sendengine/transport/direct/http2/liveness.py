"""Whether a connection is of use: when to ask with a PING, when it is dead, too old, or for nothing; no clock.

Units: seconds on the running loop's clock, handed in.
"""

from math import inf
from typing import Final

from sendengine.transport.direct.http2 import frames
from sendengine.transport.direct.http2.control import Control

SILENT_S: Final = 5.0  # without a byte while replies are awaited, before a ping
IDLE_PING_S: Final = 20.0  # without a byte while none is
PONG_S: Final = 10.0  # for the answer to a ping


class Liveness:
    """One connection's signs of life. ``heard_s`` is when a byte came last, or when something was asked again."""

    __slots__ = ("_barred_until_s", "_control", "_patience_s", "_pings", "_pong_due_s", "heard_s", "until_s")

    def __init__(self, control: Control, *, patience_s: float) -> None:
        """``patience_s`` is for how long the server may allow no streams at all."""
        self.heard_s = 0.0
        self.until_s = inf  # when it is too old
        self._control = control
        self._pings = 0
        self._pong_due_s = inf
        self._patience_s = patience_s
        self._barred_until_s = inf

    def begin(self, now_s: float, *, lifetime_s: float) -> None:
        """The connection is open."""
        self.heard_s = now_s
        self.until_s = now_s + lifetime_s

    def bar(self, now_s: float, *, is_barred: bool) -> None:
        """The server allows no streams from now on, or some again."""
        self._barred_until_s = now_s + self._patience_s if is_barred else inf

    def is_useless(self, now_s: float) -> bool:
        """Whether the server has allowed no streams for too long."""
        return now_s >= self._barred_until_s

    @property
    def is_asking(self) -> bool:
        """Whether a ping is not answered yet."""
        return self._control.awaited_pong is not None

    def is_dead(self, now_s: float) -> bool:
        """Whether a ping was not answered in time."""
        return self.is_asking and now_s >= self._pong_due_s

    def must_ask(self, now_s: float, *, is_busy: bool) -> bool:
        """Whether it is time for a ping."""
        return not self.is_asking and now_s >= self.heard_s + _patience_s(is_busy=is_busy)

    def ping(self, now_s: float) -> bytes:
        """Return a ping, which is to be answered within `PONG_S`."""
        self._pings += 1
        self._pong_due_s = now_s + PONG_S
        payload = self._control.awaited_pong = self._pings.to_bytes(8, "big")
        return frames.frame(frames.PING, payload=payload)

    def due_s(self, now_s: float, *, is_busy: bool) -> float:
        """When to look again, if nothing happens until then."""
        next_s = self._pong_due_s if self.is_asking else max(now_s, self.heard_s + _patience_s(is_busy=is_busy))
        return min(self.until_s, self._barred_until_s, next_s)


def _patience_s(*, is_busy: bool) -> float:
    return SILENT_S if is_busy else IDLE_PING_S
