"""One HTTP/1.1 connection: a request out, a reply in, one at a time.

Units: seconds on the running loop's clock; bytes.

Decided here: a reply that does not come whole is lost. Anything that comes when nothing is awaited, or after the end
of a reply, closes the connection, so that it is never taken for the next reply. Connections are closed without
goodbye, because politeness would wait for a peer that may never read.

A large body is handed to the loop whole and not in pieces as the peer reads: it is in memory in any case, and what
the loop adds is at most one encrypted copy of it. So nobody waits for a writer, and the reply may come first.
"""

import asyncio
import ssl
from math import inf
from typing import cast

from sendengine.errors import ReplyLostError
from sendengine.ports import Reply, WireRequest
from sendengine.transport.direct.http1.reading import ReplyReader, UnreadableError
from sendengine.transport.direct.pool import Pool
from sendengine.transport.direct.wheel import Timed, Wheel
from sendengine.transport.failures import FOREIGN, words
from sendengine.transport.heads import Heads
from sendengine.transport.lifetimes import IDLE_S, idle_s
from sendengine.transport.reuse import REST_S, Reuse
from sendengine.transport.writing import JOINED_BYTES, may_be_unsent


class Http1Connection(asyncio.BaseProtocol, Timed):
    """One connection, from the loop's side and from the pool's; `sendengine.transport.direct.contract.Connection`.

    How the loop hands over what it has read is said by the two below, of which `http1_class` names one.
    """

    __slots__ = (
        "_buffer",
        "_free_s",
        "_has_lasted",
        "_has_served",
        "_has_tls",
        "_heads",
        "_idle_s",
        "_is_large",
        "_is_resting",
        "_lifetime_s",
        "_loop",
        "_pool",
        "_reader",
        "_reply",
        "_reuse",
        "_timeout_s",
        "_transport",
        "_until_s",
        "_wheel",
        "has_room",
        "is_gone",
    )

    room = 1

    def __init__(
        self,
        *,
        pool: Pool,
        heads: Heads,
        wheel: Wheel,
        timeout_s: float,
        max_reply_bytes: int,
        lifetime_s: float,
        buffer: memoryview,
        reuse: Reuse,
    ) -> None:
        """``buffer`` may be read into, and shared: nothing is kept in it between two steps of the loop."""
        Timed.__init__(self)
        self._pool = pool
        self._heads = heads
        self._buffer = buffer
        self._wheel = wheel
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._lifetime_s = lifetime_s
        self._until_s = 0.0
        self._reader = ReplyReader(max_bytes=max_reply_bytes)
        self._reply: asyncio.Future[Reply] | None = None
        self._is_large = False  # the request
        self._has_served = False  # something of a reply has come
        self._is_resting = False
        self._has_lasted = False  # a second reply has come
        self._reuse = reuse
        self._free_s = 0.0  # when its last reply was here
        self._idle_s: float | None = None  # how long it may be idle; None until its first reply says so
        self.is_gone = True
        self.has_room = False

    def __repr__(self) -> str:
        if self.is_gone:
            state = "gone"
        elif self._reply is not None:
            state = "awaiting a reply"
        else:
            state = "resting" if self._is_resting else "claimed or idle"
        return f"<Http1Connection {state}>"

    # What the pool and an exchange need

    def claim(self) -> int:
        """Take it for one exchange; 0, and closed, where it is too old or was idle for too long."""
        if self.is_gone:
            return 0
        if self._loop.time() >= self.due_s:
            self._close()
            return 0
        self.due_s = inf
        self.has_room = False
        return 1

    def enter(self) -> None:
        """Be idle, and offered, for the first time."""
        self.give_back()

    def give_back(self) -> None:
        """Be idle, and offered, for as long as it may."""
        if self.is_gone:
            return
        now_s = self._loop.time()
        if self.due_s < inf:  # it was used, and not only claimed
            self._free_s = now_s
            if self._reuse.is_wary and self._idle_s is not None:
                self._is_resting = True
                self.due_s = now_s + REST_S
                self._wheel.file(self)
                return
        due_s = now_s + (IDLE_S if self._idle_s is None else self._idle_s)
        if due_s > self._until_s:
            if now_s >= self._until_s:
                self._close()
                return
            due_s = self._until_s
        self.due_s = due_s
        if due_s < self.filed_s:
            self._wheel.file(self)
        self.has_room = True
        self._pool.offer(self)

    def send(self, request: WireRequest) -> asyncio.Future[Reply] | None:
        """Write a request, and return what its reply will be; the time for it runs from now.

        None where the connection was closed before. Raises ReplyLostError where writing fails.
        """
        transport = self._transport
        if self.is_gone or transport.is_closing():
            self._end()
            return None
        head, body = self._heads.head(request), request.body
        reply = self._reply = self._loop.create_future()
        due_s = self.due_s = self._loop.time() + self._timeout_s
        if due_s < self.filed_s:
            self._wheel.file(self)
        try:
            if len(body) > JOINED_BYTES:
                self._is_large = True
                transport.writelines((head, body))
            else:
                transport.write(head + body)
        except FOREIGN as error:
            self._reply = None
            self._close()
            raise ReplyLostError(f"the request could not be written: {words(error)}") from None
        return reply

    def abandon(self, reply: "asyncio.Future[Reply]") -> None:
        """Close where the reply is still to come; a reply that is there, or an error, is dropped."""
        if self._reply is reply:
            self._reply = None
            self._close()
        elif reply.done() and not reply.cancelled():
            reply.exception()  # seen

    def retire(self) -> None:
        """Close, where no reply is awaited; the pool asks no other."""
        self._close()

    def cut(self) -> None:
        """Close, as the transport does."""
        self._lose("the transport was closed before the reply came")

    # Deadlines

    def expire(self) -> None:
        """Its time is over: of its exchange, as an idle connection, or of its rest."""
        if self._is_resting:
            self._is_resting = False
            if not self.is_gone:
                self._reuse.outlived()
                self.give_back()
            return
        self._lose(f"no reply within {self._timeout_s:g} s")

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: it is the dialer's until it is given back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not say that they are
        self._has_tls = transport.get_extra_info("ssl_object") is not None
        self._until_s = self._loop.time() + self._lifetime_s
        self.is_gone = False

    def data_received(self, data: bytes) -> None:
        """Read a reply, or a piece of it; have room again before its caller goes on."""
        reply = self._reply
        if reply is None:
            self._end()  # nobody asked
            return
        if not self._has_served:
            self._has_served = True
            self._pool.proven(self)
        try:
            answer = self._reader.feed(data)
        except UnreadableError as error:
            self._lose(str(error))
            return
        if answer is None:
            return
        self._reply = None
        self._has_lasted = self._idle_s is not None
        if self._idle_s is None:
            self._idle_s = idle_s(answer.headers.get("keep-alive"))
        if not reply.done():  # else cancelled, in this very step
            reply.set_result(answer)
        if self._reader.is_spent or (
            self._is_large and may_be_unsent(self._transport, answer.status, has_tls=self._has_tls)
        ):
            self._close()
            return
        self._is_large = False
        self.give_back()

    def eof_received(self) -> None:
        """Take what came as a whole reply where its end is the connection's; close in any case."""
        reply = self._reply
        if reply is not None and self._is_said_end() and (answer := self._reader.finish()) is not None:
            self._reply = None
            if not reply.done():
                reply.set_result(answer)
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Lose what was awaited, and be forgotten."""
        reply, self._reply = self._reply, None
        if reply is not None and not reply.done():
            reply.set_exception(ReplyLostError(f"the connection was lost before the reply came: {_reason(exc)}"))
        self._note_end()
        self.is_gone = True
        self.has_room = False
        self._wheel.forget(self)
        self._pool.lost(self)
        self._reader.close()

    def _is_said_end(self) -> bool:
        """Whether it is the server that ends: over TLS it says so, and without that anybody may have cut the reply.

        Both ends come as one where the loop is asyncio's own. Source: RFC 9112, section 9.8.
        """
        wrapped = self._transport.get_extra_info("ssl_object")
        if wrapped is None:
            return True
        try:
            return not wrapped.read(1)
        except ssl.SSLError:
            return False

    def _end(self) -> None:
        """Close, because of what the server did."""
        self._note_end()
        self._close()

    def _note_end(self) -> None:
        if self.is_gone:
            return
        self._pool.ended(self, has_served=self._has_served)
        if self._idle_s is not None and not self._has_lasted:  # it has carried one reply
            self._reuse.ended(replied_s=self._free_s, now_s=self._loop.time())

    def _close(self) -> None:
        self.is_gone = True
        self.has_room = False
        self._pool.withdraw(self)
        self._transport.abort()

    def _lose(self, why: str) -> None:
        reply, self._reply = self._reply, None
        if reply is not None and not reply.done():
            reply.set_exception(ReplyLostError(why))
        self._close()


class BufferedHttp1Connection(Http1Connection, asyncio.BufferedProtocol):
    """The loop reads into a buffer that is there. Where it makes its own, each read costs 256 KB, 15 to 24 µs."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's signature
        """Return where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read a reply, or a piece of it."""
        self.data_received(self._buffer[:nbytes].tobytes())


class StreamingHttp1Connection(Http1Connection, asyncio.Protocol):
    """The loop hands over what it has read: without TLS, uvloop makes no more of it than came, 0.3 to 0.8 µs less."""

    __slots__ = ()


def http1_class(loop: asyncio.AbstractEventLoop, *, has_tls: bool) -> type[Http1Connection]:
    """Choose between the two: asyncio's own loops, and TLS on any, make 256 KB for each read."""
    makes_much = has_tls or isinstance(loop, asyncio.BaseEventLoop)
    return BufferedHttp1Connection if makes_much else StreamingHttp1Connection


def _reason(error: Exception | None) -> str:
    return "the server closed it" if error is None else words(error)
