"""Whether a connection is of use: when to ask with a PING, when it is dead, too old, or for nothing; no clock.

Units: seconds on the running loop's clock, handed in.
"""

from math import inf
from typing import Final

from sendengine.transport.direct.http2 import frames
from sendengine.transport.direct.http2.control import Control
from sendengine.transport.direct.http2.sending import Sender

SILENT_S: Final = 5.0  # without a byte while replies are awaited, before a ping
IDLE_PING_S: Final = 20.0  # without a byte while none is
PONG_S: Final = 10.0  # for the answer to a ping
STUCK_S: Final = 1.0  # in which no body went on, before what has room on the connection and is not sent goes elsewhere


class Liveness:
    """One connection's signs of life. ``heard_s`` is when a byte came last, or when something was asked again."""

    __slots__ = (
        "_barred_until_s",
        "_control",
        "_moved",
        "_patience_s",
        "_pings",
        "_pong_due_s",
        "_sender",
        "_stuck_since_s",
        "heard_s",
        "until_s",
    )

    def __init__(self, control: Control, sender: Sender, *, patience_s: float) -> None:
        """``patience_s`` is for how long the server may allow no streams at all, or leave bodies without a window."""
        self.heard_s = 0.0
        self.until_s = inf  # when it is too old
        self._control = control
        self._sender = sender
        self._pings = 0
        self._pong_due_s = inf
        self._patience_s = patience_s
        self._barred_until_s = inf
        self._stuck_since_s = inf  # since when nothing could be sent of what waits for a window
        self._moved = 0

    def begin(self, now_s: float, *, lifetime_s: float) -> None:
        """The connection is open."""
        self.heard_s = now_s
        self.until_s = now_s + lifetime_s

    def bar(self, now_s: float, *, is_barred: bool) -> bool:
        """Take note that the server allows no streams, or some; whether it was otherwise before."""
        if is_barred == (self._barred_until_s < inf):
            return False
        self._barred_until_s = now_s + self._patience_s if is_barred else inf
        return True

    def is_useless(self, now_s: float) -> bool:
        """Whether the server has allowed no streams for too long."""
        return now_s >= self._barred_until_s

    def wrote(self, now_s: float) -> None:
        """As much was written as may be: see whether something still waits for a window, and how long it has."""
        sender = self._sender
        if not sender.is_blocked:
            self._stuck_since_s = inf
        elif self._stuck_since_s == inf or sender.moved != self._moved:
            self._stuck_since_s = now_s
        self._moved = sender.moved

    @property
    def is_well(self) -> bool:
        """Whether the server answers, reads, and leaves a window: else nothing new is for this connection."""
        return not self.is_asking and not self._sender.is_paused and not self._sender.is_starved

    def will_soon_be_well(self, now_s: float) -> bool:
        """Whether it lacks a window or the server's reading alone, for no longer than the way there and back takes."""
        return not self.is_asking and now_s < self._stuck_since_s + STUCK_S

    def retire(self) -> None:
        """It takes nothing new any more, so that it need not be looked at for that."""
        self.until_s = self._patience_s = inf

    def is_old(self, now_s: float) -> bool:
        """Whether it is time to take nothing new: it is too old, has failed, or a body has waited too long."""
        return self._sender.has_failed or now_s >= min(self.until_s, self._stuck_since_s + self._patience_s)

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
        return min(self.until_s, self._barred_until_s, self._stuck_since_s + self._patience_s, next_s)


def _patience_s(*, is_busy: bool) -> float:
    return SILENT_S if is_busy else IDLE_PING_S
