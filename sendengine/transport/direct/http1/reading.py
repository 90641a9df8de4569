"""Reads replies from the bytes of one HTTP/1.1 connection, one after the other.

Units: bytes.

Method: llhttp (httptools) decides where a reply ends and whether another may follow; it is told of no header, and
`Fields` finds those that somebody asks for. Of what comes, only as much is kept as the head may be in. Trailers are
passed over.

Decided here: a body beyond the bound is cut and is the reply all the same, since its status and headers are known: a
429 stays a 429. Interim replies (100, 103) are passed over. A 101 is a reply like any other, after which the
connection is of no use. A status below 100 is none, and what has one no reply.
"""

from typing import Final

import httptools

from sendengine.ports import Reply
from sendengine.transport.direct.http1.fields import Fields
from sendengine.transport.encodings import decoded
from sendengine.transport.failures import words
from sendengine.transport.statuses import FINAL, INTERIM, SWITCHING

MAX_HEAD_BYTES: Final = 65_536
_END: Final = b"\r\n\r\n"
_FIRST: Final = ord("H")  # llhttp has seen to the rest of "HTTP/", and passes over line ends before it
_NO_STATUS: Final = 1  # for 000, as 0 says that the reply is not whole


class UnreadableError(Exception):
    """What came is no reply; internal, never leaves the transport."""


class ReplyReader:
    """What has come of one reply. ``is_spent``: nothing that comes after it may be taken for another reply."""

    __slots__ = (
        "_body",
        "_interim",
        "_is_odd",
        "_max_bytes",
        "_more",
        "_parser",
        "_raw",
        "_size",
        "_status",
        "is_spent",
    )

    def __init__(self, *, max_bytes: int) -> None:
        """``max_bytes`` is the bound of a body, as it comes and decoded."""
        self._max_bytes = max_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._raw = b""  # as far as the head may be in it
        self._body = b""  # its first piece
        self._more: list[bytes] = []
        self._size = 0  # of the body so far
        self._status = 0  # of a reply that is whole
        self._interim = 0  # replies before it
        self._is_odd = False  # not all of ``_raw`` before the body is the head
        self.is_spent = False

    def feed(self, data: bytes) -> Reply | None:
        """Read on; return the reply where it is whole now. Raises UnreadableError where it never will be."""
        if not self._raw:
            self._raw = data
        elif not self._size:
            self._raw += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._status:
                raise UnreadableError(f"the reply is no HTTP: {words(error)}") from None
            self.is_spent = self._is_odd = True
        except httptools.HttpParserUpgrade:
            self.is_spent = self._is_odd = True
        if self._status:
            return self._taken()
        if len(self._raw) > MAX_HEAD_BYTES and not self._size:
            raise UnreadableError(f"the reply's head is longer than {MAX_HEAD_BYTES:,} bytes")
        return None

    def finish(self) -> Reply | None:
        """Take the end of the connection for that of the body; None where something else says where that ends."""
        self._is_odd = self.is_spent = True
        self._status = self._parser.get_status_code()
        try:
            reply = self._taken()
        except UnreadableError:
            return None
        coding = reply.headers.get("transfer-encoding")
        if coding is None:
            is_whole = "content-length" not in reply.headers
        else:
            is_whole = coding.rpartition(",")[2].strip().lower() != "chunked"
        return reply if is_whole else None

    def close(self) -> None:
        """Let go of the parser, which holds this object."""
        del self._parser

    # What llhttp calls

    def on_message_begin(self) -> None:
        """See whether there are bytes after a reply."""
        if self._status:
            self.is_spent = self._is_odd = True

    def on_chunk_header(self) -> None:
        """Note that there is more around the body than the head."""
        self._is_odd = True

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body; beyond the bound, what is there is the reply."""
        if self._status:
            return
        size = self._size
        if size:
            self._more.append(body)
            self._is_odd = True
        else:
            self._body = body
        size += len(body)
        self._size = size
        if size > self._max_bytes:
            self._status = self._parser.get_status_code() or _NO_STATUS
            self.is_spent = self._is_odd = True

    def on_message_complete(self) -> None:
        """Note the end of a reply, or of an interim one."""
        if self._status:
            return
        status = self._parser.get_status_code()
        if status < FINAL and status != SWITCHING:
            self._is_odd = True
            if status >= INTERIM:
                self._interim += 1
                return
        self._status = status or _NO_STATUS
        if not self._parser.should_keep_alive():
            self.is_spent = True

    def _taken(self) -> Reply:
        """Make the reply that is whole, and be ready for the next one."""
        raw, body = self._raw, self._body
        start, end = 0, len(raw) - self._size - len(_END)
        if self._is_odd or not raw.startswith(_END, end):  # a look costs half of a search
            start, end = self._find_head()
            if self._status < INTERIM:
                raise UnreadableError("the reply's status is below 100")
            body = b"".join((body, *self._more))[: self._max_bytes]
            self._more.clear()
            self._interim = 0
            self._is_odd = False
        if end > MAX_HEAD_BYTES + start or raw[start] != _FIRST:
            raise UnreadableError("the reply's head cannot be read")
        fields = Fields(raw[start:end])
        if fields.is_encoded:
            body = decoded(body, fields.get("content-encoding", ""), max_bytes=self._max_bytes)
        reply = Reply(self._status, fields, body)
        self._raw = self._body = b""
        self._size = self._status = 0
        return reply

    def _find_head(self) -> tuple[int, int]:
        """Find the head of the reply in hand, behind those of interim replies."""
        start = 0
        for _ in range(self._interim):
            start = self._raw.find(_END, start) + len(_END)
        end = self._raw.find(_END, start)
        if end < 0:
            raise UnreadableError("the reply's head cannot be read")
        return start, end
