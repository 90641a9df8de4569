"""Frames of HTTP/2 as bytes.

Units: bytes.

Source: RFC 9113, sections 4.1, 6 and 7.
"""

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD: Final = Struct(">BHBBL")  # length in two pieces, type, flags, stream
WORD: Final = Struct(">L")
SETTING: Final = Struct(">HL")

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

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB

FIRST_WINDOW: Final = 65_535
MOST_WINDOW: Final = 2**31 - 1
LEAST_FRAME: Final = 16_384  # of the largest frame that a peer must take
MOST_FRAME: Final = 2**24 - 1
STREAM_BITS: Final = 2**31 - 1


class ConnectionFault(Exception):  # noqa: N818  # the RFC's "connection error", which is not an error of ours
    """The client broke the protocol, and its connection ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """Render a frame."""
    size = len(payload)
    return FRAME_HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, number) + payload


def settings(values: dict[int, int]) -> bytes:
    """Render SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values.items()))


def window_update(number: int, size: int) -> bytes:
    """Render WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, number, WORD.pack(size))


def rst_stream(number: int, code: int) -> bytes:
    """Render RST_STREAM."""
    return frame(RST_STREAM, 0, number, WORD.pack(code))


def goaway(last: int, code: int, reason: str = "") -> bytes:
    """Render GOAWAY."""
    return frame(GOAWAY, 0, 0, WORD.pack(last) + WORD.pack(code) + reason.encode())


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)
