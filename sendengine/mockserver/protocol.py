"""HTTP/1.1 on one connection: requests in, replies out in their order, or what a fault wants instead.

Keep-alive and pipelining are served; replies to pipelined requests leave in the order of the requests. Written for
speed: no router, no middleware, one object a request.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol, cast

import httptools

_LENGTHS: Final = frozenset(map(len, (b"authorization", b"content-type", b"expect")))  # a quick look first
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time, so that closing sends RST
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_LARGE: Final = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """One request, and how it ends. Of the endings exactly one is called, at any time."""

    __slots__ = (
        "_connection",
        "authorization",
        "body",
        "content_type",
        "keep_alive",
        "method",
        "parts",
        "pause_s",
        "url",
    )

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.url = b""
        self.method = b""
        self.authorization = b""
        self.content_type = b""
        self.body = b""
        self.keep_alive = True
        self.parts: Sequence[bytes] | None = None
        self.pause_s = 0.0

    @property
    def is_read(self) -> bool:
        """Whether the client is still there to read the reply."""
        return self._connection.is_open

    def reply(self, *parts: bytes, pause_s: float = 0.0, then_close: bool = False) -> None:
        """Write a reply once those before it are written; ``pause_s`` apart where it comes in several parts."""
        self.parts = parts
        self.pause_s = pause_s
        self.keep_alive = self.keep_alive and not then_close
        self._connection.flush()

    def close(self) -> None:
        """Close the connection without a reply, as a peer that has gone away does."""
        self._connection.close()

    def close_later(self, delay_s: float) -> None:
        """Leave the client without a reply for so long, then close."""
        self._connection.close_later(delay_s)

    def reset(self) -> None:
        """Reset the connection without a reply."""
        self._connection.reset()


class Front(Protocol):
    """Who answers requests."""

    max_body_bytes: int  # of the largest request body that is read
    requests_per_connection: int  # replies after which a connection is closed; 0 for never

    def opened(self, connection: "Connection") -> None:
        """Take note of a connection; it may be reset at once."""
        ...

    def closed(self, connection: "Connection") -> None:
        """Take note that a connection is gone."""
        ...

    def receive(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        ...

    def unparsable(self) -> None:
        """Take note of bytes that are no request."""
        ...


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_body", "_body_bytes", "_exchange", "_front", "_hanging", "_loop", "_parser", "_replied", "_transport",
        "_trickling", "_waiting",
    )  # fmt: skip

    def __init__(self, front: Front, *, loop: asyncio.AbstractEventLoop) -> None:
        self._front = front
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Exchange] = deque()
        self._exchange = Exchange(self)
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._replied = 0
        self._trickling = False
        self._hanging: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection is still there."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a client."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not say that they are
        self._front.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Forget what was not answered yet."""
        if self._hanging is not None:
            self._hanging.cancel()
        self._transport = None
        self._waiting.clear()
        self._front.closed(self)

    def data_received(self, data: bytes) -> None:
        """Read requests, whole or in pieces."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._front.unparsable()
            self._refuse(_BAD_REQUEST)

    def on_message_begin(self) -> None:
        """Begin a request; httptools calls this and the next four while it reads."""
        self._exchange = Exchange(self)
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Keep the path, or a piece of it."""
        self._exchange.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter."""
        if len(name) not in _LENGTHS:
            return
        name = name.lower()
        if name == b"authorization":
            self._exchange.authorization = value
        elif name == b"content-type":
            self._exchange.content_type = value
        elif name == b"expect" and self._transport is not None and value.lower() == b"100-continue":
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, up to the largest size."""
        self._body_bytes += len(body)
        if self._body_bytes <= self._front.max_body_bytes:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand a whole request on."""
        exchange = self._exchange
        if self._transport is None:
            return
        if self._body_bytes > self._front.max_body_bytes:
            self._refuse(_TOO_LARGE)
            return
        parts = self._body
        exchange.body = parts[0] if len(parts) == 1 else b"".join(parts)
        exchange.method = self._parser.get_method()
        exchange.keep_alive = self._parser.should_keep_alive()
        self._waiting.append(exchange)
        self._front.receive(exchange)

    def flush(self) -> None:
        """Write what is ready, in the order of the requests."""
        waiting = self._waiting
        while waiting and not self._trickling and self._transport is not None:
            parts = waiting[0].parts
            if parts is None:
                return
            if waiting[0].pause_s:
                self._trickling = True
                self._trickle(list(parts), waiting[0].pause_s)
                return
            self._transport.write(b"".join(parts))
            self._done()

    def close(self) -> None:
        """Close, after what is written already."""
        if self._transport is not None:
            self._transport.close()

    def close_later(self, delay_s: float) -> None:
        """Close after so long, unless the client has gone by then."""
        self._hanging = self._loop.call_later(delay_s, self.close)

    def reset(self) -> None:
        """Send RST at once."""
        if self._transport is None:
            return
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _trickle(self, parts: list[bytes], pause_s: float) -> None:
        if self._transport is None:
            return
        self._transport.write(parts.pop(0))
        if parts:
            self._loop.call_later(pause_s, self._trickle, parts, pause_s)
            return
        self._trickling = False
        self._done()
        self.flush()

    def _done(self) -> None:
        exchange = self._waiting.popleft()
        self._replied += 1
        if not exchange.keep_alive or self._replied == self._front.requests_per_connection:
            self.close()

    def _refuse(self, reply: bytes) -> None:
        if self._transport is not None:
            self._transport.write(reply)
            self._transport.close()
