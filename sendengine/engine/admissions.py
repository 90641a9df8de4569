"""Takes jobs in: finds the lane, waits for room and for the disk, makes the receipt.

With a journal a job enters its lane when it is on disk, in the order of asking, whether or not its caller still waits.

Units: seconds on the running loop's clock; bytes as the intake counts them.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from msgspec import Struct

from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.onesignal import EndpointGroup
from sendengine.engine import recovery
from sendengine.engine.admission import channel_of, check_fence, deadline_of, render, weigh
from sendengine.engine.app import App
from sendengine.engine.keys import KeyTable, Memory, fingerprint, request_key, wire_key
from sendengine.engine.lane import Lane
from sendengine.engine.past import Past
from sendengine.engine.receipts import Receipt
from sendengine.errors import (
    EngineClosedError,
    IntakeFullError,
    InvalidJobError,
    KeyReusedError,
    SendEngineError,
    StorageError,
)
from sendengine.ports import Journal, LoneJournal

_TURN: Final = 16  # submits between two turns of the loop while enough waits: less than a millisecond of work
_HUNGRY_TURN: Final = 128  # where the lane would run dry
_ENOUGH: Final = 4  # times what is taken ahead of its permits


class _Entry(Struct, frozen=True):
    """A job on its way in, whose room in the intake is taken; ``key`` is the wire form of its caller's key."""

    receipt: Receipt
    lane: Lane
    content: bytes
    key: str | None
    mark: bytes
    row: int | None
    past: Past | None


class Admissions:
    """An engine's door. ``journal`` is where jobs are put on disk, None where they are kept in memory only.

    ``when_admitted`` is called when a job enters a lane that has nothing to do, ``when_turned_back`` when one that was
    on its way to the disk was not taken after all.
    """

    def __init__(
        self,
        *,
        apps: Mapping[str, App],
        lanes: Mapping[str, Lane],
        when_admitted: Callable[[], None],
        when_turned_back: Callable[[Receipt], None],
    ) -> None:
        self.is_open = False
        self.failure: str | None = None  # what the disk said when it failed for good
        self.journal: Journal | None = None
        self._lone: LoneJournal | None = None  # the same, where it is one
        self.memory: Memory | None = None  # of callers' keys, where it is more than the journal's
        self.writing = 0  # jobs on their way to the disk
        self._apps = apps
        self._lanes = lanes
        self._when_admitted = when_admitted
        self._when_turned_back = when_turned_back
        self._keys: dict[str, KeyTable] = {}
        self._keyed: dict[Receipt, tuple[KeyTable, str]] = {}  # of the jobs that have a key
        self._submits = 0
        self._routes: dict[tuple[str | None, type], Lane] = {}  # those found before

    def keep_in(self, journal: Journal | None) -> None:
        """Put jobs on disk there from now on."""
        self.journal = journal
        self._lone = journal if isinstance(journal, LoneJournal) else None

    async def submit(self, job: Job, *, timeout_s: float | None) -> Receipt:
        """Admit a job, waiting for room and for the disk, as `sendengine.SendEngine.submit` says."""
        until_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        lane, content, size_bytes, deadline_s = self._prepare(job)
        if not lane.intake.try_enter(size_bytes, high=job.urgency == "high"):
            await self._wait_for_room(job, lane, size_bytes, timeout_s=timeout_s)
        if self.journal is None:
            receipt = self._hand_over(job, lane, content, size_bytes, deadline_s)
            if self._owes_a_turn(lane):
                await asyncio.sleep(0)
            return receipt
        entry = self._entry(job, lane, content, size_bytes, deadline_s)
        if entry.key is not None:
            await self._recall(entry, entry.key, self.journal, until_s=until_s)
        known = self._join(entry)
        if known is not None:
            return known
        await self._until_on_disk(entry, self.journal, until_s=until_s)
        return entry.receipt

    async def submit_row(self, job: Job, *, row: int, past: Past | None, asks_key: bool) -> Receipt:
        """Admit the job of a row, waiting for room and not for the disk: its file is still there."""
        lane, content, size_bytes, deadline_s = self._prepare(job)
        if not lane.intake.try_enter(size_bytes, high=job.urgency == "high"):
            await self._wait_for_room(job, lane, size_bytes, timeout_s=None)
        entry = self._entry(job, lane, content, size_bytes, deadline_s, row=row, past=past)
        if asks_key and entry.key is not None and self.journal is not None:
            await self._recall(entry, entry.key, self.journal, until_s=None)
        receipt = self._admit(entry)
        if self._owes_a_turn(lane):
            await asyncio.sleep(0)
        return receipt

    async def submit_streamed(self, job: Job) -> Receipt:
        """Admit one of many jobs, waiting for room; for the disk only where that must be asked about its key."""
        if self.journal is not None and job.idempotency_key is not None:
            return await self.submit(job, timeout_s=None)
        lane, content, size_bytes, deadline_s = self._prepare(job)
        if not lane.intake.try_enter(size_bytes, high=job.urgency == "high"):
            await self._wait_for_room(job, lane, size_bytes, timeout_s=None)
        receipt = self._hand_over(job, lane, content, size_bytes, deadline_s)
        if self._owes_a_turn(lane):
            await asyncio.sleep(0)
        return receipt

    def submit_nowait(self, job: Job) -> Receipt:
        """Admit a job at once, or raise; it is put on disk afterwards, and goes when it is there."""
        lane, content, size_bytes, deadline_s = self._prepare(job)
        problem = None if self.journal is None else self.journal.problem
        if problem is not None:
            raise IntakeFullError(problem)
        if not lane.intake.try_enter(size_bytes, high=job.urgency == "high"):
            raise IntakeFullError(f"{lane.name} has no room: {lane.intake.jobs} jobs wait or are in flight")
        return self._hand_over(job, lane, content, size_bytes, deadline_s)

    def readmit(self, job: Job, receipt: Receipt, lane: Lane) -> None:
        """An earlier process let this job in: its room and its key are its own, whatever others hold."""
        lane.intake.enter_anyhow(receipt.size_bytes, high=receipt.is_high)
        if job.idempotency_key is not None:
            key = wire_key(lane.app.settings.app_id, job.idempotency_key)
            self._register(lane.app, key, mark=fingerprint(job), receipt=receipt)

    def settled(self, receipt: Receipt) -> None:
        """A job has settled: its key is known by its outcome from now on."""
        if receipt in self._keyed:
            table, key = self._keyed.pop(receipt)
            table.settle(key, receipt)

    def app_of(self, job: Job) -> App:
        """The app that a job is for. Raises InvalidJobError."""
        if job.app is None and len(self._apps) == 1:
            return next(iter(self._apps.values()))
        app = self._apps.get(job.app or "")
        if app is not None:
            return app
        what = "missing, and several apps are configured" if job.app is None else f"{job.app!r} is not configured"
        raise InvalidJobError("app", f"{what}; name one of: {', '.join(self._apps)}")

    def _lane_of(self, job: Job) -> Lane:
        """The lane that would take a job now. Raises what `submit` raises for a job that none takes."""
        if not self.is_open:
            if self.failure is not None:
                raise StorageError(self.failure)
            raise EngineClosedError("the engine takes no jobs: it is not entered with 'async with', or it is draining")
        lane = self._routes.get((job.app, job.__class__)) or self._route(job)
        app = lane.app
        if app.refuses_some:
            app.check_open(channel=channel_of(job))
        if app.settings.only_to:
            check_fence(job, app.settings.only_to)
        return lane

    def _route(self, job: Job) -> Lane:
        lane = self._lanes[f"{self.app_of(job).name}/{group_of(job).value}"]
        self._routes[job.app, job.__class__] = lane
        return lane

    def _prepare(self, job: Job) -> tuple[Lane, bytes, int, float | None]:
        """The lane for a job, what is rendered of it, the room that it takes, and its deadline.

        When it has that room nothing is awaited any more before it is in its lane, except for a journal. Its time runs
        while it waits for room.
        """
        lane = self._lane_of(job)
        content = render(job)
        has_deadline = job.expires_in_s is not None or job.expires_at is not None
        deadline_s = deadline_of(job, now_s=lane.time()) if has_deadline else None
        return lane, content, weigh(job, content=content), deadline_s

    async def _wait_for_room(self, job: Job, lane: Lane, size_bytes: int, *, timeout_s: float | None) -> None:
        high = job.urgency == "high"
        try:
            async with asyncio.timeout(timeout_s):
                await lane.intake.enter(size_bytes, high=high)
        except TimeoutError:
            raise IntakeFullError(
                f"{lane.name} had no room for {timeout_s} s: {lane.intake.jobs} jobs wait or are in flight"
            ) from None
        try:
            self._lane_of(job)  # since room was given, the app may have been held, or the engine begun to stop
        except SendEngineError:
            lane.intake.leave(size_bytes, high=high)
            raise

    async def _recall(self, entry: _Entry, key: str, journal: Journal, *, until_s: float | None) -> None:
        """Wait to know what has become of a caller's key: in earlier processes, and of who came with it just before."""
        app, job = entry.lane.app, entry.receipt.job
        try:
            async with asyncio.timeout_at(until_s):
                await self._table(app).recall(
                    key, self.memory or journal, app=app.name, job=job, fingerprint=entry.mark
                )
            self._lane_of(job)  # meanwhile the app may have been held, or the engine begun to stop
        except TimeoutError:
            self._leave(entry)
            raise IntakeFullError(journal.problem or "the disk did not answer in time") from None
        except BaseException:
            self._leave(entry)
            raise

    def _owes_a_turn(self, lane: Lane) -> bool:
        """Whether others must run before the next job: a caller with a long list must not keep the loop.

        To be asked when a job is in its lane, where no later one overtakes it. It is so more often where enough waits,
        since long turns cost permits.
        """
        self._submits += 1
        if self._submits % _TURN:
            return False
        if self._submits < _HUNGRY_TURN and lane.waiting < _ENOUGH * lane.pace.lookahead:
            return False
        self._submits = 0
        return True

    def _hand_over(self, job: Job, lane: Lane, content: bytes, size_bytes: int, deadline_s: float | None) -> Receipt:
        """Take a job whose caller does not wait for the disk."""
        if self.journal is not None or job.idempotency_key is not None:
            return self._admit(self._entry(job, lane, content, size_bytes, deadline_s))
        receipt = Receipt(job, deadline_s, size_bytes, lane.loop)
        if not lane.books.unsettled:
            self._when_admitted()
        lane.admit(receipt, content=content, now_s=lane.time())
        return receipt

    def _admit(self, entry: _Entry) -> Receipt:
        """Take a job that has a key, a journal or a past."""
        known = None if entry.key is None else self._join(entry)
        if known is not None:
            return known
        if self.journal is None:
            self._take(entry, now_s=entry.lane.time())
        else:
            self._put_on_disk(entry, self.journal, done=partial(self._written, entry, None))
        return entry.receipt

    def _entry(
        self,
        job: Job,
        lane: Lane,
        content: bytes,
        size_bytes: int,
        deadline_s: float | None,
        *,
        row: int | None = None,
        past: Past | None = None,
    ) -> _Entry:
        receipt = Receipt(job, deadline_s, size_bytes, lane.loop)
        if job.idempotency_key is None:
            return _Entry(receipt, lane, content, None, b"", row, past)
        key = wire_key(lane.app.settings.app_id, job.idempotency_key)
        return _Entry(receipt, lane, content, key, fingerprint(job), row, past)

    def _join(self, entry: _Entry) -> Receipt | None:
        """The receipt of the job that used this key first, or None: this one is the first. Raises KeyReusedError."""
        if entry.key is None:
            return None
        table = self._table(entry.lane.app)
        try:
            known = table.join(entry.key, entry.receipt.job, fingerprint=entry.mark)
        except KeyReusedError:
            self._leave(entry)
            raise
        if known is None:
            self._register(entry.lane.app, entry.key, mark=entry.mark, receipt=entry.receipt)
        else:
            self._leave(entry)
        return known

    async def _until_on_disk(self, entry: _Entry, journal: Journal, *, until_s: float | None) -> None:
        """Put a job on disk; once that is being done, neither its deadline nor a cancellation takes it back."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[StorageError | None] = loop.create_future()
        try:
            self._put_on_disk(entry, journal, done=partial(self._written, entry, written))
            if until_s is None:
                await written
            else:
                await asyncio.wait([written], timeout=max(0.0, until_s - loop.time()))
            if not written.done() and journal.withdraw(entry.receipt.record):
                self._turn_back(entry, is_told=True)
                raise IntakeFullError(journal.problem or "the disk did not take the job in time")
            error = await written
        except asyncio.CancelledError:
            if not entry.receipt.is_settled and journal.withdraw(entry.receipt.record):
                self._turn_back(entry, is_told=True)
            raise
        if error is not None:
            raise error

    def _put_on_disk(self, entry: _Entry, journal: Journal, *, done: Callable[[StorageError | None], None]) -> None:
        receipt = entry.receipt
        receipt.home = journal
        self.writing += 1
        if entry.key is not None:
            self._table(entry.lane.app).hold(entry.key)
        lone = self._lone
        request = None if lone is None or entry.past is not None else request_key(receipt, key=entry.key)
        app, row, key, mark = entry.lane.app.name, entry.row, entry.key, entry.mark
        try:
            if lone is None or request is None:
                receipt.record = journal.accept(receipt.job, app=app, row=row, key=key, fingerprint=mark, done=done)
            else:
                receipt.alone = lone, request
                receipt.record = lone.accept(
                    receipt.job, app=app, row=row, key=key, fingerprint=mark, done=done, request_key=request
                )
        except StorageError:
            self._turn_back(entry, is_told=True)
            raise

    def _written(
        self, entry: _Entry, written: asyncio.Future[StorageError | None] | None, error: StorageError | None
    ) -> None:
        """The job is on disk, or never will be."""
        if error is None:
            self._arrived(entry)
            self._take(entry, now_s=entry.lane.time())
        else:
            self._turn_back(entry, is_told=written is not None and not written.done())
        if written is not None and not written.done():
            written.set_result(error)

    def _take(self, entry: _Entry, *, now_s: float) -> None:
        """The job is in: hand it to its lane."""
        if entry.lane.books.is_settled:
            self._when_admitted()
        if entry.past is None:
            entry.lane.admit(entry.receipt, content=entry.content, now_s=now_s)
        else:
            recovery.readmit_row(entry.lane, entry.receipt, entry.past, content=entry.content, now_s=now_s)

    def _turn_back(self, entry: _Entry, *, is_told: bool) -> None:
        """The job was not taken after all; whoever joined it by its key is told so.

        ``is_told`` where an exception says so to the one who submitted it.
        """
        self._arrived(entry)
        if entry.key is not None:
            self._table(entry.lane.app).forget(entry.key)
        self._keyed.pop(entry.receipt, None)
        self._leave(entry)
        entry.receipt.is_awaited = entry.receipt.is_awaited or is_told
        entry.receipt.turn_back()
        self._when_turned_back(entry.receipt)

    def _arrived(self, entry: _Entry) -> None:
        """The job is no longer on its way to the disk."""
        self.writing -= 1
        if entry.key is not None:
            self._table(entry.lane.app).release(entry.key)

    def _register(self, app: App, key: str, *, mark: bytes, receipt: Receipt) -> None:
        table = self._table(app)
        table.register(key, fingerprint=mark, receipt=receipt)
        self._keyed[receipt] = table, key

    def _leave(self, entry: _Entry) -> None:
        entry.lane.intake.leave(entry.receipt.size_bytes, high=entry.receipt.is_high)

    def _table(self, app: App) -> KeyTable:
        return self._keys.setdefault(app.name, KeyTable())


def group_of(job: Job) -> EndpointGroup:
    """The endpoint group whose lane takes a job."""
    return EndpointGroup.CREATE_NOTIFICATION if isinstance(job, CreateNotification) else EndpointGroup.UPDATE_USER
