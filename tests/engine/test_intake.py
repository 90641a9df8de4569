"""Room in a lane: how much, for whom, in which order, and what cancelling leaves behind."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine import Accepted, AppHeldError, EngineClosedError, Expired, IntakeFullError
from sendengine.engine.intake import Intake
from sendengine.settings import IntakeSettings
from tests.support.engines import (
    CREATE,
    UPDATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_engine,
    note,
    now_s,
    pass_turns,
    settled,
    within,
)
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, json_reply, throttle
from tests.support.virtual_loop import START_S, run_virtually

FOUR = IntakeSettings(max_jobs=4)


def waiter(intake: Intake, size_bytes: int = 1, *, high: bool = False) -> "asyncio.Task[None]":
    return asyncio.create_task(intake.enter(size_bytes, high=high))


def test_normal_jobs_fill_three_quarters_and_high_ones_the_rest() -> None:
    intake = Intake(max_jobs=8, max_bytes=10_000)
    for high, goes_in in [*[(False, True)] * 6, (False, False), (True, True), (True, True), (True, False)]:
        assert intake.try_enter(1, high=high) is goes_in
    assert (intake.jobs, intake.size_bytes) == (8, 8)


def test_bytes_are_bounded_in_the_same_way() -> None:
    intake = Intake(max_jobs=100, max_bytes=800)
    for size_bytes, high, goes_in in [
        (400, False, True),
        (201, False, False),  # 601 of 600
        (200, False, True),
        (1, False, False),
        (200, True, True),
        (1, True, False),
    ]:
        assert intake.try_enter(size_bytes, high=high) is goes_in, size_bytes


def test_high_jobs_may_take_all_of_it_and_one_normal_job_still_goes_first_when_there_is_room() -> None:
    intake = Intake(max_jobs=4, max_bytes=1000)
    for high, goes_in in [*[(True, True)] * 3, (False, True), (False, False), (True, False)]:
        assert intake.try_enter(1, high=high) is goes_in
    intake.leave(1, high=True)
    assert intake.try_enter(1, high=False)


@pytest.mark.parametrize("high", [True, False])
def test_a_job_larger_than_everything_goes_in_alone(*, high: bool) -> None:
    intake = Intake(max_jobs=4, max_bytes=100)
    assert intake.try_enter(5000, high=high)
    assert not intake.try_enter(1, high=True)
    intake.leave(5000, high=high)
    assert (intake.jobs, intake.size_bytes) == (0, 0)


async def test_room_is_given_in_the_order_of_asking() -> None:
    intake = Intake(max_jobs=100, max_bytes=100)
    intake.try_enter(75, high=False)
    large, small = waiter(intake, 75), waiter(intake, 1)
    await pass_turns()
    assert not intake.try_enter(1, high=False)  # it would fit if nobody waited
    intake.leave(75, high=False)
    await pass_turns()
    assert (large.done(), small.done()) == (True, False)
    intake.leave(75, high=False)
    await small
    assert (intake.jobs, intake.size_bytes) == (1, 1)


async def test_normal_ones_that_wait_do_not_keep_high_ones_outside() -> None:
    intake = Intake(max_jobs=4, max_bytes=1000)
    for _ in range(3):
        intake.try_enter(1, high=False)
    normal = waiter(intake)
    await pass_turns()
    assert intake.try_enter(1, high=True)
    high = waiter(intake, high=True)
    await pass_turns()
    intake.leave(1, high=True)
    await pass_turns()
    assert (high.done(), normal.done()) == (True, False)
    intake.leave(1, high=False)
    await normal


async def test_whoever_is_cancelled_outside_takes_nothing_and_lets_a_smaller_one_in() -> None:
    intake = Intake(max_jobs=100, max_bytes=100)
    intake.try_enter(60, high=False)
    large, small = waiter(intake, 70), waiter(intake, 10)
    await pass_turns()
    large.cancel()
    await pass_turns()
    assert large.cancelled()
    assert small.done()
    assert (intake.jobs, intake.size_bytes) == (2, 70)


async def test_a_large_high_one_that_is_cancelled_outside_lets_normal_ones_in() -> None:
    intake = Intake(max_jobs=100, max_bytes=100)
    intake.try_enter(30, high=False)
    large, normal = waiter(intake, 90, high=True), waiter(intake, 10)
    await pass_turns()
    assert (large.done(), normal.done()) == (False, False)
    large.cancel()
    await pass_turns()
    assert normal.done()
    assert (intake.jobs, intake.size_bytes) == (2, 40)


async def test_whoever_is_cancelled_with_room_just_given_hands_it_on() -> None:
    intake = Intake(max_jobs=1, max_bytes=1000)
    intake.try_enter(1, high=False)
    one, other = waiter(intake), waiter(intake)
    await pass_turns()
    intake.leave(1, high=False)  # the room is given to the first, who does not know yet
    one.cancel()
    await other
    assert one.cancelled()
    assert intake.jobs == 1


async def test_those_cancelled_in_the_middle_are_passed_over() -> None:
    intake = Intake(max_jobs=1, max_bytes=1000)
    intake.try_enter(1, high=False)
    waiters = [waiter(intake) for _ in range(5)]
    await pass_turns()
    for index in (1, 2, 3):
        waiters[index].cancel()
    await pass_turns()
    for index in (0, 4):
        intake.leave(1, high=False)
        await waiters[index]
    intake.leave(1, high=False)
    assert (intake.jobs, intake.size_bytes) == (0, 0)


async def test_everybody_outside_can_be_turned_away() -> None:
    intake = Intake(max_jobs=1, max_bytes=1000)
    intake.try_enter(1, high=False)
    waiters = [waiter(intake), waiter(intake, high=True)]
    await pass_turns()
    intake.turn_away(EngineClosedError("closed"))
    assert all(isinstance(error, EngineClosedError) for error in await asyncio.gather(*waiters, return_exceptions=True))
    intake.leave(1, high=False)
    assert intake.jobs == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 120), st.booleans()), max_size=60))
def test_whatever_happens_the_bounds_hold_and_everything_that_went_in_can_leave(
    steps: list[tuple[int, int, bool]],
) -> None:
    async def main() -> None:
        intake = Intake(max_jobs=8, max_bytes=200)
        waiting: list[tuple[asyncio.Task[None], int, bool]] = []
        inside: list[tuple[int, bool]] = []

        async def look() -> None:
            await pass_turns(3)
            inside.extend((size, high) for task, size, high in waiting if task.done() and not task.cancelled())
            waiting[:] = [entry for entry in waiting if not entry[0].done()]
            assert intake.jobs == len(inside) <= 8
            assert intake.size_bytes == sum(size for size, _ in inside)
            assert intake.size_bytes <= 200 or len(inside) == 1
            normal = [size for size, high in inside if not high]
            assert (len(normal) <= 6 and sum(normal) <= 150) or len(normal) == 1

        for action, size_bytes, high in steps:
            if action in {0, 1}:
                waiting.append((waiter(intake, size_bytes, high=high), size_bytes, high))
            elif action == 2 and inside:
                gone_bytes, was_high = inside.pop(size_bytes % len(inside))
                intake.leave(gone_bytes, high=was_high)
            elif action == 3 and waiting:
                waiting[size_bytes % len(waiting)][0].cancel()
            await look()
        while inside:
            size_bytes, high = inside.pop()
            intake.leave(size_bytes, high=high)
            await look()
        assert not waiting
        assert (intake.jobs, intake.size_bytes) == (0, 0)

    asyncio.run(main())


# Through the engine


def test_submit_waits_when_its_lane_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=5.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, intake=FOUR) as engine:
            begin_s = now_s()
            receipts = [await engine.submit(note(f"u{n}", text=str(n))) for n in range(5)]
            assert now_s() >= begin_s + 5  # the first three must have been answered
            assert {type(await settled(receipt)) for receipt in receipts} == {Accepted}
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_bytes_make_submit_wait_too(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=5.0)

    async def main() -> None:
        small = IntakeSettings(max_bytes=2 * 2000)  # of two lanes
        async with make_engine(tmp_path, transport, intake=small) as engine:
            ids = [f"user-with-a-long-name-{n:06}" for n in range(40)]  # more than 1,000 bytes
            await engine.submit(note(*ids, text="one"))
            with pytest.raises(IntakeFullError):
                engine.submit_nowait(note(*ids, text="two"))
            engine.submit_nowait(note("u", text="three", urgency="high"))
            assert isinstance(await engine.send(note(*ids, text="four")), Accepted)

    run_virtually(main())


def test_a_timeout_raises_and_takes_nothing(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=60.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, intake=IntakeSettings(max_jobs=1)) as engine:
            receipt = await engine.submit(note("a"))
            begin_s = now_s()
            with pytest.raises(IntakeFullError, match="2"):
                await engine.submit(note("b"), timeout_s=2)
            assert now_s() == pytest.approx(begin_s + 2)
            with pytest.raises(IntakeFullError):
                engine.submit_nowait(note("c"))
            assert lane_of(engine).intake.jobs == 1
            assert isinstance(await settled(receipt), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.deliveries == {"a": 1}


def test_cancelling_whoever_waits_for_room_takes_nothing(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=60.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, intake=IntakeSettings(max_jobs=1)) as engine:
            await engine.submit(note("a"))
            waiting = asyncio.create_task(engine.submit(note("b")))
            await pass_turns()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert lane_of(engine).intake.jobs == 1
            assert isinstance(await within(engine.send(note("c"))), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.deliveries == {"a": 1, "c": 1}


def test_cancelling_whoever_awaits_a_receipt_cancels_no_send(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            waiting = asyncio.ensure_future(settled(receipt))
            await pass_turns()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())
    assert transport.deliveries == {"a": 1}


@pytest.mark.parametrize("blocked", ["full", "held by a 429"])
def test_a_lane_that_cannot_go_on_does_not_make_another_lanes_submit_wait(tmp_path: Path, blocked: str) -> None:
    def behave(arrival: Arrival) -> Answer:
        return (
            throttle("1000")
            if blocked != "full" and arrival.method == "PATCH" and arrival.at_s < START_S + 10
            else accept(arrival)
        )

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport, intake=FOUR) as engine:
            transport.latency_s = 100.0 if blocked == "full" else 0.1
            updates = [await engine.submit(change(f"u{n}", a=1)) for n in range(3)]
            waiting = asyncio.create_task(engine.submit(change("u3", a=1)))
            await asyncio.sleep(1)
            assert not waiting.done()
            transport.latency_s = 0.1
            begin_s = now_s()
            receipt = await engine.submit(note("a", urgency="high"))
            assert now_s() == begin_s
            assert isinstance(await settled(receipt), Accepted)
            assert now_s() == pytest.approx(begin_s + 0.1)
            for update in [*updates, await within(waiting)]:
                await settled(update)

    run_virtually(main())


def test_a_held_app_turns_away_who_waits_outside_and_another_app_goes_on(tmp_path: Path) -> None:
    bad_key = json_reply(401, {"errors": [{"code": "auth-1", "title": "bad"}]})
    transports = {
        "shop": FakeTransport(lambda _: bad_key),
        "news": FakeTransport(accept),
    }

    async def main() -> None:
        engine = make_engine(tmp_path, transports["shop"], intake=FOUR, others={"news": {"app_id": other_id}})
        engine._open_transport = lambda app, _: transports["news" if app.app_id == other_id else "shop"]
        async with engine:
            waiting = [asyncio.create_task(engine.submit(note(f"u{n}", text=str(n), app="shop"))) for n in range(8)]
            await asyncio.sleep(1)
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert [isinstance(one, AppHeldError) for one in ended] == [False] * 3 + [True] * 5
            assert isinstance(await engine.send(note("a", app="news")), Accepted)
            assert engine.stats().apps["news"].held is None

    other_id = "0f6b0aa6-3b3a-4b5a-9b0a-0d4f3f1f7a11"
    run_virtually(main())


@pytest.mark.parametrize("stop", ["draining", "held"])
def test_room_that_is_given_in_the_moment_of_stopping_admits_nothing(tmp_path: Path, stop: str) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, intake=IntakeSettings(max_jobs=1)) as engine:
            lane = lane_of(engine)
            lane.intake.try_enter(1, high=False)
            waiting = asyncio.create_task(engine.submit(note("b")))
            await pass_turns()
            lane.intake.leave(1, high=False)  # the room is given, and whoever waits does not run yet
            if stop == "draining":
                engine.begin_drain()
            else:
                lane.app.hold("for a test", cause="test")
            (ended,) = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(ended, EngineClosedError if stop == "draining" else AppHeldError)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert not transport.arrivals


def test_the_lanes_are_named_in_what_full_says(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=60.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, intake=IntakeSettings(max_jobs=1)) as engine:
            await engine.submit(note("a"))
            with pytest.raises(IntakeFullError, match=CREATE):
                engine.submit_nowait(note("b"))
            await engine.submit(change("u", a=1))
            with pytest.raises(IntakeFullError, match=UPDATE):
                engine.submit_nowait(change("v", a=1))

    run_virtually(main())


def test_a_deadline_passes_while_its_job_waits_for_room(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=10)

    async def main() -> None:
        async with make_engine(tmp_path, transport, intake=IntakeSettings(max_jobs=1)) as engine:
            first = await engine.submit(note("a"))
            begin_s = now_s()
            receipt = await within(engine.submit(note("b", text="your code", expires_in_s=5)))
            assert now_s() - begin_s == pytest.approx(10, abs=0.1)
            assert isinstance(await settled(first), Accepted)
            assert await settled(receipt) == Expired(("b",))
        assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.deliveries == {"a": 1}
