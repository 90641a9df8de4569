"""What a lane has done: counts, latencies, and what kept it from going faster.

The engine feeds them; a report and `sendengine.telemetry.snapshots` read them.

Units: ``_s`` is seconds; instants are the running loop's ``time()``; ``rate`` is requests a second.
"""

from collections import Counter
from typing import Final, Literal, TypedDict

from sendengine.telemetry.histogram import Histogram

Cause = Literal["rate", "connections", "input", "hold", "user", "guard", "journal"]
"""What a lane waits for: a permit of its rate, a connection, jobs to send, the end of a 429's hold or of an open
breaker, its users' seconds, room under the application limit, the disk."""

CAUSES: Final[tuple[Cause, ...]] = ("rate", "connections", "input", "hold", "user", "guard", "journal")

_SHORTEST_S: Final = 1.0  # a lane that was busy for less has no rate worth telling


class LatencyEntry(TypedDict):
    """From write to whole reply, in milliseconds."""

    p50: float
    p99: float
    max: float


class LaneEntry(TypedDict):
    """A lane in ``report.json``."""

    ceiling: float
    requests: int
    replies: dict[str, int]
    epochs: int
    peak_1s: int
    mean_rate: float
    held_s: float
    latency_ms: LatencyEntry
    bound_by: dict[Cause, float]


class LaneCounters:
    """One lane's counts since its engine started.

    ``requests`` counts what was written, every attempt: it is what the server counts. ``replies`` counts what
    came back, by status; the difference is in flight or ``lost``. ``not_sent`` attempts failed before anything was
    written and are no requests. ``retries`` are the attempts that were not a request's first. ``epochs`` are bursts
    of 429s, however many each held. The engine adds to these, and to ``held_s``, directly.
    """

    __slots__ = (
        "_bound_s", "_first_sent_at_s", "_last_sent_at_s", "_replies", "epochs", "held_s", "latency", "lost",
        "not_sent", "peak_1s", "requests", "retries",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0
        self.not_sent = 0
        self.lost = 0
        self.epochs = 0
        self.peak_1s = 0
        self.held_s = 0.0
        self.latency = Histogram()
        self._replies: Counter[int] = Counter()
        self._bound_s: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
        self._first_sent_at_s: float | None = None
        self._last_sent_at_s = 0.0

    def __repr__(self) -> str:
        return f"<LaneCounters {self.requests} requests, {dict(self._replies)}, {self.retries} retries>"

    def sent(self, *, now_s: float) -> None:
        """Count a request that is being written."""
        self.requests += 1
        if self._first_sent_at_s is None:
            self._first_sent_at_s = now_s
        self._last_sent_at_s = now_s

    def replied(self, status: int, *, latency_s: float) -> None:
        """Count a reply, any status, ``latency_s`` after its request was written."""
        self._replies[status] += 1
        self.latency.record(latency_s)

    def note(self, cause: Cause, seconds: float) -> None:
        """Add ``seconds`` in which ``cause`` was what kept the lane from going faster."""
        self._bound_s[cause] += seconds

    def saw_peak(self, most_in_one_second: int) -> None:
        """Take note of the most requests that the audit found in any one second."""
        self.peak_1s = max(self.peak_1s, most_in_one_second)

    @property
    def replies(self) -> dict[int, int]:
        """Replies by status, in ascending order."""
        return dict(sorted(self._replies.items()))

    @property
    def throttled(self) -> int:
        """How many replies were 429s."""
        return self._replies[429]

    @property
    def mean_rate(self) -> float:
        """Requests a second from the first one written to the last, which is taken for a second at least."""
        if self._first_sent_at_s is None:
            return 0.0
        return self.requests / max(_SHORTEST_S, self._last_sent_at_s - self._first_sent_at_s)

    @property
    def bound_by(self) -> dict[Cause, float]:
        """For each cause its share of all seconds that were noted; they add up to 1, or are all 0."""
        noted_s = sum(self._bound_s.values())
        return {cause: seconds / noted_s if noted_s else 0.0 for cause, seconds in self._bound_s.items()}

    def entry(self, *, ceiling: float) -> LaneEntry:
        """Render the lane's entry of ``report.json``."""
        latency = self.latency
        return {
            "ceiling": ceiling,
            "requests": self.requests,
            "replies": {str(status): count for status, count in self.replies.items()},
            "epochs": self.epochs,
            "peak_1s": self.peak_1s,
            "mean_rate": round(self.mean_rate, 3),
            "held_s": round(self.held_s, 3),
            "latency_ms": {
                "p50": round(latency.percentile_ms(50), 3),
                "p99": round(latency.percentile_ms(99), 3),
                "max": round(latency.max_ms, 3),
            },
            "bound_by": {cause: round(share, 4) for cause, share in self.bound_by.items()},
        }
