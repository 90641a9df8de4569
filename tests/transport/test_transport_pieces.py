"""Replies cut in two at every byte, by a network that delivers them in pieces and by a server that ends within them."""

from typing import Final

import pytest

from sendengine.errors import ReplyLostError
from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, http1_only, on_asyncio
from tests.transport.scripted import POST, Peer, Script, at_once, outcome, reply, serving, turns

pytestmark = http1_only("what is cut here is HTTP/1.1's text; test_h2_pieces cuts frames")

BODY: Final = b'{"id":"m"}'
HEAD: Final = b"HTTP/1.1 200 OK\r\n"

FRAMED: Final = {
    "with a length": HEAD + b"Content-Length: 10\r\n\r\n" + BODY,
    "in chunks": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n4;a=b\r\n"
    + BODY[:4]
    + b"\r\n6\r\n"
    + BODY[4:]
    + b"\r\n0\r\nX: y\r\n\r\n",
    "after a hint": b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + reply(BODY),
    "without a body": b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
}
UNFRAMED: Final = HEAD + b"X: y\r\n\r\n" + BODY


@on_asyncio
@pytest.mark.parametrize("name", FRAMED)
async def test_a_reply_in_two_pieces_is_whole(open_transport: TransportMaker, name: str) -> None:
    raw = FRAMED[name]
    body = BODY if name != "without a body" else b""

    async def in_two(peer: Peer) -> None:
        for cut in range(1, len(raw)):
            await peer.request()
            for piece in (raw[:cut], raw[cut:]):
                await peer.send(piece)
                await turns()
        await peer.left()

    async with serving(in_two) as server:
        transport = open_transport(server.url)
        for cut in range(1, len(raw)):
            assert (await transport.exchange(POST, at_once)).body == body, f"cut at {cut}"
        assert len(server.peers) == 1


@pytest.mark.parametrize("name", FRAMED)
async def test_a_reply_byte_by_byte_is_whole(open_transport: TransportMaker, name: str) -> None:
    async def slowly(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            for byte in FRAMED[name]:
                await peer.send(bytes([byte]))
                await turns()
        await peer.left()

    async with serving(slowly) as server:
        transport = open_transport(server.url)
        for _ in range(2):
            assert (await transport.exchange(POST, at_once)).body in {BODY, b""}
        assert len(server.peers) == 1


def cut_off(raw: bytes, *, reset: bool) -> Script:
    """Send one byte more of the reply on each connection, and then close it or, when that was read, reset it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw[: peer.server.peers.index(peer)])
        if reset:
            await turns()
            peer.reset()

    return script


@on_asyncio
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("name", FRAMED)
async def test_a_reply_that_is_cut_off_is_lost_or_whole(
    open_transport: TransportMaker, name: str, *, reset: bool
) -> None:
    raw, body = FRAMED[name], BODY if name != "without a body" else b""
    needed = len(raw) if "chunks" not in name else raw.index(b"\r\n0\r\n")  # from there on, no byte of it is missing
    async with serving(cut_off(raw, reset=reset)) as server:
        transport = open_transport(server.url)
        for cut in range(len(raw)):
            got = await outcome(transport.exchange(POST, at_once))
            if isinstance(got, Reply):
                assert (got.status, got.body, cut >= needed) == (200, body, True), f"cut at {cut}"
            else:
                assert isinstance(got, ReplyLostError), f"cut at {cut}"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_body_without_length_ends_with_the_connection_and_not_with_a_reset(
    open_transport: TransportMaker, kind: str, *, reset: bool
) -> None:
    """But aiohttp tells the two apart only while the head comes; JSON that is cut is no success with either."""
    start = len(UNFRAMED) - len(BODY)
    async with serving(cut_off(UNFRAMED, reset=reset)) as server:
        transport = open_transport(server.url)
        for cut in range(len(UNFRAMED) + 1):
            got = await outcome(transport.exchange(POST, at_once))
            if cut < start or (reset and kind != "aiohttp"):
                assert isinstance(got, ReplyLostError), f"cut at {cut}"
            else:
                assert isinstance(got, Reply)
                assert got.body == UNFRAMED[start:cut]
