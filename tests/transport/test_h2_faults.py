"""What no server may say over HTTP/2, and what ends the connection: with which code, and that all on it is lost.

Two requests are under way, and the server says something wrong, with the first one's stream at hand.

Source: RFC 9113, sections 4 to 6 and 8; RFC 7541, sections 2 to 5. Where it leaves a choice, the table says so.
"""

from collections.abc import Callable, Collection
from typing import Final

import pytest

from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, answered, ask_all, kinds
from tests.transport.h2_frames import (
    DEFAULT_FRAME,
    MOST_STREAM,
    Code,
    Flag,
    Kind,
    Setting,
    data,
    frame,
    goaway,
    head,
    headers,
    indexed,
    integer,
    literal,
    ping,
    reply,
    rst_stream,
    settings,
    table_size,
    window_update,
)
from tests.transport.h2_serving import H2Peer, first, h2_serving

pytestmark = [h2_only, on_asyncio]  # what frames mean is the same on every loop

Saying = Callable[[int], bytes]  # what is said on a stream
OK: Final = head(200)
PROTOCOL, SIZE, FLOW = {Code.PROTOCOL_ERROR}, {Code.FRAME_SIZE_ERROR}, {Code.FLOW_CONTROL_ERROR}
COMPRESSION, CLOSED = {Code.COMPRESSION_ERROR}, {Code.STREAM_CLOSED}
IDLE: Final = 4001  # a stream that the client has not opened
PUSHED: Final = 2


def begun(stream: int, raw: bytes = OK) -> bytes:
    """Begin a field block and do not end it."""
    return frame(Kind.HEADERS, stream, raw)


# What ends the connection, and with which code

CONNECTION: Final[dict[str, tuple[Saying, Collection[Code]]]] = {
    "DATA on stream 0": (lambda _: data(0, b"x"), PROTOCOL),
    "HEADERS on stream 0": (lambda _: headers(0, OK, end=True), PROTOCOL),
    "PRIORITY on stream 0": (lambda _: frame(Kind.PRIORITY, 0, bytes(5)), PROTOCOL),
    "RST_STREAM on stream 0": (lambda _: rst_stream(0), PROTOCOL),
    "CONTINUATION on stream 0": (lambda _: frame(Kind.CONTINUATION, 0, OK, flags=Flag.END_HEADERS), PROTOCOL),
    "SETTINGS on a stream": (lambda stream: settings(stream=stream), PROTOCOL),
    "PING on a stream": (lambda stream: frame(Kind.PING, stream, bytes(8)), PROTOCOL),
    "GOAWAY on a stream": (lambda stream: frame(Kind.GOAWAY, stream, bytes(8)), PROTOCOL),
    "DATA on an idle stream": (lambda _: data(IDLE, b"x"), PROTOCOL),
    "HEADERS on an idle stream": (lambda _: headers(IDLE, OK, end=True), PROTOCOL),
    "RST_STREAM on an idle stream": (lambda _: rst_stream(IDLE), PROTOCOL),
    "WINDOW_UPDATE on an idle stream": (lambda _: window_update(IDLE, 1), PROTOCOL),
    "DATA on a stream of its own": (lambda _: data(PUSHED, b"x"), PROTOCOL),
    "HEADERS on a stream of its own": (lambda _: headers(PUSHED, OK, end=True), PROTOCOL),
    "RST_STREAM on a stream of its own": (lambda _: rst_stream(PUSHED), PROTOCOL),
    "a push": (
        lambda stream: frame(Kind.PUSH_PROMISE, stream, PUSHED.to_bytes(4, "big") + OK, flags=Flag.END_HEADERS),
        PROTOCOL,
    ),
    "a short RST_STREAM": (lambda stream: frame(Kind.RST_STREAM, stream, bytes(3)), SIZE),
    "a long RST_STREAM": (lambda stream: frame(Kind.RST_STREAM, stream, bytes(5)), SIZE),
    "SETTINGS of half a setting": (lambda _: frame(Kind.SETTINGS, 0, bytes(7)), SIZE),
    "an acknowledgement that sets something": (
        lambda _: frame(Kind.SETTINGS, 0, bytes(6), flags=Flag.ACK),
        SIZE,
    ),
    "a short PING": (lambda _: ping(bytes(7)), SIZE),
    "a long PING": (lambda _: ping(bytes(9)), SIZE),
    "a short GOAWAY": (lambda _: frame(Kind.GOAWAY, 0, bytes(7)), SIZE),
    "a short WINDOW_UPDATE": (lambda _: frame(Kind.WINDOW_UPDATE, 0, bytes(3)), SIZE),
    "a long WINDOW_UPDATE on a stream": (lambda stream: frame(Kind.WINDOW_UPDATE, stream, bytes(5)), SIZE),
    "a push switched on": (lambda _: settings({Setting.ENABLE_PUSH: 1}), PROTOCOL),
    "a push switched to 2": (lambda _: settings({Setting.ENABLE_PUSH: 2}), PROTOCOL),
    "a first window of 2^31": (lambda _: settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), FLOW),
    "frames that are too small": (lambda _: settings({Setting.MAX_FRAME_SIZE: DEFAULT_FRAME - 1}), PROTOCOL),
    "frames that are too large": (lambda _: settings({Setting.MAX_FRAME_SIZE: 2**24}), PROTOCOL),
    "settings that let a stream's window overflow": (
        lambda stream: (
            window_update(stream, MOST_STREAM - 65_535) + settings({Setting.INITIAL_WINDOW_SIZE: 65_536 + 1})
        ),
        FLOW,
    ),
    "a window made larger by 0": (lambda _: window_update(0, 0), PROTOCOL),
    "a window that overflows": (lambda _: window_update(0, MOST_STREAM), FLOW),
    "a window that overflows in two steps": (lambda _: window_update(0, 2**30) * 2, FLOW),
    "DATA within a field block": (lambda stream: begun(stream) + data(stream, b"x"), PROTOCOL),
    "DATA of another within a field block": (lambda stream: begun(stream) + data(stream + 2, b"x"), PROTOCOL),
    "HEADERS of another within a field block": (lambda stream: begun(stream) + headers(stream + 2, OK), PROTOCOL),
    "CONTINUATION of another within a field block": (
        lambda stream: begun(stream) + frame(Kind.CONTINUATION, stream + 2, b"", flags=Flag.END_HEADERS),
        PROTOCOL,
    ),
    "PING within a field block": (lambda stream: begun(stream) + ping(), PROTOCOL),
    "SETTINGS within a field block": (lambda stream: begun(stream) + settings(), PROTOCOL),
    "GOAWAY within a field block": (lambda stream: begun(stream) + goaway(MOST_STREAM), PROTOCOL),
    "an unknown frame within a field block": (lambda stream: begun(stream) + frame(0xBE, stream, b"x"), PROTOCOL),
    "CONTINUATION after a field block": (
        lambda stream: headers(stream, OK) + frame(Kind.CONTINUATION, stream, b"", flags=Flag.END_HEADERS),
        PROTOCOL,
    ),
    "CONTINUATION of nothing": (
        lambda stream: frame(Kind.CONTINUATION, stream, OK, flags=Flag.END_HEADERS),
        PROTOCOL,
    ),
    "DATA with more padding than payload": (
        lambda stream: headers(stream, OK) + frame(Kind.DATA, stream, b"\x04abc", flags=Flag.PADDED),
        PROTOCOL,
    ),
    "DATA with padding and nothing to say how much": (
        lambda stream: headers(stream, OK) + frame(Kind.DATA, stream, b"", flags=Flag.PADDED),
        PROTOCOL | SIZE,
    ),
    "HEADERS with more padding than payload": (
        lambda stream: frame(Kind.HEADERS, stream, b"\xff" + OK, flags=Flag.PADDED | Flag.END_HEADERS),
        PROTOCOL,
    ),
    "HEADERS whose padding reaches into the priority": (
        lambda stream: frame(
            Kind.HEADERS, stream, b"\x02" + bytes(6), flags=Flag.PADDED | Flag.PRIORITY | Flag.END_HEADERS
        ),
        PROTOCOL | SIZE,
    ),
    "HEADERS too short for their priority": (
        lambda stream: frame(Kind.HEADERS, stream, bytes(4), flags=Flag.PRIORITY | Flag.END_HEADERS),
        PROTOCOL | SIZE,
    ),
}

# A field block that cannot be decoded. The connection ends, whether or not anybody wants the fields.
STATUS: Final = b"\x88"
HPACK: Final[dict[str, bytes]] = {
    "index 0": STATUS + b"\x80",
    "an index beyond the static table": STATUS + indexed(62),
    "a name beyond the static table": STATUS + literal(62, b"x"),
    "an index far beyond": STATUS + indexed(2**20),
    "an integer without end": STATUS + b"\xff" + b"\x80" * 20 + b"\x01",
    "an integer that is cut": STATUS + b"\xff\x80",
    "a name that is cut": STATUS + b"\x00\x05abc",
    "a name without a value": STATUS + b"\x00\x03abc",
    "a value that is cut": STATUS + b"\x00\x03abc\x7f",
    "a string that is longer than the block": STATUS + b"\x00" + integer(2**30, prefix=7) + b"x",
    "a name with Huffman's end of string": STATUS + b"\x00\x84\xff\xff\xff\xff\x01y",
    "a name with Huffman's padding of zeros": STATUS + b"\x00\x81\x00\x01y",
    "a name with Huffman's padding of a whole byte": STATUS + b"\x00\x82\x1f\xff\x01y",
    "a status with Huffman's padding of a whole byte": b"\x08\x83\x10\x01\xff",
    "a table larger than allowed": table_size(4096) + STATUS,
    "a table's size after a field": STATUS + table_size(0),
    "a status that is cut": b"\x08\x03\x32\x30",
    "nothing but a literal's first byte": b"\x00",
}
CONNECTION.update(
    {
        f"a block with {name}": (lambda stream, raw=raw: headers(stream, raw, end=True), COMPRESSION)  # type: ignore[misc]
        for name, raw in HPACK.items()
    }
)
CONNECTION.update(
    {
        "trailers that cannot be decoded": (
            lambda stream: headers(stream, OK) + headers(stream, b"\x80", end=True),
            COMPRESSION,
        ),
        "a hint that cannot be decoded": (lambda stream: headers(stream, head(103) + b"\x80"), COMPRESSION),
    }
)


@pytest.mark.parametrize("name", CONNECTION)
async def test_what_is_wrong_with_the_connection_ends_it_with_its_code(
    open_transport: TransportMaker, name: str
) -> None:
    said, codes = CONNECTION[name]

    async def script(peer: H2Peer) -> None:
        victim, _ = await peer.requests(2)
        peer.session.strict = False  # it may acknowledge settings of which nobody takes account here
        peer.raw(said(victim.stream))
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(2))
        assert kinds(ends) == [LOST, LOST]
        await server.peers[0].left()
        assert server.peers[0].code in codes
        assert await answered(transport, 2)
        assert len(server.peers) == 2


@pytest.mark.parametrize("kind_", [Kind.HEADERS, Kind.DATA, Kind.SETTINGS, Kind.PING, 0xBE], ids=str)
async def test_a_frame_that_is_larger_than_allowed(open_transport: TransportMaker, kind_: int) -> None:
    """A stream's error would do for DATA."""

    async def script(peer: H2Peer) -> None:
        victim, _ = await peer.requests(2)
        size = peer.session.theirs[Setting.MAX_FRAME_SIZE] + 1
        peer.raw(headers(victim.stream, OK) if kind_ == Kind.DATA else b"")
        peer.raw(frame(kind_, victim.stream if kind_ < Kind.SETTINGS else 0, bytes(size)))
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        assert kinds(await ask_all(transport, range(2))) == [LOST, LOST]
        await server.peers[0].left()
        assert server.peers[0].code in SIZE
        assert await answered(transport, 2)


@pytest.mark.parametrize("follows", ["HEADERS", "DATA"])
async def test_what_follows_the_end_of_a_reply_ends_the_connection_and_the_reply_stays(
    open_transport: TransportMaker, follows: str
) -> None:
    async def script(peer: H2Peer) -> None:
        victim, _ = await peer.requests(2)
        more = headers(victim.stream, OK, end=True) if follows == "HEADERS" else data(victim.stream, b"x", end=True)
        peer.raw(reply(victim.stream, b"mine") + more)
        await peer.left()

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url)
        mine, other = await ask_all(transport, range(2))
        assert isinstance(mine, Reply)
        assert mine.body == b"mine"
        assert isinstance(other, LOST)
        await server.peers[0].left()
        assert server.peers[0].code in CLOSED | PROTOCOL
        assert await answered(transport, 2)
