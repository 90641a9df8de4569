"""One connection that aiohttp has opened: a request out, a reply in, one at a time.

Units: seconds on the running loop's clock; bytes.

Method: of aiohttp's client, the connector, its connections, their protocol and its parser of replies are used; its
session, requests and responses are left out. What those do for each request (headers merged, checked and rendered,
a body wrapped, a task that writes it, timers, redirects, cookies, a reply that is also a context) is 43 of the 71 µs
of an exchange, 110 of its 141 Python calls, and none of it is wanted here. What is called of the protocol are methods
without an underscore that aiohttp's own session calls, the same in 3.13 and 3.14; its documentation has only the
connector, the connection and the stream of the body.

Decided here: a request is handed to the loop whole, so that nobody waits for a writer and the reply may come first.
"""

import asyncio
from typing import Final

from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from sendengine.ports import Reply, WireRequest
from sendengine.transport.bodies import bounded_body
from sendengine.transport.encodings import decoded
from sendengine.transport.lifetimes import IDLE_S, idle_s
from sendengine.transport.statuses import FINAL, INTERIM, SWITCHING
from sendengine.transport.writing import JOINED_BYTES, may_be_unsent


class Link:
    """One open connection; ``due_s`` is when it is too old, or was idle for too long, which is ``idle_s``."""

    __slots__ = (
        "_connection",
        "_is_doubtful",
        "_is_large",
        "due_s",
        "has_lasted",
        "has_tls",
        "idle_s",
        "is_cut",
        "protocol",
        "replied_s",
        "transport",
        "until_s",
    )

    def __init__(
        self, connection: Connection, protocol: ResponseHandler, transport: asyncio.Transport, *, until_s: float
    ) -> None:
        self._connection = connection
        self.has_tls: Final = transport.get_extra_info("ssl_object") is not None
        self._is_large = False  # the request
        self._is_doubtful = False  # whether all of it was written
        self.protocol: Final = protocol
        self.transport: Final = transport
        self.until_s: Final = until_s
        self.due_s = until_s
        self.idle_s = IDLE_S
        self.is_cut = False  # by us
        self.replied_s: float | None = None  # when its last reply had come
        self.has_lasted = False  # there was one before that

    def is_usable(self) -> bool:
        """Whether it is open, and nothing came over it that nobody asked for: that would be taken for the reply."""
        return not (self.transport.is_closing() or self.protocol.should_close or self._is_doubtful)

    def send(self, head: bytes, request: WireRequest) -> None:
        """Write a request. Raises what the loop raises, where some of it may have been written."""
        body = request.body
        self.protocol.set_response_params(
            skip_payload=request.method == "HEAD", read_until_eof=True, auto_decompress=False
        )
        self._is_large = len(body) > JOINED_BYTES
        if self._is_large:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body)

    async def answer(self, *, max_bytes: int) -> Reply:
        """Return the reply, its body decoded and at most ``max_bytes``.

        Interim replies are passed over. Raises what aiohttp raises where it does not come whole.
        """
        message, payload = await self.protocol.read()
        while message.code < FINAL and message.code != SWITCHING:
            if message.code < INTERIM:
                raise ValueError("the reply's status is below 100")
            message, payload = await self.protocol.read()
        headers = {name.lower(): value for name, value in message.headers.items()}
        if payload.is_eof() and payload.total_bytes <= max_bytes:
            body = payload.read_nowait()
        else:
            body = await bounded_body(payload, max_bytes=max_bytes)
        if "keep-alive" in headers:
            self.idle_s = idle_s(headers["keep-alive"])
        if self._is_large:
            self._is_doubtful = may_be_unsent(self.transport, message.code, has_tls=self.has_tls)
        encoding = headers.get("content-encoding")
        return Reply(message.code, headers, decoded(body, encoding, max_bytes=max_bytes) if encoding else body)

    def cut(self) -> None:
        """Close without goodbye: a polite one waits for a peer that may never read."""
        self.is_cut = True
        self.transport.abort()
        self._connection.close()

    def forget(self) -> None:
        """Tell aiohttp that it is gone."""
        self._connection.close()
