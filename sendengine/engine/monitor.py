"""Watches the lanes: what bounds them at each moment, for reports, and a snapshot for whoever asks.

Units: seconds on the running loop's clock; snapshots carry seconds since the epoch.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from sendengine.core.onesignal import EndpointGroup
from sendengine.engine.app import App
from sendengine.engine.lane import Lane
from sendengine.telemetry.counters import Cause, LaneCounters
from sendengine.telemetry.loop_lag import LoopLag
from sendengine.telemetry.snapshots import AppStats, EngineStats, LaneStats

_SAMPLE_S: Final = 0.05


class Monitor:
    """Samples while there is work; costs nothing while there is none."""

    def __init__(self, lanes: Mapping[str, Lane], apps: Mapping[str, App]) -> None:
        self._lanes = lanes
        self._apps = apps
        self._timer: asyncio.TimerHandle | None = None
        self._lag: LoopLag | None = None
        self._sampled_at_s = 0.0
        self._is_stopped = False

    def wake(self) -> None:
        """There is work."""
        if self._timer is None and not self._is_stopped:
            loop = asyncio.get_running_loop()
            if self._lag is None:
                self._lag = LoopLag(loop)
            self._lag.start()
            self._sampled_at_s = loop.time()
            self._timer = loop.call_later(_SAMPLE_S, self._sample)

    def stop(self) -> None:
        """Take a last look, and no more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lag is not None:
            self._lag.stop()
        self.counters()

    def counters(self) -> Mapping[str, LaneCounters]:
        """The counts of the lanes that sent anything, or tried to, brought up to date."""
        now_s = asyncio.get_running_loop().time()
        for lane in self._lanes.values():
            counters = lane.counters
            counters.epochs = lane.pace.controller.epochs
            counters.failure = lane.retries.failure
            counters.held_s = lane.pace.held_for_s(now_s=now_s)
            counters.saw_peak(lane.limiter.most_in_one_second)
        counted = {name: lane.counters for name, lane in self._lanes.items()}
        return {name: counters for name, counters in counted.items() if counters.requests or counters.not_sent}

    def snapshot(self) -> EngineStats:
        """Everything at this instant."""
        loop_s = asyncio.get_running_loop().time()
        epoch_s = time.time()
        return EngineStats(
            taken_at_s=epoch_s,
            lanes={name: _lane_stats(lane, now_s=loop_s, epoch_s=epoch_s) for name, lane in self._lanes.items()},
            apps={
                name: AppStats(
                    held=app.held,
                    held_channels=tuple(sorted(app.held_channels)),
                    subscribed_users=app.guard.users,
                    delivered=app.guard.used,
                    application_limit=app.guard.limit,
                    connections=app.transport.open_connections,
                    streams=app.transport.capacity,
                    protocol=app.transport.protocol,
                )
                for name, app in self._apps.items()
            },
            longest_pause_s=0.0 if self._lag is None else self._lag.longest_s,
        )

    def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        passed_s, self._sampled_at_s = now_s - self._sampled_at_s, now_s
        is_busy = False
        for lane in self._lanes.values():
            if lane.books.is_settled:
                continue
            is_busy = True
            lane.pool.fit()  # a server may change its mind about how many it takes at once
            cause = bound_by(lane, now_s=now_s)
            if cause is not None:
                lane.counters.note(cause, passed_s)
        if is_busy:
            self._timer = loop.call_later(_SAMPLE_S, self._sample)
            return
        self._timer = None
        if self._lag is not None:
            self._lag.stop()


def bound_by(lane: Lane, *, now_s: float) -> Cause | None:
    """What keeps a lane from going faster at this moment; None while there is nothing to do."""
    if not lane.waiting and not lane.approaching:
        return "input" if lane.in_flight else None
    if lane.app.is_paused or not lane.pace.is_open or lane.retries.is_outage or _repeats_from_s(lane, now_s=now_s):
        return "hold"
    if lane.source.is_guarded and lane.app.guard.is_short:
        return "guard"
    if lane.limiter.waiting or lane.keeping:
        return "rate" if lane.limiter.waiting else "journal"
    if not lane.pool.has_idle and lane.has_ready(now_s=now_s):
        return "connections"
    return "user" if lane.group is EndpointGroup.UPDATE_USER else "input"


def _lane_stats(lane: Lane, *, now_s: float, epoch_s: float) -> LaneStats:
    hold, until_s = _hold(lane, now_s=now_s)
    oldest_s = lane.oldest_s
    counters = lane.counters
    latency = counters.latency
    return LaneStats(
        depth=lane.waiting,
        oldest_age_s=0.0 if oldest_s is None else max(0.0, now_s - oldest_s),
        rate=lane.limiter.rate if lane.pace.is_open else 0.0,
        ceiling=lane.limiter.ceiling,
        hold=hold,
        hold_until_s=None if until_s is None else until_s - now_s + epoch_s,
        in_flight=lane.in_flight,
        connections=len(lane.pool),
        requests=counters.requests,
        replies=counters.replies,
        retries=counters.retries,
        throttled=counters.throttled,
        epochs=lane.pace.controller.epochs,
        most_in_one_second=lane.limiter.most_in_one_second,
        latency_p50_ms=latency.percentile_ms(50),
        latency_p99_ms=latency.percentile_ms(99),
        latency_max_ms=latency.max_ms,
        share_of_application_limit=lane.app.guard.share if lane.source.is_guarded else None,
    )


def _hold(lane: Lane, *, now_s: float) -> tuple[str | None, float | None]:
    """Why nothing is sent and, where that is known, until when; ``(None, None)`` while the lane is open."""
    guard = lane.app.guard
    if lane.app.held is not None:
        return lane.app.held, None
    if lane.pace.is_paused:
        return "paused", None
    if not lane.pace.is_open:
        return "OneSignal answered 429", lane.pace.opens_at_s
    if lane.retries.is_outage:
        return _with_failure("nothing is answered", lane), lane.retries.next_probe_at_s
    if lane.source.is_guarded and guard.blocked_until_s > now_s:
        return guard.failure or "the application limit has no room", guard.blocked_until_s
    repeats_from_s = _repeats_from_s(lane, now_s=now_s)
    return (None if repeats_from_s is None else _with_failure("what waits was tried before", lane)), repeats_from_s


def _with_failure(hold: str, lane: Lane) -> str:
    return f"{hold}: {lane.retries.failure}" if lane.retries.failure else hold


def _repeats_from_s(lane: Lane, *, now_s: float) -> float | None:
    """When something may go again, where all that is left was tried before and may not go yet; None elsewhere."""
    due_s = None if lane.source.waiting or lane.in_flight else lane.returns.next_s()
    return due_s if due_s is not None and due_s > now_s else None
