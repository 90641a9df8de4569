"""How many requests were sent in the second before one of the last seconds' instants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.sends import SentMeter


def rate(meter: SentMeter, until_s: float, *, since_s: float = 0.0) -> float:
    sent, spell_s = meter.before(until_s, since_s=since_s)
    return sent / spell_s


def steady(*, start_s: float = 0.0, end_s: float = 3.0) -> SentMeter:
    """A hundred requests a second."""
    meter = SentMeter(window_s=1.0)
    for number in range(round((end_s - start_s) * 100)):
        meter.add(1, now_s=start_s + number / 100 + 0.001)
    return meter


@pytest.mark.parametrize(
    ("until_s", "since_s", "expected"),
    [
        (3.0, 0.0, 100.0),
        (2.3, 0.0, 100.0),  # what was sent later is none of it
        (1.234, 0.0, 100.0),
        (3.0, 2.5, 100.0),  # nor is what was sent before
        (3.5, 0.0, 50.0),
        (4.5, 0.0, 0.0),
        (0.5, 0.0, 100.0),  # it began half a second before
        (3.0, 2.99, 20.0),  # a tenth of a second at the least, however short the spell
    ],
)
def test_what_was_sent_is_counted_over_the_second_before(until_s: float, since_s: float, expected: float) -> None:
    assert rate(steady(), until_s, since_s=since_s) == pytest.approx(expected, abs=3)


def test_it_says_in_how_many_seconds() -> None:
    meter = steady(start_s=100.6, end_s=101.0)  # idle before
    assert meter.before(101.0, since_s=0.0) == pytest.approx((40, 0.4), abs=0.01)
    assert meter.before(100.8, since_s=100.7) == pytest.approx((10, 0.1), abs=0.01)
    assert SentMeter(window_s=1.0).before(5.0, since_s=0.0)[0] == 0


def test_seven_seconds_are_remembered_and_of_what_is_older_the_first_of_them() -> None:
    meter = SentMeter(window_s=1.0)
    for second in range(1, 21):
        for slot in range(50):
            meter.add(second, now_s=second + slot / 50 + 0.001)
    assert rate(meter, 14.98) == pytest.approx(14 * 50, rel=0.01)
    assert rate(meter, 2.0) == rate(meter, 14.0)


def test_slow_lanes_have_longer_windows() -> None:
    meter = SentMeter(window_s=20.0)
    for second in range(60):
        meter.add(1, now_s=float(second))
    assert rate(meter, 60.0) == pytest.approx(1.0, rel=0.05)


@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.integers(0, 50)), min_size=1, max_size=200),
    st.floats(0, 4),
)
def test_the_meter_agrees_with_a_plain_list_of_what_was_sent(sends: list[tuple[float, int]], ago_s: float) -> None:
    meter, now_s, log = SentMeter(window_s=1.0), 50.0, []
    for gap_s, count in sends:
        now_s += gap_s
        meter.add(count, now_s=now_s)
        log.append((now_s, count))
    until_s = now_s - ago_s
    certain = sum(count for at_s, count in log if until_s - 0.98 < at_s < until_s - 0.02)
    possible = sum(count for at_s, count in log if until_s - 1.02 <= at_s <= until_s + 0.02)
    sent, spell_s = meter.before(until_s, since_s=0.0)
    assert certain <= sent <= possible
    assert 0.1 - 1e-9 <= spell_s <= 1 + 1e-9
