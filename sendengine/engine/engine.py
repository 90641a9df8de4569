"""The engine: takes jobs as fast as they come, and settles every one of them exactly once.

Units: seconds; instants are the running loop's ``time()``, except ``expires_at``, which is the wall clock's.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import ceil
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from sendengine.core.jobs import Job
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.outcomes import Accepted, Outcome
from sendengine.engine import assembly
from sendengine.engine.admissions import Admissions
from sendengine.engine.adoption import Adoption
from sendengine.engine.app import App
from sendengine.engine.audience import set_limit
from sendengine.engine.connections import ConnectionBudget
from sendengine.engine.custody import Custody
from sendengine.engine.events import announce
from sendengine.engine.guard import Guard
from sendengine.engine.journals import Journals
from sendengine.engine.lane import Lane
from sendengine.engine.mapping import map_jobs
from sendengine.engine.memory import memorise, recall
from sendengine.engine.monitor import Monitor
from sendengine.engine.past import Past, RecoveredReceipt
from sendengine.engine.receipts import Receipt
from sendengine.engine.shielding import shielded
from sendengine.engine.unawaited import UnawaitedFailures
from sendengine.errors import AppHeldError, EngineClosedError, InvalidJobError, SendFailedError, StorageError
from sendengine.journal.threads import on_a_thread
from sendengine.journal.volume_ledger import open_volume_ledger
from sendengine.ports import Journal, Observer, Transport
from sendengine.settings import AppSettings, Settings, read_keys
from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.snapshots import EngineStats
from sendengine.transport import bounded_connections, transport_opener

TransportFactory = Callable[[AppSettings, str], Transport]
"""Makes an app's transport from its settings and its API key."""

_LOOK_S: Final = 1.0
_log = logging.getLogger("sendengine")


class Health(Struct, frozen=True):
    """A liveness probe's answer: ``is_alive`` until something broke that only a restart mends.

    ``is_accepting`` is for a readiness probe: False before the engine is entered and from `begin_drain` on.
    """

    is_alive: bool
    is_accepting: bool
    problems: tuple[str, ...] = ()


class SendEngine:
    """Sends jobs through OneSignal's API, at its documented ceilings and never above.

    Use it with ``async with``, in one event loop. Leaving drains: what waits is sent, for up to
    ``stopping.drain_timeout_s``, shielded from cancellation. ``observer`` sees every request that settles;
    ``open_transport`` replaces the transport that the settings name, ``journal`` the one that they ask for.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        observer: Observer | None = None,
        open_transport: TransportFactory | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._open_transport = open_transport
        self._apps: dict[str, App] = {}
        self._lanes: dict[str, Lane] = {}
        self._journals = Journals(settings, given=journal)
        self._custody = Custody(self._storage_failed) if self._journals.are_wanted else None
        self._monitor = Monitor(self._lanes, self._apps)
        self._is_entered = self._is_open = False
        self._admissions = Admissions(
            apps=self._apps, lanes=self._lanes, when_admitted=self._monitor.wake, when_turned_back=self._settled
        )
        self._adoption = Adoption(
            self._journals,
            lanes=self._lanes,
            readmit=self._admissions.readmit,
            when_found=self._monitor.wake,
            when_failed=self._storage_failed,
        )
        self._crashes: list[str] = []
        self._unawaited = UnawaitedFailures()
        self._idle = asyncio.Event()
        self._start_up: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open transports and lanes. Raises SettingsError where an app's key or certificate cannot be used."""
        if self._is_entered:
            raise EngineClosedError("an engine is entered once; make another one")
        self._is_entered = True
        rates = await on_a_thread(partial(recall, self._settings.state_dir))
        keys = await on_a_thread(partial(read_keys, self._settings.apps))
        connections = ConnectionBudget(bounded_connections(self._settings.transport.max_connections))
        try:
            for name in self._settings.apps:
                self._open_app(name, keys[name], learned=rates, connections=connections)
            await self._recover()
            self._is_open = True
            self._admissions.is_open = self._admissions.failure is None
        finally:
            if not self._is_open:  # one of several could not be opened
                await shielded(self._close())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, shielded from cancellation."""
        await shielded(self.drain())

    # Jobs

    async def submit(self, job: Job, *, timeout_s: float | None = None) -> Receipt:
        """Admit a job, waiting for room in its lane and, with a journal, for the disk; return its receipt.

        Raises IntakeFullError after ``timeout_s``, InvalidJobError, KeyReusedError, AppHeldError, EngineClosedError or
        StorageError; then the job was not taken. Cancelling it while it waits takes nothing either, except that a job
        that is just being written, or has just been taken, is sent all the same.
        """
        return await self._admissions.submit(job, timeout_s=timeout_s)

    async def submit_row(self, job: Job, *, row: int, past: Past | None = None, asks_key: bool = False) -> Receipt:
        """Admit the job of a row of an input as `submit` does, but without waiting for the disk.

        It is sent when it is there; one whose writing failed ends as Abandoned. ``past`` is what an earlier process
        did of it. A caller's key is compared with those of this process, and with the journal's if it ``asks_key``.
        """
        return await self._admissions.submit_row(job, row=row, past=past, asks_key=asks_key)

    def submit_nowait(self, job: Job) -> Receipt:
        """Admit a job at once, or raise as `submit` does: IntakeFullError where there is no room.

        With a journal the job goes to the disk afterwards and is sent when it is there; one whose writing failed ends
        as Abandoned. A caller's key is compared with those of this process only.
        """
        return self._admissions.submit_nowait(job)

    async def send(self, job: Job) -> Accepted:
        """Submit a job and wait for it. Raises SendFailedError where it ends in anything but Accepted."""
        outcome = await (await self.submit(job))
        if isinstance(outcome, Accepted):
            return outcome
        raise SendFailedError(outcome)

    def map(
        self, jobs: Iterable[Job] | AsyncIterable[Job], *, in_flight: int = 10_000
    ) -> AsyncIterator[tuple[Job, Outcome]]:
        """Submit ``jobs`` and yield each with its outcome as it settles, at most ``in_flight`` under way.

        Closing the iterator early stops taking jobs; those that were admitted are sent all the same. What `submit`
        raises for a job, and what ``jobs`` raises, comes out here, after the outcomes of what was admitted. With a
        journal it does not wait for the disk before it takes the next one.
        """
        return map_jobs(self._admissions.submit_streamed, jobs, in_flight=in_flight)

    # Watching

    def stats(self) -> EngineStats:
        """A frozen snapshot of every lane and app."""
        return self._monitor.snapshot()

    def counters(self) -> Mapping[str, LaneCounters]:
        """The counts of every lane that sent anything, or tried to, by its name: what a report is made of."""
        return self._monitor.counters()

    def health(self) -> Health:
        """For probes: whether the engine works, and whether it takes jobs."""
        failure, ledgers = self._admissions.failure, [app.guard.failure for app in self._apps.values()]
        problems = filter(None, (*self._crashes, failure, *self._journals.problems, *ledgers))
        return Health(not self._crashes and failure is None, self._admissions.is_open, tuple(problems))

    @property
    def recovered(self) -> Sequence[RecoveredReceipt]:
        """The receipts of jobs that other processes left, in their order; of settled ones the last 10,000."""
        return self._adoption.receipts.everything()

    @property
    def storage_failure(self) -> str | None:
        """What the disk said when it failed for good; None while it works."""
        return self._admissions.failure

    def resume_app(self, name: str) -> None:
        """Let a held app go on: its key is read again, and what waited is sent."""
        if name not in self._apps:
            raise InvalidJobError("app", f"{name!r} is not configured; there are {', '.join(self._apps)}")
        self._apps[name].resume()

    # Slowing down

    def pause(self) -> None:
        """Put nothing new on the wire until `unpause`; jobs are taken all the same. Needs an open engine."""
        for lane in self._lanes.values():
            lane.pace.pause()
        announce("paused", "nothing new is sent until somebody says so")

    def unpause(self) -> None:
        """Go on after `pause`."""
        announce("unpaused", "sending goes on")
        for lane in self._lanes.values():
            lane.pace.unpause()

    def limit_rate(self, rate: float | None) -> None:
        """Send at most ``rate`` requests a second in each lane, never above its ceiling; None: as the settings say.

        No limit is below one request a minute. Raises ValueError where ``rate`` is not above 0: `pause` sends nothing.
        """
        for lane in self._lanes.values():
            lane.pace.cap(rate)

    # Stopping

    def begin_drain(self) -> None:
        """Take no more jobs; what was admitted goes on."""
        if self._admissions.is_open:
            self._admissions.is_open = False
            self._adoption.stop()
            announce("draining", "no more jobs are taken; what was admitted is sent")
            for lane in self._lanes.values():
                lane.intake.turn_away(EngineClosedError("the engine is draining"))
                lane.source.stop_lingering()
                lane.kick()

    async def drain(self) -> None:
        """Take no more, send what waits for up to ``drain_timeout_s``, then abort. Waiting again is allowed."""
        self.begin_drain()
        try:
            async with asyncio.timeout(self._settings.stopping.drain_timeout_s):
                await self._until(lambda: self._is_settled(or_stuck=True))
        except TimeoutError:
            announce("drain_timeout", "not everything was sent in time; the rest is abandoned", level=logging.WARNING)
        await self.abort()

    async def abort(self, *, grace_s: float | None = None) -> None:
        """Take no more, abandon what waits, give what is on the wire ``grace_s`` (default: the settings'), and close.

        Cancelling it leaves the engine half closed: call it again.
        """
        self.begin_drain()
        if not self._is_open:
            return
        self._stop_lanes()
        for lane in self._lanes.values():
            await lane.empty()
        grace_s = self._settings.stopping.grace_s if grace_s is None else grace_s
        try:
            async with asyncio.timeout(grace_s):
                await self._until(lambda: self._is_settled(or_stuck=True))
        except TimeoutError:
            announce("grace_over", "what is still on the wire is abandoned", level=logging.WARNING)
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._ending)

    # How it does that

    def _open_app(
        self, name: str, api_key: str, *, learned: assembly.LearnedRates, connections: ConnectionBudget
    ) -> None:
        loop = asyncio.get_running_loop()
        app = self._apps[name] = self._make_app(name, self._settings.apps[name], api_key)
        for group in EndpointGroup:
            lane = assembly.make_lane(
                app,
                group,
                settings=self._settings,
                learned=learned,
                connections=connections,
                observer=self._observer,
                custody=self._custody,
                when_settled=self._settled,
                when_crashed=self._crashed,
                lanes=len(self._settings.apps) * len(EndpointGroup),
                now_s=loop.time(),
            )
            self._lanes[lane.name] = lane
            lane.pace.start()
        self._start_up.append(loop.create_task(set_limit(app)))

    def _make_app(self, name: str, settings: AppSettings, api_key: str) -> App:
        ledger = open_volume_ledger(
            self._settings.state_dir, app_id=settings.app_id, window=settings.application_limit_window
        )
        guard = Guard(
            ledger,
            name=name,
            per_second=ceil(settings.ceiling(EndpointGroup.CREATE_NOTIFICATION)),
            is_rejecting=settings.application_limit_policy == "reject",
            when_room=lambda: self._kick(name),
        )
        if self._open_transport is None:
            self._open_transport = transport_opener(self._settings.transport)
        return App(
            name,
            settings=settings,
            api_key=api_key,
            transport=self._open_transport(settings, api_key),
            guard=guard,
            when_changed=self._app_changed,
        )

    async def _recover(self) -> None:
        """Open the journals, and put back what an earlier process left before anything new is taken."""
        if not self._journals.are_wanted:
            return
        await self._adoption.take_on()
        self._admissions.keep_in(self._journals.own)
        self._admissions.memory = self._journals
        self._adoption.go_on()

    def _settled(self, receipt: Receipt) -> None:
        if not isinstance(receipt.outcome, Accepted):
            self._unawaited.watch(receipt)
        if receipt.job.idempotency_key is not None:
            self._admissions.settled(receipt)
        if self._custody is not None and self._adoption.receipts:
            self._adoption.receipts.settled(receipt)
        if not self._admissions.is_open:
            self._idle.set()

    def _is_settled(self, *, or_stuck: bool = False) -> bool:
        """Whether every job that was taken has settled, or else waits for a person."""
        if self._admissions.writing:
            return False
        return all(lane.books.is_settled or (or_stuck and lane.is_stuck) for lane in self._lanes.values())

    def _storage_failed(self, error: StorageError) -> None:
        """The disk has failed for good: take nothing more, and let what is on the wire finish."""
        if self._admissions.failure is not None:
            return
        self._admissions.failure = str(error)
        announce("storage_failed", f"no more jobs are taken: {error}", level=logging.CRITICAL)
        self.begin_drain()
        asyncio.get_running_loop().call_soon(self._stop_lanes)  # not in the middle of a lane's own step

    def _stop_lanes(self) -> None:
        for lane in self._lanes.values():
            lane.stop()

    def _app_changed(self, app: App) -> None:
        """An app was held or reopened."""
        for lane in [lane for lane in self._lanes.values() if lane.app is app]:
            if app.held is not None:
                lane.intake.turn_away(AppHeldError(f"app {app.name!r} is held: {app.held}"))
            else:
                lane.resume()
        self._idle.set()

    def _kick(self, app_name: str) -> None:
        for lane in self._lanes.values():
            if lane.app.name == app_name:
                lane.kick()

    def _crashed(self, what: str, error: BaseException) -> None:
        problem = f"{what} broke: {type(error).__name__}"
        if problem not in self._crashes:  # it may be so with each of a million jobs
            self._crashes.append(problem)
            _log.critical("%s broke; restart the engine", what, exc_info=error)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a condition holds: looked at when something settles or an app changes, and once a second."""
        while not is_so():
            self._idle.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):  # nobody tells when a held app's last request comes back
                    await self._idle.wait()

    async def _close(self) -> None:
        for task in self._start_up:
            task.cancel()
        await asyncio.gather(*self._start_up, return_exceptions=True)
        await self._adoption.aclose()
        for lane in self._lanes.values():
            await lane.aclose()
        self._monitor.stop()
        await self._journals.aclose()
        await on_a_thread(partial(memorise, self._settings.state_dir, list(self._lanes.values())))
        for app in self._apps.values():  # last: a transport may be of another's making, and raise
            await app.aclose()
        self._is_open = False
        announce("stopped", "the engine has stopped")
