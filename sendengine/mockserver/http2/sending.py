"""What goes to the client of one HTTP/2 connection: replies within its windows, all of one turn of the loop at once.

Units: bytes; seconds on the running loop's clock.

Source: RFC 9113, sections 5.2, 6.5.2, 6.8 and 6.9.
"""

import asyncio
from typing import Final

from sendengine.mockserver.http2 import frames
from sendengine.mockserver.http2.frames import FRAME_HEAD, ConnectionFault
from sendengine.mockserver.http2.stream import Stream
from sendengine.mockserver.protocol import Wire

_LINGER_S: Final = 0.1  # between the last reply and the end: a client that closes first loses nothing
_REMEMBERED: Final = 4096  # streams that were reset, and of which more may be on its way
_WHOLE: Final = frames.END_STREAM | frames.END_HEADERS


class Sender:
    """The sending half of a connection. ``streams`` are those that are not over, ``given_up`` those that we reset."""

    def __init__(self, wire: Wire, *, loop: asyncio.AbstractEventLoop) -> None:
        self.wire = wire
        self._loop = loop
        self._chunks: list[bytes] = []
        self._blocked: dict[int, Stream] = {}
        self._closing: asyncio.TimerHandle | None = None
        self.streams: dict[int, Stream] = {}
        self.given_up: dict[int, None] = {}
        self.is_held = False  # somebody is going to flush
        self.is_leaving = False
        self.window = frames.FIRST_WINDOW
        self.first_window = frames.FIRST_WINDOW

    # Frames

    def add(self, data: bytes) -> None:
        """Write so much at the end of this turn of the loop."""
        self._chunks.append(data)
        if not self.is_held:
            self.is_held = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        self.is_held = False
        if self._chunks:
            self.wire.write(b"".join(self._chunks))
            self._chunks.clear()

    # Replies

    def reply(self, stream: Stream, head: bytes, body: bytes) -> None:
        """Send a whole reply."""
        number, size = stream.number, len(body)
        if len(head) > frames.LEAST_FRAME or size > frames.LEAST_FRAME or size > self.window or size > stream.window:
            self.begin(stream, head)
            self.put(stream, body, is_last=True)
            return
        pack = FRAME_HEAD.pack
        if size:
            self.window -= size
            self.add(
                b"%b%b%b%b"
                % (
                    pack(0, len(head), frames.HEADERS, frames.END_HEADERS, number), head,
                    pack(size >> 16, size & 0xFFFF, frames.DATA, frames.END_STREAM, number), body,
                )
            )  # fmt: skip
        else:
            self.add(pack(0, len(head), frames.HEADERS, _WHOLE, number) + head)
        self._finish(stream)

    def begin(self, stream: Stream, head: bytes) -> None:
        """Send a head whose body follows."""
        number, piece, kind = stream.number, frames.LEAST_FRAME, frames.HEADERS
        for start in range(0, len(head), piece):
            flags = frames.END_HEADERS if start + piece >= len(head) else 0
            self.add(frames.frame(kind, flags, number, head[start : start + piece]))
            kind = frames.CONTINUATION

    def put(self, stream: Stream, data: bytes, *, is_last: bool) -> None:
        """Send a piece of a body, when the windows let it through."""
        if not stream.is_read:
            return
        if is_last and not data and not stream.waiting:
            self.add(frames.frame(frames.DATA, frames.END_STREAM, stream.number))
            self._finish(stream)
            return
        stream.waiting = memoryview(bytes(stream.waiting) + data)
        stream.ends = is_last
        self._send_on(stream)

    def end(self, stream: Stream, code: int) -> None:
        """Reset a stream."""
        if stream.is_read:
            self.add(frames.rst_stream(stream.number, code))
            self.give_up(stream.number)
            self.forget(stream)

    def call_later(self, delay_s: float, stream: Stream, *pieces: bytes) -> asyncio.TimerHandle:
        """Have the stream `Stream.go_on` after so long."""
        return self._loop.call_later(delay_s, stream.go_on, *pieces)

    def give_up(self, number: int) -> None:
        """Pass over what may still come of a stream that we have reset."""
        self.given_up[number] = None
        if len(self.given_up) > _REMEMBERED:
            del self.given_up[next(iter(self.given_up))]

    def forget(self, stream: Stream) -> None:
        """Take note that a stream is over, whoever ended it."""
        stream.over()
        self.streams.pop(stream.number, None)
        self._blocked.pop(stream.number, None)
        if self.is_leaving and not self.streams:
            self._close_soon()

    # Windows and settings of the client

    def widen(self, size: int) -> None:
        """The client takes so much more on the connection. Raises ConnectionFault beyond the largest window."""
        self.window += size
        if self.window > frames.MOST_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "the connection's window is too large")
        self._send_blocked()

    def widen_stream(self, stream: Stream, size: int) -> None:
        """The client takes so much more on a stream, which is reset beyond the largest window."""
        stream.window += size
        if stream.window > frames.MOST_WINDOW:
            self.end(stream, frames.FLOW_CONTROL_ERROR)
        elif stream.number in self._blocked:
            self._send_on(stream)

    def set_first_window(self, size: int) -> None:
        """The client takes so much on each stream. Raises ConnectionFault beyond the largest window."""
        change = size - self.first_window
        self.first_window = size
        for stream in self.streams.values():
            stream.window += change
            if stream.window > frames.MOST_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "a stream's window is too large")
        self._send_blocked()

    # Ends

    def leave(self) -> None:
        """Close when the last reply is written."""
        self.is_leaving = True
        if not self.streams:
            self._close_soon()

    def close_connection(self) -> None:
        """Close the connection, after what is written already; replies that are still to come are lost."""
        self.flush()
        self.lost()
        self.wire.close()

    def reset_connection(self) -> None:
        """Reset the connection."""
        self.wire.reset()

    def lost(self) -> None:
        """Take note that all streams are over."""
        if self._closing is not None:
            self._closing.cancel()
        for stream in self.streams.values():
            stream.over()
        self.streams.clear()
        self._blocked.clear()

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = self._loop.call_later(_LINGER_S, self.close_connection)

    def _finish(self, stream: Stream) -> None:
        """The reply is whole; a client that has not said everything is told that nobody listens any more."""
        if not stream.is_whole:
            self.add(frames.rst_stream(stream.number, frames.NO_ERROR))
            self.give_up(stream.number)
        self.forget(stream)

    def _send_blocked(self) -> None:
        if self._blocked:
            for stream in list(self._blocked.values()):
                self._send_on(stream)

    def _send_on(self, stream: Stream) -> None:
        """Send of what waits as much as the windows let through."""
        rest = stream.waiting
        while rest:
            size = min(len(rest), self.window, stream.window, frames.LEAST_FRAME)
            if size <= 0:
                break
            is_end = stream.ends and size == len(rest)
            self.add(frames.frame(frames.DATA, frames.END_STREAM if is_end else 0, stream.number, bytes(rest[:size])))
            self.window -= size
            stream.window -= size
            rest = rest[size:]
        stream.waiting = rest
        if rest:
            self._blocked[stream.number] = stream
            return
        self._blocked.pop(stream.number, None)
        if stream.ends:
            self._finish(stream)
