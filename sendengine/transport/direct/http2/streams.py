"""One exchange on a connection: what of its request is still to be sent, and what of its reply has come.

Units: seconds on the running loop's clock; bytes.
"""

import asyncio
from typing import Final

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Reply
from sendengine.transport.direct.http2.faults import StreamFaultError
from sendengine.transport.direct.http2.fields import BlockFields
from sendengine.transport.direct.http2.outlines import HeadReader
from sendengine.transport.encodings import decoded

_NOT_MODIFIED: Final = 304
_SWITCHING: Final = 101
_FINAL: Final = 200  # and above
_NONE: Final[list[bytes]] = []  # shared, since nearly every reply is one piece


class Stream:
    """A request that is on its way, or whose reply is awaited. ``window`` is how much of its body may still go."""

    __slots__ = (
        "_block",
        "_is_encoded",
        "_length",
        "_pieces",
        "_start",
        "due_s",
        "number",
        "reply",
        "size",
        "status",
        "unsent",
        "window",
    )

    def __init__(self, number: int, *, reply: "asyncio.Future[Reply]", due_s: float, window: int) -> None:
        self.number = number
        self.reply = reply
        self.due_s = due_s
        self.window = window
        self.unsent: memoryview | None = None  # of the body
        self.status = 0  # 0 until the head has come
        self.size = 0  # of the reply's body so far
        self._pieces: list[bytes] = _NONE

    def begin(self, block: bytes, heads: HeadReader) -> bool:
        """Take a head; False where it is an interim one. Raises ConnectionFaultError and StreamFaultError."""
        status, self._length, self._is_encoded, self._start = heads.read(block)
        if status < _FINAL:
            if status == _SWITCHING:
                raise StreamFaultError("the reply is a 101, which HTTP/2 does not have")
            return False
        self.status = status
        self._block = block
        return True

    def add(self, piece: bytes) -> int:
        """Take a piece of the body, and return how large that is by now."""
        if self.size:
            self._pieces.append(piece)
        else:
            self._pieces = [piece]
        self.size += len(piece)
        return self.size

    def finish(self, last: bytes, *, max_bytes: int, is_cut: bool = False) -> None:
        """Hand the reply over. Raises StreamFaultError where it is not as long as it said."""
        body = last
        if self.size:
            body = b"".join((*self._pieces, last))
        if len(body) != self._length >= 0 and not is_cut and (body or self.status != _NOT_MODIFIED):
            raise StreamFaultError(f"the reply's body has {len(body)} bytes, and was to have {self._length}")
        if len(body) > max_bytes:
            body = body[:max_bytes]
        fields = BlockFields(self._block, start=self._start)
        if self._is_encoded:
            body = decoded(body, fields.get("content-encoding", ""), max_bytes=max_bytes)
        reply = self.reply
        if not reply.done():  # else cancelled, in this very step
            reply.set_result(Reply(self.status, fields, body))

    def lose(self, why: str) -> None:
        """It may have been received, and no reply will come."""
        if not self.reply.done():
            self.reply.set_exception(ReplyLostError(why))

    def refuse(self, why: str) -> None:
        """It was certainly not received."""
        if not self.reply.done():
            self.reply.set_exception(NotSentError(why))
