"""Pausing and slowing down from outside, with holds and limits of OneSignal's in between."""

import asyncio
from collections.abc import Sequence
from math import nan
from pathlib import Path

import pytest

from sendengine import Accepted, SendEngine
from sendengine.settings import CeilingSettings, StoppingSettings
from tests.support.engines import (
    CREATE,
    UPDATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_engine,
    note,
    settled,
    until,
)
from tests.support.events import listening
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport, first, throttle
from tests.support.journalled import assert_nothing_left, durable
from tests.support.virtual_loop import run_virtually

SLOW = {"ceilings": CeilingSettings(create_notification=50, update_user=50)}
LONG = StoppingSettings(drain_timeout_s=1000)


async def fill(engine: SendEngine, count: int) -> None:
    for number in range(count):
        await engine.submit(note("a", text=str(number), pack=False))
        await engine.submit(change(f"u{number}", a=1))


def rate_between(transport: FakeTransport, begin_s: float, end_s: float, *, method: str = "POST") -> float:
    """Requests a second from one instant to another, in seconds since the loop began."""
    times = [arrival.at_s - 1000 for arrival in transport.arrivals if arrival.method == method]
    return sum(begin_s <= at_s < end_s for at_s in times) / (end_s - begin_s)


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_paused_engine_takes_jobs_and_puts_nothing_new_on_the_wire(tmp_path: Path, is_durable: bool) -> None:
    disk, transport = Disk(), FakeTransport(latency_s=1)

    async def main() -> None:
        journal = FakeJournal(disk) if is_durable else None
        async with durable(tmp_path, transport, journal, app=SLOW, stopping=LONG) as engine:
            await fill(engine, 100)
            await asyncio.sleep(1)
            engine.pause()
            engine.pause()
            count = len(transport.arrivals)
            on_the_wire = transport.under_way
            assert on_the_wire > 20
            late = await engine.submit(note("late", urgency="high"))
            await asyncio.sleep(60)
            assert len(transport.arrivals) == count
            assert transport.under_way == 0
            assert not late.is_settled
            lane = engine.stats().lanes[CREATE]
            assert (lane.rate, lane.hold, lane.hold_until_s) == (0, "paused", None)
            engine.unpause()
            engine.unpause()
            assert isinstance(await settled(late), Accepted)
        assert_nothing_left(engine, transport, disk)

    with listening() as events:
        run_virtually(main())
    assert len(transport.arrivals) == 201
    assert transport.most_in_one_second <= 100
    assert events.names.count("paused") == 2


@pytest.mark.parametrize(("pause_s", "unpause_s"), [(2.0, 5.0), (2.0, 50.0), (0.02, 5.0), (0.02, 50.0)])
def test_a_pause_and_a_hold_must_both_be_over(tmp_path: Path, pause_s: float, unpause_s: float) -> None:
    transport = first([throttle("30")])  # the hold is from 0.1 s to 30.1 s

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=LONG) as engine:
            engine.submit_nowait(note("a"))
            await asyncio.sleep(pause_s)
            engine.pause()
            for number in range(20):
                engine.submit_nowait(note("a", text=str(number)))
            await asyncio.sleep(unpause_s - pause_s)
            engine.unpause()
        assert_nothing_leaked(engine, transport)

    run_virtually(main())
    again = [arrival.at_s - 1000 for arrival in transport.arrivals][1:]
    assert len(again) == 21
    assert max(30.1, unpause_s) <= again[0] <= max(30.1, unpause_s) + 1.1  # it opens at one a second, and climbs


def test_requests_that_were_taken_when_the_pause_began_come_back_in_order(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=LONG) as engine:
            for number in range(60):
                engine.submit_nowait(note("a", text=str(number), pack=False))
            for _ in range(20):
                await asyncio.sleep(0.05)
                engine.pause()
                await asyncio.sleep(0.05)
                engine.unpause()
        assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.texts == [str(number) for number in range(60)]
    assert transport.most_in_one_second <= 50


def test_pausing_again_and_again_never_grants_a_burst(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=LONG) as engine:
            for number in range(200):
                engine.submit_nowait(note("a", text=str(number), pack=False))
            while not lane_of(engine).books.is_settled:
                await asyncio.sleep(0.05)
                engine.pause()
                engine.unpause()
        assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.most_in_one_second <= 50


@pytest.mark.parametrize(("limits", "rates"), [
    ([10.0, None], [10, 49]),
    ([10.0, 20.0], [10, 20]),
    ([500.0, 10.0], [49, 10]),  # never above the ceiling
])  # fmt: skip
def test_a_limit_holds_for_each_lane_until_another_is_set(
    tmp_path: Path, limits: Sequence[float | None], rates: Sequence[float]
) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=LONG) as engine:
            engine.limit_rate(limits[0])
            await fill(engine, 1000)
            await asyncio.sleep(10)
            assert engine.stats().lanes[UPDATE].rate == pytest.approx(rates[0], abs=2)
            engine.limit_rate(limits[1])
            await asyncio.sleep(10)
            await engine.abort()

    run_virtually(main())
    for method in ("POST", "PATCH"):
        assert rate_between(transport, 1, 10, method=method) == pytest.approx(rates[0], abs=2)
        assert rate_between(transport, 11, 20, method=method) == pytest.approx(rates[1], abs=2)
    assert transport.most_in_one_second <= 100


@pytest.mark.parametrize("rate", [0, -1.0, nan])
def test_a_limit_that_is_no_rate_is_refused_and_changes_nothing(tmp_path: Path, rate: float) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=LONG) as engine:
            engine.limit_rate(10)
            with pytest.raises(ValueError, match="above 0"):
                engine.limit_rate(rate)
            engine.pause()
            engine.unpause()
            await fill(engine, 200)
            await asyncio.sleep(10)
            await engine.abort()

    run_virtually(main())
    assert rate_between(transport, 1, 10) == pytest.approx(10, abs=2)


def test_a_limit_outlasts_holds_pauses_and_what_is_learned(tmp_path: Path) -> None:
    transport = first([throttle("3")])

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=LONG) as engine:
            engine.limit_rate(5)
            await fill(engine, 300)
            await asyncio.sleep(10)
            engine.pause()
            await asyncio.sleep(5)
            engine.unpause()
            await asyncio.sleep(10)
            engine.limit_rate(None)
            await until(lambda: lane_of(engine).books.is_settled)

    run_virtually(main())
    assert rate_between(transport, 4, 10) == pytest.approx(5, abs=1)
    assert rate_between(transport, 10, 15) <= 0.5
    assert rate_between(transport, 16, 25) == pytest.approx(5, abs=1)
    assert rate_between(transport, 27, 30) > 10


def test_a_limit_that_is_set_while_paused_holds_from_the_first_request_on(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=LONG) as engine:
            engine.pause()
            await fill(engine, 100)
            engine.limit_rate(4)
            await asyncio.sleep(1)
            assert not transport.arrivals
            engine.unpause()
            await asyncio.sleep(10)
            await engine.abort()

    run_virtually(main())
    assert rate_between(transport, 1, 11) == pytest.approx(4, abs=1)


def test_a_paused_engine_can_be_stopped(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(
            tmp_path, transport, FakeJournal(disk), stopping=StoppingSettings(drain_timeout_s=3)
        ) as engine:
            engine.pause()
            await fill(engine, 5)
        assert_nothing_leaked(engine, transport)
        engine.unpause()  # too late, and harmless
        assert not transport.arrivals
        assert len(disk.jobs) == 10
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            pass
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len(transport.arrivals) == 10
