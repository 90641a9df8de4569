"""The direct transport: one pool of connections to one app's base URL, over HTTP/2 or HTTP/1.1.

Units: seconds on the running loop's clock; bytes; exchanges.

The way of a request is short: room on a connection is there without waiting, the permit is awaited, the request is
written, and one future is awaited. No task, timer or context of its own: the deadlines of all connections share one
wheel, and a connection that has its reply has room again before the caller goes on.
"""

import asyncio
from asyncio import current_task
from typing import Final
from urllib.parse import urlsplit

from sendengine.errors import NotSentError, SettingsError
from sendengine.ports import Permit, Reply, WireRequest
from sendengine.settings import TransportSettings
from sendengine.settings.urls import port_of
from sendengine.transport.authority import ascii_host
from sendengine.transport.direct.bound import ConnectionBound
from sendengine.transport.direct.contract import Connection
from sendengine.transport.direct.dialing import Dialer
from sendengine.transport.direct.http1.connection import Http1Connection, http1_class
from sendengine.transport.direct.http2.connection import Http2Connection
from sendengine.transport.direct.http2.heads import RequestBlocks
from sendengine.transport.direct.negotiation import NO_HTTP2, Negotiated, Spoken, foreknown, offers
from sendengine.transport.direct.pool import CLOSED, Pool
from sendengine.transport.direct.sessions import resuming_context
from sendengine.transport.direct.wheel import Wheel
from sendengine.transport.heads import Heads
from sendengine.transport.lifetimes import lifetime_s
from sendengine.transport.reuse import Reuse

ASSUMED_STREAMS: Final = 100  # of a connection, until the first one is open: what RFC 9113 asks for at least
MOST_EXCHANGES: Final = 32_768  # at once, however many streams there may be: each holds its request
_BUFFER_BYTES: Final = 262_144  # as much as uvloop reads at a time
_GONE: Final = "the connection was closed before the request was written"


class DirectTransport:
    """`sendengine.ports.Transport` over HTTP/2 or HTTP/1.1. Make it on a running event loop; close it with `aclose`.

    ``bound`` is for the connections of several transports together. Raises SettingsError where the key cannot stand in
    a header, ``ca_file`` cannot be read, or a proxy is asked for.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        settings: TransportSettings,
        max_connections: int,
        bound: ConnectionBound | None = None,
    ) -> None:
        if settings.proxy is not None:
            raise SettingsError(
                'transport.proxy: needs transport.kind = "aiohttp"; the direct transport has no proxies'
            )
        self._base_url = base_url.rstrip("/")
        self._settings = settings
        self._max_connections = max_connections
        self._heads = Heads(self._base_url, api_key)
        self._blocks = RequestBlocks(self._base_url, api_key)
        self._loop = asyncio.get_running_loop()
        self._opened = 0
        self._asking: set[asyncio.Task[object] | None] = set()  # for their permits
        self._interrupted: set[asyncio.Task[object] | None] = set()  # of those, by closing
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._spoken: Spoken | None = None  # by the connection that was opened last
        parts = urlsplit(self._base_url)
        has_tls = parts.scheme == "https"
        tls = self._tls = resuming_context(settings.ca_file) if has_tls or settings.ca_file else None
        if tls is not None:
            tls.set_alpn_protocols(offers(settings.protocol))
        self._wheel = Wheel()
        self._reuse = Reuse()
        self._http1 = http1_class(self._loop, has_tls=has_tls)
        self._dialer = Dialer(
            self._negotiated,
            host=ascii_host(self._base_url),
            port=port_of(parts),
            tls=tls if has_tls else None,
            timeout_s=settings.connect_timeout_s,
            wheel=self._wheel,
            greeted=Negotiated.greeted,
        )
        known = foreknown(settings.protocol, has_tls=has_tls)
        width = None if known is None else ASSUMED_STREAMS if known == "h2" else 1
        self._pool = Pool(self._dial, max_connections=max_connections, width=width, bound=bound)

    def __repr__(self) -> str:
        return f"<DirectTransport {self._base_url}, {self.open_connections} open>"

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Send one request and return its reply, as `sendengine.ports.Transport` has it."""
        connection = self._pool.take()
        if connection is None:
            connection = await self._pool.obtain()
        task = current_task(self._loop)
        self._asking.add(task)
        try:
            await permit()
            reply = connection.send(request)
            if reply is None:
                connection = self._another(connection)
                reply = _sent(connection, request)
        except BaseException as error:
            connection.give_back()
            if task in self._interrupted and self._is_ours(error, task):
                raise NotSentError(CLOSED) from None
            raise
        finally:
            self._asking.discard(task)
        try:
            return await reply
        except BaseException:
            connection.abandon(reply)
            del reply  # it holds the error, which holds this frame
            raise

    async def warm(self, count: int) -> int:
        """Open connections until they carry ``count`` exchanges at once, as far as may be; return how many they do."""
        await self._pool.warm(count)
        return self.capacity

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next request on. Raises SettingsError where it cannot stand in a header."""
        self._heads.replace_key(api_key)
        self._blocks.replace_key(api_key)

    @property
    def open_connections(self) -> int:
        """How many connections are open, busy or idle."""
        return len(self._pool)

    @property
    def capacity(self) -> int:
        """How many exchanges the open connections carry at once."""
        return self._pool.capacity

    @property
    def max_exchanges(self) -> int:
        """How many exchanges there may be at once, with as many connections as may be open.

        Until a connection is open it may not be known how many one carries; then it is taken to be one.
        """
        return min(self._max_connections * (self._pool.width or 1), max(self._max_connections, MOST_EXCHANGES))

    @property
    def protocol(self) -> Spoken | None:
        """What the connection that was opened last speaks; None where none was open yet."""
        return self._spoken

    async def aclose(self) -> None:
        """Close every connection; exchanges under way end in NotSentError or ReplyLostError."""
        for task in self._asking:
            if task is not None and not task.cancelling():  # else it ends by itself
                self._interrupted.add(task)
                task.cancel()
        await self._pool.aclose()
        await self._dialer.aclose()
        self._wheel.close()

    async def _dial(self) -> Connection:
        try:
            opened = (await self._dialer.dial()).connection
        except NotSentError as error:
            if self._settings.protocol == "h2" and "no application protocol" in str(error):  # as OpenSSL says it
                raise NotSentError(NO_HTTP2) from None
            raise
        if opened is None:
            raise NotSentError(_GONE)
        return opened

    def _negotiated(self) -> Negotiated:
        return Negotiated(self._connection, wanted=self._settings.protocol)

    def _connection(self, spoken: Spoken) -> Http1Connection | Http2Connection:
        self._opened += 1
        self._spoken = spoken
        if spoken == "h2":
            return Http2Connection(
                pool=self._pool,
                blocks=self._blocks,
                wheel=self._wheel,
                settings=self._settings,
                lifetime_s=lifetime_s(self._opened),
                buffer=self._buffer,
                outdated=self._go_back,
            )
        return self._http1(
            pool=self._pool,
            heads=self._heads,
            wheel=self._wheel,
            timeout_s=self._settings.timeout_s,
            max_reply_bytes=self._settings.max_reply_bytes,
            lifetime_s=lifetime_s(self._opened),
            buffer=self._buffer,
            reuse=self._reuse,
        )

    def _go_back(self) -> None:
        """Speak HTTP/1.1 from the next connection on, where that is ours to choose: the server wants it.

        Those that are still being opened over HTTP/2 count as having come to nothing, and may cost one pause.
        Source: RFC 9113, section 7 (HTTP_1_1_REQUIRED).
        """
        if self._settings.protocol != "auto" or self._tls is None:
            return
        self._tls.set_alpn_protocols(offers("http/1.1"))
        for connection in self._pool:
            if isinstance(connection, Http2Connection):
                self._pool.proven(connection)  # the server is there, and further connections need no pause
                connection.retire()

    def _another(self, claimed: Connection) -> Connection:
        """Take room elsewhere, for a request whose permit is there and whose connection takes it no more."""
        another = self._pool.take()
        if another is None:
            raise NotSentError(_GONE)
        claimed.give_back()
        return another

    def _is_ours(self, error: BaseException, task: "asyncio.Task[object] | None") -> bool:
        """Take back the interruption of an exchange; whether nobody else has cancelled its task."""
        self._interrupted.discard(task)
        return task is not None and not task.uncancel() and isinstance(error, asyncio.CancelledError)


def _sent(connection: Connection, request: WireRequest) -> asyncio.Future[Reply]:
    """Send a request that goes over no other connection any more."""
    reply = connection.send(request)
    if reply is None:
        raise NotSentError(_GONE)
    return reply
