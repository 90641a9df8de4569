"""Keeps house while a run goes on: stops what makes no sense any more, writes lines and status, obeys orders.

Units: seconds on the running loop's clock; a status carries seconds since the epoch.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from sendengine.campaign.control import Order, read_order
from sendengine.campaign.engineport import Watched
from sendengine.campaign.recorder import Recorder
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.status import State, Status, lanes_of, write_status
from sendengine.campaign.watch import OutageWatch, held_app
from sendengine.campaign.work import Work
from sendengine.errors import StorageError
from sendengine.journal.threads import on_a_thread

Reason = Literal["stopped", "aborted", "guard", "storage", "input"]

_LOOK_S: Final = 0.1
_LOOKS_A_FLUSH: Final = 3
_LOOKS_AN_ORDER: Final = 5
_LOOKS_A_STATUS: Final = 10


class House:
    """Of one run. ``stop_for`` is called with a reason and a sentence when going on makes no sense."""

    def __init__(
        self,
        work: Work,
        *,
        run_dir: RunDir,
        recorder: Recorder,
        max_outage_s: float,
        writes_lines: bool,
        problem: Callable[[], str | None],
        stop_for: Callable[[Reason, str], None],
    ) -> None:
        """``writes_lines`` where no journal does; ``problem`` says why a journal takes nothing at the moment."""
        self.apps: set[str | None] = set()
        self.is_stopping = False
        self._work = work
        self._run_dir = run_dir
        self._recorder = recorder
        self._outage = OutageWatch(max_s=max_outage_s)
        self._writes_lines = writes_lines
        self._problem = problem
        self._stop_for = stop_for
        self._started_at_s = time.time()
        self._order = Order()
        self._is_over = asyncio.Event()

    async def keep(self, engine: Watched) -> None:
        """Look after things until `leave` is called."""
        looks = 0
        while not await self._over_within(_LOOK_S):
            looks += 1
            self._look(engine)
            if self._writes_lines and looks % _LOOKS_A_FLUSH == 0 and self._recorder.has_lines:
                await self.write(self._recorder.flush)
            if looks % _LOOKS_AN_ORDER == 0:
                await self._obey(engine)
            if looks % _LOOKS_A_STATUS == 1:
                await self._show(engine)

    @property
    def rate(self) -> float | None:
        """What somebody has ordered: at most so many requests a second in each lane; None: as the settings say."""
        return self._order.rate

    def leave(self) -> None:
        """Stop looking."""
        self._is_over.set()

    async def write(self, work: Callable[[], None]) -> None:
        """Do something with files, and stop the run where the disk refuses."""
        try:
            await on_a_thread(work)
        except StorageError as error:
            self._stop_for("storage", str(error))

    async def close(self, engine: Watched, *, exit_code: int, why: str) -> None:
        """Leave a last status."""
        await self._put(self._status(engine, "finished" if not why else "stopped", exit_code=exit_code, why=why))

    def _look(self, engine: Watched) -> None:
        if engine.storage_failure is not None:
            self._stop_for("storage", engine.storage_failure)
        if (held := held_app(engine.stats().apps, used=self.apps)) is not None:
            self._stop_for("guard", held)
        now_s = asyncio.get_running_loop().time()
        if (out := self._outage.look(engine.counters(), now_s=now_s)) is not None:
            self._stop_for("stopped", out)

    async def _obey(self, engine: Watched) -> None:
        try:
            order = await on_a_thread(lambda: read_order(self._run_dir))
        except StorageError:
            return  # whoever gave it sees in the status that it was not obeyed
        before, self._order = self._order, order
        if order.is_paused != before.is_paused:
            (engine.pause if order.is_paused else engine.unpause)()
        if order.rate != before.rate:
            engine.limit_rate(order.rate)
        if order.number != before.number:
            await self._show(engine)

    async def _show(self, engine: Watched) -> None:
        state: State = "stopping" if self.is_stopping else "paused" if self._order.is_paused else "sending"
        await self._put(self._status(engine, state))

    async def _put(self, status: Status) -> None:
        with suppress(StorageError):  # a disk that fails shows where it matters
            await on_a_thread(lambda: write_status(self._run_dir, status))

    def _status(self, engine: Watched, state: State, *, exit_code: int | None = None, why: str = "") -> Status:
        counts = self._recorder.counts + self._recorder.abandoned
        return Status(
            run=self._run_dir.run,
            name=self._work.name,
            noun=self._work.noun,
            state=state,
            pid=os.getpid(),
            started_at_s=self._started_at_s,
            updated_at_s=time.time(),
            done=self._recorder.counts.settled,
            total=self._work.total,
            counts=counts,
            lanes=lanes_of(engine.stats()),
            problem=self._problem(),
            order=self._order.number,
            rate=self._order.rate,
            exit_code=exit_code,
            why=why,
        )

    async def _over_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()
        return self._is_over.is_set()
