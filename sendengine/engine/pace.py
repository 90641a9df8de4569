"""Feeds what OneSignal answers into the lane's controller, and what the controller decides into the lane's limiter.

Units: seconds on the running loop's clock; rates in requests a second.
"""

import asyncio
import logging
from collections.abc import Callable
from math import ceil, inf
from typing import Final

from sendengine.core.backoff import BackoffController, RateChange
from sendengine.engine.events import announce
from sendengine.limiter import Limiter

LOOKAHEAD_S: Final = 0.025  # requests are taken this long before their permit
_LEAST_LOOKAHEAD: Final = 2
_POLL_S: Final = 0.05  # how often a rate that is on its way is set anew


class Pace:
    """A lane's gate and rate. ``when_open``, which the lane sets, is called each time the gate opens."""

    def __init__(self, *, lane: str, limiter: Limiter, controller: BackoffController) -> None:
        self.limiter = limiter
        self.controller = controller
        self.lookahead = _LEAST_LOOKAHEAD  # how many requests may wait for their permits
        self.held_s = 0.0
        self._disk_s = 0.0  # how long a request waits for the disk before it waits for its permit
        self._cap = inf
        self._is_paused = False
        self.is_open = True  # anything may be sent
        self._fruitless = 0  # epochs since anything was accepted,
        self._fruitless_since_s = 0.0  # and when the first of them began
        self._is_closed = False
        self._is_asleep = False
        self._granted = 0
        self._lane = lane
        self.when_open: Callable[[], None] | None = None
        self.sent = controller.sent  # a request is sent now; bound, since each one comes by here
        self._closed_at_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._polling: asyncio.TimerHandle | None = None

    @property
    def opens_at_s(self) -> float | None:
        """When the gate opens; None while it is open, or closed until somebody opens it."""
        return None if self._closed_at_s is None else self.controller.gate_until_s

    @property
    def is_paused(self) -> bool:
        """Whether somebody has closed the gate until further notice."""
        return self._is_paused

    def start(self) -> None:
        """Set the rate that the controller begins with: it may remember a lower one."""
        now_s = asyncio.get_running_loop().time()
        self._set_rate(now_s)
        self._poll_if_needed()

    def accepted(self) -> None:
        """A request was answered, and not with 429."""
        self._fruitless = 0
        if self._is_asleep:
            self._is_asleep = False
            self._poll_if_needed()

    def throttled(self, *, sent_at_s: float, retry_after_s: float | None) -> None:
        """A 429 for the lane: close the gate, and learn."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        change = self.controller.throttled(sent_at_s=sent_at_s, received_at_s=now_s, retry_after_s=retry_after_s)
        if change is not None:
            if not self._fruitless:
                self._fruitless_since_s = now_s
            self._fruitless += 1
            self._announce(change)
        else:
            self._announce_milestone(now_s)  # what else comes of the same event may revise its cause
        if self._is_closed:
            return
        if self.controller.gate_until_s <= now_s:
            self._poll_if_needed()
            return
        if self._closed_at_s is None:
            self._closed_at_s = now_s
            self.is_open = False
            self.limiter.close_gate()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self.controller.gate_until_s, self._open)

    def fruitless_since_s(self, *, least_epochs: int) -> float | None:
        """Since when the gate has opened and closed again, so often at least, without anything being accepted."""
        return self._fruitless_since_s if self._fruitless >= least_epochs else None

    def pause(self) -> None:
        """Let nothing more out, until `unpause`."""
        self._is_paused = True
        self.is_open = False
        self.limiter.close_gate()

    def unpause(self) -> None:
        """Go on, unless the gate is closed for another reason."""
        if not self._is_paused:
            return
        self._is_paused = False
        self.is_open = self._closed_at_s is None
        if self.is_open and not self._is_closed:
            self._reopen(asyncio.get_running_loop().time())

    def cap(self, rate: float | None) -> None:
        """Send at most ``rate`` requests a second, or one a minute, whatever the controller says; None: as it says.

        Raises ValueError where ``rate`` is not above 0: `pause` is what sends nothing.
        """
        if rate is not None and not rate > 0:
            raise ValueError(f"a rate must be above 0 requests/s, got {rate}; pause() sends nothing")
        self._cap = inf if rate is None else rate
        if self.is_open and not self._is_closed:
            self._set_rate(asyncio.get_running_loop().time())

    def look_ahead(self, *, disk_s: float) -> None:
        """A request takes so long to reach the disk: those whose permits come meanwhile are taken ahead."""
        if not 0.8 * self._disk_s <= disk_s <= 1.2 * self._disk_s:  # it varies all the time; what matters is how much
            self._disk_s = disk_s
            self._look_ahead()

    def held_for_s(self, *, now_s: float) -> float:
        """How long the gate has been closed, in all."""
        return self.held_s + (0.0 if self._closed_at_s is None else now_s - self._closed_at_s)

    def close(self) -> None:
        """Cancel the timers, and set none any more."""
        self._is_closed = True
        for timer in (self._timer, self._polling):
            if timer is not None:
                timer.cancel()

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._timer = None
        if now_s < self.controller.gate_until_s:  # a coarse clock fired a moment early
            self._timer = loop.call_at(self.controller.gate_until_s, self._open)
            return
        if self._closed_at_s is not None:
            self.held_s += now_s - self._closed_at_s
            self._closed_at_s = None
        self.is_open = not self._is_paused
        if self.is_open:
            self._reopen(now_s)

    def _reopen(self, now_s: float) -> None:
        self.limiter.open_gate(rate=min(self._cap, self.controller.pace(now_s=now_s)))
        self._look_ahead()
        self._announce_milestone(now_s)
        self._poll_if_needed()
        if self.when_open is not None:
            self.when_open()

    def _set_rate(self, now_s: float) -> None:
        is_busy = self.limiter.waiting > 0
        self.limiter.set_rate(min(self._cap, self.controller.pace(now_s=now_s, is_busy=is_busy)))
        self._announce_milestone(now_s)
        self._look_ahead()

    def _announce_milestone(self, now_s: float) -> None:
        change = self.controller.milestone(now_s=now_s)
        if change is not None:
            self._announce(change)

    def _look_ahead(self) -> None:
        self.lookahead = max(_LEAST_LOOKAHEAD, ceil(self.limiter.rate * (LOOKAHEAD_S + self._disk_s)))

    def _poll(self) -> None:
        self._polling = None
        if not self.is_open:
            return
        self._set_rate(asyncio.get_running_loop().time())
        granted, self._granted = self._granted, self.limiter.granted
        if granted == self._granted:
            self._is_asleep = True  # nothing was sent: the next answer goes on from here
        else:
            self._poll_if_needed()

    def _poll_if_needed(self) -> None:
        if self._polling is None and not self.controller.is_settled:
            self._polling = asyncio.get_running_loop().call_later(_POLL_S, self._poll)

    def _announce(self, change: RateChange) -> None:
        announce(
            "rate_change",
            f"{self._lane}: {change.cause}, {change.old_rate:.0f} → {change.new_rate:.0f} requests/s"
            + (f" after a hold of {change.hold_s:.1f} s" if change.hold_s else ""),
            level=logging.WARNING if change.cause in {"contended", "misaligned"} else logging.INFO,
            lane=self._lane,
            cause=change.cause,
            scope=change.scope,
            old_rate=change.old_rate,
            new_rate=change.new_rate,
            hold_s=change.hold_s,
        )
