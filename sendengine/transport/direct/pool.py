"""Connections with room for one more exchange: who gets which, and when another one is opened.

Units: connections, and exchanges: a connection has room for one (HTTP/1.1) or for many (HTTP/2).

Method: the connection that came free last goes first, so that those which are not needed grow old in peace; whoever
finds none waits in its order, for one that comes free or for one that is opened meanwhile, whichever is there first.
How many are being opened at once, and when none, is said by `sendengine.transport.direct.pacing`. A dial that fails is
told to whoever has waited for longest, and to all who waited when it began if there is no connection left that could
come free.

How many exchanges the next connection will carry is what the newest one does that carries any: servers that are being
replaced may speak another protocol. Until one is open it may not be known, and then only `SCOUTS` are opened. Where it
falls to less than half, because servers have cut their limits, few are opened at once: the limits may rise again, and
what is open by then is too many. Where a connection carries several, another is opened ahead of need, as soon as the
room that is left is less than a quarter of one and 2 % of all. What is sent in one turn of the loop goes over one
connection, in one write; the next turn's goes over another (`rotate`), so that all have their part.

A connection is whatever does `sendengine.transport.direct.contract.Connection`: nothing here knows a protocol.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from math import ceil, inf
from typing import Final

from sendengine.errors import NotSentError
from sendengine.transport.direct.bound import ConnectionBound
from sendengine.transport.direct.contract import Connection, DismissedError
from sendengine.transport.direct.pacing import SCOUTS, Pacing
from sendengine.transport.failures import words
from sendengine.transport.warming import Warming

CLOSED: Final = "the transport was closed before the request was written"
_DISMISSED: Final = "no connection: the server ended it as soon as it was open"
_TRIES: Final = 3  # connections that are lost between being there and being taken, before an exchange gives up
_SPARE_OF_ONE: Final = 0.25
_SPARE_OF_ALL: Final = 0.02
_RETRY_S: Final = 1.0  # before another is opened ahead of need after one that failed


class Pool:
    """Connections to one host, at most ``max_connections``. Make it on a running loop."""

    __slots__ = (
        "_ahead",
        "_bound",
        "_calls",
        "_dial",
        "_dialing",
        "_dials",
        "_emptied",
        "_free",
        "_is_closed",
        "_loop",
        "_max",
        "_no_ahead_s",
        "_open",
        "_pacing",
        "_rooms",
        "_seen",
        "_stopping",
        "_waiting",
        "_warming",
        "busy",
        "capacity",
        "width",
    )

    def __init__(
        self,
        dial: Callable[[], Awaitable[Connection]],
        *,
        max_connections: int,
        width: int | None = 1,
        bound: ConnectionBound | None = None,
    ) -> None:
        """``dial`` opens a connection, which reports by `lost` when it is gone; it raises NotSentError.

        ``width`` is how many exchanges one will carry, None where that is not known; ``bound`` several pools share.
        """
        self.width = width  # from then on the most that an open one carries, or did when there were any
        self.capacity = 0  # how many exchanges the open connections carry at once
        self.busy = 0  # exchanges that have claimed their room, on connections that count them here
        self._dial = dial
        self._max = max_connections
        self._bound = ConnectionBound(max_connections) if bound is None else bound
        self._bound.join(self)
        self._loop = asyncio.get_running_loop()
        self._open: dict[Connection, int] = {}  # with the room that is counted in ``capacity``
        self._rooms: dict[int, int] = {}  # how many of them have so much, where they have any
        self._seen = 0  # how much the newest of those has, or had when there were any last
        self._free: OrderedDict[Connection, None] = OrderedDict()  # that have room, the next one last
        self._waiting: OrderedDict[asyncio.Future[Connection], int] = OrderedDict()  # with the number of the call
        self._calls = 0
        self._dials: dict[asyncio.Task[None], int] = {}  # for those who wait; with the number of calls before
        self._stopping: set[asyncio.Task[None]] = set()  # dials that nobody needs any more
        self._dialing = 0  # with those that warming opens
        self._ahead = inf  # more exchanges than that, and another connection is opened
        self._no_ahead_s = 0.0  # until then none is
        self._pacing = Pacing(self._dial_more)
        self._warming = Warming(self._warm_one, open_count=self._open.__len__)
        self._emptied = asyncio.Event()
        self._is_closed = False

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Give those that are open."""
        return iter(list(self._open))

    def take(self) -> Connection | None:
        """Claim room on the connection that came free last; None where there is none."""
        free = self._free
        while free:
            connection = free.popitem()[0]
            room = connection.claim()
            if room:
                if room > 1:
                    free[connection] = None
                if self.busy > self._ahead:
                    self._dial_more()
                return connection
        return None

    async def obtain(self) -> Connection:
        """Claim a connection that is idle, comes free or is opened. Raises NotSentError where none can be opened.

        Cancelling it gives a connection that has just come to whoever is next.
        """
        free = None if self._is_closed else self.take()
        if free is not None:
            return free
        self._calls += 1
        number = self._calls
        for attempt in range(_TRIES):
            if self._is_closed:
                raise NotSentError(CLOSED)
            connection = await self._wait(number, is_first=attempt > 0)
            if not connection.is_gone:
                return connection
            connection.give_back()
            if self._pacing.is_resting and not self.capacity:
                break
        raise NotSentError(_DISMISSED)

    def offer(self, connection: Connection) -> None:
        """Take a connection that has room for more; whoever waits gets it first."""
        waiting = self._waiting
        if not waiting:
            self._free[connection] = None
            return
        while waiting and connection.has_room:
            waiter, number = waiting.popitem(last=False)
            if waiter.done():
                continue
            if not connection.claim():
                waiting[waiter] = number
                waiting.move_to_end(waiter, last=False)
                return
            waiter.set_result(connection)
        if connection.has_room:
            self._free[connection] = None

    def withdraw(self, connection: Connection) -> None:
        """Offer it no more."""
        self._free.pop(connection, None)

    def rotate(self, connection: Connection) -> None:
        """Let all others that have room go before it."""
        if connection in self._free:
            self._free.move_to_end(connection, last=False)

    def resized(self, connection: Connection) -> None:
        """Take note of a connection whose room has changed."""
        counted = self._open.get(connection)
        if counted is None:
            return
        room = self._open[connection] = connection.room
        self._recount(counted, room)

    def proven(self, connection: Connection) -> None:
        """Take note of a connection that has carried a reply."""
        self._pacing.proven(connection)

    def ended(self, connection: Connection, *, has_served: bool) -> None:
        """Take note of a connection that the server has ended; if none is opened now, those who wait are told.

        ``has_served`` says that anything of an answer has come over it.
        """
        if has_served:
            self._pacing.proven(connection)
        elif not self._is_closed and self._pacing.was_dismissed(
            connection, is_alone=self.capacity <= self._open.get(connection, 0)
        ):
            self._recount(self._open[connection], 0)
            self._open[connection] = 0
            if self._pacing.is_resting:
                self.refuse(_DISMISSED)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._free.pop(connection, None)
        self._pacing.forget(connection)
        self._recount(self._open.pop(connection, 0), 0)
        self._bound.gone(connection)
        if not self._open:
            self._emptied.set()

    @property
    def claimed(self) -> int:
        """How many connections are open, or being opened."""
        return len(self._open) + self._dialing

    def give_up(self) -> Connection | None:
        """Let go of a connection without which there is room for all that is under way, the one used longest ago."""
        spare = 0 if self._waiting else self.capacity - self.busy
        connection = next((connection for connection in self._free if connection.room <= spare), None)
        if connection is not None:
            self._pacing.forget(connection)  # it is not the server that ends it
            connection.retire()
        return connection

    def go_on(self) -> None:
        """There may be room for another connection: open what somebody waits for."""
        if self._waiting:
            self._dial_more()

    def refuse(self, why: str) -> None:
        """Tell those who wait that a connection is of no use after all, unless another may come free or be opened."""
        if not self.capacity and not self._dials:
            self._refuse(NotSentError(why), self._calls)
        self._dial_more()

    async def warm(self, count: int) -> None:
        """Open connections until they carry ``count`` exchanges at once, or no more can be opened for now."""
        while not self._is_closed and self.capacity < count and not self._pacing.is_resting:
            before, capacity, width = len(self._open), self.capacity, self._seen or self.width
            missing = min(SCOUTS, count) if width is None else ceil((count - capacity) / width)
            missing = min(missing, self._pacing.at_once) if self._pacing.is_slow else missing
            await self._warming.reach(min(before + missing, self._max))
            if self.capacity <= capacity:
                return

    async def aclose(self) -> None:
        """Cut every connection and every dial; return when all are gone."""
        self._is_closed = True
        self._pacing.close()
        for waiter in list(self._waiting):
            if not waiter.done():
                waiter.set_exception(NotSentError(CLOSED))
        self._waiting.clear()
        for connection in self:
            connection.cut()
        dials = [*self._dials, *self._stopping]
        for task in dials:
            task.cancel()
        await self._warming.aclose()
        await asyncio.gather(*dials, return_exceptions=True)
        if self._open:
            self._emptied.clear()
            await self._emptied.wait()
        self._bound.leave(self)
        await asyncio.sleep(0)  # uvloop closes a socket one step after it says so

    async def _wait(self, number: int, *, is_first: bool) -> Connection:
        """Wait for a connection, behind all others or before them; its room is claimed by then."""
        waiter: asyncio.Future[Connection] = self._loop.create_future()
        self._waiting[waiter] = number
        if is_first:
            self._waiting.move_to_end(waiter, last=False)
        self._dial_more()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    @property
    def _has_room(self) -> bool:
        return self.claimed < self._max and not self._is_closed and self._bound.has_room

    def _recount(self, before: int, room: int) -> None:
        """Take note that a connection has so much room, and had as much before."""
        self.capacity += room - before
        rooms = self._rooms
        if before:
            rooms[before] -= 1
            if not rooms[before]:
                del rooms[before]
        if room:
            rooms[room] = rooms.get(room, 0) + 1
        if rooms:
            self.width = max(rooms)
            newest = next((each for each in reversed(self._open.values()) if each), self.width)
            if 2 * newest < self._seen:
                self._pacing.slow_down()
            self._seen = newest
        self._reckon()

    def _reckon(self) -> None:
        """See from how many exchanges on there is too little room left, with what is being opened."""
        width = self._seen or self.width
        if width is None or width == 1 or not self._has_room:
            self._ahead = inf
        else:
            capacity = self.capacity + self._dialing * width
            self._ahead = capacity * (1 - _SPARE_OF_ALL) - width * _SPARE_OF_ONE

    def _wanted(self) -> int:
        """How many are to be in the opening for those who wait, and ahead of need."""
        waiting, width = len(self._waiting), self._seen or self.width
        if width is None:
            return min(waiting, SCOUTS)
        if width == 1 or not self.busy or self._loop.time() < self._no_ahead_s:
            return ceil(waiting / width)
        needed = (self.busy + waiting + width * _SPARE_OF_ONE) / (1 - _SPARE_OF_ALL)
        return max(ceil(waiting / width), ceil((needed - self.capacity) / width))

    def _dial_more(self) -> None:
        """Open as many as are wanted, and not too many at once."""
        if self._pacing.is_resting or self._is_closed:
            return
        missing = self._wanted() - len(self._dials)
        while missing > 0 and self._dialing < self._pacing.at_once and self._has_room:
            missing -= 1
            self._dialing += 1
            task = self._loop.create_task(self._dial_one())
            self._dials[task] = self._calls
            task.add_done_callback(self._dialed)
        if missing > 0 and self._waiting and not self._bound.has_room:
            self._bound.ask(self, missing)
        self._reckon()

    def _dialed(self, task: asyncio.Task[None]) -> None:
        self._dialing -= 1
        self._stopping.discard(task)
        calls = self._dials.pop(task, 0)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._no_ahead_s = self._loop.time() + _RETRY_S
            if self.capacity or isinstance(error, DismissedError):
                self._pacing.came_to_nothing(is_alone=not self.capacity)
            self._refuse(error, calls)
        self._dial_more()
        self._bound.freed()

    def _refuse(self, error: BaseException, calls: int) -> None:
        """Tell of a dial that began when there had been ``calls`` calls."""
        text = str(error) if isinstance(error, NotSentError) else f"no connection: {words(error)}"
        while self._waiting:
            waiter, number = next(iter(self._waiting.items()))
            if number > calls:
                return
            del self._waiting[waiter]
            if not waiter.done():
                waiter.set_exception(NotSentError(text))
                if self.capacity:
                    return

    async def _dial_one(self) -> None:
        """Open a connection and offer it; known from then on, as uvloop never says that a cancelled dial's is lost."""
        connection = await self._dial()
        if connection.is_gone:
            raise DismissedError("no connection: closed as soon as it was open")
        self._open[connection] = 0
        if self._is_closed:
            connection.cut()
            return
        connection.enter()
        self.resized(connection)
        self._pacing.came(connection)

    async def _warm_one(self) -> bool:
        """Open a connection and offer it; False where that failed or there is no room."""
        if not self._has_room or self._pacing.is_resting:
            return False
        self._dialing += 1
        try:
            await self._dial_one()
        except NotSentError as error:
            if isinstance(error, DismissedError):
                self._pacing.came_to_nothing(is_alone=not self.capacity)
            return False
        finally:
            self._dialing -= 1
            self._dial_more()
            self._bound.freed()
        return True

    def _leave(self, waiter: asyncio.Future[Connection]) -> None:
        """Somebody waits no more: pass on what it was given, and stop a dial that nobody needs now."""
        if self._waiting.pop(waiter, None) is None and not waiter.cancelled():
            if waiter.exception() is None:
                waiter.result().give_back()
        elif len(self._dials) > self._wanted():
            task, _ = self._dials.popitem()
            self._stopping.add(task)
            task.cancel()
