"""The ledger of effects: what arrived, how it was judged, and what became of it. Nothing here decides anything.

Units: instants are seconds since the server started or was reset; ``peak_1s`` is the most in any one second.
"""

from array import array
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from sendengine.mockserver.config import Lane
from sendengine.mockserver.messages import Doubled, MessageLog

NO_REPLY: Final = 0  # the status of a request whose connection was reset, closed or left hanging
_THROTTLED: Final = 429
_USER_HOLDS: Final = 10_000  # users remembered before those whose hold is over are forgotten


class LaneSummary(Struct, frozen=True):
    """One lane of one app, in numbers.

    ``accepted`` counts replies of 2xx and ``effects`` what was carried out, replies lost on purpose included.
    ``inside_hold`` counts requests that came between a 429's Retry-After being announced and its end, those within
    the grace left out; ``inside_hold_raw`` counts them too; ``user_inside_hold`` is the same for the 429s that concern
    one user, and requests of that user. ``foreign_`` is the other client on the same limit. ``http2`` is how many of
    the requests came over HTTP/2.
    """

    app: str
    lane: Lane
    requests: int
    http2: int
    replies: dict[str, int]
    accepted: int
    effects: int
    refused: int
    user_refusals: int
    peak_1s: int
    accepted_peak_1s: int
    holds: int
    inside_hold: int
    inside_hold_raw: int
    user_inside_hold: int
    foreign_offered: int
    foreign_taken: int
    first_at_s: float
    last_at_s: float


class Summary(Struct, frozen=True):
    """The whole ledger, in numbers. ``doubled`` is None where it was not asked for.

    ``connections`` were opened since the start or the last reset, of them ``http2_connections`` speak HTTP/2, and
    ``most_connections`` were open at once. ``refused_streams`` were more than a connection's limit of streams.
    """

    now_s: float
    connections: int
    http2_connections: int
    most_connections: int
    refused_streams: int
    lanes: tuple[LaneSummary, ...]
    notifications: int
    recipients: int
    nobody_reached: int
    named: int
    replays: int
    reused_keys: int
    doubled_keys: int
    doubled: Doubled | None
    users: int
    updates: int
    most_recipients: int
    most_modifications: int
    most_deliveries_in_window: int
    disabled_apps: tuple[str, ...]
    faults: dict[str, int]
    outage_resets: int
    unrouted: int
    unparsable: int
    unread_replies: int


class LaneLedger:
    """One lane of one app. ``arrivals`` and ``statuses`` hold every request, ``holds`` every 429's announcement.

    ``grace_s`` is how long after a 429 was written a request counts as under way already.
    """

    __slots__ = (
        "_accepted_window",
        "_announced",
        "_known_until_s",
        "_latest_until_s",
        "_user_holds",
        "_window",
        "accepted_peak_1s",
        "arrivals",
        "counts",
        "effects",
        "grace_s",
        "holds",
        "http2",
        "inside_hold",
        "inside_hold_raw",
        "peak_1s",
        "statuses",
        "user_inside_hold",
        "user_refusals",
    )  # fmt: skip

    def __init__(self, *, grace_s: float) -> None:
        self.arrivals = array("d")
        self.statuses = array("H")
        self.counts: dict[int, int] = {}
        self.effects = 0
        self.http2 = 0
        self.user_refusals = 0
        self.peak_1s = 0
        self.accepted_peak_1s = 0
        self.holds: list[tuple[float, float]] = []  # (when the 429 was written, until when it asks to wait)
        self.inside_hold = array("d")
        self.inside_hold_raw = array("d")
        self.user_inside_hold = array("d")
        self._user_holds: dict[str, tuple[float, float]] = {}
        self.grace_s = grace_s
        self._announced: deque[tuple[float, float]] = deque()  # holds whose grace is not over yet
        self._known_until_s = -1.0
        self._latest_until_s = -1.0
        self._window: deque[float] = deque()
        self._accepted_window: deque[float] = deque()

    def arrived(self, now_s: float) -> None:
        """Count a request, before anything judges it."""
        self.arrivals.append(now_s)
        window = self._window
        window.append(now_s)
        while window[0] <= now_s - 1.0:
            window.popleft()
        self.peak_1s = max(self.peak_1s, len(window))
        if now_s < self._latest_until_s:
            self._note_hold(now_s)

    def judged(self, status: int, now_s: float) -> None:
        """Note the status of the request that arrived last."""
        self.statuses.append(status)
        self.counts[status] = self.counts.get(status, 0) + 1
        if 200 <= status < 300:  # noqa: PLR2004  # the range of success
            window = self._accepted_window
            window.append(now_s)
            while window[0] <= now_s - 1.0:
                window.popleft()
            self.accepted_peak_1s = max(self.accepted_peak_1s, len(window))

    def hold_announced(self, retry_after_s: float, *, now_s: float) -> None:
        """Note that a 429 was written that asks to wait."""
        hold = (now_s, now_s + retry_after_s)
        self.holds.append(hold)
        self._announced.append(hold)
        self._latest_until_s = max(self._latest_until_s, hold[1])

    def user_arrived(self, user: str, now_s: float) -> None:
        """Note a request that concerns ``user``, before anything judges it."""
        written_s, until_s = self._user_holds.get(user, (0.0, -1.0))
        if written_s + self.grace_s <= now_s < until_s:
            self.user_inside_hold.append(now_s)

    def user_hold_announced(self, user: str, retry_after_s: float, *, now_s: float) -> None:
        """Note that a 429 was written that asks to leave one user alone."""
        holds = self._user_holds
        if len(holds) > _USER_HOLDS:
            self._user_holds = holds = {name: hold for name, hold in holds.items() if hold[1] > now_s}
        holds[user] = (now_s, now_s + retry_after_s)

    def count(self, status: int) -> int:
        """Count the requests that were answered with ``status``."""
        return self.counts.get(status, 0)

    def timeline(self, *, width_s: float = 1.0) -> list[tuple[int, int]]:
        """Count accepted and refused requests in each stretch of ``width_s`` since the start."""
        stretches = int(self.arrivals[-1] / width_s) + 1 if self.arrivals else 0
        counts = [[0, 0] for _ in range(stretches)]
        for at_s, status in zip(self.arrivals, self.statuses, strict=True):
            if status == _THROTTLED:
                counts[int(at_s / width_s)][1] += 1
            elif 200 <= status < 300:  # noqa: PLR2004  # the range of success
                counts[int(at_s / width_s)][0] += 1
        return [(accepted, refused) for accepted, refused in counts]

    def _note_hold(self, now_s: float) -> None:
        self.inside_hold_raw.append(now_s)
        announced = self._announced
        while announced and announced[0][0] + self.grace_s <= now_s:
            self._known_until_s = max(self._known_until_s, announced.popleft()[1])
        if now_s < self._known_until_s:
            self.inside_hold.append(now_s)


class Ledger:
    """Everything that happened since the server started, or was reset."""

    __slots__ = (
        "_grace_s", "connections", "doubled_keys", "faults", "http2_connections", "lanes", "messages",
        "most_connections", "most_modifications", "most_recipients", "named", "nobody_reached", "outage_resets",
        "recipients", "refused_streams", "replays", "reused_keys", "unparsable", "unread_replies", "unrouted",
        "updates",
    )  # fmt: skip

    def __init__(self, *, grace_s: float, generation: int) -> None:
        self._grace_s = grace_s
        self.lanes: dict[tuple[str, Lane], LaneLedger] = {}
        self.messages = MessageLog(generation=generation)
        self.faults: Counter[str] = Counter()
        self.connections = 0
        self.http2_connections = 0
        self.most_connections = 0
        self.refused_streams = 0
        self.recipients = 0
        self.nobody_reached = 0
        self.named = 0
        self.replays = 0
        self.reused_keys = 0
        self.doubled_keys = 0
        self.updates = 0
        self.most_recipients = 0
        self.most_modifications = 0
        self.outage_resets = 0
        self.unrouted = 0
        self.unparsable = 0
        self.unread_replies = 0

    def lane(self, app_id: str, lane: Lane) -> LaneLedger:
        """Return one lane's ledger; an empty one where nothing arrived yet."""
        found = self.lanes.get((app_id, lane))
        if found is None:
            found = self.lanes[app_id, lane] = LaneLedger(grace_s=self._grace_s)
        return found

    def allow(self, grace_s: float) -> None:
        """Judge by another grace from now on."""
        self._grace_s = grace_s
        for found in self.lanes.values():
            found.grace_s = grace_s

    def requests(self, lane: Lane) -> int:
        """Count the requests that arrived in one lane, over all apps."""
        return sum(len(found.arrivals) for (_, name), found in self.lanes.items() if name == lane)

    def recipients_of(self, message_ids: Sequence[str]) -> int:
        """Count the recipients that messages of these ids reached; unknown ids count nothing."""
        found = (self.messages.find(message_id) for message_id in message_ids)
        return sum(message.count for message in found if message is not None)
