"""The transport over aiohttp: one session and one pool of connections to one app's base URL.

Units: seconds on the running loop's clock; bytes.

A request is written once. A connection is waited for without a limit, because whoever has one may have to wait
minutes for its permit; opening one takes at most ``connect_timeout_s``; the exchange has ``timeout_s`` from the
permit on.
"""

import asyncio
import ssl
from io import BytesIO
from typing import Final

from aiohttp import ClientError, ClientRequest, ClientSession, ClientTimeout, DummyCookieJar
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from sendengine.core.onesignal import notifications_path
from sendengine.errors import NotSentError, ReplyLostError, TransportError
from sendengine.ports import Permit, Reply, WireRequest
from sendengine.settings import TransportSettings
from sendengine.transport.attempts import Attempt, Deadlines, Slots
from sendengine.transport.bodies import bounded_body
from sendengine.transport.connector import CURRENT, PermitConnector, PermitRaised, WatchedRequest
from sendengine.transport.credentials import request_headers
from sendengine.transport.failures import FOREIGN, failure
from sendengine.transport.lifetimes import IDLE_S
from sendengine.transport.tls import tls_context
from sendengine.transport.warming import Warming

_LARGE_BODY_BYTES: Final = 2**20  # beyond it aiohttp warns about bytes, and writes a file in pieces
_FOREIGN: Final = (*FOREIGN, ClientError, HttpProcessingError, AssertionError)
"""With what aiohttp raises: its InvalidURL is a ValueError, and it asserts that no connection closes under it."""


class AiohttpTransport:
    """`sendengine.ports.Transport` over aiohttp. Make it on a running event loop; close it with `aclose`.

    Raises SettingsError where the key cannot stand in a header or ``ca_file`` cannot be read.
    """

    def __init__(self, *, base_url: str, api_key: str, settings: TransportSettings, max_connections: int) -> None:
        self._base_url = base_url.rstrip("/")
        self._urls = {notifications_path(): self._url(notifications_path())}
        self._headers = _headers(api_key)
        self._settings = settings
        self._slots = Slots(max_connections)
        self._deadlines = Deadlines(timeout_s=settings.timeout_s)
        self._max_connections = max_connections
        self._attempts: set[Attempt] = set()
        self._is_closed = False
        self._proxy = URL(settings.proxy) if settings.proxy else None
        self._timeout = ClientTimeout(total=None, connect=settings.connect_timeout_s)
        self._connector = PermitConnector(limit=max_connections, tls=_tls_for(self._base_url, settings), idle_s=IDLE_S)
        self._session = ClientSession(
            connector=self._connector,
            request_class=WatchedRequest,
            cookie_jar=DummyCookieJar(),
            timeout=self._timeout,
            proxy=self._proxy,
            auto_decompress=False,
        )
        self._warming = Warming(self._open_one, open_count=lambda: self._connector.open_count)

    def __repr__(self) -> str:
        return f"<AiohttpTransport {self._base_url}, {self.open_connections} open>"

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Send one request and return its reply, as `sendengine.ports.Transport` has it."""
        if self._is_closed:
            raise NotSentError("the transport is closed")
        attempt = Attempt(permit, self._deadlines)
        token = CURRENT.set(attempt)
        self._attempts.add(attempt)
        has_slot = self._slots.try_take()
        reply: Reply | None = None
        try:
            if not has_slot:
                await self._slots.take()
                has_slot = True
            reply = await self._carry(request)
        except PermitRaised as carrier:
            error = carrier.error
        except _FOREIGN as foreign:
            error = failure(foreign, is_written=attempt.is_written)
        except asyncio.CancelledError:
            if not attempt.is_over:
                raise
            error = self._interruption(attempt)
        finally:
            attempt.finish()
            self._attempts.discard(attempt)
            CURRENT.reset(token)
            if has_slot:
                self._slots.give_back()
        if reply is not None:
            return reply
        try:
            raise error  # here, so that no foreign exception is its context: those hold the key
        finally:
            del error  # it holds this frame, and would be held by it

    async def warm(self, count: int) -> int:
        """Open connections until ``count`` are open, as many as there may be, and return how many are."""
        if not self._is_closed:
            await self._warming.reach(min(count, self._max_connections))
        return self.open_connections

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next request on. Raises SettingsError where it cannot stand in a header."""
        self._headers = _headers(api_key)

    @property
    def open_connections(self) -> int:
        """How many connections are open, busy or idle."""
        return self._connector.open_count

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
            attempt.expire()  # before aiohttp cancels what it waits for, which would look like a cancelled task
        self._deadlines.close()
        await self._warming.aclose()
        gone = self._connector.abort_all()
        await self._session.close()
        await asyncio.gather(*gone, return_exceptions=True)
        await asyncio.sleep(0)  # uvloop closes a socket one step after it says so

    def _interruption(self, attempt: Attempt) -> TransportError:
        if not attempt.is_written:
            return NotSentError("the transport was closed before the request was written")
        if self._is_closed:
            return ReplyLostError("the transport was closed before the reply came")
        return ReplyLostError(f"no reply within {self._settings.timeout_s:g} s")

    async def _carry(self, request: WireRequest) -> Reply:
        body = request.body
        response = await self._session.request(
            request.method,
            self._urls.get(request.path) or self._url(request.path),
            data=BytesIO(body) if len(body) > _LARGE_BODY_BYTES else body or None,
            headers=self._headers,
            allow_redirects=False,
        )
        headers = {name.lower(): value for name, value in response.headers.items()}
        content = await bounded_body(response, headers, max_bytes=self._settings.max_reply_bytes)
        return Reply(response.status, headers, content)

    async def _open_one(self) -> bool:
        """Open a connection and leave it idle; False where that failed or there is no room."""
        if self._connector.claimed_count >= self._max_connections or not self._slots.try_take():
            return False
        before = self._connector.opened_count
        try:
            connection = await self._connector.connect(self._blank_request(), [], self._timeout)
            connection.release()
        except _FOREIGN:
            return False
        finally:
            self._slots.give_back()
        return self._connector.opened_count > before

    def _blank_request(self) -> ClientRequest:
        """Make what aiohttp derives a connection from; it is never sent."""
        return ClientRequest(
            "GET",
            self._urls[notifications_path()],
            loop=asyncio.get_running_loop(),
            session=self._session,
            proxy=self._proxy,
        )

    def _url(self, path: str) -> URL:
        return URL(self._base_url + path, encoded=True)


def _headers(api_key: str) -> "CIMultiDict[str]":
    """Make all of a request's headers. They are not the session's own, because aiohttp shows those to a proxy."""
    return CIMultiDict(request_headers(api_key))


def _tls_for(base_url: str, settings: TransportSettings) -> ssl.SSLContext | bool:
    """Return what TLS must prove; reading the system's certificates takes 30 ms, so not where there is no TLS."""
    has_tls = any(url.startswith("https:") for url in (base_url, settings.proxy or ""))
    return tls_context(settings.ca_file) if has_tls or settings.ca_file else True
