"""Which protocol a connection speaks: what the setting asks for, or what the server has chosen within TLS (ALPN).

Source: RFC 7301; RFC 9113, sections 3.2 and 3.3.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from sendengine.errors import NotSentError
from sendengine.transport.direct.http1.connection import Http1Connection
from sendengine.transport.direct.http2.connection import Http2Connection

Spoken: TypeAlias = Literal["http/1.1", "h2"]
Wanted: TypeAlias = Literal["auto", "http/1.1", "h2"]

NO_HTTP2: Final = 'no connection: the server does not offer HTTP/2 (ALPN); set transport.protocol to "auto"'
_OFFERS: Final[dict[Wanted, list[str]]] = {"auto": ["h2", "http/1.1"], "h2": ["h2"], "http/1.1": ["http/1.1"]}


def offers(wanted: Wanted) -> list[str]:
    """Return what is offered to the server within TLS, the first most liked."""
    return _OFFERS[wanted]


def foreknown(wanted: Wanted, *, has_tls: bool) -> Spoken | None:
    """Return the protocol where it is known before a connection is open; None where TLS will tell."""
    if wanted == "auto":
        return None if has_tls else "http/1.1"
    return wanted


class Negotiated(asyncio.Protocol):
    """A connection to be: it becomes one when it is open, and is one of the two protocols from then on."""

    __slots__ = ("_make", "_wanted", "connection")

    def __init__(self, make: Callable[[Spoken], Http1Connection | Http2Connection], *, wanted: Wanted) -> None:
        self._make = make
        self._wanted = wanted
        self.connection: Http1Connection | Http2Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to the protocol that it speaks."""
        wrapped = transport.get_extra_info("ssl_object")
        if wrapped is None:
            spoken = foreknown(self._wanted, has_tls=False) or "http/1.1"
        else:
            chosen = wrapped.selected_alpn_protocol()
            if self._wanted == "h2" and chosen != "h2":
                return  # `greeted` says so
            spoken = "h2" if chosen == "h2" else "http/1.1"
        self.connection = self._make(spoken)
        transport.set_protocol(self.connection)
        self.connection.connection_made(transport)

    async def greeted(self) -> None:
        """Return when it may be used. Raises NotSentError where the server does not speak what is asked for."""
        if self.connection is None:
            raise NotSentError(NO_HTTP2)
        if isinstance(self.connection, Http2Connection):
            await self.connection.greeted()
