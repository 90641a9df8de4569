"""A lane's workers: started when there is more to do than they can, parked when there is less.

Units: workers; each stands for an exchange under way: a connection, or one of its streams.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, Protocol

from sendengine.engine.app import App
from sendengine.engine.connections import WHOLE, ConnectionBudget

_AFTER_CRASH_S: Final = 1.0


class Worker(Protocol):
    """What the pool needs of a worker."""

    def wake(self) -> None:
        """There is something to do."""
        ...

    def run(self) -> Coroutine[object, object, None]:
        """Work until cancelled."""
        ...


class WorkerPool:
    """One lane's workers.

    ``when_crashed`` is told of an exception that a worker did not expect, ``when_ended`` of every end, so that
    another can do what that one would have done.
    """

    __slots__ = (
        "_app",
        "_connections",
        "_idle",
        "_make",
        "_name",
        "_tasks",
        "_when_crashed",
        "_when_ended",
        "connecting",
        "cost",
        "waking",
    )

    def __init__(
        self,
        *,
        name: str,
        app: App,
        connections: ConnectionBudget,
        make: Callable[[], Worker],
        when_crashed: Callable[[BaseException], None],
        when_ended: Callable[[], None],
    ) -> None:
        self.waking = 0  # parked workers on their way to take something
        self.connecting = 0  # new ones that open their connections first
        self.cost = WHOLE  # what a worker takes of a connection
        self._name = f"sendengine {name}"
        self._app = app
        self._connections = connections
        self._make = make
        self._when_crashed = when_crashed
        self._when_ended = when_ended
        self._tasks: dict[Worker, asyncio.Task[None]] = {}
        self._idle: dict[Worker, None] = {}  # in the order of parking
        connections.join(self)

    def __len__(self) -> int:
        """How many workers there are."""
        return len(self._tasks)

    @property
    def has_idle(self) -> bool:
        """Whether a worker is parked."""
        return bool(self._idle)

    @property
    def can_engage(self) -> bool:
        """Whether `engage` could put anybody to work; where not, whoever has finished takes what waits.

        Asked three times a request, so it looks at the budget's numbers before it asks the budget.
        """
        budget = self._connections
        if budget.idle or budget.left >= self.cost:
            return True
        return len(self._tasks) * self.cost < budget.part and budget.may_hold(self)

    @property
    def busy(self) -> int:
        """Workers that will soon take something; one that connects counts only where nobody is parked."""
        return self.waking if self._idle else self.waking + self.connecting

    @property
    def must_shrink(self) -> bool:
        """Whether a worker that has finished must go, because another lane needs its connection.

        Asked after each request and before parking, so it looks at the budget's numbers first, as `can_engage` does.
        """
        budget = self._connections
        return (budget.left < 0 or bool(budget.wanting)) and budget.asks_back(self)

    def engage(self) -> None:
        """Wake the worker that parked last, whose connection is the freshest, or start one if there is room for it."""
        if self._idle:
            self.waking += 1
            self._connections.idle -= 1
            self._idle.popitem()[0].wake()
        elif self._connections.try_hold(self):
            self.connecting += 1
            self._app.workers += 1
            worker = self._make()
            task = asyncio.get_running_loop().create_task(worker.run(), name=self._name)
            self._tasks[worker] = task
            task.add_done_callback(partial(self._ended, worker))

    def connected(self) -> None:
        """A new worker has its connection, or found none."""
        self.connecting -= 1
        self.fit()

    def fit(self) -> None:
        """Take note of how many exchanges the app's connections carry, as far as is known now."""
        cost = self._connections.cost_of(self._app.transport.max_exchanges)
        if cost != self.cost:
            self.cost = cost
            self._connections.recount()

    def park(self, worker: Worker) -> None:
        """A worker has nothing to do."""
        self._connections.idle += 1
        self._idle[worker] = None

    def retire_idle(self) -> bool:
        """End the worker that has been parked for longest; False where none is."""
        if not self._idle:
            return False
        worker = next(iter(self._idle))
        self.forget(worker)
        self._tasks[worker].cancel()
        return True

    def forget(self, worker: Worker) -> None:
        """A parked worker was cancelled, or is about to be."""
        if worker in self._idle:
            self._connections.idle -= 1
            del self._idle[worker]

    def when_room(self) -> None:
        """There may be room for one more worker now: see whether there is anything for it to do."""
        self._when_ended()

    async def aclose(self) -> None:
        """Cancel every worker, and wait for their ends."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, worker: Worker, task: asyncio.Task[None]) -> None:
        del self._tasks[worker]
        self._connections.release(self)
        self._app.workers -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            self._when_crashed(error)
            asyncio.get_running_loop().call_later(_AFTER_CRASH_S, self._when_ended)  # the next one may break likewise
        else:
            self._when_ended()
