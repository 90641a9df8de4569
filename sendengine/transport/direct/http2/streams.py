"""One exchange on a connection: what of its request is still to be sent, and what of its reply has come.

Units: seconds on the running loop's clock; bytes.
"""

import asyncio
from typing import Final

from msgspec import Struct

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Reply
from sendengine.transport.direct.http2.faults import StreamFaultError
from sendengine.transport.direct.http2.fields import BlockFields
from sendengine.transport.direct.http2.outlines import Head
from sendengine.transport.encodings import decoded

_NOT_MODIFIED: Final = 304


class Stream(Struct, eq=False):  # a third of the time that a class with ``__init__`` takes
    """A request that is on its way, or whose reply is awaited. ``window`` is how much of its body may still go.

    ``head`` is None until the reply's has come, and ``size`` is how much of its body has, but for the last piece.
    """

    number: int
    reply: "asyncio.Future[Reply]"
    due_s: float
    window: int
    unsent: memoryview | None = None  # of the body
    head: Head | None = None
    block: bytes = b""  # the head as it came
    size: int = 0
    pieces: list[bytes] | None = None  # of the body, where it comes in several

    def add(self, piece: bytes) -> int:
        """Take a piece of the body, and return how large that is by now."""
        if self.pieces is None:
            self.pieces = [piece]
        else:
            self.pieces.append(piece)
        self.size += len(piece)
        return self.size

    def finish(self, last: bytes, head: Head, *, max_bytes: int, is_cut: bool = False) -> None:
        """Hand the reply over. Raises StreamFaultError where it is not as long as it said."""
        status, length, is_encoded, start = head
        body = last
        if self.pieces is not None:
            body = b"".join((*self.pieces, last))
        if len(body) != length >= 0 and not is_cut and (body or status != _NOT_MODIFIED):
            raise StreamFaultError(f"the reply's body has {len(body)} bytes, and was to have {length}")
        if len(body) > max_bytes:
            body = body[:max_bytes]
        fields = BlockFields(self.block, start)
        if is_encoded:
            body = decoded(body, fields.get("content-encoding", ""), max_bytes=max_bytes)
        reply = self.reply
        if not reply.done():  # else cancelled, in this very step
            reply.set_result(Reply(status, fields, body))

    def lose(self, why: str) -> None:
        """It may have been received, and no reply will come."""
        if not self.reply.done():
            self.reply.set_exception(ReplyLostError(why))

    def refuse(self, why: str) -> None:
        """It was certainly not received."""
        if not self.reply.done():
            self.reply.set_exception(NotSentError(why))
