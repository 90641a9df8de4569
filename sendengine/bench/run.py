"""Runs a benchmark on an engine that is open: offers, watches, waits for what is left, and says what it found.

Units: ``_s`` is seconds on the running loop's clock, CPU of this process with all threads and the kernel's part.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Final

from msgspec import Struct

from sendengine.bench.feeding import Feeder
from sendengine.bench.mix import Mix
from sendengine.bench.plots import percentile_points
from sendengine.bench.result import Cpu, Lane, Latency, Second, latency_of
from sendengine.bench.streams import ABANDONED, Flood, Kind, Stream, Tally
from sendengine.core.jobs import Urgency
from sendengine.core.onesignal import EndpointGroup
from sendengine.engine import SendEngine
from sendengine.errors import AppHeldError
from sendengine.telemetry.counters import Cause, LaneCounters
from sendengine.telemetry.histogram import Histogram

_SETTLE_S: Final = 10.0  # what is left after so long counts for as long as it has waited
_GRACE_S: Final = 5.0  # what a stop gives the wire to finish
_SAMPLE_S: Final = 1.0
_MOST_SAMPLES: Final = 3600  # of a longer benchmark they are further apart
_SHALLOW: Final = 2000  # jobs that wait as fast as it goes: a second's worth, within reason
_DEEP: Final = 10_000
_MOMENT_S: Final = 1e-3
_URGENCIES: Final[tuple[Urgency, ...]] = ("normal", "high")


class Load(Struct, frozen=True, kw_only=True):
    """What is offered: a mix for so many seconds, ``rate`` jobs a second, or as fast as it goes where that is None."""

    mix: Mix
    rate: float | None
    seconds: float

    def streams(self, *, depth: int) -> list[Stream | Flood]:
        """Make the streams: one for each kind of job where there is a rate, so that none waits behind another.

        As fast as it goes there is one, of which ``depth`` jobs are under way.
        """
        shares = {(group, urgency): self.mix.share(group, urgency) for group in EndpointGroup for urgency in _URGENCIES}
        if self.rate is None:
            return [Flood(self.mix.jobs(shares), depth=depth)]
        return [
            Stream(self.mix.jobs({kind: 1.0}), kind=kind, rate=self.rate * share, seconds=self.seconds)
            for kind, share in shares.items()
            if share > 0
        ]


class Found(Struct, frozen=True, kw_only=True):
    """What was measured. ``why`` is empty, or says why it ended early; ``is_held`` where the server refused the app."""

    seconds: float
    why: str
    is_held: bool
    lanes: dict[str, Lane]
    cpu: Cpu
    longest_pause_ms: float
    submitted_late_ms: float
    timeline: list[Second]
    curves: dict[str, list[tuple[float, float]]]


class _Mark(Struct, frozen=True):
    """Counts at one instant."""

    at_s: float
    offered: int
    accepted: dict[Kind, int]
    requests: dict[str, int]
    throttled: int
    bound_by: dict[str, dict[Cause, float]]
    user_s: float
    system_s: float


class BenchRun:
    """One benchmark of one app of an engine. Make it on a running loop; `measure` closes the engine.

    The engine has so many ``connections`` at most; ``is_lifted`` says that its ceilings are none.
    """

    def __init__(self, engine: SendEngine, load: Load, *, app: str, connections: int, is_lifted: bool) -> None:
        self._engine = engine
        self._load = load
        self._app = app
        self._curves: dict[str, list[tuple[float, float]]] = {}
        self._names = {group: f"{app}/{group.value}" for group in EndpointGroup}
        ceilings = {group: engine.stats().lanes[name].ceiling for group, name in self._names.items()}
        self._ceilings = {group: None if is_lifted else ceiling for group, ceiling in ceilings.items()}
        depth = connections + round(min(max(_SHALLOW, sum(ceilings.values())), _DEEP))
        self._feeder = Feeder(engine.submit_nowait, load.streams(depth=depth))
        self._marks: list[_Mark] = []
        self._aborting: asyncio.Task[None] | None = None

    @property
    def at_s(self) -> float:
        """Seconds since the beginning."""
        return self._feeder.at_s

    def stop(self) -> None:
        """Offer nothing more; what is on the wire finishes, for a few seconds."""
        self._feeder.stop()

    def abort(self) -> None:
        """Give up what is on the wire, too."""
        self._feeder.stop()
        if self._aborting is None:
            self._aborting = asyncio.get_running_loop().create_task(self._engine.abort(grace_s=0))

    async def measure(self) -> Found:
        """Offer the load, wait for what is left, close the engine, and say what was found.

        Ends early, with what was measured until then, after `stop` and where the app is held. Cancelling it offers
        nothing more and leaves the engine to its owner.
        """
        self._mark()
        watching = asyncio.create_task(self._watch())
        try:
            with suppress(AppHeldError):  # it stays held, and is seen below
                try:
                    await self._feeder.offer(self._load.seconds)
                finally:
                    self._mark()
                await self._feeder.settle(_SETTLE_S)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        stats, unmade = self._engine.stats(), self._feeder.waited()
        held = stats.apps[self._app].held
        is_stopped = self._feeder.is_stopped
        await self._engine.abort(grace_s=_GRACE_S if is_stopped else 0)
        if self._aborting is not None:
            await self._aborting
        await asyncio.sleep(0)  # what was abandoned tells so in a turn of its own
        last = self._marks[-1]
        return Found(
            seconds=last.at_s,
            why=held or ("stopped before its end, as asked" if is_stopped else ""),
            is_held=held is not None,
            lanes=self._lanes({} if is_stopped or held else unmade, is_whole=not (is_stopped or held)),
            cpu=self._cpu(),
            longest_pause_ms=round(stats.longest_pause_s * 1e3, 3),
            submitted_late_ms=round(self._feeder.late.percentile_ms(99), 3),
            timeline=[_second(before, after) for before, after in pairwise(self._marks) if _is_long(before, after)],
            curves=self._curves,
        )

    async def _watch(self) -> None:
        """Take the counts every second or so, for as long as jobs are offered."""
        every_s = max(_SAMPLE_S, self._load.seconds / _MOST_SAMPLES)
        while (next_s := len(self._marks) * every_s) < self._load.seconds:
            await asyncio.sleep(next_s - self.at_s)
            self._mark()

    def _mark(self) -> None:
        counters, times = self._engine.counters(), os.times()
        self._marks.append(
            _Mark(
                at_s=self.at_s,
                offered=sum(self._feeder.offered().values()),
                accepted={kind: tally.accepted for kind, tally in self._feeder.tallies.items()},
                requests={name: lane.requests for name, lane in counters.items()},
                throttled=sum(lane.throttled for lane in counters.values()),
                bound_by={name: lane.bound_by for name, lane in counters.items()},
                user_s=times.user,
                system_s=times.system,
            )
        )

    def _cpu(self) -> Cpu:
        first, last = self._marks[0], self._marks[-1]
        user_s, system_s = last.user_s - first.user_s, last.system_s - first.system_s
        return Cpu(
            user_s=round(user_s, 3),
            system_s=round(system_s, 3),
            cores=round((user_s + system_s) / max(last.at_s, _MOMENT_S), 4),
            us_per_request=_us_each(user_s + system_s, sum(last.requests.values())),
            us_per_job=_us_each(user_s + system_s, sum(last.accepted.values())),
        )

    def _lanes(self, unmade: Mapping[Kind, Histogram], *, is_whole: bool) -> dict[str, Lane]:
        """Put together what is known of each lane that was offered anything.

        Where the benchmark is ``is_whole``, what did not settle in time counts for as long as it has waited: it is
        among the slowest. Where it was stopped, much of that had only begun, and is left out.
        """
        offered, counters = self._feeder.offered(), self._engine.counters()
        found: dict[str, Lane] = {}
        for group, name in self._names.items():
            kinds = [kind for kind in offered if kind[0] is group]
            if kinds:
                tallies = {kind: self._feeder.tallies.get(kind, Tally()) for kind in kinds}
                waits = {kind: _waits(tally, unmade.get(kind), is_whole=is_whole) for kind, tally in tallies.items()}
                self._curves |= {_label(kind): percentile_points(wait) for kind, wait in waits.items() if wait.count}
                found[group.value] = self._lane(
                    group,
                    counters.get(name, LaneCounters()),
                    offered=sum(offered[kind] for kind in kinds),
                    tallies=tallies,
                    latency={kind[1]: latency_of(wait) for kind, wait in waits.items() if wait.count},
                )
        return found

    def _lane(
        self,
        group: EndpointGroup,
        counters: LaneCounters,
        *,
        offered: int,
        tallies: Mapping[Kind, Tally],
        latency: dict[str, Latency],
    ) -> Lane:
        last, name = self._marks[-1], self._names[group]
        seconds = max(last.at_s, _MOMENT_S)
        outcomes = sum((tally.outcomes for tally in tallies.values()), Counter[str]())
        accepted = sum(last.accepted.get(kind, 0) for kind in tallies)
        return Lane(
            offered=offered,
            offered_per_s=round(offered / seconds, 3),
            accepted=outcomes["accepted"],
            accepted_per_s=round(accepted / seconds, 3),
            unsettled=offered - (outcomes.total() - outcomes[ABANDONED]),
            outcomes={outcome: count for outcome, count in sorted(outcomes.items()) if outcome != ABANDONED},
            requests=counters.requests,
            requests_per_s=round(last.requests.get(name, 0) / seconds, 3),
            ceiling=self._ceilings[group],
            most_in_one_second=counters.peak_1s,
            throttled=counters.throttled,
            retries=counters.retries,
            lost=counters.lost,
            not_sent=counters.not_sent,
            bound_by={str(cause): round(part, 4) for cause, part in last.bound_by.get(name, {}).items() if part},
            latency=latency,
            reply=latency_of(counters.latency),
        )


def _waits(tally: Tally, unmade: Histogram | None, *, is_whole: bool) -> Histogram:
    waits = Histogram()
    for part in (tally.latency, *([tally.waited] if is_whole else []), *([unmade] if unmade else [])):
        waits.merge(part)
    return waits


def _us_each(seconds: float, count: int) -> float | None:
    return round(seconds / count * 1e6, 2) if count else None


def _label(kind: Kind) -> str:
    group, urgency = kind
    return group.value if urgency == "normal" else f"{group.value}, high"


def _is_long(before: _Mark, after: _Mark) -> bool:
    """Whether a stretch is long enough to have a rate; the last one may be short."""
    return after.at_s - before.at_s >= _SAMPLE_S / 5


def _second(before: _Mark, after: _Mark) -> Second:
    passed_s = after.at_s - before.at_s
    names = {name.partition("/")[2]: name for name in after.requests}
    return Second(
        at_s=round(after.at_s, 3),
        offered_per_s=round((after.offered - before.offered) / passed_s, 3),
        accepted_per_s=round((sum(after.accepted.values()) - sum(before.accepted.values())) / passed_s, 3),
        requests_per_s={
            group: round((after.requests[name] - before.requests.get(name, 0)) / passed_s, 3)
            for group, name in names.items()
        },
        throttled=after.throttled - before.throttled,
    )
