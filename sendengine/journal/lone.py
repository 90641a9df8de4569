"""Requests that are not written, because everything about them is in their jobs: those of jobs that go alone.

Such a job has one recipient, no deadline, and its request's key from its acceptance on. What has to be known of it
after a crash is whether it may have been sent. For that there is a frontier for each app and urgency
(`sendengine.journal.frontier`), counted in the jobs' ids: they are sent in the order of their acceptance, or nearly.
A frontier is on disk before any job with an id before it goes, and runs ahead of them by a quarter second, so that
none waits for the disk while many are sent.

Where the engine ends in good order it is known which of them have been sent: those are marked, and the frontiers are
set back.

Units: ``_s`` seconds on the running loop's clock.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, TypeAlias

from sendengine.errors import StorageError
from sendengine.journal.connection import afresh
from sendengine.journal.frontier import Frontier
from sendengine.journal.records import JobEntry
from sendengine.journal.store import Store

_Line: TypeAlias = tuple[str, str]
"""App and urgency."""

_PREFIX: Final = "lone/"
_EVERY_ID: Final = 2**63


class LoneRequests:
    """Which jobs that go alone may be on the wire. ``values`` are those of the store when it was opened."""

    __slots__ = ("_earlier", "_high", "_is_damaged", "_normal", "_now_s", "_out", "_store", "_waiting")

    def __init__(self, store: Store, values: Mapping[str, bytes], *, is_damaged: bool) -> None:
        self._store = store
        self._is_damaged = is_damaged
        self._earlier = {name: _read(value) for name, value in values.items() if name.startswith(_PREFIX)}
        self._now_s = asyncio.get_running_loop().time
        self._normal: dict[str, Frontier] = {}  # by the name of the app
        self._high: dict[str, Frontier] = {}
        self._out: set[int] = set()  # what may have been sent, by this process or an earlier one
        self._waiting: dict[_Line, list[tuple[int, asyncio.Future[StorageError | None]]]] = {}

    def may_have_gone(self, job: int, entry: JobEntry) -> bool:
        """Whether an earlier process may have sent it; a damaged file does not tell."""
        return self._is_damaged or job < self._earlier.get(_name(_line_of(entry)), 0)

    def came_back(self, job: int) -> None:
        """An earlier process may have sent it."""
        self._out.add(job)

    def may_go(self, job: int, entry: JobEntry) -> bool:
        """Whether it may be sent at once, and is from now on what may have been sent."""
        frontiers = self._high if entry.job.urgency == "high" else self._normal
        frontier = frontiers.get(entry.app)
        if frontier is None:
            frontier = frontiers[entry.app] = Frontier(self._earlier.get(_name(_line_of(entry)), 0))
        end = frontier.pull(job, job + 1, now_s=self._now_s())
        if end is not None:
            self._move(_line_of(entry), frontier, end)
        self._out.add(job)
        return job < frontier.durable

    async def until_it_may_go(self, job: int, entry: JobEntry) -> None:
        """Wait until the frontier is behind it. Raises StorageError; cancelling it costs nothing."""
        line = _line_of(entry)
        if job < (self._high if entry.job.urgency == "high" else self._normal)[entry.app].durable:
            return
        if (failure := self._store.failure) is not None:
            raise failure
        waiter: asyncio.Future[StorageError | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(line, []).append((job, waiter))
        if (error := await waiter) is not None:
            raise error

    def over(self, job: int) -> None:
        """It has settled, or was certainly not sent."""
        self._out.discard(job)

    def set_back(self) -> frozenset[int]:
        """Let no id stand for what may have been sent any more; returns what has to say so itself from now on."""
        names = {name for name, end in self._earlier.items() if end}
        names.update(_name((app, "normal")) for app in self._normal)
        names.update(_name((app, "high")) for app in self._high)
        for name in names:
            self._store.set_value(name, _written(0))
        for kept in (self._normal, self._high, self._earlier):
            kept.clear()
        return frozenset(self._out)

    def _move(self, line: _Line, frontier: Frontier, end: int) -> None:
        def done(error: StorageError | None) -> None:
            if error is None:
                frontier.durable = max(frontier.durable, end)
            waiting = self._waiting.pop(line, ())
            for job, waiter in waiting:
                if error is None and job >= frontier.durable:
                    self._waiting.setdefault(line, []).append((job, waiter))
                elif not waiter.done():
                    waiter.set_result(afresh(error))

        self._store.set_value(_name(line), _written(end), done=done)


def _line_of(entry: JobEntry) -> _Line:
    return entry.app, entry.job.urgency


def _name(line: _Line) -> str:
    app, urgency = line
    return f"{_PREFIX}{urgency}/{app}"


def _written(end: int) -> bytes:
    return b"%d" % end


def _read(value: bytes) -> int:
    """Return a frontier; where it cannot be understood, every job may have been sent."""
    return int(value) if value.isdigit() else _EVERY_ID
