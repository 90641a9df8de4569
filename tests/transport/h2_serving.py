"""A server that speaks HTTP/2 as a test's script has it, over sockets, and what many scripts need.

By itself a connection acknowledges settings, answers pings and opens its windows again; what it answers to a request,
and all else, is the script's. When the test is over, no client may have broken a rule of the protocol.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

from tests.transport.h2_frames import Frame, Kind, Setting, settings
from tests.transport.h2_session import Asked, Session, ended
from tests.transport.scripted import server_tls, turns

MANY: Final = 100
FIRST: Final[Mapping[Setting, int]] = {Setting.MAX_CONCURRENT_STREAMS: MANY}


class GoneError(Exception):
    """The client has closed the connection, and what a script waits for has not come."""


class H2Peer(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, server: "H2Server") -> None:
        self.server = server
        self.session = Session(self._write)
        self.is_gone = asyncio.Event()
        self._changed = asyncio.Event()
        self._is_mute = False
        self._task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None

    # What a script does

    def send(self, *frames: bytes) -> None:
        self.session.send(*frames)

    def raw(self, said: bytes) -> None:
        self.session.raw(said)

    def reply(self, asked: Asked, body: bytes | None = None, *, status: int = 200) -> None:
        """Answer with a body, or with what marks the request."""
        self.session.reply(asked, marker(asked) if body is None else body, status=status)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when something has happened on this connection; raises GoneError where it never will."""
        while not condition():
            if self.is_gone.is_set():
                raise GoneError(f"the client said {self.session.frames}")
            self._changed.clear()
            await self._changed.wait()

    async def requests(self, count: int) -> list[Asked]:
        """Return the first so many requests that came whole."""
        await self.until(lambda: len(self.session.whole) >= count)
        return self.session.whole[:count]

    async def heads(self, count: int) -> list[Asked]:
        """Return the first so many requests that began."""
        await self.until(lambda: len(self.session.asked) >= count)
        return list(self.session.asked.values())[:count]

    async def said(self, kind: Kind, *, stream: int | None = None, count: int = 1) -> Frame:
        """Return the client's ``count``-th frame of a kind."""

        def found() -> list[Frame]:
            frames = self.session.frames
            return [came for came in frames if came.kind == kind and stream in {None, came.stream}]

        await self.until(lambda: len(found()) >= count)
        return found()[count - 1]

    async def left(self) -> None:
        """Return when the client has closed."""
        await self.is_gone.wait()

    def pause(self) -> None:
        """Stop reading."""
        assert self.transport is not None
        self.transport.pause_reading()

    def resume(self) -> None:
        assert self.transport is not None
        self.transport.resume_reading()

    def close(self) -> None:
        assert self.transport is not None
        self.transport.close()

    def half_close(self) -> None:
        assert self.transport is not None
        self._is_mute = True
        with suppress(OSError):
            self.transport.write_eof()

    def reset(self) -> None:
        """Close with RST, so that what was sent may be thrown away."""
        assert self.transport is not None
        plain = cast("socket.socket", self.transport.get_extra_info("socket"))
        with suppress(OSError):  # the client was quicker
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    @property
    def code(self) -> int | None:
        """With which code the client ended the connection, if it did."""
        return ended(self.session.frames)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.joined(self)
        if self.server.first is None:
            self.session.acks = False  # nothing comes before its own settings, if they come
        else:
            self.send(settings(self.server.first))
        self._task = asyncio.get_running_loop().create_task(self._play())

    def data_received(self, said: bytes) -> None:
        self.session.feed(said)
        self._changed.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.is_gone.set()
        self._changed.set()
        self.server.gone(self)

    async def _play(self) -> None:
        try:
            await self.server.script(self)
        except GoneError:
            return
        self.close()

    def _write(self, said: bytes) -> None:
        if self.transport is not None and not self.is_gone.is_set() and not self._is_mute:
            self.transport.write(said)

    def stop(self) -> asyncio.Task[None] | None:
        if self.transport is not None:
            self.transport.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task


Script = Callable[[H2Peer], Awaitable[None]]


def marker(asked: Asked) -> bytes:
    """Return a body that says which request it answers: the request's own."""
    return b'{"of":' + bytes(asked.body) + b"}"


async def answering(peer: H2Peer) -> None:
    """Answer every request, those included that have come before."""
    for asked in peer.session.whole:
        if asked.is_open and not asked.is_answered and asked.outbox is None:
            peer.reply(asked)
    peer.session.on_whole = peer.reply
    await peer.left()


async def silent(peer: H2Peer) -> None:
    """Answer nothing."""
    await peer.left()


def first(script: Script, then: Script = answering) -> Script:
    """Play ``script`` on the first connection and ``then`` on all others."""

    async def chosen(peer: H2Peer) -> None:
        await (script if peer is peer.server.peers[0] else then)(peer)

    return chosen


class H2Server:
    """What listens: its connections, and all that came over them."""

    def __init__(self, script: Script, first_settings: Mapping[Setting, int] | None) -> None:
        self.script = script
        self.first = first_settings
        self.peers: list[H2Peer] = []
        self.open_now = 0
        self.most_open = 0
        self.url = ""
        self.port = 0
        self.released = asyncio.Event()  # for scripts to wait for

    def joined(self, peer: H2Peer) -> None:
        self.peers.append(peer)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)

    def gone(self, _: H2Peer) -> None:
        self.open_now -= 1

    @property
    def asked(self) -> list[Asked]:
        """All requests of which at least the head came."""
        return [asked for peer in self.peers for asked in peer.session.asked.values()]

    @property
    def whole(self) -> list[Asked]:
        return [asked for peer in self.peers for asked in peer.session.whole]

    async def all_gone(self) -> None:
        for peer in self.peers:
            await peer.is_gone.wait()


@asynccontextmanager
async def h2_serving(
    script: Script = answering,
    *,
    first_settings: Mapping[Setting, int] | None = FIRST,
    tls: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[H2Server]:
    """Serve until the test is over, and see then that no client broke a rule."""
    made = H2Server(script, first_settings)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: H2Peer(made), address, port, ssl=tls, backlog=512)
    made.port = listener.sockets[0].getsockname()[1]
    made.url = f"{'https' if tls else 'http'}://{address}:{made.port}"
    try:
        yield made
    finally:
        listener.close()
        await turns()  # whoever was being accepted
        tasks = [task for task in (peer.stop() for peer in made.peers) if task is not None]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await turns()
    for end in ends:
        if end is not None and not isinstance(end, asyncio.CancelledError):
            raise end
    faults = [fault for peer in made.peers for fault in peer.session.faults]
    assert not faults, f"the client broke rules: {faults}"


def h2_tls(*protocols: str) -> ssl.SSLContext:
    """Make a server's context that offers these, ``h2`` where nothing else is said."""
    context = server_tls()
    context.set_alpn_protocols(list(protocols or ("h2",)))
    return context
