"""The mock server and the direct transport over HTTP/2, two ends that share no code."""

import asyncio
import ssl as tls
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.mockserver import AppConfig, LaneLimit, MockServer
from sendengine.ports import Reply, WireRequest
from sendengine.settings import TransportSettings
from sendengine.transport import DirectTransport
from tests.mockserver.raw_client import APP, Start, happened

CERTIFICATE = Path(__file__).with_name("loopback.pem")
Dial = Callable[..., Awaitable[DirectTransport]]


@pytest.fixture
async def serve(start: Start, request: pytest.FixtureRequest) -> Callable[..., Awaitable[MockServer]]:
    """Start a server, over TLS where the test is asked for it."""

    async def serve(**settings: object) -> MockServer:
        context = None
        if request.node.callspec.params.get("has_tls"):
            context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATE)
        return await start(ssl=context, **settings)

    return serve


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Open a transport to a server; it closes with the test."""
    async with AsyncExitStack() as stack:

        async def dial(server: MockServer, *, connections: int = 1, timeout_s: float = 10) -> DirectTransport:
            settings = TransportSettings(protocol="h2", ca_file=str(CERTIFICATE), timeout_s=timeout_s)
            if not server.base_url.startswith("https"):
                settings = TransportSettings(protocol="h2", timeout_s=timeout_s)
            transport = DirectTransport(
                base_url=server.base_url, api_key="k", settings=settings, max_connections=connections
            )
            stack.push_async_callback(transport.aclose)
            return transport

        yield dial


async def at_once() -> None:
    """A permit that is there at once."""


def notification(user: str) -> WireRequest:
    body = {"app_id": APP, "contents": {"en": "Hi"}, "target_channel": "push"}
    return WireRequest("POST", "/notifications", orjson.dumps(body | {"include_aliases": {"external_id": [user]}}))


async def notify(transport: DirectTransport, *users: str) -> list[Reply | BaseException]:
    asked = (transport.exchange(notification(user), at_once) for user in users)
    return await asyncio.gather(*asked, return_exceptions=True)


def statuses(replies: list[Reply | BaseException]) -> list[int | type[BaseException]]:
    return [reply.status if isinstance(reply, Reply) else type(reply) for reply in replies]


@pytest.mark.parametrize("has_tls", [False, True])
async def test_many_requests_share_one_connection(serve: Start, dial: Dial, *, has_tls: bool) -> None:
    server = await serve(latency_ms=5, default=AppConfig(create_notification=LaneLimit(counter="off")))
    transport = await dial(server)
    users = [f"u{number}" for number in range(300)]
    assert statuses(await notify(transport, *users)) == [200] * 300
    path = f"/apps/{APP}/users/by/external_id/u%C3%BC"
    update = WireRequest("PATCH", path, b'{"properties":{"tags":{"t":"1"}}}')
    assert (await transport.exchange(update, at_once)).status == 202
    large = WireRequest("PATCH", path, b'{"properties":{}}' + b" " * 3_000_000)
    assert (await transport.exchange(large, at_once)).status in {202, 429}
    found = server.summary()
    assert (transport.protocol, server.base_url.startswith("https")) == ("h2", has_tls)
    assert (found.connections, found.http2_connections, found.most_connections) == (1, 1, 1)
    assert [lane.http2 for lane in found.lanes] == [300, 2]
    assert server.ledger.messages.deliveries() == {f"external_id:{user}": 1 for user in users}
    assert (found.unparsable, found.refused_streams, found.unread_replies) == (0, 0, 0)


@pytest.mark.parametrize("has_tls", [False, True])
async def test_the_limit_holds_over_http2(serve: Start, dial: Dial, *, has_tls: bool) -> None:
    server = await serve(default=AppConfig(create_notification=LaneLimit(rate=50)))
    replies = await notify(await dial(server), *map(str, range(60)))
    assert sorted(statuses(replies)) == [200] * 50 + [429] * 10  # type: ignore[type-var]  # they are all numbers
    assert {reply.headers["retry-after"] for reply in replies if isinstance(reply, Reply) and reply.status == 429} == {
        "1"
    }
    assert server.base_url.startswith("https") == has_tls


@pytest.mark.parametrize(
    ("kind", "lost", "effects"),
    [
        ("reset_before", ReplyLostError, 0),
        ("reset_after", ReplyLostError, 1),
        ("close_after", ReplyLostError, 1),
        ("cut", ReplyLostError, 1),
        ("refused_stream", NotSentError, 0),
    ],
)
async def test_a_fault_costs_one_request(
    start: Start, dial: Dial, kind: str, lost: type[Exception], effects: int
) -> None:
    server = await start(faults=[{"kind": kind, "skip": 5, "count": 1}], latency_ms=2)
    transport = await dial(server)
    assert statuses(await notify(transport, *"abcdefghij")) == [200] * 5 + [lost] + [200] * 4
    assert server.summary().notifications == 9 + effects
    assert server.summary().connections == 1


async def test_a_hard_goaway_loses_replies_and_a_graceful_one_none(start: Start, dial: Dial) -> None:
    server = await start(latency_ms=10)
    transport = await dial(server, connections=2)
    for is_hard, expected in ((False, 200), (True, ReplyLostError)):
        asked = asyncio.ensure_future(notify(transport, *"abc"))
        server.reset()
        await happened(lambda: server.ledger.requests("create_notification") == 3)
        server.go_away(hard=is_hard)
        assert statuses(await asked) == [expected] * 3
        assert server.summary().notifications == 3
    assert statuses(await notify(transport, "d")) == [200]


async def test_a_limit_that_goes_to_one_and_back_costs_nothing(start: Start, dial: Dial) -> None:
    server = await start(latency_ms=2)
    transport = await dial(server)
    users = [f"u{number}" for number in range(40)]
    for limit in (128, 1, 128):
        server.configure(max_concurrent_streams=limit)
        replies = await notify(transport, *users)
        # one that crosses the new limit may be refused, and then has had no effect
        assert set(statuses(replies)) <= {200, NotSentError}
        assert statuses(replies).count(200) == server.summary().notifications
        server.reset()
    assert statuses(await notify(transport, *users)) == [200] * 40


async def test_a_server_that_stops_reading_delays_and_loses_nothing(start: Start, dial: Dial) -> None:
    server = await start()
    transport = await dial(server)
    assert statuses(await notify(transport, "a")) == [200]
    server.stop_reading(for_s=0.02)
    assert statuses(await notify(transport, *"bcd")) == [200] * 3
    assert server.summary().notifications == 4
