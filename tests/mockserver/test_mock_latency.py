"""Latency and the timer wheel."""

from collections.abc import Callable

import pytest

from sendengine.mockserver.latency import Latency, TimerWheel


class FakeClock:
    """Remembers timers, and runs them when the test turns the clock."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []

    def call_at(self, when_s: float, callback: Callable[[int], None], slot: int) -> "FakeTimer":
        self.timers.append(FakeTimer(self, when_s, callback, slot))
        return self.timers[-1]

    def turn_to(self, now_s: float) -> None:
        due = [timer for timer in self.timers if timer.when_s <= now_s]
        self.timers = [timer for timer in self.timers if timer.when_s > now_s]
        for timer in sorted(due, key=lambda timer: timer.when_s):
            timer.callback(timer.slot)


class FakeTimer:
    def __init__(self, clock: FakeClock, when_s: float, callback: Callable[[int], None], slot: int) -> None:
        self.clock, self.when_s, self.callback, self.slot = clock, when_s, callback, slot

    def cancel(self) -> None:
        self.clock.timers.remove(self)


def test_a_constant_latency_is_constant() -> None:
    latency = Latency(median_ms=100, p99_ms=0, seed=1)
    assert {latency.draw() for _ in range(100)} == {0.1}


def test_a_lognormal_latency_has_its_median_and_its_99th_percentile() -> None:
    latency = Latency(median_ms=300, p99_ms=2000, seed=1)
    drawn = sorted(latency.draw() for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.3, rel=0.05)
    assert drawn[19_800] == pytest.approx(2.0, rel=0.1)


def test_latency_is_seeded() -> None:
    first, same, other = (Latency(median_ms=1, p99_ms=2, seed=seed) for seed in (1, 1, 2))
    assert first.draw() == same.draw() != other.draw()


def test_the_wheel_fires_in_order_with_one_timer_a_millisecond() -> None:
    clock, fired = FakeClock(), list[str]()
    wheel = TimerWheel(fired.append, call_at=clock.call_at)
    for name, due_s in [("a", 0.0101), ("b", 0.0109), ("c", 0.0050), ("d", 0.0111), ("e", 0.0105)]:
        wheel.add(name, due_s=due_s)
    assert len(clock.timers) == 3  # 5 ms, 11 ms, 12 ms
    clock.turn_to(0.0049)
    assert fired == []
    clock.turn_to(0.011)
    assert fired == ["c", "a", "b", "e"]
    clock.turn_to(1.0)
    assert fired == ["c", "a", "b", "e", "d"]


def test_a_stopped_wheel_fires_nothing() -> None:
    clock, fired = FakeClock(), list[str]()
    wheel = TimerWheel(fired.append, call_at=clock.call_at)
    wheel.add("a", due_s=1.0)
    wheel.stop()
    assert clock.timers == []
    clock.turn_to(2.0)
    assert fired == []
