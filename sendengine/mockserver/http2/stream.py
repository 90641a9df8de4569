"""One request and its reply over HTTP/2.

Units: bytes; seconds on the running loop's clock.
"""

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

from sendengine.mockserver.http2.frames import CANCEL, INTERNAL_ERROR, REFUSED_STREAM
from sendengine.mockserver.http2.heads import block
from sendengine.mockserver.http2.requests import Head
from sendengine.mockserver.replies import Answer

_NOTHING = memoryview(b"")


class Carrier(Protocol):
    """The connection that a stream is on."""

    @property
    def reset_scope(self) -> Literal["stream", "connection"]:
        """What a reset or close takes with it."""
        ...

    def reply(self, stream: "Stream", head: bytes, body: bytes) -> None:
        """Send a whole reply."""
        ...

    def begin(self, stream: "Stream", head: bytes) -> None:
        """Send a head whose body follows."""
        ...

    def put(self, stream: "Stream", data: bytes, *, is_last: bool) -> None:
        """Send a piece of a body, when the windows let it through."""
        ...

    def end(self, stream: "Stream", code: int) -> None:
        """Reset the stream."""
        ...

    def call_later(self, delay_s: float, stream: "Stream", *pieces: bytes) -> asyncio.TimerHandle:
        """Have the stream `Stream.go_on` after so long."""
        ...

    def go_away(self, *, hard: bool) -> None:
        """Take no more streams, and close in the end."""
        ...

    def close_connection(self) -> None:
        """Close the connection, after what is written already."""
        ...

    def reset_connection(self) -> None:
        """Reset the connection."""
        ...


class Stream:
    """One request, and how it ends; `sendengine.mockserver.protocol.Exchange`.

    ``window`` is how much of a body the client takes, ``waiting`` what it does not take yet, ``ends`` whether that is
    the rest of it. ``unread`` is what came since the client's window was opened last, up to ``allowed``.
    """

    __slots__ = (
        "_carrier", "_pause_s", "_timer", "allowed", "authorization", "body", "content_type", "ends", "is_read",
        "is_whole", "length", "method", "number", "parts", "received", "unread", "url", "waiting", "window",
    )  # fmt: skip

    is_http2 = True

    def __init__(self, carrier: Carrier, number: int, head: Head, *, window: int, allowed: int) -> None:
        self._carrier = carrier
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = 0.0
        self.number = number
        self.url = head.url
        self.method = head.method
        self.authorization = head.authorization
        self.content_type = head.content_type
        self.length = head.length
        self.body = b""
        self.parts: list[bytes] = []
        self.received = 0
        self.unread = 0
        self.allowed = allowed
        self.window = window
        self.waiting = _NOTHING
        self.ends = False
        self.is_read = True  # nobody has ended it yet
        self.is_whole = False  # the client has sent everything

    def over(self) -> None:
        """Take note that the stream has ended."""
        self.is_read = False
        if self._timer is not None:
            self._timer.cancel()

    def reply(self, answer: Answer) -> None:
        """Reply."""
        if self.is_read:
            self._carrier.reply(self, block(answer), answer.body)

    def reply_slowly(self, answer: Answer, *, pieces: Sequence[bytes], pause_s: float) -> None:
        """Reply with the body in pieces, ``pause_s`` apart."""
        if not pieces or not self.is_read:
            self.reply(answer)
            return
        self._carrier.begin(self, block(answer))
        self._pause_s = pause_s
        self._timer = self._carrier.call_later(pause_s, self, *pieces)

    def go_on(self, *pieces: bytes) -> None:
        """Send the next piece; without any, `close`."""
        if not pieces:
            self.close()
            return
        self._carrier.put(self, pieces[0], is_last=len(pieces) == 1)
        if len(pieces) > 1:
            self._timer = self._carrier.call_later(self._pause_s, self, *pieces[1:])

    def reply_cut(self, answer: Answer, *, size: int) -> None:
        """Reply with no more than ``size`` bytes of the body, and break off."""
        if self.is_read:
            self._carrier.begin(self, block(answer))
            self._carrier.put(self, answer.body[:size], is_last=False)
            self._end(INTERNAL_ERROR)

    def leave_after(self) -> None:
        """Take no more requests on the connection."""
        self._carrier.go_away(hard=False)

    def refuse(self) -> None:
        """Say that the request was not looked at."""
        self._carrier.end(self, REFUSED_STREAM)

    def close(self) -> None:
        """End without a reply."""
        self._end(CANCEL)

    def close_later(self, delay_s: float) -> None:
        """Leave the client without a reply for so long, then `close`."""
        if self.is_read:
            self._timer = self._carrier.call_later(delay_s, self)

    def reset(self) -> None:
        """End without a reply, as a peer that has crashed does."""
        if self._carrier.reset_scope == "connection":
            self._carrier.reset_connection()
        else:
            self._carrier.end(self, INTERNAL_ERROR)

    def drop_connection(self) -> None:
        """Reset the connection, with everything on it."""
        self._carrier.reset_connection()

    def _end(self, code: int) -> None:
        if self._carrier.reset_scope == "connection":
            self._carrier.close_connection()
        else:
            self._carrier.end(self, code)
