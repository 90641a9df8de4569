"""When a failed attempt goes again, and when it is enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.answers import AnswerWindow
from sendengine.core.retry import (
    Again,
    Attempt,
    Failure,
    NotSent,
    ReplyLost,
    RetryPolicy,
    ServerFaulted,
    Tries,
    apart_s,
)

POLICY = RetryPolicy(lost_reply_wait_s=100)
IMPATIENT = RetryPolicy(lost_reply_wait_s=1)


def window(*, answered: int = 0, failed: int = 0, at_s: float = 0) -> AnswerWindow:
    lane = AnswerWindow()
    for _ in range(answered):
        lane.note(answered=True, now_s=at_s)
    for _ in range(failed):
        lane.note(answered=False, now_s=at_s)
    return lane


def after(failures: int, *, counted: int = 0, first_s: float = 0) -> Tries:
    return Tries(first_s, failures, counted)


def again(
    policy: RetryPolicy, failure: Failure, *, failures: int, high: bool = False, chance: float = 0
) -> Again | None:
    """The answer to an attempt that was sent at 1,000 s and had failed by 1,004 s."""
    tries = after(failures, first_s=1000)
    return policy.again(tries, Attempt(failure, 1000), now_s=1004, high=high, deadline_s=None, chance=chance)


@pytest.mark.parametrize(
    ("policy", "failure", "high", "waits_s"),
    [
        # Chance 0 is the lower end of the jitter: half of each wait. Not sent and faults wait from the failure on.
        (POLICY, NotSent(), False, [4.25, 4.5, 5, 5, 5, 5, 5, 5, 5]),
        (POLICY, NotSent(), True, [4.25, 4.5, 5, 6, 8, 12, 20, 34, 34]),
        (POLICY, ServerFaulted(), False, [5, 6, 8, 12, 20, 34, 34, 34, 34]),
        (POLICY, ServerFaulted(), True, [5, 6, 8, 12, 20, 34, 34, 34, 34]),
        (POLICY, ServerFaulted(9), False, [13, 13, 13, 13, 20, 34, 34, 34, 34]),
        # A lost reply waits from the send on, never less than at first, and never backwards in time.
        (POLICY, ReplyLost(), False, [100] * 9),
        (POLICY, ReplyLost(), True, [4, 4, 4, 8, 16, 30, 30, 30, 30]),
        (IMPATIENT, ReplyLost(), False, [4, 4, 4, 4, 8, 16, 30, 30, 30]),
    ],
)
def test_waits_double_to_their_cap(policy: RetryPolicy, failure: Failure, high: bool, waits_s: list[float]) -> None:
    for failures, wait_s in enumerate(waits_s, start=1):
        due = again(policy, failure, failures=failures, high=high)
        assert due is not None
        assert due.at_s == 1000 + wait_s, f"after {failures} failures"


def test_chance_spreads_a_wait_over_its_upper_half() -> None:
    due = [again(POLICY, ServerFaulted(), failures=3, chance=chance) for chance in (0, 0.5, 0.75)]
    assert [each.at_s for each in due if each] == [1008, 1010, 1011]


def test_the_closing_breaker_releases_what_waits_but_not_a_lost_reply_nor_what_was_told_to_wait() -> None:
    rows: list[tuple[Failure, bool, float]] = [
        (NotSent(), False, 1004),
        (ServerFaulted(), False, 1004),
        (ServerFaulted(30), False, 1034),
        (ReplyLost(), False, 1100),
        (ReplyLost(), True, 1004),  # two seconds after the send are over
    ]
    for failure, high, not_before_s in rows:
        due = again(POLICY, failure, failures=6, high=high)
        assert due is not None
        assert due.not_before_s == not_before_s, failure


def test_the_tenth_failure_that_counts_is_the_last() -> None:
    attempt = Attempt(ServerFaulted(), 500)
    for counted, goes_again in [(9, True), (10, False)]:
        due = POLICY.again(after(12, counted=counted), attempt, now_s=500, high=False, deadline_s=None, chance=0)
        assert (due is not None) == goes_again


def test_a_normal_job_without_a_deadline_goes_on_while_its_failures_do_not_count() -> None:
    tries = after(5000, counted=9)
    due = POLICY.again(tries, Attempt(NotSent(), 90_000), now_s=90_000, high=False, deadline_s=None, chance=0.5)
    assert due == Again(at_s=90_001.5, not_before_s=90_000)


@pytest.mark.parametrize(("deadline_s", "goes_again"), [(1005.0, False), (1005.1, True), (900.0, False)])
def test_no_attempt_comes_at_the_deadline_or_after_it(deadline_s: float, goes_again: bool) -> None:
    due = POLICY.again(
        after(1, first_s=1000),
        Attempt(ServerFaulted(), 1000),
        now_s=1004,
        high=False,
        deadline_s=deadline_s,
        chance=0,
    )
    assert (due is not None) == goes_again


@pytest.mark.parametrize(("now_s", "goes_again"), [(869.9, True), (870.0, False)])
def test_a_high_job_is_tried_for_fifteen_minutes_and_no_longer(now_s: float, goes_again: bool) -> None:
    due = POLICY.again(
        after(8, counted=8),
        Attempt(ServerFaulted(), now_s),
        now_s=now_s,
        high=True,
        deadline_s=None,
        chance=0,  # the wait is 30 s
    )
    assert (due is not None) == goes_again


def test_a_high_job_counts_every_failure_but_a_probe() -> None:
    tries = None
    for number in range(1, 11):
        attempt = Attempt(NotSent(), number)
        tries = POLICY.tally(tries, attempt, lane=window(failed=100))
        tries = POLICY.tally(tries, Attempt(NotSent(), number, was_probe=True), lane=window(failed=100))
        assert (tries.failures, tries.counted) == (number, 0)
        for high in (True, False):
            due = POLICY.again(tries, attempt, now_s=number, high=high, deadline_s=None, chance=0)
            assert (due is None) == (high and number == 10)


@pytest.mark.parametrize(
    ("answered", "failed", "counted"),
    [
        (0, 1, 0),  # nothing but this request: nobody knows
        (1, 1, 1),  # all of the others
        (1, 2, 1),  # half of the others
        (49, 51, 0),  # 49 of 99 others
        (50, 50, 1),
        (99, 1, 1),
    ],
)
def test_a_normal_job_counts_a_fault_only_while_half_of_the_rest_is_answered(
    answered: int, failed: int, counted: int
) -> None:
    lane = window(answered=answered, failed=failed)
    tries = POLICY.tally(None, Attempt(ServerFaulted(), 5), lane=lane)
    assert tries == Tries(5, failures=1, counted=counted, maybe_sent=True, last_attempt_at_s=5)


def test_a_request_that_always_faults_at_the_end_of_a_run_is_given_up_after_ten_attempts() -> None:
    lane = window(answered=3)
    tries, now_s = None, 0.0
    for number in range(1, 11):
        lane.note(answered=False, now_s=now_s)
        attempt = Attempt(ServerFaulted(), now_s)
        tries = POLICY.tally(tries, attempt, lane=lane)
        due = POLICY.again(tries, attempt, now_s=now_s, high=False, deadline_s=None, chance=0.5)
        assert (due is None) == (number == 10)
        now_s = due.at_s if due else now_s


def test_what_was_not_sent_counts_only_where_the_lane_has_answered_since_the_attempt_before_it() -> None:
    lane = window(answered=99, at_s=0)
    tries = None
    for sent_s, answered_s, counted in [
        (9.5, 10, 1),  # others get through while it fails
        (10.5, 10, 2),  # and did since its first attempt
        (12.5, 10, 2),  # the lane is silent: an outage
        (14.5, 10, 2),
        (16.5, 15, 3),  # others get through again
        (18.5, 15, 3),
    ]:
        lane.note(answered=True, now_s=answered_s)
        tries = POLICY.tally(tries, Attempt(NotSent(), sent_s), lane=lane)
        assert tries.counted == counted, f"sent at {sent_s} s"


def test_one_attempt_that_may_have_been_received_is_never_forgotten() -> None:
    lane = window()
    tries = POLICY.tally(None, Attempt(NotSent(), 1), lane=lane)
    assert not tries.maybe_sent
    tries = POLICY.tally(tries, Attempt(ReplyLost(), 2, was_probe=True), lane=lane)
    assert tries.maybe_sent
    tries = POLICY.tally(tries, Attempt(NotSent(), 4), lane=lane)
    assert tries.maybe_sent


failures_of_all_kinds = st.one_of(
    st.just(NotSent()),
    st.just(ReplyLost()),
    st.builds(ServerFaulted, st.none() | st.floats(0, 300)),
)


@given(
    lost_s=st.floats(0.1, 200),
    failure=failures_of_all_kinds,
    failures=st.integers(0, 10**6),
    sent_s=st.floats(0, 1e6),
    took_s=st.floats(0, 100),
    high=st.booleans(),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_the_next_attempt_is_never_in_the_past_and_never_before_what_was_asked(
    *, lost_s: float, failure: Failure, failures: int, sent_s: float, took_s: float, high: bool, chance: float
) -> None:
    policy = RetryPolicy(lost_reply_wait_s=lost_s)
    now_s = sent_s + took_s
    due = policy.again(
        after(failures % 10 if high else failures, first_s=sent_s),
        Attempt(failure, sent_s),
        now_s=now_s,
        high=high,
        deadline_s=None,
        chance=chance,
    )
    if due is None:  # only a Retry-After could ask for so much of a high job's fifteen minutes; here it cannot
        pytest.fail("given up without a reason")
    assert now_s <= due.not_before_s <= due.at_s
    match failure:
        case ReplyLost():
            assert due.not_before_s >= sent_s + (2 if high else lost_s)
            assert due.at_s <= max(now_s, sent_s + max(60, lost_s))
        case ServerFaulted(retry_after_s):
            assert due.not_before_s >= now_s + (retry_after_s or 0)
            assert due.at_s <= now_s + max(60, retry_after_s or 0)
        case NotSent():
            assert due.at_s <= now_s + (60 if high else 2)


def test_who_is_throttled_again_and_again_waits_at_random_for_longer_and_longer() -> None:
    assert [apart_s(throttled, chance=0.5) for throttled in (1, 2, 3, 4, 7, 10_000)] == [0, 0.5, 1.5, 3.5, 30, 30]
