"""The permit comes last: with a connection in hand, once, and right before the request is written."""

import asyncio

import aiohttp
import pytest

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import WireRequest
from tests.transport.conftest import TransportMaker, on_asyncio
from tests.transport.scripted import (
    GET,
    POST,
    Gate,
    Peer,
    answering,
    at_once,
    first,
    jump,
    reply,
    serving,
    turns,
    until,
)


async def test_the_connection_is_in_hand_before_the_permit_is_asked_for(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        await server.got_peer.wait()
        await turns()
        assert (transport.open_connections, len(server.requests)) == (1, 0)
        gate.opened.set()
        assert (await under_way).status == 200
        assert (gate.count, len(server.peers)) == (1, 1)


@on_asyncio
async def test_waiting_for_the_permit_takes_no_time_of_the_exchange(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url, timeout_s=60, connect_timeout_s=10)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        jump(200)
        await turns()
        gate.opened.set()
        assert (await under_way).status == 200


class OddError(Exception):
    pass


RAISED = [
    OddError("odd"),
    OSError(5, "an OSError"),
    TimeoutError("a TimeoutError"),
    ConnectionResetError("reset"),
    RuntimeError("runtime"),
    ValueError("value"),
    aiohttp.ClientError("client"),
    aiohttp.ServerDisconnectedError("disconnected"),
    NotSentError("ours"),
    ReplyLostError("ours too"),
    asyncio.CancelledError("its own"),
]


@on_asyncio
@pytest.mark.parametrize("raised", RAISED, ids=lambda raised: type(raised).__name__)
@pytest.mark.parametrize("request_", [POST, GET], ids=["POST", "GET"])
async def test_what_the_permit_raises_passes_unchanged_and_the_connection_is_given_back(
    open_transport: TransportMaker, raised: BaseException, request_: WireRequest
) -> None:
    asked = 0

    async def refusing() -> None:
        nonlocal asked
        asked += 1
        raise raised

    async with serving(answering()) as server:
        transport = open_transport(server.url)
        with pytest.raises(type(raised)) as caught:
            await transport.exchange(request_, refusing)
        assert caught.value is raised
        assert asked == 1
        assert caught.value.__cause__ is None
        assert (await transport.exchange(POST, at_once)).status == 200
        assert (len(server.peers), len(server.requests)) == (1, 1)


async def test_a_connection_that_closes_while_the_permit_is_awaited_was_not_sent_on(
    open_transport: TransportMaker,
) -> None:
    async def hanging_up(peer: Peer) -> None:
        await peer.server.released.wait()

    gate = Gate()
    async with serving(first(hanging_up)) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        server.released.set()
        await server.got_peer.wait()
        await server.peers[0].is_gone.wait()
        gate.opened.set()
        with pytest.raises(NotSentError):
            await under_way
        assert server.requests == []
        assert (await transport.exchange(POST, at_once)).status == 200


async def test_a_connection_on_which_something_comes_while_the_permit_is_awaited_was_not_sent_on(
    open_transport: TransportMaker,
) -> None:
    async def impatient(peer: Peer) -> None:
        await peer.server.released.wait()
        await peer.send(reply(status="408 Request Timeout"))
        sent.set()
        await peer.left()

    gate, sent = Gate(), asyncio.Event()
    async with serving(first(impatient)) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        server.released.set()
        await sent.wait()
        await turns()
        gate.opened.set()
        with pytest.raises(NotSentError):
            await under_way
        assert (await transport.exchange(POST, at_once)).status == 200
        assert len(server.requests) == 1


async def test_an_idle_connection_that_the_server_closed_is_not_used(open_transport: TransportMaker) -> None:
    async def once(peer: Peer) -> None:
        await answering_once(peer)

    async with serving(once) as server:
        transport = open_transport(server.url)
        for count in (1, 2, 3):
            assert (await transport.exchange(POST, at_once)).status == 200
            await until(lambda: transport.open_connections == 0)
            assert len(server.peers) == count


async def test_a_connection_that_closes_before_the_first_byte_was_not_sent_on(open_transport: TransportMaker) -> None:
    """The server hangs up after each reply, and the client notices at some moment around its next request."""

    async def once(peer: Peer) -> None:
        await answering_once(peer)

    async with serving(once) as server:
        transport = open_transport(server.url)
        for _ in range(20):
            before = len(server.requests)
            try:
                await transport.exchange(POST, at_once)
            except NotSentError:
                assert len(server.requests) == before
            except ReplyLostError:
                await turns()


async def answering_once(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def test_nobody_asks_for_a_permit_without_a_connection(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
    gate = Gate()
    with pytest.raises(NotSentError, match="no connection"):
        await transport.exchange(POST, gate)
    assert gate.count == 0


# Bounds


async def test_there_are_never_more_connections_than_allowed_and_all_get_their_turn(
    open_transport: TransportMaker,
) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=3)
        replies = await asyncio.gather(*[transport.exchange(POST, at_once) for _ in range(30)])
        assert [got.status for got in replies] == [200] * 30
        assert 1 <= server.most_open <= 3, "one may do for all, where it is quicker than opening more"
        assert 1 <= transport.open_connections <= 3


async def test_as_many_permits_are_awaited_at_once_as_there_may_be_connections(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=3)
        tasks = [asyncio.create_task(transport.exchange(POST, gate)) for _ in range(30)]
        await until(lambda: gate.count == 3 and len(server.peers) == 3)
        await turns()
        assert (gate.count, server.most_open, transport.open_connections) == (3, 3, 3)
        gate.opened.set()
        assert [(await task).status for task in tasks] == [200] * 30
        assert (gate.count, server.most_open) == (30, 3)


@on_asyncio
async def test_waiting_for_a_connection_that_others_hold_has_no_limit(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=1, connect_timeout_s=1, timeout_s=1)
        holding = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        waiting = asyncio.create_task(transport.exchange(POST, at_once))
        await turns()
        jump(100)
        await turns()
        gate.opened.set()
        assert [(await task).status for task in (holding, waiting)] == [200, 200]


@on_asyncio
async def test_connections_that_are_too_old_are_replaced(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        for count in (1, 2, 3):
            for _ in range(3):
                await transport.exchange(POST, at_once)
            assert (len(server.peers), transport.open_connections) == (count, 1)
            jump(301)


@on_asyncio
async def test_each_exchange_has_its_own_time(open_transport: TransportMaker) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.left()

    async with serving(silent) as server:
        transport = open_transport(server.url, timeout_s=60)
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(transport.exchange(POST, at_once)))
            await server.next_request()
            jump(20)
        await turns()
        for task in tasks:
            with pytest.raises(ReplyLostError):
                await task
            assert [other.done() for other in tasks] == [
                other is task or index < tasks.index(task) for index, other in enumerate(tasks)
            ]
            jump(20)
