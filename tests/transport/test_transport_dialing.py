"""Names, addresses and connects: which address is tried, when the next one is, and what ends a connect that hangs."""

import asyncio
import socket
import sys
from typing import Final

import pytest

from sendengine.errors import NotSentError
from tests.transport.conftest import TransportMaker, direct_only, on_asyncio
from tests.transport.scripted import (
    POST,
    Gate,
    answering,
    at_once,
    fails,
    full,
    jump,
    reply,
    serving,
    turns,
    until,
)

HAS_IPV6: Final = socket.has_ipv6
NAME: Final = "api.invalid"
V4, V6 = "127.0.0.1", "::1"

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="a full backlog lets a connect hang on Linux only")


class Names:
    """The system's names, as far as a test wants them."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0

    def look_up(self, host: object, port: object, *_: object, **__: object) -> list[tuple[object, ...]]:
        """Stand in for `socket.getaddrinfo`; addresses stand for themselves."""
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked += name == NAME
        addresses = self.addresses if name == NAME else [name]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [_entry(address, int(str(port))) for address in addresses]


def _entry(address: str, port: int) -> tuple[object, ...]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    return made


def named(url: str) -> str:
    """Put the name in the address's place."""
    return f"http://{NAME}:{url.rpartition(':')[2]}"


@on_asyncio
async def test_a_name_that_is_not_found_was_not_sent(open_transport: TransportMaker, names: Names) -> None:
    gate = Gate()
    transport = open_transport(f"http://{NAME}")
    with pytest.raises(NotSentError, match=NAME):
        await transport.exchange(POST, gate)
    assert (gate.count, await transport.warm(3)) == (0, 0)
    async with serving(answering()) as server:
        transport = open_transport(named(server.url))
        assert isinstance(await fails(transport), NotSentError)
        names.addresses = [V4]
        assert (await transport.exchange(POST, at_once)).status == 200, "what was not found is asked for again"


@on_asyncio
async def test_the_name_stands_in_the_head_and_not_the_address(open_transport: TransportMaker, names: Names) -> None:
    names.addresses = [V4]
    async with serving(answering()) as server:
        url = named(server.url)
        await open_transport(url).exchange(POST, at_once)
        assert server.requests[0].headers["Host"] == url.removeprefix("http://")


@on_asyncio
@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.2", V4],
        ["127.0.0.2", "127.0.0.3", V4],
        pytest.param([V6, V4], marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
        pytest.param(["127.0.0.2", V6, V4], marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
    ],
    ids=" ".join,
)
async def test_an_address_that_refuses_is_passed_over(
    open_transport: TransportMaker, names: Names, addresses: list[str]
) -> None:
    names.addresses = addresses
    gate = Gate()
    gate.opened.set()
    async with serving(answering()) as server:
        transport = open_transport(named(server.url))
        for _ in range(3):
            assert (await transport.exchange(POST, gate)).status == 200
        assert await transport.warm(6) == 6
        assert (gate.count, len(server.requests)) == (3, 3)


@on_asyncio
@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
@pytest.mark.parametrize("addresses", [[V4, V6], [V6, V4]], ids=" ".join)
async def test_ipv6_serves_where_ipv4_refuses(
    open_transport: TransportMaker, names: Names, addresses: list[str]
) -> None:
    names.addresses = addresses
    with socket.socket() as held:  # the port over IPv4, on which nobody listens
        held.bind((V4, 0))
        async with serving(answering(), address=V6, port=held.getsockname()[1]) as server:
            transport = open_transport(named(server.url))
            assert (await transport.exchange(POST, at_once)).status == 200


@on_asyncio
@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
async def test_an_ipv6_address_stands_in_brackets(open_transport: TransportMaker) -> None:
    async with serving(answering(), address=V6) as server:
        assert "[::1]" in server.url
        assert (await open_transport(server.url).exchange(POST, at_once)).status == 200
        assert server.requests[0].headers["Host"] == server.url.removeprefix("http://")


@on_asyncio
@needs_linux
@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
async def test_a_family_that_does_not_answer_is_overtaken_by_the_other(
    open_transport: TransportMaker, names: Names
) -> None:
    names.addresses = [V6, V4]
    async with serving(answering()) as server:
        with full(V6, int(server.url.rpartition(":")[2])):
            transport = open_transport(named(server.url), connect_timeout_s=10)
            under_way = asyncio.create_task(transport.exchange(POST, at_once))
            await until(lambda: names.asked > 0)
            await turns()
            jump(1)
            assert (await under_way).status == 200


@on_asyncio
async def test_all_addresses_fail_as_one_error(open_transport: TransportMaker, names: Names) -> None:
    names.addresses = ["127.0.0.2", "127.0.0.3"]
    async with serving(answering()) as server:
        gate = Gate()
        with pytest.raises(NotSentError):
            await open_transport(named(server.url)).exchange(POST, gate)
        assert gate.count == 0


@on_asyncio
async def test_all_addresses_are_used(open_transport: TransportMaker, names: Names) -> None:
    names.addresses = ["127.0.0.1", "127.0.0.2"]
    async with serving(answering()) as one, serving(answering(), address="127.0.0.2", port=one.port) as two:
        assert await open_transport(named(one.url)).warm(10) == 10
        await until(lambda: len(one.peers) + len(two.peers) == 10)
        assert (len(one.peers), len(two.peers)) == (5, 5)


@on_asyncio
async def test_a_name_is_looked_up_once_for_many_connections(open_transport: TransportMaker, names: Names) -> None:
    names.addresses = [V4]
    async with serving(answering()) as server:
        assert await open_transport(named(server.url), max_connections=50).warm(50) == 50
        assert names.asked == 1


@on_asyncio
@direct_only
async def test_addresses_are_forgotten_after_five_minutes(open_transport: TransportMaker, names: Names) -> None:
    """aiohttp forgets as early, by a clock that a test cannot put forward."""
    names.addresses = ["127.0.0.1"]
    async with serving(answering()) as one, serving(answering(), address="127.0.0.2", port=one.port) as two:
        transport = open_transport(named(one.url))
        await transport.exchange(POST, at_once)
        names.addresses = ["127.0.0.2"]
        jump(301)
        assert (await transport.exchange(POST, at_once)).status == 200
        assert (len(one.requests), len(two.requests)) == (1, 1)


# What hangs


@on_asyncio
@needs_linux
async def test_a_connect_that_hangs_was_not_sent_when_its_time_is_over(open_transport: TransportMaker) -> None:
    gate = Gate()
    with full() as port:
        transport = open_transport(f"http://127.0.0.1:{port}", connect_timeout_s=10)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await turns()
        jump(9)
        await turns()
        assert not under_way.done()
        jump(2)
        with pytest.raises(NotSentError):
            await under_way
        assert (gate.count, transport.open_connections) == (0, 0)


@on_asyncio
@needs_linux
async def test_a_connect_that_hangs_is_given_up_when_it_is_cancelled_or_the_transport_is_closed(
    open_transport: TransportMaker,
) -> None:
    with full() as port:
        transport = open_transport(f"http://127.0.0.1:{port}", connect_timeout_s=10, max_connections=3)
        tasks = [asyncio.create_task(transport.exchange(POST, at_once)) for _ in range(5)]
        warming = asyncio.create_task(transport.warm(3))
        await turns()
        tasks[0].cancel()
        tasks[4].cancel()
        await turns()
        await transport.aclose()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [
            asyncio.CancelledError,
            NotSentError,
            NotSentError,
            NotSentError,
            asyncio.CancelledError,
        ]
        assert await warming == 0


@on_asyncio
async def test_a_name_that_takes_too_long_was_not_sent(
    open_transport: TransportMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def hangs(*_: object, **__: object) -> list[object]:
        asked.set()
        await never.wait()
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hangs)
    transport = open_transport(f"http://{NAME}", connect_timeout_s=10)
    under_way = asyncio.create_task(transport.exchange(POST, at_once))
    await asked.wait()
    jump(11)
    with pytest.raises(NotSentError):
        await under_way


async def test_a_host_that_refuses_was_not_sent_and_is_tried_again(open_transport: TransportMaker) -> None:
    with socket.create_server((V4, 0)) as reserved:
        port = reserved.getsockname()[1]
    transport = open_transport(f"http://{V4}:{port}", max_connections=2)
    ends = await asyncio.gather(*[transport.exchange(POST, at_once) for _ in range(10)], return_exceptions=True)
    assert {type(end) for end in ends} == {NotSentError}
    async with serving(answering(reply(b"there")), port=port):
        assert (await transport.exchange(POST, at_once)).body == b"there"


async def test_a_connection_that_ends_as_soon_as_it_is_open_was_not_sent(open_transport: TransportMaker) -> None:
    async def refusing(_: object) -> None:
        """Hang up at once."""

    gate = Gate()
    async with serving(refusing) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await server.got_peer.wait()
        await turns()
        gate.opened.set()
        with pytest.raises(NotSentError):
            await under_way
        await until(lambda: transport.open_connections == 0)


async def test_warming_towards_a_host_that_hangs_up_at_once_comes_to_an_end(open_transport: TransportMaker) -> None:
    """Although each connect succeeds, and the goal is never reached."""

    async def refusing(_: object) -> None:
        """Hang up at once."""

    async with serving(refusing) as server:
        transport = open_transport(server.url, max_connections=100)
        warming = asyncio.create_task(transport.warm(100))
        await until(lambda: warming.done() or len(server.peers) > 1000)
        warming.cancel()
        assert await warming <= 100
