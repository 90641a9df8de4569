"""What a lane draws its requests from: packs of notifications, or users with pending changes."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from sendengine.core.jobs import Job
from sendengine.core.outcomes import Outcome
from sendengine.core.verdicts import NobodyReached, Refused, Took
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed, Share

AT_ONCE: Final = 64
"""So many jobs expire, or are refused unsent, in one turn of the loop.

About a millisecond of work, with what their waiters do.
"""

OVERDUE: Final = "its deadline passed before it could be repeated"

Settled = tuple[Receipt, tuple[str, ...], Outcome]
"""What came of some of a job's recipients."""


class Resolution(Struct, frozen=True):
    """What follows from a reply: what has settled, and which requests go in place of the one that was refused."""

    settled: Sequence[Settled] = ()
    again: Sequence[Sealed] = ()
    is_replaced: bool = False  # others go in its place, now or when their turn comes


class Source(Protocol):
    """Jobs in, sealed requests out, on demand; decides who rides with whom. Instants are the loop's."""

    @property
    def has_high(self) -> bool:
        """Whether a high job could be pulled now."""
        ...

    @property
    def is_guarded(self) -> bool:
        """Whether its requests count against the application limit."""
        ...

    @property
    def pause_s(self) -> float:
        """The least time between two sends of one request."""
        ...

    @property
    def waiting(self) -> int:
        """How many jobs wait unsealed."""
        ...

    @property
    def spread(self) -> int:
        """How many more requests than jobs that may come to, since large jobs are cut over several."""
        ...

    @property
    def is_cut_short(self) -> bool:
        """Whether the last `pull` gave nothing because it had refused enough unsent for one turn of the loop."""
        ...

    @property
    def oldest_s(self) -> float | None:
        """When the longest waiting job was added."""
        ...

    def add(self, receipt: Receipt, *, content: bytes, now_s: float) -> None:
        """Take an admitted job; ``content`` is a notification's canonical message."""
        ...

    def restore(
        self,
        receipt: Receipt,
        job: Job,
        *,
        content: bytes,
        now_s: float,
        not_before_s: float | None,
        is_foreign: bool,
    ) -> Sealed | None:
        """Take ``job``, what is left of a receipt's job after an earlier process.

        With ``not_before_s`` an attempt of it may have been received, and nothing of it goes earlier; a request that
        is sealed at once for that is returned. ``is_foreign`` jobs share no request of a key with others.
        """
        ...

    def vouch(self, job: Job, *, content: bytes) -> None:
        """Take note that an earlier process had the message of a job accepted: what is refused is not its fault."""
        ...

    def stop_lingering(self) -> None:
        """Nothing more comes that could share a request with what waits."""
        ...

    def pull(self, *, now_s: float, prefer_normal: bool) -> Sealed | None:
        """Seal the next request that may go now."""
        ...

    def next_due_s(self, *, now_s: float) -> float | None:
        """The earliest instant at which `pull` may give something, in the past where it would now; None for never."""
        ...

    def next_expiry_s(self) -> float | None:
        """No deadline passes before this instant; None without deadlines."""
        ...

    def expire(self, *, now_s: float) -> Sequence[Share]:
        """Remove and return what waits although its deadline has passed, `AT_ONCE` jobs at most.

        `next_expiry_s` says whether there are more; until there are none, `pull` may give nothing.
        """
        ...

    def withdraw_all(self) -> Iterable[Share]:
        """Remove and return everything that waits, what hangs on an answer included; each as it is asked for."""
        ...

    def unseal(self, sealed: Sealed, *, now_s: float) -> Resolution:
        """Take back a request whose deadline has passed for some of its jobs; one with a key was never received."""
        ...

    def give_up_high(self, sealed: Sealed, *, last: str, now_s: float) -> Resolution | None:
        """Give up the high jobs of a request; the others in it wait again. None where all of them are high."""
        ...

    def took(self, sealed: Sealed, verdict: Took | NobodyReached, *, now_s: float) -> Resolution:
        """What the jobs of a request that was answered 2xx come to."""
        ...

    def refused(self, sealed: Sealed, verdict: Refused, *, now_s: float) -> Resolution:
        """What follows from a definite refusal: smaller requests, jobs apart, or rejections."""
        ...

    def ended(self, sealed: Sealed, *, now_s: float) -> Resolution:
        """The request ended in another way, and its jobs are booked elsewhere: what else follows."""
        ...

    def uncertain(self, sealed: Sealed, *, evidence: str) -> Sequence[Settled] | None:
        """An attempt may have been received: leave out what must not be repeated.

        None: go on with the request as it is now. Otherwise nothing is left to send, and this is what settles.
        """
        ...

    def retries_missing(self, sealed: Sealed) -> bool:
        """Whether a job in it wants a 404 repeated, since its user was created a moment ago."""
        ...
