"""Which protocol is spoken: what the setting asks for and the server offers within TLS, and what that opens."""

import ssl
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.errors import NotSentError, ReplyLostError, TransportError
from sendengine.ports import Reply
from sendengine.transport import DirectTransport
from tests.transport.conftest import TransportMaker, direct_only, h2_only, on_asyncio
from tests.transport.h2_asking import answered, ask, ask_all, kinds
from tests.transport.h2_frames import Code, Setting, goaway, rst_stream
from tests.transport.h2_serving import H2Peer, first, h2_serving, h2_tls
from tests.transport.h2_serving import answering as peer_answers
from tests.transport.h2_session import Asked
from tests.transport.scripted import AUTHORITY, POST, answering, at_once, fails, server_tls, serving, until

STREAMS: Final = Setting.MAX_CONCURRENT_STREAMS


def offering(*protocols: str) -> ssl.SSLContext:
    """Make a server's context that offers these, or nothing at all."""
    context = server_tls()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@direct_only
@pytest.mark.parametrize(
    ("protocol", "offered"),
    [
        ("auto", ("h2",)),
        ("auto", ("h2", "http/1.1")),
        ("h2", ("h2",)),
        ("h2", ("http/1.1", "h2")),  # whoever offers both chooses, and this one likes HTTP/1.1 better
    ],
)
async def test_http2_is_spoken_where_it_is_offered(
    open_transport: TransportMaker, protocol: str, offered: tuple[str, ...]
) -> None:
    async with h2_serving(tls=h2_tls(*offered)) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY, protocol=protocol)
        assert kinds(await ask_all(transport, range(10))) == [Reply] * 10
        assert isinstance(transport, DirectTransport)
        assert transport.protocol == "h2"
        assert {peer.transport.get_extra_info("ssl_object").selected_alpn_protocol() for peer in server.peers} == {"h2"}  # type: ignore[union-attr]
        await transport.aclose()
        await server.all_gone()


@pytest.mark.parametrize("kind", ["aiohttp", "direct"], indirect=True)
@pytest.mark.parametrize("offered", [(), ("http/1.1",), ("http/1.1", "h2")], ids=" ".join)
async def test_http1_is_spoken_where_http2_is_not_offered(
    open_transport: TransportMaker, offered: tuple[str, ...]
) -> None:
    async with serving(answering(), tls=offering(*offered)) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        for _ in range(2):
            assert (await transport.exchange(POST, at_once)).status == 200
        assert [received.line for received in server.requests] == ["POST /notifications HTTP/1.1"] * 2


@pytest.mark.parametrize("kind", ["aiohttp", "direct"], indirect=True)
async def test_http1_is_spoken_where_it_is_asked_for(open_transport: TransportMaker) -> None:
    async with serving(answering(), tls=offering("h2", "http/1.1")) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY, protocol="http/1.1")
        assert (await transport.exchange(POST, at_once)).status == 200


@direct_only
async def test_http1_is_spoken_without_tls(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        assert (await transport.exchange(POST, at_once)).status == 200
        assert isinstance(transport, DirectTransport)
        assert transport.protocol == "http/1.1"


@direct_only
@pytest.mark.parametrize("offered", [(), ("http/1.1",), ("spdy/3",)], ids=" ".join)
async def test_http2_that_is_asked_for_and_not_offered_was_not_sent(
    open_transport: TransportMaker, offered: tuple[str, ...]
) -> None:
    async with serving(answering(), tls=offering(*offered)) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY, protocol="h2")
        error = await fails(transport)
        assert isinstance(error, NotSentError)
        assert "HTTP/2" in str(error)
        assert await transport.warm(2) == 0
        assert server.requests == []
        await until(lambda: transport.open_connections == 0)


@direct_only
async def test_a_server_that_changes_its_mind_is_followed(open_transport: TransportMaker) -> None:
    """A balancer may have both behind it: each connection speaks what it has negotiated."""
    async with h2_serving(tls=h2_tls()) as modern:
        transport = open_transport(modern.url, ca_file=AUTHORITY)
        assert await answered(transport, 0)
        modern.peers[0].close()
        await until(lambda: transport.open_connections == 0)
        port = modern.port
    async with serving(answering(), tls=offering("http/1.1"), port=port) as old:
        assert (await transport.exchange(POST, at_once)).status == 200
        assert (len(old.requests), transport.open_connections) == (1, 1)


@h2_only
async def test_a_session_is_resumed(open_transport: TransportMaker) -> None:
    resumed: list[bool] = []

    async def once(peer: H2Peer) -> None:
        assert peer.transport is not None
        resumed.append(peer.transport.get_extra_info("ssl_object").session_reused)
        (asked,) = await peer.requests(1)
        peer.reply(asked)
        await peer.server.released.wait()

    async with h2_serving(once, tls=h2_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        for number in range(4):
            assert await answered(transport, number)
            server.released.set()
            await until(lambda: transport.open_connections == 0)
            server.released.clear()
        assert resumed == [False, True, True, True]


# A server that wants HTTP/1.1 after all

REQUIRED: Final[dict[str, tuple[Callable[[Asked], bytes], type[TransportError]]]] = {
    "a reset": (lambda asked: rst_stream(asked.stream, Code.HTTP_1_1_REQUIRED), ReplyLostError),
    "a goodbye": (lambda _: goaway(0, Code.HTTP_1_1_REQUIRED), NotSentError),
}


@direct_only
@pytest.mark.parametrize("name", REQUIRED)
async def test_http1_is_spoken_from_then_on_where_the_server_requires_it(
    open_transport: TransportMaker, name: str
) -> None:
    """A reset with that code says nothing of whether the request was looked at, so its reply is lost."""
    required, meaning = REQUIRED[name]

    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        if peer in peer.server.peers[:2]:
            peer.send(required(asked))
        else:
            await peer.server.peers[0].left()
            peer.reply(asked)
        await peer.left()

    async with h2_serving(script, first_settings={STREAMS: 1}, tls=h2_tls("h2", "http/1.1")) as modern:
        transport = open_transport(modern.url, ca_file=AUTHORITY, protocol="auto")
        await transport.warm(3)
        ends = await ask_all(transport, range(3))
        assert sorted(kinds(ends), key=str) == sorted([meaning, meaning, Reply], key=str)
        await modern.all_gone()
        assert isinstance(transport, DirectTransport)
        assert not transport._pool._pacing.is_resting, "the server is there"
    async with serving(answering(), tls=offering("h2", "http/1.1"), port=modern.port) as old:
        assert (await transport.exchange(POST, at_once)).status == 200
        assert [received.line for received in old.requests] == ["POST /notifications HTTP/1.1"]
        assert transport.protocol == "http/1.1"


@h2_only
@pytest.mark.parametrize("name", REQUIRED)
async def test_http2_is_gone_on_with_where_it_is_asked_for(open_transport: TransportMaker, name: str) -> None:
    required, meaning = REQUIRED[name]

    async def script(peer: H2Peer) -> None:
        (asked,) = await peer.requests(1)
        peer.send(required(asked))
        await peer_answers(peer)

    async with h2_serving(first(script), tls=h2_tls("h2", "http/1.1")) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        assert isinstance(await ask(transport, 0), meaning)
        assert await answered(transport, 1)


# Warming


@h2_only
@on_asyncio
@pytest.mark.parametrize(("limit", "wanted", "connections"), [(100, 250, 3), (1, 5, 5), (10, 10, 1), (10, 11, 2)])
async def test_warming_opens_as_many_connections_as_carry_so_many(
    open_transport: TransportMaker, limit: int, wanted: int, connections: int
) -> None:
    async with h2_serving(first_settings={STREAMS: limit}) as server:
        transport = open_transport(server.url, max_connections=20)
        assert await transport.warm(wanted) >= wanted
        assert isinstance(transport, DirectTransport)
        assert transport.capacity == limit * transport.open_connections
        assert connections <= len(server.peers) <= connections + 4, "some before it is known how many are needed"
        assert kinds(await ask_all(transport, range(20))) == [Reply] * 20


@h2_only
@on_asyncio
async def test_what_is_open_is_spread_over(open_transport: TransportMaker) -> None:
    """What one turn of the loop sends goes over one connection; all of them have their part in the end."""
    async with h2_serving(first_settings={STREAMS: 50}) as server:
        transport = open_transport(server.url, max_connections=4)
        await transport.warm(200)
        for number in range(400):
            assert isinstance(await ask(transport, number), Reply)
        shares = [len(peer.session.asked) for peer in server.peers]
        assert len(shares) == 4
        assert min(shares) >= 50
