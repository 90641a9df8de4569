"""A job's receipt: what the caller holds and awaits, and what the engine books the job's parts on.

Units: ``_s`` are seconds on the running loop's clock; ``_bytes`` as the intake counts them.
"""

import asyncio
from collections.abc import Callable, Generator

from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.outcomes import OUTCOME_NAMES, Abandoned, Outcome, merge
from sendengine.ports import Journal, LoneJournal, Part


class Receipt:
    """One admitted job. ``await receipt`` gives its outcome and never raises; cancelling that cancels no send.

    Made by the engine only. It can be awaited by any number of tasks, any number of times.
    """

    __slots__ = (
        "_followers",
        "_left",
        "_loop",
        "_outcome",
        "_parts",
        "_when_dropped",
        "alone",
        "deadline_s",
        "home",
        "is_awaited",
        "is_begun",
        "job",
        "record",
        "size_bytes",
    )

    def __init__(
        self, job: Job, *, loop: asyncio.AbstractEventLoop | None = None, deadline_s: float | None, size_bytes: int
    ) -> None:
        """``loop`` is the running one: to look for it later is a system call each time."""
        self.job = job
        self.deadline_s = deadline_s
        self.size_bytes = size_bytes
        self.is_awaited = False  # somebody has asked for the outcome
        self.is_begun = False  # a request with a part of it was sealed
        self.home: Journal | None = None  # where it is on disk,
        self.record = 0  # and its id there;
        self.alone: tuple[LoneJournal, str] | None = None  # where its acceptance says with which key it goes alone
        self._left = len(job.to.ids) if isinstance(job, CreateNotification) and job.to.is_listed else 1  # to be booked
        self._outcome: Outcome | None = None
        self._parts: tuple[Part, ...] = ()
        self._loop = loop
        self._followers: _Follower | list[_Follower] | None = None  # one needs no list, which takes 88 bytes
        self._when_dropped: Callable[[Outcome], None] | None = None

    @classmethod
    def settled(cls, job: Job, outcome: Outcome) -> "Receipt":
        """A receipt of a job whose outcome is known already."""
        receipt = cls(job, deadline_s=None, size_bytes=0)
        receipt._outcome = outcome
        return receipt

    def __await__(self) -> Generator[object, None, Outcome]:
        """Wait for the outcome."""
        if self._outcome is None:
            waiter: asyncio.Future[None] = (self._loop or asyncio.get_running_loop()).create_future()
            self._follow(waiter)
            yield from waiter
        if self._outcome is None:
            raise AssertionError("a receipt's waiters are woken by its outcome")
        self.is_awaited = True
        return self._outcome

    def __del__(self) -> None:
        if self._when_dropped is not None and self._outcome is not None and not self.is_awaited:
            self._when_dropped(self._outcome)

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
        """Whether every portion is booked."""
        return self._left <= 0

    def add_done_callback(self, callback: Callable[["Receipt"], None]) -> None:
        """Call ``callback(receipt)`` on the loop when the job has settled, or now if it has; it must return at once."""
        self.is_awaited = True
        if self._outcome is not None:
            callback(self)
            return
        self._follow(callback)

    def when_dropped(self, callback: Callable[[Outcome], None]) -> None:
        """Call ``callback(outcome)`` if the receipt goes away without anybody having asked for its outcome."""
        self._when_dropped = callback

    def await_portion(self) -> None:
        """Expect one more portion than now: a user's job whose changes span several requests."""
        self._left += 1

    def book(self, part: Part) -> bool:
        """Take note of what came of some recipients; True where that was the last of them, and the job may `settle`.

        One that has settled takes no note of more.
        """
        if self._outcome is not None:
            return False
        self._parts = (*self._parts, part) if self._parts else (part,)
        self._left -= len(part.recipients) or 1
        return self._left <= 0

    def turn_back(self) -> None:
        """It was not taken after all: whoever joined it is told so."""
        ids = self.job.to.ids if isinstance(self.job, CreateNotification) else self.job.user.ids
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
                (self._loop or asyncio.get_running_loop()).call_soon(follower, self)
        return outcome

    def _follow(self, follower: "_Follower") -> None:
        held = self._followers
        if held is None:
            self._followers = follower
        elif isinstance(held, list):
            held.append(follower)
        else:
            self._followers = [held, follower]


_Follower = Callable[[Receipt], None] | asyncio.Future[None]
