"""The engine: takes jobs as fast as they come, and settles every one of them exactly once.

Units: seconds; instants are the running loop's ``time()``, except ``expires_at``, which is the wall clock's.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from math import ceil
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.outcomes import Accepted, Outcome
from sendengine.engine import assembly
from sendengine.engine.admission import channel_of, check_fence, deadline_of, render, weigh
from sendengine.engine.app import App
from sendengine.engine.audience import set_limit
from sendengine.engine.connections import ConnectionBudget
from sendengine.engine.events import announce
from sendengine.engine.guard import Guard
from sendengine.engine.keys import KeyTable, fingerprint, wire_key
from sendengine.engine.lane import Lane
from sendengine.engine.mapping import map_jobs
from sendengine.engine.memory import memorise, recall
from sendengine.engine.monitor import Monitor
from sendengine.engine.receipts import Receipt
from sendengine.engine.shielding import shielded
from sendengine.engine.unawaited import UnawaitedFailures
from sendengine.errors import (
    AppHeldError,
    EngineClosedError,
    IntakeFullError,
    InvalidJobError,
    KeyReusedError,
    SendEngineError,
    SendFailedError,
)
from sendengine.journal.threads import on_a_thread
from sendengine.journal.volume_ledger import open_volume_ledger
from sendengine.ports import Observer, Transport
from sendengine.settings import AppSettings, Settings, read_key
from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.snapshots import EngineStats
from sendengine.transport import bounded_connections, open_transport

TransportFactory = Callable[[AppSettings, str], Transport]
"""Makes an app's transport from its settings and its API key."""

_log = logging.getLogger("sendengine")
_TURN: Final = 32  # submits, about a millisecond's work


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
    ``open_transport`` replaces the transport that the settings name.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        observer: Observer | None = None,
        open_transport: TransportFactory | None = None,
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._open_transport = open_transport
        self._apps: dict[str, App] = {}
        self._lanes: dict[str, Lane] = {}
        self._keys: dict[str, KeyTable] = {}
        self._monitor = Monitor(self._lanes, self._apps)
        self._is_open = False
        self._is_accepting = False
        self._submits = 0
        self._crashes: list[str] = []
        self._unawaited = UnawaitedFailures()
        self._idle = asyncio.Event()
        self._start_up: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open transports and lanes. Raises SettingsError where an app's key or certificate cannot be used."""
        if self._is_open or self._ending is not None:
            raise EngineClosedError("an engine is entered once; make another one")
        rates = await on_a_thread(partial(recall, self._settings.state_dir))
        keys = await on_a_thread(self._read_keys)
        connections = ConnectionBudget(bounded_connections(self._settings.transport.max_connections))
        try:
            for name in self._settings.apps:
                self._open_app(name, keys[name], learned=rates, connections=connections)
            self._is_open = self._is_accepting = True
        finally:
            if not self._is_open:  # one of several could not be opened
                await self._close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, shielded from cancellation."""
        await shielded(self.drain())

    # Jobs

    async def submit(self, job: Job, *, timeout_s: float | None = None) -> Receipt:
        """Admit a job, waiting for room in its lane, and return its receipt.

        Raises IntakeFullError after ``timeout_s``, InvalidJobError, KeyReusedError, AppHeldError, or
        EngineClosedError; then the job was not taken. Cancelling it while it waits takes nothing either.
        """
        self._submits += 1
        if not self._submits % _TURN:  # a caller with a long list must not keep the loop from its work
            await asyncio.sleep(0)
        lane = self._lane_of(job)
        content = render(job)
        size_bytes = weigh(job, content=content)
        high = job.urgency == "high"
        if not lane.intake.try_enter(size_bytes, high=high):
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
        return self._admit(job, lane, content, size_bytes)

    def submit_nowait(self, job: Job) -> Receipt:
        """Admit a job at once, or raise as `submit` does: IntakeFullError where there is no room."""
        lane = self._lane_of(job)
        content = render(job)
        size_bytes = weigh(job, content=content)
        if not lane.intake.try_enter(size_bytes, high=job.urgency == "high"):
            raise IntakeFullError(f"{lane.name} has no room: {lane.intake.jobs} jobs wait or are in flight")
        return self._admit(job, lane, content, size_bytes)

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
        raises for a job, and what ``jobs`` raises, comes out here, after the outcomes of what was admitted.
        """
        return map_jobs(self.submit, jobs, in_flight=in_flight)

    # Watching

    def stats(self) -> EngineStats:
        """A frozen snapshot of every lane and app."""
        return self._monitor.snapshot()

    def counters(self) -> Mapping[str, LaneCounters]:
        """The counts of every lane that sent anything, by its name: what a report is made of."""
        return self._monitor.counters()

    def health(self) -> Health:
        """For probes: whether the engine works, and whether it takes jobs."""
        return Health(not self._crashes, self._is_accepting, tuple(self._crashes))

    def resume_app(self, name: str) -> None:
        """Let a held app go on: its key is read again, and what waited is sent."""
        if name not in self._apps:
            raise InvalidJobError("app", f"{name!r} is not configured; there are {', '.join(self._apps)}")
        self._apps[name].resume()

    # Stopping

    def begin_drain(self) -> None:
        """Take no more jobs; what was admitted goes on."""
        if self._is_accepting:
            self._is_accepting = False
            announce("draining", "no more jobs are taken; what was admitted is sent")
            for lane in self._lanes.values():
                lane.intake.turn_away(EngineClosedError("the engine is draining"))

    async def drain(self) -> None:
        """Take no more, send what waits for up to ``drain_timeout_s``, then abort. Waiting again is allowed."""
        self.begin_drain()
        try:
            async with asyncio.timeout(self._settings.stopping.drain_timeout_s):
                await self._until(lambda: all(lane.books.is_settled or lane.is_stuck for lane in self._lanes.values()))
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
        for lane in self._lanes.values():
            lane.stop()
        grace_s = self._settings.stopping.grace_s if grace_s is None else grace_s
        try:
            async with asyncio.timeout(grace_s):
                await self._until(lambda: all(lane.books.is_settled for lane in self._lanes.values()))
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
        self._keys[name] = KeyTable()
        for group in EndpointGroup:
            lane = assembly.make_lane(
                app,
                group,
                settings=self._settings,
                learned=learned,
                connections=connections,
                observer=self._observer,
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
            per_second=ceil(assembly.ceiling_of(settings, EndpointGroup.CREATE_NOTIFICATION)),
            is_rejecting=settings.application_limit_policy == "reject",
            when_room=lambda: self._kick(name),
        )
        if self._open_transport is not None:
            transport = self._open_transport(settings, api_key)
        else:
            transport = open_transport(settings, api_key, self._settings.transport)
        return App(
            name,
            settings=settings,
            api_key=api_key,
            transport=transport,
            guard=guard,
            when_changed=self._app_changed,
        )

    def _lane_of(self, job: Job) -> Lane:
        """The lane that would take a job now. Raises what `submit` raises for a job that none takes."""
        if not self._is_accepting:
            raise EngineClosedError("the engine takes no jobs: it is not entered with 'async with', or it is draining")
        app = self._app_of(job)
        is_notification = isinstance(job, CreateNotification)
        app.check_open(channel=channel_of(job))
        if app.settings.only_to:
            check_fence(job, app.settings.only_to)
        group = EndpointGroup.CREATE_NOTIFICATION if is_notification else EndpointGroup.UPDATE_USER
        return self._lanes[f"{app.name}/{group.value}"]

    def _app_of(self, job: Job) -> App:
        if job.app is None and len(self._apps) == 1:
            return next(iter(self._apps.values()))
        app = self._apps.get(job.app or "")
        if app is not None:
            return app
        what = "missing, and several apps are configured" if job.app is None else f"{job.app!r} is not configured"
        raise InvalidJobError("app", f"{what}; name one of: {', '.join(self._apps)}")

    def _admit(self, job: Job, lane: Lane, content: bytes, size_bytes: int) -> Receipt:
        """Make the receipt of a job whose room in the intake is taken."""
        now_s = asyncio.get_running_loop().time()
        deadline_s = deadline_of(job, now_s=now_s)
        receipt = Receipt(job, submitted_at_s=now_s, deadline_s=deadline_s, size_bytes=size_bytes)
        try:
            known = None if job.idempotency_key is None else self._join(job, receipt, app=lane.app)
        except KeyReusedError:
            lane.intake.leave(size_bytes, high=receipt.is_high)
            raise
        if known is not None:
            lane.intake.leave(size_bytes, high=receipt.is_high)
            return known
        self._idle.clear()
        self._monitor.wake()
        lane.admit(receipt, content=content, now_s=now_s)
        return receipt

    def _join(self, job: Job, receipt: Receipt, *, app: App) -> Receipt | None:
        """The receipt of the job that used this key first, or None: this one is the first."""
        key = wire_key(app.settings.app_id, job.idempotency_key or "")
        print_ = fingerprint(job)
        known = self._keys[app.name].join(key, job, fingerprint=print_)
        if known is None:
            self._keys[app.name].register(key, fingerprint=print_, receipt=receipt)
        return known

    def _settled(self, receipt: Receipt) -> None:
        job = receipt.job
        self._unawaited.watch(receipt)
        if job.idempotency_key is not None:
            app = self._app_of(job)
            self._keys[app.name].settle(wire_key(app.settings.app_id, job.idempotency_key), receipt)
        if not self._is_accepting:
            self._idle.set()

    def _app_changed(self, app: App) -> None:
        """An app was held or reopened."""
        for lane in self._lanes.values():
            if lane.app is not app:
                continue
            if app.held is not None:
                lane.intake.turn_away(AppHeldError(f"app {app.name!r} is held: {app.held}"))
            else:
                lane.resume()
        self._idle.set()

    def _kick(self, app_name: str) -> None:
        for lane in self._lanes.values():
            if lane.app.name == app_name:
                lane.kick()

    def _crashed(self, error: BaseException) -> None:
        _log.critical("a worker broke; restart the engine", exc_info=error)
        self._crashes.append(f"a worker broke: {type(error).__name__}")

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a condition holds that changes only when something settles or an app changes."""
        while not is_so():
            self._idle.clear()
            await self._idle.wait()

    async def _close(self) -> None:
        for task in self._start_up:
            task.cancel()
        await asyncio.gather(*self._start_up, return_exceptions=True)
        for lane in self._lanes.values():
            await lane.aclose()
        self._monitor.stop()
        for app in self._apps.values():
            await app.aclose()
        await on_a_thread(partial(memorise, self._settings.state_dir, list(self._lanes.values())))
        self._is_open = False
        announce("stopped", "the engine has stopped")

    def _read_keys(self) -> dict[str, str]:
        return {name: read_key(app) for name, app in self._settings.apps.items()}
