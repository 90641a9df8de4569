"""The direct transport: one pool of connections to one app's base URL.

Units: seconds on the running loop's clock; bytes.

The way of a request is short: an idle connection is there without waiting, the permit is awaited, the request is
written in one piece, and one future is awaited. No task, timer or context of its own: the deadlines of all
connections share one wheel, and a connection that has its reply is idle again before the caller goes on.
"""

import asyncio
from urllib.parse import urlsplit

from sendengine.errors import NotSentError, SettingsError
from sendengine.ports import Permit, Reply, WireRequest
from sendengine.settings import TransportSettings
from sendengine.transport.direct.connection import Http1Connection
from sendengine.transport.direct.dialing import Dialer
from sendengine.transport.direct.heads import Heads, ascii_host, default_port
from sendengine.transport.direct.pool import CLOSED, Pool
from sendengine.transport.direct.sessions import resuming_context
from sendengine.transport.direct.wheel import Wheel
from sendengine.transport.lifetimes import lifetime_s


class DirectTransport:
    """`sendengine.ports.Transport` over HTTP/1.1. Make it on a running event loop; close it with `aclose`.

    Raises SettingsError where the key cannot stand in a header, ``ca_file`` cannot be read, or a proxy is asked for.
    """

    def __init__(self, *, base_url: str, api_key: str, settings: TransportSettings, max_connections: int) -> None:
        if settings.proxy is not None:
            raise SettingsError(
                'transport.proxy: needs transport.kind = "aiohttp"; the direct transport has no proxies'
            )
        self._base_url = base_url.rstrip("/")
        self._settings = settings
        self._heads = Heads(self._base_url, api_key)
        self._loop = asyncio.get_running_loop()
        self._opened = 0
        self._asking: set[asyncio.Task[object] | None] = set()  # for their permits
        self._interrupted: set[asyncio.Task[object] | None] = set()  # of those, by closing
        self._is_closed = False
        parts = urlsplit(self._base_url)
        tls = resuming_context(settings.ca_file) if parts.scheme == "https" or settings.ca_file else None
        self._wheel = Wheel()
        self._dialer = Dialer(
            self._connection,
            host=ascii_host(self._base_url),
            port=parts.port or default_port(parts.scheme),
            tls=tls if parts.scheme == "https" else None,
            timeout_s=settings.connect_timeout_s,
            wheel=self._wheel,
        )
        self._pool = Pool(self._dialer.dial, max_connections=max_connections)

    def __repr__(self) -> str:
        return f"<DirectTransport {self._base_url}, {self.open_connections} open>"

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Send one request and return its reply, as `sendengine.ports.Transport` has it."""
        if self._is_closed:
            raise NotSentError("the transport is closed")
        connection = self._pool.take()
        if connection is None:
            connection = await self._pool.obtain()
        task = asyncio.current_task(self._loop)
        self._asking.add(task)
        try:
            await permit()
            reply = connection.send(request)
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
        """Open connections until ``count`` are open, as many as there may be, and return how many are."""
        await self._pool.warm(count)
        return self.open_connections

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next request on. Raises SettingsError where it cannot stand in a header."""
        self._heads.replace_key(api_key)

    @property
    def open_connections(self) -> int:
        """How many connections are open, busy or idle."""
        return len(self._pool)

    async def aclose(self) -> None:
        """Close every connection; exchanges under way end in NotSentError or ReplyLostError."""
        self._is_closed = True
        for task in self._asking:
            if task is not None and not task.cancelling():  # else it ends by itself
                self._interrupted.add(task)
                task.cancel()
        await self._pool.aclose()
        await self._dialer.aclose()
        self._wheel.close()

    def _connection(self) -> Http1Connection:
        self._opened += 1
        return Http1Connection(
            pool=self._pool,
            heads=self._heads,
            wheel=self._wheel,
            timeout_s=self._settings.timeout_s,
            max_reply_bytes=self._settings.max_reply_bytes,
            lifetime_s=lifetime_s(self._opened),
        )

    def _is_ours(self, error: BaseException, task: "asyncio.Task[object] | None") -> bool:
        """Take back the interruption of an exchange; whether nobody else has cancelled its task."""
        self._interrupted.discard(task)
        return task is not None and not task.uncancel() and isinstance(error, asyncio.CancelledError)
