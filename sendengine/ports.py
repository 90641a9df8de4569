"""What the engine needs from outside: a transport, a journal, a volume ledger; each with its promises.

Units: ``_s`` is seconds. Monotonic instants are the running loop's ``time()``.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from sendengine.core.jobs import Job
from sendengine.core.outcomes import Outcome
from sendengine.core.wire import Reply, WireRequest

__all__ = [
    "Admission",
    "Observer",
    "Part",
    "Permit",
    "Reply",
    "RequestRecord",
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
        """Open connections until ``count`` are open, and return how many are; never raises a TransportError."""
        ...

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next request on."""
        ...

    @property
    def open_connections(self) -> int:
        """How many connections are open, busy or idle."""
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


class RequestRecord(Struct, frozen=True):
    """A request that has settled, for reports. Instants are seconds since the epoch; None where it never left.

    ``parts`` pairs each job that rode in it with what came of its recipients; ``outcome`` is the request's own
    (`sendengine.core.outcomes.OUTCOME_NAMES`, or ``"split"`` where smaller requests take its place).
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
    """Whoever wants to see each request settle: a campaign's report. Called on the loop; must return at once."""

    def request_settled(self, record: RequestRecord) -> None:
        """Take note of a settled request."""
        ...
