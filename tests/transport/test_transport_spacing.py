"""TLS handshakes begin a few at a time, and as fast as those end, or as time goes by."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import ParamSpec, TypeVar

import pytest
from aiohttp import TCPConnector

from sendengine.transport import spacing
from sendengine.transport.direct.dialing import Dialer
from sendengine.transport.spacing import HELD_S, TURNS, Spacing, Turn
from tests.support.virtual_loop import run_virtually
from tests.transport.conftest import TransportMaker, direct_only, http1_only, on_asyncio
from tests.transport.scripted import AUTHORITY, answering, jump, server_tls, serving, turns

P = ParamSpec("P")
T = TypeVar("T")


def virtually(test: Callable[[], Coroutine[object, object, None]]) -> Callable[[], None]:
    """Run a test on a virtual clock, which stands still while anything is to be done."""

    @wraps(test)
    def run() -> None:
        run_virtually(test())

    return run


class Line:
    """Those who want to begin, and their turns in the order in which they came."""

    def __init__(self, count: int) -> None:
        self.spacing = Spacing()
        self.turns: list[Turn] = []
        self.numbers: list[int] = []
        self.tasks = [asyncio.create_task(self._begin(number)) for number in range(count)]

    async def _begin(self, number: int) -> None:
        turn = await self.spacing.turn()
        self.numbers.append(number)
        self.turns.append(turn)


@virtually
async def test_four_begin_at_once_and_another_for_each_that_ends() -> None:
    line = Line(7)
    await turns()
    assert line.numbers == [0, 1, 2, 3]
    line.turns[2].end()
    await turns()
    assert line.numbers == [0, 1, 2, 3, 4]
    line.turns[2].end()
    await turns()
    assert len(line.numbers) == TURNS + 1, "a turn ends once"
    for turn in line.turns:
        turn.end()
    await asyncio.gather(*line.tasks)
    assert line.numbers == list(range(7))


@virtually
async def test_where_none_ends_four_more_begin_every_five_milliseconds() -> None:
    line = Line(11)
    await asyncio.sleep(0.001)
    assert len(line.turns) == 4
    for before, after in ((4, 8), (8, 11)):
        await asyncio.sleep(0.0035)
        assert len(line.turns) == before
        await asyncio.sleep(0.0015)
        assert len(line.turns) == after
    await asyncio.sleep(HELD_S)
    assert [await line.spacing.turn() for _ in range(TURNS)], "all turns are free again"


@virtually
async def test_one_who_leaves_is_passed_over() -> None:
    line = Line(7)
    await turns()
    line.tasks[4].cancel()
    line.turns[0].end()
    await turns()
    assert line.numbers == [0, 1, 2, 3, 5]


@virtually
async def test_one_who_leaves_in_the_moment_of_its_turn_keeps_nobody_waiting() -> None:
    line = Line(6)
    await turns()
    line.turns[0].end()
    line.tasks[4].cancel()
    await turns()
    assert line.numbers == [0, 1, 2, 3]
    await line.tasks[5]  # some milliseconds later
    assert line.numbers[:5] == [0, 1, 2, 3, 5]


@http1_only("over HTTP/2 a pool opens connections for many exchanges each; the dialer is the same")
@pytest.mark.parametrize("has_tls", [True, False], ids=["tls", "plain"])
async def test_few_handshakes_are_under_way_at_once(
    open_transport: TransportMaker, monkeypatch: pytest.MonkeyPatch, *, has_tls: bool
) -> None:
    monkeypatch.setattr(spacing, "HELD_S", 3600.0)
    under_way: list[int] = [0]

    def counting(attempt: Callable[P, Coroutine[object, object, T]]) -> Callable[P, Coroutine[object, object, T]]:
        async def counted(*args: P.args, **named: P.kwargs) -> T:
            under_way.append(under_way[-1] + 1)
            try:
                return await attempt(*args, **named)
            finally:
                under_way.append(under_way[-1] - 1)

        return counted

    monkeypatch.setattr(Dialer, "_attempt", counting(Dialer._attempt))
    monkeypatch.setattr(TCPConnector, "connect", counting(TCPConnector.connect))
    async with serving(answering(), tls=server_tls() if has_tls else None) as server:
        transport = open_transport(server.url, max_connections=40, ca_file=AUTHORITY, protocol="http/1.1")
        assert await transport.warm(40) == 40
        assert max(under_way) == (TURNS if has_tls else 40)


@direct_only
@on_asyncio
async def test_a_server_that_is_slow_to_shake_hands_holds_up_no_others(open_transport: TransportMaker) -> None:
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:  # which takes connections and says nothing
        listener.settimeout(0)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        transport = open_transport(url, ca_file=AUTHORITY, protocol="http/1.1")
        warming = asyncio.create_task(transport.warm(12))
        while len(taken) < 12:
            accepting = asyncio.create_task(asyncio.get_running_loop().sock_accept(listener))
            await turns()
            if not accepting.done():
                jump(HELD_S)
            taken.append((await accepting)[0])
        await transport.aclose()
        await warming
    for connection in taken:
        connection.close()
