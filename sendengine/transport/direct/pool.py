"""Connections with room for one more exchange: who gets which, and when another one is opened.

Units: connections.

Method: the connection that came free last goes first, so that those which are not needed grow old in peace; whoever
finds none waits in its order, for one that comes free or for one that is opened meanwhile, whichever is there first.
At most `AT_ONCE` are being opened for them, so that a thousand lost connections do not come back as a thousand
handshakes at once. A dial that fails is told to whoever has waited for longest, and to all who waited when it began
if there is no connection left that could come free.

A connection is whatever does `Connection`: nothing here knows how many exchanges one carries, or in which protocol.
One that has room for several offers itself again as soon as it is claimed.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from sendengine.errors import NotSentError
from sendengine.ports import Reply, WireRequest
from sendengine.transport.failures import words
from sendengine.transport.warming import AT_ONCE, Warming

CLOSED: Final = "the transport was closed before the request was written"
_TRIES: Final = 3  # connections that are lost between being there and being taken, before an exchange gives up


class Connection(Protocol):
    """What the pool, and an exchange, need of a connection."""

    def claim(self) -> bool:
        """Take the room for one exchange; False where it is not to be used any more, and closed by now."""
        ...

    def give_back(self) -> None:
        """Return the room that was claimed and not used."""
        ...

    def send(self, request: WireRequest) -> asyncio.Future[Reply]:
        """Use the room that was claimed.

        Raises NotSentError where nothing was written, and ReplyLostError where that is not certain; the future ends
        in ReplyLostError. The caller abandons it where it stops to wait for it.
        """
        ...

    def abandon(self, reply: asyncio.Future[Reply]) -> None:
        """Nobody waits for this reply any more, if it is not there yet."""
        ...

    def cut(self) -> None:
        """Close at once, since the transport does."""
        ...


class Pool:
    """Connections to one host, at most ``max_connections``. Make it on a running loop."""

    __slots__ = (
        "_calls",
        "_dial",
        "_dialing",
        "_dials",
        "_emptied",
        "_idle",
        "_is_closed",
        "_loop",
        "_max",
        "_open",
        "_stopping",
        "_waiting",
        "_warming",
    )

    def __init__(self, dial: Callable[[], Awaitable[Connection]], *, max_connections: int) -> None:
        """``dial`` opens a connection, which reports by `lost` when it is gone; it raises NotSentError."""
        self._dial = dial
        self._max = max_connections
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # in the order in which they came free
        self._waiting: OrderedDict[asyncio.Future[Connection], int] = OrderedDict()  # with the number of the call
        self._calls = 0
        self._dials: dict[asyncio.Task[None], int] = {}  # for those who wait; with the number of calls before
        self._stopping: set[asyncio.Task[None]] = set()  # dials that nobody needs any more
        self._dialing = 0  # with those that warming opens
        self._warming = Warming(self._warm_one, open_count=self._open.__len__)
        self._emptied = asyncio.Event()
        self._is_closed = False

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def take(self) -> Connection | None:
        """Claim the idle connection that came free last; None where there is none."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.claim():
                return connection
        return None

    async def obtain(self) -> Connection:
        """Claim a connection that is idle, comes free or is opened. Raises NotSentError where none can be opened.

        Cancelling it gives a connection that has just come to whoever is next.
        """
        idle = None if self._is_closed else self.take()
        if idle is not None:
            return idle
        self._calls += 1
        number = self._calls
        for attempt in range(_TRIES):
            if self._is_closed:
                raise NotSentError(CLOSED)
            connection = await self._wait(number, is_first=attempt > 0)
            if connection.claim():
                return connection
        raise NotSentError("no connection: each was closed as soon as it was there")

    def offer(self, connection: Connection) -> None:
        """Take a connection that has room for one more exchange."""
        waiting = self._waiting
        while waiting:
            waiter, _ = waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle[connection] = None

    def withdraw(self, connection: Connection) -> None:
        """Offer it no more."""
        self._idle.pop(connection, None)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
        if self._waiting:
            self._dial_more()
        if not self._open:
            self._emptied.set()

    async def warm(self, count: int) -> None:
        """Open connections until ``count`` are open, or no more can be opened."""
        if not self._is_closed:
            await self._warming.reach(min(count, self._max))

    async def aclose(self) -> None:
        """Cut every connection and every dial; return when all are gone."""
        self._is_closed = True
        for waiter in list(self._waiting):
            if not waiter.done():
                waiter.set_exception(NotSentError(CLOSED))
        self._waiting.clear()
        for connection in list(self._open):
            connection.cut()
        dials = [*self._dials, *self._stopping]
        for task in dials:
            task.cancel()
        await self._warming.aclose()
        await asyncio.gather(*dials, return_exceptions=True)
        if self._open:
            self._emptied.clear()
            await self._emptied.wait()
        await asyncio.sleep(0)  # uvloop closes a socket one step after it says so

    async def _wait(self, number: int, *, is_first: bool) -> Connection:
        """Wait for a connection, behind all others or before them."""
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
        return len(self._open) + self._dialing < self._max and not self._is_closed

    def _dial_more(self) -> None:
        """Open as many as are waited for, and not too many at once."""
        while len(self._dials) < len(self._waiting) and self._dialing < AT_ONCE and self._has_room:
            self._dialing += 1
            task = self._loop.create_task(self._dial_one())
            self._dials[task] = self._calls
            task.add_done_callback(self._dialed)

    def _dialed(self, task: asyncio.Task[None]) -> None:
        self._dialing -= 1
        self._stopping.discard(task)
        calls = self._dials.pop(task, 0)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._refuse(error, calls)
        self._dial_more()

    def _refuse(self, error: BaseException, calls: int) -> None:
        """Tell of a dial that began when there had been ``calls`` calls."""
        text = str(error) if isinstance(error, NotSentError) else f"no connection: {words(error)}"
        waiting = self._waiting
        while waiting:
            waiter = next(iter(waiting))
            if waiting[waiter] > calls:
                return
            del waiting[waiter]
            if not waiter.done():
                waiter.set_exception(NotSentError(text))
                if self._open:
                    return

    async def _dial_one(self) -> None:
        """Open a connection and offer it.

        It is known from here on, and not from the moment when the loop makes it: where a dial is cancelled in between,
        uvloop never says that the connection is lost.
        """
        connection = await self._dial()
        if not connection.claim():
            raise NotSentError("no connection: closed as soon as it was open")
        self._open.add(connection)
        if self._is_closed:
            connection.cut()
        else:
            connection.give_back()

    async def _warm_one(self) -> bool:
        """Open a connection and offer it; False where that failed or there is no room."""
        if not self._has_room:
            return False
        self._dialing += 1
        try:
            await self._dial_one()
        except NotSentError:
            return False
        finally:
            self._dialing -= 1
            self._dial_more()
        return True

    def _leave(self, waiter: asyncio.Future[Connection]) -> None:
        """Somebody waits no more: pass on what it was given, and stop a dial that nobody needs now."""
        if self._waiting.pop(waiter, None) is None and not waiter.cancelled():
            if waiter.exception() is None:
                waiter.result().give_back()
        elif len(self._dials) > len(self._waiting):
            task, _ = self._dials.popitem()
            self._stopping.add(task)
            task.cancel()
