"""A request on its way: sealed once, repeated unchanged, settled once.

Units: ``_s`` are seconds on the running loop's clock.
"""

from collections.abc import Mapping, Sequence
from math import inf

from msgspec import Struct

from sendengine.core.requests import NotificationRequest, Request
from sendengine.core.retry import Tries
from sendengine.core.targets import IMPLIED_CHANNEL
from sendengine.core.wire import WireRequest, encode
from sendengine.engine.receipts import Receipt
from sendengine.ports import Journal

Share = tuple[Receipt, tuple[str, ...]]
"""A job and those of its recipients that ride in one request; for a user's change, its id."""


class Sealed(Struct, eq=False):
    """One request with its members and what its attempts have met so far; `Sealed.of` makes it."""

    request: Request
    wire: WireRequest
    shares: Sequence[Share]
    origin: object  # what the source needs to know when it is answered
    is_high: bool
    deadline_s: float | None
    sealed_at_s: float
    weight: int | None  # deliveries, for the application limit; None until the limit is known
    is_counted: bool
    counts_until_s: float = inf  # what was reserved for it is forgotten then
    is_launched: bool = False  # the permit was granted and the attempt is not over
    is_over: bool = False  # settled, or replaced by others
    is_probe: bool = False  # this attempt tries whether an outage is over
    is_waiting: bool = False  # to be sent again, in the lane's hands and not in a worker's
    is_watched: bool = False  # the lane looks after its deadline
    is_kept: bool = False  # on disk, where it has to be before its attempt,
    records: tuple[tuple[Journal, int], ...] = ()  # and its ids there
    tries: Tries | None = None
    sequence: int = 0
    attempts: int = 0
    throttled: int = 0  # how often for its user alone
    first_sent_at_s: float | None = None
    held_until_s: float = 0.0  # its user was throttled: nothing of that user goes before
    sent_at_s: float = 0.0
    maybe_received_at_s: float | None = None
    status: int = 0
    headers: Mapping[str, str] = {}  # of the last reply

    @classmethod
    def of(
        cls,
        request: Request,
        *,
        shares: Sequence[Share],
        origin: object,
        is_high: bool,
        deadline_s: float | None,
        now_s: float,
        weight: int = 0,
    ) -> "Sealed":
        """Seal a request: its bytes are fixed from here on. A Struct's own making costs a fifth of an `__init__`."""
        return cls(request, encode(request), shares, origin, is_high, deadline_s, now_s, weight, weight == 0)

    @property
    def maybe_sent(self) -> bool:
        """Whether an attempt may have taken effect."""
        return self.maybe_received_at_s is not None

    @property
    def was_refused(self) -> bool:
        """Whether it had a permit before, and no attempt can have taken effect."""
        return self.first_sent_at_s is not None and not self.maybe_sent

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

    def count_with(self, whole: "Sealed") -> None:
        """It is a part of ``whole``, and counts against the application limit with it."""
        self.weight = 0 if whole.is_counted else whole.weight
        self.is_counted, self.counts_until_s = whole.is_counted, whole.counts_until_s

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
