"""Whoever is told "not sent" must be right: in the very turn of the loop in which a connection ends, and at any time.

A request may be gathered and not yet written when the end of its connection is seen. What the server has refused, by
RST_STREAM or by a GOAWAY that names an earlier stream, may have come; nothing else that was "not sent" may.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.ports import Reply, Transport
from sendengine.transport import DirectTransport
from sendengine.transport.direct.http2.liveness import IDLE_PING_S
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, NOT_SENT, End, answered, ask, ask_all, asking_all, kinds
from tests.transport.h2_frames import Code, Setting, data, goaway, headers, ping, rst_stream, settings, window_update
from tests.transport.h2_serving import H2Peer, H2Server, answering, first, h2_serving
from tests.transport.scripted import Gate, jump, turns, until

pytestmark = h2_only

STREAMS: Final = Setting.MAX_CONCURRENT_STREAMS
MANY: Final = 40


def assert_unsent_never_came(server: H2Server, ends: dict[int, End], *, above: int | None = None) -> None:
    """See that what was "not sent" did not come, but for streams that were refused or are above the last one."""
    for asked in server.asked:
        number = int(asked.body or b"-1")
        if isinstance(ends.get(number), NOT_SENT):
            is_refused = asked.reset_by_us == Code.REFUSED_STREAM
            assert is_refused or (above is not None and asked.stream > above), f"request {number} came"


ENDINGS: Final[dict[str, Callable[[H2Peer], None]]] = {
    "a fault": lambda peer: peer.raw(ping(b"short")),
    "a fault of a stream": lambda peer: peer.raw(window_update(1, 0)),
    "a fault after a reply": lambda peer: peer.raw(
        headers(1, b"\x88") + data(1, b'{"of":0}', end=True) + window_update(0, 0)
    ),
    "a goodbye": lambda peer: peer.raw(goaway(1)),
    "a hard goodbye": lambda peer: peer.raw(goaway(1, Code.INTERNAL_ERROR)),
    "a reset stream": lambda peer: peer.raw(rst_stream(1)),
    "a limit of nothing": lambda peer: peer.send(settings({STREAMS: 0}), settings({STREAMS: 50})),
    "its close": H2Peer.close,
    "its reset": H2Peer.reset,
    "half of its close": H2Peer.half_close,
}


@on_asyncio
@pytest.mark.parametrize("order", ["the end first", "the requests first"])
@pytest.mark.parametrize("name", ENDINGS)
async def test_requests_that_are_gathered_when_a_connection_ends(
    open_transport: TransportMaker, name: str, order: str
) -> None:
    """One request is under way; the permits of many come in the turn in which the end of their connection is seen."""
    gate = Gate()

    async def script(peer: H2Peer) -> None:
        await peer.requests(1)
        await until(lambda: gate.count == MANY)
        peer.session.strict = False
        if order == "the requests first":
            gate.opened.set()
            await asyncio.sleep(0)
        ENDINGS[name](peer)
        gate.opened.set()
        peer.session.on_whole = peer.reply
        await peer.left()

    async with h2_serving(first(script), first_settings={STREAMS: 50}) as server:
        transport = open_transport(server.url, max_connections=2)
        under_way = asking_all(transport, range(1))
        await until(lambda: len(server.whole) == 1)
        held = asking_all(transport, range(1, MANY + 1), gate)
        ends = dict(enumerate(await _all_ends([*under_way, *held], server)))
        assert set(kinds(ends.values())) <= {Reply, NOT_SENT, LOST}
        assert_unsent_never_came(server, ends, above=1 if "goodbye" in name else None)
        assert await answered(transport, 99)


async def _all_ends(tasks: list[asyncio.Task[End]], server: H2Server) -> list[End]:
    """Return what came of all; what the server leaves without an answer is ended by closing its connection."""
    for _ in range(40):
        await turns()
    server.peers[0].close()
    ends = await asyncio.gather(*tasks)
    await server.peers[0].left()
    await turns()
    return ends


@on_asyncio
async def test_requests_that_are_gathered_when_time_is_over(open_transport: TransportMaker) -> None:
    """The loop was busy for a minute, with the very step in which they are gathered: a timer looks before they go."""
    gate = Gate()

    async def permit() -> None:
        await gate()
        jump(61)

    async with h2_serving(first_settings={STREAMS: 50}) as server:
        transport = open_transport(server.url, max_connections=1, timeout_s=60)
        assert await answered(transport, 0)
        tasks = asking_all(transport, range(1, 6), permit)
        await until(lambda: gate.count == 5)
        jump(IDLE_PING_S + 1)  # so that the timer's turn comes behind theirs
        gate.opened.set()
        ends = dict(enumerate(await asyncio.gather(*tasks), start=1))
        await turns()
        assert_unsent_never_came(server, ends)


async def test_under_load_no_request_that_was_not_sent_comes(open_transport: TransportMaker) -> None:
    """Requests are gathered in every turn; each connection breaks a rule after some of them, and is replaced."""

    async def rude(peer: H2Peer) -> None:
        limit = 7 + 5 * (len(peer.server.peers) % 4)
        for count in range(1, limit):
            peer.reply((await peer.requests(count))[-1])
        peer.session.strict = False
        peer.raw(ping(b"short"))
        await peer.left()

    async with h2_serving(rude, first_settings={STREAMS: 20}) as server:
        transport = open_transport(server.url, max_connections=3)
        ends: dict[int, End] = {}

        async def worker(begin: int) -> None:
            for number in range(begin, begin + 60):
                ends[number] = await ask(transport, number)

        await asyncio.gather(*[worker(1_000 * lane) for lane in range(12)])
        assert {Reply, LOST} <= set(kinds(ends.values())) <= {Reply, LOST, NOT_SENT}
        assert_unsent_never_came(server, ends)
        assert len(server.peers) > 5


# What a fault leaves behind


def busy(transport: Transport) -> int:
    assert isinstance(transport, DirectTransport)
    return transport._pool.busy


@on_asyncio
async def test_a_fault_that_comes_with_replies_leaves_nothing_counted(open_transport: TransportMaker) -> None:
    """Else the pool would take those that are over for busy, and open more and more connections."""

    async def rude(peer: H2Peer) -> None:
        said = b""
        for asked in await peer.requests(10):
            said += headers(asked.stream, b"\x88") + data(asked.stream, b'{"of":%s}' % asked.body, end=True)
        peer.session.strict = False
        peer.raw(said + window_update(0, 0))
        await peer.left()

    async def chosen(peer: H2Peer) -> None:
        await (answering if len(peer.server.peers) > 10 else rude)(peer)

    async with h2_serving(chosen, first_settings={STREAMS: 12}) as server:
        transport = open_transport(server.url, max_connections=30)
        while len(server.peers) <= 10:
            await ask_all(transport, range(10))
            assert busy(transport) == 0
        before = len(server.peers)
        for number in range(20):
            await ask(transport, number)
        assert busy(transport) == 0
        assert len(server.peers) <= before + 1


@on_asyncio
async def test_a_server_that_allows_no_streams_for_ever_is_told_of(open_transport: TransportMaker) -> None:
    """It is there, and takes nothing: nobody waits for it without an end, and it is not dialed without an end."""
    async with h2_serving(first_settings={STREAMS: 0}) as server:
        transport = open_transport(server.url, max_connections=50, connect_timeout_s=10)
        under_way = asking_all(transport, range(3))
        for _ in range(12):
            jump(5)
            for _ in range(5):
                await turns()
        assert all(task.done() for task in under_way)
        assert kinds(await asyncio.gather(*under_way)) == [NOT_SENT] * 3
        assert server.asked == []
        assert server.most_open <= 8
