"""A reply's header block, walked once: its status, how long its body is to be, and whether anything in it is wrong.

Units: bytes.

Method: we announce a table of 0 bytes, so a block refers to the static table alone and is read without any state; to
servers that fill a table all the same sees `sendengine.transport.direct.http2.tables`, before the walk. That looks at
every name and every length, and skips the values; names that were seen before cost one look-up in a dictionary.
`sendengine.transport.direct.http2.fields` reads a value when somebody asks for it.

Decided here: a value that nobody asks for is not looked at, so a fault within it (Huffman's code, a line end) goes
unseen; it can do no harm, for lack of a table that it could spoil.

Source: RFC 7541, sections 3 and 6; RFC 9113, sections 4.3, 8.2 and 8.3.
"""

import re
from typing import Final, NoReturn

from sendengine.transport.direct.http2.faults import COMPRESSION_ERROR, ConnectionFaultError, StreamFaultError
from sendengine.transport.direct.http2.literals import (
    CONTENT_LENGTH,
    INCREMENTAL,
    INDEXED,
    LENGTH_FOLLOWS,
    SIZE_UPDATE,
    STATIC,
    rest_of_integer,
    string_at,
)

_CONTENT_ENCODING: Final = 26
_TRANSFER_ENCODING: Final = 57
_PSEUDO: Final = 14  # up to here in the static table
_STATUSES: Final = {0x88 + at: status for at, status in enumerate((200, 204, 206, 304, 400, 404, 500))}
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")
_FORBIDDEN: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})

# Kinds of fields, by how they begin
_NAME: Final = 0  # the name follows
_REST: Final = 1  # the rest of an index follows
_WHOLE: Final = 2  # name and value
_PLAIN: Final = 3  # a name that is of no interest, its value follows
_LENGTH: Final = 4
_ENCODING: Final = 5
_BAD_NAME: Final = 6  # and above: no reply
_BROKEN: Final = 7  # no HPACK

_KNOWN: Final = {b"content-encoding": _ENCODING, b"content-length": _LENGTH}
_MOST_NAMES: Final = 2048
_LONGEST_KEPT: Final = 64  # bytes of a name
_MOST_IN_4_BITS: Final = 0x0F

_names: Final[dict[bytes, int]] = {}  # names as they stand in blocks, and what each means


def read_head(block: bytes) -> tuple[int, int, bool, int]:
    """Read a reply's head: its status, its ``Content-Length`` or -1, whether it has a ``Content-Encoding``.

    The last number is where the fields begin after the status. Raises ConnectionFaultError where the block is no
    HPACK, and StreamFaultError where what it says is no reply.
    """
    try:
        at = _start(block)
        if at == len(block):
            raise StreamFaultError("the reply's head is empty")
        status = _STATUSES.get(block[at])
        if status is None:
            status, at = _literal_status(block, at)
        else:
            at += 1
        length, is_encoded = _walk(block, at)
    except (IndexError, ValueError) as error:
        raise _broken(error) from None
    return status, length, is_encoded, at


def check_trailers(block: bytes) -> None:
    """Check a block after a body. Raises as `read_head` does."""
    try:
        _walk(block, _start(block))
    except (IndexError, ValueError) as error:
        raise _broken(error) from None


def _start(block: bytes) -> int:
    """Return where the fields begin, after changes of the table's size to 0, which is all that we allow."""
    at = 0
    while at < len(block) and block[at] == SIZE_UPDATE:
        at += 1
    return at


def _walk(block: bytes, at: int) -> tuple[int, bool]:
    """Look at every field; return ``Content-Length`` or -1, and whether there is a ``Content-Encoding``."""
    end = len(block)
    length, is_encoded = -1, False
    kinds, kinds_of_rest, names = _KINDS, _KINDS_OF_REST, _names
    while at < end:
        kind = kinds[block[at]]
        at += 1
        if kind == _REST:
            kind = kinds_of_rest[block[at]]
            at += 1
        if kind == _NAME:
            size = block[at] & 0x7F
            stop = at + 1 + size if size != LENGTH_FOLLOWS else string_at(block, at)[1]
            name = block[at:stop]
            kind = names.get(name) or _kind_of(name)
            at = stop
        elif kind == _WHOLE:
            continue
        if kind > _PLAIN:
            if kind >= _BAD_NAME:
                _refuse(kind, block, at)
            if kind == _LENGTH:
                length = length_at(block, at, before=length)
            else:
                is_encoded = True
        size = block[at] & 0x7F
        at += size + 1
        if size == LENGTH_FOLLOWS:
            size, at = rest_of_integer(block, at - size, size)
            at += size
    if at != end:
        raise ValueError("a field is longer than its block")
    return length, is_encoded


def _kind_of_index(index: int) -> int:
    """Judge a reference to the static table for a name."""
    if not 0 < index <= len(STATIC):
        return _BROKEN
    if index <= _PSEUDO or index == _TRANSFER_ENCODING:
        return _BAD_NAME
    return {CONTENT_LENGTH: _LENGTH, _CONTENT_ENCODING: _ENCODING}.get(index, _PLAIN)


def _kind_of_first(first: int) -> int:
    """Judge the first byte of a field."""
    if first >= INDEXED:
        kind = _kind_of_index(first & 0x7F)
        return kind if kind >= _BAD_NAME else _WHOLE
    if first & 0x60 == SIZE_UPDATE:
        return _BROKEN
    index = first & (0x3F if first >= INCREMENTAL else _MOST_IN_4_BITS)
    if index == 0:
        return _NAME
    return _REST if index == _MOST_IN_4_BITS and first < INCREMENTAL else _kind_of_index(index)


_KINDS: Final = bytes(map(_kind_of_first, range(256)))
# The rest of an index that begins in four bits; where it has more than one byte, both judgements are the same.
_KINDS_OF_REST: Final = bytes(_kind_of_index(_MOST_IN_4_BITS + more) for more in range(256))


def _refuse(kind: int, block: bytes, at: int) -> NoReturn:
    """Raise what a field of such a kind is."""
    if kind == _BROKEN:
        raise ValueError(f"0x{block[at - 1]:02x} begins no field that may be here")
    raise StreamFaultError("the reply's head has a field that may not be there")


def _kind_of(spelled: bytes) -> int:
    """Judge a name that was not seen before, as it stands in a block. Raises ValueError and IndexError."""
    name, _ = string_at(spelled, 0)
    kind = _KNOWN.get(name, _PLAIN) if _TOKEN.fullmatch(name) and name not in _FORBIDDEN else _BAD_NAME
    if len(_names) < _MOST_NAMES and len(spelled) <= _LONGEST_KEPT:
        _names[spelled] = kind
    return kind


def length_at(block: bytes, at: int, *, before: int) -> int:
    """Read a ``Content-Length``; several must say the same (``before`` is -1 for the first)."""
    value, _ = string_at(block, at)
    if not value.isdigit() or len(value) > 18 or before not in {-1, int(value)}:  # noqa: PLR2004 - fits 64 bits
        raise StreamFaultError("the reply's Content-Length cannot be read")
    return int(value)


def _literal_status(block: bytes, at: int) -> tuple[int, int]:
    """Read a status that is not in the static table with its value; return it and where it ends."""
    kind = _KINDS[block[at]]
    if kind == _BROKEN:
        raise ValueError("the table's size is set above what we allow, or an entry is in no table")
    index = block[at] & (0x3F if block[at] & INCREMENTAL else _MOST_IN_4_BITS)
    if kind != _NAME and (kind != _BAD_NAME or block[at] >= INDEXED or STATIC[index - 1][0] != b":status"):
        raise StreamFaultError("the reply's head does not begin with its status")
    name, at = string_at(block, at + 1) if kind == _NAME else (b":status", at + 1)
    value, at = string_at(block, at)
    if name != b":status" or not _STATUS.fullmatch(value):
        raise StreamFaultError("the reply's head does not begin with its status")
    return int(value), at


def _broken(error: Exception) -> ConnectionFaultError:
    said = "it ends within a field" if isinstance(error, IndexError) else str(error)
    return ConnectionFaultError(COMPRESSION_ERROR, f"a header block cannot be read: {said}")
