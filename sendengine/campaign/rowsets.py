"""Sets of rows of a file, a bit a row, and what the first pass over the file decided about each row."""

from typing import Final, Self

from msgspec import Struct, field

_KEEP: Final = bytes.maketrans(b"01", b"\x01\x00")


class RowSet:
    """Rows of a file, counted from 0; a bit each, up to the last that was added."""

    __slots__ = ("_bits", "_count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, row: int) -> bool:
        return bool(self.between(row, 1))

    @classmethod
    def of(cls, bits: bytes) -> Self:
        """Make a set of what `bits` returned."""
        made = cls()
        made._bits = bytearray(bits)
        made._count = int.from_bytes(bits, "little").bit_count()
        return made

    @property
    def bits(self) -> bytes:
        """A bit a row, eight to a byte, the first as the lowest."""
        return bytes(self._bits)

    def add(self, row: int) -> None:
        """Put a row in."""
        place, bit = row >> 3, 1 << (row & 7)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        if not self._bits[place] & bit:
            self._bits[place] |= bit
            self._count += 1

    def between(self, first: int, size: int) -> int:
        """Return the bits of ``size`` rows from ``first`` on, the first as the lowest."""
        if not self._count:
            return 0
        bits = int.from_bytes(self._bits[first >> 3 : ((first + size - 1) >> 3) + 1], "little") >> (first & 7)
        return bits & ((1 << size) - 1)


class Counts(Struct, frozen=True, gc=False):
    """How many rows of a stretch of the file are left out, by the reason."""

    invalid: int = 0
    duplicates: int = 0
    excluded: int = 0


class Selection(Struct):
    """Which rows are left out, each for one reason, and which may name somebody whom another row names too."""

    invalid: RowSet = field(default_factory=RowSet)
    duplicates: RowSet = field(default_factory=RowSet)
    excluded: RowSet = field(default_factory=RowSet)
    repeats: RowSet = field(default_factory=RowSet)

    def left_out(self, first: int, size: int) -> int:
        """Return the bits of the rows that are not sent, the first as the lowest."""
        return (
            self.invalid.between(first, size)
            | self.duplicates.between(first, size)
            | self.excluded.between(first, size)
        )

    def kept(self, first: int, size: int) -> bytes | None:
        """Return a selector for each row, 1 where it is sent; None where all of them are."""
        bits = self.left_out(first, size)
        return format(bits, f"0{size}b").encode()[::-1].translate(_KEEP) if bits else None

    def counts(self, first: int, size: int) -> Counts:
        """Count what is left out of these rows."""
        return Counts(
            self.invalid.between(first, size).bit_count(),
            self.duplicates.between(first, size).bit_count(),
            self.excluded.between(first, size).bit_count(),
        )
