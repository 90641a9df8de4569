"""What `sendengine.ports.Transport` promises, for every transport that there is."""

import asyncio
import gzip
import zlib

import pytest

from sendengine.errors import ReplyLostError
from sendengine.ports import WireRequest
from tests.transport.conftest import TransportMaker, cases, http1_only, on_asyncio
from tests.transport.scripted import (
    GET,
    LARGE,
    POST,
    Peer,
    Script,
    answering,
    at_once,
    fails,
    first,
    jump,
    reply,
    serving,
    turns,
)

# Replies

REPLIES: dict[str, tuple[bytes, int, bytes]] = {
    "plain": (reply(b'{"id":"m"}'), 200, b'{"id":"m"}'),
    "chunked": (
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"id\r\n6\r\n":"m"}\r\n0\r\n\r\n',
        200,
        b'{"id":"m"}',
    ),
    "chunks with extensions and trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n",
        200,
        b"{}",
    ),
    "no body at 204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "an empty body": (reply(b""), 200, b""),
    "another type": (reply(b"ok", headers="Content-Type: image/png\r\n"), 200, b"ok"),
    "HTML of an edge": (reply(b"<html>", status="502 Bad Gateway"), 502, b"<html>"),
    "bytes that are no text": (
        reply(b"\xff\x00\xfe", headers="Content-Type: application/json\r\n"),
        200,
        b"\xff\x00\xfe",
    ),
    "a redirect, not followed": (reply(b"", status="302 Found", headers="Location: /elsewhere\r\n"), 302, b""),
    "refused": (reply(b"{}", status="429 Too Many Requests", headers="Retry-After: 2\r\n"), 429, b"{}"),
    "a status without a reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
    "an unknown status": (reply(b"{}", status="799 Odd"), 799, b"{}"),
    "a 100 and a 103 before": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + reply(b"{}"),
        200,
        b"{}",
    ),
    "gzip, not asked for": (
        reply(gzip.compress(b'{"id":"m"}'), headers="Content-Encoding: gzip\r\n"),
        200,
        b'{"id":"m"}',
    ),
    "deflate, not asked for": (reply(zlib.compress(b"{}"), headers="Content-Encoding: deflate\r\n"), 200, b"{}"),
    "bare deflate": (reply(zlib.compress(b"{}")[2:-4], headers="Content-Encoding: deflate\r\n"), 200, b"{}"),
    "gzip that is none": (reply(b"{}", headers="Content-Encoding: gzip\r\n"), 200, b"{}"),
    "an encoding that nobody knows": (
        reply(b"\x0b\x01", status="429 Too Many Requests", headers="Content-Encoding: br\r\n"),
        429,
        b"\x0b\x01",
    ),
}


@on_asyncio
@cases(
    REPLIES,
    http1=["chunked", "chunks with extensions and trailers"],
    reason="HTTP/2 has no chunks; test_h2_replies has bodies in pieces, and trailers",
)
async def test_a_reply_is_returned_as_it_is(open_transport: TransportMaker, name: str) -> None:
    raw, status, body = REPLIES[name]
    async with serving(answering(raw, reply(b"next"))) as server:
        transport = open_transport(server.url)
        got = await transport.exchange(POST, at_once)
        assert (got.status, got.body) == (status, body)
        assert (await transport.exchange(POST, at_once)).body == b"next"
        assert len(server.peers) == 1, "the connection is used again"


async def test_names_of_headers_are_lower_case(open_transport: TransportMaker) -> None:
    raw = reply(headers="CF-RAY: 8a-AMS\r\nretry-AFTER: 3\r\nIdempotent-Replayed: true\r\n")
    async with serving(answering(raw)) as server:
        headers = (await open_transport(server.url).exchange(POST, at_once)).headers
        assert (headers["cf-ray"], headers["retry-after"], headers["idempotent-replayed"]) == ("8a-AMS", "3", "true")


@http1_only("over HTTP/2 it ends with its stream; test_h2_pieces has connections that end within it")
async def test_a_body_may_end_with_the_connection(open_transport: TransportMaker) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"id":"m"}')

    async with serving(first(script)) as server:
        transport = open_transport(server.url)
        assert (await transport.exchange(POST, at_once)).body == b'{"id":"m"}'
        assert (await transport.exchange(POST, at_once)).status == 200
        assert len(server.peers) == 2


async def test_a_connection_that_the_server_wants_closed_is_not_used_again(open_transport: TransportMaker) -> None:
    async with serving(answering(reply(headers="Connection: close\r\n"))) as server:
        transport = open_transport(server.url)
        for _ in range(2):
            assert (await transport.exchange(POST, at_once)).status == 200
        assert len(server.peers) == 2


@http1_only("HTTP/2 has no upgrades; test_h2_stream_faults has a 101")
async def test_an_upgrade_that_nobody_asked_for_is_a_reply_and_ends_the_connection(
    open_transport: TransportMaker,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        await peer.left()

    async with serving(first(script)) as server:
        transport = open_transport(server.url)
        assert (await transport.exchange(POST, at_once)).status == 101
        assert (await transport.exchange(POST, at_once)).status == 200
        assert len(server.peers) == 2


async def test_a_reply_that_nobody_asked_for_is_not_taken_for_the_next_one(open_transport: TransportMaker) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"mine") + reply(b"nobody's"))
        await peer.left()

    async with serving(first(script, answering(reply(b"mine too")))) as server:
        transport = open_transport(server.url)
        assert (await transport.exchange(POST, at_once)).body == b"mine"
        assert (await transport.exchange(POST, at_once)).body == b"mine too"


async def test_what_comes_over_an_idle_connection_is_not_taken_for_the_next_reply(
    open_transport: TransportMaker,
) -> None:
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(b"mine"))
        await peer.server.released.wait()
        await peer.send(reply(b"nobody's", status="408 Request Timeout"))
        sent.set()
        await peer.left()

    async with serving(first(script, answering(reply(b"mine too")))) as server:
        transport = open_transport(server.url)
        assert (await transport.exchange(POST, at_once)).body == b"mine"
        server.released.set()
        await sent.wait()
        await turns()
        assert (await transport.exchange(POST, at_once)).body == b"mine too"


@http1_only("HTTP/2 needs no other connection then; test_h2_replies has the same")
async def test_a_reply_before_the_request_is_out_is_returned(open_transport: TransportMaker) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply(b"too large", status="413 Payload Too Large"))
        await peer.server.released.wait()  # reads no further

    async with serving(first(script)) as server:
        transport = open_transport(server.url)
        got = await transport.exchange(LARGE, at_once)
        assert (got.status, got.body) == (413, b"too large")
        assert (await transport.exchange(POST, at_once)).status == 200
        assert transport.open_connections == 1, "the first is closed, although the server has not read everything"
        server.released.set()


@http1_only("HTTP/2 needs no other connection then; test_h2_replies has the same")
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_beyond_the_bound_is_cut_and_its_status_kept(
    open_transport: TransportMaker, *, is_chunked: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 1000000000000"
        await peer.send(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 9\r\n" + length + b"\r\n\r\n")
        while True:
            await peer.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n" if is_chunked else b"x" * 0x1000)

    async with serving(first(script)) as server:
        transport = open_transport(server.url, max_reply_bytes=10_000)
        got = await transport.exchange(POST, at_once)
        assert (got.status, got.headers["retry-after"]) == (429, "9")
        assert len(got.body) == 10_000
        assert (await transport.exchange(POST, at_once)).status == 200
        assert len(server.peers) == 2


async def test_a_small_body_that_unpacks_to_a_large_one_is_cut(open_transport: TransportMaker) -> None:
    bomb = reply(gzip.compress(b"0" * 10_000_000), headers="Content-Encoding: gzip\r\n")
    async with serving(answering(bomb)) as server:
        got = await open_transport(server.url, max_reply_bytes=20_000).exchange(POST, at_once)
        assert got.body == b"0" * 20_000


# Lost replies


def sending(raw: bytes, *, reset: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        if raw:
            await peer.send(raw)
        if reset:
            peer.reset()

    return script


LOST: dict[str, Script] = {
    "closed without a byte": sending(b""),
    "reset without a byte": sending(b"", reset=True),
    "closed within the status line": sending(b"HTTP/1.1 20"),
    "closed within the headers": sending(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "closed within the body": sending(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"id":'),
    "reset within the body": sending(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"id":', reset=True),
    "closed within a chunk": sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}"),
    "closed between chunks": sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    "closed after a 100": sending(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "no HTTP at all": sending(b"\x16\x03\x01\x00\xa5garbage\r\n\r\n"),
    "a status that is no number": sending(b"HTTP/1.1 abc OK\r\n\r\n"),
    "a length that is no number": sending(b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n{}"),
    "a chunk whose size is no number": sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "a header without end": sending(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
}


@on_asyncio
@pytest.mark.parametrize("request_", [POST, GET], ids=lambda request: str(request.method))
@cases(
    LOST,
    http1=[name for name in LOST if "chunk" in name or "length" in name],
    reason="HTTP/2 has no chunks, and a wrong length ends its stream alone; test_h2_stream_faults has that",
)
async def test_a_reply_that_does_not_come_whole_is_lost_and_nothing_is_sent_again(
    open_transport: TransportMaker, name: str, request_: WireRequest
) -> None:
    async with serving(first(LOST[name])) as server:
        transport = open_transport(server.url)
        assert isinstance(await fails(transport, request_), ReplyLostError)
        assert len(server.requests) == 1
        assert (await transport.exchange(POST, at_once)).status == 200


@on_asyncio
@http1_only("HTTP/2 gives up the stream and keeps the connection; test_h2_endings has the same")
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n{"])
async def test_a_reply_that_takes_too_long_is_lost(open_transport: TransportMaker, said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(said)
        await peer.left()

    async with serving(first(script)) as server:
        transport = open_transport(server.url, timeout_s=60)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.next_request()
        jump(59)
        await turns()
        assert not under_way.done()
        jump(2)
        with pytest.raises(ReplyLostError, match="no reply within 60 s"):
            await under_way
        await server.peers[0].is_gone.wait()
        assert (await transport.exchange(POST, at_once)).status == 200


@on_asyncio
@http1_only("HTTP/2 gives up the stream and keeps the connection; test_h2_flow has bodies that wait for a window")
async def test_a_request_that_the_server_does_not_read_is_given_up(open_transport: TransportMaker) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.server.got_request.set()
        await peer.server.released.wait()

    async with serving(first(script)) as server:
        transport = open_transport(server.url, timeout_s=60)
        under_way = asyncio.create_task(transport.exchange(LARGE, at_once))
        await server.next_request()
        jump(61)
        with pytest.raises(ReplyLostError):
            await under_way
        await turns()
        assert transport.open_connections == 0, "closing does not wait for the server to read"
        server.released.set()
