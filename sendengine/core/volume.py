"""The application limit: how much may still be delivered in the fifteen minutes that end now.

OneSignal disables an app whose deliveries in fifteen minutes reach ten times its subscribed users, and a person
must enable it again. Its pages disagree about the fifteen minutes, so both readings are here: *rolling*, any
fifteen minutes, and *static*, the quarters of the clock's hour.

Units: deliveries (recipients, not requests); ``_s`` is seconds since the epoch, handed in, since processes share
the count.

Method: blocks, one a second with how much was reserved in it. What is reserved is delivered a little later, so a
block counts for ``LATENESS_S`` longer than its fifteen minutes, and in both quarters where that reaches into the
next. A clock that was set back moves the blocks of its future to the present, where they last longest.

Source: documentation.onesignal.com/reference/rate-limits, read 2026-11-21, and its text of 2024 (static).
"""

from collections.abc import Iterable
from math import floor, inf
from typing import Final, Literal

from sendengine.core.onesignal import APPLICATION_FACTOR, APPLICATION_WINDOW_S

WindowKind = Literal["rolling", "static"]

LATENESS_S: Final = 5  # a block holds a second's sending, and a reply takes seconds at worst


def delivery_limit(*, subscribed_users: int, share: float) -> int:
    """Return the most deliveries that 15 minutes may hold: that share of ten a user, and always fewer than ten.

    ``share`` is the application limit's share times the app's own, above 0 and at most 1.
    """
    disabled_at = APPLICATION_FACTOR * subscribed_users
    return max(0, min(disabled_at - 1, floor(disabled_at * share)))


class VolumeWindow:
    """What was reserved in the last fifteen minutes, read one way or the other."""

    __slots__ = ("_blocks", "_kind")

    def __init__(self, kind: WindowKind, *, blocks: Iterable[tuple[int, int]] = ()) -> None:
        """Start with ``blocks``: pairs of a second and what was reserved in it, in any order."""
        self._kind = kind
        self._blocks: dict[int, int] = {}  # the seconds ascend
        for second, count in sorted(blocks):
            self._blocks[second] = self._blocks.get(second, 0) + count

    def __repr__(self) -> str:
        return f"<VolumeWindow {self._kind}, {sum(self._blocks.values())} in {len(self._blocks)} s>"

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """What to keep, for another window to start with."""
        return tuple(self._blocks.items())

    def add(self, count: int, *, now_s: float) -> int:
        """Count ``count`` as reserved now, and return the second that it was counted under."""
        self._settle(now_s)
        second = floor(now_s)
        self._blocks[second] = self._blocks.get(second, 0) + count
        return second

    def give_back(self, count: int, *, second: int) -> None:
        """Take back what `add` counted under ``second`` and nobody used; what is not there any more stays counted."""
        left = self._blocks.get(second, 0) - count
        if left > 0:
            self._blocks[second] = left
        else:
            self._blocks.pop(second, None)

    def total(self, *, now_s: float) -> int:
        """Add up what counts now."""
        self._settle(now_s)
        return sum(count for second, count in self._blocks.items() if self._ends_s(second) > now_s)

    def room(self, limit: int, *, now_s: float) -> int:
        """How many more may be reserved now, so that no more than ``limit`` count."""
        return max(0, limit - self.total(now_s=now_s))

    def again_in_s(self, limit: int, wanted: int, *, now_s: float) -> float:
        """How long until there is room for ``wanted``, if nothing else is reserved: 0 now, infinity never."""
        if wanted > limit:
            return inf
        missing = self.total(now_s=now_s) + wanted - limit
        ends_s = now_s
        for second, count in self._blocks.items():
            if missing <= 0:
                break
            if self._ends_s(second) > now_s:
                ends_s = self._ends_s(second)
                missing -= count
        return ends_s - now_s

    def _ends_s(self, second: int) -> int:
        """When a block stops counting."""
        delivered_s = second + LATENESS_S
        if self._kind == "rolling":
            return delivered_s + APPLICATION_WINDOW_S
        return (delivered_s // APPLICATION_WINDOW_S + 1) * APPLICATION_WINDOW_S

    def _settle(self, now_s: float) -> None:
        """Forget what counts under neither reading, so that windows of both kinds may share their blocks."""
        present = floor(now_s)
        early = 0
        while self._blocks and next(reversed(self._blocks)) > present:
            early += self._blocks.popitem()[1]
        while self._blocks and (oldest := next(iter(self._blocks))) <= present - APPLICATION_WINDOW_S - LATENESS_S:
            del self._blocks[oldest]
        if early:
            self._blocks[present] = self._blocks.get(present, 0) + early
