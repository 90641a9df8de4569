"""A job's receipt: what the caller holds and awaits, and what the engine books the job's parts on.

Units: ``_s`` are seconds on the running loop's clock; ``_bytes`` as the intake counts them.
"""

import asyncio
from collections.abc import Callable, Generator

from msgspec import Struct

from sendengine.core.jobs import CreateNotification, Job, target_of
from sendengine.core.outcomes import OUTCOME_NAMES, Abandoned, Outcome, merge
from sendengine.ports import Journal, LoneJournal, Part


class Receipt(Struct, eq=False):
    """One admitted job. ``await receipt`` gives its outcome and never raises; cancelling that cancels no send.

    Made by the engine only. It can be awaited by any number of tasks, any number of times. ``loop`` is the running one:
    to look for it later is a system call each time.
    """

    job: Job
    deadline_s: float | None
    size_bytes: int
    loop: asyncio.AbstractEventLoop | None = None
    is_awaited: bool = False  # somebody has asked for the outcome
    is_begun: bool = False  # a request with a part of it was sealed
    home: Journal | None = None  # where it is on disk,
    record: int = 0  # and its id there;
    alone: tuple[LoneJournal, str] | None = None  # where its acceptance says with which key it goes alone
    _booked: int = 0  # recipients, less the portions that are to come beside those that its job names
    _outcome: Outcome | None = None
    _parts: tuple[Part, ...] = ()
    _followers: "_Follower | list[_Follower] | None" = None  # one needs no list, which takes 88 bytes
    _unread: "_Unread | None" = None

    @classmethod
    def settled(cls, job: Job, outcome: Outcome) -> "Receipt":
        """A receipt of a job whose outcome is known already."""
        return cls(job, None, 0, _outcome=outcome)

    def __await__(self) -> Generator[object, None, Outcome]:
        """Wait for the outcome."""
        if self._outcome is None:
            waiter: asyncio.Future[None] = (self.loop or asyncio.get_running_loop()).create_future()
            self._follow(waiter)
            try:
                yield from waiter
            finally:
                self._unfollow(waiter)
        if self._outcome is None:
            raise AssertionError("a receipt's waiters are woken by its outcome")
        self.is_awaited = True
        if self._unread is not None:
            self._unread.is_read = True
        return self._outcome

    def __repr__(self) -> str:
        state = "waiting" if self._outcome is None else OUTCOME_NAMES[type(self._outcome)]
        return f"<Receipt {type(self.job).__name__} {state}>"

    @property
    def is_high(self) -> bool:
        """Whether a person is waiting for it."""
        return self.job.urgency == "high"

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, or None while the job is under way."""
        return self._outcome

    @property
    def is_settled(self) -> bool:
        """Whether the outcome is there."""
        return self._outcome is not None

    @property
    def parts(self) -> tuple[Part, ...]:
        """What came of which recipients, a part a request, in the order in which they settled."""
        return self._parts

    @property
    def is_complete(self) -> bool:
        """Whether every portion is booked: each recipient, where they can be counted."""
        job, booked = self.job, self._booked
        return booked > 0 and (
            not isinstance(job, CreateNotification) or booked >= len(job.to.ids) or not job.to.is_listed
        )

    def add_done_callback(self, callback: Callable[["Receipt"], None]) -> None:
        """Call ``callback(receipt)`` on the loop when the job has settled, or now if it has; it must return at once."""
        self.is_awaited = True
        if self._unread is not None:
            self._unread.is_read = True
        if self._outcome is not None:
            callback(self)
            return
        self._follow(callback)

    def when_dropped(self, callback: Callable[[Outcome], None]) -> None:
        """Call ``callback(outcome)`` if the settled receipt goes away without anybody having asked for its outcome."""
        if self._outcome is not None:
            self._unread = _Unread(callback, self._outcome)

    def await_portion(self) -> None:
        """Expect one more portion than now: a user's job whose changes span several requests."""
        self._booked -= 1

    def book(self, part: Part) -> bool:
        """Take note of what came of some recipients; True where that was the last of them, and the job may `settle`.

        One that has settled takes no note of more.
        """
        if self._outcome is not None:
            return False
        self._parts = (*self._parts, part) if self._parts else (part,)
        self._booked += len(part.recipients) or 1
        return self.is_complete

    def turn_back(self) -> None:
        """It was not taken after all: whoever joined it is told so."""
        ids = target_of(self.job).ids
        self._parts = (Part(ids, Abandoned(maybe_sent=False, not_sent=ids)),)
        self.settle()

    def settle(self) -> Outcome:
        """Fix the outcome from the parts, wake everybody who waits for it, and return it."""
        parts = self._parts
        merged = parts[0].outcome if len(parts) == 1 else merge([(part.recipients, part.outcome) for part in parts])
        outcome = self._outcome = merged
        followers, self._followers = self._followers, None
        for follower in followers if isinstance(followers, list) else (followers,):
            if isinstance(follower, asyncio.Future):
                if not follower.done():
                    follower.set_result(None)
            elif follower is not None:
                # In a step of its own: what it raises is the loop's to report, and must not stop the others' booking.
                (self.loop or asyncio.get_running_loop()).call_soon(follower, self)
        return outcome

    def _follow(self, follower: "_Follower") -> None:
        held = self._followers
        if held is None:
            self._followers = follower
        elif isinstance(held, list):
            held.append(follower)
        else:
            self._followers = [held, follower]

    def _unfollow(self, waiter: asyncio.Future[None]) -> None:
        """Somebody waits no more: who looks in every second may do so for as long as the job is held."""
        held = self._followers
        if held is waiter:
            self._followers = None
        elif isinstance(held, list):
            held.remove(waiter)


_Follower = Callable[[Receipt], None] | asyncio.Future[None]


class _Unread:
    """Goes away with the receipt of a job that failed, and says so unless somebody has read its outcome.

    The receipts themselves need no finalizer so: that would be a call a job.
    """

    __slots__ = ("_callback", "_outcome", "is_read")

    def __init__(self, callback: Callable[[Outcome], None], outcome: Outcome) -> None:
        self.is_read = False
        self._callback = callback
        self._outcome = outcome

    def __del__(self) -> None:
        if not self.is_read:
            self._callback(self._outcome)
