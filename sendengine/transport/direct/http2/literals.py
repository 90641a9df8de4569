"""HPACK's integers, strings and static table, as far as requests and replies here need them.

Units: bytes.

Source: RFC 7541, sections 5.1, 5.2 and 6, and appendix A. Huffman codes are read and written by the hpack package.
"""

from functools import lru_cache
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

_HUFFMAN: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
STATIC: Final = HeaderTable.STATIC_TABLE
CONTENT_LENGTH: Final = 28  # its place in the static table
INDEXED: Final = 0x80  # bits of a field's first byte: name and value are in a table
INCREMENTAL: Final = 0x40  # it is added to the dynamic table
SIZE_UPDATE: Final = 0x20  # it is none, and sets the size of the dynamic table
LENGTH_FOLLOWS: Final = 0x7F  # the length of a string is not in its first byte
_MORE: Final = 0x80
_CODED: Final = 0x80
_LONGEST_KEPT: Final = 256
_MOST_SHIFT: Final = 21  # 28 bits: no head is as long


def integer(value: int, *, prefix: int, flags: int = 0) -> bytes:
    """Render an integer whose first byte has ``prefix`` bits for it, below ``flags``."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([flags | value])
    rendered = [flags | most]
    value -= most
    while value >= _MORE:
        rendered.append(value & 0x7F | _MORE)
        value >>= 7
    rendered.append(value)
    return bytes(rendered)


def text(value: bytes) -> bytes:
    """Render a string as it is, which costs no time per request; see `packed`."""
    return integer(len(value), prefix=7) + value


def packed(value: bytes) -> bytes:
    """Render a string in Huffman's code where that is shorter, for what is rendered once."""
    return min(coded(value), text(value), key=len)


def coded(value: bytes) -> bytes:
    """Render a string in Huffman's code."""
    code = _HUFFMAN.encode(value)
    return integer(len(code), prefix=7, flags=_CODED) + code


def rest_of_integer(block: bytes, at: int, most: int) -> tuple[int, int]:
    """Read an integer on, whose first byte was all ones, up to ``most``; return it and where it ends.

    Raises ValueError where it is too large, and IndexError where the block ends within.
    """
    shift = 0
    while True:
        byte = block[at]
        at += 1
        most += (byte & 0x7F) << shift
        if byte < _MORE:
            return most, at
        if shift == _MOST_SHIFT:
            raise ValueError("an integer is too large")
        shift += 7


def integer_at(block: bytes, at: int, *, prefix: int) -> tuple[int, int]:
    """Read the integer that begins at ``at`` in ``prefix`` bits; return it and where it ends. Raises as above."""
    most = (1 << prefix) - 1
    value = block[at] & most
    return rest_of_integer(block, at + 1, most) if value == most else (value, at + 1)


def index_at(block: bytes, at: int) -> tuple[int, int]:
    """Read which name the field at ``at`` has, 0 where it follows; return it and where that ends. Raises as above."""
    most = 0x3F if block[at] & INCREMENTAL else 0x0F
    value = block[at] & most
    return rest_of_integer(block, at + 1, most) if value == most else (value, at + 1)


def string_at(block: bytes, at: int) -> tuple[bytes, int]:
    """Read the string that begins at ``at``; return it and where it ends. Raises ValueError and IndexError as above."""
    first = block[at]
    size, at = first & 0x7F, at + 1
    if size == LENGTH_FOLLOWS:
        size, at = rest_of_integer(block, at, size)
    end = at + size
    if end > len(block):
        raise ValueError("a string is longer than its block")
    return (unpacked(block[at:end]) if first & _CODED else block[at:end]), end


def end_of_string(block: bytes, at: int) -> int:
    """Return where the string ends that begins at ``at``. Raises ValueError and IndexError as above."""
    size, at = block[at] & 0x7F, at + 1
    if size == LENGTH_FOLLOWS:
        size, at = rest_of_integer(block, at, size)
    return at + size


def unpacked(value: bytes) -> bytes:
    """Undo Huffman's code. Raises ValueError where it is none."""
    return _unpacked(value) if len(value) <= _LONGEST_KEPT else _unpacked.__wrapped__(value)


@lru_cache(maxsize=1024)
def _unpacked(value: bytes) -> bytes:
    """Undo Huffman's code, which takes 5 µs for a short value; most are the same in the next reply."""
    try:
        return decode_huffman(value)
    except HPACKDecodingError as error:
        raise ValueError(f"Huffman's code is broken: {error}") from None
