"""Who gets a permit, when, and what cancelling, closing and changing the rate do."""

import asyncio
import gc

import pytest

from sendengine.core.bound import safe_rate
from sendengine.limiter import GateClosedError, Limiter
from tests.limiter.permit_takers import contended, virtual_loop
from tests.support.virtual_loop import run_virtually


def drain(limiter: Limiter) -> None:
    while limiter.try_permit():
        pass


async def settle() -> None:
    """Let everything that is ready run; no time passes."""
    for _ in range(5):
        await asyncio.sleep(0)


def grant_one(limiter: Limiter) -> None:
    """Let the pacer find one permit now; only from inside can one act before the waiter has woken."""
    limiter._stop_timer()
    virtual_loop().now_s += 1.01 / limiter.rate
    limiter._tick()


def test_a_lone_job_on_an_idle_lane_goes_at_once() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1)
        before_s = virtual_loop().time()
        await limiter.permit()
        assert virtual_loop().time() == before_s
        assert limiter.granted == 1

    run_virtually(main())


def test_the_next_one_goes_in_the_millisecond_in_which_its_permit_is_there() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=100)  # one in 10.09 ms
        limiter.close_gate()
        limiter.open_gate(rate=100)
        begun_s = virtual_loop().time()
        instants_ms = []
        for _ in range(4):
            await limiter.permit()
            instants_ms.append(round((virtual_loop().time() - begun_s) * 1000, 3))
        assert instants_ms == [11, 21, 31, 41]

    run_virtually(main())


def test_a_gate_that_closes_leaves_nothing_to_the_collector() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1)
        await limiter.permit()
        waiters = [asyncio.create_task(limiter.permit()) for _ in range(100)]
        await settle()
        gc.collect()
        limiter.close_gate()
        for waiter in waiters:
            with pytest.raises(GateClosedError):
                await waiter
        waiters.clear()
        del waiter
        await settle()
        assert gc.collect() < 100  # several for each of them before

    run_virtually(main())


def test_nobody_is_overtaken() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000)
        drain(limiter)
        served: list[int] = []

        async def wait(number: int) -> None:
            await limiter.permit()
            served.append(number)

        tasks = [asyncio.create_task(wait(number)) for number in range(50)]
        await settle()
        assert limiter.waiting == 50
        assert not limiter.try_permit()
        await asyncio.gather(*tasks)
        assert served == list(range(50))
        assert limiter.waiting == 0

    run_virtually(main())


def test_high_ones_go_first_and_normal_ones_keep_a_tenth() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000)
        drain(limiter)
        served: list[str] = []

        async def wait(name: str, *, high: bool) -> None:
            await limiter.permit(high=high)
            served.append(name)

        tasks = [asyncio.create_task(wait(f"n{number}", high=False)) for number in range(10)]
        await settle()
        tasks += [asyncio.create_task(wait(f"h{number}", high=True)) for number in range(30)]
        await asyncio.gather(*tasks)
        assert served[:10] == [*(f"h{number}" for number in range(9)), "n0"]
        assert served[10:20] == [*(f"h{number}" for number in range(9, 18)), "n1"]
        assert served[33:] == [f"n{number}" for number in range(3, 10)]

    run_virtually(main())


@pytest.mark.parametrize("is_high", [True, False])
def test_a_cancelled_waiter_costs_nobody_a_permit(is_high: bool) -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000)
        drain(limiter)
        granted_before = limiter.granted
        waiters = [asyncio.create_task(limiter.permit(high=is_high)) for _ in range(10)]
        await settle()
        for waiter in waiters[:7]:
            waiter.cancel()
        await settle()
        assert limiter.waiting == 3
        await asyncio.gather(*waiters[7:])
        assert limiter.granted - granted_before == 3
        assert limiter.waiting == 0

    run_virtually(main())


def test_cancelling_in_the_very_turn_of_the_grant_hands_it_on() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=100)
        drain(limiter)
        first, second = (asyncio.create_task(limiter.permit()) for _ in range(2))
        await settle()
        before = limiter.granted
        grant_one(limiter)
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done()
        assert not second.cancelled()
        assert limiter.granted == before + 1
        assert limiter.waiting == 0

    run_virtually(main())


def test_cancelling_everybody_leaves_nothing_behind() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000)
        drain(limiter)
        waiters = [asyncio.create_task(limiter.permit()) for _ in range(20)]
        await settle()
        for waiter in waiters:
            waiter.cancel()
        await asyncio.sleep(1)
        assert limiter.waiting == 0
        assert limiter.try_permit()

    run_virtually(main())


def test_closing_sends_everybody_away() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000)
        drain(limiter)
        waiters = [asyncio.create_task(limiter.permit(high=number % 2 == 0)) for number in range(6)]
        await settle()
        limiter.close_gate()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(result, GateClosedError) for result in results)
        assert (limiter.waiting, limiter.rate) == (0, 0.0)
        assert not limiter.try_permit()
        with pytest.raises(GateClosedError):
            await limiter.permit()

    run_virtually(main())


def test_a_permit_granted_in_the_turn_in_which_the_gate_closes_is_not_used() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=100)
        drain(limiter)
        task = asyncio.create_task(limiter.permit())
        await settle()
        grant_one(limiter)
        limiter.close_gate()
        with pytest.raises(GateClosedError):
            await task

    run_virtually(main())


def test_a_gate_that_closed_and_opened_again_in_between_is_a_closed_gate_to_those_who_waited() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=100)
        drain(limiter)
        cancelled, other = (asyncio.create_task(limiter.permit()) for _ in range(2))
        await settle()
        cancelled.cancel()
        limiter.close_gate()
        limiter.open_gate(rate=100)
        results = await asyncio.gather(cancelled, other, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert isinstance(results[1], GateClosedError)
        assert limiter.waiting == 0

    run_virtually(main())


def test_no_permits_accrue_while_the_gate_is_closed_and_it_opens_with_none() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000)
        limiter.close_gate()
        await asyncio.sleep(10)
        limiter.open_gate(rate=400)  # one in 2.5 ms
        assert limiter.rate == 400
        assert not limiter.try_permit()
        before_s = virtual_loop().time()
        await limiter.permit()
        assert virtual_loop().time() - before_s == pytest.approx(0.003)

    run_virtually(main())


def test_a_new_rate_grants_no_burst() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=6000)
        await asyncio.sleep(1)  # the bucket is full
        limiter.set_rate(3000)
        assert not limiter.try_permit()
        assert limiter.rate == 3000

    run_virtually(main())


def test_a_rate_that_changes_all_the_time_starves_nobody() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=10)
        async with contended(limiter, workers=2) as instants:
            for step in range(1000):
                limiter.set_rate(5 + step % 2 / 100)
                await asyncio.sleep(0.01)
        assert len(instants) >= 0.97 * 50  # 5/s for 10 s

    run_virtually(main())


def test_a_faster_rate_is_felt_at_once_by_those_who_wait() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1000)
        limiter.open_gate(rate=0.1)
        task = asyncio.create_task(limiter.permit())
        await settle()
        before_s = virtual_loop().time()
        limiter.set_rate(1000)
        await task
        assert virtual_loop().time() - before_s < 0.01

    run_virtually(main())


@pytest.mark.parametrize(
    ("asked", "rate"), [(1e9, safe_rate(600)), (600, safe_rate(600)), (300, 300), (0, 1 / 60), (-5, 1 / 60)]
)
def test_the_rate_stays_between_one_permit_a_minute_and_what_is_safe(asked: float, rate: float) -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=600)
        limiter.set_rate(asked)
        assert limiter.rate == pytest.approx(rate)
        limiter.close_gate()
        limiter.set_rate(77)  # changes nothing
        limiter.open_gate(rate=asked)
        assert limiter.rate == pytest.approx(rate)

    run_virtually(main())


def test_the_same_rate_again_changes_nothing() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=600)
        limiter.set_rate(600)
        assert limiter.try_permit()  # the bucket is still the full one

    run_virtually(main())


def test_once_closed_for_good_it_stays_closed() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=600)
        drain(limiter)
        task = asyncio.create_task(limiter.permit())
        await settle()
        await limiter.aclose()
        with pytest.raises(GateClosedError):
            await task
        limiter.open_gate(rate=600)
        assert limiter.rate == 0.0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not virtual_loop()._scheduled  # type: ignore[attr-defined]  # there is no public way to see timers

    run_virtually(main())


def test_it_tells_its_state() -> None:
    assert repr(Limiter(ceiling=1)) == "<Limiter open rate=0.948767 ceiling=1 waiting=0>"
