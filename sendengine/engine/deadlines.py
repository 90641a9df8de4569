"""Deadlines of sealed requests that wait in the lane's hands: throttled, to be repeated, or of a held channel.

Units: seconds on the running loop's clock.
"""

from collections.abc import Iterator
from heapq import heappop, heappush

from sendengine.engine.sealed import Sealed


class SealedDeadlines:
    """A heap that holds a request at most once, and drops it when it is over."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Sealed]] = []

    def watch(self, sealed: Sealed) -> None:
        """It waits; its deadline may pass meanwhile."""
        sealed.is_waiting = True
        if sealed.deadline_s is not None and not sealed.is_watched:
            sealed.is_watched = True
            heappush(self._heap, (sealed.deadline_s, sealed.sequence, sealed))

    def due(self, *, now_s: float) -> Iterator[Sealed]:
        """Give, once, those whose deadline has passed while they wait."""
        while self._heap and self._heap[0][0] <= now_s:
            sealed = heappop(self._heap)[2]
            sealed.is_watched = False  # one in a worker's hands is watched again, should it come back
            if sealed.is_waiting and not sealed.is_over:
                sealed.is_waiting = False
                yield sealed

    def next_s(self) -> float | None:
        """The earliest deadline; None where there is none."""
        while self._heap and self._heap[0][2].is_over:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None
