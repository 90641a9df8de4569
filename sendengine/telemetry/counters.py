"""What a lane has done: counts, latencies, and what kept it from going faster.

The engine feeds them; a report and `sendengine.telemetry.snapshots` read them.

Units: ``_s`` is seconds; instants are the running loop's ``time()``; ``rate`` is requests a second.
"""

from collections import Counter
from typing import Final, Literal, TypedDict, get_args

from msgspec import Struct

from sendengine.telemetry.histogram import Histogram

Cause = Literal["rate", "connections", "input", "hold", "user", "guard", "journal"]
"""What a lane waits for: a permit of its rate, a connection, jobs to send, the end of a 429's hold or of an open
breaker, its users' seconds, room under the application limit, the disk."""

CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

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


class LaneRecord(Struct, frozen=True):
    """A lane's counts as they are kept for a later process.

    ``latency`` pairs the histogram's buckets with their counts; ``span_s`` is from the first request to the last.
    """

    requests: int = 0
    retries: int = 0
    not_sent: int = 0
    lost: int = 0
    epochs: int = 0
    peak_1s: int = 0
    held_s: float = 0.0
    span_s: float = 0.0
    longest_s: float = 0.0
    replies: dict[int, int] = {}
    bound_s: dict[Cause, float] = {}
    latency: tuple[tuple[int, int], ...] = ()


class LaneCounters:
    """One lane's counts since its engine started.

    ``requests`` counts what was written, every attempt: it is what the server counts. ``replies`` counts what
    came back, by status. ``not_sent`` attempts were certainly not received: nearly all failed before anything was
    written, and are no requests; the others are, and with those in flight and those ``lost`` they make the difference.
    ``retries`` are repeats of attempts without an answer; what a 429 sent back is none. ``epochs`` are bursts of 429s,
    however many each held. The engine adds to these, and to ``held_s``, directly. ``failure`` is what the latest
    attempt met, in words, where nothing has been answered since.
    """

    __slots__ = (
        "_bound_s", "_earlier_s", "_first_sent_at_s", "_last_sent_at_s", "_replies", "epochs", "failure", "held_s",
        "latency", "lost", "not_sent", "peak_1s", "requests", "retries",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0
        self.not_sent = 0
        self.lost = 0
        self.epochs = 0
        self.peak_1s = 0
        self.held_s = 0.0
        self.failure = ""
        self.latency = Histogram()
        self._replies: Counter[int] = Counter()
        self._bound_s: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
        self._first_sent_at_s: float | None = None
        self._last_sent_at_s = 0.0
        self._earlier_s = 0.0  # the span of earlier processes

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
        return self.requests / max(_SHORTEST_S, self._span_s) if self.requests else 0.0

    @property
    def _span_s(self) -> float:
        now = 0.0 if self._first_sent_at_s is None else self._last_sent_at_s - self._first_sent_at_s
        return self._earlier_s + now

    @property
    def bound_by(self) -> dict[Cause, float]:
        """For each cause its share of all seconds that were noted; they add up to 1, or are all 0."""
        noted_s = sum(self._bound_s.values())
        return {cause: seconds / noted_s if noted_s else 0.0 for cause, seconds in self._bound_s.items()}

    def record(self) -> LaneRecord:
        """Return the counts as a later process can `absorb` them."""
        return LaneRecord(
            requests=self.requests,
            retries=self.retries,
            not_sent=self.not_sent,
            lost=self.lost,
            epochs=self.epochs,
            peak_1s=self.peak_1s,
            held_s=self.held_s,
            span_s=self._span_s,
            longest_s=self.latency.max_ms / 1e3,
            replies=dict(self._replies),
            bound_s={cause: seconds for cause, seconds in self._bound_s.items() if seconds},
            latency=tuple((bucket, count) for bucket, count in enumerate(self.latency.counts) if count),
        )

    def absorb(self, earlier: LaneRecord) -> None:
        """Add what an earlier process counted."""
        self.requests += earlier.requests
        self.retries += earlier.retries
        self.not_sent += earlier.not_sent
        self.lost += earlier.lost
        self.epochs += earlier.epochs
        self.peak_1s = max(self.peak_1s, earlier.peak_1s)
        self.held_s += earlier.held_s
        self._earlier_s += earlier.span_s
        self._replies.update(earlier.replies)
        for cause, seconds in earlier.bound_s.items():
            self._bound_s[cause] += seconds
        self.latency.absorb(earlier.latency, longest_s=earlier.longest_s)

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
