"""A request on its way: sealed once, repeated unchanged, settled once.

Units: ``_s`` are seconds on the running loop's clock, except ``sealed_epoch_s``, which is the wall clock's.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sendengine.core.requests import NotificationRequest, Request
from sendengine.core.retry import Tries
from sendengine.core.wire import WireRequest, encode
from sendengine.engine.receipts import Receipt
from sendengine.ports import Journal

IMPLIED_CHANNEL: Final = {"email": "email", "phone_number": "sms"}

Share = tuple[Receipt, tuple[str, ...]]
"""A job and those of its recipients that ride in one request; for a user's change, its id."""


class Sealed:
    """One request with its members and what its attempts have met so far."""

    __slots__ = (
        "attempts",
        "deadline_s",
        "first_sent_at_s",
        "headers",
        "held_until_s",
        "is_counted",
        "is_high",
        "is_kept",
        "is_launched",
        "is_over",
        "is_probe",
        "is_waiting",
        "is_watched",
        "maybe_received_at_s",
        "origin",
        "records",
        "request",
        "sealed_at_s",
        "sent_at_s",
        "sequence",
        "shares",
        "status",
        "tries",
        "weight",
        "wire",
    )

    def __init__(
        self,
        request: Request,
        *,
        shares: Sequence[Share],
        origin: object,
        is_high: bool,
        deadline_s: float | None,
        now_s: float,
        weight: int = 0,
    ) -> None:
        self.request = request
        self.wire: WireRequest = encode(request)
        self.shares = shares
        self.origin = origin  # what the source needs to know when it is answered
        self.is_high = is_high
        self.deadline_s = deadline_s
        self.weight = weight  # deliveries, for the application limit
        self.is_counted = weight == 0
        self.is_launched = False  # the permit was granted and the attempt is not over
        self.is_over = False  # settled, or replaced by others
        self.is_probe = False  # this attempt tries whether an outage is over
        self.is_waiting = False  # to be sent again, in the lane's hands and not in a worker's
        self.is_watched = False  # the lane looks after its deadline
        self.is_kept = False  # on disk, where it has to be before its attempt,
        self.records: tuple[tuple[Journal, int], ...] = ()  # and its ids there
        self.tries: Tries | None = None
        self.sequence = 0
        self.attempts = 0
        self.sealed_at_s = now_s
        self.first_sent_at_s: float | None = None
        self.held_until_s = 0.0  # its user was throttled: nothing of that user goes before
        self.sent_at_s = 0.0
        self.maybe_received_at_s: float | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}  # of the last reply

    @property
    def maybe_sent(self) -> bool:
        """Whether an attempt may have taken effect."""
        return self.maybe_received_at_s is not None

    @property
    def cf_ray(self) -> str:
        """Cloudflare's handle for support, of the last reply."""
        return self.headers.get("cf-ray", "")

    @property
    def channel(self) -> str | None:
        """The channel of a notification, as far as its request says."""
        request = self.request
        return (
            request.channel or IMPLIED_CHANNEL.get(request.target.kind, "push")
            if isinstance(request, NotificationRequest)
            else None
        )

    @property
    def has_key(self) -> bool:
        """Whether OneSignal remembers it, so that a repeat is answered with the first success."""
        return isinstance(self.request, NotificationRequest)

    @property
    def last_deadline_s(self) -> float | None:
        """Until when a repeat is of use: a pack ends with its first deadline, a user's jobs each by itself."""
        if self.has_key or self.deadline_s is None:
            return self.deadline_s
        deadlines = [receipt.deadline_s for receipt, _ in self.shares]
        return None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None)

    def amend(self, request: Request) -> None:
        """Send this instead from now on: what must not be repeated has been left out."""
        self.request = request
        self.wire = encode(request)

    @property
    def recipients(self) -> int:
        """How many recipients ride in it; 1 where they cannot be counted."""
        shares = self.shares
        return len(shares[0][1]) or 1 if len(shares) == 1 else sum([len(ids) or 1 for _, ids in shares])

    def __lt__(self, other: "Sealed") -> bool:
        """Who goes first among requests that came back: high ones, then in the order of their first pull."""
        return (not self.is_high, self.sequence) < (not other.is_high, other.sequence)

    def launch(self, *, now_s: float) -> None:
        """An attempt begins: its permit was granted and it is written now."""
        self.is_launched = True
        self.attempts += 1
        self.sent_at_s = now_s
        if self.first_sent_at_s is None:
            self.first_sent_at_s = now_s
