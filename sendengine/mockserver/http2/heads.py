"""A reply's head as a header block: literal fields, none of them indexed, so that no state goes with it.

Source: RFC 7541, sections 5 and 6.2.2.
"""

from functools import lru_cache
from typing import Final

from hpack.table import HeaderTable

from sendengine.mockserver.replies import Answer, rays

_INDEXES: Final = {bytes(name): place for place, (name, _) in reversed([*enumerate(HeaderTable.STATIC_TABLE, 1)])}
_KEPT: Final = 1024

CONTINUE: Final = b"\x08\x03100"


def block(answer: Answer) -> bytes:
    """Render the head of a reply."""
    return b"%b\x00\x06cf-ray\x14%016x-MCK%b" % (
        _begun(answer.status, answer.headers, answer.content_type),
        next(rays),
        _length(len(answer.body)),
    )


@lru_cache(maxsize=_KEPT)
def _begun(status: int, headers: bytes, content_type: bytes) -> bytes:
    lines = (line.partition(b": ") for line in headers.split(b"\r\n") if line)
    fields = [(b":status", b"%d" % status), *((name.lower(), value) for name, _, value in lines)]
    return b"".join(_field(name, value) for name, value in [*fields, (b"content-type", content_type)])


@lru_cache(maxsize=_KEPT)
def _length(size: int) -> bytes:
    return _field(b"content-length", b"%d" % size)


def _field(name: bytes, value: bytes) -> bytes:
    index = _INDEXES.get(name, 0)
    return _integer(index, 0x0F) + (b"" if index else _string(name)) + _string(value)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 0x7F) + text


def _integer(value: int, most: int) -> bytes:
    if value < most:
        return bytes([value])
    rendered = [most]
    value -= most
    while value > 0x7F:  # noqa: PLR2004  # seven bits a byte
        rendered.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*rendered, value])
