"""Open connections to one host: aiohttp's connector opens them, and they are kept here between two exchanges.

Units: seconds on the running loop's clock.

Method: the connector knows DNS, fallback between addresses, TLS and proxies. Its own pool is not used: taking a
connection out of it and giving it back costs 3.9 µs, against 0.8 here, and it goes by another clock than the loop's.
The one that came free last is taken first, so that those that are not needed become idle, and are closed.
"""

import asyncio
import ssl
from functools import partial
from math import inf
from typing import Final

from aiohttp import (
    ClientConnectionError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientHttpProxyError,
    ClientProxyConnectionError,
    ClientRequest,
    ClientTimeout,
    TCPConnector,
)
from aiohttp.connector import Connection
from yarl import URL

from sendengine.core.onesignal import DNS_TTL_S
from sendengine.transport.buffering import Buffering
from sendengine.transport.lifetimes import lifetime_s
from sendengine.transport.link import Link
from sendengine.transport.reuse import REST_S, Reuse
from sendengine.transport.spacing import Spacing
from sendengine.transport.troubles import UnresolvedError, overdue, unopened, unresolved, written

_BUFFER_BYTES: Final = 65_536  # what is read at once


class Links:
    """Connections to one host: those that are idle, and how many there are."""

    def __init__(
        self, url: URL, *, limit: int, tls: ssl.SSLContext | bool, proxy: URL | None, connect_timeout_s: float
    ) -> None:
        """Make it on a running event loop. ``limit`` is a bound that whoever opens connections keeps too."""
        self._loop = asyncio.get_running_loop()
        self._url = url
        self._proxy = proxy
        self._timeout_s = connect_timeout_s
        self._timeout = ClientTimeout(total=None, connect=connect_timeout_s)
        self._spacing = Spacing() if url.scheme == "https" else None
        self._connector = TCPConnector(limit=limit, ssl=tls, ttl_dns_cache=DNS_TTL_S)
        self._open: dict[Link, asyncio.Future[None]] = {}  # with what is done when it is closed
        self._idle: dict[Link, None] = {}  # the one that came free last is the last
        self._limit = limit
        self._reuse = Reuse()
        self._resting: dict[Link, asyncio.TimerHandle] = {}
        self._stirred = asyncio.Event()  # one rests no more
        self._sweeping: asyncio.TimerHandle | None = None
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._opening = 0
        self._opened = 0
        self.proxy_authorization: str | None = None
        """What a proxy wants to see in every request that it passes on, once there is a connection."""

    @property
    def open_count(self) -> int:
        """How many connections are open, busy or idle."""
        return len(self._open)

    @property
    def claimed_count(self) -> int:
        """How many are open or being opened."""
        return len(self._open) + self._opening

    def take(self) -> Link | None:
        """Take an idle connection, where one is of use yet."""
        while self._idle:
            link, _ = self._idle.popitem()
            if self._loop.time() < link.due_s and link.is_usable():
                return link
            link.cut()
        return None

    async def open(self) -> Link:
        """Open a connection, and take it; where there may be no more, wait for one that rests.

        Raises whatever aiohttp raises; cancelling it leaves none.
        """
        while self._resting and self.claimed_count >= self._limit:
            self._stirred.clear()
            await self._stirred.wait()
            if rested := self.take():
                return rested
        request = ClientRequest("GET", self._url, loop=self._loop, proxy=self._proxy)  # never sent, and without a key
        self._opening += 1
        turn = None
        try:
            turn = None if self._spacing is None else await self._spacing.turn()
            connection = await self._connector.connect(request, [], self._timeout)
        finally:
            self._opening -= 1
            if turn is not None:
                turn.end()
        self.proxy_authorization = request.headers.get("Proxy-Authorization")
        return self._begin(connection)

    def why(self, error: Exception) -> str:
        """Say why `open` has failed, in the words of `sendengine.transport.troubles`."""
        url, named_by, through = self._url, "base_url", ""
        if self._proxy is not None:
            through = written(self._proxy.host or "", self._proxy.port or 0)
            if isinstance(error, (ClientConnectorDNSError, ClientProxyConnectionError, ClientHttpProxyError)):
                url, named_by = self._proxy, "transport.proxy"
        where = written(url.host or "", url.port or 0)
        if isinstance(error, TimeoutError) and error.errno is None:  # else the system's
            return overdue(where, self._timeout_s, through=through)
        if isinstance(error, ClientHttpProxyError):
            return f"no connection through {where}: it answered {error.status} {error.message}; look at {named_by}"
        if isinstance(error, ClientConnectorDNSError):
            error = UnresolvedError(unresolved(url.host or "", error.os_error, named_by=named_by))
        elif isinstance(error, ClientConnectorError):
            error = error.os_error
        return unopened(where, error, named_by=named_by)

    def give_back(self, link: Link, *, has_reply: bool = False) -> None:
        """Let it be idle for as long as it may, or close it where it is of no use."""
        now_s = self._loop.time()
        if has_reply:
            link.has_lasted = link.replied_s is not None
            link.replied_s = now_s
            if self._reuse.is_wary and link.is_usable():
                self._resting[link] = self._loop.call_later(REST_S, self._rested, link)
                return
        link.due_s = due_s = min(now_s + link.idle_s, link.until_s)
        if now_s >= due_s or not link.is_usable():
            link.cut()
            return
        self._idle[link] = None
        if self._sweeping is None:
            self._sweeping = self._loop.call_at(due_s, self._sweep)

    async def aclose(self) -> None:
        """Cut every connection without goodbye."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        gone = list(self._open.values())
        self._idle.clear()
        for link in list(self._open):
            link.cut()
        await self._connector.close()
        await asyncio.gather(*gone, return_exceptions=True)
        await asyncio.sleep(0)  # uvloop closes a socket one step after it says so

    def _begin(self, connection: Connection) -> Link:
        """Register a new connection. Raises ClientConnectionError where it is gone already."""
        protocol, transport = connection.protocol, connection.transport
        closed = protocol.closed if protocol is not None else None
        if protocol is None or transport is None or closed is None:
            connection.close()
            raise ClientConnectionError("closed as soon as it was open")
        self._opened += 1
        link = Link(connection, protocol, transport, until_s=self._loop.time() + lifetime_s(self._opened))
        if link.has_tls or isinstance(self._loop, asyncio.BaseEventLoop):
            transport.set_protocol(Buffering(protocol, self._buffer))
        self._open[link] = closed
        closed.add_done_callback(partial(self._end, link))
        return link

    def _end(self, link: Link, closed: asyncio.Future[None]) -> None:
        del self._open[link]
        self._idle.pop(link, None)
        if link in self._resting:
            self._wake(link)
        if link.replied_s is not None and not link.has_lasted and not link.is_cut:
            self._reuse.ended(replied_s=link.replied_s, now_s=self._loop.time())
        link.forget()
        if not closed.cancelled():
            closed.exception()  # seen: nobody else may have asked

    def _rested(self, link: Link) -> None:
        self._wake(link)
        if link.is_usable():
            self._reuse.outlived()
        self.give_back(link)

    def _wake(self, link: Link) -> None:
        self._resting.pop(link).cancel()
        self._stirred.set()

    def _sweep(self) -> None:
        """Close what was idle for too long, and look again when the next one will have been."""
        self._sweeping = None
        now_s, next_s = self._loop.time(), inf
        for link in list(self._idle):
            if link.due_s <= now_s:
                del self._idle[link]
                link.cut()
            else:
                next_s = min(next_s, link.due_s)
        if self._idle:
            self._sweeping = self._loop.call_at(next_s, self._sweep)
