"""Replies over HTTP/2 in every form that they may have, and what else a server may say meanwhile.

Two requests are under way; the first one's reply comes in an odd form, and the second one is answered after it.
"""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.errors import ReplyLostError
from sendengine.ports import Reply, WireRequest
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import answered, ask, ask_all
from tests.transport.h2_frames import (
    Code,
    Flag,
    Kind,
    Setting,
    block,
    data,
    frame,
    head,
    headers,
    indexed,
    literal,
    never_indexed,
    ping,
    remembered,
    reply,
    rst_stream,
    settings,
    table_size,
    window_update,
)
from tests.transport.h2_serving import H2Peer, answering, first, h2_serving
from tests.transport.scripted import GET, POST, at_once, turns

pytestmark = [h2_only, on_asyncio]  # what frames mean is the same on every loop

BODY: Final = b'{"id":"m"}'
OK: Final = head(200)
HUFFMAN_200: Final = b"\x48\x82\x10\x01"  # ":status: 200", as the tables' examples in RFC 7541 have 302
STATUS_LITERAL: Final = b"\x00\x07:status\x03200"

Saying = Callable[[int], bytes]


def with_head(raw: bytes) -> Saying:
    return lambda stream: headers(stream, raw) + data(stream, BODY, end=True)


def said_before(more: bytes) -> Saying:
    return lambda stream: more + reply(stream, BODY)


HINT: Final = block((":status", "103"), ("link", "</x>"))
FORMS: Final[dict[str, Saying]] = {
    "plain": lambda stream: reply(stream, BODY),
    "no length": with_head(OK),
    "a length": with_head(head(200, ("content-length", "10"))),
    "an end of its own": lambda stream: headers(stream, OK) + data(stream, BODY) + data(stream, end=True),
    "DATA byte by byte": lambda stream: (
        headers(stream, OK) + b"".join(data(stream, bytes([byte])) for byte in BODY) + data(stream, end=True)
    ),
    "empty DATA between": lambda stream: (
        headers(stream, OK) + data(stream) + data(stream, BODY[:3]) + data(stream) + data(stream, BODY[3:], end=True)
    ),
    "padding": lambda stream: headers(stream, OK, padding=7) + data(stream, BODY, end=True, padding=200),
    "padding of nothing": lambda stream: headers(stream, OK, padding=0) + data(stream, BODY, end=True, padding=0),
    "nothing but padding": lambda stream: (
        headers(stream, OK) + data(stream, padding=255) + data(stream, BODY) + data(stream, end=True, padding=9)
    ),
    "a priority": lambda stream: headers(stream, OK, priority=(0, 15)) + data(stream, BODY, end=True),
    "a priority and padding": lambda stream: (
        headers(stream, OK, priority=(stream + 2, 255), padding=3) + data(stream, BODY, end=True)
    ),
    "an exclusive priority": lambda stream: headers(stream, OK, priority=(2**31, 1)) + data(stream, BODY, end=True),
    "CONTINUATION": lambda stream: headers(stream, head(200, ("x", "y" * 50)), pieces=2) + data(stream, BODY, end=True),
    "CONTINUATION byte by byte": lambda stream: headers(stream, OK, pieces=len(OK)) + data(stream, BODY, end=True),
    "CONTINUATION of nothing": lambda stream: headers(stream, OK, pieces=len(OK) + 2) + data(stream, BODY, end=True),
    "HEADERS of nothing and CONTINUATION": lambda stream: (
        frame(Kind.HEADERS, stream)
        + frame(Kind.CONTINUATION, stream, OK, flags=Flag.END_HEADERS)
        + data(stream, BODY, end=True)
    ),
    "a hint": lambda stream: headers(stream, HINT) + reply(stream, BODY),
    "a 100": lambda stream: headers(stream, head(100)) + reply(stream, BODY),
    "a 102 and many hints": lambda stream: (
        headers(stream, head(102)) + headers(stream, HINT, pieces=2) * 5 + reply(stream, BODY)
    ),
    "trailers": lambda stream: (
        headers(stream, OK)
        + data(stream, BODY)
        + headers(stream, block(("x-sum", "1"), ("content-length", "99")), end=True)
    ),
    "trailers in pieces, padded": lambda stream: (
        headers(stream, OK) + data(stream, BODY) + headers(stream, block(("x-sum", "1")), end=True, pieces=3, padding=5)
    ),
    "the static table's status": with_head(b"\x88"),
    "a status in Huffman's code": with_head(HUFFMAN_200),
    "a status never indexed": with_head(never_indexed(8, b"200")),
    "a status by another of its names": with_head(literal(11, b"200")),
    "a status to be remembered": with_head(remembered(8, b"200")),
    "a status whose name is written out": with_head(STATUS_LITERAL),
    "a status named in Huffman's code": with_head(b"\x00\x85\xb8\x84\x8d\x36\xa3\x03200"),
    "the table's size, again": with_head(table_size(0) + b"\x88"),
    "the table's size, twice": with_head(table_size(0) * 2 + b"\x88"),
    "the whole static table": with_head(b"\x88" + b"".join(indexed(index) for index in (23, 24, 31, 33, 44, 61))),
    "a hundred fields": with_head(head(200, *[(f"x-{number}", "y") for number in range(100)])),
    "fields of all lengths": with_head(
        head(200, *[("x" * size, "y" * size) for size in (1, 126, 127, 128, 254, 3000)])
    ),
    "the same name twice": with_head(head(200, ("set-cookie", "a=1"), ("set-cookie", "b=2"))),
    "an empty value": with_head(head(200, ("x", ""))),
    "Latin-1": with_head(head(200, ("x", b"caf\xe9"))),
    "an unknown frame": said_before(frame(0xBE, 0, b"anything", flags=0xFF)),
    "an unknown frame on its stream": lambda stream: (
        frame(0xFA, stream, b"anything")
        + headers(stream, OK)
        + frame(0xFA, stream, b"anything")
        + data(stream, BODY, end=True)
    ),
    "an unknown frame on a stream that nobody opened": said_before(frame(0xFA, 4001, b"anything")),
    "an alternative service": said_before(frame(0x0A, 0, b"\0\0" + b'h3=":443"')),
    "an origin": said_before(frame(0x0C, 0, b"\0\x05https")),
    "PRIORITY": lambda stream: frame(Kind.PRIORITY, stream, bytes(4) + b"\x0f") + reply(stream, BODY),
    "PRIORITY of others": said_before(frame(Kind.PRIORITY, 4001, bytes(5)) + frame(Kind.PRIORITY, 2, bytes(5))),
    "PRIORITY after its end": lambda stream: reply(stream, BODY) + frame(Kind.PRIORITY, stream, bytes(5)),
    "unknown settings": said_before(settings([(0xFF, 1), (0x1A2B, 2**32 - 1), (8, 1), (9, 1)])),
    "a setting twice": said_before(
        settings([(Setting.INITIAL_WINDOW_SIZE, 0), (Setting.INITIAL_WINDOW_SIZE, 65_535)]),
    ),
    "a push switched off": said_before(settings({Setting.ENABLE_PUSH: 0})),
    "a larger table": said_before(settings({Setting.HEADER_TABLE_SIZE: 65_536})),
    "settings of nothing": said_before(settings()),
    "a ping": said_before(ping()),
    "an answer to a ping that nobody sent": said_before(ping(b"nobody's", ack=True)),
    "unknown flags": lambda stream: (
        frame(Kind.HEADERS, stream, OK, flags=Flag.END_HEADERS | 0x52)
        + frame(Kind.DATA, stream, BODY, flags=Flag.END_STREAM | 0xF2)
    ),
    "a reserved bit": lambda stream: headers(stream | 2**31, OK) + data(stream | 2**31, BODY, end=True),
    "larger windows": lambda stream: window_update(0, 5) + window_update(stream, 5) + reply(stream, BODY),
    "a window's update after its end": lambda stream: reply(stream, BODY) + window_update(stream, 5),
    "NO_ERROR after its end": lambda stream: reply(stream, BODY) + rst_stream(stream, Code.NO_ERROR),
    "CANCEL after its end": lambda stream: reply(stream, BODY) + rst_stream(stream),
}


@pytest.mark.parametrize("name", FORMS)
async def test_a_reply_is_whole_in_whatever_form_it_comes(open_transport: TransportMaker, name: str) -> None:
    async def script(peer: H2Peer) -> None:
        odd, other = await peer.requests(2)
        peer.send(FORMS[name](odd.stream))
        peer.reply(other)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        odd, other = await ask_all(transport, range(2))
        assert isinstance(odd, Reply)
        assert (odd.status, odd.body) == (200, BODY)
        assert isinstance(other, Reply)
        assert await answered(transport, 2)
        assert len(server.peers) == 1
        assert [came for came in server.peers[0].session.frames if came.kind == Kind.RST_STREAM] == []


@pytest.mark.parametrize("status", [200, 204, 206, 301, 304, 400, 401, 404, 413, 429, 500, 503, 599, 799, 999])
async def test_any_status_is_a_reply(open_transport: TransportMaker, status: int) -> None:
    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        peer.send(headers(asked.stream, head(status, ("retry-after", "7"), ("cf-ray", "8a-AMS")), end=True))
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        got = await transport.exchange(POST, at_once)
        assert (got.status, got.body) == (status, b"")
        assert (got.headers["retry-after"], got.headers["cf-ray"]) == ("7", "8a-AMS")
        assert not [name for name in got.headers if name.startswith(":")]
        assert await answered(transport, 2)
        assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("coding", "raw", "body"),
    [
        ("gzip", gzip.compress(BODY), BODY),
        ("deflate", zlib.compress(BODY), BODY),
        ("br", b"\x0b\x01", b"\x0b\x01"),
        ("gzip", gzip.compress(b"0" * 10_000_000), b"0" * 20_000),
    ],
    ids=["gzip", "deflate", "one that nobody knows", "one that unpacks to a lot"],
)
async def test_an_encoding_that_nobody_asked_for_is_undone(
    open_transport: TransportMaker, coding: str, raw: bytes, body: bytes
) -> None:
    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        peer.session.reply(asked, raw, fields=[("content-encoding", coding)])
        await peer.left()

    async with h2_serving(script) as server:
        got = await open_transport(server.url, max_reply_bytes=20_000).exchange(POST, at_once)
        assert (got.status, got.body) == (200, body)


async def test_a_body_beyond_the_bound_is_cut_and_the_connection_stays(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        asked, other = await peer.requests(2)
        peer.session.reply(asked, b"x" * 10_000_000, status=429, fields=[("retry-after", "9")])
        await peer.said(Kind.RST_STREAM, stream=asked.stream)
        assert asked.reset_by_client in {Code.CANCEL, Code.NO_ERROR}
        peer.reply(other)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url, max_reply_bytes=10_000)
        got, other = await ask_all(transport, range(2))
        assert isinstance(got, Reply)
        assert (got.status, got.headers["retry-after"], len(got.body)) == (429, "9", 10_000)
        assert isinstance(other, Reply)
        assert await answered(transport, 2)
        assert len(server.peers) == 1


async def test_a_large_reply_is_whole(open_transport: TransportMaker) -> None:
    """Beyond every first window, so that the client has to open them again; for many at once, too."""
    body = b"0123456789abcdef" * 65_536

    async def script(peer: H2Peer) -> None:
        for asked in await peer.requests(8):
            peer.session.reply(asked, body)
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(8))
        assert [isinstance(end, Reply) and end.body == body for end in ends] == [True] * 8
        assert await answered(transport, 9)


# Before the request is out


@pytest.mark.parametrize("ending", ["NO_ERROR", "the rest is read", "nothing more"])
async def test_a_reply_before_the_request_is_out_is_returned(open_transport: TransportMaker, ending: str) -> None:
    """The server has read the head and a window of the body; the rest is not sent any more, and nobody waits for it."""
    large = WireRequest("POST", "/notifications", b"x" * 1_000_000)

    async def script(peer: H2Peer) -> None:
        peer.session.refills = False
        (asked,) = await peer.heads(1)
        peer.session.reply(asked, b"too large", status=413)
        if ending == "NO_ERROR":
            peer.send(rst_stream(asked.stream, Code.NO_ERROR))
        peer.session.refills = True
        if ending == "the rest is read":
            peer.send(window_update(asked.stream, 2_000_000))
        peer.send(window_update(0, 2_000_000))
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        got = await transport.exchange(large, at_once)
        assert (got.status, got.body) == (413, b"too large")
        for number in (1, 2):
            assert await answered(transport, number)
        assert len(server.peers) == 1


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.CANCEL], ids=lambda code: code.name)
async def test_a_reset_after_half_a_reply_loses_it(open_transport: TransportMaker, code: Code) -> None:
    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        peer.send(headers(asked.stream, OK), data(asked.stream, BODY[:5]), rst_stream(asked.stream, code))
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        assert isinstance(await ask(transport, 0), ReplyLostError)
        assert await answered(transport, 1)
        assert len(server.peers) == 1


async def test_replies_come_in_any_order_and_in_pieces_of_each_other(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(30)
        for one in reversed(asked):
            peer.send(headers(one.stream, OK))
        for at in range(3):
            await turns()
            for one in asked[at::2]:
                peer.send(data(one.stream, b"%d." % at))
        for one in asked[::-1]:
            peer.send(data(one.stream, b"of %s" % one.body, end=True))
        await peer.left()

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        under_way = [asyncio.create_task(ask(transport, number)) for number in range(30)]
        for number, task in enumerate(under_way):
            got = await task
            assert isinstance(got, Reply)
            assert got.body.endswith(b"of %d" % number)
        assert len(server.peers) == 1


async def test_a_get_is_answered(open_transport: TransportMaker) -> None:
    async with h2_serving(first(answering)) as server:
        got = await open_transport(server.url).exchange(GET, at_once)
        assert (got.status, got.body) == (200, b'{"of":}')
        assert server.whole[0].fields[":method"] == "GET"
