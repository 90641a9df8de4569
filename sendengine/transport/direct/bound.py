"""One bound on the connections of several pools: each has what the others leave.

Units: connections; seconds on the running loop's clock.

Method: nobody counts but the pools, which are few; what is open or being opened in all of them together is below the
bound before another is begun. A pool in which somebody waits, and which may open no more, asks the others: whoever has
the most gives up a connection that it can do without, at once or after its last reply; where none has any, all are
asked again every `AGAIN_S`. Whoever has the fewest is the first to have what came free.
"""

import asyncio
from typing import Final, Protocol

from sendengine.transport.direct.contract import Connection

AGAIN_S: Final = 0.05


class Sharer(Protocol):
    """A pool, as the others see it."""

    @property
    def claimed(self) -> int:
        """How many connections it has open, or is opening."""
        ...

    def give_up(self) -> Connection | None:
        """Let go of a connection that it can do without; None where it has none."""
        ...

    def go_on(self) -> None:
        """There may be room: open what somebody waits for."""
        ...


class ConnectionBound:
    """At most ``total`` connections, over all pools that have joined. Make it on a running loop."""

    __slots__ = ("_leaving", "_loop", "_sharers", "_timer", "_total")

    def __init__(self, total: int) -> None:
        self._total = total
        self._loop = asyncio.get_running_loop()
        self._sharers: list[Sharer] = []
        self._leaving: set[Connection] = set()  # that were given up, and are not gone yet
        self._timer: asyncio.TimerHandle | None = None

    def join(self, sharer: Sharer) -> None:
        """Take part."""
        self._sharers.append(sharer)

    def leave(self, sharer: Sharer) -> None:
        """Take part no more, with no connection left; harmless where that was said before."""
        if sharer in self._sharers:
            self._sharers.remove(sharer)
            self.freed()

    @property
    def has_room(self) -> bool:
        """Whether one more may be opened."""
        return sum([sharer.claimed for sharer in self._sharers]) < self._total

    def ask(self, asking: Sharer, count: int) -> None:
        """Have others give up so many, with those that they are giving up; some of them now, and some perhaps later."""
        others = [sharer for sharer in reversed(self._by_size()) if sharer is not asking]
        for sharer in others:
            while len(self._leaving) < count and (connection := sharer.give_up()) is not None:
                self._leaving.add(connection)
        if others and self._timer is None:
            self._timer = self._loop.call_later(AGAIN_S, self._again)

    def gone(self, connection: Connection) -> None:
        """A connection is no more."""
        self._leaving.discard(connection)
        self.freed()

    def freed(self) -> None:
        """There may be room for one more: a connection is gone, or could not be opened."""
        for sharer in self._by_size():
            sharer.go_on()

    def _again(self) -> None:
        self._timer = None
        self.freed()

    def _by_size(self) -> list[Sharer]:
        return sorted(self._sharers, key=lambda sharer: sharer.claimed)
