"""What comes in on one connection: frames, of which replies are made, and to which answers are put out; no socket.

Units: bytes; seconds on the running loop's clock, handed in.

Method: `feed` reads as many frames as have come whole. The two frames of a common reply, HEADERS and the last DATA,
are dealt with in its loop, everything else by a method for its type. What is wrong with one reply ends that stream,
what is wrong with the connection is raised.

Decided here: a frame of a stream that is over is passed over where we ended that stream ourselves, and counted in the
connection's window; where the server had ended it, it is a fault of the connection.

Source: RFC 9113, sections 5 and 6.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sendengine.transport.direct.http2 import frames
from sendengine.transport.direct.http2.blocks import check_trailers
from sendengine.transport.direct.http2.control import Control
from sendengine.transport.direct.http2.faults import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFaultError,
    StreamFaultError,
    name_of,
)
from sendengine.transport.direct.http2.outlines import Head, HeadReader
from sendengine.transport.direct.http2.sending import Sender
from sendengine.transport.direct.http2.streams import Stream
from sendengine.transport.statuses import FINAL, SWITCHING

CONNECTION_WINDOW: Final = 2**24  # how much may be under way to us, over all streams
MAX_HEAD_BYTES: Final = 65_536
MOST_REPLY_BYTES: Final = 2**30  # a stream's window has room for it at once
_TOP_UP: Final = CONNECTION_WINDOW // 2
_MOST_CONTINUATIONS: Final = 64
_HEAD_BYTES: Final = frames.HEAD.size
_unpack: Final = frames.HEAD.unpack_from
_DATA: Final = frames.DATA  # names of the module are found sooner than another's
_HEADERS: Final = frames.HEADERS
_RST_STREAM: Final = frames.RST_STREAM
_WINDOW_UPDATE: Final = frames.WINDOW_UPDATE
_END_STREAM: Final = frames.END_STREAM
_END_HEADERS: Final = frames.END_HEADERS
_WORD_BYTES: Final = frames.WORD.size
_word_at: Final = frames.WORD.unpack


class Receiver:
    """One connection's receiving side."""

    __slots__ = (
        "_assembly",
        "_assembly_flags",
        "_assembly_number",
        "_continuations",
        "_control",
        "_has_replied",
        "_heads",
        "_is_first",
        "_max_bytes",
        "_methods",
        "_rest",
        "_sender",
        "_streams",
        "_unread",
        "_window",
    )

    def __init__(self, sender: Sender, control: Control, *, max_reply_bytes: int) -> None:
        self._sender = sender
        self._control = control
        self._streams = sender.streams
        self._max_bytes = min(max_reply_bytes, MOST_REPLY_BYTES)
        self._window = min(self._max_bytes + CONNECTION_WINDOW, frames.MOST_WINDOW)  # of a stream, for a reply
        self._heads = HeadReader()
        self._has_replied = False
        self._rest = b""  # a frame that has not come whole
        self._is_first = True
        self._unread = 0  # came since the connection's window was widened
        self._assembly: list[bytes] | None = None  # of a header block
        self._assembly_number = 0
        self._assembly_flags = 0
        self._continuations = 0
        self._methods: Mapping[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._data,
            frames.HEADERS: self._headers,
            frames.PRIORITY: self._priority,
            frames.RST_STREAM: self._rst_stream,
            frames.SETTINGS: control.settings,
            frames.PUSH_PROMISE: self._push_promise,
            frames.PING: control.ping,
            frames.GOAWAY: control.goaway,
            frames.WINDOW_UPDATE: self._window_update,
            frames.CONTINUATION: self._continuation,
        }

    def greeting(self) -> bytes:
        """Return what a client sends first."""
        settings = {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: self._window,
            frames.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
        }
        widened = frames.window_update(0, CONNECTION_WINDOW - frames.FIRST_WINDOW)
        return frames.PREFACE + frames.settings(settings) + widened

    def feed(self, data: bytes, *, now_s: float) -> None:
        """Read on. Raises ConnectionFaultError where the connection cannot go on."""
        self._control.now_s = now_s
        if self._rest:
            data = self._rest + data
        at, end, late = 0, len(data), 0
        streams, written = self._streams, self._sender.taken
        while end - at >= _HEAD_BYTES:
            head, flags, number = _unpack(data, at)
            size = head >> 8
            start = at + _HEAD_BYTES
            if start + size > end or size > frames.LEAST_MAX_FRAME:
                self._check_size(data, size)
                break
            at = start + size
            kind = head & 0xFF
            stream = streams.get(number)
            if stream is not None and number <= written and self._assembly is None:
                if kind == _DATA and flags == _END_STREAM and stream.head is not None:  # and without padding
                    self._unread += size
                    self._finish(stream, data[start:at], stream.head)
                    continue
                if kind == _HEADERS and flags == _END_HEADERS and stream.head is None:  # and nothing else
                    self._begin(stream, data[start:at])
                    continue
                if kind == _WINDOW_UPDATE and size == _WORD_BYTES:
                    self._widen(stream, data[start:at])
                    continue
            elif stream is None and kind == _RST_STREAM and size == _WORD_BYTES and self._is_over(number):
                late += 1  # of what has been answered: nginx sends one after each reply, dispatched 0.6 of 2.7 µs
                continue
            self._dispatch(kind, flags, number & frames.STREAM_BITS, data[start:at])
        self._rest = data[at:]
        self._sum_up(late)

    def _sum_up(self, late: int) -> None:
        """See what all that came amounts to, with ``late`` resets of streams that were over."""
        if late:
            self._control.count_nothing(late)
        if self._unread > _TOP_UP:  # the window is given back before it is half used up
            self._sender.put(frames.window_update(0, self._unread))
            self._unread = 0

    @property
    def has_replied(self) -> bool:
        """Whether anything of an answer has come, be it a piece of a frame."""
        return self._has_replied or bool(self._rest)

    # A reply

    def _begin(self, stream: Stream, block: bytes) -> Head | None:
        """Take a head; None where that is an interim one, or none at all, with which the stream is lost."""
        try:
            head = self._heads.read(block)
        except StreamFaultError as fault:
            self._lose(stream, fault)
            return None
        if head[0] >= FINAL:
            stream.head = head
            stream.block = self._heads.block
            self._has_replied = True
            return head
        if head[0] == SWITCHING:
            self._lose(stream, StreamFaultError("the reply is a 101, which HTTP/2 does not have"))
        else:
            self._control.count_nothing()
        return None

    def _finish(self, stream: Stream, last: bytes, head: Head) -> None:
        """Hand a reply over that is whole."""
        try:
            stream.finish(last, head, max_bytes=self._max_bytes)
        except StreamFaultError as fault:
            self._lose(stream, fault)
            return
        if stream.unsent is None:
            del self._streams[stream.number]
        else:  # the rest of the request is not wanted
            self._sender.forget(stream)
            self._sender.put(frames.rst_stream(stream.number, CANCEL))

    def _lose(self, stream: Stream, fault: StreamFaultError) -> None:
        """End a stream whose reply cannot be taken."""
        stream.lose(str(fault))
        self._sender.reset(stream, fault.code)

    def _widen(self, stream: Stream, word: bytes) -> None:
        """More may be sent on a stream."""
        increment = _word_at(word)[0] & frames.MOST_WINDOW
        if not increment:
            self._lose(stream, StreamFaultError("WINDOW_UPDATE by 0"))
            return
        try:
            self._sender.widen_stream(stream, increment)
        except StreamFaultError as fault:
            self._lose(stream, fault)

    # Frames

    def _dispatch(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._assembly is not None and (kind != frames.CONTINUATION or number != self._assembly_number):
            raise ConnectionFaultError(PROTOCOL_ERROR, "a header block is interrupted by another frame")
        if self._is_first:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFaultError(PROTOCOL_ERROR, "the server's first frame is not SETTINGS")
            self._is_first = False
        method = self._methods.get(kind)
        if method is None:
            self._control.count_nothing()
        else:
            method(flags, number, payload)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        stream = self._stream(number)
        self._unread += len(payload)
        is_last = bool(flags & frames.END_STREAM)
        piece = _without_padding(flags, payload)
        if not piece and not is_last:
            self._control.count_nothing()
        if stream is None:
            self._check_over(number)
            return
        if stream.head is None:
            self._lose(stream, StreamFaultError("the reply's body came before its head"))
        elif is_last:
            self._finish(stream, piece, stream.head)
        else:
            if len(piece) < len(payload):
                self._sender.put(frames.window_update(number, len(payload) - len(piece)))
            if stream.add(piece) > self._max_bytes:
                stream.finish(b"", stream.head, max_bytes=self._max_bytes, is_cut=True)
                self._sender.reset(stream, CANCEL)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        self._stream(number)
        block = _without_padding(flags, payload)
        if flags & frames.HAS_PRIORITY:
            if len(block) < 5:  # noqa: PLR2004 - the bytes of a priority
                raise ConnectionFaultError(FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            block = block[5:]
        if flags & frames.END_HEADERS:
            self._block(number, block, is_last=bool(flags & frames.END_STREAM))
        else:
            self._assembly, self._assembly_number, self._assembly_flags = [block], number, flags
            self._continuations = 0

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._assembly is None:
            raise ConnectionFaultError(PROTOCOL_ERROR, "CONTINUATION without a header block to continue")
        self._assembly.append(payload)
        self._continuations += 1
        if self._continuations > _MOST_CONTINUATIONS or sum(map(len, self._assembly)) > MAX_HEAD_BYTES:
            raise ConnectionFaultError(ENHANCE_YOUR_CALM, f"a head is longer than {MAX_HEAD_BYTES:,} bytes")
        if flags & frames.END_HEADERS:
            block, self._assembly = b"".join(self._assembly), None
            self._block(number, block, is_last=bool(self._assembly_flags & frames.END_STREAM))

    def _block(self, number: int, block: bytes, *, is_last: bool) -> None:
        """Take a header block that is whole."""
        stream = self._streams.get(number)
        if stream is None:
            self._control.count_nothing()
            self._check_over(number)
            self._heads.plain(block)
        elif stream.head is None:
            head = self._begin(stream, block)
            if is_last and head is not None:
                self._finish(stream, b"", head)
            elif is_last and number in self._streams:
                self._lose(stream, StreamFaultError("the stream ended with an interim reply"))
        else:
            try:
                check_trailers(self._heads.plain(block))
            except StreamFaultError as fault:
                self._lose(stream, fault)
                return
            if is_last:
                self._finish(stream, b"", stream.head)
            else:
                self._lose(stream, StreamFaultError("a second head does not end the reply"))

    def _priority(self, _flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFaultError(PROTOCOL_ERROR, "PRIORITY for no stream")
        self._control.count_nothing()
        if len(payload) != 5:  # noqa: PLR2004 - as section 6.3 has it
            stream = self._streams.get(number)
            if stream is not None:
                self._lose(stream, StreamFaultError("PRIORITY has the wrong size", code=FRAME_SIZE_ERROR))

    def _rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        code = _word(payload, "RST_STREAM")
        stream = self._stream(number)
        if stream is None:
            self._control.count_nothing()
            return
        self._sender.end(stream)
        self._control.note_code(code)
        if code == REFUSED_STREAM and stream.head is None:
            stream.refuse("the server refused the stream before it looked at the request")
        else:
            stream.lose(f"the server reset the stream ({name_of(code)})")

    def _push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFaultError(PROTOCOL_ERROR, "PUSH_PROMISE, although push is off")

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        increment = _word(payload, "WINDOW_UPDATE") & frames.MOST_WINDOW
        if not number:
            if not increment:
                raise ConnectionFaultError(PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self._sender.widen(increment)
            return
        stream = self._stream(number)
        if stream is not None:
            self._widen(stream, payload)

    # Checks

    def _stream(self, number: int) -> Stream | None:
        """Return the stream that a frame is for; None where it is over.

        Raises where the server cannot know of it: nothing of it was handed out.
        """
        if number % 2 == 0 or number > self._sender.taken:
            raise _not_opened(number)
        return self._streams.get(number)

    def _is_over(self, number: int) -> bool:
        """Whether a frame for no stream that is open is for one that was, and does not interrupt a header block."""
        return number <= self._sender.taken and number & 1 == 1 and self._assembly is None

    def _check_over(self, number: int) -> None:
        """A frame of a stream that is over may come only where we ended it."""
        if not self._sender.has_ended(number):
            raise ConnectionFaultError(STREAM_CLOSED, f"stream {number} goes on after its end")

    def _check_size(self, data: bytes, size: int) -> None:
        """Say what is wrong with a frame, if it is too large."""
        if size <= frames.LEAST_MAX_FRAME:
            return
        if self._is_first and data.startswith(b"HTTP/"):
            raise ConnectionFaultError(PROTOCOL_ERROR, "the server answers in HTTP/1.1")
        raise ConnectionFaultError(FRAME_SIZE_ERROR, f"a frame has {size:,} bytes")


def _not_opened(number: int) -> ConnectionFaultError:
    return ConnectionFaultError(PROTOCOL_ERROR, f"a frame is for stream {number}, which we did not open")


def _without_padding(flags: int, payload: bytes) -> bytes:
    """Return what is in DATA or HEADERS beside the padding."""
    if not flags & frames.PADDED:
        return payload
    if not payload:
        raise ConnectionFaultError(FRAME_SIZE_ERROR, "a padded frame is empty")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFaultError(PROTOCOL_ERROR, "a frame has more padding than it has room for")
    return payload[1 : len(payload) - padding]


def _word(payload: bytes, name: str) -> int:
    if len(payload) != frames.WORD.size:
        raise ConnectionFaultError(FRAME_SIZE_ERROR, f"{name} has the wrong size")
    word: int = frames.WORD.unpack(payload)[0]
    return word
