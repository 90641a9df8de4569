"""Connections that are used again: which are, which are not, and what a server does to them between two requests."""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.errors import ReplyLostError
from sendengine.ports import Reply, WireRequest
from tests.transport.conftest import TransportMaker, cases, http1_only, on_asyncio
from tests.transport.scripted import (
    AUTHORITY,
    POST,
    Accepted,
    Gate,
    Peer,
    answering,
    at_once,
    first,
    jump,
    listening,
    outcome,
    reply,
    server_tls,
    serving,
    turns,
    until,
)

KEPT: Final = {
    "HTTP/1.1": reply(),
    "HTTP/1.1, said so": reply(headers="Connection: keep-alive\r\nKeep-Alive: timeout=60, max=9\r\n"),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an error": reply(status="503 Service Unavailable"),
}
NOT_KEPT: Final = {
    "close": reply(headers="Connection: close\r\n"),
    "close in capitals": reply(headers="CONNECTION: Close\r\n"),
    "close in a list": reply(headers="Connection: foo, close\r\n"),
    "close of a chunked one": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
}


@on_asyncio
@cases(KEPT, http1=["chunked", "HTTP/1.1, said so"], reason="HTTP/2 has neither chunks nor Connection")
async def test_a_connection_is_used_again_and_again(open_transport: TransportMaker, name: str) -> None:
    async with serving(answering(KEPT[name])) as server:
        transport = open_transport(server.url)
        for _ in range(10):
            await transport.exchange(POST, at_once)
        assert (len(server.peers), transport.open_connections) == (1, 1)


@on_asyncio
@http1_only("HTTP/2 says it by GOAWAY; test_h2_endings has that")
@pytest.mark.parametrize("name", NOT_KEPT)
async def test_a_connection_that_is_not_to_be_kept_is_closed_although_the_server_leaves_it_open(
    open_transport: TransportMaker, name: str
) -> None:
    async with serving(answering(NOT_KEPT[name])) as server:
        transport = open_transport(server.url)
        for count in (1, 2, 3):
            assert (await transport.exchange(POST, at_once)).status == 200
            assert len(server.peers) == count
        await server.all_gone()
        assert transport.open_connections == 0


@on_asyncio
@http1_only("HTTP/2 asks an idle one whether it is there; test_h2_liveness has that")
async def test_a_connection_that_was_idle_for_a_minute_is_replaced(open_transport: TransportMaker) -> None:
    """By then a load balancer may be closing it."""
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        for count in (1, 2, 3):
            for _ in range(3):
                await transport.exchange(POST, at_once)
                jump(20)
            assert len(server.peers) == count
            jump(40)
        await until(lambda: transport.open_connections == 0)
        await server.all_gone()


@on_asyncio
@http1_only("over HTTP/2 there is one; test_direct_pool_wide has those that are not needed any more")
async def test_connections_that_are_not_needed_any_more_are_closed_and_the_one_in_use_is_kept(
    open_transport: TransportMaker,
) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        assert await transport.warm(5) == 5
        for _ in range(4):
            jump(19)
            await turns()
            await transport.exchange(POST, at_once)
        await until(lambda: transport.open_connections == 1)
        assert (len(server.peers), len(server.requests)) == (5, 4)


@on_asyncio
@http1_only("an HTTP/2 connection takes nothing new then; test_h2_endings has that")
async def test_a_connection_that_grew_too_old_under_an_exchange_is_closed_after_it(
    open_transport: TransportMaker,
) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        jump(301)
        gate.opened.set()
        assert (await under_way).status == 200
        await server.all_gone()
        assert transport.open_connections == 0


# What follows a reply

LEFT_OVER: Final = {
    "a byte": b"x",
    "a line end": b"\r\n",
    "the start of a reply": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a reply": reply(b"nobody's"),
    "a hint": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a time-out": reply(b"nobody's", status="408 Request Timeout", headers="Connection: close\r\n"),
}


@http1_only("what follows in HTTP/2 names its stream; test_h2_faults has what names one that is over")
@pytest.mark.parametrize("is_apart", [False, True], ids=["at once", "a moment later"])
@pytest.mark.parametrize("name", LEFT_OVER)
async def test_what_follows_a_reply_is_not_taken_for_the_next_one(
    open_transport: TransportMaker, name: str, *, is_apart: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if is_apart:
            await peer.send(reply(b"mine"))
            await turns()
            await peer.send(LEFT_OVER[name])
        else:
            await peer.send(reply(b"mine") + LEFT_OVER[name])
        peer.server.released.set()
        await peer.request()  # only a line end may be passed over
        await peer.send(reply(b"mine too"))

    async with serving(first(script, answering(reply(b"mine too")))) as server:
        transport = open_transport(server.url)
        got = await outcome(transport.exchange(POST, at_once))
        if isinstance(got, Reply):
            assert got.body == b"mine"
        else:
            assert (name, is_apart) == ("a byte", False), "only a parser that stumbles over both may lose both"
        await server.released.wait()
        await turns()
        assert (await transport.exchange(POST, at_once)).body == b"mine too"


@http1_only("over HTTP/2 it is a fault; test_h2_stream_faults has lengths that are wrong")
async def test_a_body_that_is_longer_than_its_length_is_cut_and_its_rest_is_nobody_s(
    open_transport: TransportMaker,
) -> None:
    rest = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnobody's"
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine" + rest

    async with serving(first(answering(raw), answering(reply(b"mine too")))) as server:
        transport = open_transport(server.url)
        assert (await transport.exchange(POST, at_once)).body == b"mine"
        await turns()
        assert (await transport.exchange(POST, at_once)).body == b"mine too"


# A request body that is answered before it is out


@http1_only("HTTP/2 leaves a stream and not a connection; test_h2_replies has replies before the request is out")
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("size", [1_000, 100_000, 20_000_000])
async def test_an_early_reply_leaves_no_half_request_behind(
    open_transport: TransportMaker, size: int, *, is_tls: bool
) -> None:
    """The server answers the head, keeps the connection, and reads on: the next request must begin with its head."""

    async def early(peer: Peer) -> None:
        while True:
            head = await peer.head()
            assert head.line == "POST /notifications HTTP/1.1"
            await peer.send(reply(head.headers["Content-Length"].encode(), status="400 Bad Request"))
            await peer.reader.readexactly(int(head.headers["Content-Length"]))

    async with serving(early, tls=server_tls() if is_tls else None) as server:
        transport = open_transport(server.url, **({"ca_file": AUTHORITY} if is_tls else {}))
        for length in (size, size + 1, 3, size + 2):
            got = await transport.exchange(WireRequest("POST", "/notifications", b"x" * length), at_once)
            assert (got.status, got.body) == (400, b"%d" % length)
        assert len(server.peers) <= 4


@http1_only("HTTP/2 leaves a stream and not a connection; test_h2_replies has replies before the request is out")
async def test_an_early_reply_of_a_server_that_closes_is_returned_or_lost(open_transport: TransportMaker) -> None:
    """Closing with unread bytes resets the connection, which may throw the reply away before it is read."""

    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply(b"too large", status="413 Payload Too Large", headers="Connection: close\r\n"))
        peer.writer.transport.abort()

    async with serving(first(early)) as server:
        transport = open_transport(server.url)
        got = await outcome(transport.exchange(WireRequest("POST", "/notifications", b"x" * 20_000_000), at_once))
        if isinstance(got, Reply):
            assert (got.status, got.body) == (413, b"too large")
        else:
            assert isinstance(got, ReplyLostError)
        assert (await transport.exchange(POST, at_once)).status == 200


@http1_only("HTTP/2 leaves a stream and not a connection; test_h2_replies has replies before the request is out")
async def test_an_early_reply_of_a_server_that_closes_with_care_is_returned(open_transport: TransportMaker) -> None:
    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply(b"too large", status="413 Payload Too Large", headers="Connection: close\r\n"))
        peer.writer.write_eof()
        await peer.left()

    async with serving(first(early)) as server:
        transport = open_transport(server.url)
        got = await transport.exchange(WireRequest("POST", "/notifications", b"x" * 20_000_000), at_once)
        assert (got.status, got.body) == (413, b"too large")
        assert (await transport.exchange(POST, at_once)).status == 200


# In the instant of its reuse

ENDINGS: Final[dict[str, Callable[[Accepted], None]]] = {
    "closed": Accepted.close,
    "reset": Accepted.reset,
    "half closed": Accepted.half_close,
}


@http1_only("the server here reads and writes bytes by hand; test_h2_endings has the same")
@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("moment", ["before it is asked for", "with the permit", "with the request"])
async def test_an_idle_connection_that_ends_in_the_instant_of_its_reuse(
    open_transport: TransportMaker, name: str, moment: str
) -> None:
    """What ends it has come, and the loop has not shown it to anybody: whoever says "not sent" must be right."""
    with listening() as server:
        transport = open_transport(server.url, max_connections=1)
        using = asyncio.create_task(transport.exchange(POST, at_once))
        peer = await server.accept()
        await peer.request()
        peer.send(reply())
        await using
        end = ENDINGS[name]

        async def permit() -> None:
            if moment == "with the permit":
                end(peer)

        if moment == "before it is asked for":
            end(peer)
        others = asyncio.create_task(server.answer())
        under_way = asyncio.create_task(outcome(transport.exchange(POST, permit)))
        if moment == "with the request":
            await peer.request()
            end(peer)
        got = await under_way
        if moment == "with the request":
            assert isinstance(got, ReplyLostError)
        elif name == "half closed" and not isinstance(got, ReplyLostError):
            assert peer.arrived() == b"", "sent again, or said not to be sent, although it was"
        await turns()
        assert (await transport.exchange(POST, at_once)).status == 200
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)


@http1_only("the server here reads and writes bytes by hand; test_h2_endings has the same")
async def test_an_idle_connection_whose_end_was_seen_is_replaced(open_transport: TransportMaker) -> None:
    for end in ENDINGS.values():
        with listening() as server:
            transport = open_transport(server.url, max_connections=1)
            using = asyncio.create_task(transport.exchange(POST, at_once))
            peer = await server.accept()
            await peer.request()
            peer.send(reply())
            await using
            end(peer)
            await until(lambda: transport.open_connections == 0)  # noqa: B023 - awaited here
            others = asyncio.create_task(server.answer())
            assert (await transport.exchange(POST, at_once)).status == 200
            others.cancel()
            await asyncio.gather(others, return_exceptions=True)
