"""What the engine needs from outside: a transport, a journal, a volume ledger; each with its promises.

Units: ``_s`` is seconds. Monotonic instants are the running loop's ``time()``.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from sendengine.core.jobs import Job
from sendengine.core.outcomes import Outcome
from sendengine.core.wire import Reply, WireRequest
from sendengine.errors import StorageError

__all__ = [
    "Admission",
    "Journal",
    "KeyRecall",
    "LoneJournal",
    "Observer",
    "Part",
    "Permit",
    "Portion",
    "Recovered",
    "RecoveredJob",
    "RecoveredRequest",
    "Reply",
    "RequestRecord",
    "Seal",
    "Transport",
    "VolumeLedger",
    "WireRequest",
]


Permit = Callable[[], Awaitable[None]]
"""Waits until the request may be written. Whatever it raises passes through the transport unchanged."""


class Transport(Protocol):
    """One app's way to OneSignal."""

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Send one request and return its reply.

        The connection is in hand before ``permit`` is awaited, exactly once, and the request is written right
        after it. Raises NotSentError where the request was certainly not received, ReplyLostError where it may
        have been. Any status and any body is a Reply. Cancelling it, or an exception from ``permit``, gives
        the connection back or closes it, and leaks nothing.
        """
        ...

    async def warm(self, count: int) -> int:
        """Open connections until they carry ``count`` exchanges at once, as far as may be; return how many they do.

        Never raises a TransportError.
        """
        ...

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next request on."""
        ...

    @property
    def open_connections(self) -> int:
        """How many connections are open, busy or idle."""
        ...

    @property
    def capacity(self) -> int:
        """How many exchanges the open connections carry at once: over HTTP/1.1 as many as there are."""
        ...

    @property
    def max_exchanges(self) -> int:
        """How many exchanges there may be at once, over as many connections as may be open.

        It grows when a server is found to take several on one connection.
        """
        ...

    @property
    def protocol(self) -> str | None:
        """What the connection that was opened last speaks, "h2" or "http/1.1"; None before the first one."""
        ...

    async def aclose(self) -> None:
        """Close every connection; requests on them end in ReplyLostError."""
        ...


class Admission(Struct, frozen=True, gc=False):
    """The volume ledger's answer: how many deliveries were granted, and when to ask again for the rest."""

    granted: int
    again_in_s: float = 0.0


class VolumeLedger(Protocol):
    """One app's deliveries within the application limit's window, shared by all engines on the machine."""

    async def reserve(self, deliveries: int, *, limit: int) -> Admission:
        """Reserve up to ``deliveries`` now so that the window's total stays below ``limit``; durable on return.

        A partial grant is possible; 0 granted says in ``again_in_s`` when to ask again.
        """
        ...

    async def give_back(self, deliveries: int) -> None:
        """Return what was reserved last and not used."""
        ...

    async def used(self) -> int:
        """Deliveries counted in the window that ends now."""
        ...


class Part(Struct, frozen=True, gc=False):
    """What came of some of a job's recipients: those that one request carried, or that none ever did."""

    recipients: tuple[str, ...]
    outcome: Outcome


class Seal(Struct, frozen=True, gc=False):
    """A request as it is fixed before its first attempt.

    ``key`` is the idempotency key, None for a user's update. ``members`` pairs each job's id in the journal with
    those of its recipients that ride in it.
    """

    lane: str
    key: str | None
    ttl_s: int | None
    wire: WireRequest
    members: tuple[tuple[int, tuple[str, ...]], ...]


class Portion(Struct, frozen=True, gc=False):
    """What came of some of a job's recipients; ``is_last`` where the whole job has settled with it.

    ``outcome`` is then the job's own, merged from all of its portions.
    """

    job: int
    recipients: tuple[str, ...]
    outcome: Outcome
    is_last: bool


class RecoveredJob(Struct, frozen=True):
    """A job that an earlier process accepted and did not settle.

    ``row`` is the row of the input that it came from, None where there is none. ``parts`` have settled before.
    ``deaths`` counts processes that died while a request of it without a key was on the wire; ``was_begun`` says that
    such an attempt may have been received. A job with a ``request_key`` goes alone, under that key: ``was_begun`` says
    that it may have been received so. Instants are seconds since the epoch.
    """

    id: int
    job: Job
    app: str
    accepted_at_s: float
    row: int | None = None
    parts: tuple[Part, ...] = ()
    deaths: int = 0
    was_begun: bool = False
    request_key: str | None = None


class RecoveredRequest(Struct, frozen=True):
    """A request with a key that an earlier process sealed and did not settle: it may have been received."""

    id: int
    seal: Seal
    sealed_at_s: float


class Recovered(Struct, frozen=True):
    """What a journal holds when it is opened, in the order of acceptance; ``damaged`` names what was set aside."""

    jobs: tuple[RecoveredJob, ...] = ()
    requests: tuple[RecoveredRequest, ...] = ()
    damaged: tuple[str, ...] = ()


class KeyRecall(Struct, frozen=True):
    """What is remembered of a caller's key: what it was used for, and what came of it; None while under way."""

    fingerprint: bytes
    outcome: Outcome | None


class Journal(Protocol):
    """What survives a crash: jobs from their acceptance, requests from their seal, both until they settle.

    Changes reach the disk in the order of the calls, in groups that are there whole or not at all. All methods are
    called on the event loop that opened it. When the disk has failed for good, whoever waits gets StorageError, and
    so does every later call; while it is only full, whoever waits goes on waiting.
    """

    @property
    def problem(self) -> str | None:
        """Why nothing can be accepted at the moment, and how to mend it; None where all is well."""
        ...

    @property
    def flush_s(self) -> float:
        """How long a change takes to reach the disk, lately."""
        ...

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        """Say what an earlier process left; called once, before anything else. Raises StorageError.

        ``when_failed`` is called on the loop, once, when the disk fails for good afterwards.
        """
        ...

    def accept(
        self,
        job: Job,
        *,
        app: str,
        row: int | None = None,
        key: str | None = None,
        fingerprint: bytes = b"",
        done: Callable[[StorageError | None], None],
    ) -> int:
        """Put a job on disk; returns its id at once, and calls ``done`` on the loop when it is there, or failed.

        ``key`` is the wire form of a caller's key, remembered with its ``fingerprint`` for 30 days.
        """
        ...

    def withdraw(self, job: int) -> bool:
        """Take back an acceptance that is not being written yet; its ``done`` is not called then."""
        ...

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        """Look a caller's key up. Raises StorageError."""
        ...

    def must_seal(self, seal: Seal) -> bool:
        """Whether a request has to be on disk before its first attempt; one that can be made again need not."""
        ...

    async def seal(self, seal: Seal) -> int:
        """Put a request on disk before its first attempt, and return its id. Raises StorageError.

        Cancelling it may leave the record; the request was not sent then.
        """
        ...

    def unseal(self, request: int, *, maybe_received: bool = False) -> None:
        """A sealed request is off the wire, and is sealed anew before it goes again, or others take its place.

        With ``maybe_received`` its jobs are marked as begun, once and for all.
        """
        ...

    def settle(self, portions: Sequence[Portion], *, request: int | None) -> None:
        """Portions have come to their outcomes, and with them the sealed request that carried them.

        On disk within 250 ms. A request that may have been sent and was given up is kept, whole.
        """
        ...

    async def flush(self) -> None:
        """Return when everything so far is on disk. Raises StorageError."""
        ...

    async def aclose(self) -> None:
        """Write what waits, and close; never raises StorageError."""
        ...


@runtime_checkable
class LoneJournal(Journal, Protocol):
    """A journal that need not be told of each request: whoever goes alone has key and body by its acceptance.

    What such a job's only request carries follows from the job, so that no seal has to be written. How far these
    requests may have gone is on disk before any of them goes (`may_go`, `until_it_may_go`).
    """

    def accept(
        self,
        job: Job,
        *,
        app: str,
        row: int | None = None,
        key: str | None = None,
        fingerprint: bytes = b"",
        done: Callable[[StorageError | None], None],
        request_key: str | None = None,
    ) -> int:
        """Put a job on disk, as `Journal.accept`; with ``request_key`` it goes whole and alone, under that key."""
        ...

    def may_go(self, job: int) -> bool:
        """Whether a job that was accepted with a ``request_key`` may be sent at once; asked before it is sent."""
        ...

    async def until_it_may_go(self, job: int) -> None:
        """Wait until it may. Raises StorageError; cancelling it costs nothing."""
        ...

    def spare(self, job: int) -> None:
        """A job that might have gone was not sent after all, and nothing of it ever was."""
        ...

    def remember(self, seal: Seal) -> int:
        """Return an id for a request that was never written and may have been sent, to be given up with `settle`."""
        ...


class RequestRecord(Struct, frozen=True):
    """A request that has settled, for reports. Instants are seconds since the epoch; None where it never left.

    ``parts`` pairs each job that rode in it with what came of its recipients; ``outcome`` is the request's own
    (`sendengine.core.outcomes.OUTCOME_NAMES`, or `SPLIT` where smaller requests take its place).
    ``status`` is 0 where there never was a reply. ``cf_ray`` is Cloudflare's handle for support.
    """

    lane: str
    key: str | None
    message_id: str
    recipients: int
    parts: tuple[tuple[Job, Part], ...]
    outcome: str
    status: int
    attempts: int
    replayed: bool
    cf_ray: str
    sealed_at_s: float
    first_sent_at_s: float | None
    settled_at_s: float


class Observer(Protocol):
    """Whoever wants to see each request and job settle: a campaign's report. Called on the loop; must return at once.

    What it raises is logged, once for each kind of exception, and keeps nothing from being sent and settled;
    `SendEngine.health` says so.
    Both are called in the step of the loop in which the journal learns the same, so that what an observer counts and
    what the journal holds can reach the disk together. A request's record comes before the jobs that settle with it.
    """

    def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:
        """Take note of a job's outcome; ``parts`` say what came of which recipients."""
        ...

    def request_settled(self, record: RequestRecord) -> None:
        """Take note of a settled request."""
        ...
