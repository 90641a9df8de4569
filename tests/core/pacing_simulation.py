"""Engines that know nothing of each other send to one server that counts in its own way: a discrete simulation.

Units: seconds of a virtual clock that moves by ``SLOT_S``; rates are requests a second.

Method: in each slot every engine gets the 429s that are due, asks its controller for the rate now and then, and
sends the whole permits of a bucket of its own. The servers share no arithmetic with the engine. A server may be away
for a moment: what arrives meanwhile is judged at once when it is back. Everything is seeded: a run is the same every
time.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sendengine.core.backoff import BackoffController, RateChange

SLOT_S = 0.008
POLL_S = 0.1
USED = 0.991  # the part of its ceiling that a limiter uses
_PARTS = 4  # in which the refusals of what was sent in a slot arrive, where each takes its own time

Rate = Callable[[float], float]
Delay = Callable[[random.Random], float]


class Server(Protocol):
    """Says how many of ``asked`` requests that arrive together are accepted."""

    def judge(self, asked: int, *, now_s: float) -> int: ...


def steady(rate: float) -> Rate:
    return lambda _: rate


class SlidingSecond:
    """At most the limit in any one second; a refused request may count like an accepted one."""

    def __init__(self, limit: Rate, *, counts_refused: bool) -> None:
        self._limit = limit
        self._counts_refused = counts_refused
        self._arrivals: deque[tuple[float, int]] = deque()
        self._sum = 0

    def judge(self, asked: int, *, now_s: float) -> int:
        while self._arrivals and self._arrivals[0][0] <= now_s - 1 + 1e-9:
            self._sum -= self._arrivals.popleft()[1]
        accepted = _fitting(asked, self._limit(now_s) - self._sum)
        counted = asked if self._counts_refused else accepted
        self._arrivals.append((now_s, counted))
        self._sum += counted
        return accepted


class FixedSecond:
    """At most the limit between two ticks of its clock."""

    def __init__(self, limit: Rate, *, counts_refused: bool) -> None:
        self._limit = limit
        self._counts_refused = counts_refused
        self._second = -1
        self._sum = 0

    def judge(self, asked: int, *, now_s: float) -> int:
        second = int(now_s + 1e-9)
        if second != self._second:
            self._second, self._sum = second, 0
        accepted = _fitting(asked, self._limit(now_s) - self._sum)
        self._sum += asked if self._counts_refused else accepted
        return accepted


class TokenBucket:
    """Fills at the limit, holds a tenth of a second of it."""

    def __init__(self, limit: Rate, *, counts_refused: bool) -> None:
        self._limit = limit
        self._counts_refused = counts_refused
        self._depth = limit(0) / 10
        self._level = self._depth
        self._at_s = 0.0

    def judge(self, asked: int, *, now_s: float) -> int:
        self._level = min(self._depth, self._level + (now_s - self._at_s) * self._limit(now_s))
        self._at_s = now_s
        accepted = _fitting(asked, self._level)
        self._level = max(-self._depth, self._level - (asked if self._counts_refused else accepted))
        return accepted


class TwoWindows:
    """Estimates the last second from this one and a part of the one before, as HAProxy and Cloudflare do."""

    def __init__(self, limit: Rate, *, counts_refused: bool) -> None:
        self._limit = limit
        self._counts_refused = counts_refused
        self._second = -1
        self._sum = self._before = 0

    def judge(self, asked: int, *, now_s: float) -> int:
        second = int(now_s + 1e-9)
        if second != self._second:
            self._before = self._sum if second == self._second + 1 else 0
            self._second, self._sum = second, 0
        estimate = self._before * (second + 1 - now_s) + self._sum
        accepted = _fitting(asked, self._limit(now_s) - estimate)
        self._sum += asked if self._counts_refused else accepted
        return accepted


SERVERS: dict[str, type[SlidingSecond | FixedSecond | TokenBucket | TwoWindows]] = {
    "sliding": SlidingSecond,
    "fixed": FixedSecond,
    "bucket": TokenBucket,
    "two windows": TwoWindows,
}


@dataclass(slots=True)
class Engine:
    """A controller with a limiter's bucket, and what came of its requests, by second."""

    controller: BackoffController
    ceiling: float
    accepted: list[int]
    refused: list[int]
    changes: list[tuple[float, RateChange]] = field(default_factory=list)
    sent_in_hold: int = 0
    held_s: float = 0.0
    told_until_s: float = 0.0  # the latest received + Retry-After, whatever the controller makes of it
    rate: float = 0.0
    permits: float = 0.0
    poll_s: float = 0.0

    def send(self, now_s: float) -> int:
        """Return how many leave in this slot."""
        if now_s >= self.poll_s or now_s < self.controller.gate_until_s:
            was_held, self.rate = not self.rate, min(self.controller.pace(now_s=now_s), USED * self.ceiling)
            self.permits = 0.0 if was_held else self.permits
            self.poll_s = now_s + POLL_S
        if now_s < self.told_until_s:
            self.held_s += SLOT_S
        self.permits = min(self.permits + self.rate * SLOT_S, 1 + 2 * self.rate * SLOT_S)
        count = int(self.permits)
        self.permits -= count
        if count:
            self.controller.sent(now_s=now_s, count=count)
        if count and now_s < self.told_until_s - 1e-9:
            self.sent_in_hold += count
        return count

    def take(self, refusals: "Refusals", *, now_s: float) -> None:
        for _ in range(refusals.count):
            change = self.controller.throttled(
                sent_at_s=refusals.sent_at_s, received_at_s=now_s, retry_after_s=refusals.retry_after_s
            )
            if change is not None:
                self.changes.append((now_s, change))
            told_s = change.hold_s if change else refusals.retry_after_s or 0.0
            self.told_until_s = max(self.told_until_s, now_s + told_s)
            self.poll_s = 0.0


@dataclass(frozen=True, slots=True)
class Refusals:
    """The 429s to requests that one engine sent in one slot, and that arrive together."""

    engine: Engine
    sent_at_s: float
    count: int
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; ``end_s`` cuts windows at the end of it."""

    engines: Sequence[Engine]
    end_s: int

    @property
    def accepted(self) -> int:
        return sum(sum(engine.accepted) for engine in self.engines)

    @property
    def refused_share(self) -> float:
        refused = sum(sum(engine.refused) for engine in self.engines)
        return refused / (refused + self.accepted)

    def mean_rate(self, start_s: int = 0, end_s: int | None = None) -> float:
        end_s = end_s or self.end_s
        return sum(sum(engine.accepted[start_s:end_s]) for engine in self.engines) / (end_s - start_s)

    def fairness(self, start_s: int, end_s: int) -> float:
        """Jain's index of what each engine got between two instants: 1 is equal, 1/n is all to one."""
        shares = [sum(engine.accepted[start_s:end_s]) for engine in self.engines]
        return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))

    def fair_from_s(self, *, at_least: float = 0.9, window_s: int = 10) -> int | None:
        """The end of the first window in which the engines were that equal."""
        return next(
            (
                start_s + window_s
                for start_s in range(self.end_s - window_s)
                if self.fairness(start_s, start_s + window_s) >= at_least
            ),
            None,
        )


def simulate(
    server: Server,
    controllers: Sequence[BackoffController],
    *,
    ceiling: float,
    duration_s: int,
    latency_s: tuple[float, float] = (0.08, 0.1),
    refusals: Delay | None = None,
    away_s: Sequence[tuple[float, float]] = (),
    retry_after_s: float | None = 1.0,
    foreign: Rate | None = None,
    seed: int = 1,
) -> Outcome:
    """Let every controller send as fast as it may for ``duration_s``; ``foreign`` takes its part first.

    A 429 takes ``latency_s``, between these, or what ``refusals`` says; other replies tell a controller nothing. From
    each of ``away_s`` until the other the server judges nothing.
    """
    chance = random.Random(seed)
    backlog: list[tuple[Engine, float, int]] = []
    engines = [Engine(each, ceiling, [0] * duration_s, [0] * duration_s) for each in controllers]
    due: dict[int, list[Refusals]] = {}
    others = 0.0
    for slot, now_s in _slots(duration_s):
        for refusal in due.pop(slot, ()):
            refusal.engine.take(refusal, now_s=now_s)
        if foreign is not None:
            others += foreign(now_s) * SLOT_S
            server.judge(int(others), now_s=now_s)
            others -= int(others)
        chance.shuffle(engines)
        backlog.extend((engine, now_s, sent) for engine in engines if (sent := engine.send(now_s)))
        if any(start_s <= now_s < end_s for start_s, end_s in away_s):
            continue
        for engine, sent_at_s, sent in backlog:
            accepted = server.judge(sent, now_s=now_s)
            engine.accepted[int(now_s)] += accepted
            engine.refused[int(now_s)] += sent - accepted
            usual_s = chance.uniform(*latency_s)
            for refused in _parts(sent - accepted, _PARTS if refusals else 1):
                takes_s = refusals(chance) if refusals else usual_s
                arrival = slot + max(1, round(takes_s / SLOT_S))
                due.setdefault(arrival, []).append(Refusals(engine, sent_at_s, refused, retry_after_s))
        backlog.clear()
    return Outcome(sorted(engines, key=lambda engine: list(controllers).index(engine.controller)), duration_s)


def _slots(duration_s: int) -> Iterator[tuple[int, float]]:
    return ((slot, slot * SLOT_S) for slot in range(round(duration_s / SLOT_S)))


def _parts(count: int, parts: int) -> Iterator[int]:
    return (size for part in range(parts) if (size := (count + part) // parts))


def _fitting(asked: int, room: float) -> int:
    return min(asked, max(0, int(room)))
