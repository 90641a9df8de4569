"""A server that closes each connection after its reply and does not say so, and one that does it once."""

import asyncio

import pytest

from sendengine.errors import ReplyLostError
from sendengine.limiter import GateClosedError
from sendengine.ports import Reply
from sendengine.transport.reuse import BRIEF_S, REST_S
from tests.transport.conftest import TransportMaker, http1_only, on_asyncio
from tests.transport.scripted import POST, Peer, answering, at_once, first, jump, outcome, reply, serving, turns

pytestmark = [on_asyncio, http1_only("HTTP/2 says it by GOAWAY")]


async def closing(peer: Peer) -> None:
    """Answer one request; the end comes a moment later, when another may be on its way."""
    await peer.request()
    await peer.send(reply())
    await turns()


async def test_only_the_first_reuse_loses_its_reply(open_transport: TransportMaker) -> None:
    async with serving(closing) as server:
        transport = open_transport(server.url)
        ends = [await outcome(transport.exchange(POST, at_once)) for _ in range(10)]
        assert [type(end) for end in ends] == [Reply, ReplyLostError, *[Reply] * 8]


async def test_one_that_is_still_there_after_its_rest_is_used_again_and_so_are_all_then(
    open_transport: TransportMaker,
) -> None:
    async with serving(first(closing, then=answering())) as server:
        transport = open_transport(server.url)
        ends = [await outcome(transport.exchange(POST, at_once)) for _ in range(4)]
        assert [type(end) for end in ends] == [Reply, ReplyLostError, Reply, Reply]
        assert (len(server.peers), transport.open_connections) == (3, 2)
        for _ in range(4):
            jump(REST_S)
            await asyncio.sleep(0.001)
        for _ in range(10):
            await transport.exchange(POST, at_once)
        assert (len(server.peers), transport.open_connections) == (3, 2)


async def test_where_all_that_may_be_open_rest_a_request_waits_or_has_one_closed(
    open_transport: TransportMaker,
) -> None:
    async with serving(first(closing, then=answering())) as server:
        transport = open_transport(server.url, max_connections=1)
        for _ in range(3):
            await outcome(transport.exchange(POST, at_once))
        waiting = asyncio.create_task(transport.exchange(POST, at_once))
        while not waiting.done():
            jump(REST_S)
            await asyncio.sleep(0.001)
        assert (await waiting).status == 200
        assert transport.open_connections == 1


async def test_closing_the_transport_ends_a_rest(open_transport: TransportMaker) -> None:
    async with serving(first(closing, then=answering())) as server:
        transport = open_transport(server.url)
        for _ in range(3):
            await outcome(transport.exchange(POST, at_once))
        await transport.aclose()
        jump(2 * REST_S)
        await asyncio.sleep(0.001)  # what is left of its rest would ring now
        assert transport.open_connections == 0


async def test_one_that_ends_after_it_was_only_claimed_is_no_sign(open_transport: TransportMaker) -> None:
    is_over = asyncio.Event()

    async def keeping(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await is_over.wait()

    async def closed_gate() -> None:
        raise GateClosedError

    async with serving(first(keeping, then=answering())) as server:
        transport = open_transport(server.url)
        await transport.exchange(POST, at_once)
        jump(2 * BRIEF_S)
        await asyncio.sleep(0.001)
        with pytest.raises(GateClosedError):
            await transport.exchange(POST, closed_gate)
        is_over.set()
        while transport.open_connections:  # noqa: ASYNC110 - nothing tells of a connection's end
            await asyncio.sleep(0.001)
        for _ in range(5):
            await transport.exchange(POST, at_once)
        assert len(server.peers) == 2


async def test_one_that_ends_a_while_after_its_reply_is_no_sign(open_transport: TransportMaker) -> None:
    async def idling(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply())
        await peer.server.released.wait()

    async with serving(first(idling, then=answering())) as server:
        transport = open_transport(server.url)
        await transport.exchange(POST, at_once)
        jump(BRIEF_S)
        server.released.set()
        await server.all_gone()
        for _ in range(5):
            await transport.exchange(POST, at_once)
        assert len(server.peers) == 2


async def test_where_all_rest_none_is_opened_in_their_place(open_transport: TransportMaker) -> None:
    async with serving(first(closing, then=answering())) as server:
        transport = open_transport(server.url, max_connections=3)
        for _ in range(2):
            await outcome(transport.exchange(POST, at_once))
        waiting = [asyncio.create_task(transport.exchange(POST, at_once)) for _ in range(50)]
        while not all(task.done() for task in waiting):
            jump(REST_S)
            await asyncio.sleep(0.001)
        assert {(await task).status for task in waiting} == {200}
        assert len(server.peers) <= 4
        assert transport.open_connections <= 3
