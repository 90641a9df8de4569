"""The bound, its allowance for pauses, and the count beside it."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.bound import ALLOWANCES, Allowance, Audit, safe_rate, warm_share


@pytest.mark.parametrize(
    ("ceiling", "rate"),
    [
        (6000, 6000 / 1.009),  # 5946.48: S = 4 ms, J = 5 ms
        (150, 150 / 1.009),
        (37.5, 37 / 1.009),  # 37 fit into a second
        (5, 5 / 1.014),  # J = 50 ms / 5
        (1, 1 / 1.054),
        (0.5, 1 / 2.054),  # one in two seconds
        (0.29 * 100, 29 / 1.009),  # 28.999999999999996
    ],
)
def test_the_safe_rate(ceiling: float, rate: float) -> None:
    assert safe_rate(ceiling) == pytest.approx(rate)


@given(st.integers(1, 10_000), st.sampled_from(range(len(ALLOWANCES))))
def test_one_permit_more_than_the_ceiling_takes_longer_than_a_second_and_the_jitter(ceiling: int, level: int) -> None:
    """Worked out exactly: a bucket of depth 1 + rS gives its k-th permit no sooner than (k − 1 − rS) / r."""
    rate = Fraction(safe_rate(ceiling, level=level))
    pause_s, jitter_s = ALLOWANCES[level]
    soonest_s = (ceiling - rate * Fraction(pause_s)) / rate
    assert soonest_s >= 1 + Fraction(jitter_s) - Fraction(1, 10**9)


@given(st.integers(2100, 10_000), st.sampled_from(range(len(ALLOWANCES))))
def test_a_bucketful_held_back_by_a_pause_of_any_length_fits_too(ceiling: int, level: int) -> None:
    rate, (pause_s, _) = safe_rate(ceiling, level=level), ALLOWANCES[level]
    depth = 1 + rate * pause_s
    assert int(depth) + int(depth + rate) <= ceiling


@pytest.mark.parametrize(("since_s", "share"), [(0, 0.8), (0.15, 0.9), (0.3, 1), (0.4, 1), (1000, 1)])
def test_a_lane_with_cold_connections_begins_with_less(since_s: float, share: float) -> None:
    assert warm_share(since_s) == pytest.approx(share)


def test_the_allowance_grows_where_pauses_cost_more_than_it_does() -> None:
    allowance = Allowance()
    now_s = 0.0
    for _ in range(1000):  # 7 ms between looks: 3 ms of each overflow
        now_s += 0.007
        allowance.was_refitted(0.007, spare_s=0.00017, now_s=now_s)
    assert allowance.pause_s == 0.009
    assert allowance.rate_level == 2


def test_a_rare_long_pause_changes_nothing() -> None:
    allowance = Allowance()
    now_s = 0.0
    for second in range(20):
        for _ in range(475):
            now_s += 0.002
            allowance.was_refitted(0.002, spare_s=0.00017, now_s=now_s)
        now_s += 0.05
        allowance.was_refitted(0.05, spare_s=0.00017, now_s=now_s)
        assert allowance.pause_s == 0.004, second


def test_a_smaller_bucket_comes_a_window_before_the_higher_rate() -> None:
    allowance = Allowance()
    now_s = 0.0
    levels = []
    for number in range(6000):
        away_s = 0.007 if number < 1000 else 0.002
        now_s += away_s
        if allowance.was_refitted(away_s, spare_s=0.00017, now_s=now_s):
            levels.append((allowance.pause_s, allowance.rate_level))
    assert levels[:2] == [(0.006, 1), (0.009, 2)]
    assert levels[-1] == (0.004, 0)
    for (pause_s, rate_level), (_, next_level) in pairwise(levels):
        assert next_level >= rate_level or pause_s <= ALLOWANCES[next_level][0]


def test_the_audit_keeps_the_most_in_any_one_second() -> None:
    audit = Audit()
    for at_s, count, most in [
        (10.0, 5, 5),
        (10.5, 3, 8),
        (11.0, 1, 9),  # a second later to the millisecond: still counts
        (11.002, 1, 9),  # the first five are over
        (15.0, 2, 9),
    ]:
        audit.record(count, now_s=at_s)
        assert audit.most == most, at_s


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 9)), max_size=60))
def test_the_audit_agrees_with_a_plain_list(steps: list[tuple[int, int]]) -> None:
    audit, now_ms, log, most = Audit(), 0, [], 0
    for gap_ms, count in steps:
        now_ms += gap_ms
        audit.record(count, now_s=now_ms / 1000)
        log.append((now_ms, count))
        most = max(most, sum(number for at_ms, number in log if at_ms >= now_ms - 1000))
    assert audit.most == most
