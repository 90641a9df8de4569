"""The counters, by tables with a handed-in clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.mockserver.config import LaneLimit
from sendengine.mockserver.limits import Bucket, Counter, FixedSecond, SlidingSecond, TwoWindows, UserPace, counter_of

Steps = list[tuple[float, float]]  # (when, what `take` says: 0.0, or the seconds until there is room)


def follow(counter: Counter, steps: Steps) -> None:
    for now_s, said in steps:
        assert counter.take(now_s) == pytest.approx(said), f"at {now_s} s"


def test_sliding_second_counts_the_second_before_each_request() -> None:
    follow(
        SlidingSecond(3, count_refused=False),
        [
            (0.0, 0),
            (0.5, 0),
            (0.9, 0),
            (0.9, 0.1),  # the first leaves at 1.0
            (0.99, 0.01),
            (1.0, 0),
            (1.0, 0.5),  # the next leaves at 1.5
            (1.5, 0),
            (3.0, 0),
        ],
    )


def test_sliding_second_that_counts_refusals_lets_nothing_through_to_one_who_goes_on() -> None:
    follow(
        SlidingSecond(2, count_refused=True),
        [
            (0.0, 0),
            (0.0, 0),
            (0.5, 0.5),  # counted too; room when both of 0.0 are gone
            (1.0, 0),  # only the refused one of 0.5 is left
            (1.2, 0.8),  # 0.5, 1.0 and 1.2: room when 1.0 is gone
            (1.4, 0.8),  # 0.5, 1.0, 1.2 and 1.4: room when 1.2 is gone
            (2.4, 0),
        ],
    )


def test_fixed_second_forgets_at_each_second_of_the_clock() -> None:
    follow(
        FixedSecond(2, count_refused=False),
        [(0.9, 0), (0.9, 0), (0.9, 0.1), (1.0, 0), (1.1, 0), (1.75, 0.25), (7.0, 0)],
    )


def test_two_windows_weigh_the_last_second_by_what_of_it_overlaps() -> None:
    follow(
        TwoWindows(4, count_refused=False),
        [
            (0.0, 0),
            (0.1, 0),
            (0.2, 0),
            (0.3, 0),
            (0.4, 0.6),
            (1.0, 1.0),  # 4 × 1.0 + 0 + 1 > 4
            (1.25, 0),  # 4 × 0.75 + 0 + 1 = 4
            (1.25, 0.75),
            (1.5, 0),  # 4 × 0.5 + 1 + 1 = 4
            (3.0, 0),  # a second without any lies between
            (3.0, 0),
        ],
    )


def test_two_windows_that_count_refusals_count_them() -> None:
    follow(TwoWindows(1, count_refused=True), [(0.0, 0), (0.0, 1.0), (1.75, 0.25), (3.0, 0)])


def test_bucket_starts_full_and_refills_at_the_rate() -> None:
    follow(
        Bucket(10, count_refused=False, burst=3, now_s=0.0),
        [(0.0, 0), (0.0, 0), (0.0, 0), (0.0, 0.1), (0.05, 0.05), (0.1, 0), (5.0, 0), (5.0, 0), (5.0, 0), (5.0, 0.1)],
    )


def test_bucket_that_counts_refusals_goes_into_debt_down_to_its_burst() -> None:
    follow(
        Bucket(10, count_refused=True, burst=2, now_s=0.0),
        [(0.0, 0), (0.0, 0), (0.0, 0.2), (0.0, 0.3), (0.0, 0.3), (0.3, 0), (0.3, 0.2)],
    )


@pytest.mark.parametrize("kind", ["sliding_second", "fixed_second", "two_windows", "bucket"])
@pytest.mark.parametrize("count_refused", [False, True])
def test_a_limit_of_nothing_refuses_everything(kind: str, count_refused: bool) -> None:
    limit = LaneLimit(counter=kind, count_refused=count_refused)  # type: ignore[arg-type]  # the table's own words
    counter = counter_of(limit, rate=1, now_s=0.0)
    counter.limit = 0
    if kind == "bucket":
        counter.take(0.0)  # the one that it began with
    assert all(counter.take(now_s / 10) > 0 for now_s in range(30))


def test_no_counter_lets_everything_through() -> None:
    counter = counter_of(LaneLimit(counter="off"), rate=1, now_s=0.0)
    assert [counter.take(0.0) for _ in range(1000)] == [0.0] * 1000


@given(
    limit=st.integers(1, 20),
    gaps_ms=st.lists(st.integers(0, 400), max_size=80),
    count_refused=st.booleans(),
)
def test_no_second_of_the_sliding_log_holds_more_than_its_limit(
    limit: int, gaps_ms: list[int], count_refused: bool
) -> None:
    counter = SlidingSecond(limit, count_refused=count_refused)
    now_ms, taken = 0, []
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        if not counter.take(now_ms / 1000):
            taken.append(now_ms)
    for end in taken:
        assert sum(end - 1000 < at <= end for at in taken) <= limit


@given(limit=st.integers(1, 10), gaps_ms=st.lists(st.integers(0, 300), min_size=1, max_size=40))
def test_waiting_as_the_sliding_log_says_is_enough(limit: int, gaps_ms: list[int]) -> None:
    counter = SlidingSecond(limit, count_refused=False)
    now_s = 0.0
    for gap_ms in gaps_ms:
        now_s += gap_ms / 1000
        wait_s = counter.take(now_s)
        if wait_s:
            now_s += wait_s + 1e-9
            assert counter.take(now_s) == 0


def test_a_user_has_one_update_an_interval_and_others_are_no_matter() -> None:
    pace = UserPace(1.0, count_refused=False, now_s=0.0)
    for now_s, user, said in [
        (0.0, "a", 0),
        (0.2, "b", 0),
        (0.5, "a", 0.5),
        (0.999, "a", 0.001),
        (1.0, "a", 0),
        (1.1, "b", 0.1),
        (1.2, "b", 0),
        (1.9, "a", 0.1),
        (2.0, "a", 0),
        (9.0, "b", 0),
    ]:
        assert pace.take(user, now_s) == pytest.approx(said), f"{user} at {now_s} s"


def test_a_refused_update_starts_the_second_anew_where_it_counts() -> None:
    pace = UserPace(1.0, count_refused=True, now_s=0.0)
    assert [pace.take("a", now_s) for now_s in (0.0, 0.6, 1.2, 2.2)] == [0.0, 1.0, 1.0, 0.0]


@given(st.lists(st.tuples(st.integers(0, 700), st.sampled_from("abc")), max_size=60))
def test_no_user_is_let_through_twice_within_the_interval(arrivals: list[tuple[int, str]]) -> None:
    pace = UserPace(1.0, count_refused=False, now_s=0.0)
    now_ms, last_ms = 0, dict.fromkeys("abc", -1000)
    for gap_ms, user in arrivals:
        now_ms += gap_ms
        let_through = pace.take(user, now_ms / 1000) == 0
        assert let_through == (now_ms - last_ms[user] >= 1000)
        if let_through:
            last_ms[user] = now_ms
