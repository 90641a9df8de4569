"""Replies as no server should send them, and in pieces as any network may: none hangs, none is the next request's.

Where the transports may differ, the table says what is allowed: a parser may be strict or forgiving about a line end,
but a body is whole or it is lost, and what is left over on a connection is nobody's reply.
"""

from typing import Final

import pytest

from sendengine.errors import ReplyLostError
from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, http1_only, on_asyncio
from tests.transport.scripted import POST, Peer, Script, answering, at_once, first, reply, serving, settled, turns

pytestmark = [
    on_asyncio,  # what a parser does is the same on every loop
    http1_only("all this is odd in HTTP/1.1's text; test_h2_replies, _faults, _stream_faults and _floods have frames"),
]

OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE: Final = b'{"id":"m"}'

# Replies that end where it is clear: what must come of each, or that it must be lost.
CERTAIN: Final[dict[str, tuple[bytes, tuple[int, bytes] | None]]] = {
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n" + WHOLE, (200, WHOLE)),
    "HTTP/1.0, kept alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 10\r\n\r\n" + WHOLE,
        (200, WHOLE),
    ),
    "names and values in any case": (
        b"HTTP/1.1 200 OK\r\ncontent-LENGTH:10\r\nconnection: CLOSE\r\n\r\n" + WHOLE,
        (200, WHOLE),
    ),
    "spaces around a value": (OK + b"Content-Length: \t 10 \r\n\r\n" + WHOLE, (200, WHOLE)),
    "chunked in any case": (OK + b"TRANSFER-encoding: Chunked\r\n\r\na\r\n" + WHOLE + b"\r\n0\r\n\r\n", (200, WHOLE)),
    "chunk sizes with zeros and capitals": (CHUNKED + b"000A\r\n" + WHOLE + b"\r\n000\r\n\r\n", (200, WHOLE)),
    "an extension with a value in quotes": (
        CHUNKED + b'a;x="y z";q\r\n' + WHOLE + b"\r\n0;last\r\n\r\n",
        (200, WHOLE),
    ),
    "a trailer named like a header": (
        CHUNKED + b"a\r\n" + WHOLE + b"\r\n0\r\nConnection: close\r\n\r\n",
        (200, WHOLE),
    ),
    "a header in Latin-1": (OK + b"X-Name: caf\xe9\r\nContent-Length: 10\r\n\r\n" + WHOLE, (200, WHOLE)),
    "an empty header": (OK + b"X-Empty:\r\nContent-Length: 10\r\n\r\n" + WHOLE, (200, WHOLE)),
    "a reason in Latin-1": (b"HTTP/1.1 200 Tr\xe8s bien\r\nContent-Length: 10\r\n\r\n" + WHOLE, (200, WHOLE)),
    "a hundred headers": (
        OK + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(100)) + b"Content-Length: 10\r\n\r\n" + WHOLE,
        (200, WHOLE),
    ),
    "a header of 4 KB": (OK + b"X: " + b"y" * 4096 + b"\r\nContent-Length: 10\r\n\r\n" + WHOLE, (200, WHOLE)),
    "ten times 100": (b"HTTP/1.1 100 Continue\r\n\r\n" * 10 + reply(WHOLE), (200, WHOLE)),
    "a 103 with headers of its own": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 3\r\n\r\n" + reply(WHOLE),
        (200, WHOLE),
    ),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", (304, b"")),
    "two lengths that differ": (OK + b"Content-Length: 2\r\nContent-Length: 10\r\n\r\n" + WHOLE, None),
    "two lengths in one line that differ": (OK + b"Content-Length: 2, 10\r\n\r\n" + WHOLE, None),
    "a negative length": (OK + b"Content-Length: -10\r\n\r\n" + WHOLE, None),
    "a length with a sign": (OK + b"Content-Length: +10\r\n\r\n" + WHOLE, None),
    "a length beyond 64 bits": (OK + b"Content-Length: 18446744073709551626\r\n\r\n" + WHOLE, None),
    "a chunk beyond 64 bits": (CHUNKED + b"1000000000000000a\r\n" + WHOLE + b"\r\n0\r\n\r\n", None),
    "a negative chunk": (CHUNKED + b"-a\r\n" + WHOLE + b"\r\n0\r\n\r\n", None),
    "a chunk that is longer than it says": (CHUNKED + b"2\r\n" + WHOLE + b"\r\n0\r\n\r\n", None),
    "a head of nothing but headers": (b"Content-Length: 10\r\n\r\n" + WHOLE, None),
    "a body and no head": (WHOLE + b"\r\n\r\n", None),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2p1\r\n", None),
    "HTTP/2's first frame": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18, None),
    "a request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
    "a version of one digit": (b"HTTP/1 200 OK\r\nContent-Length: 10\r\n\r\n" + WHOLE, None),
    "a status of two digits": (b"HTTP/1.1 20 OK\r\nContent-Length: 10\r\n\r\n" + WHOLE, None),
    "a status below 100, and another reply": (
        b"HTTP/1.1 099 None\r\nContent-Length: 1\r\n\r\nH" + reply(WHOLE),
        None,
    ),
    "a NUL in a header": (OK + b"X: a\0b\r\nContent-Length: 10\r\n\r\n" + WHOLE, None),
    "a name with a space": (OK + b"X Y: z\r\nContent-Length: 10\r\n\r\n" + WHOLE, None),
}

# Replies that one parser takes and another refuses: whole, or lost, and never anything else.
EITHER: Final[dict[str, bytes]] = {
    "lines that end in LF": b"HTTP/1.1 200 OK\nContent-Length: 10\n\n" + WHOLE,
    "chunks that end in LF": CHUNKED + b"a\n" + WHOLE + b"\n0\n\n",
    "an empty line before": b"\r\n" + reply(WHOLE),
    "the same length twice": OK + b"Content-Length: 10\r\nContent-Length: 10\r\n\r\n" + WHOLE,
    "the same length twice in one line": OK + b"Content-Length: 10, 10\r\n\r\n" + WHOLE,
    "chunked, and a length": OK
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\na\r\n"
    + WHOLE
    + b"\r\n0\r\n\r\n",
    "a length among the trailers": CHUNKED + b"a\r\n" + WHOLE + b"\r\n0\r\nContent-Length: 99\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\na\r\n" + WHOLE + b"\r\n0\r\n\r\n",
    "a folded header": OK + b"X: a\r\n b\r\nContent-Length: 10\r\n\r\n" + WHOLE,
    "a space before the colon": OK + b"Content-Length : 10\r\n\r\n" + WHOLE,
    "a small http": b"http/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + WHOLE,
    "HTTP/2.0 in words": b"HTTP/2.0 200 OK\r\nContent-Length: 10\r\n\r\n" + WHOLE,
    "five hundred headers": OK
    + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(500))
    + b"Content-Length: 10\r\n\r\n"
    + WHOLE,
    "a header of 60 KB": OK + b"X: " + b"y" * 60_000 + b"\r\nContent-Length: 10\r\n\r\n" + WHOLE,
    "a reason of 60 KB": b"HTTP/1.1 200 " + b"y" * 60_000 + b"\r\nContent-Length: 10\r\n\r\n" + WHOLE,
    "an extension of 60 KB": CHUNKED + b"a;" + b"y" * 60_000 + b"\r\n" + WHOLE + b"\r\n0\r\n\r\n",
    "a trailer of 60 KB": CHUNKED + b"a\r\n" + WHOLE + b"\r\n0\r\nX: " + b"y" * 60_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", CERTAIN)
async def test_a_reply_whose_meaning_is_certain(open_transport: TransportMaker, name: str) -> None:
    raw, expected = CERTAIN[name]
    async with serving(first(saying(raw), answering(reply(b"next")))) as server:
        transport = open_transport(server.url)
        got = await settled(transport, server)
        if expected is None:
            assert isinstance(got, ReplyLostError)
        else:
            assert isinstance(got, Reply)
            assert (got.status, got.body) == expected
        assert (await transport.exchange(POST, at_once)).body == b"next"


@pytest.mark.parametrize("name", EITHER)
async def test_a_reply_that_may_be_refused_is_whole_or_lost(open_transport: TransportMaker, name: str) -> None:
    async with serving(first(saying(EITHER[name]), answering(reply(b"next")))) as server:
        transport = open_transport(server.url)
        got = await settled(transport, server)
        if isinstance(got, Reply):
            assert (got.status, got.body) == (200, WHOLE)
        else:
            assert isinstance(got, ReplyLostError)
        assert (await transport.exchange(POST, at_once)).body == b"next"


# Replies without end


ENDLESS: Final[dict[str, tuple[bytes, bytes]]] = {
    "a reason": (b"HTTP/1.1 200 ", b"x"),
    "a header": (OK + b"X: ", b"x"),
    "headers": (OK, b"X: y\r\n"),
    "empty lines": (b"", b"\r\n"),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"),
    "an extension": (CHUNKED + b"a;", b"x"),
    "a trailer": (CHUNKED + b"a\r\n" + WHOLE + b"\r\n0\r\nX: ", b"x"),
    "trailers": (CHUNKED + b"a\r\n" + WHOLE + b"\r\n0\r\n", b"X: y\r\n"),
    "the zeros of a chunk's size": (CHUNKED, b"0"),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_reply_without_end_is_given_up(open_transport: TransportMaker, name: str) -> None:
    begin, again = ENDLESS[name]

    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(begin)
        while True:
            await peer.send(again * (4096 // len(again)))
            await turns()

    async with serving(first(endless)) as server:
        transport = open_transport(server.url)
        assert isinstance(await settled(transport, server), ReplyLostError)
        await server.peers[0].is_gone.wait()
        assert (await transport.exchange(POST, at_once)).status == 200


@pytest.mark.parametrize("name", ["a header", "headers"])
async def test_a_head_beyond_a_megabyte_is_given_up_before_its_time_is_over(
    open_transport: TransportMaker, name: str
) -> None:
    begin, again = ENDLESS[name]

    async def large(peer: Peer) -> None:
        await peer.request()
        await peer.send(begin + again * (2**20 // len(again) + 1))
        await peer.left()

    async with serving(first(large)) as server:
        transport = open_transport(server.url)
        with pytest.raises(ReplyLostError):
            await transport.exchange(POST, at_once)


def saying(raw: bytes) -> Script:
    """Say this to the first request and "next" to the others; nothing is left over that could be taken for those."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        await peer.request()
        await peer.send(reply(b"next"))
        await peer.left()

    return script
