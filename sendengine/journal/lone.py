"""Requests that are not written, because everything about them is in their jobs: those of jobs that go alone.

Such a job has one recipient, no deadline, and its request's key from its acceptance on. What has to be known of it
after a crash is whether it may have been sent. For that there is a frontier for each app and urgency, as a campaign has
one for its rows (`sendengine.journal.frontier`), but in the jobs' ids: they are sent in the order of their acceptance,
or nearly. A frontier is on disk before any job with an id before it goes, and runs ahead of them by a quarter second,
so that none waits for the disk while many are sent.

Where the engine ends in good order it is known which of them may have been sent: those are marked, and the frontiers
are set back.

Units: ``_s`` seconds on the running loop's clock.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from sendengine.errors import StorageError
from sendengine.journal.connection import afresh
from sendengine.journal.frontier import AHEAD_S
from sendengine.journal.records import JobEntry
from sendengine.journal.store import Store

_PREFIX: Final = "lone/"
_EVERY_ID: Final = 2**63


class LoneRequests:
    """Which jobs that go alone may be on the wire. ``values`` are those of the store when it was opened."""

    __slots__ = ("_earlier", "_high", "_is_damaged", "_normal", "_out", "_store")

    def __init__(self, store: Store, values: Mapping[str, bytes], *, is_damaged: bool) -> None:
        self._store = store
        self._is_damaged = is_damaged
        self._earlier = {name: _read(value) for name, value in values.items() if name.startswith(_PREFIX)}
        self._normal: dict[str, _Line] = {}  # by the name of the app
        self._high: dict[str, _Line] = {}
        self._out: set[int] = set()  # what may have been sent, by this process or an earlier one

    def may_have_gone(self, job: int, entry: JobEntry) -> bool:
        """Whether an earlier process may have sent it; a damaged file does not tell."""
        return self._is_damaged or job < self._earlier.get(_name(entry), 0)

    def came_back(self, job: int) -> None:
        """An earlier process may have sent it."""
        self._out.add(job)

    def none_behind(self, next_id: int) -> None:
        """No job has this id or one behind it yet: what ran ahead of them says nothing of those that get them."""
        for name, end in self._earlier.items():
            if end > next_id:
                self._earlier[name] = next_id
                self._store.set_value(name, _written(next_id))

    def may_go(self, job: int, entry: JobEntry) -> bool:
        """Whether it may be sent at once, and is from now on what may have been sent."""
        lines = self._high if entry.job.urgency == "high" else self._normal
        line = lines.get(entry.app)
        if line is None:
            name = _name(entry)
            line = lines[entry.app] = _Line(self._store, name, self._earlier.get(name, 0))
        if job >= line.moves_at:
            line.move(job)
        self._out.add(job)
        return job < line.durable

    async def until_it_may_go(self, job: int, entry: JobEntry) -> None:
        """Wait until the frontier is behind it. Raises StorageError; cancelling it costs nothing."""
        await (self._high if entry.job.urgency == "high" else self._normal)[entry.app].until_behind(job)

    def over(self, job: int) -> None:
        """It has settled, or was certainly not sent."""
        self._out.discard(job)

    @property
    def out(self) -> frozenset[int]:
        """What may have been sent."""
        return frozenset(self._out)

    def set_back(self) -> None:
        """Let no id stand for what may have been sent any more, when all that was put before this is on disk."""
        names = {name for name, end in self._earlier.items() if end}
        names.update(line.name for lines in (self._normal, self._high) for line in lines.values())
        for name in names:
            self._store.set_value(name, _written(0), is_ordered=True)
        for kept in (self._normal, self._high, self._earlier, self._out):
            kept.clear()


class _Line:
    """The jobs of one app and urgency, in the order of their ids.

    ``durable`` is the frontier on disk: those before it may go. It is to be moved when a job is pulled at or behind
    ``moves_at``, halfway between what was pulled then and what it was moved to.
    """

    __slots__ = ("_ahead", "_end", "_from", "_loop", "_since_s", "_store", "_waiting", "durable", "moves_at", "name")

    def __init__(self, store: Store, name: str, durable: int) -> None:
        self.name = name
        self.durable = durable
        self.moves_at = durable
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._end = durable  # where it was moved to
        self._ahead = 0  # by how many ids it was moved ahead,
        self._from = 0  # from which
        self._since_s = float("-inf")  # and when
        self._waiting: list[tuple[int, asyncio.Future[StorageError | None]]] = []

    def move(self, job: int) -> None:
        """Move it ahead of a job that was pulled, by as many ids as pass in `AHEAD_S`, growing twofold at most."""
        now_s = self._loop.time()
        soon = int((job - self._from) * AHEAD_S / max(now_s - self._since_s, 0.001))
        self._ahead = max(1, min(soon, 2 * self._ahead))
        self._from, self._since_s = job, now_s
        end = self._end = max(self._end, job + 1 + self._ahead)  # never back: those before it go without asking again
        self.moves_at = end - self._ahead // 2

        def done(error: StorageError | None) -> None:
            self._moved(end, error)

        self._store.set_value(self.name, _written(end), done=done)

    async def until_behind(self, job: int) -> None:
        """Wait until it is on disk that the frontier is behind a job. Raises StorageError."""
        if job < self.durable:
            return
        if (failure := self._store.failure) is not None:
            raise failure
        waiter: asyncio.Future[StorageError | None] = self._loop.create_future()
        self._waiting.append((job, waiter))
        if (error := await waiter) is not None:
            raise error

    def _moved(self, end: int, error: StorageError | None) -> None:
        if error is None:
            self.durable = max(self.durable, end)
        waiting, self._waiting = self._waiting, []
        for job, waiter in waiting:
            if error is None and job >= self.durable:
                self._waiting.append((job, waiter))
            elif not waiter.done():
                waiter.set_result(afresh(error))


def _name(entry: JobEntry) -> str:
    return f"{_PREFIX}{entry.job.urgency}/{entry.app}"


def _written(end: int) -> bytes:
    return b"%d" % end


def _read(value: bytes) -> int:
    """Return a frontier; where it cannot be understood, every job may have been sent."""
    return int(value) if value.isdigit() else _EVERY_ID
