"""HTTP/2's frames and field blocks, written and read by hand: what a test's server says, right or wrong.

Source: RFC 9113, sections 4 and 6; RFC 7541, sections 5 and 6. Nothing here is shared with the client under test.
"""

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
MOST_STREAM: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME: Final = 16_384


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntEnum):
    """What a frame's flags mean; ACK and END_STREAM share a bit."""

    ACK = 0x1
    END_STREAM = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Code(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """What a SETTINGS frame sets."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Frame(NamedTuple):
    """A frame that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[:4] if self.kind == Kind.RST_STREAM else self.payload[4:8], "big")

    @property
    def last(self) -> int:
        """The last stream that a GOAWAY names."""
        return int.from_bytes(self.payload[:4], "big") & MOST_STREAM

    @property
    def increment(self) -> int:
        return int.from_bytes(self.payload[:4], "big") & MOST_STREAM

    @property
    def settings(self) -> dict[int, int]:
        return dict(struct.iter_unpack("!HI", self.payload))


def parsed(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the frames that are whole, and the rest."""
    frames, at = [], 0
    while len(data) - at >= HEAD_BYTES:
        end = at + HEAD_BYTES + int.from_bytes(data[at : at + 3], "big")
        if end > len(data):
            break
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & MOST_STREAM
        frames.append(Frame(data[at + 3], data[at + 4], stream, data[at + HEAD_BYTES : end]))
        at = end
    return frames, data[at:]


# Frames


def frame(kind: int, stream: int = 0, payload: bytes = b"", *, flags: int = 0, length: int | None = None) -> bytes:
    """Write a frame; ``length`` is what it says of itself, where that is a lie."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(values: Mapping[Setting, int] | Iterable[tuple[int, int]] = (), *, stream: int = 0) -> bytes:
    pairs = values.items() if isinstance(values, Mapping) else values
    return frame(Kind.SETTINGS, stream, b"".join(struct.pack("!HI", name, value) for name, value in pairs))


def settings_ack() -> bytes:
    return frame(Kind.SETTINGS, flags=Flag.ACK)


def ping(opaque: bytes = b"12345678", *, ack: bool = False) -> bytes:
    return frame(Kind.PING, payload=opaque, flags=Flag.ACK if ack else 0)


def goaway(last: int, code: int = Code.NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(Kind.GOAWAY, payload=struct.pack("!II", last, code) + debug)


def window_update(stream: int, increment: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, stream, struct.pack("!I", increment))


def rst_stream(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(Kind.RST_STREAM, stream, struct.pack("!I", code))


def data(stream: int, payload: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    """Write DATA; with ``padding``, which may be 0, its length byte and so many zeros are around it."""
    flags = Flag.END_STREAM if end else 0
    if padding is not None:
        flags |= Flag.PADDED
        payload = bytes([padding]) + payload + bytes(padding)
    return frame(Kind.DATA, stream, payload, flags=flags)


def headers(
    stream: int,
    block: bytes,
    *,
    end: bool = False,
    padding: int | None = None,
    priority: tuple[int, int] | None = None,
    pieces: int = 1,
) -> bytes:
    """Write HEADERS and, for more than one piece, CONTINUATION; ``priority`` is a dependency and a weight."""
    size = max(1, -(-len(block) // pieces))
    cut = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
    cut += [b""] * (pieces - len(cut))
    flags = (Flag.END_STREAM if end else 0) | (Flag.END_HEADERS if pieces == 1 else 0)
    first = cut[0]
    if priority is not None:
        flags |= Flag.PRIORITY
        first = struct.pack("!IB", *priority) + first
    if padding is not None:
        flags |= Flag.PADDED
        first = bytes([padding]) + first + bytes(padding)
    more = [
        frame(Kind.CONTINUATION, stream, piece, flags=Flag.END_HEADERS if index == pieces - 1 else 0)
        for index, piece in enumerate(cut[1:], start=1)
    ]
    return frame(Kind.HEADERS, stream, first, flags=flags) + b"".join(more)


# Field blocks


def integer(value: int, *, prefix: int, first: int = 0) -> bytes:
    """Write an integer whose first byte has ``prefix`` bits for it, and ``first`` in the others."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    written, value = bytearray([first | most]), value - most
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def string(text: bytes) -> bytes:
    return integer(len(text), prefix=7) + text


def indexed(index: int) -> bytes:
    """Refer to a field of the static table (up to 61) or of the dynamic one."""
    return integer(index, prefix=7, first=0x80)


def literal(name: bytes | int, value: bytes, *, first: int = 0x00, prefix: int = 4) -> bytes:
    """Write a literal field, without indexing where nothing else is said; a number is a name of the static table."""
    if isinstance(name, int):
        return integer(name, prefix=prefix, first=first) + string(value)
    return bytes([first]) + string(name) + string(value)


def remembered(name: bytes | int, value: bytes) -> bytes:
    """Write a literal that is to enter the dynamic table, which has no room for it where its size is 0."""
    return literal(name, value, first=0x40, prefix=6)


def never_indexed(name: bytes | int, value: bytes) -> bytes:
    return literal(name, value, first=0x10)


def table_size(size: int) -> bytes:
    return integer(size, prefix=5, first=0x20)


def block(*fields: tuple[str | bytes, str | bytes]) -> bytes:
    """Write fields as literals, in their order and whatever they are."""
    return b"".join(literal(_bytes(name), _bytes(value)) for name, value in fields)


def _bytes(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def head(status: int | str = 200, *fields: tuple[str | bytes, str | bytes]) -> bytes:
    """Write a reply's fields."""
    return block((":status", str(status)), *fields)


def reply(
    stream: int,
    body: bytes = b'{"id":"m-1"}',
    *,
    status: int = 200,
    fields: Iterable[tuple[str | bytes, str | bytes]] = (),
) -> bytes:
    """Write a whole reply whose body is in one frame, whatever the client's windows are."""
    named = [("content-length", str(len(body))), ("content-type", "application/json"), *fields]
    if not body:
        return headers(stream, head(status, *fields), end=True)
    return headers(stream, head(status, *named)) + data(stream, body, end=True)
