"""When each job of a benchmark is meant to start, and what becomes of it.

Units: seconds since the beginning; ``rate`` is jobs a second.
"""

from collections import Counter
from collections.abc import Iterator
from math import ceil, inf
from typing import Final

from sendengine.core.jobs import Job, Urgency
from sendengine.core.onesignal import EndpointGroup
from sendengine.telemetry.histogram import Histogram

ABANDONED: Final = "abandoned"
Kind = tuple[EndpointGroup, Urgency]

_NEAR: Final = 1e-6  # what float seconds lose of a whole job
_STEPS: Final = 1000


class Stream:
    """An open stream of jobs of one kind: the n-th, from 0 on, is meant to start ``n / rate`` seconds after the start.

    There are as many as are meant to start before ``seconds`` are over.
    """

    __slots__ = ("_jobs", "_next", "_rate", "_submitted", "_total", "kind")

    def __init__(self, jobs: Iterator[Job], *, kind: Kind, rate: float, seconds: float) -> None:
        self._jobs = jobs
        self._next: Job | None = None
        self._rate = rate
        self._total = ceil(rate * seconds - _NEAR)
        self._submitted = 0
        self.kind = kind

    def due(self, *, at_s: float, under_way: int) -> int:
        """How many are to be submitted now, whatever is under way."""
        del under_way
        return min(self._total, int(at_s * self._rate + _NEAR) + 1) - self._submitted

    def next_at_s(self) -> float:
        """When the next one is meant to start."""
        return self._submitted / self._rate if self._submitted < self._total else inf

    def meant_at_s(self, *, at_s: float) -> float:
        """When the job that is submitted now was meant to start."""
        del at_s
        return self._submitted / self._rate

    def take(self) -> Job:
        """Return the next job; the same again until `took`."""
        if self._next is None:
            self._next = next(self._jobs)
        return self._next

    def took(self) -> None:
        """The job was submitted."""
        self._next = None
        self._submitted += 1

    def end(self, *, at_s: float) -> None:
        """Let nothing be meant to start from then on."""
        self._total = max(self._submitted, min(self._total, ceil(at_s * self._rate - _NEAR)))

    def left(self, *, at_s: float) -> int:
        """How many were meant to start by then and are not submitted."""
        return max(0, self.due(at_s=at_s, under_way=0))

    def waited(self, *, at_s: float) -> Histogram:
        """How long what is left has waited by then; of many, a sample of a thousand that counts for all."""
        found, left = Histogram(), self.left(at_s=at_s)
        steps = min(left, _STEPS)
        for step in range(steps):
            number = left * step // steps
            weight = left * (step + 1) // steps - number
            one = Histogram()
            one.record(max(0.0, at_s - (self._submitted + number) / self._rate))
            counts = [(bucket, count * weight) for bucket, count in enumerate(one.counts) if count]
            found.absorb(counts, longest_s=one.max_ms / 1e3)
        return found


class Flood:
    """Jobs of any kinds, as fast as they go: ``depth`` of them under way at any time, each meant to start at once."""

    __slots__ = ("_depth", "_is_over", "_jobs", "_next")

    kind: Kind | None = None

    def __init__(self, jobs: Iterator[Job], *, depth: int) -> None:
        self._jobs = jobs
        self._next: Job | None = None
        self._depth = depth
        self._is_over = False

    def due(self, *, at_s: float, under_way: int) -> int:
        """How many are to be submitted, so that there are enough under way."""
        del at_s
        return 0 if self._is_over else max(0, self._depth - under_way)

    def next_at_s(self) -> float:
        """As soon as something has settled."""
        return inf if self._is_over else 0.0

    def meant_at_s(self, *, at_s: float) -> float:
        """Now."""
        return at_s

    def take(self) -> Job:
        """Return the next job; the same again until `took`."""
        if self._next is None:
            self._next = next(self._jobs)
        return self._next

    def took(self) -> None:
        """The job was submitted."""
        self._next = None

    def end(self, *, at_s: float) -> None:
        """Let there be no more."""
        del at_s
        self._is_over = True

    def left(self, *, at_s: float) -> int:
        """Nothing is owed."""
        del at_s
        return 0

    def waited(self, *, at_s: float) -> Histogram:
        """Nothing has waited."""
        del at_s
        return Histogram()


class Tally:
    """What has become of the jobs of one kind.

    ``latency`` counts those that came to an end, from their intended start; ``waited`` those that the engine abandoned
    when it stopped, for as long as they had waited.
    """

    __slots__ = ("latency", "outcomes", "submitted", "waited")

    def __init__(self) -> None:
        self.submitted = 0
        self.outcomes: Counter[str] = Counter()
        self.latency = Histogram()
        self.waited = Histogram()

    def settle(self, outcome: str, *, after_s: float) -> None:
        """Count a job that ended so, so long after its intended start."""
        self.outcomes[outcome] += 1
        (self.waited if outcome == ABANDONED else self.latency).record(after_s)

    @property
    def accepted(self) -> int:
        """How many were accepted so far."""
        return self.outcomes["accepted"]
