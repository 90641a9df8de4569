"""Servers that do next to nothing, so that the client is what is measured: a sink of our own, and nginx.

Method: both take any request and answer at once, POST as a notification is answered and PATCH as an update, with the
heads that OneSignal's edge sends. They count requests and judge nothing, which is the mock server's business. Each
runs in a process of its own. ``python -m benchmarks.sink`` serves until its standard input ends.
"""

import argparse
import asyncio
import contextlib
import ssl as tls
import sys
from collections.abc import Mapping
from typing import Final, Protocol, Self, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from benchmarks.machine import cpu_s_of
from benchmarks.workload import CERTIFICATE
from sendengine.mockserver import fast_loop, tune_process

_HEAD: Final = (
    "Date: Sun, 22 Nov 2026 06:00:00 GMT\r\nContent-Type: application/json; charset=utf-8\r\n"
    "Connection: keep-alive\r\nCF-Ray: 9a2b3c4d5e6f7081-FRA\r\nCF-Cache-Status: DYNAMIC\r\n"
    'Cache-Control: max-age=0, private, must-revalidate\r\nETag: W/"0f1e2d3c4b5a69788796a5b4c3d2e1f0"\r\n'
    "Strict-Transport-Security: max-age=15552000; includeSubDomains\r\nVary: Accept, Origin\r\n"
    "X-Request-Id: 5e4de491-0000-4000-8000-000000000002\r\nServer: cloudflare\r\n"
)  # fmt: skip
BODIES: Final[Mapping[str, tuple[int, str]]] = {
    "POST": (200, '{"id":"5e4de491-0000-4000-8000-000000000001","external_id":null}'),
    "PATCH": (202, '{"properties":{"tags":{"level":"1"}}}'),
}
_PHRASES: Final = {200: "OK", 202: "Accepted"}
_COUNT: Final = b"GET /__sink__ "
_START_S: Final = 20.0


class Server(Protocol):
    """What a client is measured against: entered, it serves."""

    @property
    def base_url(self) -> str:
        """Where it listens."""
        ...

    async def requests(self) -> int:
        """How many requests it has answered so far."""
        ...


class Counted(Struct, frozen=True):
    """What a sink has read so far; bytes are those of bodies."""

    requests: int
    body_bytes: int


class Sink:
    """A sink in a process of its own, while ``async with`` lasts. Raises RuntimeError where it cannot start."""

    def __init__(self, *, is_tls: bool = False) -> None:
        self._is_tls = is_tls
        self.base_url = ""

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        arguments = ["-m", "benchmarks.sink", *(["--tls"] if self._is_tls else [])]
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe, start_new_session=True
        )
        assert self._child.stdout is not None, "it was asked for"
        async with asyncio.timeout(_START_S):
            line = await self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the sink ended at once, with exit code {await self._child.wait()}")
        self.base_url = line.decode().strip()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._child.terminate()
        await self._child.wait()

    @property
    def cpu_s(self) -> float:
        """The CPU that it has used so far."""
        return cpu_s_of(self._child.pid)

    async def counted(self) -> Counted:
        """Ask what it has read so far."""
        return msgspec.json.decode(await get(self.base_url, "/__sink__"), type=Counted)

    async def requests(self) -> int:
        """How many requests it has answered so far."""
        return (await self.counted()).requests


async def get(base_url: str, path: str) -> bytes:
    """Ask a server of ours for something small, over a connection of its own."""
    where = urlsplit(base_url)
    context = tls.create_default_context(cafile=str(CERTIFICATE)) if where.scheme == "https" else None
    reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: sink\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return await reader.readexactly(length)
    finally:
        writer.close()


class Reading(asyncio.Protocol):
    """One connection of a sink: heads are looked at, bodies are counted and dropped as they come."""

    __slots__ = ("_body_left", "_reply", "_sink", "_start", "_transport")

    def __init__(self, sink: "Tally") -> None:
        self._sink = sink
        self._start = b""
        self._body_left = 0
        self._reply = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by their class

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take as many requests as have come whole, and remember how much of the next is missing."""
        while data:
            if self._body_left:
                taken = min(self._body_left, len(data))
                self._body_left -= taken
                data = data[taken:]
            else:
                data = self._begin(self._start + data)
            if self._reply and not self._body_left:
                self._transport.write(self._reply)
                self._reply = b""

    def _begin(self, data: bytes) -> bytes:
        """Read a head; what follows it is returned, and nothing where it is not whole yet."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._start = data
            return b""
        self._start = b""
        head = data[:end]
        if head.startswith(_COUNT):
            self._reply = self._sink.told()
            return data[end + 4 :]
        at = head.lower().find(b"content-length:")
        self._body_left = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        self._reply = self._sink.reply_to(head, body_bytes=self._body_left)
        return data[end + 4 :]


class Tally:
    """What all connections of a sink have read, and the replies that they give."""

    def __init__(self) -> None:
        self._requests = 0
        self._body_bytes = 0
        self._replies = {method.encode(): _reply(status, body) for method, (status, body) in BODIES.items()}

    def reply_to(self, head: bytes, *, body_bytes: int) -> bytes:
        """Count a request, and say how it is answered."""
        self._requests += 1
        self._body_bytes += body_bytes
        return self._replies[head[: head.index(b" ")]]

    @property
    def counted(self) -> Counted:
        """The counts so far."""
        return Counted(self._requests, self._body_bytes)

    def told(self) -> bytes:
        """Tell the counts."""
        return _reply(200, msgspec.json.encode(self.counted).decode())


def _reply(status: int, body: str) -> bytes:
    return f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()


async def _serve(*, is_tls: bool) -> None:
    context = None
    if is_tls:
        context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE)
    tune_process()
    tally, loop = Tally(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Reading(tally), "127.0.0.1", 0, ssl=context, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"{'https' if is_tls else 'http'}://127.0.0.1:{port}\n")
    sys.stdout.flush()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)  # it ends, and that is all that ever comes
    await over.wait()


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink", description=__doc__)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=fast_loop) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(_serve(is_tls=arguments.tls))


if __name__ == "__main__":
    main()
