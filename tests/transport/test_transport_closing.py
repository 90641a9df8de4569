"""Closing and warming: what is opened ahead, and that nothing is left: no socket, no task, no waiter."""

import asyncio

import pytest

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Transport
from tests.transport.conftest import TransportMaker, on_asyncio
from tests.transport.scripted import (
    LARGE,
    POST,
    Gate,
    Peer,
    answering,
    at_once,
    fails,
    jump,
    serving,
    turns,
    until,
)


async def quiet(peer: Peer) -> None:
    await peer.left()


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.left()


# Closing


async def test_closing_ends_what_is_on_the_wire_as_lost(open_transport: TransportMaker) -> None:
    async with serving(silent) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.next_request()
        await transport.aclose()
        with pytest.raises(ReplyLostError, match="closed"):
            await under_way
        assert transport.open_connections == 0
        await server.all_gone()


async def test_closing_does_not_wait_for_a_server_that_does_not_read(open_transport: TransportMaker) -> None:
    async def not_reading(peer: Peer) -> None:
        await peer.head()
        peer.server.got_request.set()
        await peer.server.released.wait()

    async with serving(not_reading) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(LARGE, at_once))
        await server.next_request()
        await transport.aclose()
        with pytest.raises(ReplyLostError):
            await under_way
        server.released.set()
        await server.all_gone()


async def test_closing_ends_what_waits_for_a_permit_or_a_connection_as_not_sent(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=1)
        tasks = [asyncio.create_task(transport.exchange(POST, gate)) for _ in range(3)]
        await gate.asked.wait()
        await transport.aclose()
        for task in tasks:
            with pytest.raises(NotSentError, match="closed"):
                await task
        assert (gate.count, server.requests) == (1, [])
        await server.all_gone()


async def test_closing_ends_what_connects_as_not_sent(open_transport: TransportMaker) -> None:
    async with serving(quiet) as server:
        transport = open_transport(server.url.replace("http:", "https:"))
        tasks = [asyncio.create_task(transport.exchange(POST, at_once)) for _ in range(3)]
        await server.got_peer.wait()
        await transport.aclose()
        for task in tasks:
            with pytest.raises(NotSentError):
                await task
        await server.all_gone()


async def test_an_exchange_that_its_caller_cancels_as_the_transport_closes_is_cancelled(
    open_transport: TransportMaker,
) -> None:
    async with serving(silent) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.next_request()
        under_way.cancel()
        await transport.aclose()
        with pytest.raises(asyncio.CancelledError):
            await under_way


async def test_a_caller_goes_on_after_the_transport_closed_under_it(open_transport: TransportMaker) -> None:
    async def caller(transport: Transport) -> int:
        with pytest.raises(ReplyLostError):
            await transport.exchange(POST, at_once)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async with serving(silent) as server:
        transport = open_transport(server.url)
        calling = asyncio.create_task(caller(transport))
        await server.next_request()
        await transport.aclose()
        assert await calling == 0, "no cancellation is left over"


async def test_a_closed_transport_sends_nothing_and_may_be_closed_again(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        await transport.exchange(POST, at_once)
        await transport.aclose()
        await transport.aclose()
        assert isinstance(await fails(transport), NotSentError)
        assert await transport.warm(3) == 0
        assert len(server.requests) == 1
        await server.all_gone()


async def test_a_transport_that_was_never_used_closes(open_transport: TransportMaker) -> None:
    transport = open_transport("http://127.0.0.1:9")
    await transport.aclose()
    assert transport.open_connections == 0


# Warming


async def test_warming_opens_connections_and_sends_nothing(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        assert await transport.warm(5) == 5
        assert await transport.warm(3) == 5
        assert transport.open_connections == 5
        await asyncio.gather(*[transport.exchange(POST, at_once) for _ in range(5)])
        assert (len(server.peers), len(server.requests)) == (5, 5)


async def test_warming_stops_at_the_bound(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=4)
        assert await transport.warm(100) == 4
        await until(lambda: server.open_now >= 4)
        await turns()
        assert server.most_open == 4


async def test_connections_in_use_count(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=4)
        tasks = [asyncio.create_task(transport.exchange(POST, gate)) for _ in range(4)]
        while gate.count < 4:
            await turns()
        assert await transport.warm(4) == 4
        gate.opened.set()
        await asyncio.gather(*tasks)
        assert (server.most_open, transport.open_connections) == (4, 4)


async def test_many_may_warm_at_once(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=150)
        counts = await asyncio.gather(*[transport.warm(count) for count in range(1, 151)])
        assert all(open_ >= count for count, open_ in enumerate(counts, start=1))
        await until(lambda: server.open_now >= 150)
        await turns()
        assert (transport.open_connections, server.most_open) == (150, 150)


async def test_exchanges_and_warming_together_stay_within_the_bound(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=6)
        await asyncio.gather(
            *[transport.exchange(POST, at_once) for _ in range(20)], *[transport.warm(6) for _ in range(5)]
        )
        await until(lambda: server.open_now >= 6)
        await turns()
        assert (server.most_open, transport.open_connections) == (6, 6)
        assert len(server.requests) == 20


async def test_warming_towards_nobody_says_so_and_raises_nothing(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        url = server.url
    assert await open_transport(url).warm(5) == 0


async def test_warming_that_is_cancelled_leaves_no_task(open_transport: TransportMaker) -> None:
    async with serving(quiet) as server:
        transport = open_transport(server.url.replace("http:", "https:"))
        warming = asyncio.create_task(transport.warm(5))
        await server.got_peer.wait()
        warming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await warming
        await transport.aclose()
        await server.all_gone()


async def test_closing_lets_everybody_go_who_warms(open_transport: TransportMaker) -> None:
    async with serving(quiet) as server:
        transport = open_transport(server.url.replace("http:", "https:"))
        warming = asyncio.create_task(transport.warm(5))
        await server.got_peer.wait()
        await transport.aclose()
        assert await warming == 0


@on_asyncio
async def test_a_handshake_that_takes_too_long_was_not_sent(open_transport: TransportMaker) -> None:
    async with serving(quiet) as server:
        transport = open_transport(server.url.replace("http:", "https:"), connect_timeout_s=5)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.got_peer.wait()
        jump(6)
        with pytest.raises(NotSentError, match="not open within 5 s"):
            await under_way
        await server.all_gone()
