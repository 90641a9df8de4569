"""Which rows of a jobs file were handed over: all before one, and a few behind it.

Units: rows are counted from 0.
"""

from collections.abc import Iterable


class HandedRows:
    """Rows come nearly in order; ``upto`` is the first that was not handed over."""

    __slots__ = ("_ahead", "upto")

    def __init__(self, upto: int = 0, ahead: Iterable[int] = ()) -> None:
        self.upto = upto
        self._ahead = set(ahead)

    def __contains__(self, row: int) -> bool:
        return row < self.upto or row in self._ahead

    def add(self, row: int) -> None:
        """A row was handed over."""
        if row < self.upto:
            return
        self._ahead.add(row)
        while self.upto in self._ahead:
            self._ahead.remove(self.upto)
            self.upto += 1

    @property
    def ahead(self) -> tuple[int, ...]:
        """The rows behind the first that was not."""
        return tuple(sorted(self._ahead))
