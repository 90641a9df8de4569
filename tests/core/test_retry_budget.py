"""The retry budget: a fifth of a retry for each request, ten for each second, a minute's worth at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.budget import RetryBudget


def take_all(budget: RetryBudget, *, now_s: float) -> int:
    taken = 0
    while budget.take(is_answering=False, now_s=now_s):
        taken += 1
    return taken


def test_it_starts_with_a_minute_of_quiet_and_earns_ten_a_second() -> None:
    budget = RetryBudget(now_s=50)
    for now_s, retries in [(50, 600), (50, 0), (51, 10), (51.05, 0), (51.1, 1), (61.1, 100), (5000, 600)]:
        assert take_all(budget, now_s=now_s) == retries, f"at {now_s} s"


def test_five_requests_earn_a_retry() -> None:
    budget = RetryBudget(now_s=0)
    take_all(budget, now_s=0)
    for _ in range(4):
        budget.earn(now_s=0)
    assert take_all(budget, now_s=0) == 0
    budget.earn(now_s=0)
    assert take_all(budget, now_s=0) == 1


def test_what_was_earned_is_forgotten_after_a_minute() -> None:
    budget = RetryBudget(now_s=0)
    for _ in range(1000):
        budget.earn(now_s=0)  # 200 retries, beside the 600 of the seconds
    for _ in range(500):
        budget.earn(now_s=30)  # 100 more
    assert take_all(budget, now_s=61) == 700

    budget = RetryBudget(now_s=0)
    for _ in range(1000):
        budget.earn(now_s=0)
    assert take_all(budget, now_s=59) == 800


def test_it_binds_only_while_the_lane_does_not_answer() -> None:
    budget = RetryBudget(now_s=0)
    take_all(budget, now_s=0)
    assert all(budget.take(is_answering=True, now_s=0) for _ in range(1000))
    assert not budget.take(is_answering=False, now_s=0)


def test_it_says_how_long_to_wait_and_a_clock_that_stands_still_earns_nothing() -> None:
    budget = RetryBudget(now_s=0)
    assert budget.again_in_s(now_s=0) == 0
    take_all(budget, now_s=0)
    assert budget.again_in_s(now_s=0) == pytest.approx(0.1)
    assert budget.again_in_s(now_s=-5) == pytest.approx(0.1)
    assert budget.take(is_answering=False, now_s=0.1)
    assert repr(budget) == "<RetryBudget 0.0 retries>"


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 300)), max_size=40))
def test_no_span_holds_more_retries_than_a_minute_before_it_and_itself_have_earned(
    steps: list[tuple[float, int]],
) -> None:
    budget = RetryBudget(now_s=0)
    now_s, requests, retries = 0.0, 0, 0
    for step_s, sent in steps:
        now_s += step_s
        for _ in range(sent):
            budget.earn(now_s=now_s)
        requests += sent
        retries += take_all(budget, now_s=now_s)
        assert retries <= 600 + 10 * now_s + 0.2 * requests + 1e-6
