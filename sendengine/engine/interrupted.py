"""Lets go of what an earlier process left where the engine stops before all of it is back in its place.

Whoever was given such a job's receipt by its key is told; the jobs stay on disk, and a later process sends them.

Units: none.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from sendengine.core.jobs import CreateNotification, target_of
from sendengine.core.outcomes import Abandoned
from sendengine.engine import endings
from sendengine.engine.lane import Lane
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed
from sendengine.ports import Journal, Recovered, RecoveredJob

Work: TypeAlias = deque[Callable[[], None]]
"""What is to be done, a step at a time."""


class OnTheWay:
    """The jobs that have their room and their key again, and no place in a lane yet."""

    __slots__ = ("_jobs",)

    def __init__(self) -> None:
        self._jobs: dict[Receipt, tuple[Lane, RecoveredJob]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, receipt: Receipt, job: RecoveredJob, *, lane: Lane) -> None:
        """A job has its receipt."""
        self._jobs[receipt] = lane, job

    def arrived(self, receipt: Receipt) -> None:
        """A job is in its lane, or ends."""
        del self._jobs[receipt]

    def abandon(
        self,
        found: Sequence[tuple[Journal, Recovered]],
        *,
        sealed: Iterable[tuple[Lane, Sealed]],
        ends: Work,
    ) -> None:
        """Settle them, and what rides in ``sealed``, as abandoned, after the ends that are known already.

        What rides in a request of ``found`` may have been sent, also where that has not been looked at yet.
        """
        jobs, self._jobs = self._jobs, {}
        riders = _riders(found)
        for receipt, (_, job) in jobs.items():
            if isinstance(job.job, CreateNotification):
                for part in job.parts:
                    receipt.book(part)
        ends.extend(partial(endings.abandon, lane, one) for lane, one in sealed)
        ends.extend(
            partial(_abandon_rest, lane, receipt, maybe_sent=job.was_begun or (receipt.home, receipt.record) in riders)
            for receipt, (lane, job) in jobs.items()
        )
        while ends:
            ends.popleft()()


def _riders(found: Sequence[tuple[Journal, Recovered]]) -> Collection[tuple[Journal | None, int]]:
    return {
        (journal, job)
        for journal, recovered in found
        for request in recovered.requests
        for job, _ in request.seal.members
    }


def _abandon_rest(lane: Lane, receipt: Receipt, *, maybe_sent: bool) -> None:
    """Book what no request carries and no earlier process has settled."""
    if receipt.is_settled:
        return
    if receipt.is_complete:  # that process died before it could say so
        lane.books.book([(receipt, (), receipt.parts[-1].outcome)])
        return
    ids = target_of(receipt.job).ids
    booked = {each for part in receipt.parts for each in part.recipients}
    left = tuple([each for each in ids if each not in booked])
    lane.books.book([(receipt, left, Abandoned(maybe_sent, left))])
