"""The histogram against sorted lists."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.telemetry.histogram import Histogram


def filled(*seconds: float) -> Histogram:
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    return histogram


def test_an_empty_histogram_has_zero_everywhere() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.max_ms, histogram.percentile_ms(50), histogram.percentile_ms(100)) == (
        0,
        0,
        0,
        0,
    )


def test_percentiles_of_a_hundred_times_are_their_ranks() -> None:
    histogram = filled(*[number / 1000 for number in range(1, 101)])  # 1 ms to 100 ms
    assert histogram.count == 100
    assert histogram.max_ms == 100
    for percent, expected_ms in [(1, 1), (50, 50), (50.5, 51), (99, 99), (99.9, 100), (100, 100)]:
        assert histogram.percentile_ms(percent) == pytest.approx(expected_ms, rel=0.008), f"p{percent}"


def test_a_percentile_that_is_a_whole_rank_is_that_rank() -> None:
    histogram = filled(*[0.001] * 999, 5.0)
    assert histogram.percentile_ms(99.9) == pytest.approx(1, rel=0.008)
    assert histogram.percentile_ms(99.91) == pytest.approx(5000, rel=0.008)


def test_it_takes_no_time_and_very_long_times() -> None:
    assert filled(0.0).percentile_ms(50) == 0
    histogram = filled(0.0, 67.2, 3600.0, 1e9)
    assert histogram.count == 4
    assert histogram.max_ms == 1e12
    assert histogram.percentile_ms(50) == pytest.approx(67_200, rel=0.008)
    assert histogram.percentile_ms(75) == pytest.approx(3_600_000, rel=0.008)
    assert histogram.percentile_ms(100) == pytest.approx(68_719_476, rel=0.008), "nineteen hours stand for all beyond"


def test_its_memory_does_not_grow_with_what_it_counts() -> None:
    empty, full = Histogram(), filled(*[number / 777 for number in range(50_000)])
    assert len(full.counts) == len(empty.counts) < 2500


def test_its_repr_tells_what_it_holds() -> None:
    assert repr(filled(0.1, 0.1, 0.2)) == "<Histogram 3 times, p50 99.840 ms, max 200.000 ms>"  # 97 to 98 x 1,024 us


times = st.lists(st.floats(0, 200), min_size=1, max_size=200)


@given(times, st.sampled_from([1, 25, 50, 90, 99, 99.9, 100]))
def test_every_percentile_is_within_a_bucket_of_the_sorted_list(seconds: list[float], percent: float) -> None:
    histogram = filled(*seconds)
    exact_ms = sorted(seconds)[max(1, ceil(round(len(seconds) * percent / 100, 6))) - 1] * 1000
    assert histogram.percentile_ms(percent) == pytest.approx(exact_ms, rel=0.008, abs=0.001)
    assert histogram.max_ms == pytest.approx(max(seconds) * 1000)


@given(st.lists(st.floats(0, 200)), st.lists(st.floats(0, 200)))
def test_merging_is_the_same_as_recording_everything_in_one(mine: list[float], theirs: list[float]) -> None:
    merged, other = filled(*mine), filled(*theirs)
    merged.merge(other)
    assert merged.counts == filled(*mine, *theirs).counts
    assert merged.max_ms == pytest.approx(filled(*mine, *theirs).max_ms)
    assert other.count == len(theirs), "what was merged is left as it was"


@given(st.integers(0, 2**36 - 1))
def test_a_longer_time_never_falls_into_an_earlier_bucket(time_us: int) -> None:
    shorter, longer = filled(time_us / 1e6), filled((time_us + 2) / 1e6)
    assert shorter.counts.index(1) <= longer.counts.index(1)
