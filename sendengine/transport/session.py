"""The transport over aiohttp: one pool of connections to one app's base URL.

Units: seconds on the running loop's clock; bytes.

A request is written once. A connection is waited for without a limit, because whoever has one may have to wait
minutes for its permit; opening one takes at most ``connect_timeout_s``; the exchange has ``timeout_s`` from the
permit on.
"""

import asyncio
import ssl
from typing import Final

from aiohttp import ClientError, EofStream
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from sendengine.core.onesignal import notifications_path
from sendengine.errors import NotSentError, ReplyLostError, TransportError
from sendengine.ports import Permit, Reply, WireRequest
from sendengine.settings import TransportSettings
from sendengine.transport.attempts import Attempt, Deadlines, Slots
from sendengine.transport.connector import Links
from sendengine.transport.failures import FOREIGN, failure
from sendengine.transport.heads import Heads
from sendengine.transport.tls import tls_context
from sendengine.transport.warming import Warming

_FOREIGN: Final = (*FOREIGN, ClientError, HttpProcessingError, EofStream, AssertionError)
"""With what aiohttp raises: its InvalidURL is a ValueError, and it asserts that no connection closes under it."""


class AiohttpTransport:
    """`sendengine.ports.Transport` over aiohttp. Make it on a running event loop; close it with `aclose`.

    Raises SettingsError where the key cannot stand in a header or ``ca_file`` cannot be read.
    """

    def __init__(self, *, base_url: str, api_key: str, settings: TransportSettings, max_connections: int) -> None:
        self._base_url = base_url.rstrip("/")
        self._heads = Heads(base_url, api_key)
        self._settings = settings
        self._slots = Slots(max_connections)
        self._deadlines = Deadlines(timeout_s=settings.timeout_s)
        self._max_connections = max_connections
        self._attempts: set[Attempt] = set()
        self._is_closed = False
        self._origin = _forwarded_origin(self._base_url, settings)
        self._links = Links(
            URL(self._base_url + notifications_path(), encoded=True),
            limit=max_connections,
            tls=_tls_for(self._base_url, settings),
            proxy=URL(settings.proxy) if settings.proxy else None,
            connect_timeout_s=settings.connect_timeout_s,
        )
        self._warming = Warming(self._open_one, open_count=lambda: self._links.open_count)

    def __repr__(self) -> str:
        return f"<AiohttpTransport {self._base_url}, {self.open_connections} open>"

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Send one request and return its reply, as `sendengine.ports.Transport` has it."""
        if self._is_closed:
            raise NotSentError("the transport is closed")
        attempt = Attempt()
        self._attempts.add(attempt)
        try:
            return await self._carry(attempt, request, permit)
        except _FOREIGN as foreign:
            if attempt.is_asking:
                raise
            has_link = attempt.link is not None
            error = (
                failure(foreign, is_written=attempt.is_written) if has_link else NotSentError(self._links.why(foreign))
            )
        except asyncio.CancelledError:
            if not attempt.is_over:
                raise
            error = self._interruption(attempt)
        finally:
            self._leave(attempt)
        try:
            raise error  # here, so that no foreign exception is its context
        finally:
            del error  # it holds this frame, and would be held by it

    async def warm(self, count: int) -> int:
        """Open connections until ``count`` are open, as many as there may be, and return how many are."""
        if not self._is_closed:
            await self._warming.reach(min(count, self._max_connections))
        return self.open_connections

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next request on. Raises SettingsError where it cannot stand in a header."""
        self._heads.replace_key(api_key)

    @property
    def open_connections(self) -> int:
        """How many connections are open, busy or idle."""
        return self._links.open_count

    @property
    def capacity(self) -> int:
        """How many exchanges the open connections carry at once: one each."""
        return self.open_connections

    @property
    def max_exchanges(self) -> int:
        """How many exchanges there may be at once: one a connection."""
        return self._max_connections

    @property
    def protocol(self) -> str | None:
        """HTTP/1.1, which is all that it speaks; None while no connection is open."""
        return "http/1.1" if self.open_connections else None

    async def aclose(self) -> None:
        """Close every connection; exchanges under way end as if their time were over."""
        self._is_closed = True
        for attempt in list(self._attempts):
            attempt.expire()  # before its connection goes, so that it says why
        self._deadlines.close()
        await self._warming.aclose()
        await self._links.aclose()

    def _interruption(self, attempt: Attempt) -> TransportError:
        if not attempt.is_written:
            return NotSentError("the transport was closed before the request was written")
        if self._is_closed:
            return ReplyLostError("the transport was closed before the reply came")
        return ReplyLostError(f"no reply within {self._settings.timeout_s:g} s")

    async def _carry(self, attempt: Attempt, request: WireRequest, permit: Permit) -> Reply:
        """Take what the exchange needs, in this order; `_leave` gives it back."""
        if not self._slots.try_take():
            await self._slots.take()
        attempt.has_slot = True
        link = attempt.link = self._links.take() or await self._links.open()
        attempt.is_asking = True
        await permit()
        attempt.is_asking = False
        if not link.is_usable():
            raise NotSentError("the connection was closed before the request was written")
        head = self._head(request)
        self._deadlines.start(attempt)
        attempt.is_written = True
        link.send(head, request)
        reply = await link.answer(max_bytes=self._settings.max_reply_bytes)
        attempt.is_answered = True
        return reply

    def _leave(self, attempt: Attempt) -> None:
        self._deadlines.stop(attempt)
        self._attempts.discard(attempt)
        attempt.finish()
        link = attempt.link
        if link is not None:
            if attempt.is_written and not attempt.is_answered:
                link.cut()
            else:
                self._links.give_back(link, has_reply=attempt.is_answered)
        if attempt.has_slot:
            self._slots.give_back()

    def _head(self, request: WireRequest) -> bytes:
        """Render a request's head. Raises NotSentError where its path cannot stand in one."""
        head = self._heads.head(request)
        if self._origin is None:
            return head
        return _forwarded(head, self._origin, self._links.proxy_authorization)

    async def _open_one(self) -> bool:
        """Open a connection and leave it idle; False where that failed or there is no room."""
        if self._links.claimed_count >= self._max_connections or not self._slots.try_take():
            return False
        try:
            self._links.give_back(await self._links.open())
        except _FOREIGN:
            return False
        finally:
            self._slots.give_back()
        return True


def _forwarded_origin(base_url: str, settings: TransportSettings) -> bytes | None:
    """Return what goes before the path where a proxy passes requests on one by one; None where there is none."""
    if settings.proxy is None or base_url.startswith("https:"):
        return None
    return str(URL(base_url).origin()).encode("ascii")


def _forwarded(head: bytes, origin: bytes, authorization: str | None) -> bytes:
    """Return a head as a proxy wants it: the whole URL in its first line, and what the proxy wants to see."""
    method, path, rest = head.split(b" ", 2)
    version, fields = rest.split(b"\r\n", 1)
    credentials = b"Proxy-Authorization: %b\r\n" % authorization.encode("ascii") if authorization else b""
    return b"%b %b%b %b\r\n%b%b" % (method, origin, path, version, credentials, fields)


def _tls_for(base_url: str, settings: TransportSettings) -> ssl.SSLContext | bool:
    """Return what TLS must prove; reading the system's certificates takes 30 ms, so not where there is no TLS."""
    has_tls = any(url.startswith("https:") for url in (base_url, settings.proxy or ""))
    return tls_context(settings.ca_file) if has_tls or settings.ca_file else True
