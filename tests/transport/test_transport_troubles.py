"""What is said where no connection can be opened: what was met, where, and what to look at."""

import asyncio
import errno
import socket
import ssl

import pytest

from sendengine.errors import NotSentError
from sendengine.transport.troubles import UnresolvedError, overdue, unopened, written
from tests.transport.conftest import TransportMaker, aiohttp_only, direct_only, http1_only, on_asyncio
from tests.transport.naming import Names
from tests.transport.scripted import AUTHORITY, Peer, answering, fails, jump, server_tls, serving, turns

both = http1_only("what opens a connection is the same for HTTP/2")


def broken_tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] in OpenSSL's words")
    error.reason = reason
    return error


UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed")
UNTRUSTED.verify_message = "certificate has expired."

SAID: list[tuple[Exception, str]] = [
    (UNTRUSTED, "certificate verify failed: certificate has expired; correct base_url, or set transport.ca_file"),
    (broken_tls("WRONG_VERSION_NUMBER"), "what answers there does not speak TLS; correct base_url's scheme or port ("),
    (broken_tls("TLSV1_ALERT_PROTOCOL_VERSION"), "what answers there does not speak TLS 1.2 or newer ("),
    (broken_tls("TLSV1_ALERT_NO_APPLICATION_PROTOCOL"), "SSLError: "),
    (ConnectionRefusedError(errno.ECONNREFUSED, "no"), "refused; look at base_url's host and port, and the firewall"),
    (ConnectionResetError(), "the server ended it while it was being opened (ConnectionResetError: no details)"),
    (EOFError(), "the server ended it while it was being opened (EOFError: no details)"),
    (OSError(errno.ENETUNREACH, "no net"), "this machine has no way there (OSError: [Errno "),
    (
        OSError(errno.EMFILE, "too many"),
        "too many files are open; raise their limit, or lower transport.max_connections",
    ),
    (UnresolvedError("the name x cannot be looked up"), "the name x cannot be looked up"),
    (RuntimeError("what nobody knows"), "RuntimeError: what nobody knows"),
]


@pytest.mark.parametrize(("error", "said"), SAID, ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_what_is_met_is_said_with_where_and_what_to_look_at(error: Exception, said: str) -> None:
    assert unopened("api.example:443", error).startswith(f"no connection to api.example:443: {said}")


def test_what_takes_too_long_says_how_long() -> None:
    assert overdue("api.example:443", 2.5).startswith(
        "no connection to api.example:443: not open within 2.5 s; look at"
    )


def test_what_takes_too_long_through_a_proxy_names_it() -> None:
    said = overdue("api.example:443", 2.5, through="proxy.example:3128")
    assert said.endswith("not open through proxy.example:3128 within 2.5 s; look at transport.proxy")


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert (written("::1", 443), written("api.example", 80)) == ("[::1]:443", "api.example:80")


@both
async def test_a_port_on_which_nobody_listens_is_named(open_transport: TransportMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await fails(open_transport(f"http://127.0.0.1:{port}"))
    assert str(error).startswith(f"no connection to 127.0.0.1:{port}: refused; look at base_url")
    assert isinstance(error, NotSentError)


@both
@pytest.mark.parametrize(
    ("certificate", "name", "said"),
    [
        (
            "expired.pem",
            "127.0.0.1",
            "certificate verify failed: self-signed certificate; correct base_url, or set ",
        ),
        ("server.pem", "localhost", "certificate verify failed: Hostname mismatch, certificate is not valid for "),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said(
    open_transport: TransportMaker, certificate: str, name: str, said: str
) -> None:
    async with serving(answering(), tls=server_tls(certificate)) as server:
        transport = open_transport(server.url.replace("127.0.0.1", name), ca_file=AUTHORITY)
        assert said in str(await fails(transport))


@both
async def test_a_server_that_speaks_no_tls_is_said_to(open_transport: TransportMaker) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.left()

    async with serving(plain) as server:
        transport = open_transport(server.url.replace("http:", "https:"), ca_file=AUTHORITY)
        assert "does not speak TLS; correct base_url's scheme or port" in str(await fails(transport))


@direct_only
async def test_a_connection_that_is_closed_before_its_greeting_is_no_lost_reply(
    open_transport: TransportMaker,
) -> None:
    tls = server_tls()
    tls.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    error = str(await fails(open_transport(url, ca_file=AUTHORITY, protocol="h2")))
    server.close()
    assert error.startswith("no connection: ")
    assert "before the reply came" not in error


@both
async def test_a_name_that_has_no_addresses_is_said(
    open_transport: TransportMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    error = str(await fails(open_transport("http://api.example:8080")))
    assert error.startswith("no connection to api.example:8080: the name api.example cannot be looked up: ")
    assert error.endswith("; look at base_url, and this machine's resolver")


@both
@on_asyncio
async def test_what_does_not_open_in_time_is_said(open_transport: TransportMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        failing = asyncio.create_task(fails(open_transport(f"https://127.0.0.1:{port}", ca_file=AUTHORITY)))
        while not failing.done():
            jump(1)
            await turns()
            await asyncio.sleep(0.001)
    assert str(await failing).startswith(f"no connection to 127.0.0.1:{port}: not open within 10 s; look at base_url")


# Of a proxy


@aiohttp_only
async def test_a_proxy_on_whose_port_nobody_listens_is_named(open_transport: TransportMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    transport = open_transport("http://api.example", proxy=f"http://user:canary@127.0.0.1:{port}")
    error = str(await fails(transport))
    assert error.startswith(f"no connection to 127.0.0.1:{port}: refused; look at transport.proxy's host and port")


@aiohttp_only
async def test_a_proxy_without_addresses_is_named(
    open_transport: TransportMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    error = str(await fails(open_transport("http://api.example", proxy="http://proxy.example:3128")))
    assert "to proxy.example:3128: the name proxy.example cannot be looked up" in error
    assert "; look at transport.proxy, and" in error


@aiohttp_only
async def test_what_a_proxy_answers_is_said(open_transport: TransportMaker) -> None:
    async def refusing(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    async with serving(refusing) as proxy:
        transport = open_transport("https://api.example", proxy=proxy.url.replace("//", "//user:canary@"))
        assert str(await fails(transport)) == (
            f"no connection through 127.0.0.1:{proxy.port}: it answered 407 Proxy Authentication Required; "
            "look at transport.proxy"
        )
