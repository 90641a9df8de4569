"""What no controller of this kind could reach beside a client that takes 0 to 80 % of the limit.

The numbers stand in docs/pacing.md. A client that is told the exact limit each time its gate opens, goes on at a part
of it, and climbs by a power of the time: its constants are the best for the very curve that it meets.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import cos, pi

import pytest

STEP_S = 0.025
LATENCY_S = 0.1
HOLD_S = 1.0
CUTS = (0.05, 0.1, 0.2, 0.3)
CLIMBS = tuple(product((12.0, 25.0, 40.0, 60.0), (1.5, 2.0, 3.0)))  # seconds to the whole ceiling, and the power


@dataclass(frozen=True)
class Reached:
    """Of what was left, and of what was sent."""

    share: float
    refused: float


def left(at_s: float, *, period_s: float) -> float:
    """What the other client leaves, as a share of the ceiling: a wave from all to a fifth and back."""
    return 1 - 0.4 * (1 - cos(2 * pi * at_s / period_s))


def told_at_each_opening(*, period_s: float, cut: float, climb_s: float, power: float) -> Reached:
    """One period, begun a while before the limit falls; refused as soon as it goes above what is left."""
    now_s = opened_s = 0.0
    base = 1 - cut
    accepted = refused = 0.0
    while now_s < period_s:
        limit = left(now_s, period_s=period_s)
        rate = min(1.0, base + ((now_s - opened_s) / climb_s) ** power)
        if rate > limit + 1e-9:
            refused += rate * LATENCY_S  # until it hears of the first one
            now_s += LATENCY_S + HOLD_S
            opened_s, base = now_s, (1 - cut) * left(now_s, period_s=period_s)
        else:
            accepted += rate * STEP_S
            now_s += STEP_S
    possible = sum(left(step * STEP_S, period_s=period_s) * STEP_S for step in range(round(period_s / STEP_S)))
    return Reached(accepted / possible, refused / (accepted + refused))


def every(period_s: float) -> Iterable[Reached]:
    for cut, (climb_s, power) in product(CUTS, CLIMBS):
        yield told_at_each_opening(period_s=period_s, cut=cut, climb_s=climb_s, power=power)


@pytest.mark.parametrize(("period_s", "most"), [(60.0, 0.75), (120.0, 0.83), (240.0, 0.84)])
def test_not_even_a_client_that_is_told_the_limit_after_each_hold_gets_nine_tenths_of_a_wave(
    period_s: float, most: float
) -> None:
    best = max(every(period_s), key=lambda reached: reached.share)
    assert best.share == pytest.approx(most, abs=0.01)
    assert best.refused > 0.005


def test_with_at_most_half_a_hundredth_refused_it_gets_even_less() -> None:
    frugal = [reached.share for reached in every(240.0) if reached.refused <= 0.005]
    assert max(frugal) < 0.8
