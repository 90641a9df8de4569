"""Replies over HTTP/2 cut in two at every byte: by a network that delivers them so, and by a server that ends there."""

from typing import Final

import pytest

from sendengine.ports import Reply
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, ask, ask_all
from tests.transport.h2_frames import (
    Setting,
    block,
    data,
    frame,
    head,
    headers,
    ping,
    settings,
    settings_ack,
    window_update,
)
from tests.transport.h2_serving import H2Peer, first, h2_serving
from tests.transport.scripted import turns

pytestmark = [h2_only, on_asyncio]

BODY: Final = b'{"id":"m"}'


def said(stream: int) -> bytes:
    """Say a reply with all that may be around one."""
    return (
        ping()
        + headers(stream, head(103))
        + headers(stream, head(200, ("content-length", "10")), pieces=3, padding=2)
        + window_update(0, 7)
        + data(stream, BODY[:4], padding=3)
        + frame(0xBE, stream, b"x")
        + data(stream, BODY[4:])
        + settings()
        + headers(stream, block(("x-sum", "1")), end=True)
    )


def short(stream: int) -> bytes:
    return headers(stream, b"\x88") + data(stream, BODY, end=True)


LENGTH: Final = len(said(1))


async def test_what_comes_in_two_pieces_is_whole(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        for cut in range(1, LENGTH):
            asked = (await peer.requests(cut))[-1]
            peer.session.note(said(asked.stream))
            peer.raw(said(asked.stream)[:cut])
            await turns()
            peer.raw(said(asked.stream)[cut:])
        await peer.left()

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        for cut in range(1, LENGTH):
            got = await ask(transport, cut)
            assert isinstance(got, Reply), f"cut at {cut}"
            assert got.body == BODY
        assert len(server.peers) == 1


@pytest.mark.parametrize("size", [1, 2, 9, 10])
async def test_what_comes_in_many_pieces_is_whole(open_transport: TransportMaker, size: int) -> None:
    async def script(peer: H2Peer) -> None:
        one, two, three = await peer.requests(3)
        raw = short(one.stream) + said(two.stream) + short(three.stream)
        peer.session.note(raw)
        for at in range(0, len(raw), size):
            peer.raw(raw[at : at + size])
            await turns()
        await peer.left()

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(3))
        assert [isinstance(end, Reply) and end.body == BODY for end in ends] == [True] * 3


async def test_the_first_settings_may_come_in_pieces(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        raw = settings({Setting.MAX_CONCURRENT_STREAMS: 9})
        peer.session.note(raw)
        for byte in raw:
            peer.raw(bytes([byte]))
            await turns()
        peer.send(settings_ack())
        peer.session.on_whole = peer.reply
        await peer.left()

    async with h2_serving(script, first_settings=None) as server:
        assert isinstance(await ask(open_transport(server.url), 0), Reply)
        assert len(server.peers) == 1


@pytest.mark.parametrize("way", ["closed", "reset"])
async def test_a_reply_that_is_cut_off_is_lost_and_one_that_is_whole_stays(
    open_transport: TransportMaker, way: str
) -> None:
    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        peer.session.note(said(asked.stream))
        peer.raw(said(asked.stream)[: peer.server.peers.index(peer)])
        if way == "reset":
            await turns()
            peer.reset()

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        for cut in range(LENGTH + 1):
            got = await ask(transport, cut)
            if cut < LENGTH:
                assert isinstance(got, LOST), f"cut at {cut}"
            else:
                assert isinstance(got, Reply)
                assert got.body == BODY


async def test_of_two_replies_the_one_that_came_whole_before_the_cut_stays(open_transport: TransportMaker) -> None:
    length = 2 * len(short(1))

    async def script(peer: H2Peer) -> None:
        one, two = await peer.requests(2)
        peer.raw((short(one.stream) + short(two.stream))[: peer.server.peers.index(peer)])

    async with h2_serving(first(script, script)) as server:
        transport = open_transport(server.url)
        for cut in range(length + 1):
            one, two = await ask_all(transport, range(2))
            assert isinstance(one, Reply if cut >= length // 2 else LOST), f"cut at {cut}"
            assert isinstance(two, Reply if cut >= length else LOST), f"cut at {cut}"
