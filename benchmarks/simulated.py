"""What the backoff controller reaches where the limit is lower, shared or moving: simulated.

Method: the engines and servers of ``tests/core/pacing_simulation.py``: controllers with a bucket each, against four
ways of counting. A round is another seed of the latency, 80 to 100 ms. A server that counts the sliding second, and is
away for 20 to 60 ms once or four times a minute, refuses what it may accept; its 429s take 12 ms to seconds.
`benchmarks.contested`, `benchmarks.four_engines` and `benchmarks.lower_limit` are the real runs.

Units: ``used`` is the share of what the limit allowed; ``outside`` of what it allowed outside holds; Jain's index is 1
where all have the same and 1/n where one has everything; ``fair from`` is the second in which it first was 0.9.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from math import cos, exp, pi
from typing import Annotated, Final

from msgspec import Meta

from benchmarks.benchmark import AtLeastOne, Benchmark, Rounds
from benchmarks.report import Report, Row, at_least, at_most, row
from sendengine.core.backoff import BEYOND_S, CLIMB_S, GAIN, BackoffController, Climb
from tests.core.pacing_simulation import SERVERS, USED, Delay, Outcome, Rate, simulate, steady

_CEILING: Final = 6000.0
_LIMIT: Final = 4000.0
_JUDGED: Final = 4  # eight engines are there to be seen
_STARTS: Final[Mapping[str, Sequence[float]]] = {
    "4 at the ceiling": (1.0, 1.0, 1.0, 1.0),
    "4 from 70/10/10/10": (0.7, 0.1, 0.1, 0.1),
    "4 from 97/1/1/1": (0.97, 0.01, 0.01, 0.01),
    "2 from 90/10": (0.9, 0.1),
    "8 at the ceiling": (1.0,) * 8,
}
_FOREIGN: Final[Mapping[str, Callable[[float], float]]] = {
    "0-80 % in 300 s": lambda now_s: _CEILING * 0.4 * (1 - cos(2 * pi * now_s / 300)),
    "0-80 % in 60 s": lambda now_s: _CEILING * 0.4 * (1 - cos(2 * pi * now_s / 60)),
    "steps of 60 s": lambda now_s: _CEILING * (0.2, 0.7, 0.4, 0.8, 0.0)[int(now_s / 60) % 5],
}
_REFUSALS: Final[Mapping[str, Delay]] = {
    "12 ms": lambda _: 0.012,
    "100 ms": lambda _: 0.1,
    "300 ms": lambda _: 0.3,
    "2 s": lambda _: 2.0,
    "lognormal 0.3 s, p99 2 s": lambda chance: 0.3 * exp(0.8156 * chance.gauss(0, 1)),
}
"""How long a 429 takes."""


class Simulated(Benchmark, frozen=True, kw_only=True):
    """The backoff controller against lower, shared and moving limits, simulated."""

    seconds: Annotated[AtLeastOne, Meta(description="length of a run with several engines")] = 120
    rounds: Rounds = 3

    async def run(self) -> Report:
        """Simulate everything, one case after another."""
        report = Report(rows=[], checks=[])
        for kind in SERVERS:
            report.rows.extend(self._lower(kind, retry_after_s) for retry_after_s in (1.0, 5.0))
        report.rows.extend(self._halved(kind) for kind in SERVERS)
        for name in _FOREIGN:
            report.rows.extend(self._foreign(name, counts_refused=counts) for counts in (True, False))
        for delay in _REFUSALS:
            report.rows.extend(self._away(delay, times) for times in (1, 4))
        for start, shares in _STARTS.items():
            for kind in SERVERS:
                found = self._several(f"{start}, {kind}", shares, kind)
                report.rows.append(found)
                if len(shares) <= _JUDGED:
                    _check(report, found)
        return report

    def _lower(self, kind: str, retry_after_s: float) -> Row:
        rounds = [
            _alone(kind, steady(_LIMIT), allowed=20 * _LIMIT, duration_s=20, retry_after_s=retry_after_s, seed=seed)
            for seed in range(self.rounds)
        ]
        return row(f"4,000 of 6,000 for 20 s, {kind}, Retry-After {retry_after_s:g}", rounds)

    def _halved(self, kind: str) -> Row:
        def limit(now_s: float) -> float:
            return _CEILING / 2 if 20 <= now_s < 40 else _CEILING

        rounds = [_alone(kind, limit, allowed=60 * _CEILING, duration_s=70, seed=seed) for seed in range(self.rounds)]
        return row(f"halved for 20 s of 70, {kind}", rounds)

    def _foreign(self, name: str, *, counts_refused: bool) -> Row:
        foreign = _FOREIGN[name]
        allowed = sum(_CEILING - foreign(second) for second in range(300))
        rounds = [
            _alone(
                "sliding",
                steady(_CEILING),
                allowed=allowed,
                duration_s=300,
                foreign=foreign,
                counts_refused=counts_refused,
                seed=seed,
            )
            for seed in range(self.rounds)
        ]
        return row(f"foreign {name}, refused {'counted' if counts_refused else 'free'}", rounds)

    def _away(self, delay: str, times: int) -> Row:
        rounds = []
        for seed in range(self.rounds):
            chance = random.Random(seed)
            starts_s = [60 * minute + chance.uniform(5, 55) for minute in range(2) for _ in range(times)]
            outcome = simulate(
                SERVERS["sliding"](steady(_CEILING), counts_refused=True),
                [_controller(1.0)],
                ceiling=_CEILING,
                duration_s=120,
                refusals=_REFUSALS[delay],
                away_s=[(start_s, start_s + chance.uniform(0.02, 0.06)) for start_s in starts_s],
                seed=seed,
            )
            rounds.append(_figures(outcome, allowed=120 * USED * _CEILING))
        return row(f"away {times} times a minute, 429s in {delay}", rounds)

    def _several(self, case: str, shares: Sequence[float], kind: str) -> Row:
        rounds = []
        for seed in range(self.rounds):
            outcome = simulate(
                SERVERS[kind](steady(_CEILING), counts_refused=True),
                [_controller(share) for share in shares],
                ceiling=_CEILING,
                duration_s=self.seconds,
                seed=seed,
            )
            fair_from_s = outcome.fair_from_s()
            rounds.append(
                {
                    "used": outcome.mean_rate() / _CEILING,
                    "second half": outcome.mean_rate(self.seconds // 2) / _CEILING,
                    "refused %": 100 * outcome.refused_share,
                    "epochs": float(max(engine.controller.epochs for engine in outcome.engines)),
                    "fair from s": float(self.seconds if fair_from_s is None else fair_from_s),
                    "Jain at the end": outcome.fairness(max(0, self.seconds - 20), self.seconds),
                }
            )
        return row(case, rounds)


def _alone(
    kind: str,
    limit: Rate,
    *,
    allowed: float,
    duration_s: int,
    seed: int,
    retry_after_s: float = 1.0,
    counts_refused: bool = True,
    foreign: Rate | None = None,
) -> dict[str, float]:
    outcome = simulate(
        SERVERS[kind](limit, counts_refused=counts_refused),
        [_controller(1.0)],
        ceiling=_CEILING,
        duration_s=duration_s,
        retry_after_s=retry_after_s,
        foreign=foreign,
        seed=seed,
    )
    return _figures(outcome, allowed=allowed)


def _figures(outcome: Outcome, *, allowed: float) -> dict[str, float]:
    engine = outcome.engines[0]
    return {
        "used": outcome.accepted / allowed,
        "outside": outcome.accepted / allowed / (1 - engine.held_s / outcome.end_s),
        "refused %": 100 * outcome.refused_share,
        "epochs": float(engine.controller.epochs),
        "sent in holds": float(engine.sent_in_hold),
    }


def _controller(share: float) -> BackoffController:
    made = BackoffController(ceiling=_CEILING, missing_retry_after_s=60.0, now_s=0.0)
    if share < 1:  # unequal shares, as if each had come to its own on a first climb
        made._climb = Climb(share * _CEILING, GAIN * _CEILING, CLIMB_S, _CEILING, BEYOND_S)  # noqa: SLF001
        made._pace = share * _CEILING  # noqa: SLF001
    return made


def _check(report: Report, found: Row) -> None:
    report.checks.append(at_least(f"{found.case}, used", found.figures["used"].low, 0.8))
    report.checks.append(at_most(f"{found.case}, refused %", found.figures["refused %"].high, 2.0))
    report.checks.append(at_most(f"{found.case}, fair from s", found.figures["fair from s"].high, 120))
