"""Certificates, TLS versions, proxies and names: what a key may travel over."""

import asyncio
import socket
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest

from sendengine.errors import NotSentError, SettingsError
from sendengine.ports import Transport
from tests.transport.conftest import KEY, TransportMaker, on_asyncio
from tests.transport.scripted import (
    AUTHORITY,
    CERTIFICATES,
    GONE,
    POST,
    Peer,
    answering,
    at_once,
    fails,
    jump,
    reply,
    server_tls,
    serving,
    until,
)


async def test_a_certificate_of_the_given_authority_is_accepted(open_transport: TransportMaker) -> None:
    async with serving(answering(), tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        assert await transport.warm(2) == 2
        assert (await transport.exchange(POST, at_once)).status == 200
        await transport.aclose()
        assert transport.open_connections == 0
        await server.all_gone()


async def test_a_certificate_of_an_unknown_authority_is_refused_before_anything_is_sent(
    open_transport: TransportMaker,
) -> None:
    async with serving(answering(), tls=server_tls()) as server:
        transport = open_transport(server.url)
        error = await fails(transport)
        assert isinstance(error, NotSentError)
        assert "certificate verify failed" in str(error).lower()
        assert await transport.warm(2) == 0
        assert server.requests == []


async def test_a_certificate_of_another_name_is_refused(open_transport: TransportMaker) -> None:
    async with serving(answering(), tls=server_tls()) as server:
        transport = open_transport(server.url.replace("127.0.0.1", "localhost"), ca_file=AUTHORITY)
        assert isinstance(await fails(transport), NotSentError)
        assert server.requests == []


async def test_tls_below_1_2_is_refused(open_transport: TransportMaker) -> None:
    context = server_tls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the version is deprecated, which is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serving(answering(), tls=context) as server:
        assert isinstance(await fails(open_transport(server.url, ca_file=AUTHORITY)), NotSentError)
        assert server.requests == []


async def test_plain_http_where_tls_is_expected_was_not_sent(open_transport: TransportMaker) -> None:
    async def greeting(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(greeting) as server:
        assert isinstance(await fails(open_transport(server.url.replace("http:", "https:"))), NotSentError)


async def test_a_tls_connection_that_the_server_wants_closed_does_not_linger(open_transport: TransportMaker) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(headers="Connection: close\r\n"))
        await peer.server.released.wait()

    async with serving(once, tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        assert (await transport.exchange(POST, at_once)).status == 200
        await until(lambda: transport.open_connections == 0)
        server.released.set()


def test_an_authority_that_cannot_be_read_is_a_settings_error(make: Callable[..., Transport]) -> None:
    async def opening(path: str) -> None:
        make("https://127.0.0.1", ca_file=path)

    for path in ("/nowhere/at/all.pem", __file__):
        with pytest.raises(SettingsError, match=r"transport\.ca_file"):
            asyncio.run(opening(path))


@on_asyncio
async def test_a_name_that_is_not_found_was_not_sent(
    open_transport: TransportMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await fails(open_transport("http://nowhere.invalid"))
    assert isinstance(error, NotSentError)
    assert "nowhere.invalid" in str(error)


# Proxies


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


def test_the_certificates_of_the_tests_are_there() -> None:
    assert (CERTIFICATES / "server.pem").is_file()
