"""What no server may say on a stream of HTTP/2: it ends that stream, with its code, and nothing else.

Two requests are under way, and the server says something wrong on the first one's stream; the second one is answered
afterwards, and so is a third, over the same connection.

Source: RFC 9113, sections 5 and 8. Where it leaves a choice, the table says so.
"""

from collections.abc import Callable, Collection
from typing import Final

import pytest

from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, answered, ask_all
from tests.transport.h2_frames import (
    MOST_STREAM,
    Code,
    Kind,
    block,
    data,
    frame,
    head,
    headers,
    rst_stream,
    window_update,
)
from tests.transport.h2_serving import H2Peer, answering, h2_serving
from tests.transport.scripted import turns

pytestmark = [h2_only, on_asyncio]  # what frames mean is the same on every loop

Saying = Callable[[int], bytes]  # what is said on a stream
OK: Final = head(200)
PROTOCOL, SIZE, FLOW = {Code.PROTOCOL_ERROR}, {Code.FRAME_SIZE_ERROR}, {Code.FLOW_CONTROL_ERROR}
STATUS: Final = b"\x88"


# What is wrong with a value that nobody asks for: the client may pass it over, and then it may be read all the same

VALUES: Final[dict[str, bytes]] = {
    "Huffman's end of string": b"\x00\x01a\x84\xff\xff\xff\xff",
    "Huffman's padding of zeros": b"\x00\x01a\x81\x00",
    "Huffman's padding of a whole byte": b"\x00\x01a\x82\x1f\xff",
    "a line end": block(("x", "y\r\nz: 1")),
    "LF": block(("x", "y\nz")),
    "NUL": block(("x", "y\0z")),
    "spaces around it": block(("x", " y ")),
    "no text at all": block(("x", b"\xff\xfe")),
}


@pytest.mark.parametrize("name", VALUES)
async def test_a_value_that_is_wrong_is_harmless(open_transport: TransportMaker, name: str) -> None:
    async def script(peer: H2Peer) -> None:
        victim, other = await peer.requests(2)
        peer.send(headers(victim.stream, STATUS + VALUES[name], end=True))
        peer.reply(other)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        for end in await ask_all(transport, range(2)):
            if isinstance(end, Reply):
                assert all(len(value) < 20 for value in dict(end.headers).values())
                assert end.headers.get("retry-after") is None
            else:
                assert isinstance(end, LOST)
        assert await answered(transport, 2)


# What ends the stream, and with which code

WHOLE: Final = b'{"id":"m"}'


def bad(*fields: tuple[str | bytes, str | bytes]) -> Saying:
    """Say a whole reply with these fields."""
    return lambda stream: headers(stream, block(*fields), end=True)


def lying(*fields: tuple[str, str]) -> Saying:
    """Say a reply of ten bytes with these fields beside its status."""
    return lambda stream: headers(stream, head(200, *fields)) + data(stream, WHOLE, end=True)


STREAM: Final[dict[str, tuple[Saying, Collection[Code]]]] = {
    "no status": (bad(("x", "y")), PROTOCOL),
    "no field at all": (lambda stream: headers(stream, b"", end=True), PROTOCOL),
    "a status twice": (bad((":status", "200"), (":status", "200")), PROTOCOL),
    "an empty status": (bad((":status", "")), PROTOCOL),
    "a status of two digits": (bad((":status", "20")), PROTOCOL),
    "a status of four digits": (bad((":status", "2000")), PROTOCOL),
    "a status of letters": (bad((":status", "abc")), PROTOCOL),
    "a status with a sign": (bad((":status", "+20")), PROTOCOL),
    "a status with a space": (bad((":status", " 20")), PROTOCOL),
    "a status in other digits": (bad((":status", b"2\xd9\xa0\xd9\xa0")), PROTOCOL),
    "a status of a request": (bad((":path", "/"), (":status", "200")), PROTOCOL),
    "a pseudo-field that nobody knows": (bad((":status", "200"), (":other", "x")), PROTOCOL),
    "a status after another field": (bad(("x", "y"), (":status", "200")), PROTOCOL),
    "a name with a capital": (bad((":status", "200"), ("X-Ray", "y")), PROTOCOL),
    "a name of a capital alone": (bad((":status", "200"), ("A", "y")), PROTOCOL),
    "an empty name": (bad((":status", "200"), ("", "y")), PROTOCOL),
    "a name with a space": (bad((":status", "200"), ("x y", "z")), PROTOCOL),
    "a name with a colon": (bad((":status", "200"), ("x:y", "z")), PROTOCOL),
    "a name with a line end": (bad((":status", "200"), ("x\r\ny", "z")), PROTOCOL),
    "Connection": (bad((":status", "200"), ("connection", "close")), PROTOCOL),
    "Keep-Alive": (bad((":status", "200"), ("keep-alive", "timeout=5")), PROTOCOL),
    "Proxy-Connection": (bad((":status", "200"), ("proxy-connection", "keep-alive")), PROTOCOL),
    "Transfer-Encoding": (bad((":status", "200"), ("transfer-encoding", "chunked")), PROTOCOL),
    "Upgrade": (bad((":status", "200"), ("upgrade", "h3")), PROTOCOL),
    "a length that is too small": (lying(("content-length", "9")), PROTOCOL),
    "a length that is too large": (lying(("content-length", "11")), PROTOCOL),
    "a length of nothing": (lying(("content-length", "0")), PROTOCOL),
    "a length and no body": (bad((":status", "200"), ("content-length", "10")), PROTOCOL),
    "a length that is no number": (lying(("content-length", "ten")), PROTOCOL),
    "a negative length": (lying(("content-length", "-10")), PROTOCOL),
    "a length with a sign": (lying(("content-length", "+10")), PROTOCOL),
    "a length beyond 64 bits": (lying(("content-length", "18446744073709551626")), PROTOCOL),
    "two lengths that differ": (lying(("content-length", "10"), ("content-length", "9")), PROTOCOL),
    "two lengths that differ in one value": (lying(("content-length", "10, 9")), PROTOCOL),
    "a length that trailers cut short": (
        lambda stream: (
            headers(stream, head(200, ("content-length", "10")))
            + data(stream, WHOLE[:9])
            + headers(stream, block(("x", "y")), end=True)
        ),
        PROTOCOL,
    ),
    "a body before the head": (lambda stream: data(stream, WHOLE, end=True), PROTOCOL),
    "a body after a hint": (lambda stream: headers(stream, head(103)) + data(stream, WHOLE, end=True), PROTOCOL),
    "a hint that ends the stream": (lambda stream: headers(stream, head(103), end=True), PROTOCOL),
    "a switch of protocols": (lambda stream: headers(stream, head(101)), PROTOCOL),
    "trailers that end nothing": (
        lambda stream: headers(stream, OK) + data(stream, WHOLE) + headers(stream, block(("x", "y"))),
        PROTOCOL,
    ),
    "trailers with a status": (
        lambda stream: headers(stream, OK) + data(stream, WHOLE) + headers(stream, OK, end=True),
        PROTOCOL,
    ),
    "trailers with a capital": (
        lambda stream: headers(stream, OK) + data(stream, WHOLE) + headers(stream, block(("X", "y")), end=True),
        PROTOCOL,
    ),
    "a window made larger by 0": (lambda stream: window_update(stream, 0), PROTOCOL),
    "a window that overflows": (lambda stream: window_update(stream, MOST_STREAM), FLOW),
    "a short PRIORITY": (lambda stream: frame(Kind.PRIORITY, stream, bytes(4)), SIZE),
}


@pytest.mark.parametrize("name", STREAM)
async def test_what_is_wrong_with_a_stream_ends_it_alone(open_transport: TransportMaker, name: str) -> None:
    said, codes = STREAM[name]

    async def script(peer: H2Peer) -> None:
        victim, other = await peer.requests(2)
        peer.raw(said(victim.stream))
        await peer.said(Kind.RST_STREAM, stream=victim.stream)
        assert victim.reset_by_client in codes
        peer.reply(other)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        victim, other = await ask_all(transport, range(2))
        assert isinstance(victim, LOST)
        assert isinstance(other, Reply)
        assert await answered(transport, 2)
        assert len(server.peers) == 1


@pytest.mark.parametrize("rest", ["DATA", "HEADERS", "trailers", "RST_STREAM", "WINDOW_UPDATE"])
async def test_what_still_comes_on_a_stream_that_the_client_has_reset_is_passed_over(
    open_transport: TransportMaker, rest: str
) -> None:
    late: dict[str, Saying] = {
        "DATA": lambda stream: data(stream, b"late") * 3,
        "HEADERS": lambda stream: headers(stream, OK, pieces=3),
        "trailers": lambda stream: headers(stream, block(("x", "y")), end=True),
        "RST_STREAM": rst_stream,
        "WINDOW_UPDATE": lambda stream: window_update(stream, 100),
    }

    async def script(peer: H2Peer) -> None:
        victim, other = await peer.requests(2)
        peer.raw(headers(victim.stream, head("20")))
        await peer.said(Kind.RST_STREAM, stream=victim.stream)
        peer.raw(late[rest](victim.stream))
        await turns()
        peer.reply(other)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        victim, other = await ask_all(transport, range(2))
        assert isinstance(victim, LOST)
        assert isinstance(other, Reply)
        assert await answered(transport, 2)
        assert len(server.peers) == 1
