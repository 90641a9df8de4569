"""Against nginx, which most of the web's load balancers are or resemble: plain, over TLS, and while it is reloaded.

An instance of its own is started, with its own configuration, folder and ports, and stopped when the tests are over.
Where nginx is missing, root installs it from the distribution; others see the tests skipped.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Reply, Transport, WireRequest
from tests.transport.conftest import KEY, TransportMaker, direct_only, http1_only, on_asyncio
from tests.transport.programs import free_ports, program, run
from tests.transport.scripted import AUTHORITY, CERTIFICATES, POST, at_once, fails, outcome, until

CONFIGURATION: Final = """
{user}
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  default_type application/json;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{tls} ssl;
    listen 127.0.0.1:{plain2} http2;
    listen 127.0.0.1:{tls2} ssl http2;
    ssl_certificate {certificates}/server.pem;
    ssl_certificate_key {certificates}/server.pem;
    client_max_body_size 2m;
    location /said/ {{ return 200 '$request_method $request_uri $http_host $http_authorization $content_length'; }}
    location /on/ {{ return 200 '$connection'; }}
    location /counted/ {{ keepalive_requests 5; return 200 '$connection'; }}
    location /worker/ {{ return 200 '$pid'; }}
    location /session/ {{ keepalive_timeout 0; return 200 '$ssl_session_reused'; }}
    location /chunked/ {{ sub_filter_types *; sub_filter 'never' 'x'; return 200 '{{"id":"m-1"}}'; }}
    location /large/ {{ proxy_pass http://127.0.0.1:{plain}/length/; }}
    location /length/ {{ return 200 '$content_length'; }}
    location /small/ {{ client_max_body_size 1k; return 200 'small enough'; }}
    location /throttled/ {{ add_header Retry-After 7 always; return 429 '{{"errors":["slow down"]}}'; }}
    location /silent/ {{ return 444; }}
  }}
}}
"""
TRUST: Final[dict[str, dict[str, str]]] = {"plain": {}, "TLS": {"ca_file": AUTHORITY}}


@dataclass(frozen=True)
class Nginx:
    """A running instance."""

    command: tuple[str, ...]
    ports: dict[str, int]

    def url(self, scheme: str, kind: str) -> str:
        """Return where it serves in the protocol of a transport."""
        port = self.ports[scheme + (" HTTP/2" if kind == "h2" else "")]
        return f"{'http' if scheme == 'plain' else 'https'}://127.0.0.1:{port}"

    def tell(self, signal: str) -> None:
        """Give the instance one of nginx's own signals: ``reload``, ``stop``."""
        done = run(*self.command, "-s", signal)
        assert done.returncode == 0, done.stderr


@contextmanager
def running(found: str, folder: Path) -> Iterator[Nginx]:
    """Run an instance; it listens when the command that starts it returns."""
    plain, tls, plain2, tls2 = free_ports(4)
    text = CONFIGURATION.format(
        user="user root;" if os.geteuid() == 0 else "",  # who may enter the folder
        plain=plain,
        tls=tls,
        plain2=plain2,
        tls2=tls2,
        certificates=CERTIFICATES,
    )
    (folder / "nginx.conf").write_text(text)
    command = (found, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log")
    started = run(*command)
    assert started.returncode == 0, started.stderr
    instance = Nginx(command, {"plain": plain, "TLS": tls, "plain HTTP/2": plain2, "TLS HTTP/2": tls2})
    yield instance
    instance.tell("stop")


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest) -> str:
    return program("nginx", package="nginx", config=request.config)


@pytest.fixture(scope="session")
def nginx(found: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Run one instance for all tests that leave it as it is."""
    with running(found, tmp_path_factory.mktemp("nginx")) as instance:
        yield instance


@pytest.fixture
def reloaded(found: str, tmp_path: Path) -> Iterator[Nginx]:
    """Run an instance for one test, which reloads it."""
    with running(found, tmp_path) as instance:
        yield instance


@pytest.fixture(params=list(TRUST))
def scheme(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest_asyncio.fixture
async def opened(scheme: str, kind: str, nginx: Nginx, open_transport: TransportMaker) -> Transport:
    return open_transport(nginx.url(scheme, kind), max_connections=4, **TRUST[scheme])


def post(path: str, body: bytes = b"{}") -> WireRequest:
    return WireRequest("POST", path, body)


async def said(transport: Transport, path: str, body: bytes = b"{}") -> str:
    got = await transport.exchange(post(path, body), at_once)
    assert got.status == 200
    return got.body.decode()


async def test_nginx_understands_the_request(opened: Transport) -> None:
    method, uri, host, scheme, key, length = (await said(opened, "/said/a%2Fb%20c", b"{}")).split()
    assert (method, uri, length) == ("POST", "/said/a%2Fb%20c", "2")
    assert host in repr(opened)
    assert (scheme, key) == ("Key", KEY)
    got = await opened.exchange(WireRequest("GET", "/said/"), at_once)
    assert got.body.startswith(b"GET /said/ ")


@on_asyncio
async def test_one_connection_serves_requests_in_a_row(opened: Transport) -> None:
    assert len({await said(opened, "/on/") for _ in range(20)}) == 1


@on_asyncio
@http1_only("nginx counts an HTTP/2 connection's requests elsewhere; test_h2_servers has that")
async def test_connections_that_nginx_ends_after_five_requests_are_replaced(opened: Transport) -> None:
    served = [await said(opened, "/counted/") for _ in range(20)]
    assert [served.count(connection) for connection in dict.fromkeys(served)] == [5, 5, 5, 5]


@http1_only("nginx counts an HTTP/2 connection's requests elsewhere; test_h2_servers has that")
async def test_many_at_once_over_few_connections(opened: Transport) -> None:
    served = await asyncio.gather(*[said(opened, "/counted/") for _ in range(40)])
    assert all(served.count(connection) <= 5 for connection in served)
    assert opened.open_connections <= 4


async def test_chunks_refusals_and_large_bodies(opened: Transport, kind: str) -> None:
    got = await opened.exchange(post("/chunked/"), at_once)
    assert got.headers.get("transfer-encoding") == (None if kind == "h2" else "chunked")
    assert got.body == b'{"id":"m-1"}'
    got = await opened.exchange(post("/throttled/"), at_once)
    assert (got.status, got.headers["retry-after"], got.body) == (429, "7", b'{"errors":["slow down"]}')
    assert await said(opened, "/large/", b"x" * 1_500_000) == "1500000"
    assert (await opened.exchange(post("/nowhere/"), at_once)).status == 404


@on_asyncio
async def test_a_body_that_nginx_finds_too_large_is_refused_before_it_is_out(opened: Transport) -> None:
    for size in (2_000, 1_900_000):
        got = await opened.exchange(post("/small/", b"x" * size), at_once)
        assert (got.status, b"Too Large" in got.body) == (413, True)
    assert await said(opened, "/small/") == "small enough"


@on_asyncio
async def test_a_connection_that_nginx_ends_without_a_word_is_a_lost_reply(opened: Transport) -> None:
    assert isinstance(await fails(opened, post("/silent/")), ReplyLostError)
    assert await said(opened, "/small/") == "small enough"


async def test_a_reload_ends_idle_connections_and_the_new_worker_serves(
    reloaded: Nginx, scheme: str, kind: str, open_transport: TransportMaker
) -> None:
    transport = open_transport(reloaded.url(scheme, kind), **TRUST[scheme])
    before = await said(transport, "/worker/")
    reloaded.tell("reload")
    await until(lambda: transport.open_connections == 0)
    assert await said(transport, "/worker/") != before


async def test_what_is_sent_during_a_reload_ends_well_or_as_lost(
    reloaded: Nginx, scheme: str, kind: str, open_transport: TransportMaker
) -> None:
    transport = open_transport(reloaded.url(scheme, kind), max_connections=4, **TRUST[scheme])
    workers = {await said(transport, "/worker/")}
    reloaded.tell("reload")
    while len(workers) < 2:
        for got in await asyncio.gather(*[outcome(transport.exchange(post("/worker/"), at_once)) for _ in range(8)]):
            if isinstance(got, Reply):
                workers.add(got.body.decode())
            else:
                assert isinstance(got, NotSentError | ReplyLostError)
        assert transport.open_connections <= 4


@direct_only
async def test_nginx_takes_sessions_up_again(nginx: Nginx, open_transport: TransportMaker) -> None:
    transport = open_transport(nginx.url("TLS", "direct"), ca_file=AUTHORITY)
    assert [await said(transport, "/session/") for _ in range(4)] == [".", "r", "r", "r"]


@on_asyncio
@http1_only("HTTP/2 without TLS expects settings, and was not sent; test_h2_limits has that")
async def test_plain_http_to_a_tls_port_is_a_refusal(nginx: Nginx, open_transport: TransportMaker) -> None:
    transport = open_transport(nginx.url("TLS", "direct").replace("https:", "http:"))
    got = await transport.exchange(POST, at_once)
    assert (got.status, b"HTTPS port" in got.body) == (400, True)
