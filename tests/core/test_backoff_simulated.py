"""What the controller reaches against servers that count each in its own way."""

from collections.abc import Sequence
from math import cos, pi

import pytest

from sendengine.core.backoff import BEYOND_S, CLIMB_S, GAIN, BackoffController, Climb, Learned
from tests.core.pacing_simulation import SERVERS, Outcome, Rate, Server, simulate, steady

CEILING = 6000.0
TRUE_LIMIT = 4000.0
LONG_AGO_S = -100.0


def controller(
    *, share: float = 1.0, now_s: float = 0.0, missing_s: float = 60.0, learned: Learned | None = None
) -> BackoffController:
    """A controller that goes at a share of the ceiling, as if it had come there on a first climb."""
    made = BackoffController(ceiling=CEILING, missing_retry_after_s=missing_s, now_s=now_s, learned=learned)
    if share < 1:  # the only way to start shares unequal without simulating how they became so
        made._climb = Climb(share * CEILING, GAIN * CEILING, CLIMB_S, CEILING, BEYOND_S)
        made._pace = share * CEILING
    return made


def server(kind: str, limit: Rate, *, counts_refused: bool = True) -> Server:
    return SERVERS[kind](limit, counts_refused=counts_refused)


def use(outcome: Outcome, *, limit: float) -> float:
    """What was accepted, of what the limit allows outside holds."""
    engine = outcome.engines[0]
    return outcome.accepted / (limit * (outcome.end_s - engine.held_s))


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("retry_after_s", [1.0, 5.0])
@pytest.mark.parametrize("counts_refused", [True, False])
def test_a_true_limit_of_two_thirds_of_the_ceiling(kind: str, retry_after_s: float, counts_refused: bool) -> None:
    outcome = simulate(
        server(kind, steady(TRUE_LIMIT), counts_refused=counts_refused),
        [controller()],
        ceiling=CEILING,
        duration_s=20,
        retry_after_s=retry_after_s,
    )
    assert use(outcome, limit=TRUE_LIMIT) >= 0.82
    assert outcome.engines[0].controller.epochs <= 3
    assert outcome.refused_share <= 0.025
    assert outcome.engines[0].sent_in_hold == 0


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("missing_s", [3.0, 60.0])
def test_without_a_retry_after_it_waits_as_configured_and_then_does_as_well(kind: str, missing_s: float) -> None:
    outcome = simulate(
        server(kind, steady(TRUE_LIMIT)),
        [controller(missing_s=missing_s)],
        ceiling=CEILING,
        duration_s=round(20 + 2 * missing_s),
        retry_after_s=None,
    )
    engine = outcome.engines[0]
    assert engine.sent_in_hold == 0
    assert engine.held_s >= missing_s
    assert use(outcome, limit=TRUE_LIMIT) >= 0.8
    assert engine.controller.epochs <= 3
    assert outcome.refused_share <= 0.025


@pytest.mark.parametrize("kind", SERVERS)
def test_it_settles_below_a_true_limit_and_stays_there(kind: str) -> None:
    outcome = simulate(server(kind, steady(TRUE_LIMIT)), [controller()], ceiling=CEILING, duration_s=300)
    assert outcome.mean_rate(100, 300) >= 0.88 * TRUE_LIMIT
    assert len([at_s for at_s, _ in outcome.engines[0].changes if at_s >= 100]) <= 13
    assert outcome.refused_share <= 0.006


def test_after_a_restart_it_goes_on_where_it_was() -> None:
    before = simulate(server("sliding", steady(TRUE_LIMIT)), [controller()], ceiling=CEILING, duration_s=200)
    learned = before.engines[0].controller.learned
    after = simulate(
        server("sliding", steady(TRUE_LIMIT)), [controller(learned=learned)], ceiling=CEILING, duration_s=20
    )
    assert after.refused_share == 0
    assert after.mean_rate() >= 0.85 * TRUE_LIMIT


@pytest.mark.parametrize(
    ("shares", "known_for_long", "kind"),
    [
        ((0.7, 0.1, 0.1, 0.1), False, "sliding"),
        ((0.7, 0.1, 0.1, 0.1), False, "bucket"),
        ((0.97, 0.01, 0.01, 0.01), False, "sliding"),
        *(((0.97, 0.01, 0.01, 0.01), True, kind) for kind in SERVERS),
        ((1.0, 1.0, 1.0, 1.0), True, "sliding"),
        ((1.0, 1.0, 1.0, 1.0), True, "fixed"),
    ],
)
def test_four_engines_on_one_app_come_to_equal_shares(kind: str, shares: Sequence[float], known_for_long: bool) -> None:
    now_s = LONG_AGO_S if known_for_long else 0.0  # then the largest takes its first refusal for bad timing
    outcome = simulate(
        server(kind, steady(CEILING)),
        [controller(share=share, now_s=now_s) for share in shares],
        ceiling=CEILING,
        duration_s=120,
    )
    assert outcome.mean_rate() >= 0.8 * CEILING
    assert outcome.refused_share <= 0.01
    assert (outcome.fair_from_s(at_least=0.9) or 999) <= 100
    assert outcome.fairness(100, 120) >= 0.88  # twenty seconds with a hold in it more or less
    assert all(engine.sent_in_hold == 0 for engine in outcome.engines)


@pytest.mark.parametrize(("engines", "least", "refused"), [(2, 0.82, 0.01), (8, 0.65, 0.04)])
def test_two_and_eight_engines_share_as_well(engines: int, least: float, refused: float) -> None:
    outcome = simulate(
        server("sliding", steady(CEILING)), [controller() for _ in range(engines)], ceiling=CEILING, duration_s=60
    )
    assert outcome.mean_rate() >= least * CEILING
    assert outcome.refused_share <= refused
    assert outcome.fairness(40, 60) >= 0.9


@pytest.mark.parametrize("kind", SERVERS)
def test_the_limit_halves_for_twenty_of_seventy_seconds(kind: str) -> None:
    def limit(now_s: float) -> float:
        return CEILING / 2 if 20 <= now_s < 40 else CEILING

    outcome = simulate(server(kind, limit), [controller()], ceiling=CEILING, duration_s=70, latency_s=(0.08, 0.08))
    assert outcome.accepted >= 0.75 * (50 * CEILING + 20 * CEILING / 2)
    assert outcome.refused_share <= 0.012
    assert outcome.mean_rate(65, 70) >= 0.97 * CEILING


@pytest.mark.parametrize("counts_refused", [True, False])
def test_it_follows_what_a_foreign_client_leaves(counts_refused: bool) -> None:
    def foreign(now_s: float) -> float:
        return CEILING * (0.4 - 0.4 * cos(2 * pi * now_s / 300))  # none to four fifths and back

    outcome = simulate(
        server("sliding", steady(CEILING), counts_refused=counts_refused),
        [controller()],
        ceiling=CEILING,
        duration_s=300,
        foreign=foreign,
    )
    engine = outcome.engines[0]
    left = sum(CEILING - foreign(second) for second in range(300))
    assert outcome.accepted >= 0.75 * left
    assert outcome.accepted >= 0.84 * left * (1 - engine.held_s / 300)
    assert outcome.refused_share <= (0.007 if counts_refused else 0.002)


def test_a_server_that_refuses_everything_gets_next_to_nothing_and_is_found_again_within_seconds() -> None:
    def limit(now_s: float) -> float:
        return 0 if 5 <= now_s < 35 else CEILING

    outcome = simulate(server("sliding", limit), [controller()], ceiling=CEILING, duration_s=70)
    assert sum(outcome.engines[0].refused[7:35]) <= 30 * 30
    assert sum(outcome.engines[0].accepted[35:38]) > 0
    assert outcome.mean_rate(60, 70) >= 0.9 * CEILING
