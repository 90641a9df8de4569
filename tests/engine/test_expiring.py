"""Thousands of deadlines that pass in one instant: some in each turn of the loop, and what stood behind them goes."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sendengine import Accepted, Expired, Job, Receipt, UpdateUser, external_id
from sendengine.engine.source import AT_ONCE
from tests.support.engines import MOMENT_S, assert_nothing_leaked, change, make_engine, note, now_s, settled
from tests.support.fake_transport import FakeTransport, throttle
from tests.support.virtual_loop import run_virtually

MANY = 40 * AT_ONCE


def one_message(number: int) -> Job:
    return note(f"u{number}", expires_in_s=5)


def many_messages(number: int) -> Job:
    return note(f"u{number}", text=f"Hi {number}", expires_in_s=5)


def one_user(number: int) -> Job:
    return UpdateUser(external_id("u"), {f"t{number % 50}": number}, expires_in_s=5)


def many_users(number: int) -> Job:
    return UpdateUser(external_id(f"u{number}"), {"t": number}, expires_in_s=5)


async def most_in_a_turn(receipts: list[Receipt], *, at_s: float) -> int:
    """Wait for the instant in which all settle, and say how many did in one turn of the loop at the most."""
    while now_s() < at_s:  # noqa: ASYNC110 - float seconds may lose a moment
        await asyncio.sleep(at_s - now_s())
    most = before = 0
    while before < len(receipts):
        assert now_s() < at_s + MOMENT_S
        count = sum(receipt.is_settled for receipt in receipts)
        most, before = max(most, count - before), count
        await asyncio.sleep(0)
    return most


@pytest.mark.parametrize("make", [one_message, many_messages, one_user, many_users])
def test_what_expires_in_one_instant_does_so_over_many_turns(tmp_path: Path, make: Callable[[int], Job]) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            engine.pause()
            late = [engine.submit_nowait(make(number)) for number in range(MANY)]
            behind = [engine.submit_nowait(note("behind")), engine.submit_nowait(change("behind", a=1))]
            assert await most_in_a_turn(late, at_s=now_s() + 5) <= 2 * AT_ONCE, "the timer's, and a worker's"
            assert {type(receipt.outcome) for receipt in late} == {Expired}
            engine.unpause()
            for receipt in behind:
                assert isinstance(await settled(receipt), Accepted)
        assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert len(transport.arrivals) == 2


@pytest.mark.parametrize("make", [one_message, many_messages, many_users])
def test_none_that_is_late_is_sent_where_the_lane_is_open_and_the_others_go_in_the_same_instant(
    tmp_path: Path, make: Callable[[int], Job]
) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            engine.pause()
            late = [engine.submit_nowait(make(number)) for number in range(MANY)]
            behind = [engine.submit_nowait(note("behind")), engine.submit_nowait(change("behind", a=1))]
            asyncio.get_running_loop().call_later(5, engine.unpause)  # before the timer of the deadlines, or behind it
            for receipt in behind:
                assert isinstance(await settled(receipt), Accepted)
            assert {type(await settled(receipt)) for receipt in late} == {Expired}

    run_virtually(main())
    assert len(transport.arrivals) == 2


def test_sealed_requests_that_expire_in_one_instant_do_so_over_many_turns(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: throttle("60"), latency_s=1)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            count = 4 * AT_ONCE
            receipts = [await engine.submit(note(f"u{number}", pack=False, expires_in_s=5)) for number in range(count)]
            assert await most_in_a_turn(receipts, at_s=now_s() + 5) <= 2 * AT_ONCE
            assert len(transport.arrivals) == count
            assert {type(receipt.outcome) for receipt in receipts} == {Expired}
        assert_nothing_leaked(engine, transport)

    run_virtually(main())
