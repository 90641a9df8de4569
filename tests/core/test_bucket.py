"""Permits at an instant: never more than the depth and what accrued, and none of those lost without overflowing."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.bucket import TICK_S, Bucket

STARTED_S = 50_000.0
rates = st.floats(1 / 60, 10_000)
pauses_s = st.floats(0.001, 0.05)
waits_s = st.lists(st.floats(0, 0.2), min_size=1, max_size=60)


def whole(bucket: Bucket, now_s: float) -> int:
    return bucket.whole_permits(now_s=now_s)


def test_a_full_one_holds_a_permit_and_what_accrues_in_a_pause() -> None:
    bucket = Bucket(1000, pause_s=0.004, now_s=STARTED_S)
    assert bucket.depth == 5
    assert whole(bucket, STARTED_S) == whole(bucket, STARTED_S + 60) == 5


def test_an_empty_one_has_its_first_permit_after_an_interval() -> None:
    bucket = Bucket(100, pause_s=0.004, now_s=STARTED_S, permits=0)
    assert not bucket.try_take(STARTED_S + 0.009)
    assert bucket.try_take(STARTED_S + 0.0101)
    assert not bucket.try_take(STARTED_S + 0.0101)


def test_it_keeps_the_part_of_a_permit_that_it_is_made_with() -> None:
    bucket = Bucket(100, pause_s=0.004, now_s=STARTED_S, permits=0.75)
    assert abs(bucket.permits(now_s=STARTED_S) - 0.75) < 1e-6
    assert whole(bucket, STARTED_S + 0.0026) == 1


def test_the_next_permit_is_whole_milliseconds_away_and_no_less_than_a_tick() -> None:
    assert Bucket(1, pause_s=0.004, now_s=STARTED_S, permits=0.25).next_in_s(now_s=STARTED_S) == 0.75
    assert Bucket(6000, pause_s=0.004, now_s=STARTED_S, permits=0).next_in_s(now_s=STARTED_S) == TICK_S


@given(rates, pauses_s, waits_s, st.booleans())
def test_no_time_gets_more_than_the_depth_and_what_accrues_in_it(
    rate: float, pause_s: float, waits: list[float], one_by_one: bool
) -> None:
    bucket = Bucket(rate, pause_s=pause_s, now_s=STARTED_S)
    now_s = STARTED_S
    taken: list[tuple[float, int]] = []
    for wait_s in waits:
        now_s += wait_s
        count = 0
        if one_by_one:
            while bucket.try_take(now_s):
                count += 1
        else:
            count = whole(bucket, now_s)
            bucket.take(count, now_s=now_s)
        taken.append((now_s, count))
    for first, (began_s, _) in enumerate(taken):
        total = 0
        for at_s, count in taken[first:]:
            total += count
            assert total <= bucket.depth + rate * (at_s - began_s) + 1e-4


@given(rates, pauses_s, waits_s)
def test_nothing_is_lost_while_it_is_not_full(rate: float, pause_s: float, waits: list[float]) -> None:
    bucket = Bucket(rate, pause_s=pause_s, now_s=STARTED_S, permits=0)
    now_s, taken, overflowed = STARTED_S, 0, False
    for wait_s in waits:
        now_s += wait_s
        there = bucket.permits(now_s=now_s)
        overflowed = overflowed or there >= bucket.depth - 1e-6
        count = whole(bucket, now_s)
        bucket.take(count, now_s=now_s)
        taken += count
        if not overflowed:
            assert abs(taken + bucket.permits(now_s=now_s) - rate * (now_s - STARTED_S)) < 1e-4


@given(rates, pauses_s, st.lists(st.floats(0, 5), min_size=2, max_size=20))
def test_asking_changes_nothing_and_more_time_never_means_fewer(rate: float, pause_s: float, ages: list[float]) -> None:
    bucket = Bucket(rate, pause_s=pause_s, now_s=STARTED_S, permits=0.5)
    seen = [bucket.permits(now_s=STARTED_S + age_s) for age_s in sorted(ages)]
    assert all(earlier <= later for earlier, later in pairwise(seen))
    assert seen == [bucket.permits(now_s=STARTED_S + age_s) for age_s in sorted(ages)]
