"""The application limit's window: the scenarios of OneSignal's page, and the laws of both readings."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.volume import VolumeWindow, WindowKind, delivery_limit

MINUTE = 60
QUARTER = 900
LIMIT = 9999  # 1,000 subscribed users at a share of 1.0


def allows(kind: WindowKind, *, sends: list[tuple[float, int]]) -> bool:
    """Whether all of ``sends``, instants and deliveries, fit below the limit of 1,000 subscribed users."""
    window = VolumeWindow(kind)
    for now_s, count in sends:
        if window.room(LIMIT, now_s=now_s) < count:
            return False
        window.add(count, now_s=now_s)
    return True


NINE_WITHIN_14_MINUTES = [(minute * MINUTE, 1000) for minute in (0, 1, 3, 5, 7, 9, 11, 13, 14)]


@pytest.mark.parametrize(
    ("sends", "static", "rolling"),
    [
        ([(0, 1000)], True, True),
        ([(number * MINUTE, 1000) for number in range(10)], False, False),
        ([(number * QUARTER / 10_000, 1) for number in range(10_000)], False, False),
        ([*NINE_WITHIN_14_MINUTES, (15 * MINUTE, 1000)], True, False),
        ([*NINE_WITHIN_14_MINUTES, *[(15 * MINUTE, 1000)] * 9], True, False),
    ],
    ids=["1 x 1,000", "10 x 1,000", "10,000 x 1", "9 x 1,000, then 1 x 1,000", "9 x 1,000, then 9 x 1,000"],
)
def test_the_five_scenarios_of_the_rate_limit_page(
    sends: list[tuple[float, int]],
    static: bool,
    rolling: bool,
) -> None:
    assert delivery_limit(subscribed_users=1000, share=1.0) == LIMIT
    assert allows("static", sends=sends) == static
    assert allows("rolling", sends=sends) == rolling


@pytest.mark.parametrize(
    ("subscribed_users", "share", "limit"),
    [(1000, 1.0, 9999), (1000, 0.7, 7000), (1000, 0.42, 4200), (1, 1.0, 9), (3, 0.55, 16), (1, 0.05, 0), (0, 1.0, 0)],
)
def test_the_limit_is_the_share_of_ten_a_user_and_always_below_ten(
    subscribed_users: int, share: float, limit: int
) -> None:
    assert delivery_limit(subscribed_users=subscribed_users, share=share) == limit


def tell(kind: WindowKind, story: list[tuple[float, int, int]]) -> None:
    """Of each step: when, how many are added, and the total then."""
    window = VolumeWindow(kind)
    for at_s, count, total in story:
        if count:
            window.add(count, now_s=at_s)
        assert window.total(now_s=at_s) == total, f"at {at_s} s"


def test_a_rolling_window_over_a_story() -> None:
    tell("rolling", [
        (10_000.0, 40, 40),
        (10_000.9, 2, 42),  # the same second, one block
        (10_300.0, 100, 142),
        (10_904.9, 0, 142),  # fifteen minutes, and five seconds for what was reserved to be delivered
        (10_905.0, 0, 100),
        (11_204.9, 0, 100),
        (11_205.0, 0, 0),
    ])  # fmt: skip


def test_a_static_window_over_a_story() -> None:
    tell("static", [
        (900.0, 40, 40),
        (1794.9, 60, 100),
        (1795.0, 7, 107),  # may be delivered in the next quarter, so it counts in both
        (1799.9, 0, 107),
        (1800.0, 0, 7),
        (2699.9, 0, 7),
        (2700.0, 0, 0),
    ])  # fmt: skip


def test_it_says_when_there_will_be_room() -> None:
    window = VolumeWindow("rolling")
    window.add(60, now_s=1000)
    window.add(30, now_s=1100)
    for wanted, again_s in [(10, 0), (11, 705), (70, 705), (71, 805), (100, 805), (101, inf)]:
        assert window.again_in_s(100, wanted, now_s=1200) == again_s, f"{wanted} wanted"


def test_what_was_not_used_is_given_back_to_its_second() -> None:
    window = VolumeWindow("rolling")
    early = window.add(60, now_s=1000.5)
    window.add(30, now_s=1100)
    window.give_back(20, second=early)
    assert dict(window.blocks) == {1000: 40, 1100: 30}
    window.give_back(500, second=early)
    assert dict(window.blocks) == {1100: 30}
    window.give_back(5, second=999)  # nothing is known of it: what is counted stays
    assert window.total(now_s=1100) == 30


def test_a_clock_that_was_set_back_loses_nothing_and_holds_no_longer_than_a_window() -> None:
    window = VolumeWindow("rolling")
    window.add(60, now_s=90_000)
    assert window.total(now_s=10_000) == 60
    window.add(10, now_s=10_000.5)
    assert window.blocks == ((10_000, 70),)
    assert window.again_in_s(70, 1, now_s=10_000.5) == 904.5
    assert window.total(now_s=10_905) == 0


def test_it_keeps_a_block_a_second_however_much_is_reserved() -> None:
    window = VolumeWindow("rolling")
    for step in range(20_000):
        window.add(1, now_s=step / 10)
    assert len(window.blocks) == 905
    assert window.total(now_s=1999.9) == 9050
    assert repr(window) == "<VolumeWindow rolling, 9050 in 905 s>"


def test_both_readings_start_from_the_same_blocks_in_any_order() -> None:
    blocks = [(1000, 5), (850, 3), (1000, 2)]
    assert VolumeWindow("rolling", blocks=blocks).total(now_s=1000) == 10
    assert VolumeWindow("static", blocks=blocks).total(now_s=1000) == 7
    assert VolumeWindow("static", blocks=blocks).blocks == ((850, 3), (1000, 7))


steps = st.lists(st.tuples(st.floats(0, 400), st.integers(1, 60)), max_size=60)


@pytest.mark.parametrize("kind", ["rolling", "static"])
@given(steps=steps, late_s=st.floats(0, 4))
def test_no_fifteen_minutes_hold_more_than_the_limit_even_where_delivery_is_late(
    kind: WindowKind, steps: list[tuple[float, int]], late_s: float
) -> None:
    window = VolumeWindow(kind)
    now_s, delivered = 0.0, []
    for number, (step_s, wanted) in enumerate(steps):
        now_s += step_s
        granted = min(wanted, window.room(100, now_s=now_s))
        if granted:
            window.add(granted, now_s=now_s)
            delivered.append((now_s + late_s * (number % 2), granted))  # every other one as late as it may be
    for end_s, _ in delivered:
        begin_s = end_s - QUARTER if kind == "rolling" else end_s // QUARTER * QUARTER
        assert sum(count for at_s, count in delivered if begin_s < at_s <= end_s or at_s == end_s) <= 100


@pytest.mark.parametrize("kind", ["rolling", "static"])
@given(steps=steps, wanted=st.integers(1, 100))
def test_waiting_as_told_is_enough_and_any_less_is_not(
    kind: WindowKind, steps: list[tuple[float, int]], wanted: int
) -> None:
    window = VolumeWindow(kind)
    now_s = 0.0
    for step_s, count in steps:
        now_s += step_s
        if granted := min(count, window.room(100, now_s=now_s)):
            window.add(granted, now_s=now_s)
    wait_s = window.again_in_s(100, wanted, now_s=now_s)
    until_s = round(now_s + wait_s, 6)
    assert 0 <= wait_s <= 905
    if wait_s:
        assert window.room(100, now_s=until_s - 0.01) < wanted
    assert window.room(100, now_s=max(now_s, until_s)) >= wanted
