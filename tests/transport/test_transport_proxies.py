"""Requests through a proxy: the tunnel gets no key, and the server no proxy's password.

For aiohttp alone: the direct transport has no proxies, and settings that name one choose aiohttp.
"""

import asyncio
from contextlib import suppress

import pytest

from sendengine.errors import NotSentError
from sendengine.ports import WireRequest
from tests.transport.conftest import KEY, TransportMaker, aiohttp_only, on_asyncio
from tests.transport.scripted import (
    AUTHORITY,
    GONE,
    POST,
    Peer,
    answering,
    at_once,
    fails,
    jump,
    server_tls,
    serving,
)

pytestmark = aiohttp_only


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(*GONE):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


async def tunnelling(peer: Peer) -> None:
    head = await peer.head()
    peer.server.requests.append(head)
    host, port = head.line.split()[1].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(_pipe(peer.reader, writer), _pipe(reader, peer.writer))


async def test_a_proxy_gets_no_key_and_the_server_does(open_transport: TransportMaker) -> None:
    async with serving(answering(), tls=server_tls()) as server, serving(tunnelling) as proxy:
        address = proxy.url.replace("http://", "http://user:canary@")
        transport = open_transport(server.url, ca_file=AUTHORITY, proxy=address)
        assert await transport.warm(1) == 1
        for _ in range(3):
            assert (await transport.exchange(POST, at_once)).status == 200
        assert len(proxy.requests) == 1, "one tunnel serves them all"
        request = proxy.requests[0]
        assert request.line.startswith("CONNECT 127.0.0.1:")
        assert request.headers["Proxy-Authorization"].startswith("Basic ")
        assert KEY not in str(request)
        assert server.requests[0].headers["Authorization"] == f"Key {KEY}"
        assert "Proxy-Authorization" not in server.requests[0].headers
        await transport.aclose()
        await server.all_gone()


@on_asyncio
async def test_a_tunnel_s_connection_is_replaced_when_it_is_too_old(open_transport: TransportMaker) -> None:
    async with serving(answering(), tls=server_tls()) as server, serving(tunnelling) as proxy:
        transport = open_transport(server.url, ca_file=AUTHORITY, proxy=proxy.url)
        for count in (1, 2):
            for _ in range(2):
                assert (await transport.exchange(POST, at_once)).status == 200
            assert (len(proxy.requests), transport.open_connections) == (count, 1)
            jump(301)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"", b"garbage\r\n\r\n"])
async def test_a_proxy_that_refuses_is_no_connection(open_transport: TransportMaker, answer: bytes) -> None:
    async def refusing(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    async with serving(refusing) as proxy:
        address = proxy.url.replace("http://", "http://user:canary@")
        error = await fails(open_transport("https://127.0.0.1:9", ca_file=AUTHORITY, proxy=address))
        assert isinstance(error, NotSentError)
        assert "canary" not in str(error)


async def test_plain_http_goes_through_a_proxy_whole(open_transport: TransportMaker) -> None:
    async with serving(answering()) as proxy:
        transport = open_transport("http://127.0.0.1:9", proxy=proxy.url)
        for _ in range(2):
            assert (await transport.exchange(POST, at_once)).status == 200
        assert proxy.requests[0].line == "POST http://127.0.0.1:9/notifications HTTP/1.1"
        assert len(proxy.peers) == 1


async def test_a_proxy_that_passes_requests_on_sees_its_credentials_and_the_server_s_host(
    open_transport: TransportMaker,
) -> None:
    async with serving(answering()) as proxy:
        address = proxy.url.replace("http://", "http://user:canary@")
        transport = open_transport("http://api.example:8080/prefix/", proxy=address)
        requests = [WireRequest("PATCH", "/apps/a%2Fb?x=1", b"{}"), WireRequest("GET", "/apps/a")]
        for request in requests:
            assert (await transport.exchange(request, at_once)).status == 200
        assert [got.line for got in proxy.requests] == [
            "PATCH http://api.example:8080/prefix/apps/a%2Fb?x=1 HTTP/1.1",
            "GET http://api.example:8080/prefix/apps/a HTTP/1.1",
        ]
        for got in proxy.requests:
            assert got.headers["Proxy-Authorization"] == "Basic dXNlcjpjYW5hcnk="  # user:canary
            assert got.headers["Host"] == "api.example:8080"
            assert got.headers["Authorization"] == f"Key {KEY}"
        assert [got.body for got in proxy.requests] == [b"{}", b""]
        assert len(proxy.peers) == 1


async def test_a_proxy_without_a_password_is_shown_none(open_transport: TransportMaker) -> None:
    async with serving(answering()) as proxy:
        await open_transport("http://127.0.0.1:9", proxy=proxy.url).exchange(POST, at_once)
        assert "Proxy-Authorization" not in proxy.requests[0].headers
