"""A lane's counts, and its entry in the report."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.telemetry.counters import CAUSES, Cause, LaneCounters


def test_a_lane_that_did_nothing_has_a_full_entry_of_zeros() -> None:
    assert LaneCounters().entry(ceiling=6000) == {
        "ceiling": 6000,
        "requests": 0,
        "replies": {},
        "epochs": 0,
        "peak_1s": 0,
        "mean_rate": 0.0,
        "held_s": 0.0,
        "latency_ms": {"p50": 0.0, "p99": 0.0, "max": 0.0},
        "bound_by": {
            "rate": 0.0, "connections": 0.0, "input": 0.0, "hold": 0.0, "user": 0.0, "guard": 0.0, "journal": 0.0,
        },
    }  # fmt: skip


def test_an_entry_tells_what_happened() -> None:
    counters = LaneCounters()
    for number in range(101):
        counters.sent(now_s=1000 + number / 10)  # 101 requests in ten seconds
    for status, latency_s in [(429, 0.001)] + [(200, 0.1)] * 98 + [(503, 0.4)]:
        counters.replied(status, latency_s=latency_s)
    counters.lost += 1
    counters.epochs += 1
    counters.held_s += 2.0
    counters.saw_peak(11)
    counters.saw_peak(10)
    counters.note("rate", 6)
    counters.note("hold", 2)
    counters.note("input", 2)
    assert counters.throttled == 1
    assert counters.entry(ceiling=1000.0) == {
        "ceiling": 1000.0,
        "requests": 101,
        "replies": {"200": 98, "429": 1, "503": 1},
        "epochs": 1,
        "peak_1s": 11,
        "mean_rate": 10.1,
        "held_s": 2.0,
        "latency_ms": {"p50": 99.84, "p99": 99.84, "max": 400.0},  # 100 ms is in 97 to 98 x 1,024 us
        "bound_by": {
            "rate": 0.6, "connections": 0.0, "input": 0.2, "hold": 0.2, "user": 0.0, "guard": 0.0, "journal": 0.0,
        },
    }  # fmt: skip


def test_an_entry_is_json_in_the_order_of_the_contract() -> None:
    counters = LaneCounters()
    counters.sent(now_s=0)
    counters.replied(429, latency_s=0.05)
    counters.replied(200, latency_s=0.05)
    rendered = orjson.loads(orjson.dumps(counters.entry(ceiling=150)))
    assert list(rendered) == [
        "ceiling", "requests", "replies", "epochs", "peak_1s", "mean_rate", "held_s", "latency_ms", "bound_by",
    ]  # fmt: skip
    assert list(rendered["replies"]) == ["200", "429"]


def test_a_burst_of_less_than_a_second_has_the_rate_of_a_second() -> None:
    counters = LaneCounters()
    for number in range(50):
        counters.sent(now_s=number / 1000)
    assert counters.mean_rate == 50


def test_its_repr_tells_what_it_counted() -> None:
    counters = LaneCounters()
    counters.sent(now_s=0)
    counters.replied(202, latency_s=0.05)
    assert repr(counters) == "<LaneCounters 1 requests, {202: 1}, 0 retries>"


@given(st.lists(st.tuples(st.sampled_from(CAUSES), st.floats(0.001, 1000)), min_size=1))
def test_the_shares_of_all_causes_add_up_to_one(notes: list[tuple[Cause, float]]) -> None:
    counters = LaneCounters()
    for cause, seconds in notes:
        counters.note(cause, seconds)
    shares = counters.bound_by
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 + 1e-9 for share in shares.values())
    assert set(shares) == set(CAUSES)
