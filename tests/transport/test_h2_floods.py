"""Servers that say too much of what carries nothing: answered by closing; a server that is only busy is not.

A flood here has no end, so that only closing ends it; it goes on as fast as the client takes it.
"""

from collections.abc import Callable
from typing import Final

import pytest

from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, answered, ask, ask_all, kinds
from tests.transport.h2_frames import (
    Code,
    Flag,
    Kind,
    block,
    data,
    frame,
    head,
    headers,
    ping,
    rst_stream,
    settings,
    window_update,
)
from tests.transport.h2_serving import H2Peer, answering, first, h2_serving
from tests.transport.h2_session import Asked
from tests.transport.scripted import turns

pytestmark = [h2_only, on_asyncio]

Saying = Callable[[int], bytes]
CALM: Final = {Code.ENHANCE_YOUR_CALM}
ANY: Final = {Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR, Code.INTERNAL_ERROR, Code.COMPRESSION_ERROR}
FLOODS: Final[dict[str, tuple[bytes, bytes]]] = {  # what begins it, and what is said again and again, on stream 1
    "pings": (b"", ping()),
    "settings": (b"", settings()),
    "settings that change nothing": (b"", settings([(0xFF, 1)] * 100)),
    "resets of what is over": (rst_stream(1), rst_stream(1)),
    "empty DATA": (headers(1, head(200)), data(1)),
    "DATA of padding": (headers(1, head(200)), data(1, padding=0)),
    "empty CONTINUATION": (frame(Kind.HEADERS, 1, head(200)), frame(Kind.CONTINUATION, 1)),
    "CONTINUATION": (frame(Kind.HEADERS, 1, head(200)), frame(Kind.CONTINUATION, 1, block(("x", "y" * 1000)))),
    "CONTINUATION of tiny fields": (frame(Kind.HEADERS, 1, head(200)), frame(Kind.CONTINUATION, 1, block(("x", "")))),
    "CONTINUATION of a field without end": (
        frame(Kind.HEADERS, 1, head(200) + b"\x00\x01x\x7f\xff\xff\xff\x07"),
        frame(Kind.CONTINUATION, 1, bytes(5000)),
    ),
    "hints": (b"", headers(1, head(103))),
    "priorities": (b"", frame(Kind.PRIORITY, 1, bytes(5))),
    "unknown frames": (b"", frame(0xBE)),
    "unknown frames of some size": (b"", frame(0xBE, 0, bytes(1000))),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_answered_by_closing(open_transport: TransportMaker, name: str) -> None:
    begin, again = FLOODS[name]

    async def script(peer: H2Peer) -> None:
        await peer.requests(1)
        peer.session.strict = False  # it acknowledges settings that nobody counts
        peer.raw(begin)
        while not peer.is_gone.is_set():
            peer.raw(again * max(1, 20_000 // len(again)))
            await turns()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        assert isinstance(await ask(transport, 0), LOST)
        await server.peers[0].left()
        assert server.peers[0].code in (ANY if "CONTINUATION" in name else CALM)
        assert await answered(transport, 1)
        assert transport.open_connections == 1


async def test_a_head_is_bounded(open_transport: TransportMaker) -> None:
    """As large as HTTP/1.1's it may be."""

    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(1)
        for size in (60_000, 2_000_000):
            field = block(("x", "y" * size))
            pieces = len(field) // 16_000 + 1
            peer.raw(headers(asked[-1].stream, head(200) + field, pieces=pieces, end=True))
            asked = await peer.requests(2)
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        got = await ask(transport, 0)
        assert isinstance(got, Reply)
        assert len(got.headers["x"]) == 60_000
        assert isinstance(await ask(transport, 1), LOST)
        assert await answered(transport, 2)


BUSY: Final[dict[str, Callable[[Asked], bytes]]] = {
    "a ping": lambda _: ping(),
    "a window": lambda _: window_update(0, 20),
    "settings": lambda _: settings(),
    "hints": lambda asked: headers(asked.stream, head(103)) * 2,
    "an unknown frame": lambda _: frame(0xBE, 0, b"x"),
    "a priority": lambda asked: frame(Kind.PRIORITY, asked.stream, bytes(5)),
}


@pytest.mark.parametrize("name", BUSY)
async def test_a_server_that_says_something_with_every_reply_is_no_flood(
    open_transport: TransportMaker, name: str
) -> None:
    async def script(peer: H2Peer) -> None:
        def say(asked: Asked) -> None:
            peer.send(BUSY[name](asked))
            peer.reply(asked)
            peer.raw(rst_stream(asked.stream, Code.NO_ERROR))

        peer.session.on_whole = say
        await peer.left()

    async with h2_serving(script) as server:
        transport = open_transport(server.url, max_connections=1)
        for number in range(0, 1_500, 100):
            assert kinds(await ask_all(transport, range(number, number + 100))) == [Reply] * 100
        assert len(server.peers) == 1


async def test_a_reply_in_thousands_of_frames_is_no_flood(open_transport: TransportMaker) -> None:
    body = b"0123456789" * 500

    async def script(peer: H2Peer) -> None:
        for asked in await peer.requests(3):
            peer.send(headers(asked.stream, head(200)))
            for byte in body:
                peer.send(data(asked.stream, bytes([byte])))
            peer.send(frame(Kind.DATA, asked.stream, flags=Flag.END_STREAM))
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(3))
        assert [isinstance(end, Reply) and end.body == body for end in ends] == [True] * 3
        assert await answered(transport, 3)


async def test_pings_are_answered_with_what_they_carry(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        for number in range(100):
            peer.send(ping(b"%08d" % number))
        await peer.said(Kind.PING, count=100)
        await answering(peer)

    async with h2_serving(script) as server:
        assert await answered(open_transport(server.url), 0)
        pings = [came for came in server.peers[0].session.frames if came.kind == Kind.PING]
        assert [(came.flags, came.payload) for came in pings] == [(Flag.ACK, b"%08d" % number) for number in range(100)]
