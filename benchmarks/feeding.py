"""Gives jobs to an engine for a while, sees that every one of them settles as accepted, and what that costs.

Units: seconds; CPU is of this process, all threads and the kernel's part included.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from time import perf_counter, process_time
from typing import TypeVar

from sendengine import Accepted, Job, Receipt, SendEngine
from sendengine.core.outcomes import OUTCOME_NAMES

_T = TypeVar("_T")


class Feed:
    """Jobs submitted to one engine; ``outcomes`` counts what came of them."""

    __slots__ = ("_engine", "_idle", "outcomes", "settled", "submitted")

    def __init__(self, engine: SendEngine) -> None:
        self._engine = engine
        self._idle = asyncio.Event()
        self.submitted = 0
        self.settled = 0
        self.outcomes: Counter[str] = Counter()

    async def submit(self, jobs: Iterable[Job]) -> None:
        """Submit jobs as fast as there is room, and let the loop turn meanwhile."""
        for job in jobs:
            self._note(await self._engine.submit(job))

    def submit_at_once(self, jobs: Iterable[Job]) -> None:
        """Submit jobs before anything is sent; raises IntakeFullError where there is no room for all."""
        for job in jobs:
            self._note(self._engine.submit_nowait(job))

    async def all_accepted(self) -> None:
        """Wait until all have settled. Raises AssertionError where one was not accepted."""
        while self.settled < self.submitted:
            self._idle.clear()
            await self._idle.wait()
        self.check("accepted")

    def check(self, *expected: str) -> None:
        """Raise AssertionError where a job has settled in any other way."""
        assert self.outcomes.keys() <= set(expected), f"expected {expected}, got {dict(self.outcomes)}"

    def _note(self, receipt: Receipt) -> None:
        self.submitted += 1
        receipt.add_done_callback(self._settle)

    def _settle(self, receipt: Receipt) -> None:
        self.settled += 1
        self.outcomes[OUTCOME_NAMES[type(receipt.outcome)]] += 1
        if self.settled == self.submitted:
            self._idle.set()


class Filling:
    """Keeps so many jobs under way: another is submitted for each that settles, without a task for any of them.

    Await ``is_over``: it is set when all that were given have settled, and none are left.
    """

    __slots__ = ("_engine", "_jobs", "_under_way", "accepted", "is_over", "outcomes")

    def __init__(self, engine: SendEngine, jobs: Iterator[Job], *, under_way: int) -> None:
        self._engine = engine
        self._jobs = jobs
        self._under_way = 0
        self.accepted = 0
        self.outcomes: Counter[str] = Counter()
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for _ in range(under_way):
            self._submit()
        if not self._under_way:
            self.is_over.set_result(None)

    def stop(self) -> None:
        """Submit no more."""
        self._jobs = iter(())

    def check(self, *others: str) -> None:
        """Raise AssertionError where a job was not accepted, and did not end as one of ``others`` either."""
        assert self.outcomes.keys() <= set(others), f"not accepted: {dict(self.outcomes)}"

    def _submit(self) -> None:
        job = next(self._jobs, None)
        if job is not None:
            self._under_way += 1
            self._engine.submit_nowait(job).add_done_callback(self._settled)

    def _settled(self, receipt: Receipt) -> None:
        outcome = receipt.outcome
        if isinstance(outcome, Accepted):
            self.accepted += 1
        else:
            self.outcomes[OUTCOME_NAMES[type(outcome)]] += 1
        self._under_way -= 1
        self._submit()
        if not self._under_way and not self.is_over.done():
            self.is_over.set_result(None)


class Meter:
    """Time and CPU since it was made."""

    __slots__ = ("_cpu_s", "_wall_s")

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = process_time(), perf_counter()

    @property
    def wall_s(self) -> float:
        """Seconds that have passed."""
        return perf_counter() - self._wall_s

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that were used."""
        return process_time() - self._cpu_s

    @property
    def cores(self) -> float:
        """CPU as a share of one core."""
        return self.cpu_s / self.wall_s

    def until(self, seconds: float, items: Iterable[_T]) -> Iterator[_T]:
        """Pass items on until so many seconds have passed; the first one in any case."""
        for item in items:
            yield item
            if self.wall_s >= seconds:
                return
