"""Finds ids that occur more than once in files of any length, in little memory: first pass of the dedupe.

Units: memory is 8 bytes an id (up to 8.5, as arrays grow), and about as much again while `rounds` is consumed.

Method: a hash of each id goes into one of 256 arrays, chosen by its low bits; equal ids meet in the same array. When
all are in, each array in turn becomes a set, small because it holds a 256th of the file, and what it has twice is
*nominated*. A hash only nominates; the caller reads the file again and lets the strings decide. Nominated hashes come
in rounds of about a 32nd of the ids, so that the strings that have to be kept meanwhile stay few; a file in which every
id stands twice takes 16 rounds.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import repeat
from typing import Final

_PARTS: Final = 256
_ROUND_SHARE: Final = 32
_ROUND_LEAST: Final = 256

HashOf = Callable[[str], int]


class Fingerprints:
    """Hashes of ids, eight bytes each. ``hash_of`` gives a whole number that fits 64 bits with a sign."""

    __slots__ = ("_appends", "_hash_of", "_parts")

    def __init__(self, hash_of: HashOf = hash) -> None:
        self._hash_of = hash_of
        self._parts = [array("q") for _ in range(_PARTS)]
        self._appends = [part.append for part in self._parts]

    def add(self, ids: Iterable[str]) -> None:
        """Take note of some ids."""
        appends = self._appends
        for mark in map(self._hash_of, ids):
            appends[mark & 255](mark)

    def rounds(self, barred: "Fingerprints | None" = None, *, is_repeat_wanted: bool) -> Iterator[AbstractSet[int]]:
        """Give the hashes of ids that may occur twice here, or here and in ``barred``, in rounds.

        Without ``is_repeat_wanted``, only those that are in ``barred`` too. All are forgotten on the way.
        """
        at_most = max(sum(map(len, self._parts)) // _ROUND_SHARE, _ROUND_LEAST)
        nominated: set[int] = set()
        barred_parts = barred.drained() if barred else repeat(())
        for part, barred_part in zip(self.drained(), barred_parts, strict=False):
            distinct = set(part)
            if is_repeat_wanted and len(distinct) < len(part):
                nominated |= _twice(part)
            nominated |= distinct.intersection(barred_part)
            if len(nominated) >= at_most:
                yield nominated
                nominated = set()
        if nominated:
            yield nominated

    def drained(self) -> Iterator[Sequence[int]]:
        """Give the arrays one by one, keeping none that was given; nothing can be added afterwards."""
        self._appends.clear()
        self._parts.reverse()
        while self._parts:
            yield self._parts.pop()


def _twice(part: Iterable[int]) -> set[int]:
    seen: set[int] = set()
    twice: set[int] = set()
    for mark in part:
        if mark in seen:
            twice.add(mark)
        else:
            seen.add(mark)
    return twice
