"""The longest pause of a loop, on a loop whose clock the test turns; and that a real loop fits."""

import asyncio
from collections.abc import Callable

from sendengine.telemetry.loop_lag import LoopLag


class Timer:
    def __init__(self, due_at_s: float, callback: Callable[[], None]) -> None:
        self.due_at_s = due_at_s
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class TurnedLoop:
    """Runs timers when `turn` says that its clock has reached an instant, however late that is for them."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        self.timers.append(Timer(self.now_s + delay, callback))
        return self.timers[-1]

    def turn(self, to_s: float) -> None:
        self.now_s = to_s
        due = [timer for timer in self.timers if timer.due_at_s <= to_s + 1e-9]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.is_cancelled:
                timer.callback()


def test_it_keeps_the_longest_pause_that_delayed_its_timer() -> None:
    loop = TurnedLoop()
    lag = LoopLag(loop)
    lag.start()
    for at_s, longest_ms in [
        (100.010, 0),
        (100.020, 0),
        (100.061, 31),  # due at 100.030
        (100.071, 31),
        (100.091, 31),  # ten late
    ]:
        loop.turn(at_s)
        assert round(lag.longest_s * 1000) == longest_ms, f"at {at_s} s"
    assert repr(lag) == "<LoopLag watching, longest 0.031 s>"


def test_time_while_it_is_stopped_is_no_pause_and_no_timer_is_left() -> None:
    loop = TurnedLoop()
    lag = LoopLag(loop)
    lag.start()
    loop.turn(100.010)
    lag.stop()
    lag.stop()
    assert all(timer.is_cancelled for timer in loop.timers)
    loop.turn(500)
    lag.start()
    lag.start()
    assert len(loop.timers) == 1, "starting twice watches once"
    loop.turn(500.012)
    assert round(lag.longest_s, 6) == 0.002
    lag.stop()
    assert repr(lag) == "<LoopLag stopped, longest 0.002 s>"


async def test_a_running_loop_is_such_a_loop_and_is_left_without_timers() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    lag.start()
    await asyncio.sleep(0)
    lag.stop()
    assert lag.longest_s == 0, "its first timer was not due yet"
