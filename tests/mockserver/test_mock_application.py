"""The application limit: the rate-limit page's scenarios, for the window that it had and for the one that it has."""

import pytest

from sendengine.mockserver.application import ApplicationLimit

MINUTE_S = 60.0

SCENARIOS = [  # (what is delivered: (minute, how many, times), trips the static window, trips the rolling one)
    ([(0, 1000, 1)], False, False),
    ([(0, 1000, 10)], True, True),
    ([(0, 1, 10_000)], True, True),
    ([(1, 1000, 9), (15, 1000, 1)], False, True),
    ([(1, 1000, 9), (15, 1000, 9)], False, True),
    ([(1, 1000, 9), (17, 1000, 9)], False, False),
]


@pytest.mark.parametrize(("sends", "static", "rolling"), SCENARIOS)
def test_ten_times_the_subscribed_users_in_fifteen_minutes_are_over(
    sends: list[tuple[int, int, int]], static: bool, rolling: bool
) -> None:
    for window, expected in (("static", static), ("rolling", rolling), ("off", False)):
        limit = ApplicationLimit(window, now_s=0.0)  # type: ignore[arg-type]  # the table's own words
        tripped = False
        for minute, count, times in sends:
            for number in range(times):
                now_s = minute * MINUTE_S + number * 0.01
                tripped |= limit.add(count, subscribed_users=1000, now_s=now_s)
        assert tripped == expected, window


def test_the_most_in_a_window_is_remembered() -> None:
    limit = ApplicationLimit("rolling", now_s=0.0)
    for now_s, count in [(0, 5), (0.0001, 5), (100, 7), (901, 1)]:
        limit.add(count, subscribed_users=10**6, now_s=now_s)
    assert limit.most_seen == 17
