"""Servers that take further connections and end them at once: they are not dialed again and again.

Meanwhile what is open goes on, and what becomes of each request is told as ever.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.errors import NotSentError, TransportError
from sendengine.ports import Reply, Transport
from tests.transport.conftest import TransportMaker, direct_only, h2_only, on_asyncio
from tests.transport.h2_frames import MOST_STREAM, Setting, goaway, settings
from tests.transport.h2_serving import H2Peer, H2Server, h2_serving
from tests.transport.h2_serving import answering as h2_answering
from tests.transport.h2_serving import first as h2_first
from tests.transport.scripted import (
    POST,
    Peer,
    ScriptedServer,
    answering,
    at_once,
    first,
    jump,
    outcome,
    serving,
    turns,
)

WORKERS: Final = 5
EACH: Final = 10
PAUSES_S: Final = (1, *[2] * 11)
AT_FIRST: Final = 2 * WORKERS  # before the second one in a row has come to nothing
AFTER_A_PAUSE: Final = 4

pytestmark = on_asyncio


async def much(transport: Transport) -> list[Reply | TransportError]:
    """Send hundreds of requests, as many at a time as there are workers."""

    async def work() -> list[Reply | TransportError]:
        return [await outcome(transport.exchange(POST, at_once)) for _ in range(EACH)]

    return [end for ends in await asyncio.gather(*(work() for _ in range(WORKERS))) for end in ends]


async def is_not_stormed(transport: Transport, server: ScriptedServer | H2Server) -> None:
    """See that one connection works, and that few others are tried in half a minute of hard work."""
    ends = await much(transport)
    for _ in range(46):
        jump(0.5)
        ends += await much(transport)
    assert 1 + len(PAUSES_S) < len(server.peers) <= 1 + AT_FIRST + AFTER_A_PAUSE * (len(PAUSES_S) + 1)
    lost = [end for end in ends if not isinstance(end, Reply)]
    assert len(lost) <= len(server.peers), lost[-5:]


async def until_it_serves(transport: Transport, server: ScriptedServer | H2Server, serve: Callable[[], None]) -> None:
    """See that those who wait are told where nothing works, and that one that serves ends all pauses."""
    for _ in range(10):
        assert isinstance(await outcome(transport.exchange(POST, at_once)), TransportError)
        jump(9)
        await turns()
    opened = len(server.peers)
    assert opened <= 11
    serve()
    jump(9)
    assert isinstance(await transport.exchange(POST, at_once), Reply)


@direct_only
async def test_an_edge_that_hangs_up_on_further_connections(open_transport: TransportMaker) -> None:
    async def hang_up(_: Peer) -> None:
        pass

    async with serving(first(answering(), then=hang_up)) as server:
        await is_not_stormed(open_transport(server.url, max_connections=50), server)


@direct_only
async def test_one_that_served_before_it_was_closed_is_replaced_at_once(open_transport: TransportMaker) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with serving(once) as server:
        transport = open_transport(server.url)
        for number in range(20):
            assert isinstance(await transport.exchange(POST, at_once), Reply)
            await server.peers[number].is_gone.wait()
            await turns()


@direct_only
async def test_all_pauses_end_with_a_connection_that_serves(open_transport: TransportMaker) -> None:
    async def script(peer: Peer) -> None:
        if server.released.is_set():
            await answering()(peer)

    async with serving(script) as server:
        transport = open_transport(server.url)
        await until_it_serves(transport, server, server.released.set)


async def goodbye(peer: H2Peer) -> None:
    peer.send(goaway(0))
    await peer.left()


async def goodbye_to_come(peer: H2Peer) -> None:
    """Announce the end first, as a server does that lets its clients finish."""
    peer.send(goaway(MOST_STREAM))
    await turns()
    peer.send(goaway(0))
    await peer.left()


async def hang_up(_: H2Peer) -> None:
    pass


async def greet_and_go(peer: H2Peer) -> None:
    peer.send(settings({Setting.MAX_CONCURRENT_STREAMS: 1}), goaway(0))
    await peer.left()


@h2_only
@pytest.mark.parametrize(
    "then",
    [goodbye, hang_up, *(pytest.param(then, marks=pytest.mark.slow) for then in (goodbye_to_come, greet_and_go))],
)
async def test_an_edge_that_greets_further_connections_and_dismisses_them(
    open_transport: TransportMaker, then: Callable[[H2Peer], "asyncio.Future[None]"]
) -> None:
    first_settings = {Setting.MAX_CONCURRENT_STREAMS: 1}

    async with h2_serving(h2_first(h2_answering, then), first_settings=first_settings) as server:
        transport = open_transport(server.url, max_connections=50)
        await is_not_stormed(transport, server)


@h2_only
async def test_all_pauses_end_with_an_http_2_connection_that_serves(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        await (h2_answering if server.released.is_set() else goodbye)(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        await until_it_serves(transport, server, server.released.set)


@h2_only
async def test_nothing_is_written_to_a_server_that_says_goodbye_with_its_greeting(
    open_transport: TransportMaker,
) -> None:
    async with h2_serving(greet_and_go, first_settings=None) as server:
        transport = open_transport(server.url)
        assert isinstance(await outcome(transport.exchange(POST, at_once)), NotSentError)
        assert server.asked == []
