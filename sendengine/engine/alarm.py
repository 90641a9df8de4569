"""One timer for the earliest of many instants.

Units: seconds on the running loop's clock.
"""

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` once, at the earliest instant that was asked for since it rang last."""

    __slots__ = ("_at_s", "_ring", "_timer")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at_s = 0.0

    def set(self, at_s: float) -> None:
        """Ring at ``at_s``, unless it will ring earlier."""
        if self._timer is not None:
            if self._at_s <= at_s:
                return
            self._timer.cancel()
        self._at_s = at_s
        self._timer = asyncio.get_running_loop().call_at(at_s, self._rings)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()


def earliest(one_s: float | None, other_s: float | None) -> float | None:
    """The earlier of two instants, each of which may be never."""
    if one_s is None:
        return other_s
    return one_s if other_s is None else min(one_s, other_s)
