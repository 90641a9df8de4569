"""Values that a store keeps by name, each replaced as a whole; they are records whose ids their names stand for.

Format: the name, a zero byte, the value.
"""

from collections.abc import Iterable
from typing import Final

from sendengine.journal.frames import Record

VALUE: Final = 255
"""The kind of a value's record."""


class ValueIds:
    """Which record each name stands for."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._ids)

    def recognise(self, records: Iterable[Record]) -> tuple[dict[str, bytes], tuple[Record, ...]]:
        """Divide what a store holds into values by their names, and the other records."""
        values: dict[str, bytes] = {}
        others: list[Record] = []
        for record in records:
            name, zero, value = record.payload.partition(b"\0") if record.kind == VALUE else (b"", b"", b"")
            if zero:
                values[name.decode(errors="replace")] = value
                self._ids[name.decode(errors="replace")] = record.id
            else:
                others.append(record)
        return values, tuple(others)

    def id_of(self, name: str) -> int | None:
        """Return the id of a name's record; None where it has none yet."""
        return self._ids.get(name)

    def assign(self, name: str, record: int) -> None:
        """Let a name stand for a record."""
        self._ids[name] = record


def value_payload(name: str, value: bytes) -> bytes:
    """Render a value's record."""
    return b"%b\0%b" % (name.encode(), value)
