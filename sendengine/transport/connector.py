"""aiohttp's connector with the permit in the middle: a connection in hand first, then the permit, then the bytes.

Units: seconds on the running loop's clock.

Method: aiohttp's session connects and writes in one call, and `connect` is the one step between that it lets a
subclass take. The attempt in hand is found in a context variable: measured, 0.3 µs a request against 18 µs for a
trace, which is aiohttp's own way of passing something along.
"""

import asyncio
import ssl
from contextvars import ContextVar
from typing import Final

from aiohttp import ClientConnectionError, ClientRequest, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from msgspec import Struct

from sendengine.core.onesignal import DNS_TTL_S
from sendengine.errors import NotSentError, ReplyLostError
from sendengine.transport.attempts import Attempt
from sendengine.transport.lifetimes import lifetime_s


class PermitRaised(BaseException):
    """Carries what a permit raised past aiohttp, which would turn an OSError or a TimeoutError into its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


CURRENT: Final[ContextVar[Attempt | None]] = ContextVar("sendengine_attempt", default=None)
"""The attempt for which the running task connects; None while connections are warmed."""


class _Life(Struct):
    """One open connection: when it is too old, and the transport that ends it at once."""

    transport: asyncio.Transport
    until_s: float


class WatchedRequest(ClientRequest):
    """Notes when its first byte goes out: a connection that closes just before has certainly carried nothing."""

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """Write the headers and the body, as aiohttp does in a task of its own."""
        attempt, transport = CURRENT.get(), conn.transport
        if attempt is not None and transport is not None and not transport.is_closing():
            attempt.is_written = True
        await super().write_bytes(writer, conn, content_length)


class PermitConnector(TCPConnector):
    """Connections to one host; whoever takes one for an attempt has its permit too."""

    def __init__(self, *, limit: int, tls: ssl.SSLContext | bool, idle_s: float) -> None:
        super().__init__(limit=limit, ssl=tls, ttl_dns_cache=DNS_TTL_S, keepalive_timeout=idle_s)
        self._lives: dict[ResponseHandler, _Life] = {}
        self._connecting = 0
        self._opened = 0

    @property
    def open_count(self) -> int:
        """How many connections are open, busy or idle."""
        return len(self._lives)

    @property
    def opened_count(self) -> int:
        """How many were opened so far."""
        return self._opened

    @property
    def claimed_count(self) -> int:
        """How many are open or being opened."""
        return len(self._lives) + self._connecting

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:  # noqa: ASYNC109 - aiohttp's signature
        """Take a connection and, where an attempt is under way, wait for its permit with the connection in hand.

        Raises NotSentError where the connection was lost while the permit was awaited, PermitRaised with what the
        permit raised, and whatever aiohttp raises; each, and cancelling, gives the connection back or closes it.
        """
        attempt = CURRENT.get()
        if attempt is None:
            return (await self._take(req, traces, timeout))[0]
        if attempt.is_granted:  # aiohttp repeats a GET by itself
            raise ReplyLostError("the connection was lost before the reply came")
        connection, transport = await self._take(req, traces, timeout)
        try:
            await attempt.permit()
        except Exception as error:  # noqa: BLE001 - whatever a permit raises goes through unchanged
            connection.release()
            raise PermitRaised(error) from None
        except BaseException:
            connection.release()
            raise
        if not _is_usable(connection):
            connection.close()
            raise NotSentError("the connection was closed before the request was written")
        attempt.grant(transport, has_body=bool(req.body))
        return connection

    def abort_all(self) -> list[asyncio.Future[None]]:
        """Cut every connection without goodbye; the futures are done when each is gone."""
        gone = [protocol.closed for protocol in self._lives]
        for life in list(self._lives.values()):
            life.transport.abort()
        return [future for future in gone if future is not None]

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """Offer no idle connection where new ones are wanted: a private step of aiohttp's `connect`.

        Without it, warming would have to hold every idle connection in hand while it opens more.
        """
        return None if CURRENT.get() is None else await super()._get(key, traces)

    async def _take(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - the same
    ) -> tuple[Connection, asyncio.Transport]:
        """Take a connection that is young enough, and its transport."""
        while True:
            req.proxy_headers = None  # aiohttp writes "Host" into it, which would change the key of its pool
            self._connecting += 1  # an idle connection comes without a step of the loop, so nobody sees this one then
            try:
                connection = await super().connect(req, traces, timeout)
            finally:
                self._connecting -= 1
            protocol = connection.protocol
            life = self._lives.get(protocol) if protocol is not None else None
            if life is None:
                return connection, self._begin(connection)
            if self._loop.time() < life.until_s and _is_usable(connection):
                return connection, life.transport
            life.transport.abort()
            connection.close()

    def _begin(self, connection: Connection) -> asyncio.Transport:
        """Register a new connection. Raises ClientConnectionError where it is gone already."""
        protocol, transport = connection.protocol, connection.transport
        closed = protocol.closed if protocol is not None else None
        if protocol is None or transport is None or closed is None:
            connection.close()
            raise ClientConnectionError("closed as soon as it was open")
        self._opened += 1
        self._lives[protocol] = _Life(transport, self._loop.time() + lifetime_s(self._opened))
        closed.add_done_callback(lambda future: self._end(protocol, future))
        return transport

    def _end(self, protocol: ResponseHandler, closed: asyncio.Future[None]) -> None:
        self._lives.pop(protocol, None)
        if not closed.cancelled():
            closed.exception()  # seen: nobody else may have asked


def _is_usable(connection: Connection) -> bool:
    """Whether it is open, and nothing came over it that nobody asked for: that would be taken for the reply."""
    protocol = connection.protocol
    return protocol is not None and protocol.is_connected() and not protocol.should_close
