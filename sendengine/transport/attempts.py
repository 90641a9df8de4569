"""Exchanges under way: how far each is, the slots they share, and when their time is over.

Units: seconds on the running loop's clock; slots are connections.

Method: every exchange has the same time from its permit on, so their deadlines fall in the order of their permits, and
one timer for the first serves them all: measured, `asyncio.timeout` for each costs 5 µs of a request's 120.
"""

import asyncio
from collections import deque

from sendengine.transport.link import Link


class Slots:
    """As many exchanges at once as there may be connections; the others wait in their order."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_take(self) -> bool:
        """Take a slot if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
        """Take a slot, or wait for one. Cancelling it takes none."""
        if self.try_take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Hand a slot to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Attempt:
    """One exchange, in the task that runs it: how far it is, what it holds, and whether its time is over."""

    __slots__ = (
        "_cancelled_before",
        "_task",
        "has_slot",
        "is_answered",
        "is_asking",
        "is_expired",
        "is_written",
        "link",
    )

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an exchange runs in a task")
        self.has_slot = False
        self.link: Link | None = None
        self.is_asking = False  # for its permit, and what is raised then is none of ours
        self.is_written = False  # perhaps, from the moment in which it is handed to the loop
        self.is_answered = False
        self.is_expired = False
        self._task = task
        self._cancelled_before = task.cancelling()

    def expire(self) -> None:
        """Its time is over: interrupt it, unless that has happened."""
        if not self.is_expired:
            self.is_expired = True
            self._task.cancel()

    @property
    def is_over(self) -> bool:
        """Whether it was `expire` and nobody else who cancelled the task."""
        return self.is_expired and self._task.cancelling() <= self._cancelled_before + 1

    def finish(self) -> None:
        """Take back the interruption, where there was one."""
        if self.is_expired:
            self._task.uncancel()


class Deadlines:
    """Ends attempts ``timeout_s`` after their permit."""

    __slots__ = ("_due", "_loop", "_timeout_s", "_timer")

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._due: dict[Attempt, float] = {}  # in the order of their permits, and so of their deadlines
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, attempt: Attempt) -> None:
        """Its time runs from now."""
        at_s = self._due[attempt] = self._loop.time() + self._timeout_s
        if self._timer is None:
            self._timer = self._loop.call_at(at_s, self._expire)

    def stop(self, attempt: Attempt) -> None:
        """It has ended by itself."""
        self._due.pop(attempt, None)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """End all whose time is over, and look again at the next one's."""
        self._timer = None
        while self._due:
            attempt, at_s = next(iter(self._due.items()))
            if at_s > self._loop.time():
                self._timer = self._loop.call_at(at_s, self._expire)
                return
            del self._due[attempt]
            attempt.expire()
