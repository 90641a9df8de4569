"""The wheel: deadlines are noticed within a tick, never early, and one that moves away costs nothing."""

import asyncio
from collections.abc import Callable
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.transport.direct.wheel import TICK_S, Timed, Wheel
from tests.transport.conftest import on_asyncio
from tests.transport.scripted import JumpLoop, jump, turns

LATE_S = TICK_S + 0.01


class Alarm(Timed):
    """Notes when it was called."""

    def __init__(self, wheel: Wheel, due_s: float = inf) -> None:
        super().__init__()
        self.wheel = wheel
        self.rung: list[float] = []
        self.again_s = inf
        self.set(due_s)

    def set(self, due_s: float) -> None:
        self.due_s = due_s
        self.wheel.file(self)

    def expire(self) -> None:
        self.rung.append(asyncio.get_running_loop().time())
        self.set(self.again_s)


async def after(seconds: float) -> None:
    """Put the clock forward and let the loop see it."""
    jump(seconds)
    await asyncio.sleep(0.001)  # the loop's timers, not a wait for anything
    await turns()


@on_asyncio
async def test_a_deadline_is_noticed_within_a_tick_and_not_before() -> None:
    wheel, now_s = Wheel(), asyncio.get_running_loop().time()
    alarm = Alarm(wheel, now_s + 10)
    await after(9.9)
    assert alarm.rung == []
    await after(0.1 + LATE_S)
    assert len(alarm.rung) == 1
    assert alarm.rung[0] >= now_s + 10
    await after(100)
    assert len(alarm.rung) == 1
    wheel.close()


@on_asyncio
async def test_a_deadline_that_moves_away_need_not_be_filed_again() -> None:
    wheel, now_s = Wheel(), asyncio.get_running_loop().time()
    alarm = Alarm(wheel, now_s + 10)
    alarm.due_s = now_s + 60  # and the wheel is not told
    await after(11)
    assert alarm.rung == []
    assert now_s + 60 <= alarm.filed_s < now_s + 60 + LATE_S, "it was looked at, and filed where it belongs"
    await after(49 + LATE_S)
    assert len(alarm.rung) == 1
    wheel.close()


@on_asyncio
async def test_a_deadline_that_comes_nearer_is_filed_anew() -> None:
    wheel, now_s = Wheel(), asyncio.get_running_loop().time()
    alarm = Alarm(wheel, now_s + 60)
    alarm.set(now_s + 5)
    await after(5 + LATE_S)
    assert len(alarm.rung) == 1
    await after(60)
    assert len(alarm.rung) == 1, "it does not lie in its old bucket, too"
    wheel.close()


@on_asyncio
async def test_without_a_deadline_nothing_is_kept() -> None:
    wheel, now_s = Wheel(), asyncio.get_running_loop().time()
    alarm = Alarm(wheel)
    assert alarm.filed_s == inf
    alarm.set(now_s + 1)
    alarm.due_s = inf
    await after(1 + LATE_S)
    assert (alarm.rung, alarm.filed_s) == ([], inf)
    wheel.close()


@on_asyncio
async def test_what_is_forgotten_is_not_called_and_may_be_filed_again() -> None:
    wheel, now_s = Wheel(), asyncio.get_running_loop().time()
    alarms = [Alarm(wheel, now_s + 1) for _ in range(3)]
    wheel.forget(alarms[1])
    wheel.forget(alarms[1])
    await after(1 + LATE_S)
    assert [len(alarm.rung) for alarm in alarms] == [1, 0, 1]
    alarms[1].set(now_s + 2)
    await after(1)
    assert len(alarms[1].rung) == 1
    wheel.close()


@on_asyncio
async def test_a_deadline_may_set_the_next_one() -> None:
    wheel, now_s = Wheel(), asyncio.get_running_loop().time()
    alarm = Alarm(wheel)
    alarm.again_s = now_s + 20
    alarm.set(now_s + 10)
    await after(10 + LATE_S)
    alarm.again_s = inf
    await after(10)
    assert len(alarm.rung) == 2
    wheel.close()


@on_asyncio
async def test_a_closed_wheel_calls_nobody() -> None:
    wheel, now_s = Wheel(), asyncio.get_running_loop().time()
    alarms = [Alarm(wheel, now_s + seconds) for seconds in (1, 2, 2)]
    wheel.close()
    wheel.close()
    assert [alarm.filed_s for alarm in alarms] == [inf, inf, inf]
    await after(5)
    assert [alarm.rung for alarm in alarms] == [[], [], []]


async def test_it_works_on_the_loop_s_own_clock() -> None:
    wheel, loop = Wheel(), asyncio.get_running_loop()
    rung = asyncio.Event()

    class Ringing(Timed):
        def expire(self) -> None:
            rung.set()

    ringing = Ringing()
    ringing.due_s = loop.time() + 0.02
    wheel.file(ringing)
    await rung.wait()
    assert loop.time() >= ringing.due_s
    wheel.close()


moves = st.lists(
    st.tuples(st.sampled_from(["later", "nearer", "forget", "wait"]), st.integers(0, 4), st.floats(0, 7)), max_size=30
)


@settings(deadline=None, max_examples=60)
@given(moves)
def test_none_is_called_before_its_time_and_none_is_forgotten(steps: list[tuple[str, int, float]]) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        wheel = Wheel()
        wanted = [inf] * 5
        too_early: list[float] = []

        class Checked(Timed):
            def __init__(self, number: int) -> None:
                super().__init__()
                self.number = number

            def expire(self) -> None:
                if loop.time() < wanted[self.number]:
                    too_early.append(loop.time())
                wanted[self.number] = self.due_s = inf

        all_ = [Checked(number) for number in range(5)]
        for step, number, seconds in steps:
            one = all_[number]
            if step == "wait":
                await after(seconds)
                assert all(due_s > loop.time() - LATE_S - 0.05 for due_s in wanted), "each was called in time"
            elif step == "forget":
                wheel.forget(one)
                wanted[number] = one.due_s = inf
            else:
                due_s = loop.time() + seconds
                if (step == "later") == (due_s >= one.due_s):
                    one.due_s = wanted[number] = due_s
                    if due_s < one.filed_s:
                        wheel.file(one)
        assert too_early == []
        wheel.close()

    run(play)


def run(play: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=JumpLoop) as runner:
        runner.run(play())  # type: ignore[arg-type]
