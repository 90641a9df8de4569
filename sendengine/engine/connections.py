"""Shares one bound on connections among the lanes: each has what the others leave, and always a quarter.

Units: exchanges at once; a worker stands for one. Over HTTP/1.1 that is a connection, over HTTP/2 a stream.
"""

from typing import Final, Protocol

_LANES: Final = 4  # a quarter each; with more lanes an equal part


class Holder(Protocol):
    """A lane's workers."""

    def __len__(self) -> int:
        """How many connections it holds."""
        ...

    def retire_idle(self) -> bool:
        """Let one that does nothing go; False where there is none."""
        ...

    def when_room(self) -> None:
        """There may be room for one more now."""
        ...


class ConnectionBudget:
    """How many workers there may be, over all lanes of the engine; never more, not for a moment."""

    __slots__ = ("_held", "_holders", "_hoping", "_part", "_total", "_wanting", "idle")

    def __init__(self, total: int) -> None:
        self.idle = 0  # of all lanes together: connections whose workers do nothing
        self._total = total
        self._part = 1
        self._held = 0
        self._holders: list[Holder] = []
        self._wanting: list[Holder] = []  # below their part, and without room
        self._hoping: list[Holder] = []  # above it, and an idle one of another lane is on its way

    @property
    def total(self) -> int:
        """The bound: by the setting, by file descriptors, and by how many exchanges one connection takes."""
        return self._total

    def extend(self, total: int) -> None:
        """There may be so many from now on, where that is more than before: connections take several exchanges."""
        if total > self._total:
            self._total = total
            self._fit_part()
            self._invite()

    def join(self, holder: Holder) -> None:
        """Take part."""
        self._holders.append(holder)
        self._fit_part()

    def may_hold(self, holder: Holder) -> bool:
        """Whether `try_hold` could change anything: asked for each request, and cheap where all are busy."""
        if self._held < self._total or self.idle:
            return True
        return len(holder) < self._part and holder not in self._wanting

    def try_hold(self, holder: Holder) -> bool:
        """Take one more; where there is no room, another lane may give one back of those that it has above its part.

        It gives back an idle one to anybody, and a busy one, when that has finished, to whoever has less than its part.
        """
        if self._held < self._total:
            self._held += 1
            return True
        if holder not in self._wanting and holder not in self._hoping:
            is_coming = bool(self.idle) and any(
                other.retire_idle() for other in self._holders if len(other) > self._part
            )
            if len(holder) < self._part:
                self._wanting.append(holder)
            elif is_coming:
                self._hoping.append(holder)
        return False

    def asks_back(self, holder: Holder) -> bool:
        """Whether a lane that has more than its part must give one back for another that has less."""
        return bool(self._wanting) and len(holder) > self._part

    def release(self) -> None:
        """A worker is gone: whoever wants its connection may have it."""
        self._held -= 1
        self._invite()

    def _fit_part(self) -> None:
        self._part = max(1, self._total // max(_LANES, len(self._holders)))

    def _invite(self) -> None:
        waiting, self._wanting, self._hoping = [*self._wanting, *self._hoping], [], []
        for holder in waiting:
            holder.when_room()
