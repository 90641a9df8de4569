"""Frames as bytes: their numbers, how their heads are read, and those that are sent.

Units: bytes; numbers of streams as the wire has them.

Source: RFC 9113, sections 4, 6 and 7.
"""

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

LEAST_MAX_FRAME: Final = 16_384  # what every endpoint takes, and what we go on taking
MOST_MAX_FRAME: Final = 2**24 - 1
FIRST_WINDOW: Final = 65_535  # of a connection, and of a stream where no setting says otherwise
MOST_WINDOW: Final = 2**31 - 1
FIRST_TABLE: Final = 4096
LAST_STREAM: Final = 2**31 - 1
STREAM_BITS: Final = 0x7FFF_FFFF  # the one above is reserved, and ignored

HEAD: Final = Struct(">IBI")
"""A frame's head: its length in the upper 24 bits and its type in the lower 8; flags; number of the stream."""
SETTING: Final = Struct(">HI")
WORD: Final = Struct(">I")
FAREWELL: Final = Struct(">II")


def frame(kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Return SETTINGS with these values, by their numbers."""
    return frame(SETTINGS, payload=b"".join(SETTING.pack(name, value) for name, value in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    """Return WINDOW_UPDATE: so much more may be sent to us."""
    return frame(WINDOW_UPDATE, stream=stream, payload=WORD.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    """Return RST_STREAM: this stream is over for us."""
    return frame(RST_STREAM, stream=stream, payload=WORD.pack(code))


def goaway(code: int) -> bytes:
    """Return GOAWAY, which names stream 0, since a server opens none."""
    return frame(GOAWAY, payload=FAREWELL.pack(0, code))


SETTINGS_ACK: Final = frame(SETTINGS, flags=ACK)
