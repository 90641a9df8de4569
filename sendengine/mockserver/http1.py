"""HTTP/1.1 on one connection: requests in, replies out in their order, or what a fault wants instead.

Keep-alive and pipelining are served; replies to pipelined requests leave in the order of the requests. Written for
speed: no router, no middleware, one object a request.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import httptools

from sendengine.mockserver.protocol import Front, Wire
from sendengine.mockserver.replies import Answer, render

_LENGTHS: Final = frozenset(map(len, (b"authorization", b"content-type", b"expect")))  # a quick look first
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_LARGE: Final = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Http1Exchange:
    """One request, and how it ends; `sendengine.mockserver.protocol.Exchange`."""

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

    is_http2 = False

    def __init__(self, connection: "Http1") -> None:
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
        return self._connection.wire.is_open

    def reply(self, answer: Answer) -> None:
        """Write a reply once those before it are written."""
        self.parts = render(answer, keep_alive=self.keep_alive)
        self._connection.flush()

    def reply_slowly(self, answer: Answer, *, pieces: Sequence[bytes], pause_s: float) -> None:
        """Write a reply in pieces, ``pause_s`` apart."""
        self.parts = (render(answer, keep_alive=self.keep_alive)[0], *pieces)
        self.pause_s = pause_s
        self._connection.flush()

    def reply_cut(self, answer: Answer, *, size: int) -> None:
        """Write no more than ``size`` bytes of the body, and close."""
        self.parts = (render(answer, keep_alive=self.keep_alive)[0], answer.body[:size])
        self.keep_alive = False
        self._connection.flush()

    def leave_after(self) -> None:
        """Close after this reply, and say so in it."""
        self.keep_alive = False

    def refuse(self) -> None:
        """Close without a reply."""
        self._connection.wire.close()

    def close(self) -> None:
        """Close the connection without a reply, as a peer that has gone away does."""
        self._connection.wire.close()

    def close_later(self, delay_s: float) -> None:
        """Leave the client without a reply for so long, then close."""
        self._connection.close_later(delay_s)

    def reset(self) -> None:
        """Reset the connection without a reply."""
        self._connection.wire.reset()

    def drop_connection(self) -> None:
        """Reset the connection, with everything on it."""
        self._connection.wire.reset()


class Http1:
    """HTTP/1.1 on one connection; `sendengine.mockserver.protocol.Speaker`."""

    __slots__ = (
        "_body", "_body_bytes", "_exchange", "_front", "_hanging", "_is_leaving", "_loop", "_parser", "_replied",
        "_trickling", "_waiting", "wire",
    )  # fmt: skip

    def __init__(self, front: Front, wire: Wire, *, loop: asyncio.AbstractEventLoop) -> None:
        self.wire = wire
        self._front = front
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Http1Exchange] = deque()
        self._exchange = Http1Exchange(self)
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._replied = 0
        self._trickling = False
        self._is_leaving = False
        self._hanging: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        """Read requests, whole or in pieces."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._front.unparsable()
            self._refuse(_BAD_REQUEST)

    def lost(self) -> None:
        """Forget what was not answered yet: the connection is gone."""
        if self._hanging is not None:
            self._hanging.cancel()
        self._waiting.clear()

    def configured(self) -> None:
        """New settings are asked for with each request."""

    def go_away(self, *, hard: bool) -> None:
        """Close after the requests that are under way; at once where there is none, or where it is ``hard``."""
        self._is_leaving = True
        if hard or not self._waiting:
            self.wire.close()
        else:
            self._waiting[-1].keep_alive = False

    def on_message_begin(self) -> None:
        """Begin a request; httptools calls this and the next four while it reads."""
        self._exchange = Http1Exchange(self)
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
        elif name == b"expect" and value.lower() == b"100-continue":
            self.wire.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, up to the largest size."""
        self._body_bytes += len(body)
        if self._body_bytes <= self._front.config.max_body_bytes:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand a whole request on."""
        exchange = self._exchange
        if not self.wire.is_open:
            return
        if self._body_bytes > self._front.config.max_body_bytes:
            self._refuse(_TOO_LARGE)
            return
        parts = self._body
        exchange.body = parts[0] if len(parts) == 1 else b"".join(parts)
        exchange.method = self._parser.get_method()
        exchange.keep_alive = self._parser.should_keep_alive() and not self._is_leaving
        self._waiting.append(exchange)
        self._front.receive(exchange)

    def flush(self) -> None:
        """Write what is ready, in the order of the requests."""
        waiting = self._waiting
        while waiting and not self._trickling and self.wire.is_open:
            parts = waiting[0].parts
            if parts is None:
                return
            if waiting[0].pause_s:
                self._trickling = True
                self._trickle(list(parts), waiting[0].pause_s)
                return
            self.wire.write(b"".join(parts))
            self._done()

    def close_later(self, delay_s: float) -> None:
        """Close after so long, unless the client has gone by then."""
        self._hanging = self._loop.call_later(delay_s, self.wire.close)

    def _trickle(self, parts: list[bytes], pause_s: float) -> None:
        if not self.wire.is_open:
            return
        self.wire.write(parts.pop(0))
        if parts:
            self._loop.call_later(pause_s, self._trickle, parts, pause_s)
            return
        self._trickling = False
        self._done()
        self.flush()

    def _done(self) -> None:
        exchange = self._waiting.popleft()
        self._replied += 1
        if not exchange.keep_alive or self._replied == self._front.config.requests_per_connection:
            self.wire.close()

    def _refuse(self, reply: bytes) -> None:
        self.wire.write(reply)
        self.wire.close()
