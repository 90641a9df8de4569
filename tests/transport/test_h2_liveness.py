"""Connections that fall silent, grow old, are used up or are not read: what is on them ends, and the others go on."""

import asyncio
from typing import Final

import pytest

from sendengine.errors import ReplyLostError
from sendengine.ports import Reply, Transport, WireRequest
from sendengine.transport import DirectTransport
from sendengine.transport.direct.http2.connection import Http2Connection
from sendengine.transport.direct.http2.liveness import IDLE_PING_S, PONG_S, SILENT_S
from sendengine.transport.lifetimes import MAX_AGE_S
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, answered, ask, ask_all, asking_all, kinds
from tests.transport.h2_frames import MOST_STREAM, Flag, Kind, Setting, ping
from tests.transport.h2_serving import H2Peer, H2Server, answering, first, h2_serving, silent
from tests.transport.scripted import at_once, jump, outcome, turns, until

pytestmark = [h2_only, on_asyncio]  # time is put forward

STREAMS: Final = Setting.MAX_CONCURRENT_STREAMS


async def later(seconds: float) -> None:
    """Let time pass, in steps within which everybody may answer."""
    step = min(PONG_S, SILENT_S, IDLE_PING_S) / 2
    while seconds > 0:
        jump(min(step, seconds))
        seconds -= step
        for _ in range(4):
            await turns()


def pings(peer: H2Peer) -> int:
    return sum(came.kind == Kind.PING and not came.flags & Flag.ACK for came in peer.session.frames)


async def deaf(peer: H2Peer) -> None:
    """Answer nothing, not even pings."""
    peer.session.pongs = False
    await peer.left()


async def deaf_later(peer: H2Peer) -> None:
    peer.reply((await peer.requests(1))[0])
    await deaf(peer)


# Pings


async def test_an_idle_connection_is_kept_alive_by_pings(open_transport: TransportMaker) -> None:
    async with h2_serving() as server:
        transport = open_transport(server.url)
        for number in range(3):
            assert await answered(transport, number)
            await later(IDLE_PING_S + 1)
            await server.peers[0].said(Kind.PING, count=number + 1)
        assert (len(server.peers), transport.open_connections) == (1, 1)


async def test_an_idle_connection_that_does_not_answer_a_ping_is_closed(open_transport: TransportMaker) -> None:
    async with h2_serving(first(deaf_later)) as server:
        transport = open_transport(server.url)
        assert await answered(transport, 0)
        await later(IDLE_PING_S + 1)
        await server.peers[0].said(Kind.PING)
        assert transport.open_connections == 1
        await later(PONG_S + 1)
        await until(lambda: transport.open_connections == 0)
        assert await answered(transport, 1)
        assert len(server.peers) == 2


async def test_an_exchange_whose_server_answers_pings_has_all_its_time(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        await peer.server.released.wait()
        peer.reply(asked)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url, timeout_s=60)
        under_way = asyncio.create_task(answered(transport, 0))
        await until(lambda: len(server.whole) == 1)
        await later(59)
        assert pings(server.peers[0]) >= 1
        server.released.set()
        assert await under_way
        assert await answered(transport, 1)
        assert len(server.peers) == 1


@pytest.mark.parametrize("says", ["nothing", "an answer to another ping"])
async def test_a_connection_that_does_not_answer_a_ping_is_dead_before_its_exchanges_are_too_late(
    open_transport: TransportMaker, says: str
) -> None:
    async def script(peer: H2Peer) -> None:
        peer.session.pongs = False
        await peer.said(Kind.PING)
        if says != "nothing":
            peer.send(ping(b"another!", ack=True))
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url, timeout_s=600)
        under_way = asking_all(transport, range(3))
        await until(lambda: len(server.whole) == 3)
        await turns()  # until nothing is on its way any more, which would be a sign of life
        jump(SILENT_S + 0.1)
        await server.peers[0].said(Kind.PING)
        await turns()
        jump(PONG_S + 0.1)
        assert kinds(await asyncio.gather(*under_way)) == [LOST] * 3
        await server.peers[0].left()
        assert await answered(transport, 4)


async def test_a_connection_that_answers_pings_and_nothing_else_is_left(open_transport: TransportMaker) -> None:
    """What is lost on it is sent again, and would be lost there again."""
    async with h2_serving(first(silent)) as server:
        transport = open_transport(server.url, timeout_s=60)
        under_way = asking_all(transport, range(3))
        await until(lambda: len(server.whole) == 3)
        await later(61)
        assert kinds(await asyncio.gather(*under_way)) == [LOST] * 3
        await server.peers[0].left()
        assert await answered(transport, 4)
        assert (len(server.peers), server.peers[0].code) == (2, 0)


async def test_a_connection_that_answers_what_came_after_an_overdue_request_is_kept(
    open_transport: TransportMaker,
) -> None:
    async def script(peer: H2Peer) -> None:
        _, second = await peer.requests(2)
        peer.reply(second)
        await peer.server.released.wait()
        peer.reply((await peer.requests(3))[2])

    async with h2_serving(script) as server:
        transport = open_transport(server.url, timeout_s=60)
        under_way = asking_all(transport, range(2))
        assert isinstance(await under_way[1], Reply)
        await later(61)
        assert isinstance(await under_way[0], ReplyLostError)
        server.released.set()
        assert await answered(transport, 4)
        assert len(server.peers) == 1


async def test_a_dead_connection_stalls_nobody_on_the_others(open_transport: TransportMaker) -> None:
    """What was on it is lost after its ping; what is asked for meanwhile goes over the others."""
    async with h2_serving(first(deaf), first_settings={STREAMS: 5}) as server:
        transport = open_transport(server.url, max_connections=3, timeout_s=600)
        under_way = asking_all(transport, range(10))
        await until(lambda: len(server.whole) == 10)
        held = len(server.peers[0].session.whole)
        assert held
        await turns()
        jump(SILENT_S + 0.1)
        await server.peers[0].said(Kind.PING)
        for number in range(10, 60, 10):
            assert kinds(await ask_all(transport, range(number, number + 10))) == [Reply] * 10
        assert len(server.peers[0].session.whole) == held, "it gets nothing new before it answers"
        assert sum(task.done() for task in under_way) == 10 - held
        jump(PONG_S + 0.1)
        assert sorted(kinds(await asyncio.gather(*under_way)), key=str) == sorted(
            [Reply] * (10 - held) + [LOST] * held, key=str
        )


# Age


async def test_a_connection_that_is_too_old_loses_no_stream(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(3)
        await peer.server.released.wait()
        for one in asked:
            peer.reply(one)
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url, timeout_s=1_000)
        under_way = asking_all(transport, range(3))
        await until(lambda: len(server.whole) == 3)
        await later(MAX_AGE_S + 1)
        assert await answered(transport, 4)
        assert len(server.peers) == 2, "it takes nothing new"
        assert transport.open_connections == 2
        server.released.set()
        assert kinds(await asyncio.gather(*under_way)) == [Reply] * 3
        await server.peers[0].left()
        assert transport.open_connections == 1
        assert server.peers[0].code == 0


async def test_under_load_connections_are_replaced_and_nothing_is_lost(open_transport: TransportMaker) -> None:
    async with h2_serving(first_settings={STREAMS: 4}) as server:
        transport = open_transport(server.url, max_connections=4)
        for number in range(0, 1_600, 16):
            assert kinds(await ask_all(transport, range(number, number + 16))) == [Reply] * 16
            jump(7)
            await turns()
        assert len(server.whole) == 1_600
        assert 8 <= len(server.peers) <= 40, "700 s, and at most 150 to 300 s each"
        assert transport.open_connections <= 8


# Numbers of streams


def next_stream_is(transport: Transport, number: int) -> None:
    """Let the one connection that is open have used so many; a server cannot bring that about in a test's time."""
    assert isinstance(transport, DirectTransport)
    (connection,) = transport._pool._open
    assert isinstance(connection, Http2Connection)
    connection._sender.next_number = number


async def test_when_the_numbers_of_streams_are_used_up_another_connection_goes_on(
    open_transport: TransportMaker,
) -> None:
    async with h2_serving() as server:
        transport = open_transport(server.url)
        assert await answered(transport, 0)
        next_stream_is(transport, MOST_STREAM - 4)
        for number in range(1, 3):
            assert await answered(transport, number)
        ends = await ask_all(transport, range(3, 8))
        assert set(kinds(ends)) <= {Reply, *kinds(ends[1:])}
        assert all(isinstance(end, Reply) or "not" in str(end).lower() or "no more" in str(end) for end in ends)
        assert await answered(transport, 9)
        assert [*server.peers[0].session.asked] == [1, MOST_STREAM - 4, MOST_STREAM - 2, MOST_STREAM]
        await server.peers[0].left()
        assert server.peers[0].session.faults == []


# A server that does not read


async def not_reading(peer: H2Peer) -> None:
    await peer.requests(1)
    peer.session.pongs = False
    peer.pause()
    await peer.server.released.wait()


async def test_a_server_that_stops_reading_holds_up_only_what_it_has(open_transport: TransportMaker) -> None:
    """Its window is large, so that it is the socket which is full; time ends what is on it."""
    large = WireRequest("POST", "/notifications", b"x" * 5_000_000)
    windows = {STREAMS: 4, Setting.INITIAL_WINDOW_SIZE: MOST_STREAM}

    async def script(peer: H2Peer) -> None:
        peer.send(b"\0\0\4\x08\0\0\0\0\0\x3f\xff\xff\xff")
        await not_reading(peer)

    async with h2_serving(first(script), first_settings=windows) as server:
        transport = open_transport(server.url, max_connections=3, timeout_s=60)
        stuck = [asyncio.create_task(outcome(transport.exchange(large, at_once)))]
        small = asyncio.create_task(ask(transport, 0))
        await until(lambda: _is_paused(server))
        for number in range(10, 50, 4):
            ends = await ask_all(transport, range(number, number + 4))
            assert kinds(ends) == [Reply] * 4
        jump(61)
        assert {type(await task) for task in [*stuck, small]} <= {ReplyLostError, Reply}
        assert isinstance(await stuck[0], ReplyLostError)
        assert await answered(transport, 99)
        await transport.aclose()
        assert transport.open_connections == 0, "closing does not wait for the server to read"
        server.released.set()


def _is_paused(server: H2Server) -> bool:
    if not server.peers or server.peers[0].transport is None:
        return False
    return not server.peers[0].transport.is_reading()


async def test_who_waits_for_room_gets_it_when_a_silent_connection_is_given_up(
    open_transport: TransportMaker,
) -> None:
    """One connection may be open, and it does not answer."""
    async with h2_serving(first(silent), first_settings={STREAMS: 2}) as server:
        transport = open_transport(server.url, max_connections=1, timeout_s=60)
        under_way = asking_all(transport, range(2))
        await until(lambda: len(server.whole) == 2)
        server.peers[0].session.pongs = False
        waiting = asking_all(transport, range(2, 6))
        await turns()
        jump(SILENT_S + 0.1)
        await server.peers[0].said(Kind.PING)
        await turns()
        jump(PONG_S + 0.1)
        assert kinds(await asyncio.gather(*under_way)) == [LOST] * 2
        assert kinds(await asyncio.gather(*waiting)) == [Reply] * 4
