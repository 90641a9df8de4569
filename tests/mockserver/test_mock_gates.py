"""Gates: schedules, another client on the same limit, and the block after a 429."""

import pytest

from sendengine.mockserver.config import LaneLimit, MockConfig
from sendengine.mockserver.gates import Block, Gate


def accepted(gate: Gate, *, from_s: float, rate: float, seconds: float) -> int:
    """How many of evenly spaced requests the gate lets through."""
    return sum(gate.take(from_s + n / rate) == 0 for n in range(round(rate * seconds)))


def test_a_gate_has_the_documented_rate_unless_the_settings_have_another() -> None:
    assert Gate(LaneLimit(), documented=6000, now_s=0.0).rate == 6000
    assert Gate(LaneLimit(rate=4000), documented=6000, now_s=0.0).rate == 4000


def test_a_schedule_changes_what_is_really_there() -> None:
    limit = LaneLimit(rate=100, counter="fixed_second", schedule=((10, 0.5), (20, 1.0), (30, 0.0)))
    gate = Gate(limit, documented=6000, now_s=5.0)  # the schedule counts from here
    for from_s, expected in [(5, 100), (14, 100), (15, 50), (24, 50), (25, 100), (34, 100), (35, 0)]:
        assert accepted(gate, from_s=from_s, rate=200, seconds=1) == expected, f"from {from_s} s"


def test_another_client_takes_its_share_through_the_same_counter() -> None:
    gate = Gate(LaneLimit(rate=100, counter="fixed_second", foreign_rate=25), documented=100, now_s=0.0)
    taken = [accepted(gate, from_s=second, rate=70, seconds=1) for second in range(5)]
    assert taken == [70] * 5
    assert gate.foreign_taken == gate.foreign_offered == pytest.approx(125, abs=1)


def test_who_asks_for_more_than_the_other_client_leaves_is_refused_and_refuses_it() -> None:
    gate = Gate(LaneLimit(rate=100, counter="fixed_second", foreign_rate=50), documented=100, now_s=0.0)
    ours = sum(accepted(gate, from_s=second, rate=150, seconds=1) for second in range(10))
    assert ours + gate.foreign_taken == pytest.approx(1000, abs=5)
    assert ours == pytest.approx(750, abs=25)  # three of four requests are ours
    assert gate.foreign_taken < gate.foreign_offered


def test_the_other_clients_share_may_change_with_time() -> None:
    limit = LaneLimit(rate=100, counter="fixed_second", foreign_schedule=((0, 0.2), (2, 0.8), (4, 0.0)))
    gate = Gate(limit, documented=100, now_s=0.0)
    offered = []
    for second in range(6):
        before = gate.foreign_offered
        accepted(gate, from_s=second, rate=100, seconds=1)
        offered.append(gate.foreign_offered - before)
    assert offered == [pytest.approx(n, abs=2) for n in (20, 20, 80, 80, 0, 0)]


def test_the_other_client_is_not_made_up_for_hours_of_silence() -> None:
    gate = Gate(LaneLimit(rate=100, foreign_rate=50), documented=100, now_s=0.0)
    gate.take(3600.0)
    assert gate.foreign_offered <= 101  # the last two seconds


@pytest.mark.parametrize(
    ("mode", "length_s", "left"),
    [
        ("none", None, [0, 0, 0]),
        ("hold", None, [1.5, 0.5, 0]),
        ("prolong", None, [2, 2, 1]),
        ("hold", 10.0, [9.5, 8.5, 7.5]),
    ],
)
def test_a_block_lasts_as_announced_and_calling_prolongs_it_where_it_does(
    mode: str, length_s: float | None, left: list[float]
) -> None:
    block = Block(MockConfig(block=mode, block_s=length_s))  # type: ignore[arg-type]  # the table's own words
    block.refused(2.0, now_s=10.0)
    found = []
    for now_s in (10.5, 11.5, 12.5):
        if now_s < 12 and block.left(now_s):
            block.refused(2.0, now_s=now_s)
        found.append(block.left(now_s))
    assert found == left
