"""Runs an input through an engine, from its first item to its report.

The first request of a campaign goes alone and opens the way when it is accepted; so do the first jobs of each app in a
jobs file. Then as much is under way as the engine can use, in bounded memory. Nothing more is dispatched once a stop
was asked for, an app is held, the error budget is spent, or the disk fails.

With a journal a run goes on where an earlier process left it: what has settled is passed over, what may have been sent
goes again under its old key after the wait of a lost reply, and everything else goes at once.

Units: seconds on the running loop's clock; reports carry the time of day.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from msgspec import Struct

from sendengine.campaign.books import with_earlier
from sendengine.campaign.engineport import Engine
from sendengine.campaign.exits import Exit
from sendengine.campaign.flow import Flow
from sendengine.campaign.handing import Handing
from sendengine.campaign.house import House, Reason
from sendengine.campaign.judge import Judge
from sendengine.campaign.keeping import Keeping, item_of
from sendengine.campaign.recorder import Recorder
from sendengine.campaign.report import JobCounts, Report, render
from sendengine.campaign.rundir import REPORT, RunDir
from sendengine.campaign.work import Item, Work
from sendengine.core.jobs import Job
from sendengine.core.outcomes import Outcome
from sendengine.engine.past import Past, RecoveredReceipt
from sendengine.engine.receipts import Receipt
from sendengine.errors import (
    AppHeldError,
    EngineClosedError,
    InputError,
    InvalidJobError,
    KeyReusedError,
    SendEngineError,
    StorageError,
)
from sendengine.ports import Part, RequestRecord
from sendengine.telemetry.counters import LaneCounters

FIRST_WAIT_S: Final = 10.0
"""How long a job that goes alone holds up a jobs file: a wrong key or address has been answered by then."""

# Reading and packing share the loop with the sending. A slice is about a millisecond of it, told by what is done and
# not by the clock: uvloop's stands still between two turns of the loop.
_SLICE_WORK: Final = 2000
_ITEM_WORK: Final = 80
_PASSING_WORK: Final = 20  # of an item that is done

_EXIT_OF: Final[Mapping[Reason, Exit]] = {
    "stopped": Exit.STOPPED,
    "aborted": Exit.ABORTED,
    "guard": Exit.GUARD,
    "storage": Exit.STORAGE,
    "input": Exit.STOPPED,
}


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
    """How far a run is: ``done`` of ``total`` recipients, or jobs, have come to an outcome.

    ``problem`` says why nothing new is begun at the moment: a disk that is full. ``rate`` is what somebody has ordered,
    in requests a second for each lane.
    """

    done: int
    total: int
    in_flight: int
    counts: JobCounts
    problem: str | None = None
    rate: float | None = None


class RunResult(Struct, frozen=True):
    """How a run ended; ``why`` says in a sentence why it stopped before its end, and is empty where it did not."""

    exit_code: Exit
    why: str
    report: Report


class Run:
    """One run. Make it, give it to the engine as its observer, then `send`."""

    def __init__(self, work: Work, *, run_dir: RunDir, options: RunOptions, keeping: Keeping | None = None) -> None:
        """Open the run's files; raises StorageError. Without ``keeping``, nothing of the run outlives its process."""
        self._work = work
        self._run_dir = run_dir
        self._options = options
        self._keeping = keeping
        self._started_at = datetime.now(UTC)
        self._recorder = Recorder(
            work,
            run_dir,
            earlier=None if keeping is None else keeping.earlier,
            first_row=0 if keeping is None else keeping.first_row,
            is_kept=keeping is not None,
            is_durable=options.durability == "durable",
        )
        self._house = House(
            work,
            run_dir=run_dir,
            recorder=self._recorder,
            max_outage_s=options.max_outage_s,
            writes_lines=keeping is None,
            problem=lambda: None if keeping is None else keeping.problem,
            stop_for=self._stop_for,
        )
        self._flow = Flow()
        self._judge = Judge(
            work,
            max_error_rate=options.max_error_rate,
            has_ended=lambda: self._recorder.counts.settled >= work.total,
            stop=partial(self._stop_for, "guard"),
        )
        self._halt: tuple[Reason, str] | None = None
        self._judging: asyncio.Event | None = None
        self._handing = Handing()
        self._engine: Engine | None = None
        self._aborting: asyncio.Task[None] | None = None
        if keeping is not None:
            if keeping.earlier is not None:
                self._started_at = datetime.fromisoformat(keeping.earlier.started_at)
            keeping.open(self._recorder, self._lanes)

    @property
    def progress(self) -> Progress:
        """How far the run is, at this moment."""
        counts = self._recorder.counts
        problem = None if self._keeping is None else self._keeping.problem
        return Progress(counts.settled, self._work.total, self._flow.items, counts, problem, self._house.rate)

    def request_settled(self, record: RequestRecord) -> None:
        """Take note of a settled request: the engine's observer."""
        self._recorder.request_settled(record)
        self._judge.request_settled(record)

    def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:
        """Take note of a settled job: the engine's observer."""
        self._recorder.job_settled(job, outcome, parts)

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
        house = asyncio.get_running_loop().create_task(self._house.keep(engine))
        try:
            self._attach(engine.recovered)
            await self._dispatch(engine)
            await self._flow.until_idle()
            if self._keeping is not None:
                self._keeping.end()
                if self._keeping.damage is not None:
                    self._stop_for("storage", self._keeping.damage)
            if self._halt is not None:
                await engine.abort(grace_s=0 if self._halt[0] == "aborted" else self._options.stop_grace_s)
        except BaseException:
            self._recorder.discard()
            raise
        finally:
            self._house.leave()
            await asyncio.gather(house, return_exceptions=True)
        house.result()
        return await self._finish(engine)

    # Dispatching

    def _attach(self, recovered: Sequence[RecoveredReceipt]) -> None:
        """Follow the jobs that the journal gave back: the recorder knows them already."""
        for found in recovered:
            item = item_of(found)
            self._flow.enter(item.size_bytes)
            self._house.apps.add(item.job.app)
            self._judge.trust(item.job.app)  # they are under way already
            found.receipt.add_done_callback(partial(self._settled, item, asyncio.Event()))

    async def _dispatch(self, engine: Engine) -> None:
        """Hand the items to the engine, one after another, as there is room."""
        try:
            await self._dispatch_all(engine)
        except InputError as error:
            if not self._recorder.counts.settled and not self._flow.items:
                raise
            self._stop_for("input", str(error))
        finally:
            await self._handing.until_all()

    async def _dispatch_all(self, engine: Engine) -> None:
        done = 0
        keeping = self._keeping
        for item in self._work.items() if keeping is None else self._work.items(keeping.first_row):
            is_done = keeping is not None and keeping.is_done(item)
            done += _PASSING_WORK if is_done else _ITEM_WORK + item.count
            if done > _SLICE_WORK:
                await asyncio.sleep(0)
                done = 0
            if is_done:
                self._recorder.pass_over(item.end)
                continue
            await self._flow.until_room()
            if self._halt is not None:
                return
            await self._submit(item, engine)
        self._recorder.pass_over(self._work.rows)

    async def _submit(self, item: Item, engine: Engine) -> None:
        """Hand an item over; wait for it where it goes alone."""
        past = None if self._keeping is None else self._keeping.past_of(item)
        goes_alone = not self._work.is_campaign and self._judge.goes_alone(item.job.app)
        self._house.apps.add(item.job.app)
        over = asyncio.Event()
        self._flow.enter(item.size_bytes)
        if self._keeping is None or self._work.is_campaign:
            await self._hand_over(item, engine, past=past, over=over)
        else:
            task = self._handing.start(item.job, lambda: self._hand_over(item, engine, past=past, over=over))
            if goes_alone:
                await task
        if self._halt is not None:
            return
        is_begun = past is not None and past.is_begun  # it may wait, unless all is done anew
        proves = not is_begun or (self._keeping is not None and self._keeping.is_anew)
        if self._work.is_campaign and not self._judge.is_open and proves:
            self._judging = over
            await over.wait()
        elif goes_alone:
            self._judging = over
            await self._until_judged(item, over)

    async def _hand_over(self, item: Item, engine: Engine, *, past: Past | None, over: asyncio.Event) -> None:
        """Submit an item, and follow it."""
        ticket = self._recorder.begin(item)
        if past is not None and self._keeping is not None:
            ticket.parts += self._keeping.failed_before(item)
        asks_key = not self._work.is_campaign  # a campaign's stand in its file once
        try:
            receipt = await engine.submit_row(item.job, row=item.first_row, past=past, asks_key=asks_key)
        except (InvalidJobError, KeyReusedError) as error:
            if past is not None and past.is_begun:  # the settings let it through before, and it was sent perhaps
                self._recorder.withdraw(ticket)
                self._stop_for(
                    "input", f"{error}. The run began with other settings, and this may have been sent: put them back"
                )
            else:
                self._recorder.refused(ticket, str(error))
                if self._keeping is not None:
                    self._keeping.refused(item)
                self._judge.item_refused(item)
            self._left(item, over)
        except (AppHeldError, EngineClosedError, StorageError) as error:
            self._recorder.withdraw(ticket)
            self._left(item, over)
            self._stop_for(self._reason_of(error, engine), str(error))
        except BaseException:
            self._recorder.withdraw(ticket)
            self._left(item, over)
            raise
        else:
            self._recorder.taken(ticket, receipt.job, receipt.outcome)
            if self._keeping is not None:
                self._keeping.taken(item)
            receipt.add_done_callback(partial(self._settled, item, over))

    @staticmethod
    def _reason_of(error: SendEngineError, engine: Engine) -> Reason:
        if isinstance(error, AppHeldError):
            return "guard"
        return "stopped" if isinstance(error, EngineClosedError) and engine.storage_failure is None else "storage"

    def _left(self, item: Item, over: asyncio.Event) -> None:
        self._flow.leave(item.size_bytes)
        over.set()

    async def _until_judged(self, item: Item, over: asyncio.Event) -> None:
        """Wait for a job of an app that has had none accepted: its key, or its address, may be wrong."""
        try:
            async with asyncio.timeout(FIRST_WAIT_S):
                await over.wait()
        except TimeoutError:
            self._judge.trust(item.job.app)

    def _settled(self, item: Item, over: asyncio.Event, receipt: Receipt) -> None:
        """An item has come to its end, and the recorder has counted it: see whether going on makes sense."""
        over.set()
        if receipt.outcome is not None:
            self._judge.item_settled(item, [receipt.outcome, *(part.outcome for part in receipt.parts)])
        self._flow.leave(item.size_bytes)

    # Stopping

    def _stop_for(self, reason: Reason, why: str) -> None:
        """Dispatch nothing more; the first reason stands, and a disk that fails then is told of beside it."""
        if self._halt is not None:
            if reason == "storage" and why not in self._halt[1]:
                first, what = self._halt
                self._halt = (first, f"{what}; {why}") if self._is_cut_short else (reason, why)
            return
        self._halt = (reason, why)
        self._house.is_stopping = True
        self._flow.cut()
        if self._judging is not None:
            self._judging.set()
        if self._engine is not None:
            self._engine.begin_drain()

    # The end

    async def _finish(self, engine: Engine) -> RunResult:
        await self._close_books(engine)
        stats = engine.stats()
        recorder = self._recorder
        report = Report(
            run=self._run_dir.run,
            name=self._work.name,
            started_at=self._started_at.isoformat(timespec="milliseconds"),
            finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            durability=self._options.durability,
            exit_code=self._exit_code(),
            jobs=recorder.counts + recorder.abandoned,
            recipients=recorder.recipients,
            lanes={
                name: counters.entry(ceiling=stats.lanes[name].ceiling if name in stats.lanes else 0.0)
                for name, counters in self._lanes().items()
            },
        )
        await self._house.write(lambda: self._run_dir.write(REPORT, render(report)))
        why = "" if self._halt is None or not self._is_cut_short else self._halt[1]
        await self._house.close(engine, exit_code=self._exit_code(), why=why)
        return RunResult(self._exit_code(), why, report)

    async def _close_books(self, engine: Engine) -> None:
        if self._keeping is None:
            await self._house.write(self._recorder.close)
            return
        if self._halt is None:  # otherwise the engine is closed, and its journal
            try:
                await self._keeping.flush()
            except StorageError as error:
                self._stop_for("storage", str(error))
        if engine.storage_failure is not None:
            self._stop_for("storage", engine.storage_failure)
        self._recorder.discard()

    def _lanes(self) -> Mapping[str, LaneCounters]:
        """What the lanes have counted, earlier processes included."""
        own = {} if self._engine is None else self._engine.counters()
        return own if self._keeping is None else with_earlier(own, self._keeping.earlier_lanes)

    @property
    def _is_cut_short(self) -> bool:
        """Whether a halt kept anything from being sent; one that came when all was over did not."""
        counts = self._recorder.counts
        return self._halt is not None and (
            self._halt[0] == "storage" or counts.settled < self._work.total or counts.abandoned > 0
        )

    def _exit_code(self) -> Exit:
        counts = self._recorder.counts
        if self._halt is not None and self._is_cut_short:
            return _EXIT_OF[self._halt[0]]
        if counts.not_accepted or (counts.unreachable and self._options.fail_on_unreachable):
            return Exit.NOT_ALL_ACCEPTED
        return Exit.OK
