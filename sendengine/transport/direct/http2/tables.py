"""Reads on where a server refers to a dynamic table, although we announced one of 0 bytes.

Units: bytes.

Some servers never look at that setting (h2o 2.2 is one) and fill a table of the size that holds without it. Such a
connection would come to nothing, and every request on it be a lost reply. So the last blocks that may have filled a
table are kept as they came, and when a block refers to one for the first time, the table is made from those. From then
on each block is rendered anew, with the fields in full, before anybody reads it. A server that keeps to our setting
never gets here.

Source: RFC 7541, sections 2.3, 3.2, 4 and 6.
"""

from collections import deque
from typing import Final

from sendengine.transport.direct.http2.faults import COMPRESSION_ERROR, ConnectionFaultError
from sendengine.transport.direct.http2.frames import FIRST_TABLE
from sendengine.transport.direct.http2.literals import (
    INCREMENTAL,
    INDEXED,
    SIZE_UPDATE,
    STATIC,
    end_of_string,
    index_at,
    integer,
    integer_at,
    string_at,
    text,
)

_ENTRY_BYTES: Final = 32  # that an entry counts for beside its name and value
MOST_ENTRIES: Final = FIRST_TABLE // (_ENTRY_BYTES + 1)  # a name has a byte at least

Entry = tuple[bytes, bytes]


class PlainBlocks:
    """One connection's header blocks, in the order in which they come, with all fields in full."""

    __slots__ = ("_recent", "_table", "has_table")

    def __init__(self) -> None:
        self.has_table = False  # the server has one, so that every block must be rendered anew
        self._recent: deque[bytes] = deque(maxlen=MOST_ENTRIES)  # which may have filled a table
        self._table: DynamicTable | None = None

    def note(self, block: bytes) -> None:
        """Keep a block that refers to no table and may fill one."""
        self._recent.append(block)

    def plain(self, block: bytes) -> bytes:
        """Return a block with all fields in full: as it is, in nearly all cases.

        Raises ConnectionFaultError where it refers to what is in no table.
        """
        if self._table is None and not refers_to_table(block):
            self._recent.append(block)
            return block
        try:
            if self._table is None:
                self._table, self.has_table = DynamicTable(), True
                for before in self._recent:
                    self._table.expand(before)
                self._recent.clear()
            return self._table.expand(block)
        except (IndexError, ValueError) as error:
            raise ConnectionFaultError(COMPRESSION_ERROR, f"a header block cannot be read: {error}") from None


def refers_to_table(block: bytes) -> bool:
    """Whether any field, or its name, is an entry of a dynamic table; a block that is broken says what it is later."""
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first >= INDEXED:
                index, at = integer_at(block, at, prefix=7)
            elif first & 0x60 == SIZE_UPDATE:
                index, (_, at) = 0, integer_at(block, at, prefix=5)
            else:
                index, at = index_at(block, at)
                at = end_of_string(block, at if index else end_of_string(block, at))
            if index > len(STATIC):
                return True
    except (IndexError, ValueError):
        return False
    return False


class DynamicTable:
    """What one connection's blocks have put into the table."""

    __slots__ = ("_entries", "_most", "_size")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()  # the newest first
        self._size = 0
        self._most = FIRST_TABLE

    def expand(self, block: bytes) -> bytes:
        """Render a block without references to the table, and take what it adds. Raises ValueError and IndexError."""
        rendered: list[bytes] = []
        at = 0
        while at < len(block):
            start, first = at, block[at]
            if first >= INDEXED:
                index, at = integer_at(block, at, prefix=7)
                rendered.append(block[start:at] if index <= len(STATIC) else _literal(*self._entry(index)))
            elif first & 0x60 == SIZE_UPDATE:
                size, at = integer_at(block, at, prefix=5)
                if size > self._most:
                    raise ValueError("the table's size is set above what we allow")
                self._most = size
                self._shrink()
                rendered.append(block[start:at] if not size else b"")
            else:
                field, at = self._field(block, at)
                rendered.append(field)
        return b"".join(rendered)

    def _field(self, block: bytes, at: int) -> tuple[bytes, int]:
        """Render a literal, and add it to the table where it asks for that; return it and where it ends."""
        first = block[at]
        index, at = index_at(block, at)
        name_at = at
        name, at = string_at(block, at) if index == 0 else (self._entry(index)[0], at)
        value_at, at = at, end_of_string(block, at)
        if first & INCREMENTAL:
            self._add(name, string_at(block, value_at)[0])
        is_dynamic = index > len(STATIC)
        begun = b"\x00" + text(name) if is_dynamic else integer(index, prefix=4) + block[name_at:value_at]
        return begun + block[value_at:at], at

    def _entry(self, index: int) -> Entry:
        if 0 < index <= len(STATIC):
            return STATIC[index - 1]
        if not 0 <= index - len(STATIC) - 1 < len(self._entries):
            raise ValueError(f"{index} is in no table")
        return self._entries[index - len(STATIC) - 1]

    def _add(self, name: bytes, value: bytes) -> None:
        self._entries.appendleft((name, value))
        self._size += len(name) + len(value) + _ENTRY_BYTES
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self._most:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + _ENTRY_BYTES


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + text(name) + text(value)
