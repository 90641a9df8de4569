"""Requests that came back: those that may go again at once, and those that wait for an instant.

Units: seconds on the running loop's clock.
"""

from heapq import heapify, heappop, heappush
from itertools import chain
from math import inf
from typing import TypeAlias

from sendengine.engine.retries import Retries
from sendengine.engine.sealed import Sealed

_Later: TypeAlias = tuple[float, int, float, Sealed]
"""When it is due, its sequence, when it may go at the earliest, and the request."""


class Returns:
    """One lane's. What goes again at once goes high first, and in the order of its first pull.

    Of those that are due and wait for the retry budget, the high ones go first, too.
    """

    __slots__ = ("_back", "_later", "_paid_at_s", "_retries", "count")

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self.count = 0  # how many wait; one that is over stays in its heap until it comes to the front, uncounted
        self._back: list[Sealed] = []
        self._later: tuple[list[_Later], list[_Later]] = [], []  # high ones, normal ones
        self._paid_at_s = -inf  # none of those goes before the retry budget has earned it

    @property
    def has_ready(self) -> bool:
        """Whether one may go at once."""
        while self._back and self._back[0].is_over:
            heappop(self._back)
        return bool(self._back)

    @property
    def is_high(self) -> bool:
        """Whether the next one that may go at once is high."""
        return self.has_ready and self._back[0].is_high

    @property
    def oldest_s(self) -> float | None:
        """When the one that is under way longest was sealed; None where none waits."""
        waiting = (*self._back, *(entry[3] for entry in chain(*self._later)))
        return min((sealed.sealed_at_s for sealed in waiting if not sealed.is_over), default=None)

    def push(self, sealed: Sealed) -> None:
        """It may go again at once, in its old place."""
        self.count += 1
        heappush(self._back, sealed)

    def push_later(self, sealed: Sealed, *, at_s: float, not_before_s: float) -> None:
        """It goes again at ``at_s``, or from ``not_before_s`` on where an outage ends in between."""
        self.count += 1
        heappush(self._later[not sealed.is_high], (at_s, sealed.sequence, not_before_s, sealed))

    def pop(self) -> Sealed | None:
        """The next one that may go at once."""
        if not self.has_ready:
            return None
        self.count -= 1
        sealed = heappop(self._back)
        sealed.is_waiting = False
        return sealed

    def drop(self) -> None:
        """One of those that wait is over: its deadline has passed."""
        self.count -= 1

    def is_due(self, *, now_s: float) -> bool:
        """Whether one may go, as far as can be told without asking the retry budget."""
        return self.has_ready or self._due_s() <= now_s

    def next_s(self) -> float | None:
        """When the next one is due, in the past where it may go at once; None where none waits."""
        due_s = -inf if self.has_ready else self._due_s()
        return None if due_s == inf else due_s

    def ripen(self, *, now_s: float) -> None:
        """Let those go at once that are due, as far as the retry budget pays for them.

        What a server has refused unread it need not pay for: that has cost the server nothing, and us a permit.
        In an outage one that may safely go is a probe at hand, for where there is nothing fresh to probe with: a
        request that is itself at fault must not be the probe for ever.
        """
        while self._due_s() <= now_s:
            if self._retries.is_outage and self.has_ready:
                return
            due = [later for later in self._later if later and self._at_s(later[0]) <= now_s]
            later = min(due) if self._retries.is_outage else due[0]  # or a high one would be the probe each time
            wait_s = 0.0 if later[0][3].was_refused else self._retries.may_repeat(now_s=now_s)
            if wait_s:
                self._paid_at_s = now_s + wait_s
                return
            heappush(self._back, heappop(later)[3])

    def expedite(self, *, now_s: float) -> None:
        """An outage is over: what waited only because nothing was answered may go as soon as that is safe."""
        for later in self._later:
            later[:] = [
                (min(at_s, max(now_s, not_before_s)), sequence, not_before_s, sealed)
                for at_s, sequence, not_before_s, sealed in later
            ]
            heapify(later)

    def drain_all(self) -> list[Sealed]:
        """Remove and return everything."""
        drained = [one for one in (*self._back, *(entry[3] for entry in chain(*self._later))) if not one.is_over]
        self._back, self._later, self.count = [], ([], []), 0
        return drained

    def _due_s(self) -> float:
        """When the first of those that wait for an instant is due; infinity where none does."""
        for later in self._later:
            while later and later[0][3].is_over:
                heappop(later)
        return max(self._paid_at_s, min((self._at_s(later[0]) for later in self._later if later), default=inf))

    def _at_s(self, entry: _Later) -> float:
        at_s, _, not_before_s, _ = entry
        return not_before_s if self._retries.is_outage else at_s
