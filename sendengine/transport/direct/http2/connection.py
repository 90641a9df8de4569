"""One HTTP/2 connection: its socket, its streams' deadlines, and how much room it has for exchanges.

Units: seconds on the running loop's clock; bytes; exchanges.

Method: what the protocol asks for is decided by `Sender`, `Receiver` and `Control`, which know no socket and no clock.
Here their bytes are written, once at the end of each turn of the loop, and their outcome is told to the pool. All
exchanges have the same time, so the oldest stream has the earliest deadline, and one look at it serves all.

Decided here: nothing is asked of a server before its settings are there, so that its limit of streams holds from the
first one on. A connection that is silent is asked with a PING, and takes nothing new until it has answered; one that
does not answer within `PONG_S` is dead. A connection that is too old takes nothing new, and is closed after its last
reply; so is one whose server allows no streams, when nobody raises that within the time for a connect.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from sendengine.ports import Reply, WireRequest
from sendengine.settings import TransportSettings
from sendengine.transport.direct.contract import DismissedError
from sendengine.transport.direct.http2 import frames
from sendengine.transport.direct.http2.control import Control
from sendengine.transport.direct.http2.faults import CANCEL, NO_ERROR, ConnectionFaultError
from sendengine.transport.direct.http2.heads import RequestBlocks
from sendengine.transport.direct.http2.liveness import PONG_S, Liveness
from sendengine.transport.direct.http2.receiving import Receiver
from sendengine.transport.direct.http2.sending import PIECE_BYTES, Sender
from sendengine.transport.direct.pool import Pool
from sendengine.transport.direct.wheel import Timed, Wheel
from sendengine.transport.failures import FOREIGN, words

MOST_STREAMS: Final = 256  # on one connection, whatever the server allows: they share one TCP stream and one fate
LINGER_S: Final = 0.1  # for the last frame to leave, where the server does not read it at once
_CLOSED: Final = "the connection was closed before the request was written"
_LOST: Final = "the connection was lost before the reply came: "
_OLD: Final = "the connection was too old"
NO_STREAMS: Final = "no connection: the server allows no streams (MAX_CONCURRENT_STREAMS is 0)"


class Http2Connection(asyncio.BufferedProtocol, Timed):
    """One connection, from the loop's side and from the pool's; `sendengine.transport.direct.contract.Connection`."""

    __slots__ = (
        "_blocks",
        "_buffer",
        "_claimed",
        "_control",
        "_greeted",
        "_is_draining",
        "_is_entered",
        "_is_flushing",
        "_is_held",
        "_lifetime_s",
        "_liveness",
        "_loop",
        "_outdated",
        "_pool",
        "_receiver",
        "_sender",
        "_streams",
        "_timeout_s",
        "_transport",
        "_wheel",
        "is_gone",
        "problem",
        "room",
    )

    def __init__(
        self,
        *,
        pool: Pool,
        blocks: RequestBlocks,
        wheel: Wheel,
        settings: TransportSettings,
        lifetime_s: float,
        buffer: memoryview,
        outdated: Callable[[], None],
    ) -> None:
        """Nothing is kept in ``buffer`` between two steps; ``outdated`` is called where the server wants HTTP/1.1."""
        Timed.__init__(self)
        self.room = 0  # for so many exchanges at once
        self.is_gone = True
        self.problem = ""  # why it is gone
        self._pool = pool
        self._blocks = blocks
        self._buffer = buffer
        self._wheel = wheel
        self._loop = asyncio.get_running_loop()
        self._timeout_s = settings.timeout_s
        self._outdated = outdated
        self._lifetime_s = lifetime_s
        self._sender = Sender()
        self._streams = self._sender.streams
        self._control = Control(self._sender)
        self._receiver = Receiver(self._sender, self._control, max_reply_bytes=settings.max_reply_bytes)
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._claimed = 0  # exchanges that have room here: those under way, and those that wait for their permits
        self._is_entered = False  # the pool knows it
        self._is_draining = False  # takes nothing new, and is closed after its last reply
        self._is_held = False  # takes nothing new for the moment
        self._is_flushing = False
        self._liveness = Liveness(self._control, self._sender, patience_s=settings.connect_timeout_s)

    def __repr__(self) -> str:
        state = "gone" if self.is_gone else "draining" if self._is_draining else f"room for {self.room}"
        return f"<Http2Connection {state}, {len(self._streams)} streams>"

    # What the dialer, the pool and an exchange need

    async def greeted(self) -> None:
        """Return when the server's settings are there. Raises DismissedError where they do not come."""
        await self._greeted
        if self.is_gone:
            raise DismissedError(f"no connection: {self.problem.removeprefix(_LOST)}")

    def enter(self) -> None:
        """Take part in the pool from now on."""
        self._is_entered = True
        self._size_up()
        self._look_again(self._loop.time())

    def claim(self) -> int:
        """Take the room for one exchange, and return for how many there was any."""
        room = self.room - self._claimed
        if room <= 0 or self._is_held:
            return 0
        self._claimed += 1
        self._pool.busy += 1
        return room

    @property
    def has_room(self) -> bool:
        """Whether it would take one more exchange."""
        return self._claimed < self.room and not self._is_held

    def give_back(self) -> None:
        """Return the room that was claimed and not used."""
        self._free(1)

    def send(self, request: WireRequest) -> asyncio.Future[Reply] | None:
        """Begin an exchange; the time for it runs from now.

        None where the server has lowered its limit since the room was claimed, does not answer, or is gone.
        """
        streams = self._streams
        now_s = self._loop.time()
        is_held = self._is_held and not self._liveness.will_soon_be_well(now_s)
        if is_held or len(streams) >= self.room or self._transport.is_closing():
            self._is_lost()
            return None
        reply = self._loop.create_future()
        sender = self._sender
        sender.open(self._blocks.block(request), request.body, reply, now_s + self._timeout_s)
        if len(streams) == 1:
            self._liveness.heard_s = now_s
            self._look_again(now_s)
        if sender.is_starved:
            self._weigh()
        if sender.size > PIECE_BYTES:
            self._flush()
        elif not self._is_flushing:
            self._flush_soon()
        if sender.next_number > frames.LAST_STREAM:
            self.retire()
        return reply

    def abandon(self, reply: "asyncio.Future[Reply]") -> None:
        """End the exchange where its reply is still to come; a reply that is there, or an error, is dropped."""
        for stream in self._streams.values():
            if stream.reply is reply:
                self._sender.reset(stream, CANCEL)
                self._flush_soon()
                self._free(1)
                return
        if reply.done() and not reply.cancelled():
            reply.exception()  # seen

    def retire(self) -> None:
        """Take nothing new; close after the last reply."""
        if not self._is_draining:
            self._is_draining = True
            self._liveness.retire()
            self._size_up()
            self._free(0)

    def cut(self) -> None:
        """Close at once, as the transport does."""
        self._lose("the transport was closed before the reply came")

    # Deadlines

    def expire(self) -> None:
        """See what is overdue: replies, an answer to a ping, a sign of life, the connection's end."""
        now_s = self._loop.time()
        if self.is_gone:
            self._transport.abort()
            return
        if self._liveness.is_dead(now_s):
            self._lose(f"the server did not answer a ping within {PONG_S:g} s")
            return
        if ended := self._sender.lose_overdue(now_s, f"no reply within {self._timeout_s:g} s"):
            self._flush_soon()
            self._free(ended)
        if self._liveness.is_useless(now_s):
            self.retire()
            self._pool.refuse(NO_STREAMS)
        elif self._liveness.is_old(now_s):
            self.retire()
        if self._liveness.must_ask(now_s, is_busy=bool(self._streams)):
            self._sender.put(self._liveness.ping(now_s))
            self._weigh()
            self._flush_soon()
        if not self.is_gone:
            self._look_again(now_s)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: it is the dialer's until it enters the pool."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not say that they are
        self.is_gone = False
        self._liveness.begin(self._loop.time(), lifetime_s=self._lifetime_s)
        self._transport.write(self._receiver.greeting())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's signature
        """Have the loop read into a buffer that is there: where it makes its own, each TLS record costs 256 KB."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what came, and answer."""
        if self.is_gone:
            return
        before = len(self._streams)
        now_s = self._liveness.heard_s = self._loop.time()
        try:
            self._receiver.feed(self._buffer[:nbytes].tobytes(), now_s=now_s)
        except ConnectionFaultError as fault:
            self._uncount(before - len(self._streams) + self._sender.lose_all(str(fault)))
            self._leave(fault.code, str(fault))
            return
        if self._control.is_changed:
            self._adapt()
        if self._sender.size or self._sender.is_blocked:
            self._flush_soon()
        if self._is_held:
            self._weigh()
        freed = before - len(self._streams)
        if freed:
            if self._receiver.has_replied:
                self._pool.proven(self)
            self._free(freed)

    def pause_writing(self) -> None:
        """Take nothing new while the server does not read."""
        self._sender.is_paused = True
        self._weigh()

    def resume_writing(self) -> None:
        """Go on."""
        self._sender.is_paused = False
        self._weigh()
        self._flush_soon()

    def eof_received(self) -> None:
        """Close: a server that says no more answers nothing more."""
        if not self.is_gone:  # else the loop is closing it, and may be in the middle of that
            self._lose(f"{_LOST}the server closed it")

    def connection_lost(self, exc: Exception | None) -> None:
        """Lose what was awaited, and be forgotten."""
        self._lose(_LOST + (words(exc) if exc else "the server closed it"))
        self._wheel.forget(self)
        self._pool.lost(self)

    # Room

    def _size_up(self) -> None:
        """See how much room there is by now, and tell the pool."""
        if not self._is_entered:
            return
        is_leaving = self.is_gone or self._is_draining
        room = 0 if is_leaving else min(self._control.stream_limit or 0, MOST_STREAMS)
        if room != self.room:
            self.room = room
            self._pool.resized(self)
        now_s = self._loop.time()
        if self._liveness.bar(now_s, is_barred=not room and not is_leaving):
            self._look_again(now_s)
        self._offer()

    def _offer(self) -> None:
        """Be offered, or no more."""
        if self.has_room:
            self._pool.offer(self)
        else:
            self._pool.withdraw(self)

    def _free(self, count: int) -> None:
        """So many exchanges are over, or gave up before they began."""
        was_full = self._claimed >= self.room
        self._uncount(count)
        if was_full and self.has_room:
            self._pool.offer(self)
        if self._is_draining and not self._streams and not self.is_gone:
            self._leave(NO_ERROR, self._control.farewell or _OLD)

    def _uncount(self, count: int) -> None:
        self._claimed -= count
        self._pool.busy -= count

    def _weigh(self) -> None:
        """Be offered no more while the server does not answer, does not read, or leaves no window; or again."""
        is_held = not self._liveness.is_well
        if is_held != self._is_held:
            self._is_held = is_held
            self._offer()

    # Ends

    def _adapt(self) -> None:
        """Take note of new settings, of the server's GOAWAY, or that it wants HTTP/1.1."""
        self._control.is_changed = False
        if not self._greeted.done():
            self._greeted.set_result(None)
        if self._control.wants_http1:
            self._control.wants_http1 = False
            self._outdated()
        if self._control.farewell is not None:
            self.retire()
        else:
            self._size_up()

    def _lose(self, why: str) -> None:
        """Close without a word."""
        self._uncount(self._sender.lose_all(why))
        self._be_gone(why)
        self._transport.abort()

    def _leave(self, code: int, why: str) -> None:
        """Say goodbye and close; cut what is left after a moment: closing politely waits for one that may not read."""
        self._be_gone(why)
        self._write(self._sender.take() + frames.goaway(code))
        self._transport.close()
        self.due_s = self._loop.time() + LINGER_S
        self._wheel.file(self)

    def _be_gone(self, why: str) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.problem = why
            self._size_up()
            self._pool.ended(self, has_served=self._receiver.has_replied)
        if not self._greeted.done():
            self._greeted.set_result(None)

    # Writing

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what this turn of the loop has produced."""
        self._is_flushing = False
        if self._is_lost():
            return
        sender = self._sender
        has_waited = has_more = sender.is_blocked
        while has_more and not sender.is_paused and not self.is_gone:
            has_more = sender.pump()
            self._write(sender.take())
        self._write(sender.take())
        if (has_waited or self._is_held) and not self.is_gone:
            self._liveness.wrote(now_s := self._loop.time())
            self._look_again(now_s)
            self._weigh()
        self._pool.rotate(self)

    def _is_lost(self) -> bool:
        """See whether the loop is closing it, before anything is taken to be written."""
        if self._transport.is_closing() and not self.is_gone:
            self._lose(_CLOSED)
        return self.is_gone

    def _write(self, data: bytes) -> None:
        try:
            if data:
                self._transport.write(data)
        except FOREIGN as error:
            self._lose(f"the request could not be written: {words(error)}")

    def _look_again(self, now_s: float) -> None:
        """Have the wheel look when something may be overdue next."""
        streams = self._streams
        due_s = self._liveness.due_s(now_s, is_busy=bool(streams))
        self.due_s = min(due_s, next(iter(streams.values())).due_s) if streams else due_s
        self._wheel.file(self)
