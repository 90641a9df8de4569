"""What goes out on one connection: heads, bodies within both windows, and answers to what came; no socket.

Units: bytes.

Method: frames gather in a list, which `take` joins, so that all that one turn of the loop produces leaves in one
write. A body that fits goes with its head; of others each stream in turn sends a frame, as far as the windows allow.
What has been handed out by `take` may have been received. What has not is taken back before it is told that it was not
sent (`take_back`), so that nothing that was told so is ever written.

Source: RFC 9113, sections 5.2 and 6.9.
"""

import asyncio
from typing import Final

from sendengine.ports import Reply
from sendengine.transport.direct.http2.faults import (
    CANCEL,
    FLOW_CONTROL_ERROR,
    ConnectionFaultError,
    StreamFaultError,
)
from sendengine.transport.direct.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    HEAD,
    HEADERS,
    LEAST_MAX_FRAME,
    MOST_WINDOW,
    rst_stream,
)
from sendengine.transport.direct.http2.streams import Stream

PIECE_BYTES: Final = 131_072  # of bodies, between two looks at whether the connection still takes them
_MOST_ENDED: Final = 1024
_SHRUNK: Final = b"\x20"  # a table of 0 bytes, at the beginning of a block
_pack: Final = HEAD.pack
_unpack: Final = HEAD.unpack_from


class Sender:
    """One connection's sending side. ``streams`` holds all exchanges under way, by their numbers."""

    __slots__ = (
        "_blocked",
        "_ended",
        "_first_window",
        "_is_shrinking",
        "_out",
        "_window",
        "has_failed",
        "is_paused",
        "is_starved",
        "max_frame",
        "moved",
        "next_number",
        "size",
        "streams",
        "taken",
    )

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}  # in the order of sending
        self.next_number = 1
        self.taken = -1  # the last stream whose beginning was handed out by `take`
        self.max_frame = LEAST_MAX_FRAME
        self.size = 0  # of what waits for `take`, about
        self.is_starved = False  # a body waits, for which the connection's window is closed or too small
        self.is_paused = False  # the server does not read what was written, so bodies wait
        self.has_failed = False
        self.moved = 0  # bytes of bodies that had to wait, and wait no more
        self._out: list[bytes] = []
        self._window = FIRST_WINDOW
        self._first_window = FIRST_WINDOW  # of every new stream
        self._is_shrinking = False
        self._blocked: dict[int, Stream] = {}  # whose bodies are not sent whole
        self._ended: dict[int, None] = {}  # in the order of their ends

    @property
    def is_blocked(self) -> bool:
        """Whether a body waits for a window, or for `pump`."""
        return bool(self._blocked)

    def open(self, block: bytes, body: bytes, reply: "asyncio.Future[Reply]", due_s: float) -> None:
        """Begin an exchange."""
        number = self.next_number
        self.next_number = number + 2
        stream = self.streams[number] = Stream(number, reply, due_s, self._first_window)
        size = len(body)
        if self._is_shrinking or len(block) > self.max_frame:
            self._begin_oddly(number, block, flags=0 if body else END_STREAM)
            if body:
                self._wait(stream, body)
        elif not size:
            self._out += (_pack(len(block) << 8 | HEADERS, END_HEADERS | END_STREAM, number), block)
        elif (
            size <= self._window
            and size <= stream.window
            and size <= self.max_frame
            and not self._blocked
            and not self.is_paused
        ):
            self._out += (
                _pack(len(block) << 8 | HEADERS, END_HEADERS, number),
                block,
                _pack(size << 8 | DATA, END_STREAM, number),
                body,
            )
            self._window -= size
            stream.window -= size
        else:
            self._out += (_pack(len(block) << 8 | HEADERS, END_HEADERS, number), block)
            self._wait(stream, body)
            self.is_starved |= size > self._window
            size = 0
        self.size += size + len(block)

    def pump(self) -> bool:
        """Put out as much of the waiting bodies as the windows allow, up to `PIECE_BYTES`; whether there is more."""
        room = PIECE_BYTES
        stuck = 0
        blocked = self._blocked
        while blocked and stuck < len(blocked) and self._window > 0:
            if room <= 0:
                return True
            number = next(iter(blocked))
            stream = blocked.pop(number)
            sent = self._send_piece(stream)
            room -= sent
            stuck = 0 if sent else stuck + 1
            if stream.unsent is not None:
                blocked[number] = stream
        self.is_starved = bool(blocked) and self._window <= 0
        return False

    def put(self, frame: bytes) -> None:
        """Send a frame that stands for itself."""
        self._out.append(frame)
        self.size += len(frame)

    def reset(self, stream: Stream, code: int) -> None:
        """End an exchange from our side."""
        self.end(stream)
        self.put(rst_stream(stream.number, code))

    def end(self, stream: Stream) -> None:
        """End an exchange of which more may still come, which is to be passed over."""
        self.forget(stream)
        ended = self._ended
        ended[stream.number] = None
        if len(ended) > _MOST_ENDED:
            del ended[next(iter(ended))]

    def has_ended(self, number: int) -> bool:
        """Whether a stream was ended by `end`, among the last of those."""
        return number in self._ended

    def forget(self, stream: Stream) -> None:
        """End an exchange that is over."""
        del self.streams[stream.number]
        self._blocked.pop(stream.number, None)
        self.is_starved &= bool(self._blocked)

    def lose_all(self, why: str) -> int:
        """Tell all exchanges that no reply will come, and forget them; return how many there were."""
        unsent = self.take_back(why)
        lost = list(self.streams.values())
        for stream in lost:
            stream.lose(why)
            self.forget(stream)
        return unsent + len(lost)

    def lose_overdue(self, now_s: float, why: str) -> int:
        """Tell those exchanges so whose time is over, and reset them; return how many there were.

        ``has_failed`` says from then on whether one of them was not sent whole, for lack of a window, or whether the
        server has answered neither it nor anything after it: it may answer pings alone.
        """
        ended = 0
        while self.streams:
            oldest = next(iter(self.streams.values()))
            if oldest.due_s > now_s:
                break
            if oldest.number > self.taken:  # nothing was written for as long as that: it and all behind it
                return ended + self.take_back(why)
            begun = (self.next_number - oldest.number) >> 1
            is_mute = oldest.head is None and len(self.streams) == begun
            self.has_failed |= is_mute or oldest.unsent is not None
            oldest.lose(why)
            self.reset(oldest, CANCEL)
            ended += 1
        return ended

    def take_back(self, why: str) -> int:
        """Drop all requests of which `take` has handed out nothing, and tell them so; return how many there were."""
        unsent = [stream for stream in self.streams.values() if stream.number > self.taken]
        for stream in unsent:
            self.forget(stream)
            stream.refuse(f"the request was not written: {why}")
        if self._out:
            self._drop_unsent()
        return len(unsent)

    def take(self) -> bytes:
        """Return what is to be written now."""
        written = b"".join(self._out)
        self._out.clear()
        self.size = 0
        self.taken = self.next_number - 2
        return written

    # What the server says

    def widen(self, increment: int) -> None:
        """More may be sent on the connection. Raises ConnectionFaultError where that is too much."""
        self._window += increment
        if self._window > MOST_WINDOW:
            raise ConnectionFaultError(FLOW_CONTROL_ERROR, "the connection's window is too large")

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """More may be sent on a stream. Raises StreamFaultError where that is too much."""
        stream.window += increment
        if stream.window > MOST_WINDOW:
            raise StreamFaultError("a stream's window is too large", code=FLOW_CONTROL_ERROR)

    def set_first_window(self, window: int) -> None:
        """Set the window of all streams, by which those under way may become negative (section 6.9.2).

        Raises ConnectionFaultError where one is too large by now.
        """
        change, self._first_window = window - self._first_window, window
        for stream in self.streams.values():
            stream.window += change
            if stream.window > MOST_WINDOW:
                raise ConnectionFaultError(FLOW_CONTROL_ERROR, "a new setting makes a stream's window too large")

    def shrink_table(self) -> None:
        """Say so in the next head that we use no table: the server made its own smaller (RFC 9113, section 4.3.1)."""
        self._is_shrinking = True

    def _drop_unsent(self) -> None:
        """Take the frames out again of all streams that the server does not know of."""
        out, at = b"".join(self._out), 0
        self._out.clear()
        while at < len(out):
            head, _, number = _unpack(out, at)
            kind, size = head & 0xFF, head >> 8
            start, end = at + HEAD.size, at + HEAD.size + size
            if not number or number <= self.taken:
                self._out.append(out[at:end])
            elif kind == DATA:
                self._window += size
            elif kind == HEADERS and out.startswith(_SHRUNK, start):
                self._is_shrinking = True  # the next head says it
            at = end
        self.size = sum(map(len, self._out))

    def _wait(self, stream: Stream, body: bytes) -> None:
        stream.unsent = memoryview(body)
        self._blocked[stream.number] = stream

    def _begin_oddly(self, number: int, block: bytes, *, flags: int) -> None:
        """Send a head that says something about the table, or is longer than a frame may be."""
        if self._is_shrinking:
            self._is_shrinking = False
            block = _SHRUNK + block
        pieces = [block[at : at + self.max_frame] for at in range(0, len(block), self.max_frame)]
        for index, piece in enumerate(pieces):
            is_last = index == len(pieces) - 1
            kind, begun = (CONTINUATION, 0) if index else (HEADERS, flags)
            self._out += (_pack(len(piece) << 8 | kind, begun | END_HEADERS if is_last else begun, number), piece)

    def _send_piece(self, stream: Stream) -> int:
        """Send one frame of a body; return its length, 0 where its window is closed."""
        unsent = stream.unsent
        if unsent is None:
            raise AssertionError("only bodies with something left wait")
        size = min(len(unsent), stream.window, self._window, self.max_frame)
        if size <= 0:
            return 0
        is_last = size == len(unsent)
        self._out += (_pack(size << 8 | DATA, END_STREAM if is_last else 0, stream.number), bytes(unsent[:size]))
        self.size += size
        self.moved += size
        self._window -= size
        stream.window -= size
        stream.unsent = None if is_last else unsent[size:]
        return size
