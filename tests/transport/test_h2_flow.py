"""Both flow-control windows, in both directions, and settings that change in the middle.

That the client never sends more than it may is seen in every test: `tests.transport.h2_session` counts.
"""

import asyncio
from typing import Final

import pytest

from sendengine.ports import Reply, WireRequest
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, answered, ask, ask_all, asking_all
from tests.transport.h2_frames import (
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    MOST_STREAM,
    Code,
    Kind,
    Setting,
    data,
    head,
    headers,
    rst_stream,
    settings,
    window_update,
)
from tests.transport.h2_serving import FIRST, H2Peer, answering, first, h2_serving
from tests.transport.h2_session import Asked
from tests.transport.scripted import at_once, outcome, turns

pytestmark = [h2_only, on_asyncio]  # windows are the same on every loop

LARGE: Final = 300_000
WINDOW: Final = Setting.INITIAL_WINDOW_SIZE


def large(size: int = LARGE) -> WireRequest:
    return WireRequest("POST", "/notifications", (b"0123456789" * (size // 10 + 1))[:size])


def by_hand(peer: H2Peer) -> None:
    """Open no window but by the script."""
    peer.session.refills = False


async def came(peer: H2Peer, asked: Asked, size: int) -> None:
    """Return when so much of a body has come, and see that it is no more."""
    await peer.until(lambda: len(asked.body) >= size)
    await turns()
    assert len(asked.body) == size


# What the client may send


async def test_a_body_waits_for_the_connection_s_window(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        by_hand(peer)
        (asked,) = await peer.heads(1)
        await came(peer, asked, DEFAULT_WINDOW)
        peer.send(window_update(asked.stream, LARGE))
        await turns()
        await came(peer, asked, DEFAULT_WINDOW)
        peer.send(window_update(0, 1))
        await came(peer, asked, DEFAULT_WINDOW + 1)
        peer.send(window_update(0, LARGE))
        await peer.requests(1)
        peer.session.reply(asked, bytes(asked.body))
        await peer.left()

    async with h2_serving(script) as server:
        got = await open_transport(server.url).exchange(large(), at_once)
        assert got.body == large().body


async def test_a_body_waits_for_its_stream_s_window_and_others_do_not(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        by_hand(peer)
        peer.send(window_update(0, 10 * LARGE))
        (blocked,) = await peer.heads(1)
        await came(peer, blocked, DEFAULT_WINDOW)
        small, *_ = await peer.requests(1)
        assert small is not blocked
        peer.reply(small)
        await came(peer, blocked, DEFAULT_WINDOW)
        peer.send(window_update(blocked.stream, LARGE))
        await peer.requests(2)
        assert bytes(blocked.body) == large().body
        peer.session.reply(blocked, b"{}")
        await peer.left()

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(large(), at_once))
        await turns()
        assert await answered(transport, 1)
        assert (await under_way).body == b"{}"
        assert len(server.peers) == 1


@pytest.mark.parametrize("way", ["an update", "settings"])
async def test_a_first_window_of_nothing_lets_heads_through_and_no_body(
    open_transport: TransportMaker, way: str
) -> None:
    async def script(peer: H2Peer) -> None:
        asked = await peer.heads(3)
        await turns()
        assert [len(one.body) for one in asked] == [0, 0, 0]
        if way == "settings":
            peer.send(settings({WINDOW: 100}))
        for one in asked if way == "an update" else ():
            peer.send(window_update(one.stream, 100))
        await answering(peer)

    async with h2_serving(script, first_settings={**FIRST, WINDOW: 0}) as server:
        transport = open_transport(server.url)
        ends = await ask_all(transport, range(3))
        assert all(isinstance(end, Reply) for end in ends)
        assert len(server.peers) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_without_a_body_needs_no_window(open_transport: TransportMaker, method: str) -> None:
    async with h2_serving(answering, first_settings={**FIRST, WINDOW: 0}) as server:
        got = await open_transport(server.url).exchange(WireRequest(method, "/apps/a"), at_once)
        assert got.status == 200


async def test_windows_of_a_byte_are_enough(open_transport: TransportMaker) -> None:
    body = b"0123456789" * 6

    async def script(peer: H2Peer) -> None:
        by_hand(peer)
        (asked,) = await peer.heads(1)
        for size in range(1, len(body) + 1):
            peer.send(window_update(asked.stream, 1))
            await came(peer, asked, size)
        assert asked.is_whole
        assert bytes(asked.body) == body
        await answering(peer)

    async with h2_serving(script, first_settings={WINDOW: 0}) as server:
        got = await open_transport(server.url).exchange(WireRequest("POST", "/notifications", body), at_once)
        assert got.status == 200


async def test_a_window_may_become_negative(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        by_hand(peer)
        peer.send(window_update(0, 10 * LARGE))
        (asked,) = await peer.heads(1)
        await came(peer, asked, DEFAULT_WINDOW)
        peer.send(settings({WINDOW: 1_000}))  # now -64,535
        await peer.said(Kind.SETTINGS, count=3)  # two acknowledgements, and its own
        assert asked.room == 1_000 - DEFAULT_WINDOW
        peer.send(window_update(asked.stream, DEFAULT_WINDOW - 1_000))  # now 0
        await turns()
        await came(peer, asked, DEFAULT_WINDOW)
        peer.send(window_update(asked.stream, 7))
        await came(peer, asked, DEFAULT_WINDOW + 7)
        peer.send(settings({WINDOW: 0}), settings({WINDOW: 2_000}))
        await came(peer, asked, DEFAULT_WINDOW + 1_007)
        peer.send(window_update(asked.stream, LARGE))
        await peer.requests(1)
        assert bytes(asked.body) == large().body
        await answering(peer)

    async with h2_serving(script) as server:
        assert (await open_transport(server.url).exchange(large(), at_once)).status == 200


async def test_new_streams_have_the_newest_window(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        by_hand(peer)
        peer.send(window_update(0, MOST_STREAM - DEFAULT_WINDOW))
        for count, size in enumerate((10, 0, 100_000, 20), start=1):
            peer.send(settings({WINDOW: size}))
            await peer.said(Kind.SETTINGS, count=count + 2)
            peer.server.released.set()
            await peer.heads(count)
            asked = peer.session.asked[max(peer.session.asked)]
            await came(peer, asked, size)
            peer.send(rst_stream(asked.stream))
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        assert await transport.warm(1) >= 1
        for _ in range(4):
            await server.released.wait()
            server.released.clear()
            assert isinstance(await outcome(transport.exchange(large(), at_once)), LOST)


@pytest.mark.parametrize("size", [16_384, 16_385, 100_000, 2**24 - 1])
async def test_frames_are_as_large_as_they_may_be_and_not_larger(open_transport: TransportMaker, size: int) -> None:
    allowed = {**FIRST, WINDOW: 10 * LARGE, Setting.MAX_FRAME_SIZE: size}

    async def script(peer: H2Peer) -> None:
        peer.send(window_update(0, 10 * LARGE))
        (asked,) = await peer.requests(1)
        largest = max(len(said.payload) for said in peer.session.frames if said.kind == Kind.DATA)
        assert DEFAULT_FRAME <= largest <= size
        assert bytes(asked.body) == large().body
        peer.send(settings({Setting.MAX_FRAME_SIZE: DEFAULT_FRAME}))
        await answering(peer)

    async with h2_serving(script, first_settings=allowed) as server:
        transport = open_transport(server.url)
        for _ in range(2):
            assert isinstance(await outcome(transport.exchange(large(), at_once)), Reply)


async def test_many_bodies_share_the_connection_s_window_and_all_arrive(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        by_hand(peer)
        peer.session.on_whole = lambda asked: peer.session.reply(asked, b"%d" % len(asked.body))
        while len(peer.session.whole) < 20:
            room = peer.session.room
            if room <= 0:
                peer.send(window_update(0, 10_007))
            for asked in peer.session.asked.values():
                if asked.is_open and asked.room <= 0:
                    peer.send(window_update(asked.stream, 3_001))
            await turns()
        await peer.left()

    async with h2_serving(script, first_settings={**FIRST, WINDOW: 5_000}) as server:
        transport = open_transport(server.url)
        sizes = [3_000 * number for number in range(20)]
        ends = await asyncio.gather(*[transport.exchange(large(size), at_once) for size in sizes])
        assert [int(end.body) for end in ends] == sizes
        assert len(server.peers) == 1


@pytest.mark.parametrize("ending", ["cancelled", "reset"])
async def test_a_body_that_waits_for_a_window_is_given_up_and_takes_none(
    open_transport: TransportMaker, ending: str
) -> None:
    async def script(peer: H2Peer) -> None:
        by_hand(peer)
        (asked,) = await peer.heads(1)
        await came(peer, asked, DEFAULT_WINDOW)
        if ending == "reset":
            peer.send(rst_stream(asked.stream, Code.ENHANCE_YOUR_CALM))
        else:
            under_way.cancel()
            assert (await peer.said(Kind.RST_STREAM, stream=asked.stream)).code == Code.CANCEL
        await turns()
        peer.send(window_update(0, 10))
        await turns()
        assert len(asked.body) == DEFAULT_WINDOW, "nothing is sent for it any more"
        peer.session.refills = True
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(outcome(transport.exchange(large(), at_once)))
        (end,) = await asyncio.gather(under_way, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError if ending == "cancelled" else LOST)
        for number in range(3):  # ten bytes of window are enough for them
            assert await answered(transport, number)
        assert len(server.peers) == 1


# What the client lets the server send


@pytest.mark.parametrize("ending", ["cancelled", "cut", "wrong", "whole"])
async def test_no_window_is_lost_with_what_nobody_reads(open_transport: TransportMaker, ending: str) -> None:
    """In the end, more than the connection's window has come for streams that ended before, and replies still pass."""
    rounds = 24

    async def script(peer: H2Peer) -> None:
        await peer.heads(1)
        late = peer.session.credit // rounds + 20_000
        for number in range(rounds):
            asked = (await peer.heads(number + 1))[-1]
            if ending == "whole":
                peer.session.reply(asked, b"y" * late)
                continue
            if ending == "wrong":
                peer.send(headers(asked.stream, head("20")))
            elif ending == "cut":
                peer.send(headers(asked.stream, head(200)), data(asked.stream, b"x" * 200))
            else:
                tasks[number].cancel()
            await peer.said(Kind.RST_STREAM, stream=asked.stream)
            for _ in range(0, late, DEFAULT_FRAME):
                await peer.until(lambda: peer.session.credit >= DEFAULT_FRAME)
                peer.send(data(asked.stream, bytes(DEFAULT_FRAME)))
        await peer.until(lambda: len(peer.session.whole) == rounds + 1)
        peer.session.reply(peer.session.whole[-1], b"z" * 100)
        await peer.left()

    tasks: list[asyncio.Task[object]] = []
    async with h2_serving(script) as server:
        transport = open_transport(server.url, **({"max_reply_bytes": 100} if ending == "cut" else {}))
        for number in range(rounds):
            tasks.append(asyncio.create_task(ask(transport, number)))
            await asyncio.gather(tasks[number], return_exceptions=True)
        assert (await transport.exchange(large(10), at_once)).body == b"z" * 100
        assert len(server.peers) == 1


async def test_padding_takes_window_too(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        peer.send(headers(asked.stream, head(200)))
        for _ in range(20_000):
            await peer.until(lambda: min(asked.credit, peer.session.credit) > 300)
            peer.send(data(asked.stream, b"y", padding=254))
        peer.send(data(asked.stream, end=True))
        await peer.left()

    async with h2_serving(script) as server:
        got = await open_transport(server.url).exchange(large(10), at_once)
        assert got.body == b"y" * 20_000


async def test_a_server_that_sends_more_than_it_may_is_told_so_or_read(open_transport: TransportMaker) -> None:
    """A client that opens its windows while it reads cannot tell by how much they were passed over."""

    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        room = max(peer.session.theirs[WINDOW], peer.session.credit)
        peer.raw(headers(asked.stream, head(200)))
        peer.raw(data(asked.stream, bytes(DEFAULT_FRAME)) * (min(room, 50_000_000) // DEFAULT_FRAME + 2))
        peer.raw(data(asked.stream, end=True))
        asked.is_answered = True
        await answering(peer)

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url, max_reply_bytes=10**9)
        got = await ask(transport, 0)
        if isinstance(got, Reply):
            assert len(got.body) % DEFAULT_FRAME == 0
        else:
            assert isinstance(got, LOST)
            resets = [said for said in server.peers[0].session.frames if said.kind == Kind.RST_STREAM]
            assert {server.peers[0].code, *[said.code for said in resets]} >= {Code.FLOW_CONTROL_ERROR}
        assert await answered(transport, 1)


async def test_exchanges_that_end_leave_no_trace_on_the_connection(open_transport: TransportMaker) -> None:
    """A thousand of each kind over one connection, which is as good as new after it."""

    async def script(peer: H2Peer) -> None:
        def end(asked: Asked) -> None:
            which = int(asked.body) % 3
            if which == 0:
                peer.reply(asked)
            else:
                peer.send(rst_stream(asked.stream, Code.REFUSED_STREAM if which == 1 else Code.INTERNAL_ERROR))

        peer.session.on_whole = end
        await peer.left()

    async with h2_serving(script) as server:
        transport = open_transport(server.url, max_connections=1)
        for number in range(0, 3_000, 60):
            ends = await asyncio.gather(*asking_all(transport, range(number, number + 60)))
            assert sum(isinstance(end, Reply) for end in ends) == 20
        assert len(server.peers) == 1
