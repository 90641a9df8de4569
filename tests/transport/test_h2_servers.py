"""HTTP/2 against servers that no one here wrote: nginx, nghttpd, hypercorn and Node's http2.

Each is asked for more at once than one connection carries; its replies say which request they answer. Where it closes
connections in the middle, what was not sent is sent again, and nothing may come twice.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sendengine.ports import Reply, Transport, WireRequest
from sendengine.transport import DirectTransport
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, NOT_SENT, kinds
from tests.transport.h2_frames import Code
from tests.transport.programs import free_ports, program, run, started
from tests.transport.scripted import AUTHORITY, CERTIFICATES, at_once, outcome, until

pytestmark = h2_only

STREAMS: Final = 16  # that each server allows at once
CLOSING: Final = 20  # requests after which it closes a connection, where it is to do that
CERTIFICATE: Final = str(CERTIFICATES / "server.pem")
HERE: Final = Path(__file__).parent
NGINX: Final = """
{user}
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 512; }}
http {{
  log_format came '$request_uri';
  access_log came.log came;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port} {tls} http2;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    http2_max_concurrent_streams {streams};
    keepalive_requests {requests};
    location / {{ return 200 '$request_uri'; }}
  }}
}}
"""


@dataclass(frozen=True)
class Running:
    """A server that runs; ``path`` is where it echoes the body, or "" where it echoes a path."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    path: str = "/echo"

    def open(self, open_transport: TransportMaker, **options: object) -> Transport:
        trust = {"ca_file": AUTHORITY} if self.url.startswith("https") else {}
        return open_transport(self.url, **{"max_connections": 6, **trust, **options})

    def request(self, number: int) -> WireRequest:
        return WireRequest("POST", self.path or f"/{number}", b"%d" % number)

    def reply(self, number: int) -> bytes:
        return b"%d" % number if self.path else b"/%d" % number

    async def most(self, transport: Transport) -> int:
        """Return how often the request came that came most often."""
        if not self.path:
            return max(Counter((self.folder / "came.log").read_text().split()).values())
        return int((await transport.exchange(WireRequest("POST", "/most", b"?"), at_once)).body)


Starting = Callable[[pytest.Config, Path, str, bool], AbstractContextManager[Running]]


def url(scheme: str, port: int) -> str:
    return f"{'http' if scheme == 'plain' else 'https'}://127.0.0.1:{port}"


@contextmanager
def nginx(config: pytest.Config, folder: Path, scheme: str, closes: bool) -> Iterator[Running]:
    (port,) = free_ports(1)
    text = NGINX.format(
        user="user root;" if os.geteuid() == 0 else "",  # who may enter the folder
        port=port,
        tls="ssl" if scheme == "TLS" else "",
        certificate=CERTIFICATE,
        streams=STREAMS,
        requests=CLOSING if closes else 100_000,
    )
    (folder / "nginx.conf").write_text(text)
    found = program("nginx", package="nginx", config=config)
    command = (found, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log")
    begun = run(*command)
    assert begun.returncode == 0, begun.stderr
    yield Running(url(scheme, port), folder, path="")
    run(*command, "-s", "stop")


@contextmanager
def nghttpd(config: pytest.Config, folder: Path, scheme: str, closes: bool) -> Iterator[Running]:
    assert not closes
    (port,) = free_ports(1)
    found = program("nghttpd", package="nghttp2-server", config=config)
    options = ["-a", "127.0.0.1", "-d", str(folder), "-m", str(STREAMS), "--echo-upload", "-b", "200"]
    options += ["--trailer", "x-sum: 1", "-w", "15"]
    tls = ["--no-tls", str(port)] if scheme == "plain" else [str(port), CERTIFICATE, CERTIFICATE]
    with started([found, *options, *tls], folder, port=port) as process:
        yield Running(url(scheme, port), folder, process)


@contextmanager
def hypercorn(_: pytest.Config, folder: Path, scheme: str, closes: bool) -> Iterator[Running]:
    assert not closes
    settings = [f"h2_max_concurrent_streams = {STREAMS}", "keep_alive_max_requests = 100000"]
    if scheme == "TLS":
        settings += [f'certfile = "{CERTIFICATE}"', f'keyfile = "{CERTIFICATE}"']
    (folder / "hypercorn.toml").write_text("\n".join(settings))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        command = [sys.executable, "-m", "hypercorn", "--workers", "0", "-c", str(folder / "hypercorn.toml")]
        command += ["--bind", f"fd://{listener.fileno()}", f"{HERE / 'h2_echo_app.py'}:app"]
        port = int(listener.getsockname()[1])
        with started(command, folder, port=port, listener=listener) as process:
            yield Running(url(scheme, port), folder, process)


@contextmanager
def node(_: pytest.Config, folder: Path, scheme: str, closes: bool) -> Iterator[Running]:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed: install Node.js to see its http2, for instance by apt-get install nodejs")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        certificate = CERTIFICATE if scheme == "TLS" else "-"
        command = [found, str(HERE / "h2_node_server.js"), str(listener.fileno()), certificate, str(STREAMS)]
        port = int(listener.getsockname()[1])
        with started(command, folder, port=port, listener=listener) as process:
            yield Running(url(scheme, port), folder, process, path="/goodbye" if closes else "/echo")


SERVERS: Final[dict[str, Starting]] = {"nginx": nginx, "nghttpd": nghttpd, "hypercorn": hypercorn, "node": node}
each_server = pytest.mark.parametrize("name", SERVERS)


def start(
    name: str, request: pytest.FixtureRequest, folder: Path, *, scheme: str = "TLS", closes: bool = False
) -> AbstractContextManager[Running]:
    return SERVERS[name](request.config, folder, scheme, closes)


Shared = Callable[[str, str], Running]


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Start each server once for all tests that leave it as it is, when the first of them asks for it."""
    running: dict[tuple[str, str], Running] = {}
    with ExitStack() as stack:

        def starting(name: str, scheme: str) -> Running:
            if (name, scheme) not in running:
                folder = tmp_path_factory.mktemp(name)
                running[name, scheme] = stack.enter_context(start(name, request, folder, scheme=scheme))
            return running[name, scheme]

        yield starting


@on_asyncio
@each_server
@pytest.mark.parametrize("scheme", ["plain", "TLS"])
async def test_each_request_gets_its_own_reply(
    open_transport: TransportMaker, shared: Shared, name: str, scheme: str
) -> None:
    server = shared(name, scheme)
    transport = server.open(open_transport)
    for numbers in (range(150), range(150, 300)):
        asked = [transport.exchange(server.request(number), at_once) for number in numbers]
        replies = await asyncio.gather(*asked)
        assert [got.body for got in replies] == [server.reply(number) for number in numbers]
        assert {got.status for got in replies} == {200}
    assert isinstance(transport, DirectTransport)
    assert transport.protocol == "h2"
    assert transport.open_connections <= 6
    if name != "nghttpd":  # which does not count
        assert await server.most(transport) == 1


@each_server
async def test_bodies_of_any_size_pass(open_transport: TransportMaker, shared: Shared, name: str) -> None:
    sizes = [1, 16_384, 65_535, 65_536, 900_000]
    transport = shared(name, "TLS").open(open_transport)
    bodies = [(b"x123456789" * (size // 10 + 1))[:size] for size in sizes]
    for path in ("/large/1", "/large/2"):
        asked = [transport.exchange(WireRequest("POST", f"{path}/{len(body)}", body), at_once) for body in bodies]
        replies = await asyncio.gather(*asked)
        assert [got.status for got in replies] == [200] * len(sizes)
        if name != "nginx":
            assert [got.body for got in replies] == bodies


@pytest.mark.parametrize("name", ["nginx", "node"])  # hypercorn forgets what it has begun to answer
@on_asyncio
async def test_where_connections_are_closed_in_the_middle_all_comes_once(
    open_transport: TransportMaker, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """Each of them says GOAWAY and which stream was its last; the rest is sent again."""
    with start(name, request, tmp_path, closes=True) as server:
        transport = server.open(open_transport)
        answered: set[int] = set()
        lost: set[int] = set()
        while waiting := [number for number in range(300) if number not in answered | lost]:
            ends = await asyncio.gather(*[outcome(transport.exchange(server.request(n), at_once)) for n in waiting])
            for number, end in zip(waiting, ends, strict=True):
                if isinstance(end, Reply):
                    assert end.body == server.reply(number)
                    answered.add(number)
                elif isinstance(end, LOST):
                    lost.add(number)
                else:
                    assert isinstance(end, NOT_SENT)
        assert len(answered) >= 200, "closing gracefully loses next to nothing"
        assert await server.most(transport) == 1


@pytest.mark.parametrize("name", ["nghttpd", "hypercorn", "node"])
@on_asyncio
async def test_when_a_server_is_killed_all_ends(
    open_transport: TransportMaker, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    with start(name, request, tmp_path) as server:
        assert server.process is not None
        transport = server.open(open_transport)
        await transport.exchange(server.request(0), at_once)
        under_way = [asyncio.create_task(outcome(transport.exchange(server.request(n), at_once))) for n in range(100)]
        await asyncio.sleep(0)
        server.process.kill()
        ends = await asyncio.gather(*under_way)
        assert set(kinds(ends)) <= {Reply, LOST, NOT_SENT}
        await until(lambda: transport.open_connections == 0)


@on_asyncio
async def test_node_resets_hints_trailers_and_hard_endings(
    open_transport: TransportMaker, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with start("node", request, tmp_path) as server:
        transport = server.open(open_transport)

        async def asking(path: str, body: bytes) -> type:
            return type(await outcome(transport.exchange(WireRequest("POST", path, body), at_once)))

        resets = [
            (Code.REFUSED_STREAM, NOT_SENT),
            (Code.CANCEL, LOST),
            (Code.INTERNAL_ERROR, LOST),
            (Code.NO_ERROR, LOST),
        ]
        ends = await asyncio.gather(*[asking("/reset", b"%d" % code) for code, _ in resets * 5])
        assert ends == [end for _, end in resets * 5]
        got = await transport.exchange(WireRequest("POST", "/hints", b"hinted"), at_once)
        assert (got.status, got.body) == (200, b"hinted")
        got = await transport.exchange(WireRequest("POST", "/many", b"1000000"), at_once)
        assert got.body == b"x" * 1_000_000
        ends = await asyncio.gather(*[asking("/hard", b"%d" % number) for number in range(200)])
        assert {Reply, LOST} <= set(ends) <= {Reply, LOST, NOT_SENT}  # those not written when it ended
        assert await asking("/echo", b"still there") is Reply
        assert await server.most(transport) == 1
