"""The direct transport as a whole, where it differs from what every transport promises."""

import asyncio
import gc
import weakref

import pytest

from sendengine.errors import NotSentError, ReplyLostError, SettingsError
from sendengine.ports import WireRequest
from sendengine.settings import AppSettings, TransportSettings
from sendengine.settings.model import DEFAULT_KIND
from sendengine.transport import AiohttpTransport, DirectTransport
from sendengine.transport import open_transport as opening
from sendengine.transport.direct.http1.connection import Http1Connection
from sendengine.transport.lifetimes import IDLE_S, MAX_AGE_S, lifetime_s
from tests.transport.conftest import KEY, TransportMaker, direct_only, on_asyncio
from tests.transport.scripted import (
    AUTHORITY,
    LARGE,
    POST,
    Gate,
    Peer,
    answering,
    at_once,
    first,
    jump,
    reply,
    server_tls,
    serving,
    turns,
    until,
)

APP = AppSettings(app_id="8250eaf6-1a58-489e-b136-7c74a864b434", api_key="k", base_url="http://127.0.0.1:9/api/v1")


# Settings


def test_the_kind_is_what_is_asked_for_or_the_one_that_can_do_it() -> None:
    proxy = "http://proxy.example:3128"
    assert TransportSettings().kind == DEFAULT_KIND
    assert TransportSettings(kind=None).kind == DEFAULT_KIND
    assert TransportSettings(proxy=proxy).kind == "aiohttp"
    assert TransportSettings(kind="aiohttp", proxy=proxy).kind == "aiohttp"
    assert TransportSettings(kind="direct").kind == "direct"
    with pytest.raises(SettingsError, match='kind: must be "aiohttp" where there is a proxy'):
        TransportSettings(kind="direct", proxy=proxy)


@on_asyncio
async def test_the_settings_decide_which_transport_is_opened() -> None:
    for settings, made in (
        (TransportSettings(kind="direct"), DirectTransport),
        (TransportSettings(kind="aiohttp"), AiohttpTransport),
    ):
        transport = opening(APP, "k", settings)
        assert isinstance(transport, made)
        assert repr(transport) == f"<{made.__name__} http://127.0.0.1:9/api/v1, 0 open>"
        await transport.aclose()


@on_asyncio
async def test_a_proxy_is_refused() -> None:
    settings = TransportSettings(proxy="http://user:canary@proxy.example:3128")
    with pytest.raises(SettingsError, match='kind = "aiohttp"') as caught:
        DirectTransport(base_url="http://127.0.0.1:9", api_key="k", settings=settings, max_connections=1)
    assert "canary" not in str(caught.value)


# How long a connection is kept


def test_connections_live_for_different_whiles_up_to_the_bound() -> None:
    lives = [lifetime_s(number) for number in range(1, 1001)]
    assert all(MAX_AGE_S / 2 <= life_s < MAX_AGE_S for life_s in lives)
    in_a_second = max(sum(at_s <= life_s < at_s + 1 for life_s in lives) for at_s in range(150, 300))
    assert in_a_second <= 10, "of a thousand that were opened together, over 150 s"


@direct_only
@on_asyncio
async def test_an_idle_connection_is_closed_when_its_time_is_over(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        await transport.exchange(POST, at_once)
        jump(IDLE_S - 1)
        await turns()
        assert transport.open_connections == 1
        jump(1.1)
        await until(lambda: transport.open_connections == 0)
        await server.all_gone()


@direct_only
@on_asyncio
async def test_a_connection_that_is_kept_busy_is_closed_when_it_is_too_old(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        for _ in range(20):
            await transport.exchange(POST, at_once)
            jump(30)
        assert 3 <= len(server.peers) <= 5, "600 s, and at most 150 to 300 s each"


@direct_only
@on_asyncio
async def test_waiting_for_a_permit_may_take_longer_than_a_connection_may_be_idle(
    open_transport: TransportMaker,
) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        await transport.exchange(POST, at_once)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        jump(1000)
        await asyncio.sleep(0.001)  # the wheel's turn
        gate.opened.set()
        assert (await under_way).status == 200
        assert len(server.peers) == 1
        await turns()
        assert transport.open_connections == 0, "and then it is too old"


# What is written


@direct_only
async def test_a_small_request_leaves_in_one_piece(
    open_transport: TransportMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Http1Connection.connection_made
    pieces: list[bytes] = []

    class Spy:
        def __init__(self, transport: asyncio.Transport) -> None:
            self.transport = transport

        def write(self, data: bytes) -> None:
            pieces.append(data)
            self.transport.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self.transport, name)

    monkeypatch.setattr(Http1Connection, "connection_made", lambda self, transport: made(self, Spy(transport)))  # type: ignore[arg-type]
    async with serving(answering()) as server:
        await open_transport(server.url).exchange(POST, at_once)
    assert len(pieces) == 1
    assert pieces[0].endswith(b"\r\n\r\n" + POST.body)


@direct_only
async def test_a_path_that_is_not_encoded_is_not_sent_and_the_connection_stays(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        with pytest.raises(NotSentError):
            await transport.exchange(WireRequest("POST", "/a b\r\nX: y", b"{}"), at_once)
        assert (await transport.exchange(POST, at_once)).status == 200
        assert (len(server.requests), len(server.peers)) == (1, 1)


@direct_only
async def test_an_early_reply_to_a_large_request_that_was_read_keeps_the_connection(
    open_transport: TransportMaker,
) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        for request in (LARGE, POST, LARGE):
            assert (await transport.exchange(request, at_once)).status == 200
        assert len(server.peers) == 1


@direct_only
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_after_an_early_reply_to_a_large_request_the_connection_is_not_used_again(
    open_transport: TransportMaker, *, is_tls: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply(b"too large", status="413 Payload Too Large"))
        await peer.server.released.wait()  # reads no further

    async with serving(first(script), tls=server_tls() if is_tls else None) as server:
        transport = open_transport(server.url, **({"ca_file": AUTHORITY} if is_tls else {}))
        assert (await transport.exchange(LARGE, at_once)).status == 413
        assert (await transport.exchange(POST, at_once)).status == 200
        assert len(server.peers) == 2
        server.released.set()


# Ends


@direct_only
async def test_a_caller_goes_on_after_the_transport_closed_while_it_waited_for_its_permit(
    open_transport: TransportMaker,
) -> None:
    gate = Gate()

    async def caller() -> int:
        with pytest.raises(NotSentError, match="closed"):
            await transport.exchange(POST, gate)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async with serving(answering()) as server:
        transport = open_transport(server.url)
        calling = asyncio.create_task(caller())
        await gate.asked.wait()
        await transport.aclose()
        assert await calling == 0, "no cancellation is left over"


@direct_only
async def test_what_a_permit_makes_of_being_interrupted_by_closing_passes(open_transport: TransportMaker) -> None:
    asked = asyncio.Event()

    async def stubborn() -> None:
        asked.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise LookupError("its own") from None

    async with serving(answering()) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, stubborn))
        await asked.wait()
        await transport.aclose()
        with pytest.raises(LookupError, match="its own"):
            await under_way
        assert server.requests == []


@direct_only
async def test_a_caller_that_is_cancelled_as_the_transport_closes_is_cancelled(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await closing


@direct_only
async def test_a_reply_that_comes_in_many_pieces_to_nobody_does_not_mix_with_the_next(
    open_transport: TransportMaker,
) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked)
        await answering(reply(b"next"))(peer)

    async with serving(first(script, answering(reply(b"next")))) as server:
        transport = open_transport(server.url)
        for steps in range(60):
            under_way = asyncio.create_task(transport.exchange(POST, at_once))
            for _ in range(steps):
                await asyncio.sleep(0)
            under_way.cancel()
            await asyncio.gather(under_way, return_exceptions=True)
            assert (await transport.exchange(POST, at_once)).body in {b"next", b"ab"}


@direct_only
async def test_a_failed_exchange_leaves_no_cycle_for_the_collector(open_transport: TransportMaker) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()

    class Marker:
        """In the permit's closure, and so in the exchange's frame."""

    async with serving(silent) as server:
        transport = open_transport(server.url)
        gc.collect()
        gc.disable()
        try:
            marker = Marker()
            gone = weakref.ref(marker)

            async def permit(_: Marker = marker) -> None:
                pass

            with pytest.raises(ReplyLostError) as caught:
                await transport.exchange(POST, permit)
            del marker, permit, caught
            await turns()
            assert gone() is None
        finally:
            gc.enable()


@direct_only
async def test_neither_connections_nor_the_pool_show_the_key(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        await transport.exchange(POST, at_once)
        assert isinstance(transport, DirectTransport)
        shown = [repr(value) for value in vars(transport).values()]
        shown += [repr(connection) for connection in transport._pool._open]
        assert KEY not in "\n".join(shown)
