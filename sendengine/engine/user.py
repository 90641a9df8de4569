"""One user in a lane of updates: what waits for them, how urgent it is, and whether it may go.

Units: seconds on the running loop's clock.
"""

from collections.abc import Callable, Iterable, Sequence

from sendengine.core.changes import Change
from sendengine.core.coalescing import ChangeSet, PendingChanges
from sendengine.core.jobs import UpdateUser
from sendengine.engine.receipts import Receipt

UserKey = tuple[str, str]
"""Alias label and id."""


class User(PendingChanges[Receipt], eq=False, kw_only=True):
    """One user with changes pending or a request within its second."""

    key: UserKey
    ids: tuple[str, ...]
    jobs: int = 0  # of which the last part waits,
    high: int = 0  # and how many of those are high
    gone: set[Receipt] | None = None  # expired, and not left out yet
    since_s: float = 0.0  # when the oldest pending job came
    is_busy: bool = False
    held_until_s: float | None = None  # until its second is over, or what a 429 of its own asked for
    queued_high: bool = False  # it stands in that line, perhaps for nothing
    queued_normal: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether its changes may be sealed now."""
        return self.waits and not self.is_busy and self.held_until_s is None

    def enter(self, receipt: Receipt, job: UpdateUser) -> None:
        """Let a job wait."""
        self.add(receipt, job)
        self.jobs += 1
        if job.urgency == "high":
            self.high += 1

    def seal(self) -> tuple[ChangeSet[Receipt], bool]:
        """Take the next request's changes; returns whether they are high, too: for those in it, or behind it."""
        if self.gone:
            self._sweep()
        changes = self.take()
        if changes is None:
            raise AssertionError("a ready user has changes pending")
        self.jobs -= len(changes.members) - len(changes.going_on)
        if not self.high:
            return changes, False
        self.high -= _high(changes.changes)
        return changes, True

    def expire(self, receipt: Receipt) -> None:
        """Let a job wait no more, of which nothing was sealed.

        Its changes are left out with others: that goes through all that waits for the user.
        """
        if self.gone is None:
            self.gone = set()
        self.gone.add(receipt)
        self.jobs -= 1
        self.high -= receipt.is_high
        if len(self.gone) > self.jobs:
            self._sweep()

    def withdraw(self) -> list[Receipt]:
        """Remove everything, and return the jobs that waited, wholly or in part."""
        if self.gone:
            self._sweep()
        self.jobs = self.high = 0
        return self.withdraw_all()

    def put_back(self, sets: Sequence[ChangeSet[Receipt]], *, maybe_received_at_s: float | None) -> int:
        """Let what was sealed wait again, before everything else; returns how many jobs wait again with that."""
        self.put_back_front(sets, maybe_received_at_s=maybe_received_at_s)
        last = [change for part in sets for change in part.changes if change.is_last]
        self.jobs += len(last)
        self.high += _high(last)
        return len(last)

    def drop(self, is_gone: Callable[[Receipt], bool]) -> int:
        """Remove what waits of jobs that are gone; returns how many jobs wait no more with that."""
        last = [change for change in self.leave_out(is_gone) if change.is_last]
        self.jobs -= len(last)
        self.high -= _high(last)
        return len(last)

    def _sweep(self) -> None:
        gone, self.gone = self.gone or (), None
        self.leave_out(gone.__contains__)


def _high(changes: Iterable[Change[Receipt]]) -> int:
    """How many high jobs have their last part among these."""
    return sum([change.is_last and change.member.is_high for change in changes])
