"""Records as bytes: each with its length, its id, its kind and a checksum over all of it, one after another.

A damaged record is told apart from a whole one, and the records behind it are still found as long as its length is
right.

Format, big-endian: crc32 (4 bytes), length of the payload (4), id (8), kind (1), payload. The checksum begins from a
number made of id and kind, so that a record whose id was changed is damaged too.
"""

from collections.abc import Iterator
from struct import Struct as Layout
from typing import Final
from zlib import crc32

from msgspec import Struct

HEADER_BYTES: Final = 17

_HEADER: Final = Layout(">IIQB")
_PACK: Final = _HEADER.pack
_SEEDS: Final = 4_294_967_291  # the largest prime below 2**32, so that every bit of id and kind counts


class Record(Struct, frozen=True, gc=False):
    """One record; a later one of the same id takes the place of an earlier one."""

    id: int
    kind: int
    payload: bytes


class DamagedRecord(Struct, frozen=True, gc=False):
    """Bytes that were a record once, or several."""

    data: bytes


def framed(record_id: int, kind: int, payload: bytes) -> bytes:
    """Render a record; the payload is shorter than 4 GiB."""
    crc = crc32(payload, (record_id * 256 + kind) % _SEEDS + 1)  # never from 0: zeros are no record
    return _PACK(crc, len(payload), record_id, kind) + payload


def unframed(data: bytes) -> Iterator[Record | DamagedRecord]:
    """Read records that stand one after another; what cannot be told apart any more comes as one damaged record."""
    start, end = 0, len(data)
    while start < end:
        if end - start < HEADER_BYTES:
            yield DamagedRecord(data[start:])
            return
        crc, length, record_id, kind = _HEADER.unpack_from(data, start)
        after = start + HEADER_BYTES + length
        payload = data[start + HEADER_BYTES : after]
        is_whole = after <= end and crc32(payload, (record_id * 256 + kind) % _SEEDS + 1) == crc
        yield Record(record_id, kind, payload) if is_whole else DamagedRecord(data[start:after])
        start = after


def labelled(label: str, payload: bytes) -> bytes:
    """Put a checksum over label and payload before a payload that is kept under that label."""
    return crc32(payload, crc32(label.encode())).to_bytes(4, "big") + payload


def unlabelled(label: str, data: bytes) -> bytes | None:
    """Return the payload that `labelled` took, or None where it is damaged."""
    payload = data[4:]
    return payload if labelled(label, payload) == data else None
