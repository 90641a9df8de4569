"""Runs an input through an engine, from its first item to its report.

The first request of a campaign goes alone and opens the way when it is accepted; so does the first job of each app in
a jobs file, so that a wrong key costs one request. Then as much is under way as the engine can use, in bounded memory.
Nothing more is dispatched once a stop was asked for, an app is held, the error budget is spent, or the disk fails.

Units: seconds on the running loop's clock; reports carry the time of day.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal, Protocol

from msgspec import Struct

from sendengine.campaign.errorbudget import ErrorBudget
from sendengine.campaign.flow import Flow
from sendengine.campaign.recorder import Recorder, Settled, Ticket
from sendengine.campaign.report import JobCounts, Report, render
from sendengine.campaign.rundir import REPORT, RunDir
from sendengine.campaign.watch import OutageWatch, held_app
from sendengine.campaign.work import Item, Work
from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.outcomes import Abandoned, Accepted, Expired, Unreachable
from sendengine.errors import (
    AppHeldError,
    EngineClosedError,
    InputError,
    InvalidJobError,
    KeyReusedError,
    StorageError,
)
from sendengine.journal.threads import on_a_thread
from sendengine.ports import RequestRecord
from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.snapshots import EngineStats

ALONE: Final = 5
"""Single recipients that are tried, one after another, before a campaign of a request a row is taken for faulty."""

FIRST_WAIT_S: Final = 10.0
"""How long the first job of an app holds up a jobs file: its key has been judged by then."""

# Reading and packing share the loop with the sending. A slice is about a millisecond of it, told by what is done and
# not by the clock: uvloop's stands still between two turns of the loop.
_SLICE_WORK: Final = 2000
_ITEM_WORK: Final = 200
_LOOK_S: Final = 0.1
_LOOKS_A_FLUSH: Final = 3

Reason = Literal["stopped", "aborted", "guard", "storage", "input"]
_EXIT_OF: Final[Mapping[Reason, int]] = {"stopped": 75, "aborted": 130, "guard": 4, "storage": 5, "input": 75}
_EXIT_NOT_ALL: Final = 3


class Receipt(Settled, Protocol):
    """What `SendEngine.submit` returns, as far as it is used here."""

    def add_done_callback(self, callback: Callable[["Receipt"], None]) -> None:
        """Call back when the job has settled, or at once where it has."""
        ...


class Engine(Protocol):
    """What a run needs of `sendengine.SendEngine`."""

    async def submit(self, job: Job) -> Receipt:
        """Admit a job."""
        ...

    def stats(self) -> EngineStats:
        """Look at lanes and apps."""
        ...

    def counters(self) -> Mapping[str, LaneCounters]:
        """Return what each lane has done."""
        ...

    def begin_drain(self) -> None:
        """Take no more jobs."""
        ...

    async def abort(self, *, grace_s: float | None = None) -> None:
        """Abandon what waits, let what is on the wire finish within ``grace_s``, and close."""
        ...


class RunOptions(Struct, frozen=True, kw_only=True):
    """How a run ends.

    ``max_error_rate`` None is no error budget. ``stop_grace_s`` is what a first stop gives the wire to finish.
    """

    max_error_rate: float | None
    fail_on_unreachable: bool = False
    max_outage_s: float = 21_600
    stop_grace_s: float = 20
    durability: str = "memory"


class Progress(Struct, frozen=True):
    """How far a run is: ``done`` of ``total`` recipients, or jobs, have come to an outcome."""

    done: int
    total: int
    in_flight: int
    counts: JobCounts


class RunResult(Struct, frozen=True):
    """How a run ended; ``why`` says in a sentence why it stopped before its end, and is empty where it did not."""

    exit_code: int
    why: str
    report: Report


class Run:
    """One run. Make it, give it to the engine as its observer, then `send`."""

    def __init__(self, work: Work, *, run_dir: RunDir, options: RunOptions) -> None:
        """Open the run's files; raises StorageError."""
        self._work = work
        self._run_dir = run_dir
        self._options = options
        self._recorder = Recorder(work, run_dir)
        self._flow = Flow()
        self._budget = None if options.max_error_rate is None else ErrorBudget(options.max_error_rate)
        self._outage = OutageWatch(max_s=options.max_outage_s)
        self._apps: set[str | None] = set()
        self._is_open = not work.is_campaign
        self._refused_alone = 0
        self._halt: tuple[Reason, str] | None = None
        self._is_over = asyncio.Event()
        self._judging: asyncio.Event | None = None
        self._engine: Engine | None = None
        self._aborting: asyncio.Task[None] | None = None

    @property
    def progress(self) -> Progress:
        """How far the run is, at this moment."""
        counts = self._recorder.counts
        return Progress(counts.settled, self._work.total, self._flow.items, counts)

    def request_settled(self, record: RequestRecord) -> None:
        """Take note of a settled request: the engine's observer."""
        self._recorder.request_settled(record)

    def stop(self) -> None:
        """Read and dispatch nothing more; what is on the wire finishes, the rest stays for a later run."""
        self._stop_for("stopped", "stopped before its end, as asked")

    def abort(self) -> None:
        """Give up what is on the wire too."""
        self._stop_for("aborted", "aborted, as asked")
        self._halt = ("aborted", "aborted, as asked")
        if self._engine is not None and self._aborting is None:
            self._aborting = asyncio.get_running_loop().create_task(self._engine.abort(grace_s=0))

    async def send(self, engine: Engine) -> RunResult:
        """Send everything, and leave the report; the engine is closed where the run stopped before its end.

        Raises InputError where the input could not be read and nothing was sent. Cancelling it dispatches nothing
        more and leaves what was dispatched to the engine; no report is written.
        """
        self._engine = engine
        started_at = datetime.now(UTC)
        house = asyncio.get_running_loop().create_task(self._keep_house(engine))
        try:
            await self._dispatch(engine)
            await self._flow.until_idle()
            if self._halt is not None:
                await engine.abort(grace_s=0 if self._halt[0] == "aborted" else self._options.stop_grace_s)
        except BaseException:
            self._recorder.discard()
            raise
        finally:
            self._is_over.set()
            await asyncio.gather(house, return_exceptions=True)
        house.result()
        return await self._finish(engine, started_at)

    # Dispatching

    async def _dispatch(self, engine: Engine) -> None:
        """Hand the items to the engine, one after another, as there is room."""
        try:
            await self._dispatch_all(engine)
        except (AppHeldError, EngineClosedError) as error:
            self._stop_for("guard" if isinstance(error, AppHeldError) else "stopped", str(error))
        except InputError as error:
            if not self._recorder.counts.settled and not self._flow.items:
                raise
            self._stop_for("input", str(error))

    async def _dispatch_all(self, engine: Engine) -> None:
        done = 0
        for item in self._work.items():
            done += _ITEM_WORK + item.count
            if done > _SLICE_WORK:
                await asyncio.sleep(0)
                done = 0
            await (self._flow.until_room() if self._is_open else self._flow.until_idle())
            if self._halt is not None:
                return
            await self._submit(item, engine)
        self._recorder.pass_over(self._work.rows)

    async def _submit(self, item: Item, engine: Engine) -> None:
        ticket = self._recorder.begin(item)
        try:
            receipt = await engine.submit(item.job)
        except (InvalidJobError, KeyReusedError) as error:
            self._recorder.refused(ticket, str(error))
            return
        except BaseException:
            self._recorder.withdraw(ticket)
            raise
        self._flow.enter(item.size_bytes)
        over = asyncio.Event()
        receipt.add_done_callback(partial(self._settled, ticket, over))
        if item.job.app not in self._apps:
            self._apps.add(item.job.app)
            if not self._work.is_campaign:
                self._judging = over
                await self._until_judged(over)

    async def _until_judged(self, over: asyncio.Event) -> None:
        """Wait for the first job of an app, whose key may be wrong."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WAIT_S):
                await over.wait()

    def _settled(self, ticket: Ticket, over: asyncio.Event, receipt: Receipt) -> None:
        """Book an item that has come to its end, and see whether going on makes sense."""
        self._recorder.settled(ticket, receipt)
        over.set()
        if self._work.is_campaign and not isinstance(receipt.outcome, (Abandoned, Expired)):
            outcomes = [receipt.outcome, *(part.outcome for part in receipt.parts)]
            self._judge(ticket.item, is_error=not any(isinstance(item, (Accepted, Unreachable)) for item in outcomes))
        self._flow.leave(ticket.item.size_bytes)

    def _judge(self, item: Item, *, is_error: bool) -> None:
        """Open the way after a first success; stop where the message seems to be at fault, or too much fails.

        User changes have no message: any answer to the first one says that the key is good.
        """
        if not is_error or not isinstance(item.job, CreateNotification):
            self._is_open = True
        if self._budget is not None:
            self._budget.note(is_error=is_error)
        if self._recorder.counts.settled >= self._work.total:
            return
        if not self._is_open:
            self._refused_alone += 1
            if item.count > 1 or self._refused_alone >= ALONE:
                self._stop_for("guard", "nothing of the first requests was accepted; failures.jsonl says why")
        elif self._budget is not None and self._budget.is_spent:
            self._stop_for("guard", f"the error budget is spent: {self._budget}; failures.jsonl says why")

    # Stopping and watching

    def _stop_for(self, reason: Reason, why: str) -> None:
        """Dispatch nothing more; the first reason stands."""
        if self._halt is not None:
            return
        self._halt = (reason, why)
        self._flow.cut()
        if self._judging is not None:
            self._judging.set()
        if self._engine is not None:
            self._engine.begin_drain()

    async def _keep_house(self, engine: Engine) -> None:
        """Write lines and look after apps and outages until the run is over."""
        loop = asyncio.get_running_loop()
        looks = 0
        while not await self._over_within(_LOOK_S):
            looks += 1
            if (held := held_app(engine.stats().apps, used=self._apps)) is not None:
                self._stop_for("guard", held)
            if (out := self._outage.look(engine.counters(), now_s=loop.time())) is not None:
                self._stop_for("stopped", out)
            if looks % _LOOKS_A_FLUSH == 0 and self._recorder.has_lines:
                await self._write(self._recorder.flush)

    async def _over_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()
        return self._is_over.is_set()

    async def _write(self, work: Callable[[], None]) -> None:
        try:
            await on_a_thread(work)
        except StorageError as error:
            self._stop_for("storage", str(error))

    # The end

    async def _finish(self, engine: Engine, started_at: datetime) -> RunResult:
        await self._write(self._recorder.close)
        stats = engine.stats()
        report = Report(
            run=self._run_dir.run,
            name=self._work.name,
            started_at=started_at.isoformat(timespec="milliseconds"),
            finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            durability=self._options.durability,
            exit_code=self._exit_code(),
            jobs=self._recorder.counts,
            recipients=self._recorder.recipients,
            lanes={
                name: counters.entry(ceiling=stats.lanes[name].ceiling) for name, counters in engine.counters().items()
            },
        )
        await self._write(lambda: self._run_dir.write(REPORT, render(report)))
        why = "" if self._halt is None or not self._is_cut_short else self._halt[1]
        return RunResult(self._exit_code(), why, report)

    @property
    def _is_cut_short(self) -> bool:
        """Whether a halt kept anything from being sent; one that came when all was over did not."""
        counts = self._recorder.counts
        return self._halt is not None and (
            self._halt[0] == "storage" or counts.settled < self._work.total or counts.abandoned > 0
        )

    def _exit_code(self) -> int:
        counts = self._recorder.counts
        if self._halt is not None and self._is_cut_short:
            return _EXIT_OF[self._halt[0]]
        if counts.not_accepted or (counts.unreachable and self._options.fail_on_unreachable):
            return _EXIT_NOT_ALL
        return 0
