"""Cancelling an exchange, in every step that it takes: no slot, connection, task or socket is left over."""

import asyncio
from contextlib import suppress

import pytest

from sendengine.errors import NotSentError, TransportError
from sendengine.ports import Reply, Transport
from tests.transport.conftest import TransportMaker, cases, http1_only
from tests.transport.scripted import (
    AUTHORITY,
    LARGE,
    POST,
    Gate,
    Peer,
    answering,
    at_once,
    first,
    reply,
    server_tls,
    serving,
    turns,
)


async def test_cancelling_while_the_permit_is_awaited_gives_the_connection_back(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert (await transport.exchange(POST, at_once)).status == 200
        assert (len(server.peers), len(server.requests)) == (1, 1)


@http1_only("HTTP/2 gives up the stream and keeps the connection; test_h2_endings and test_h2_flow have the same")
async def test_cancelling_while_the_reply_is_awaited_closes_the_connection(open_transport: TransportMaker) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.left()

    async with serving(first(silent)) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.next_request()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await server.peers[0].is_gone.wait()
        assert transport.open_connections == 0
        assert (await transport.exchange(POST, at_once)).status == 200


@http1_only("HTTP/2 gives up the stream and keeps the connection; test_h2_endings and test_h2_flow have the same")
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n{"])
async def test_cancelling_within_the_body_closes_the_connection(open_transport: TransportMaker, head: bytes) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await peer.left()

    async with serving(first(slow)) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.next_request()
        await turns()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await server.peers[0].is_gone.wait()
        assert transport.open_connections == 0


@http1_only("HTTP/2 gives up the stream and keeps the connection; test_h2_endings and test_h2_flow have the same")
async def test_cancelling_while_the_request_is_written_cuts_the_connection(open_transport: TransportMaker) -> None:
    async def not_reading(peer: Peer) -> None:
        await peer.head()
        peer.server.got_request.set()
        await peer.server.released.wait()

    async with serving(first(not_reading)) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(LARGE, at_once))
        await server.next_request()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await turns()
        assert transport.open_connections == 0
        assert (await transport.exchange(POST, at_once)).status == 200
        server.released.set()


async def test_cancelling_while_connecting_leaves_nothing(open_transport: TransportMaker) -> None:
    async def no_handshake(peer: Peer) -> None:
        await peer.left()

    async with serving(no_handshake) as server:
        transport = open_transport(server.url.replace("http:", "https:"))
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.got_peer.wait()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await server.peers[0].is_gone.wait()
        assert transport.open_connections == 0


async def test_cancelling_while_all_connections_are_taken_takes_none(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=1)
        holding = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        waiting = [asyncio.create_task(transport.exchange(POST, at_once)) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        gate.opened.set()
        waiting[1].cancel()
        assert (await holding).status == 200
        assert (await waiting[2]).status == 200
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await transport.exchange(POST, at_once)).status == 200
        assert server.most_open == 1


# In every step

STEPS = 200  # of the loop, within which every exchange here is over, or waits for what never comes


async def unhurried() -> None:
    """Grant a permit a little later."""
    await turns()


async def cancelled_after(transport: Transport, steps: int) -> bool:
    """Cancel an exchange after so many steps of the loop; False where it was over before."""
    under_way = asyncio.create_task(transport.exchange(POST, unhurried))
    for _ in range(steps):
        await asyncio.sleep(0)
    was_over = under_way.done()
    under_way.cancel()
    with suppress(asyncio.CancelledError):
        assert (await under_way).status == 200
    return not was_over


@cases(
    ["cold", "warm", "TLS", "close"],
    http1=["close"],
    reason="who answers a cancelled stream with GOAWAY refuses the next one; test_h2_endings has the same without",
)
async def test_an_exchange_may_be_cancelled_in_any_step(open_transport: TransportMaker, name: str) -> None:
    """With room for one connection, so that the exchange that follows each proves that nothing is held."""
    script = answering(reply(headers="Connection: close\r\n" if name == "close" else ""))
    async with serving(script, tls=server_tls() if name == "TLS" else None) as server:
        options = {"ca_file": AUTHORITY} if name == "TLS" else {}
        transport = open_transport(server.url, max_connections=1, **options)
        for steps in range(STEPS):
            if name in {"cold", "TLS"}:
                await transport.aclose()
                transport = open_transport(server.url, max_connections=1, **options)
            else:
                await transport.exchange(POST, at_once)
            was_cancelled = await cancelled_after(transport, steps)
            assert transport.open_connections <= 1
            assert (await transport.exchange(POST, at_once)).status == 200
            if not was_cancelled:
                break
        else:
            pytest.fail("no exchange came to its end")
        await transport.aclose()
        await server.all_gone()
        assert server.most_open <= 2, "the server may see one go after it sees the next come"


async def test_who_waits_behind_a_cancelled_exchange_gets_its_slot(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=1)
        for steps in range(30):
            tasks = [asyncio.create_task(transport.exchange(POST, unhurried)) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[2].cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(end) for end in (ends[1], ends[3])] == [Reply, Reply]
            assert all(isinstance(end, Reply | asyncio.CancelledError) for end in ends)


async def test_warming_may_be_cancelled_in_any_step(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        for steps in range(20):
            transport = open_transport(server.url, max_connections=3)
            warming = asyncio.create_task(transport.warm(3))
            for _ in range(steps):
                await asyncio.sleep(0)
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
            replies = await asyncio.gather(*[transport.exchange(POST, at_once) for _ in range(6)])
            assert [got.status for got in replies] == [200] * 6
            assert transport.open_connections <= 3
            await transport.aclose()
            await server.all_gone()


async def test_the_transport_may_be_closed_in_any_step(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        for steps in range(40):
            transport = open_transport(server.url, max_connections=2)
            tasks = [asyncio.create_task(transport.exchange(POST, unhurried)) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            before = len(server.requests)
            await transport.aclose()
            assert transport.open_connections == 0
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, Reply | TransportError) for end in ends)
            sent = sum(not isinstance(end, NotSentError) for end in ends)
            await server.all_gone()
            assert len(server.requests) <= sent, "what was said not to be sent never arrived"
            assert before <= len(server.requests)
            server.requests.clear()
