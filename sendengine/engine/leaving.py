"""Abandons what waits in a lane that stops: a part in each turn of the loop, so that others have theirs meanwhile.

An engine in a web app stops with tens of thousands of jobs waiting, each with somebody who awaits its receipt: settled
all at once they would keep the app's own requests waiting for as long as that takes.

Units: portions of jobs.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from sendengine.core.outcomes import Abandoned
from sendengine.engine import endings
from sendengine.engine.sealed import Sealed, Share

if TYPE_CHECKING:
    from sendengine.engine.lane import Lane

TURN: Final = 128
"""So many are settled in one turn of the loop: one or two milliseconds of work, and as much for those who wait."""


class Leaving:
    """One lane's. What is given to it, or waits in the lane's source, settles soon, and a few of them at once."""

    __slots__ = ("_done", "_lane", "_next", "_requests", "_rest", "_round")

    def __init__(self, lane: "Lane") -> None:
        self._lane = lane
        self._requests: deque[Sealed] = deque()
        self._rest: Iterator[Share] = iter(())  # of what waits in the source
        self._round = False  # more may have come to the source since that was begun
        self._next: asyncio.Handle | None = None
        self._done = asyncio.Event()
        self._done.set()

    def abandon(self, requests: Iterable[Sealed] = ()) -> None:
        """Abandon requests that no worker has in hand, and all that waits in the source."""
        self._requests.extend(requests)
        self._round = True
        if self._next is None:
            self._settle()

    async def all_settled(self) -> None:
        """Wait until nothing is left; cancelling it changes nothing for that."""
        await self._done.wait()

    def _settle(self) -> None:
        left = self._take(TURN)  # first, what hangs on a request's answer too: its end must seal nothing any more
        self._lane.books.book([(receipt, ids, Abandoned(receipt.is_begun, ids)) for receipt, ids in left])
        room = TURN - len(left)
        while self._requests and room > 0:
            sealed = self._requests.popleft()
            room -= len(sealed.shares)
            endings.abandon(self._lane, sealed)
        if room > 0:
            self._next = None
            self._done.set()
        else:
            self._done.clear()
            self._next = self._lane.loop.call_soon(self._settle)

    def _take(self, count: int) -> list[Share]:
        """Take so many out of the source; fewer where it has no more."""
        left = list(islice(self._rest, count))
        if len(left) < count and self._round:
            self._round = False
            self._rest = iter(self._lane.source.withdraw_all())
            left += islice(self._rest, count - len(left))
        return left
