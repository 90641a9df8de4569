"""Shares one bound on connections among the lanes: each has what the others leave, and always a quarter.

Units: a worker stands for an exchange: over HTTP/1.1 that takes a connection, over HTTP/2 a stream of one. What it
takes is counted in parts of a connection, `WHOLE` of which are one.
"""

from typing import Final, Protocol

WHOLE: Final = 1 << 20
_LANES: Final = 4  # a quarter each; with more lanes an equal part


class Holder(Protocol):
    """A lane's workers; each takes ``cost`` parts of a connection."""

    cost: int

    def __len__(self) -> int:
        """How many workers it has."""
        ...

    def retire_idle(self) -> bool:
        """Let one that does nothing go; False where there is none."""
        ...

    def when_room(self) -> None:
        """There may be room for one more now."""
        ...


class ConnectionBudget:
    """How many workers there may be, over all lanes of the engine; never more, not for a moment."""

    __slots__ = ("_holders", "_hoping", "_total", "idle", "left", "part", "wanting")

    def __init__(self, total: int) -> None:
        self.idle = 0  # of all lanes together: workers that do nothing
        self._total = total * WHOLE
        self.left = self._total  # below 0 where connections turn out to take less than they did
        self.part = WHOLE  # of one lane, whatever the others have
        self._holders: list[Holder] = []
        self.wanting: list[Holder] = []  # below their part, and without room
        self._hoping: list[Holder] = []  # above it, and an idle one of another lane is on its way

    def join(self, holder: Holder) -> None:
        """Take part."""
        self._holders.append(holder)
        self.part = max(WHOLE, self._total // max(_LANES, len(self._holders)))

    def cost_of(self, max_exchanges: int) -> int:
        """What one worker takes where all connections together carry so many exchanges at once; 0: one each."""
        return max(1, self._total // max_exchanges) if max_exchanges else WHOLE

    def recount(self) -> None:
        """The workers of a lane take more or less than before: its server takes another number on a connection."""
        left = self._total - sum([len(holder) * holder.cost for holder in self._holders])
        has_grown = left > self.left
        self.left = left
        if has_grown:
            self._invite()

    def may_hold(self, holder: Holder) -> bool:
        """Whether `try_hold` could change anything."""
        if self.left >= holder.cost or self.idle:
            return True
        return len(holder) * holder.cost < self.part and holder not in self.wanting

    def try_hold(self, holder: Holder) -> bool:
        """Take one more; where there is no room, another lane may give one back of those that it has above its part.

        It gives back an idle one to anybody, and a busy one, when that has finished, to whoever has less than its part.
        """
        if self.left >= holder.cost:
            self.left -= holder.cost
            return True
        if holder not in self.wanting and holder not in self._hoping:
            is_poor = len(holder) * holder.cost < self.part
            if is_poor:
                self.wanting.append(holder)
            is_coming = bool(self.idle) and any(other.retire_idle() for other in self._holders if self._is_rich(other))
            if is_coming and not is_poor:
                self._hoping.append(holder)
        return False

    def asks_back(self, holder: Holder) -> bool:
        """Whether a lane that has more than its part must give one back: another has less, or all have too many."""
        return (self.left < 0 or bool(self.wanting)) and self._is_rich(holder)

    def release(self, holder: Holder) -> None:
        """A worker is gone: whoever wants its connection may have it."""
        self.left += holder.cost
        self._invite()

    def _is_rich(self, holder: Holder) -> bool:
        """Whether it has more than its part; with fewer connections than lanes any has, where another has none."""
        held = len(holder) * holder.cost
        if 0 < held <= self.part and len(self._holders) * WHOLE > self._total:
            return any(not len(other) for other in self.wanting)
        return held > self.part

    def _invite(self) -> None:
        waiting, self.wanting, self._hoping = [*self.wanting, *self._hoping], [], []
        for holder in waiting:
            holder.when_room()
