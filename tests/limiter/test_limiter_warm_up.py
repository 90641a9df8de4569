"""A lane whose connections are yet to be opened begins below its safe rate, and is soon there."""

import asyncio
from collections.abc import Sequence

import pytest

from sendengine.core.bound import safe_rate
from sendengine.limiter import Limiter
from tests.limiter.permit_takers import contended
from tests.support.virtual_loop import run_virtually


def between(instants: Sequence[float], from_s: float, to_s: float) -> int:
    """Count the instants of a stretch, which is told from the first of them on."""
    return sum(1 for instant in instants if from_s <= instant - instants[0] < to_s)


def test_what_goes_out_while_connections_are_opened_leaves_room_in_its_second() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=6000, warms_up=True)
        async with contended(limiter) as instants:
            await asyncio.sleep(0.1)
            assert limiter.rate < 0.9 * safe_rate(6000)
            await asyncio.sleep(2)
            assert limiter.rate == safe_rate(6000)
        assert between(instants, 0, 1) == pytest.approx(0.97 * safe_rate(6000) + 25, abs=15)  # 25 are the bucketful
        assert between(instants, 0.05, 1.05) <= 6000 - 0.02 * safe_rate(6000)  # 21 ms of room
        assert between(instants, 0.3, 1.3) == pytest.approx(safe_rate(6000), abs=15)

    run_virtually(main())


@pytest.mark.parametrize(("idle_s", "begins_anew"), [(1, False), (4.9, False), (5.1, True), (600, True)])
def test_connections_are_cold_again_when_nobody_has_waited_for_five_seconds(idle_s: float, begins_anew: bool) -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000, warms_up=True)
        for is_first in (True, False):
            waiters = [asyncio.create_task(limiter.permit()) for _ in range(500)]
            await asyncio.sleep(0.05)
            assert (limiter.rate < safe_rate(1000)) is (is_first or begins_anew)
            await asyncio.gather(*waiters)
            await asyncio.sleep(idle_s)

    run_virtually(main())


def test_the_rate_is_the_whole_one_again_though_nobody_waits_any_more() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000, warms_up=True)
        await asyncio.gather(*(limiter.permit() for _ in range(30)))
        assert limiter.rate < safe_rate(1000)
        await asyncio.sleep(1)
        assert limiter.rate == safe_rate(1000)

    run_virtually(main())


def test_a_lone_job_goes_at_once_all_the_same() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=150, warms_up=True)
        assert limiter.try_permit()
        assert limiter.rate == safe_rate(150)

    run_virtually(main())


def test_a_lower_rate_that_was_asked_for_is_kept() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000, warms_up=True)
        limiter.set_rate(500)
        async with contended(limiter):
            for _ in range(10):
                await asyncio.sleep(0.05)
                assert limiter.rate == 500

    run_virtually(main())


def test_what_is_over_before_the_second_permit_is_left_out() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=3, warms_up=True)
        async with contended(limiter) as instants:
            await asyncio.sleep(0.5)
        assert instants[1] - instants[0] <= 1 / safe_rate(3)

    run_virtually(main())
