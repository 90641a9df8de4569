"""A server that was away for a moment refuses some of what it may accept: that is no lower limit.

It counts a sliding second, is away for 20 to 60 ms and then judges what has come meanwhile at once. A second later
that second holds too many. The same replies from a limit that is lower must be told from these.
"""

import random
from collections.abc import Iterator
from math import exp, log

import pytest

from sendengine.core.backoff import BackoffController
from tests.core.pacing_simulation import USED, Delay, Outcome, Rate, SlidingSecond, simulate, steady

CEILING = 6000.0
SPREAD = log(2.0 / 0.3) / 2.326  # of a lognormal latency with median 300 ms and p99 2 s


def lognormal(chance: random.Random) -> float:
    return 0.3 * exp(SPREAD * chance.gauss(0, 1))


REFUSALS: dict[str, Delay] = {
    "at once": lambda chance: chance.uniform(0.008, 0.016),
    "100 ms": lambda _: 0.1,
    "300 ms": lambda _: 0.3,
    "2 s": lambda _: 2.0,
    "lognormal": lognormal,
}


def outcome(
    kind: str,
    *,
    limit: Rate | None = None,
    away_s: tuple[tuple[float, float], ...] = (),
    seconds: int = 40,
    ceiling: float = CEILING,
) -> Outcome:
    return simulate(
        SlidingSecond(limit or steady(ceiling), counts_refused=True),
        [BackoffController(ceiling=ceiling, missing_retry_after_s=60, now_s=0)],
        ceiling=ceiling,
        duration_s=seconds,
        refusals=REFUSALS[kind],
        away_s=away_s,
    )


def causes(found: Outcome) -> list[str]:
    return [change.cause for _, change in found.engines[0].changes]


def stalls(*, a_minute: int, seconds: int) -> Iterator[tuple[float, float]]:
    chance = random.Random(7)
    for minute in range(seconds // 60):
        for _ in range(a_minute):
            start_s = 60 * minute + chance.uniform(0, 60)
            yield start_s, start_s + chance.uniform(0.02, 0.06)


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("start_s", [1.1, 5.3])
@pytest.mark.parametrize("stall_s", [0.024, 0.04, 0.06])
def test_one_stall_costs_a_hold_and_little_else(kind: str, start_s: float, stall_s: float) -> None:
    found = outcome(kind, away_s=((start_s, start_s + stall_s),))
    assert causes(found) == ["misaligned"]
    lost_s = 40 - found.engines[0].held_s - found.accepted / (USED * CEILING)
    assert lost_s < 0.7  # 0.2 of the gentle opening, 0.005 × 35 of the trim, and what was refused
    assert found.mean_rate(30, 40) >= 0.994 * USED * CEILING


@pytest.mark.parametrize("ceiling", [150.0, 1000.0])
def test_slower_lanes_fare_alike(ceiling: float) -> None:
    found = outcome("at once", ceiling=ceiling, away_s=((5.3, 5.36),))
    assert set(causes(found)) <= {"misaligned"}
    assert found.accepted >= 0.955 * USED * ceiling * 40


@pytest.mark.parametrize("kind", ["at once", "100 ms", "300 ms"])
def test_four_stalls_a_minute_cost_a_tenth(kind: str) -> None:
    found = outcome(kind, away_s=tuple(stalls(a_minute=4, seconds=120)), seconds=120)
    assert found.accepted >= 0.89 * USED * CEILING * 120
    assert causes(found).count("misaligned") > causes(found).count("contended")


@pytest.mark.parametrize("kind", ["100 ms", "300 ms", "2 s"])
def test_a_limit_that_halves_looks_full_and_is_found_out_by_what_else_is_refused(kind: str) -> None:
    found = outcome(kind, limit=lambda now_s: CEILING / 2 if now_s >= 10 else CEILING)
    controller = found.engines[0].controller
    assert causes(found)[0] == "misaligned"
    assert controller.learned.trim == 0
    assert set(causes(found)[1:]) == {"contended"}
    assert controller.epochs <= 5


def test_a_lower_limit_is_found_as_well_however_late_its_replies_are() -> None:
    shares = {
        kind: outcome(kind, limit=steady(4000.0)).accepted / (4000 * 40) for kind in ("at once", "100 ms", "300 ms")
    }
    assert min(shares.values()) >= 0.74
