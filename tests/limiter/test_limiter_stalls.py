"""What is sent into a stall of the server arrives in one instant, and no second there holds more than the ceiling."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.core.bound import safe_rate
from sendengine.core.stalls import DUE, Replies, StallWatch
from sendengine.limiter import Limiter
from tests.limiter.permit_takers import contended, most_in_one_second, stall, virtual_loop
from tests.support.virtual_loop import run_virtually

Stalls = Sequence[tuple[float, float]]
"""When each begins and ends, told from the first permit on; none while another one lasts."""


class Server:
    """Takes in and answers nothing during its stalls; all that came meanwhile it takes in at their ends."""

    def __init__(self, watch: StallWatch, *, latency_s: float, stalls: Stalls) -> None:
        self.taken_in: list[float] = []
        self.stalls = [(virtual_loop().now_s + begin_s, virtual_loop().now_s + end_s) for begin_s, end_s in stalls]
        self._watch = watch
        self._latency_s = latency_s

    def send(self) -> None:
        loop = virtual_loop()
        taken_in_s = self._awake(loop.now_s)
        self.taken_in.append(taken_in_s)
        loop.call_at(self._awake(taken_in_s + self._latency_s), self._answer, loop.now_s)

    def _awake(self, at_s: float) -> float:
        return next((end_s for begin_s, end_s in self.stalls if begin_s <= at_s < end_s), at_s)

    def _answer(self, sent_at_s: float) -> None:
        self._watch.answered(sent_at_s, now_s=virtual_loop().now_s)


@contextlib.asynccontextmanager
async def sending(
    ceilings: Sequence[float], *, latency_s: float, stalls: Stalls = (), is_watched: bool = True
) -> AsyncIterator[list[Server]]:
    """Use each ceiling up, in a lane of its own, before one server whose lanes stall together."""
    replies = Replies()
    watches = [StallWatch(replies) for _ in ceilings]
    servers = [Server(watch, latency_s=latency_s, stalls=stalls) for watch in watches]
    async with contextlib.AsyncExitStack() as lanes:
        for ceiling, watch, server in zip(ceilings, watches, servers, strict=True):
            limiter = Limiter(ceiling=ceiling, stalls=watch if is_watched else None)
            await lanes.enter_async_context(contended(limiter, send=server.send))
        yield servers


@pytest.mark.parametrize(("stalled_s", "latency_s"), [(0.02, 0.1), (0.1, 0.0), (0.1, 0.1), (0.4, 1.0)])
def test_a_stall_costs_what_it_lasts_and_no_second_holds_more_than_the_ceiling(
    stalled_s: float, latency_s: float
) -> None:
    async def main() -> None:
        stalls = [(3.0, 3.0 + stalled_s)]
        async with sending([6000, 1000], latency_s=latency_s, stalls=stalls) as servers:
            await asyncio.sleep(4.6)
        for server, ceiling in zip(servers, (6000, 1000), strict=True):
            assert most_in_one_second(server.taken_in) <= ceiling
            assert len(server.taken_in) >= safe_rate(ceiling) * (4.6 - stalled_s - 0.03)
        async with sending([6000], latency_s=latency_s, stalls=stalls, is_watched=False) as servers:
            await asyncio.sleep(4.6)
        assert most_in_one_second(servers[0].taken_in) > 6000, "what this is for"

    run_virtually(main())


@settings(max_examples=15)
@given(
    ceiling=st.sampled_from([1000, 2000, 4000]),
    latency_s=st.floats(0, 0.5),
    begin_s=st.floats(0, 0.3),
    stalled_s=st.floats(0.011, 0.3),
)
def test_wherever_a_stall_falls_no_second_holds_more_than_the_ceiling(
    ceiling: int, latency_s: float, begin_s: float, stalled_s: float
) -> None:
    async def main() -> None:
        seen_s = max(stalled_s, DUE / ceiling + 0.012)  # shorter ones are within what chance does
        async with sending([ceiling], latency_s=latency_s, stalls=[(1 + begin_s, 1 + begin_s + seen_s)]) as (server,):
            await asyncio.sleep(1 + begin_s + seen_s + 1.2)
        assert most_in_one_second(server.taken_in) <= ceiling

    run_virtually(main())


def test_no_pause_of_ours_is_a_stall() -> None:
    async def main() -> None:
        async with sending([6000], latency_s=0.1) as (server,):
            for _ in range(20):
                await asyncio.sleep(0.15)
                stall(0.05)
        assert len(server.taken_in) >= 0.99 * safe_rate(6000) * 20 * 0.15

    run_virtually(main())


def test_a_server_that_answers_by_fits_and_starts_costs_less_and_less() -> None:
    async def main() -> None:
        fits = [(0.1 * n, 0.1 * n + 0.09) for n in range(500)]
        async with sending([300], latency_s=0.0, stalls=fits) as (server,):
            await asyncio.sleep(10)
            before = len(server.taken_in)
            await asyncio.sleep(30)
            assert len(server.taken_in) - before >= 0.9 * safe_rate(300) * 30

    run_virtually(main())


@pytest.mark.parametrize("closed_s", [0.02, 1.0])
def test_a_gate_that_was_closed_is_no_stall(closed_s: float) -> None:
    async def main() -> None:
        watch = StallWatch(Replies())
        limiter = Limiter(ceiling=6000, stalls=watch)
        server = Server(watch, latency_s=0.1, stalls=())
        async with contended(limiter, send=server.send) as instants:
            await asyncio.sleep(1)
            watch.sent(now_s=virtual_loop().now_s)  # these were sent away with their permits, and get no answer
            limiter.close_gate()
            await asyncio.sleep(closed_s)
            limiter.open_gate(rate=6000)
            before = len(instants)
            await asyncio.sleep(0.5)
            assert len(instants) - before >= 0.97 * 0.5 * safe_rate(6000)

    run_virtually(main())
