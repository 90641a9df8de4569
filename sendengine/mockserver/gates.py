"""The gate of one lane of one app: a counter, what another client takes of it, its true size over time, and a block.

Units: instants are seconds on one monotonic clock, handed in; schedules count from when the gate was made.

Method: the other client's requests arrive evenly spaced and go through the same counter, in their turn among ours,
so it is refused and refuses as a real one would.
"""

from typing import Final

from sendengine.mockserver.config import LaneLimit, MockConfig, Steps
from sendengine.mockserver.limits import LET_THROUGH, counter_of

_FORGOTTEN_S: Final = 2.0  # no window reaches further back, so arrivals older than this need no counting


class Gate:
    """Judges the requests of one lane. Refusals say how many seconds it takes until there is room."""

    __slots__ = ("_counter", "_foreign", "_made_s", "_schedule", "foreign_offered", "foreign_taken", "rate")

    def __init__(self, limit: LaneLimit, *, documented: float, now_s: float) -> None:
        self.rate = limit.rate or documented  # before the schedule
        self._made_s = now_s
        self._counter = counter_of(limit, rate=self.rate, now_s=now_s)
        self._schedule = _Steps(limit.schedule, before=1.0)
        self._foreign = _Foreign(limit, rate=self.rate, now_s=now_s)
        self.foreign_offered = 0
        self.foreign_taken = 0

    def take(self, now_s: float) -> float:
        """Count a request: 0.0, or the seconds until one would be let through."""
        counter = self._counter
        if self._schedule.steps:
            counter.limit = self.rate * self._schedule.at(now_s - self._made_s)
        if self._foreign.is_there:
            for at_s in self._foreign.arrivals(now_s):
                self.foreign_offered += 1
                self.foreign_taken += counter.take(at_s) == LET_THROUGH
        return counter.take(now_s)


class Block:
    """A spell after a 429 in which a lane refuses everything, as some servers have it."""

    __slots__ = ("_length_s", "_mode", "_until_s")

    def __init__(self, config: MockConfig) -> None:
        self._mode = config.block
        self._until_s = 0.0
        self._length_s = config.block_s

    def left(self, now_s: float) -> float:
        """Seconds that the block still lasts; 0.0 where there is none."""
        return max(self._until_s - now_s, 0.0)

    def refused(self, retry_after_s: float, *, now_s: float) -> None:
        """Note that a 429 was given: it begins a block, or prolongs it where calling early does."""
        if self._mode == "prolong" or (self._mode == "hold" and now_s >= self._until_s):
            self._until_s = now_s + (self._length_s or retry_after_s)


class _Steps:
    """A function of time that jumps: each step holds from its second to the next step's."""

    __slots__ = ("_before", "steps")

    def __init__(self, steps: Steps, *, before: float) -> None:
        self.steps = sorted(steps)
        self._before = before

    def at(self, second: float) -> float:
        value = self._before
        for from_s, share in self.steps:
            if second < from_s:
                break
            value = share
        return value


class _Foreign:
    """Another client: its arrivals since we asked last, evenly spaced at the rate that holds at the time."""

    __slots__ = ("_constant", "_due_s", "_made_s", "_rate", "_steps", "is_there")

    def __init__(self, limit: LaneLimit, *, rate: float, now_s: float) -> None:
        self._constant = limit.foreign_rate
        self._rate = rate
        self._steps = _Steps(limit.foreign_schedule, before=0.0)
        self._made_s = now_s
        self._due_s = now_s
        self.is_there = bool(limit.foreign_rate or limit.foreign_schedule)

    def arrivals(self, now_s: float) -> list[float]:
        due_s = max(self._due_s, now_s - _FORGOTTEN_S)
        arrived = []
        while due_s <= now_s:
            rate = self._constant + self._rate * self._steps.at(due_s - self._made_s)
            if rate <= 0:
                due_s = now_s + 1e-3  # silent at present: look again in a millisecond
                break
            arrived.append(due_s)
            due_s += 1 / rate
        self._due_s = due_s
        return arrived
