"""A server that does what a test's script says, byte by byte, and a loop whose clock a test can put forward."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sendengine.errors import TransportError
from sendengine.ports import Reply, Transport, WireRequest
from sendengine.settings import TransportSettings

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = str(CERTIFICATES / "authority.pem")
GONE = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)

POST = WireRequest("POST", "/notifications", b'{"app_id":"a"}')
PATCH = WireRequest("PATCH", "/apps/a/users/by/external_id/u", b'{"properties":{}}')
GET = WireRequest("GET", "/apps/a")
LARGE = WireRequest("POST", "/notifications", b"x" * 20_000_000)


async def at_once() -> None:
    """Grant a permit."""


class Gate:
    """A permit that a test holds back."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.opened = asyncio.Event()
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1
        self.asked.set()
        await self.opened.wait()


async def turns() -> None:
    """Let the loop go round a few times."""
    for _ in range(5):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go round until something has happened."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the code under test, which has no event
            await asyncio.sleep(0)


async def fails(transport: Transport, request: WireRequest = POST) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await transport.exchange(request, at_once)
    return caught.value


async def settled(transport: Transport, server: "ScriptedServer") -> Reply | TransportError:
    """Return what an exchange ends in; when nothing happens any more, its time is put forward until it is over."""
    under_way = asyncio.create_task(transport.exchange(POST, at_once))
    await server.next_request()
    for _ in range(50):
        await turns()
        if under_way.done():
            break
    else:
        jump(TransportSettings().timeout_s + 1)
    return await outcome(under_way)


async def outcome(exchange: Awaitable[Reply]) -> Reply | TransportError:
    """Return what an exchange ends in, error or not."""
    try:
        return await exchange
    except TransportError as error:
        return error


def reply(body: bytes = b'{"id":"m-1"}', *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@dataclass(frozen=True)
class Received:
    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One accepted connection, from the server's side."""

    def __init__(self, server: "ScriptedServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.is_gone = asyncio.Event()

    @property
    def faults(self) -> list[str]:
        """What the client did that it may not do, as far as that is looked for."""
        return []

    def begin(self) -> None:
        """Do what comes before the script."""

    async def finish(self) -> None:
        """Do what comes after the script, and before the connection is closed."""

    def stop(self) -> None:
        """Leave nothing behind."""

    async def head(self) -> Received:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = text.rstrip().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        return Received(line, headers, b"")

    async def request(self) -> Received:
        head = await self.head()
        body = await self.reader.readexactly(int(head.headers.get("Content-Length", 0)))
        received = Received(head.line, head.headers, body)
        self.server.requests.append(received)
        self.server.got_request.set()
        return received

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with RST, so that what was sent may be thrown away."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def left(self) -> None:
        """Return when the client has closed its side."""
        with suppress(*GONE):
            while await self.reader.read(65536):
                pass


Script = Callable[[Peer], Awaitable[None]]


class Wire:
    """What servers speak in the test that runs: whatever the transport under test does."""

    peer: type[Peer] = Peer
    protocols: tuple[str, ...] = ()  # that they offer by ALPN


def answering(*replies: bytes) -> Script:
    """Answer each request on a connection with the next reply, the last one again and again."""

    async def script(peer: Peer) -> None:
        waiting = list(replies) or [reply()]
        while True:
            await peer.request()
            await peer.send(waiting.pop(0) if len(waiting) > 1 else waiting[0])

    return script


def first(script: Script, then: Script | None = None) -> Script:
    """Play ``script`` on the first connection and ``then`` on all others."""
    following = then or answering()

    async def chosen(peer: Peer) -> None:
        await (script if peer is peer.server.peers[0] else following)(peer)

    return chosen


class ScriptedServer:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.requests: list[Received] = []
        self.got_request = asyncio.Event()
        self.got_peer = asyncio.Event()
        self.released = asyncio.Event()  # for scripts to wait for
        self.open_now = 0
        self.most_open = 0
        self.url = ""
        self.port = 0

    async def next_request(self) -> None:
        """Wait until another request has come than those before the last call."""
        await self.got_request.wait()
        self.got_request.clear()

    async def all_gone(self) -> None:
        for peer in self.peers:
            await peer.is_gone.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Wire.peer(self, reader, writer)
        self.peers.append(peer)
        self.got_peer.set()
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        peer.begin()
        try:
            with suppress(*GONE):
                await self.script(peer)
                await peer.finish()
            writer.close()
            await peer.left()
            with suppress(*GONE):
                await writer.wait_closed()
        finally:
            self.open_now -= 1
            peer.is_gone.set()
            peer.stop()
            writer.transport.abort()


@asynccontextmanager
async def serving(
    script: Script, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[ScriptedServer]:
    """Serve on a port of this machine, a free one unless it is given, until the test is over."""
    scripted = ScriptedServer(script)
    tasks: set[asyncio.Task[None]] = set()

    writers: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.ensure_future(scripted.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, address, port, ssl=tls, backlog=512)
    scripted.port = server.sockets[0].getsockname()[1]
    host = f"[{address}]" if ":" in address else address
    scripted.url = f"{'https' if tls else 'http'}://{host}:{scripted.port}"
    try:
        yield scripted
    finally:
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await turns()  # whoever was being accepted
        for writer in writers:
            writer.transport.abort()
        await turns()
    faults = [fault for peer in scripted.peers for fault in peer.faults]
    assert not faults, f"the client broke rules: {faults}"


def server_tls(certificate: str = "server.pem") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATES / certificate)
    if Wire.protocols:
        context.set_alpn_protocols(list(Wire.protocols))
    return context


class Accepted:
    """One accepted connection as a plain socket, to which a test does things between two steps of the client."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(0)

    async def request(self) -> bytes:
        """Read a request as small as `POST`; what is there of it where the client hangs up."""
        data = b""
        while not data.endswith(b"}"):
            piece = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
            if not piece:
                break
            data += piece
        return data

    async def answer(self) -> None:
        """Answer every request until the client hangs up."""
        while await self.request():
            self.send(reply())

    def arrived(self) -> bytes:
        """Return what has come and was not read yet."""
        try:
            return self.socket.recv(65536)
        except (BlockingIOError, ConnectionError):
            return b""

    def send(self, data: bytes) -> None:
        assert self.socket.send(data) == len(data)

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Listening:
    """A listening socket that answers nobody by itself."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.accepted: list[Accepted] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def accept(self) -> Accepted:
        connection, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        self.accepted.append(Accepted(connection))
        return self.accepted[-1]

    async def answer(self) -> None:
        """Answer whoever comes, one connection after another."""
        while True:
            await (await self.accept()).answer()


@contextmanager
def listening() -> Iterator[Listening]:
    """Listen on a free port of 127.0.0.1 until the test is over; nothing is accepted before the test does so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        made = Listening(listener)
        try:
            yield made
        finally:
            for peer in made.accepted:
                peer.close()


@contextmanager
def full(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Listen on a port, which is returned, where connecting neither succeeds nor fails: its backlog is full."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket(family))
            filling.settimeout(0)
            filling.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


class JumpLoop(asyncio.SelectorEventLoop):
    """A real loop whose clock can be put forward, so that nobody waits for a timeout."""

    jumped_s = 0.0

    def time(self) -> float:
        return super().time() + self.jumped_s

    def jump(self, seconds: float) -> None:
        self.jumped_s += seconds


def jump(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpLoop)
    loop.jump(seconds)
