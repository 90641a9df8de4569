"""Decides which pack may be sealed next, of the high ones, the lone ones, those that linger and those that go early.

Units: ``_s`` is seconds on a monotonic clock, handed in as ``now_s`` and never going back.

Method: queues in order of arrival, a heap of what may go before its turn to linger is over; what has left is passed
over when it comes to the front.
"""

from collections import deque
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Generic, TypeVar

from sendengine.core.drafts import Draft, Queued, Solo

M = TypeVar("M")

DEADLINE_MARGIN_S: Final = 1.0  # a pack waits for no more company this long before a member's deadline
_KEPT_EMPTIED: Final = 1000


class Queues(Generic[M]):
    """The packs of one lane that are not sealed yet. A pack of normal jobs waits ``linger_s`` for company at least."""

    __slots__ = ("_alone", "_early", "_emptied", "_high", "_linger_s", "_lingering", "_near")

    def __init__(self, *, linger_s: float) -> None:
        self._linger_s = linger_s
        self._high: deque[Queued[M]] = deque()
        self._alone: deque[Queued[M]] = deque()
        self._lingering: deque[Queued[M]] = deque()
        self._early: list[tuple[int, Draft[M]]] = []  # may go before their linger is over: full, or near a deadline
        self._near: list[tuple[float, int, Draft[M]]] = []  # when a deadline is near, where that is before the linger
        self._emptied = 0

    @property
    def has_high(self) -> bool:
        """Whether a high job waits."""
        return bool(self._high) and _front(self._high) is not None  # asked for each request

    def add(self, queued: Queued[M], *, is_high: bool, is_alone: bool) -> None:
        """Let a pack wait behind those that came before."""
        (self._high if is_high else self._alone if is_alone else self._lingering).append(queued)

    def stop_lingering(self) -> None:
        """Let nothing wait for company any more, neither what waits nor what comes."""
        self._linger_s = 0.0

    def took(self, solo: Solo[M]) -> None:
        """Forget the one that `next` returned, so that nothing keeps its member."""
        (self._high if solo.is_high else self._lingering if solo.has_room else self._alone).popleft()

    def may_linger(self, deadline_s: float, *, from_s: float) -> bool:
        """Whether a deadline leaves time to linger."""
        return deadline_s - DEADLINE_MARGIN_S >= from_s + self._linger_s

    def hasten(self, draft: Draft[M], *, deadline_s: float) -> None:
        """Let one of those that linger go when a deadline is near."""
        heappush(self._near, (deadline_s - DEADLINE_MARGIN_S, draft.arrival, draft))

    def release(self, draft: Draft[M]) -> None:
        """Let one of those that linger go now: it is full."""
        heappush(self._early, (draft.arrival, draft))

    def next(self, *, now_s: float, prefer_normal: bool) -> Queued[M] | None:
        """Return the next one that may be sealed now; None where there is none.

        High ones first, in order (after the normal ones with ``prefer_normal``). Then of the full, the lone, those
        whose linger is over and those near a deadline, the one whose oldest member came first, so that none of the
        four starves another.
        """
        high = _front(self._high) if self._high else None
        if high is not None and not prefer_normal:
            return high
        while self._near and self._near[0][0] <= now_s:
            self.release(heappop(self._near)[2])
        oldest = _front(self._alone)
        if self._lingering:
            lingering = _front(self._lingering)
            if lingering is not None and lingering.opened_at_s + self._linger_s <= now_s:
                oldest = _older(oldest, lingering)
        if self._early:
            oldest = _older(oldest, self._first_early())
        return oldest or high

    def any(self) -> Queued[M] | None:
        """Return one that waits, whichever; None where none does."""
        return _front(self._high) or _front(self._alone) or _front(self._lingering)

    def next_due_s(self) -> float | None:
        """Return when `next` may have one, in the past where it would now; None where none waits."""
        takable = (_front(self._high) if self._high else None) or _front(self._alone) or self._first_early()
        if takable is not None:
            return takable.opened_at_s
        while self._near and self._near[0][2].is_gone:
            heappop(self._near)
        lingering = _front(self._lingering)
        due_s = inf if lingering is None else lingering.opened_at_s + self._linger_s
        if self._near:
            due_s = min(due_s, self._near[0][0])
        return None if due_s == inf else due_s

    def oldest_s(self) -> float | None:
        """Return when the one that waits longest was opened; None where none waits."""
        fronts = (_front(self._high), _front(self._alone), _front(self._lingering), self._first_early())
        return min((queued.opened_at_s for queued in fronts if queued is not None), default=None)

    def emptied(self) -> None:
        """All have left one: clear such ones from time to time, since those behind who stays never reach the front.

        It costs as much as has left since the last time.
        """
        self._emptied += 1
        queues = (self._high, self._alone, self._lingering)
        if self._emptied <= _KEPT_EMPTIED + sum(map(len, queues)) // 2:
            return
        self._emptied = 0
        for queue in queues:
            live = [heir for queued in queue if not (heir := queued.became or queued).is_gone]
            queue.clear()
            queue.extend(live)
        self._early = [entry for entry in self._early if not entry[1].is_gone]
        self._near = [entry for entry in self._near if not entry[2].is_gone]
        heapify(self._early)
        heapify(self._near)

    def _first_early(self) -> Draft[M] | None:
        while self._early and self._early[0][1].is_gone:
            heappop(self._early)
        return self._early[0][1] if self._early else None


def _front(queue: deque[Queued[M]]) -> Queued[M] | None:
    """Return the first in a queue that is not gone."""
    while queue and queue[0].is_gone:
        heir = queue.popleft().became
        if heir is not None:
            queue.appendleft(heir)
    return queue[0] if queue else None


def _older(one: Queued[M] | None, other: Queued[M] | None) -> Queued[M] | None:
    """Return the one that was opened first, of those that there are."""
    if one is None or other is None:
        return one or other
    return one if one.arrival < other.arrival else other
