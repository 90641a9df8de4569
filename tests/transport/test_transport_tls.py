"""Certificates, TLS versions and endings: what a key may travel over, and what a reply."""

import asyncio
import ssl
import warnings
from collections.abc import Callable
from typing import cast

import pytest

from sendengine.errors import NotSentError, ReplyLostError, SettingsError
from sendengine.ports import Reply, Transport, WireRequest
from tests.transport.conftest import TransportMaker, aiohttp_only, cases, direct_only, http1_only
from tests.transport.scripted import (
    AUTHORITY,
    CERTIFICATES,
    POST,
    Peer,
    Script,
    answering,
    at_once,
    fails,
    first,
    outcome,
    reply,
    server_tls,
    serving,
    turns,
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


async def test_an_authority_changes_nothing_for_a_plain_url(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        assert (await open_transport(server.url, ca_file=AUTHORITY).exchange(POST, at_once)).status == 200


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


async def test_a_certificate_that_has_expired_is_refused(open_transport: TransportMaker) -> None:
    async with serving(answering(), tls=server_tls("expired.pem")) as server:
        error = await fails(open_transport(server.url, ca_file=str(CERTIFICATES / "expired.pem")))
        assert isinstance(error, NotSentError)
        assert "expired" in str(error)
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


# How a connection ends

CUT = {
    "within the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "within the body": b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"id":',
    "within a chunk": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id":',
    "without a byte": b"",
}
UNFRAMED = b'HTTP/1.1 200 OK\r\n\r\n{"id":"m"}'


def ending(raw: bytes, *, politely: bool) -> Script:
    """Say this to the first request, and end TLS politely, with its close_notify, or cut what is below it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        await turns()
        if not politely:
            peer.writer.transport.abort()

    return first(script)


@pytest.mark.parametrize("politely", [False, True], ids=["cut", "with close_notify"])
@cases(CUT, http1=["within a chunk"], reason="HTTP/2 has no chunks")
async def test_a_reply_that_ends_too_early_is_lost(
    open_transport: TransportMaker, name: str, *, politely: bool
) -> None:
    async with serving(ending(CUT[name], politely=politely), tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        assert isinstance(await fails(transport), ReplyLostError)
        assert (await transport.exchange(POST, at_once)).status == 200
        assert len(server.peers) == 2


@http1_only("over HTTP/2 a body ends with its stream")
async def test_a_body_without_length_may_end_with_the_connection(open_transport: TransportMaker) -> None:
    async with serving(ending(UNFRAMED, politely=True), tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        assert (await transport.exchange(POST, at_once)).body == b'{"id":"m"}'


@direct_only
async def test_a_body_without_length_that_is_cut_is_lost(open_transport: TransportMaker) -> None:
    """Only close_notify says that this was all."""
    async with serving(ending(UNFRAMED[:-1], politely=False), tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        assert isinstance(await outcome(transport.exchange(POST, at_once)), ReplyLostError)
        assert (await transport.exchange(POST, at_once)).status == 200


@aiohttp_only
async def test_a_body_without_length_that_is_cut_is_lost_or_what_came(open_transport: TransportMaker) -> None:
    """aiohttp does not look at how the connection ends.

    It does no harm: of a JSON object's beginnings, only the whole is JSON.
    """
    async with serving(ending(UNFRAMED[:-1], politely=False), tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        got = await outcome(transport.exchange(POST, at_once))
        assert isinstance(got, ReplyLostError) or (isinstance(got, Reply) and got.body == b'{"id":"m"')
        assert (await transport.exchange(POST, at_once)).status == 200


async def test_a_tls_connection_that_ends_while_it_is_idle_is_replaced(open_transport: TransportMaker) -> None:
    for politely in (False, True):
        async with serving(ending(reply(), politely=politely), tls=server_tls()) as server:
            transport = open_transport(server.url, ca_file=AUTHORITY)
            assert (await transport.exchange(POST, at_once)).status == 200
            await until(lambda: transport.open_connections == 0)  # noqa: B023 - awaited here
            assert (await transport.exchange(POST, at_once)).status == 200


async def test_closing_does_not_wait_for_a_goodbye(open_transport: TransportMaker) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.request()
        reading = cast("asyncio.Transport", peer.writer.transport)
        reading.pause_reading()
        await peer.server.released.wait()

    async with serving(deaf, tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.next_request()
        await transport.aclose()
        with pytest.raises(ReplyLostError):
            await under_way
        assert transport.open_connections == 0
        server.released.set()


async def test_a_reply_of_many_records_is_whole(open_transport: TransportMaker) -> None:
    body = b"x" * 500_000
    async with serving(answering(reply(body)), tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        for _ in range(2):
            assert (await transport.exchange(POST, at_once)).body == body


async def test_a_large_request_arrives_whole(open_transport: TransportMaker) -> None:
    async with serving(answering(), tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        for length in (1, 2_000_000, 100_000):
            await transport.exchange(WireRequest("POST", "/notifications", b"y" * length), at_once)
            assert server.requests[-1].body == b"y" * length
        assert len(server.peers) == 1


@direct_only
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
async def test_a_session_is_used_again(open_transport: TransportMaker, version: ssl.TLSVersion) -> None:
    """The second handshake needs no certificate; aiohttp does not offer a way to do this."""
    resumed = []

    async def once(peer: Peer) -> None:
        resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await peer.request()
        await peer.send(reply(headers="Connection: close\r\n"))

    context = server_tls()
    context.maximum_version = version
    async with serving(once, tls=context) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        for _ in range(4):
            assert (await transport.exchange(POST, at_once)).status == 200
        assert resumed == [False, True, True, True]


def test_the_certificates_of_the_tests_are_there() -> None:
    assert all((CERTIFICATES / name).is_file() for name in ("authority.pem", "server.pem", "expired.pem"))
