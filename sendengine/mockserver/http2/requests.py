"""A request's header block: what it says, and whether a request may say it.

Units: bytes.

Method: a block that refers to the static table alone means the same on every connection, so what was read of it is
kept by its bytes; clients send the same few blocks again and again. Any other block goes to the connection's decoder,
which has its dynamic table. As we announce a table of 0 bytes, that is at most what comes before a client knows.

Source: RFC 7541, section 6; RFC 9113, sections 8.2 and 8.3.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable
from msgspec import Struct

from sendengine.mockserver.http2.frames import COMPRESSION_ERROR, ConnectionFault

_Fields = Sequence[tuple[bytes, bytes]]
_STATIC: Final[_Fields] = [(bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE]
_INDEXED: Final = 0x80
_STATEFUL: Final = 0x60  # a field to be kept, or a new size of the table
_KEPT: Final = 4096  # blocks, and as many strings in Huffman's code
_KEPT_BYTES: Final = 1024  # of the largest that are kept
_NAME: Final = re.compile(rb":?[!#-'*+.0-9^-z|~-]+")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)


class Head(Struct, frozen=True, gc=False):
    """A request's head. ``problem`` says why it is none; ``length`` is the announced size of the body."""

    method: bytes = b""
    url: bytes = b""
    authorization: bytes = b""
    content_type: bytes = b""
    length: int | None = None
    wants_continue: bool = False
    problem: str = ""


class HeadReader:
    """Reads the header blocks of one connection."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = Decoder()

    def shrink(self) -> None:
        """Take note that the client knows that our table has no room: it must say so before anything else."""
        self._decoder.max_allowed_table_size = 0

    def read(self, block: bytes) -> Head:
        """Read a block. Raises ConnectionFault where it cannot be decoded."""
        decoder = self._decoder
        if decoder.header_table_size <= decoder.max_allowed_table_size:
            head = _kept(block) if len(block) <= _KEPT_BYTES else _stateless(block)
            if head is not None:
                return head
        try:
            fields = decoder.decode(block, raw=True)
        except HPACKError as error:
            raise ConnectionFault(COMPRESSION_ERROR, str(error)) from None
        return head_of([(bytes(field[0]), bytes(field[1])) for field in fields])


def head_of(fields: _Fields) -> Head:
    """Make a head of a block's fields."""
    found: dict[bytes, bytes] = {}
    is_regular = False
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return Head(problem=f"the field {name!r} is malformed")
        if name.startswith(b":"):
            if is_regular or name in found or name not in _PSEUDO:
                return Head(problem=f"{name!r} is unknown, twice there, or too late")
        else:
            is_regular = True
            if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
                return Head(problem=f"{name!r} is not for HTTP/2")
        if name == b"content-length" and (not value.isdigit() or found.get(name, value) != value):
            return Head(problem="content-length is no size")
        found[name] = value
    method, path = found.get(b":method", b""), found.get(b":path", b"")
    if not method or (method != b"CONNECT" and not (path and found.get(b":scheme"))):
        return Head(problem="a pseudo-header field is missing")
    length = found.get(b"content-length")
    return Head(
        method=method,
        url=path,
        authorization=found.get(b"authorization", b""),
        content_type=found.get(b"content-type", b""),
        length=int(length) if length is not None else None,
        wants_continue=found.get(b"expect", b"").lower() == b"100-continue",
    )


def _stateless(block: bytes) -> Head | None:
    """Read a block that refers to the static table alone; None for any other, and for one that is broken."""
    try:
        fields = _fields(block)
    except (IndexError, ValueError, HPACKError):
        return None  # the decoder finds the words
    return head_of(fields) if fields is not None else None


_kept = lru_cache(maxsize=_KEPT)(_stateless)


def _fields(block: bytes) -> _Fields | None:
    fields: list[tuple[bytes, bytes]] = []
    at, end = 0, len(block)
    while at < end:
        first = block[at]
        if first & _INDEXED:
            index, at = _integer(block, at, 0x7F)
            if not 0 < index <= len(_STATIC):
                return None
            fields.append(_STATIC[index - 1])
            continue
        if first & _STATEFUL:
            return None
        index, at = _integer(block, at, 0x0F)
        if index > len(_STATIC):
            return None
        if index:
            name = _STATIC[index - 1][0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        fields.append((name, value))
    return fields


def _integer(block: bytes, at: int, most: int) -> tuple[int, int]:
    """Read an integer whose first byte has the bits of ``most`` for it; return it and where it ends."""
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in (0, 7, 14):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the bit that says that more follows
            return value, at
    raise ValueError("an integer is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    is_coded = block[at] & 0x80
    size, at = _integer(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise ValueError("a string is longer than its block")
    text = block[at:end]
    return (_decoded(text) if is_coded else text), end


@lru_cache(maxsize=_KEPT)
def _decoded(text: bytes) -> bytes:
    return decode_huffman(text)
