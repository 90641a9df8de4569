"""In no second more than the ceiling, and almost all of it."""

import asyncio
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.core.bound import safe_rate
from sendengine.limiter import Limiter
from tests.limiter.permit_takers import contended, most_in_one_second, stall
from tests.support.virtual_loop import run_virtually


@pytest.mark.parametrize(
    ("ceiling", "at_most"),
    [
        (1, 1),
        (2, 2),
        (3, 3),
        (10, 10),
        (37.5, 37),
        (99.99, 99),
        (150, 150),
        (1000, 1000),
        (6000, 6000),
        (10_000, 10_000),
    ],
)
def test_no_second_holds_more_than_the_ceiling_and_99_of_100_are_used(ceiling: float, at_most: int) -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=ceiling)
        seconds = 3 if ceiling > 1000 else 12
        async with contended(limiter) as instants:
            await asyncio.sleep(1)  # the first bucketful is no part of the steady state
            before = len(instants)
            await asyncio.sleep(seconds)
            used = (len(instants) - before) / seconds
        assert most_in_one_second(instants) <= at_most
        assert limiter.most_in_one_second <= at_most
        assert limiter.granted == len(instants)
        if ceiling >= 10:
            assert used >= 0.99 * at_most

    run_virtually(main())


def test_a_ceiling_of_one_is_one_permit_each_1054_ms() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1)
        async with contended(limiter, workers=3) as instants:
            await asyncio.sleep(60)
        gaps = [later - earlier for earlier, later in pairwise(instants)]
        assert min(gaps) >= 1.05 - 1e-9  # J is 50 ms, and instants are floats; the first gap is 4 ms shorter
        assert max(gaps) <= 1.0551

    run_virtually(main())


def test_a_ceiling_below_one_is_one_permit_in_its_interval() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=0.25)
        async with contended(limiter, workers=3) as instants:
            await asyncio.sleep(60)
        assert len(instants) == 15
        assert min(later - earlier for earlier, later in pairwise(instants)) >= 4

    run_virtually(main())


@pytest.mark.parametrize("ceiling", [5, 60, 1000, 6000])
@pytest.mark.parametrize("seed", [1, 2])
def test_stalls_of_the_loop_and_changes_of_rate_let_no_more_through(ceiling: float, seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        limiter = Limiter(ceiling=ceiling)
        async with contended(limiter) as instants:
            for _ in range(150):
                await asyncio.sleep(chance.choice([0.001, 0.01, 0.05]))
                stall(chance.choice([0, 0, 0.003, 0.01, 0.03, 0.2]))
                if chance.random() < 0.3:
                    limiter.set_rate(chance.choice([0.1, 0.5, 0.9, 0.99, 1, 2]) * ceiling)
        assert most_in_one_second(instants) <= ceiling
        assert limiter.most_in_one_second <= ceiling

    run_virtually(main())


actions = st.lists(
    st.tuples(
        st.sampled_from(["sleep", "stall", "rate", "close", "open"]),
        st.floats(0, 1),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1.0, 2.5, 20.0, 300.0]), st.booleans(), actions)
def test_whatever_happens_no_second_holds_more_than_the_ceiling(
    ceiling: float, warms_up: bool, actions: list[tuple[str, float]]
) -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=ceiling, warms_up=warms_up)
        async with contended(limiter, workers=5) as instants:
            for name, amount in actions:
                match name:
                    case "sleep":
                        await asyncio.sleep(amount)
                    case "stall":
                        stall(amount / 10)
                    case "rate":
                        limiter.set_rate(2 * amount * ceiling)
                    case "close":
                        limiter.close_gate()
                    case _:
                        limiter.open_gate(rate=2 * amount * ceiling)
        assert most_in_one_second(instants) <= ceiling

    run_virtually(main())


def test_a_pause_of_the_loop_of_four_milliseconds_costs_nothing() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=6000)
        async with contended(limiter) as instants:
            for _ in range(100):
                await asyncio.sleep(0.02)
                stall(0.002)  # a tick is under way or about to be: four in all
            used = len(instants) / (100 * 0.022)
        assert used >= 0.99 * 6000

    run_virtually(main())


def test_on_a_loop_that_is_often_away_it_allows_for_longer_pauses_and_goes_back_when_they_end() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=6000)
        async with contended(limiter) as instants:
            for _ in range(300):
                await asyncio.sleep(0.01)
                stall(0.007)
            count_before = len(instants)
            assert limiter.rate < safe_rate(6000)
            for _ in range(100):
                await asyncio.sleep(0.01)
                stall(0.007)
            assert (len(instants) - count_before) / 1.7 >= 0.975 * 6000
            await asyncio.sleep(12)
            assert limiter.rate == safe_rate(6000)
        assert most_in_one_second(instants) <= 6000

    run_virtually(main())


def test_nothing_ticks_while_nobody_waits() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=6000)
        await limiter.permit()
        loop = asyncio.get_running_loop()
        assert not loop._scheduled  # type: ignore[attr-defined]  # there is no public way to see timers
        assert limiter.try_permit()
        await limiter.aclose()

    run_virtually(main())


def test_an_unusable_ceiling_is_refused() -> None:
    for ceiling in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            Limiter(ceiling=ceiling)
