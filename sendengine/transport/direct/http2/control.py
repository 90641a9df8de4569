"""What the server says about the connection as a whole: SETTINGS, PING and GOAWAY; and whether it floods us.

Units: seconds on the running loop's clock.

Source: RFC 9113, sections 6.5, 6.7 and 6.8.
"""

from typing import Final

from sendengine.transport.direct.http2 import frames
from sendengine.transport.direct.http2.faults import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HTTP_1_1_REQUIRED,
    PROTOCOL_ERROR,
    ConnectionFaultError,
    name_of,
)
from sendengine.transport.direct.http2.guard import Guard
from sendengine.transport.direct.http2.sending import Sender

_UNLIMITED: Final = 2**32 - 1


class Control:
    """The server's settings and wishes. All raise ConnectionFaultError where a frame is not as it must be."""

    __slots__ = (
        "_guard",
        "_last_number",
        "_sender",
        "_table_bytes",
        "awaited_pong",
        "farewell",
        "is_changed",
        "now_s",
        "stream_limit",
        "wants_http1",
    )

    def __init__(self, sender: Sender) -> None:
        self.stream_limit: int | None = None  # None until the server's settings are there
        self.awaited_pong: bytes | None = None  # what a ping that was not answered yet had in it
        self.farewell: str | None = None  # what the server's GOAWAY says
        self.wants_http1 = False  # the server has said so (HTTP_1_1_REQUIRED)
        self.is_changed = False  # settings, GOAWAY or that have come, and nobody has looked at it yet
        self.now_s = 0.0  # when what is being read came
        self._sender = sender
        self._guard = Guard()
        self._table_bytes = frames.FIRST_TABLE
        self._last_number = frames.LAST_STREAM  # of the streams that the server may still answer

    def count_nothing(self, count: int = 1) -> None:
        """Count frames that carry nothing."""
        self._guard.count(count, streams=self._sender.next_number >> 1, now_s=self.now_s)

    def note_code(self, code: int) -> None:
        """See whether the server says that it is another protocol that it wants (RFC 9113, section 7)."""
        if code == HTTP_1_1_REQUIRED:
            self.wants_http1 = self.is_changed = True

    def settings(self, flags: int, number: int, payload: bytes) -> None:
        """Take new settings, and say that we did."""
        if number:
            raise ConnectionFaultError(PROTOCOL_ERROR, "SETTINGS for a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFaultError(FRAME_SIZE_ERROR, "SETTINGS with ACK is not empty")
            self.count_nothing()
            return
        if len(payload) % frames.SETTING.size:
            raise ConnectionFaultError(FRAME_SIZE_ERROR, "SETTINGS has half a setting")
        if self.stream_limit is None:
            self.stream_limit = _UNLIMITED
        else:
            self.count_nothing()
        for name, value in frames.SETTING.iter_unpack(payload):
            self._set(name, value)
        self.is_changed = True
        self._sender.put(frames.SETTINGS_ACK)

    def ping(self, flags: int, number: int, payload: bytes) -> None:
        """Answer a ping, or take the answer to ours."""
        if number:
            raise ConnectionFaultError(PROTOCOL_ERROR, "PING for a stream")
        if len(payload) != 8:  # noqa: PLR2004 - as section 6.7 has it
            raise ConnectionFaultError(FRAME_SIZE_ERROR, "PING has the wrong size")
        if not flags & frames.ACK:
            self.count_nothing()
            self._sender.put(frames.frame(frames.PING, flags=frames.ACK, payload=payload))
        elif payload == self.awaited_pong:
            self.awaited_pong = None
        else:
            self.count_nothing()

    def goaway(self, _flags: int, number: int, payload: bytes) -> None:
        """Take note that no new streams are wanted, and end those that the server will not look at."""
        if number:
            raise ConnectionFaultError(PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(payload) < frames.FAREWELL.size:
            raise ConnectionFaultError(FRAME_SIZE_ERROR, "GOAWAY is too short")
        last, code = frames.FAREWELL.unpack_from(payload)
        last &= frames.STREAM_BITS
        if self.farewell is not None:
            self.count_nothing()
            if last > self._last_number:
                raise ConnectionFaultError(PROTOCOL_ERROR, "a later GOAWAY names a higher stream")
        self._last_number = last
        self.note_code(code)
        self.is_changed = True
        self.farewell = f"the server takes no more streams on the connection ({name_of(code)})"
        self._sender.take_back(self.farewell)
        for stream in [stream for stream in self._sender.streams.values() if stream.number > last]:
            self._sender.end(stream)
            if stream.head is not None:  # a server that has begun to answer has looked at it, whatever it says
                stream.lose(self.farewell)
            else:
                stream.refuse(self.farewell)

    def _set(self, name: int, value: int) -> None:
        """Apply one of the server's settings; those that nobody knows are passed over."""
        match name:
            case frames.HEADER_TABLE_SIZE:
                if value < self._table_bytes:
                    self._sender.shrink_table()
                self._table_bytes = value
            case frames.ENABLE_PUSH:
                if value:
                    raise ConnectionFaultError(PROTOCOL_ERROR, "a server may not set ENABLE_PUSH")
            case frames.MAX_CONCURRENT_STREAMS:
                self.stream_limit = value
            case frames.INITIAL_WINDOW_SIZE:
                if value > frames.MOST_WINDOW:
                    raise ConnectionFaultError(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
                self._sender.set_first_window(value)
            case frames.MAX_FRAME_SIZE:
                if not frames.LEAST_MAX_FRAME <= value <= frames.MOST_MAX_FRAME:
                    raise ConnectionFaultError(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
                self._sender.max_frame = value
