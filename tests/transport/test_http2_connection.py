"""What a connection tells its exchanges and its pool when the server breaks rules, says goodbye or allows nothing.

Without a socket, so that what comes can come between gathering requests and writing them.
"""

import asyncio
from typing import Final

import pytest

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Reply, WireRequest
from sendengine.settings import TransportSettings
from sendengine.transport.direct.http2.connection import NO_STREAMS, Http2Connection
from sendengine.transport.direct.http2.heads import RequestBlocks
from sendengine.transport.direct.http2.liveness import STUCK_S
from sendengine.transport.direct.pool import Pool
from sendengine.transport.direct.wheel import Wheel
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import answered, asking_all
from tests.transport.h2_frames import (
    MOST_STREAM,
    Code,
    Frame,
    Kind,
    Setting,
    data,
    frame,
    goaway,
    head,
    headers,
    parsed,
    ping,
    rst_stream,
    settings,
    window_update,
)
from tests.transport.h2_serving import H2Peer, answering, first, h2_serving, silent
from tests.transport.scripted import jump, turns, until

pytestmark = on_asyncio

STREAMS: Final = Setting.MAX_CONCURRENT_STREAMS
PUSH: Final = frame(Kind.PUSH_PROMISE, 1, bytes(4))  # which no server may send
TIMEOUT_S: Final = 30
CONNECT_TIMEOUT_S: Final = 10
SETTINGS: Final = TransportSettings(timeout_s=TIMEOUT_S, connect_timeout_s=CONNECT_TIMEOUT_S, max_reply_bytes=10_000)


class Line(asyncio.Transport):
    """Takes what is written, and tells nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_over
        self.written += data

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True


class Side:
    """A client's connection in its pool, and what a server says to it."""

    def __init__(self, *, limit: int = 100) -> None:
        self.line = Line()
        self.limit = limit
        self.wheel = Wheel()
        self.pool = Pool(self._dial, max_connections=1)
        self.connection = Http2Connection(
            pool=self.pool,
            blocks=RequestBlocks("http://127.0.0.1", "key"),
            wheel=self.wheel,
            settings=SETTINGS,
            lifetime_s=300,
            buffer=memoryview(bytearray(65_536)),
            outdated=self.pool.go_on,
        )

    async def _dial(self) -> Http2Connection:
        self.connection.connection_made(self.line)
        self.say(settings({STREAMS: self.limit}))
        await self.connection.greeted()
        return self.connection

    def say(self, *frames: bytes) -> None:
        said = b"".join(frames)
        self.connection.get_buffer(-1)[: len(said)] = said
        self.connection.buffer_updated(len(said))

    async def send(self, number: int) -> "asyncio.Future[Reply]":
        """Send a request that has its room; it is written at the end of the turn."""
        connection = await self.pool.obtain()
        reply = connection.send(WireRequest("POST", "/notifications", b"%d" % number))
        assert reply is not None
        return reply

    def came(self) -> list[Frame]:
        """Return all that the server has got, beside the greeting."""
        frames, rest = parsed(self.line.written.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        assert not rest
        return [each for each in frames if each.kind not in {Kind.SETTINGS, Kind.WINDOW_UPDATE}]

    def requests(self) -> list[bytes]:
        return [each.payload for each in self.came() if each.kind == Kind.DATA]


def replies(*streams: int) -> bytes:
    return b"".join(headers(stream, head(200)) + data(stream, b"{}", end=True) for stream in streams)


async def begun(*, written: int, gathered: int, limit: int = 100) -> "tuple[Side, list[asyncio.Future[Reply]]]":
    """Have requests under way, and some that are to be written at the end of this turn."""
    side = Side(limit=limit)
    sent = [await side.send(number) for number in range(written)]
    await turns()
    assert len(side.requests()) == written
    return side, sent + [await side.send(written + number) for number in range(gathered)]


async def ended(sent: "list[asyncio.Future[Reply]]") -> list[type]:
    await turns()
    return [type(end) for end in await asyncio.gather(*sent, return_exceptions=True)]


async def test_room_that_is_claimed_is_used_while_a_window_is_closed_for_a_moment_and_not_after_that() -> None:
    side = Side()
    held = [await side.pool.obtain() for _ in range(3)]
    large = WireRequest("POST", "/notifications", bytes(100_000))
    assert held[0].send(large) is not None
    assert (side.pool.take(), side.connection.has_room) == (None, False), "offered no more, at once"
    await turns()
    assert held[1].send(large) is not None, "the way to the server and back takes as long"
    jump(STUCK_S)
    assert held[2].send(large) is None
    await turns()
    side.say(window_update(0, 200_000), window_update(1, 100_000), window_update(3, 100_000))
    await turns()
    assert side.pool.take() is side.connection
    assert held[2].send(large) is not None


async def test_room_that_is_claimed_is_used_while_the_server_does_not_read_for_a_moment_and_not_after_that() -> None:
    side = Side()
    held = [await side.pool.obtain() for _ in range(3)]
    requests = [WireRequest("POST", "/notifications", b"%d" % number) for number in range(3)]
    side.connection.pause_writing()
    assert (side.pool.take(), side.connection.has_room) == (None, False), "offered no more, at once"
    assert held[0].send(requests[0]) is not None
    await turns()
    assert held[1].send(requests[1]) is not None
    await turns()
    assert side.requests() == [], "their bodies wait, and do not pile up behind what nobody reads"
    jump(STUCK_S)
    assert held[2].send(requests[2]) is None
    side.connection.resume_writing()
    await turns()
    assert side.requests() == [b"0", b"1"]
    assert side.pool.take() is side.connection
    assert held[2].send(requests[2]) is not None


async def test_a_window_that_opens_by_little_is_no_end_of_the_patience_unless_something_is_sent() -> None:
    side = Side()
    connection = await side.pool.obtain()
    assert connection.send(WireRequest("POST", "/notifications", bytes(100_000))) is not None
    await turns()
    side.say(window_update(1, 100_000))
    await turns()
    for _ in range(2):
        jump(CONNECT_TIMEOUT_S - 1)
        side.say(window_update(0, 1))
        await turns()
        side.connection.expire()
        assert side.connection.room == 100
    side.say(window_update(1, 1))
    jump(CONNECT_TIMEOUT_S)
    side.connection.expire()
    assert (side.connection.room, side.connection.is_gone) == (0, False), "retired, and it goes on for its stream"


async def test_what_a_fault_finds_gathered_is_not_written_and_was_not_sent() -> None:
    side, sent = await begun(written=2, gathered=3)
    side.say(PUSH)
    assert await ended(sent) == [ReplyLostError] * 2 + [NotSentError] * 3
    assert side.requests() == [b"0", b"1"]
    assert [(each.kind, each.code) for each in side.came()[-1:]] == [(Kind.GOAWAY, Code.PROTOCOL_ERROR)]


@pytest.mark.parametrize("last", [1, 3, 5, MOST_STREAM])
async def test_what_a_goodbye_finds_gathered_is_not_written_and_was_not_sent(last: int) -> None:
    side, sent = await begun(written=2, gathered=3)
    side.say(goaway(last), replies(*range(1, min(last, 3) + 1, 2)))
    assert await ended(sent) == [Reply] + [NotSentError if last == 1 else Reply] + [NotSentError] * 3
    assert side.requests() == [b"0", b"1"]
    assert side.pool.busy == 0


async def test_what_is_overdue_and_was_never_written_was_not_sent() -> None:
    """The loop was held up for longer than a reply may take, and its timers came before what it was to write."""
    side, sent = await begun(written=2, gathered=2)
    side.say(replies(3))
    jump(TIMEOUT_S + 1)
    side.connection.expire()
    assert await ended(sent) == [ReplyLostError, Reply] + [NotSentError] * 2
    assert side.requests() == [b"0", b"1"]
    assert [each.stream for each in side.came() if each.kind == Kind.RST_STREAM] == [1]
    assert side.pool.busy == 0
    (asked,) = [each for each in side.came() if each.kind == Kind.PING]
    side.say(ping(asked.payload, ack=True))
    again = await side.send(9)
    await turns()
    side.say(replies(9))
    assert await ended([again]) == [Reply]


@pytest.mark.parametrize("said", [replies(3), data(3), rst_stream(3, Code.REFUSED_STREAM), window_update(3, 1)])
async def test_what_was_not_written_yet_the_server_cannot_speak_of(said: bytes) -> None:
    """Else a reply could come to a request that is written after it, or a refusal to one that is then received."""
    side, sent = await begun(written=1, gathered=1)
    side.say(said)
    assert await ended(sent) == [ReplyLostError, NotSentError]
    assert side.requests() == [b"0"]
    assert side.came()[-1].code == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("answered_before", [0, 3, 5])
async def test_replies_that_come_together_with_a_fault_leave_no_room_claimed(answered_before: int) -> None:
    side, sent = await begun(written=5, gathered=0)
    side.say(replies(*range(1, 2 * answered_before, 2)), PUSH)
    assert await ended(sent) == [Reply] * answered_before + [ReplyLostError] * (5 - answered_before)
    assert side.pool.busy == 0


# A limit of nothing


@h2_only
async def test_a_server_that_allows_no_streams_for_too_long_was_not_sent_to(open_transport: TransportMaker) -> None:
    async with h2_serving(silent, first_settings={STREAMS: 0}) as server:
        transport = open_transport(server.url, max_connections=20, connect_timeout_s=CONNECT_TIMEOUT_S)
        under_way = asking_all(transport, range(3))
        await until(lambda: transport.open_connections > 0)
        for _ in range(int(CONNECT_TIMEOUT_S) - 1):
            jump(1)
            await turns()
            under_way += asking_all(transport, range(3))
        assert not any(task.done() for task in under_way)
        assert len(server.peers) <= 5, "few others beside it"
        jump(1.5)
        for end in await asyncio.gather(*under_way):
            assert isinstance(end, NotSentError)
            assert str(end) == NO_STREAMS
        jump(CONNECT_TIMEOUT_S)
        await server.all_gone()
        assert (server.asked, transport.capacity, server.peers[0].code) == ([], 0, Code.NO_ERROR)


@h2_only
async def test_a_connection_that_allows_none_by_now_holds_up_no_other_and_is_left_in_the_end(
    open_transport: TransportMaker,
) -> None:
    async def none_again(peer: H2Peer) -> None:
        peer.reply((await peer.requests(1))[0])
        peer.send(settings({STREAMS: 0}))
        await peer.left()

    async with h2_serving(first(none_again, answering)) as server:
        transport = open_transport(server.url, connect_timeout_s=CONNECT_TIMEOUT_S)
        assert await answered(transport, 0)
        await until(lambda: transport.capacity == 0)
        assert await answered(transport, 1)
        jump(CONNECT_TIMEOUT_S + 0.1)
        await server.peers[0].left()
        assert (server.peers[0].code, transport.open_connections) == (Code.NO_ERROR, len(server.peers) - 1)


@h2_only
async def test_replies_under_way_still_come_where_no_more_streams_are_allowed(open_transport: TransportMaker) -> None:
    async def last_words(peer: H2Peer) -> None:
        asked = await peer.requests(2)
        peer.send(settings({STREAMS: 0}))
        await peer.server.released.wait()
        for one in asked:
            peer.reply(one)
        await peer.left()

    async with h2_serving(first(last_words, answering)) as server:
        transport = open_transport(server.url, connect_timeout_s=CONNECT_TIMEOUT_S)
        under_way = asking_all(transport, range(2))
        await until(lambda: bool(server.peers) and len(server.peers[0].session.whole) == 2 and not transport.capacity)
        assert await answered(transport, 2)
        jump(CONNECT_TIMEOUT_S + 0.1)
        assert await answered(transport, 3)
        server.released.set()
        assert [type(end) for end in await asyncio.gather(*under_way)] == [Reply] * 2
        await server.peers[0].left()
