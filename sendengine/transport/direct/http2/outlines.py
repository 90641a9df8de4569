"""Reads heads that are like those before them: only what differs from one to the next is looked at.

Units: bytes.

Method: a server's replies have the same fields in the same order, and most of them the same values. What two heads have
in common is remembered as stretches of bytes, between which stand values that vary, each with its length before it. A
head that consists of the same stretches has the same fields, and was walked before; any other is walked, and the
stretches are made to fit both. Measured with 15 fields of which 6 vary: 2.1 µs instead of 4.3.
"""

from typing import Final

from sendengine.transport.direct.http2.blocks import length_at, read_head
from sendengine.transport.direct.http2.faults import StreamFaultError
from sendengine.transport.direct.http2.literals import (
    CONTENT_LENGTH,
    INCREMENTAL,
    INDEXED,
    LENGTH_FOLLOWS,
    end_of_string,
    index_at,
    rest_of_integer,
    string_at,
)
from sendengine.transport.direct.http2.tables import PlainBlocks

_MOST_LESSONS: Final = 100  # on one connection; where heads differ that much, walking each costs less
_LONGEST_KEPT: Final = 4096  # bytes of a head; none is that long

Head = tuple[int, int, bool, int]


_Stretch = tuple[bytes, int, bool]
"""Bytes that are the same in all heads, up to a value that varies; how many; whether that is a Content-Length."""

_Field = tuple[bytes, bytes | None, bool]
"""A name as it stands in the head; a value, or None where it varies; whether that is a Content-Length."""


class HeadReader:
    """Does what `read_head` does, for one connection."""

    __slots__ = ("_blocks", "_outlines", "block")

    def __init__(self) -> None:
        self.block = b""  # that was read last, with all fields in full
        self._outlines: dict[int, _Outline] = {}  # by the first byte, which tells the usual status from others
        self._blocks = PlainBlocks()

    def read(self, block: bytes) -> Head:
        """Read a head as `read_head` does; raises what that raises."""
        blocks = self._blocks
        if blocks.has_table:
            block = blocks.plain(block)
        self.block = block
        outline = self._outlines.get(block[0]) if block else None
        if outline is not None and outline.head is not None:
            try:
                head = outline.compare(block, outline.head)
            except (IndexError, ValueError, StreamFaultError):  # where a value was stands something else
                head = None
            if head is not None:
                if outline.fills_table:
                    blocks.note(block)
                return head
        if not blocks.has_table:
            self.block = block = blocks.plain(block)
        head = read_head(block)
        outline = self._outlines.get(block[0])
        if outline is None:
            outline = self._outlines[block[0]] = _Outline()
        outline.learn(block, head)
        return head

    def plain(self, block: bytes) -> bytes:
        """Take a block that is no head, and return it with all fields in full. Raises ConnectionFaultError."""
        return self._blocks.plain(block)


class _Outline:
    """What heads have in common that begin with the same byte."""

    __slots__ = ("_end", "_fields", "_lessons", "_stretches", "fills_table", "head")

    def __init__(self) -> None:
        self._fields: list[_Field] = []  # of the head that was learned last
        self._stretches: list[_Stretch] = []
        self._end = b""  # the last stretch, after which nothing follows
        self.head: Head | None = None  # what all have in common
        self.fills_table = False  # where the server keeps one, although we have none
        self._lessons = 0

    def compare(self, block: bytes, head: Head) -> Head | None:
        """Read a head that is like those before, all of which have ``head`` in common; None where it is not.

        Raises IndexError, ValueError and StreamFaultError where it is certainly not.
        """
        at = 0
        for said, said_bytes, is_length in self._stretches:
            if not block.startswith(said, at):
                return None
            at += said_bytes
            size = block[at] & 0x7F
            if is_length:
                head = (head[0], length_at(block, at, before=-1), head[2], head[3])
            at += 1
            if size == LENGTH_FOLLOWS:
                size, at = rest_of_integer(block, at, size)
            at += size
        return head if at <= len(block) and block[at:] == self._end else None

    def learn(self, block: bytes, head: Head) -> None:
        """Make the stretches fit a head that was walked, too."""
        self._lessons += 1
        if self._lessons > _MOST_LESSONS or len(block) > _LONGEST_KEPT:
            self.head = None
            return
        found = _fields(block, head[3])
        known = self._fields
        if [field[0] for field in known] == [field[0] for field in found]:
            found = [
                (name, value if value == before else None, is_length)
                for (name, value, is_length), (_, before, _) in zip(found, known, strict=True)
            ]
        self._fields = found
        self.fills_table = any(INCREMENTAL <= name[0] < INDEXED for name, _, _ in found)
        has_two = sum(is_length for _, _, is_length in found) > 1  # which must be the same, so each head is walked
        self.head = None if has_two else head
        self._compile(block[: head[3]])

    def _compile(self, begun: bytes) -> None:
        self._stretches = []
        for name, value, is_length in self._fields:
            begun += name
            if value is None:
                self._stretches.append((begun, len(begun), is_length))
                begun = b""
            else:
                begun += value
        self._end = begun


def _fields(block: bytes, at: int) -> list[_Field]:
    """Cut a head that was walked into names and values, each as it stands there."""
    found: list[_Field] = []
    while at < len(block):
        start = at
        if block[at] >= INDEXED:
            at += 1
            found.append((block[start:at], b"", False))
            continue
        index, at = index_at(block, at)
        is_length = index == CONTENT_LENGTH
        if index == 0:
            name, at = string_at(block, at)
            is_length = name == b"content-length"
        value_at = at
        at = end_of_string(block, at)
        found.append((block[start:value_at], block[value_at:at], is_length))
    return found
