"""Over a hundred connections that the server ends at once: every request ends as it should, and all come back."""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.errors import NotSentError, ReplyLostError, TransportError
from sendengine.ports import Permit, Reply, Transport
from tests.transport.conftest import TransportMaker, on_asyncio
from tests.transport.scripted import (
    POST,
    Gate,
    Peer,
    ScriptedServer,
    answering,
    at_once,
    outcome,
    reply,
    serving,
    turns,
    until,
)

MANY: Final = 120
ENDINGS: Final[dict[str, Callable[[Peer], None]]] = {
    "closed": lambda peer: peer.writer.close(),
    "reset": Peer.reset,
}


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.left()


def end_all(server: ScriptedServer, ending: str = "closed") -> None:
    """End all connections in one step of the loop, and answer those who come back."""
    server.script = answering()
    for peer in server.peers:
        ENDINGS[ending](peer)


async def many(transport: Transport, permit: Permit = at_once) -> list[Reply | TransportError]:
    return await asyncio.gather(*[outcome(transport.exchange(POST, permit)) for _ in range(MANY)])


async def comes_back(transport: Transport, server: ScriptedServer) -> None:
    """See that as many as before are answered now, over as many connections as there may be and not more."""
    assert all(isinstance(end, Reply) for end in await many(transport))
    await until(lambda: server.open_now == transport.open_connections)
    assert 0 < transport.open_connections <= MANY


@pytest.mark.parametrize("ending", ENDINGS)
async def test_all_that_await_a_reply_lose_it(open_transport: TransportMaker, ending: str) -> None:
    async with serving(silent) as server:
        transport = open_transport(server.url, max_connections=MANY)
        under_way = asyncio.create_task(many(transport))
        await until(lambda: len(server.requests) == MANY)
        end_all(server, ending)
        assert {type(end) for end in await under_way} == {ReplyLostError}
        assert len(server.requests) == MANY, "nothing is sent again"
        await comes_back(transport, server)


@on_asyncio
async def test_those_whose_reply_was_whole_have_it(open_transport: TransportMaker) -> None:
    async with serving(silent) as server:
        transport = open_transport(server.url, max_connections=MANY)
        under_way = asyncio.create_task(many(transport))
        await until(lambda: len(server.requests) == MANY)
        for peer in server.peers[::3]:
            await peer.send(reply())
        for peer in server.peers[1::3]:
            await peer.send(reply()[:-1])
        await turns()
        end_all(server, "reset")
        ends = await under_way
        assert sum(isinstance(end, Reply) for end in ends) == MANY / 3
        assert sum(isinstance(end, ReplyLostError) for end in ends) == 2 * MANY / 3
        await comes_back(transport, server)


@on_asyncio
async def test_all_that_await_a_permit_were_not_sent(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(silent) as server:
        transport = open_transport(server.url, max_connections=MANY)
        under_way = asyncio.create_task(many(transport, gate))
        await until(lambda: gate.count == MANY and len(server.peers) == MANY)
        end_all(server)
        await server.all_gone()
        await turns()
        gate.opened.set()
        assert {type(end) for end in await under_way} == {NotSentError}
        assert server.requests == []
        await comes_back(transport, server)


@on_asyncio
async def test_idle_connections_that_ended_are_replaced(open_transport: TransportMaker) -> None:
    async with serving(silent) as server:
        transport = open_transport(server.url, max_connections=MANY)
        assert await transport.warm(MANY) == MANY
        await until(lambda: len(server.peers) == MANY)
        end_all(server, "reset")
        await until(lambda: transport.open_connections == 0)
        await comes_back(transport, server)
        assert await transport.warm(MANY) == MANY


@on_asyncio
async def test_idle_connections_that_end_in_the_instant_of_their_use(open_transport: TransportMaker) -> None:
    async with serving(silent) as server:
        transport = open_transport(server.url, max_connections=MANY)
        assert await transport.warm(MANY) == MANY
        await until(lambda: len(server.peers) == MANY)
        end_all(server)
        ends = await many(transport)
        assert all(isinstance(end, Reply | NotSentError | ReplyLostError) for end in ends)
        answered = sum(isinstance(end, Reply) for end in ends)
        perhaps = sum(isinstance(end, ReplyLostError) for end in ends)
        assert answered <= len(server.requests) <= answered + perhaps
        await comes_back(transport, server)
