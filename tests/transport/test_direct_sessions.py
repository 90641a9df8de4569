"""TLS sessions are resumed, for an hour, and only where a full handshake has succeeded before."""

import asyncio
import ssl

import pytest

from sendengine.errors import SettingsError
from sendengine.transport.direct.sessions import PROOF_S, TICKET_S, ResumingContext, resuming_context
from sendengine.transport.tls import tls_context
from tests.transport.conftest import TransportMaker, direct_only, on_asyncio
from tests.transport.scripted import AUTHORITY, POST, Peer, at_once, jump, reply, server_tls, serving


class Handshakes:
    """Answers one request a connection, and notes which handshakes were resumed."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []

    async def __call__(self, peer: Peer) -> None:
        self.resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await peer.request()
        await peer.send(reply(headers="Connection: close\r\n"))


@direct_only
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
async def test_a_session_is_resumed(open_transport: TransportMaker, version: ssl.TLSVersion) -> None:
    script, context = Handshakes(), server_tls()
    context.maximum_version = version
    async with serving(script, tls=context) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        for _ in range(4):
            assert (await transport.exchange(POST, at_once)).status == 200
        assert script.resumed == [False, True, True, True]


@direct_only
@on_asyncio
async def test_once_an_hour_the_certificate_is_checked_anew(open_transport: TransportMaker) -> None:
    script = Handshakes()
    async with serving(script, tls=server_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        for _ in range(2):
            for _ in range(3):
                await transport.exchange(POST, at_once)
                jump(PROOF_S / 3 - 1)
            jump(4)
        assert script.resumed == [False, True, True] * 2


@direct_only
@on_asyncio
async def test_a_connection_that_brings_no_ticket_leaves_that_to_a_newer_one(open_transport: TransportMaker) -> None:
    script, context = Handshakes(), server_tls()
    context.num_tickets = 0
    async with serving(script, tls=context) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        await transport.exchange(POST, at_once)
        context.num_tickets = 2
        jump(TICKET_S)
        for _ in range(3):
            await transport.exchange(POST, at_once)
            jump(1)
        assert script.resumed == [False, False, True, True]


@direct_only
async def test_a_server_that_forgot_the_session_makes_a_full_handshake(open_transport: TransportMaker) -> None:
    script = Handshakes()
    context = server_tls()
    async with serving(script, tls=context) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY)
        await transport.exchange(POST, at_once)
        port = int(server.url.rpartition(":")[2])
    again = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", port, ssl=server_tls())
    assert await transport.warm(1) == 1
    again.close()
    await transport.aclose()


def test_what_is_proven_is_what_the_other_transport_proves() -> None:
    ours, plain = resuming_context(AUTHORITY), tls_context(AUTHORITY)
    default = ssl.create_default_context(cafile=AUTHORITY)
    default.minimum_version = ssl.TLSVersion.TLSv1_2
    assert isinstance(ours, ResumingContext)
    for context in (ours, plain):
        for name in ("verify_mode", "check_hostname", "minimum_version", "maximum_version", "verify_flags", "options"):
            assert getattr(context, name) == getattr(default, name), name
        assert context.get_ca_certs() == default.get_ca_certs()


def test_the_system_s_certificates_are_trusted_where_no_others_are_given() -> None:
    assert resuming_context(None).cert_store_stats() == ssl.create_default_context().cert_store_stats()


def test_an_authority_that_cannot_be_read_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"transport\.ca_file"):
        resuming_context("/nowhere/at/all.pem")
