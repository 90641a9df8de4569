"""How streams and connections end: GOAWAY, RST_STREAM, closing, cancelling, and what becomes of those under way."""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, NOT_SENT, answered, ask, ask_all, asking, asking_all, kinds
from tests.transport.h2_frames import (
    MOST_STREAM,
    Code,
    Kind,
    Setting,
    data,
    frame,
    goaway,
    head,
    headers,
    rst_stream,
)
from tests.transport.h2_serving import FIRST, H2Peer, Script, answering, first, h2_serving, silent
from tests.transport.scripted import Gate, jump, turns, until

pytestmark = [h2_only, on_asyncio]


def then_all_answered(peer: H2Peer) -> None:
    for asked in peer.session.whole:
        if asked.is_open and not asked.is_answered:
            peer.reply(asked)


# GOAWAY


@pytest.mark.parametrize("last", [0, 1, 5, 7, 8, 11, 4001, MOST_STREAM])
async def test_goaway_says_which_streams_were_not_received_and_the_others_go_on(
    open_transport: TransportMaker, last: int
) -> None:
    """Six streams: 1 to 11."""

    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(6)
        peer.send(goaway(last))
        await turns()
        for one in asked:
            if one.stream <= last:
                peer.reply(one)
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(6))
        assert kinds(ends) == [Reply if 2 * number + 1 <= last else NOT_SENT for number in range(6)]
        await server.peers[0].left()
        assert await answered(transport, 6)
        assert (len(server.peers), transport.open_connections) == (2, 1)
        assert len(server.peers[0].session.asked) == 6, "nothing new goes to a server that leaves"


async def test_a_graceful_goaway_first_names_no_stream_and_then_the_last_one(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(6)
        peer.send(goaway(MOST_STREAM))
        later = asking_all(transport, range(10, 13))
        assert kinds(await asyncio.gather(*later)) == [Reply] * 3
        peer.reply(asked[0])
        peer.send(goaway(asked[2].stream))
        peer.reply(asked[2])
        await turns()
        peer.reply(asked[1])
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(6))
        assert kinds(ends) == [Reply] * 3 + [NOT_SENT] * 3
        await server.peers[0].left()
        assert len(server.peers[0].session.asked) == 6
        assert len(server.peers[1].session.asked) == 3


async def test_a_goaway_that_names_a_later_stream_than_the_one_before_takes_nothing_back(
    open_transport: TransportMaker,
) -> None:
    """RFC 9113 forbids it; nobody may send twice because of it, and nobody waits for ever."""

    async def script(peer: H2Peer) -> None:
        await peer.requests(3)
        peer.send(goaway(1), goaway(5))
        then_all_answered(peer)
        await turns()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(3))
        assert kinds(ends)[1:] == [NOT_SENT] * 2
        assert await answered(transport, 4)


@pytest.mark.parametrize("code", [Code.INTERNAL_ERROR, Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR, 0xBEEF], ids=int)
@pytest.mark.parametrize("says", [b"", b"calm down \xff"])
async def test_a_hard_goaway_loses_what_the_server_may_have_received(
    open_transport: TransportMaker, code: int, says: bytes
) -> None:
    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(4)
        peer.reply(asked[0])
        peer.send(goaway(asked[1].stream, code, says))

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(4))
        assert kinds(ends) == [Reply, LOST, NOT_SENT, NOT_SENT]
        assert await answered(transport, 4)


async def test_an_idle_connection_that_the_server_leaves_is_closed_and_replaced(
    open_transport: TransportMaker,
) -> None:
    async def script(peer: H2Peer) -> None:
        peer.reply((await peer.requests(1))[0])
        await peer.server.released.wait()
        peer.send(goaway(1))
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        assert await answered(transport, 0)
        server.released.set()
        await until(lambda: transport.open_connections == 0)
        await server.peers[0].left()
        assert await answered(transport, 1)


async def test_who_awaits_a_permit_when_the_server_leaves_is_not_sent_on_it(open_transport: TransportMaker) -> None:
    gate = Gate()

    async def script(peer: H2Peer) -> None:
        await peer.server.released.wait()
        peer.send(goaway(0))
        await turns()
        gate.opened.set()
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        under_way = asking_all(transport, range(3), gate)
        await until(lambda: gate.count == 3)
        server.released.set()
        ends = await asyncio.gather(*under_way)
        assert set(kinds(ends)) <= {NOT_SENT, Reply}
        assert server.peers[0].session.asked == {}
        assert len(server.whole) == kinds(ends).count(Reply)
        assert await answered(transport, 5)


async def test_all_connections_are_left_at_once(open_transport: TransportMaker) -> None:
    """Half of what is under way was received, and is answered; nothing else arrives at those connections."""

    async def script(peer: H2Peer) -> None:
        await peer.server.released.wait()
        asked = await peer.requests(10)
        peer.send(goaway(asked[4].stream))
        for one in asked[:5]:
            peer.reply(one)
        await peer.left()

    async def chosen(peer: H2Peer) -> None:
        await (script if peer in peer.server.peers[:5] else answering)(peer)

    async with h2_serving(chosen, first_settings={Setting.MAX_CONCURRENT_STREAMS: 10}) as server:
        transport = open_transport(server.url, max_connections=5)
        under_way = asking_all(transport, range(50))
        await until(lambda: len(server.whole) == 50)
        server.released.set()
        ends = await asyncio.gather(*under_way)
        assert (kinds(ends).count(Reply), kinds(ends).count(NOT_SENT)) == (25, 25)
        assert kinds(await ask_all(transport, range(50, 100))) == [Reply] * 50
        assert all(len(peer.session.asked) == 10 for peer in server.peers[:5])


# RST_STREAM


@pytest.mark.parametrize("code", [*Code, 0xBEEF], ids=str)
async def test_a_reset_stream_was_refused_or_its_reply_is_lost(open_transport: TransportMaker, code: int) -> None:
    async def script(peer: H2Peer) -> None:
        victim, other = await peer.requests(2)
        peer.send(rst_stream(victim.stream, code))
        peer.reply(other)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        victim, other = await ask_all(transport, range(2))
        assert isinstance(victim, NOT_SENT if code == Code.REFUSED_STREAM else LOST)
        assert isinstance(other, Reply)
        assert await answered(transport, 2)
        assert len(server.peers) == 1


@pytest.mark.parametrize("code", [Code.REFUSED_STREAM, Code.NO_ERROR], ids=str)
async def test_a_stream_that_is_refused_after_its_head_was_answered_is_lost(
    open_transport: TransportMaker, code: Code
) -> None:
    """A server that has begun to answer has received it, whatever it says afterwards."""

    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        peer.send(headers(asked.stream, head(200)), rst_stream(asked.stream, code))
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        assert isinstance(await ask(transport, 0), LOST)
        assert await answered(transport, 2)


# The server closes

CLOSING: Final[dict[str, Callable[[H2Peer], None]]] = {
    "closed": H2Peer.close,
    "reset": H2Peer.reset,
    "half closed": H2Peer.half_close,
}


@pytest.mark.parametrize("name", CLOSING)
async def test_what_is_under_way_when_the_server_closes_is_lost(open_transport: TransportMaker, name: str) -> None:
    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(3)
        peer.reply(asked[0])
        peer.send(headers(asked[1].stream, head(200)), data(asked[1].stream, b"half"))
        await turns()
        CLOSING[name](peer)
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        assert kinds(await ask_all(transport, range(3))) == [Reply, LOST, LOST]
        await server.peers[0].left()
        assert await answered(transport, 3)


@pytest.mark.parametrize("name", CLOSING)
@pytest.mark.parametrize("moment", ["before it is asked for", "with the permit"])
async def test_a_server_that_closes_in_the_instant_of_reuse(
    open_transport: TransportMaker, name: str, moment: str
) -> None:
    """Whoever says "not sent" must be right, and what was lost did not come back as another request."""

    async with h2_serving(first(once)) as server:
        transport = open_transport(server.url, max_connections=1)
        assert await answered(transport, 0)
        peer = server.peers[0]

        async def permit() -> None:
            if moment == "with the permit":
                CLOSING[name](peer)

        if moment == "before it is asked for":
            CLOSING[name](peer)
        got = await ask(transport, 1, permit)
        await peer.left()
        came = [bytes(asked.body) for asked in server.asked].count(b"1")
        assert came == 1 if isinstance(got, Reply) else came == 0 or isinstance(got, ReplyLostError)
        assert await answered(transport, 2)


async def once(peer: H2Peer) -> None:
    peer.reply((await peer.requests(1))[0])
    await peer.left()


@pytest.mark.parametrize("name", CLOSING)
async def test_an_idle_connection_whose_end_was_seen_is_replaced(open_transport: TransportMaker, name: str) -> None:
    async with h2_serving(first(once)) as server:
        transport = open_transport(server.url)
        assert await answered(transport, 0)
        CLOSING[name](server.peers[0])
        await until(lambda: transport.open_connections == 0)
        assert await answered(transport, 1)


# The client stops waiting

WITHIN: Final[dict[str, Script]] = {
    "before the head": silent,
    "after the head": lambda peer: begun(peer, headers(1, head(200))),
    "within the body": lambda peer: begun(peer, headers(1, head(200)) + data(1, b"half")),
    "after a hint": lambda peer: begun(peer, headers(1, head(103))),
}


async def begun(peer: H2Peer, said: bytes) -> None:
    await peer.requests(1)
    peer.send(said)
    await peer.left()


@pytest.mark.parametrize("way", ["cancelled", "too late"])
@pytest.mark.parametrize("name", WITHIN)
async def test_who_stops_waiting_cancels_its_stream_alone(open_transport: TransportMaker, name: str, way: str) -> None:
    """What comes of its reply afterwards is nobody's."""
    async with h2_serving(WITHIN[name], first_settings=FIRST) as server:
        transport = open_transport(server.url, timeout_s=60)
        under_way = asyncio.create_task(ask(transport, 0))
        await until(lambda: len(server.whole) == 1)
        await turns()
        peer = server.peers[0]
        beside = asyncio.create_task(answered(transport, 9))
        await until(lambda: len(server.whole) == 2)
        peer.reply(server.whole[1])
        assert await beside, "so the connection is well"
        if way == "cancelled":
            under_way.cancel()
        else:
            jump(61)
        (end,) = await asyncio.gather(under_way, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError if way == "cancelled" else ReplyLostError)
        assert (await peer.said(Kind.RST_STREAM, stream=1)).code == Code.CANCEL
        others = asking_all(transport, range(1, 4))
        await until(lambda: len(server.whole) == 5)
        if "body" not in name and "head" in name:
            peer.send(headers(1, head(200)) if "before" in name else b"")
        peer.send(data(1, b"late", end=True) if "hint" not in name else headers(1, head(200), end=True))
        then_all_answered(peer)
        assert kinds(await asyncio.gather(*others)) == [Reply] * 3
        assert (len(server.peers), transport.open_connections) == (1, 1)


async def test_an_exchange_may_be_cancelled_in_any_step(open_transport: TransportMaker) -> None:
    """With room for one stream on one connection: what follows each proves that nothing is held."""

    async def permit() -> None:
        await turns()

    async with h2_serving(answering, first_settings={Setting.MAX_CONCURRENT_STREAMS: 1}) as server:
        transport = open_transport(server.url, max_connections=1)
        for steps in range(200):
            under_way = asyncio.create_task(transport.exchange(asking(steps), permit))
            for _ in range(steps):
                await asyncio.sleep(0)
            was_over = under_way.done()
            under_way.cancel()
            await asyncio.gather(under_way, return_exceptions=True)
            assert await answered(transport, 1000 + steps)
            if was_over:
                break
        else:
            pytest.fail("no exchange came to its end")
        assert len(server.peers) == 1


@pytest.mark.parametrize("script", [silent, answering], ids=["nothing is answered", "all is answered"])
async def test_closing_ends_every_stream_and_connection(open_transport: TransportMaker, script: Script) -> None:
    gate = Gate()
    async with h2_serving(script, first_settings={Setting.MAX_CONCURRENT_STREAMS: 5}) as server:
        transport = open_transport(server.url, max_connections=2)
        sent = asking_all(transport, range(5))
        await until(lambda: len(server.whole) == 5)
        held = asking_all(transport, range(5, 20), gate)
        await until(lambda: gate.count >= 5)
        await transport.aclose()
        ends = await asyncio.gather(*sent, *held)
        assert set(kinds(ends[:5])) <= {LOST, Reply}
        assert kinds(ends[5:]) == [NotSentError] * 15
        assert len(server.asked) == 5
        await server.all_gone()
        assert transport.open_connections == 0


async def test_what_comes_with_a_goodbye_in_one_piece_is_read(open_transport: TransportMaker) -> None:
    """Replies, GOAWAY and the end of the connection in one write: nothing of it is thrown away."""

    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(3)
        said = b"".join(headers(one.stream, head(200)) + data(one.stream, b"r", end=True) for one in asked[:2])
        peer.send(said + goaway(3) + frame(0xFA, 0, b"bye"))

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        assert kinds(await ask_all(transport, range(3))) == [Reply, Reply, NOT_SENT]
