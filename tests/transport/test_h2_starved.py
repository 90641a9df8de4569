"""Servers that leave a client no window any more, while they answer all else."""

import asyncio
from typing import Final

from sendengine.ports import Reply, WireRequest
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, answered, ask, asking, asking_all
from tests.transport.h2_frames import DEFAULT_WINDOW, Kind, window_update
from tests.transport.h2_serving import FIRST, H2Peer, answering, first, h2_serving
from tests.transport.scripted import Gate, at_once, jump, outcome, turns, until

pytestmark = [h2_only, on_asyncio]

LARGE: Final = WireRequest("POST", "/notifications", bytes(100_000))
TIMEOUT_S: Final = 40
PATIENCE_S: Final = 10


async def starving(peer: H2Peer) -> None:
    """Take what fits the windows that a connection begins with, and open none again; answer what came whole."""
    peer.session.refills = False
    await answering(peer)


async def pass_time(seconds: int) -> None:
    """Let time pass so slowly that pings are answered."""
    for _ in range(seconds):
        jump(1)
        for _ in range(5):
            await turns()


async def test_a_connection_without_a_window_is_offered_no_more_and_another_is_opened(
    open_transport: TransportMaker,
) -> None:
    async with h2_serving(first(starving)) as server:
        transport = open_transport(server.url, timeout_s=TIMEOUT_S, connect_timeout_s=PATIENCE_S)
        stuck = asyncio.create_task(outcome(transport.exchange(LARGE, at_once)))
        await until(lambda: len(server.asked) == 1)
        for number in range(30):
            assert await answered(transport, number)
        assert [len(peer.session.whole) for peer in server.peers] == [0, 30]
        await pass_time(PATIENCE_S + 2)
        assert transport.capacity == FIRST[next(iter(FIRST))], "the first one is retired"
        assert not stuck.done()
        await pass_time(TIMEOUT_S - PATIENCE_S)
        assert isinstance(await stuck, LOST)
        await server.peers[0].left()
        assert len(server.peers[0].session.asked) == 1
        assert await answered(transport, 31)
        assert len(server.peers) == 2


async def test_what_waits_for_its_permit_meanwhile_goes_over_the_other(open_transport: TransportMaker) -> None:
    async with h2_serving(first(starving)) as server:
        transport = open_transport(server.url, timeout_s=TIMEOUT_S, connect_timeout_s=PATIENCE_S)
        gate = Gate()
        waiting = [asyncio.create_task(ask(transport, number, gate)) for number in range(20)]
        await gate.asked.wait()
        await turns()
        stuck = asyncio.create_task(outcome(transport.exchange(LARGE, at_once)))
        await turns()
        assert await answered(transport, 30), "which opens the other"
        await pass_time(2)
        gate.opened.set()
        assert all(isinstance(end, Reply) for end in await asyncio.gather(*waiting))
        assert len(server.peers[0].session.asked) == 1
        await pass_time(TIMEOUT_S)
        assert isinstance(await stuck, LOST)


async def test_a_window_that_opens_again_makes_the_connection_as_good_as_new(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        peer.session.refills = False
        (asked,) = await peer.heads(1)
        await peer.until(lambda: len(asked.body) == DEFAULT_WINDOW)
        await peer.server.released.wait()
        peer.session.refills = True
        peer.send(window_update(asked.stream, 10**6), window_update(0, 10**6))
        await answering(peer)

    async with h2_serving(script) as server:
        transport = open_transport(server.url, max_connections=1)
        large = asyncio.create_task(transport.exchange(LARGE, at_once))
        await turns()
        await until(lambda: len(server.asked) == 1)
        others = asking_all(transport, range(50))
        await turns()
        assert len(server.asked) == 1, "they wait for room"
        server.released.set()
        assert all(isinstance(end, Reply) for end in await asyncio.gather(large, *others))
        assert len(server.peers) == 1


async def test_requests_that_exhaust_a_window_together_are_spread_and_none_is_lost(
    open_transport: TransportMaker,
) -> None:
    """A window is a kilobyte for each of 64; what comes beyond that waits a moment, or takes another connection."""

    async def slowly(peer: H2Peer) -> None:
        peer.session.refills = False
        peer.session.on_whole = peer.reply
        while True:
            await peer.until(lambda: peer.session.room < 1_000)
            await turns()
            peer.send(window_update(0, DEFAULT_WINDOW))

    async with h2_serving(slowly) as server:
        transport = open_transport(server.url)
        body = bytes(1_000)
        kilobytes = [transport.exchange(WireRequest("POST", "/notifications", body), at_once) for _ in range(65 * 3)]
        ends = await asyncio.gather(*kilobytes)
        assert all(isinstance(end, Reply) for end in ends)
        assert all(said.kind != Kind.RST_STREAM for peer in server.peers for said in peer.session.frames)


async def test_streams_without_windows_of_their_own_are_waited_for_with_the_same_patience(
    open_transport: TransportMaker,
) -> None:
    async def script(peer: H2Peer) -> None:
        peer.session.refills = False
        peer.send(window_update(0, 10**6))
        await answering(peer)

    async with h2_serving(first(script)) as server:
        transport = open_transport(server.url, timeout_s=TIMEOUT_S, connect_timeout_s=PATIENCE_S)
        await transport.exchange(asking(0), at_once)
        stuck = asyncio.create_task(outcome(transport.exchange(LARGE, at_once)))
        await turns()
        assert await answered(transport, 1)
        assert len(server.peers) == 1, "there is a window for others"
        await pass_time(PATIENCE_S + 2)
        assert await answered(transport, 2)
        assert len(server.peers) == 2
        await pass_time(TIMEOUT_S)
        assert isinstance(await stuck, LOST)
