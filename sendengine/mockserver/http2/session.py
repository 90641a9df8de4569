"""HTTP/2 on one connection: requests in, replies out as they come, or what a fault wants instead.

Units: bytes.

Method: a client's HEADERS and DATA are the only frames that come often, and are read first. Our windows are wide and
are opened again when half of them is used up. What the service answers while bytes are read leaves in one write.

Source: RFC 9113; sections are named where they decide.
"""

import asyncio
from collections import deque
from typing import Final, Literal

from sendengine.mockserver.http2 import frames
from sendengine.mockserver.http2.frames import FRAME_HEAD, PREFACE, ConnectionFault
from sendengine.mockserver.http2.heads import CONTINUE
from sendengine.mockserver.http2.requests import HeadReader
from sendengine.mockserver.http2.sending import Sender
from sendengine.mockserver.http2.stream import Stream
from sendengine.mockserver.protocol import Front, Wire
from sendengine.mockserver.replies import TOO_LARGE

_MOST_HEAD_BYTES: Final = 65_536
_MOST_CONTINUATIONS: Final = 64
_HALF_WINDOW: Final = frames.MOST_WINDOW // 2
_PING_BYTES: Final = 8
_PRIORITY_BYTES: Final = 5
_GOAWAY_BYTES: Final = 8


class Session(Sender):
    """HTTP/2 on one connection; `sendengine.mockserver.protocol.Speaker`."""

    def __init__(self, front: Front, wire: Wire, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(wire, loop=loop)
        self._front = front
        self._heads = HeadReader()
        self._rest = b""
        self._is_prefaced = False
        self._is_greeted = False  # the client's SETTINGS have come
        self._is_over = False
        self._last = 0  # the highest stream that the client has opened
        self._most = frames.MOST_WINDOW  # the highest that is taken, as our GOAWAY said
        self._taken = 0
        self._unread = 0
        self._window_bytes = front.config.window_bytes
        self._allowed = max(self._window_bytes, frames.FIRST_WINDOW)  # until the client knows
        self._limit = self._said_limit = front.config.max_concurrent_streams
        self._limits = deque([self._limit])  # that the client has not acknowledged yet
        self._block: list[bytes] | None = None  # of a head that is not whole
        self._block_number = self._block_flags = 0
        self.add(
            frames.settings(
                {
                    frames.HEADER_TABLE_SIZE: 0,
                    frames.MAX_CONCURRENT_STREAMS: self._limit,
                    frames.INITIAL_WINDOW_SIZE: self._window_bytes,
                    frames.MAX_HEADER_LIST_SIZE: _MOST_HEAD_BYTES,
                }
            )
            + frames.window_update(0, frames.MOST_WINDOW - frames.FIRST_WINDOW)
        )

    @property
    def reset_scope(self) -> Literal["stream", "connection"]:
        """What a reset or close takes with it."""
        return self._front.config.reset_scope

    def feed(self, data: bytes) -> None:
        """Read requests, whole or in pieces."""
        if self._is_over:
            return
        was_held, self.is_held = self.is_held, True
        try:
            self._read(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            self._front.unparsable()
            self.add(frames.goaway(self._last, fault.code, str(fault)))
            self.close_connection()
        if not was_held:
            self.flush()

    def lost(self) -> None:
        """Forget what was not answered yet."""
        self._is_over = True
        super().lost()

    def configured(self) -> None:
        """Tell the client where it may open more streams than before, or fewer."""
        limit = self._front.config.max_concurrent_streams
        if limit != self._said_limit:
            self._said_limit = limit
            self._limits.append(limit)
            self.add(frames.settings({frames.MAX_CONCURRENT_STREAMS: limit}))

    def go_away(self, *, hard: bool) -> None:
        """Take no more streams; answer those under way and close, or where it is ``hard``, close at once."""
        if self._is_over:
            return
        if hard:
            self.add(frames.goaway(self._last, frames.INTERNAL_ERROR))
            self.close_connection()
        elif not self.is_leaving:
            self._most = self._last
            self.add(frames.goaway(self._last, frames.NO_ERROR))
            self.leave()

    # Frames

    def _read(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._is_prefaced:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "the connection does not begin with the preface")
            if end < len(PREFACE):
                self._rest = data
                return
            self._is_prefaced = True
            at = len(PREFACE)
        unpack = FRAME_HEAD.unpack_from
        while end - at >= FRAME_HEAD.size:
            high, low, kind, flags, number = unpack(data, at)
            size = high << 16 | low
            if size > frames.LEAST_FRAME:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame has {size:,} bytes")
            begin = at + FRAME_HEAD.size
            if end - begin < size:
                break
            at = begin + size
            self._take(kind, flags, number & frames.STREAM_BITS, data[begin:at])
            if self._is_over:
                return
        self._rest = data[at:] if at < end else b""

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block_number):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block is interrupted")
        if kind == frames.HEADERS:
            self._headers(flags, number, payload)
        elif kind == frames.DATA:
            self._data(flags, number, payload)
        elif not self._is_greeted and kind != frames.SETTINGS:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS do not come first")
        else:
            self._take_rare(kind, flags, number, payload)

    def _take_rare(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take what comes seldom; frames that nobody knows are passed over."""
        match kind:
            case frames.WINDOW_UPDATE:
                self._window_update(number, payload)
            case frames.RST_STREAM:
                self._rst_stream(number, payload)
            case frames.CONTINUATION:
                self._continuation(flags, payload)
            case frames.PRIORITY:
                self._priority(number, payload)
            case frames.SETTINGS:
                self._settings(flags, number, payload)
            case frames.PING:
                self._ping(flags, number, payload)
            case frames.GOAWAY:
                self._goaway(number, payload)
            case frames.PUSH_PROMISE:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a client may not promise anything")

    # Requests

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number % 2 or not self._is_greeted:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"HEADERS cannot come for stream {number} here")
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            payload = payload[_PRIORITY_BYTES:]
        if flags & frames.END_HEADERS:
            self._head(number, payload, is_last=bool(flags & frames.END_STREAM))
        else:
            self._block, self._block_number, self._block_flags = [payload], number, flags

    def _continuation(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION without a header block to continue")
        block.append(payload)
        if len(block) > _MOST_CONTINUATIONS or sum(map(len, block)) > _MOST_HEAD_BYTES:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "a head is too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._head(self._block_number, b"".join(block), is_last=bool(self._block_flags & frames.END_STREAM))

    def _head(self, number: int, block: bytes, *, is_last: bool) -> None:
        """Take a header block that is whole: of a new stream, or of trailers."""
        head = self._heads.read(block)
        if number <= self._last:
            self._trailers(number, is_last=is_last)
            return
        self._last = number
        if number > self._most:
            return  # it came too late: our GOAWAY has said so
        if head.problem:
            self._front.unparsable()
            self._turn_away(number, frames.PROTOCOL_ERROR)
            return
        if len(self.streams) >= self._limit:
            self._front.too_many()
            self._turn_away(number, frames.REFUSED_STREAM)
            return
        stream = Stream(self, number, head, window=self.first_window, allowed=self._allowed)
        self.streams[number] = stream
        self._taken += 1
        if self._taken == self._front.config.requests_per_connection:
            self.go_away(hard=False)
        if is_last:
            self._whole(stream)
        elif head.wants_continue:
            self.add(frames.frame(frames.HEADERS, frames.END_HEADERS, number, CONTINUE))

    def _trailers(self, number: int, *, is_last: bool) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self._check_given_up(number)
        elif stream.is_whole:
            self.end(stream, frames.STREAM_CLOSED)
        elif not is_last:
            self._spoiled(stream, frames.PROTOCOL_ERROR)
        else:
            self._whole(stream)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._unread += size
        if self._unread > _HALF_WINDOW:
            self.add(frames.window_update(0, self._unread))
            self._unread = 0
        stream = self.streams.get(number)
        if stream is None:
            self._stream(number)
            self._check_given_up(number)
            return
        stream.unread += size
        if stream.is_whole or stream.unread > stream.allowed:
            self.end(stream, frames.STREAM_CLOSED if stream.is_whole else frames.FLOW_CONTROL_ERROR)
            return
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        stream.received += len(payload)
        if stream.received > self._front.config.max_body_bytes:
            stream.is_whole = bool(flags & frames.END_STREAM)
            stream.reply(TOO_LARGE)
        elif flags & frames.END_STREAM and not stream.parts:
            stream.body = payload
            self._whole(stream)
        else:
            self._piece(stream, payload, is_last=bool(flags & frames.END_STREAM))

    def _piece(self, stream: Stream, payload: bytes, *, is_last: bool) -> None:
        """Keep a piece of a body, and have the next ones sent."""
        stream.parts.append(payload)
        if is_last:
            self._whole(stream)
        elif 2 * stream.unread >= self._window_bytes:
            self.add(frames.window_update(stream.number, stream.unread))
            stream.unread = 0

    def _whole(self, stream: Stream) -> None:
        """Hand a whole request on."""
        if stream.length is not None and stream.length != stream.received:
            self._spoiled(stream, frames.PROTOCOL_ERROR)
            return
        if stream.parts:
            stream.body = b"".join(stream.parts)
            stream.parts.clear()
        stream.is_whole = True
        self._front.receive(stream)

    def _spoiled(self, stream: Stream, code: int) -> None:
        self._front.unparsable()
        self.end(stream, code)

    def _turn_away(self, number: int, code: int) -> None:
        self.add(frames.rst_stream(number, code))
        self.give_up(number)

    # Everything else

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        _check_of_connection(number)
        if flags & frames.ACK:
            self._acknowledged(payload)
            return
        if len(payload) % frames.SETTING.size:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS has the wrong size")
        self._is_greeted = True
        self.add(frames.SETTINGS_ACK)
        for name, value in frames.SETTING.iter_unpack(payload):
            self._set(name, value)

    def _acknowledged(self, payload: bytes) -> None:
        if payload or not self._limits:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR if payload else frames.PROTOCOL_ERROR, "what an ACK")
        self._limit = self._limits.popleft()
        self._allowed = self._window_bytes
        self._heads.shrink()

    def _set(self, name: int, value: int) -> None:
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MOST_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
            self.set_first_window(value)
        elif name == frames.MAX_FRAME_SIZE and not frames.LEAST_FRAME <= value <= frames.MOST_FRAME:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
        elif name == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        _check_of_connection(number)
        if len(payload) != _PING_BYTES:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING has the wrong size")
        if not flags & frames.ACK:
            self.add(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _goaway(self, number: int, payload: bytes) -> None:
        _check_of_connection(number)
        if len(payload) < _GOAWAY_BYTES:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY is too short")

    def _window_update(self, number: int, payload: bytes) -> None:
        size = _word(payload) & frames.MOST_WINDOW
        stream = self._stream(number) if number else None
        if number and stream is None:
            return
        if stream is not None and size:
            self.widen_stream(stream, size)
        elif stream is not None:
            self.end(stream, frames.PROTOCOL_ERROR)
        elif size:
            self.widen(size)
        else:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")

    def _rst_stream(self, number: int, payload: bytes) -> None:
        _word(payload)
        stream = self._stream(number)
        if stream is not None:
            self.forget(stream)

    def _priority(self, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY for no stream")
        stream = self.streams.get(number)
        if len(payload) != _PRIORITY_BYTES and stream is not None:
            self.end(stream, frames.FRAME_SIZE_ERROR)

    # Checks

    def _stream(self, number: int) -> Stream | None:
        """Return the stream that a frame is for; None where it is over. Raises where it was never opened."""
        stream = self.streams.get(number)
        if stream is None and (not number % 2 or number > self._last):
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"a frame is for stream {number}, which is not open")
        return stream

    def _check_given_up(self, number: int) -> None:
        """What comes for a stream that is over may come only where we ended it (section 5.1)."""
        if number not in self.given_up and number <= self._most:
            raise ConnectionFault(frames.STREAM_CLOSED, f"stream {number} goes on after its end")


def _check_of_connection(number: int) -> None:
    if number:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "a frame for the connection names a stream")


def _without_padding(payload: bytes) -> bytes:
    if not payload:
        raise ConnectionFault(frames.FRAME_SIZE_ERROR, "a padded frame is empty")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(frames.PROTOCOL_ERROR, "a frame has more padding than it has room for")
    return payload[1 : len(payload) - padding]


def _word(payload: bytes) -> int:
    if len(payload) != frames.WORD.size:
        raise ConnectionFault(frames.FRAME_SIZE_ERROR, "a frame has the wrong size")
    word: int = frames.WORD.unpack(payload)[0]
    return word
