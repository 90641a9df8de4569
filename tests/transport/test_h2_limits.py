"""How many streams a server allows, when it says so, and which connections that takes."""

import asyncio
from typing import Final

import pytest

from sendengine.errors import NotSentError
from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import NOT_SENT, answered, ask, ask_all, asking, asking_all, kinds
from tests.transport.h2_frames import (
    Code,
    Kind,
    Setting,
    goaway,
    headers,
    ping,
    rst_stream,
    settings,
    settings_ack,
)
from tests.transport.h2_serving import H2Peer, answering, first, h2_serving, silent
from tests.transport.scripted import Gate, at_once, jump, turns, until

pytestmark = [h2_only, on_asyncio]

STREAMS: Final = Setting.MAX_CONCURRENT_STREAMS


# The first settings


async def test_nothing_is_sent_before_the_server_s_settings(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        await peer.said(Kind.SETTINGS)
        await turns()
        assert peer.session.asked == {}
        peer.send(settings({STREAMS: 1}), settings_ack())
        await answering(peer)

    async with h2_serving(script, first_settings=None) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(3))
        assert kinds(ends) == [Reply] * 3
        assert all(peer.session.most_open <= 1 for peer in server.peers)


async def test_a_server_that_says_nothing_was_not_sent_to(open_transport: TransportMaker) -> None:
    async with h2_serving(silent, first_settings=None) as server:
        transport = open_transport(server.url, connect_timeout_s=10)
        under_way = asyncio.create_task(ask(transport, 0))
        await until(lambda: len(server.peers) == 1 and bool(server.peers[0].session.frames))
        jump(9)
        await turns()
        assert not under_way.done()
        jump(2)
        assert isinstance(await under_way, NotSentError)
        await server.all_gone()
        assert (server.asked, transport.open_connections) == ([], 0)


NO_SETTINGS: Final = {
    "an acknowledgement": settings_ack(),
    "a ping": ping(),
    "a goodbye": goaway(0),
    "a refusal in HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "a head": headers(1, b"\x88", end=True),
    "a greeting": b"220 mail.example ESMTP\r\n",
    "zeros": bytes(100),
    "a closed connection": b"",
}


@pytest.mark.parametrize("name", NO_SETTINGS)
async def test_a_server_that_begins_with_anything_else_was_not_sent_to(
    open_transport: TransportMaker, name: str
) -> None:
    async def script(peer: H2Peer) -> None:
        peer.raw(NO_SETTINGS[name])
        if name == "a closed connection":
            return
        await peer.left()

    async with h2_serving(script, first_settings=None) as server:
        transport = open_transport(server.url)
        assert isinstance(await ask(transport, 0), NotSentError)
        assert await transport.warm(2) == 0
        assert server.asked == []
        if name in {"an acknowledgement", "a ping", "a goodbye", "a head"}:
            assert server.peers[0].code == Code.PROTOCOL_ERROR


async def test_settings_are_acknowledged_each_in_its_turn(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        for _ in range(10):
            peer.send(settings({STREAMS: 5}), settings())
        await peer.said(Kind.SETTINGS, count=1 + 1 + 20)
        await answering(peer)

    async with h2_serving(script) as server:
        assert await answered(open_transport(server.url), 0)
        acks = [came for came in server.peers[0].session.frames if came.kind == Kind.SETTINGS and came.flags]
        assert len(acks) == 21


# The limit


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_there_are_as_many_connections_as_the_limit_makes_necessary(
    open_transport: TransportMaker, limit: int
) -> None:
    gate = Gate()
    async with h2_serving(answering, first_settings={STREAMS: limit}) as server:
        transport = open_transport(server.url, max_connections=30)
        under_way = asking_all(transport, range(14), gate)
        await until(lambda: gate.count == 14)
        gate.opened.set()
        ends = await asyncio.gather(*under_way)
        assert kinds(ends) == [Reply] * 14
        assert len(server.peers) >= 14 // limit
        assert max(peer.session.most_open for peer in server.peers) <= limit


async def test_a_server_without_a_limit_gets_as_many_as_one_connection_may_carry(
    open_transport: TransportMaker,
) -> None:
    async with h2_serving(answering, first_settings={}) as server:
        transport = open_transport(server.url, max_connections=2)
        ends = await ask_all(transport, range(600))
        assert kinds(ends) == [Reply] * 600
        assert len(server.peers) <= 2


async def test_who_finds_no_room_waits_for_it_in_its_order(open_transport: TransportMaker) -> None:
    async def one_by_one(peer: H2Peer) -> None:
        for count in range(1, 13):
            peer.reply((await peer.requests(count))[-1])
        await peer.left()

    async with h2_serving(one_by_one, first_settings={STREAMS: 3}) as server:
        transport = open_transport(server.url, max_connections=1)
        ends = await ask_all(transport, range(12))
        assert kinds(ends) == [Reply] * 12
        assert [int(asked.body) for asked in server.whole] == list(range(12))
        assert server.peers[0].session.most_open <= 3


async def test_a_lower_limit_leaves_what_is_under_way_and_a_higher_one_lets_more_through(
    open_transport: TransportMaker,
) -> None:
    gate = Gate()

    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(5)
        peer.send(settings({STREAMS: 1}))
        await peer.said(Kind.SETTINGS, count=3)
        for one in asked:
            peer.reply(one)
        for count in (6, 7, 8):
            one = (await peer.requests(count))[-1]
            assert peer.session.open_now == 1
            peer.reply(one)
        peer.send(settings({STREAMS: 50}))
        await peer.requests(20)
        await answering(peer)

    async with h2_serving(script, first_settings={STREAMS: 5}) as server:
        transport = open_transport(server.url, max_connections=1)
        ends = await ask_all(transport, range(5))
        ends += await ask_all(transport, range(5, 8))
        many = asking_all(transport, range(8, 20), gate)
        gate.opened.set()
        ends += await asyncio.gather(*many)
        assert kinds(ends) == [Reply] * 20
        assert len(server.peers) == 1


@pytest.mark.parametrize("begins", [True, False], ids=["from the start", "later"])
async def test_a_limit_of_nothing_holds_until_it_is_raised(open_transport: TransportMaker, *, begins: bool) -> None:
    async def script(peer: H2Peer) -> None:
        if not begins:
            peer.reply((await peer.requests(1))[0])
            peer.send(settings({STREAMS: 0}))
            await peer.said(Kind.SETTINGS, count=3)
            peer.server.released.set()
        count = len(peer.session.asked)
        await peer.server.released.wait()
        await turns()
        assert len(peer.session.asked) == count
        peer.send(settings({STREAMS: 10}))
        await answering(peer)

    async with h2_serving(script, first_settings={STREAMS: 0 if begins else 10}) as server:
        transport = open_transport(server.url, max_connections=1)
        if not begins:
            assert await answered(transport, 99)
            await server.released.wait()
        under_way = asking_all(transport, range(3))
        await until(lambda: len(server.peers) == 1)
        await turns()
        server.released.set()
        assert kinds(await asyncio.gather(*under_way)) == [Reply] * 3
        assert len(server.peers) == 1


async def test_a_limit_that_falls_under_those_who_await_their_permits(open_transport: TransportMaker) -> None:
    """They have room in hand and it goes away: they are not sent beyond the limit, and all come to an end."""
    gate = Gate()

    async def script(peer: H2Peer) -> None:
        await peer.server.released.wait()
        peer.send(settings({STREAMS: 1}))
        await peer.said(Kind.SETTINGS, count=3)
        gate.opened.set()
        await answering(peer)

    async with h2_serving(script, first_settings={STREAMS: 10}) as server:
        transport = open_transport(server.url, max_connections=2)
        under_way = asking_all(transport, range(10), gate)
        await until(lambda: gate.count == 10)
        server.released.set()
        ends = await asyncio.gather(*under_way)
        assert set(kinds(ends)) <= {Reply, NOT_SENT}
        assert len(server.whole) == kinds(ends).count(Reply) >= 1
        assert await answered(transport, 99)


async def test_a_stream_that_is_refused_was_not_sent(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        for asked in await peer.requests(8):
            if int(asked.body) % 2:
                peer.send(rst_stream(asked.stream, Code.REFUSED_STREAM))
            else:
                peer.reply(asked)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(8))
        assert kinds(ends) == [Reply, NOT_SENT] * 4
        assert await answered(transport, 8)
        assert len(server.peers) == 1


# Permits


async def test_permits_are_asked_for_with_room_in_hand(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with h2_serving(answering, first_settings={STREAMS: 4}) as server:
        transport = open_transport(server.url, max_connections=2)
        under_way = asking_all(transport, range(20), gate)
        await until(lambda: gate.count == 8)
        await turns()
        assert (gate.count, server.asked, transport.open_connections) == (8, [], 2)
        gate.opened.set()
        assert kinds(await asyncio.gather(*under_way)) == [Reply] * 20
        assert gate.count == 20


async def test_what_a_permit_raises_leaves_its_room(open_transport: TransportMaker) -> None:
    async def refusing() -> None:
        raise LookupError("no")

    async with h2_serving(answering, first_settings={STREAMS: 2}) as server:
        transport = open_transport(server.url, max_connections=1)
        for number in range(10):
            for _ in range(3):
                with pytest.raises(LookupError):
                    await transport.exchange(asking(0), refusing)
            assert kinds(await ask_all(transport, range(number, number + 4))) == [Reply] * 4
        assert (len(server.peers), len(server.asked)) == (1, 40)


async def test_all_that_one_turn_of_the_loop_sends_leaves_in_one_piece(open_transport: TransportMaker) -> None:
    pieces: list[bytes] = []

    async def script(peer: H2Peer) -> None:
        took = peer.session.feed

        def feed(said: bytes) -> None:
            pieces.append(said)
            took(said)

        peer.session.feed = feed  # type: ignore[method-assign]
        await answering(peer)

    gate = Gate()
    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url, max_connections=1)
        assert await answered(transport, 0)
        pieces.clear()
        under_way = asking_all(transport, range(50), gate)
        await until(lambda: gate.count == 50)
        gate.opened.set()
        assert kinds(await asyncio.gather(*under_way)) == [Reply] * 50
        assert len(pieces) <= 2, "fifty requests, and what the replies made necessary"
        assert (await transport.exchange(asking(0), at_once)).status == 200
