"""How many connections may be opened at once, and when none is to be.

Units: connections; seconds on the running loop's clock.

Method: `AT_ONCE` as a rule, so that a thousand lost connections do not come back as a thousand handshakes at once.
Where servers have cut their limits, or a connection came to nothing, only `SCOUTS`, and one more for each that came
with room. After a connection that may carry nothing at all there is a pause, of `_PAUSE_S` and then of twice that,
until one has carried a reply. So there is after the second in a row that came to nothing: that the server ended, within
`_BRIEF_S` and before it answered anything, or that failed while others are open. One alone may be a server that is
being replaced. Where no other is open the pause is always `_PAUSE_S`: it may be an outage, whose end is not to be slept
through.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from sendengine.transport.direct.contract import Connection
from sendengine.transport.warming import AT_ONCE

SCOUTS: Final = 4
_BRIEF_S: Final = 5.0
_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 2.0  # so that the rate is back within 3 s when they work again


class Pacing:
    """Counts what came of the connections that were opened. ``at_once`` may be being opened for those who wait."""

    __slots__ = ("_go_on", "_is_closed", "_is_warned", "_loop", "_pause_s", "_resting", "_unproven", "at_once")

    def __init__(self, go_on: Callable[[], None]) -> None:
        """``go_on`` is called after a pause."""
        self.at_once = AT_ONCE
        self._go_on = go_on
        self._loop = asyncio.get_running_loop()
        self._resting: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._pause_s = _PAUSE_S  # the next one
        self._is_warned = False  # the last one that was opened came to nothing
        self._unproven: dict[Connection, float] = {}  # that have not carried a reply yet, and when they came

    @property
    def is_resting(self) -> bool:
        """Whether none is to be opened now."""
        return self._resting is not None

    @property
    def is_slow(self) -> bool:
        """Whether fewer are to be opened at once than as a rule."""
        return self.at_once < AT_ONCE

    def slow_down(self) -> None:
        """Servers have cut their limits, which may rise again."""
        self.at_once = SCOUTS

    def came(self, connection: Connection) -> None:
        """A connection is open."""
        self._unproven[connection] = self._loop.time()
        if connection.room:
            self.at_once = min(self.at_once + 1, AT_ONCE)
        elif not connection.is_gone:
            self._rest()

    def proven(self, connection: Connection) -> None:
        """A connection has carried a reply; others that are opened will, too."""
        if self._unproven.pop(connection, None) is not None:
            self._pause_s = _PAUSE_S
            self._is_warned = False

    def came_to_nothing(self, *, is_alone: bool) -> None:
        """A connection could not be opened, or was of no use; ``is_alone`` where there is no other."""
        self.at_once = SCOUTS
        if is_alone:
            self._pause_s = _PAUSE_S
        if self._is_warned:
            self._rest()
        self._is_warned = True

    def was_dismissed(self, connection: Connection, *, is_alone: bool) -> bool:
        """Whether a connection that the server has ended came to nothing; asked once."""
        since_s = self._unproven.pop(connection, None)
        is_brief = since_s is not None and self._loop.time() < since_s + _BRIEF_S
        if is_brief:
            self.came_to_nothing(is_alone=is_alone)
        return is_brief

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._unproven.pop(connection, None)

    def close(self) -> None:
        """Go on no more."""
        self._is_closed = True
        if self._resting is not None:
            self._resting.cancel()

    def _rest(self) -> None:
        if self._resting is None and not self._is_closed:
            self._resting = self._loop.call_later(self._pause_s, self._rested)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _rested(self) -> None:
        self._resting = None
        self._go_on()
