"""From submit to the wire: a high job in front of a large backlog at the ceiling, and a lone job on an idle lane.

Method: a transport that notes when each measured job's permit was granted, which is when it is written; the clock
starts before `SendEngine.submit`. In front of a backlog, jobs come one by one at intervals that vary, while at least
``waiting`` normal ones wait, each a request of its own. On an idle lane each comes a while after the last has settled.

Units: milliseconds.
"""

import asyncio
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Final

from msgspec import Meta, Struct

from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Positive, Rounds
from benchmarks.feeding import Feed
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import MeasuredMock
from benchmarks.report import Report, at_most, row
from benchmarks.workload import CREATE, DOCUMENTED, UPDATE, jobs, lane_name, settings
from sendengine import CreateNotification, Job, SendEngine, UpdateUser, external_id, tune_collector
from sendengine.core.jobs import Urgency
from sendengine.core.onesignal import EndpointGroup
from sendengine.mockserver import MockConfig
from sendengine.ports import Permit, Reply, Transport, WireRequest
from sendengine.settings import AppSettings
from sendengine.transport import open_transport

_P99_MS: Final = 20.0
_INTERVAL_S: Final = 0.02
_MEASURED: Final = re.compile(rb"measured-(\d+)")


class Case(Struct, frozen=True):
    """Which jobs are measured, and whether others wait."""

    group: EndpointGroup
    urgency: Urgency
    has_backlog: bool


CASES: Final[Mapping[str, Case]] = {
    "high notification, backlog": Case(CREATE, "high", has_backlog=True),
    "high update, backlog": Case(UPDATE, "high", has_backlog=True),
    "high notification, idle lane": Case(CREATE, "high", has_backlog=False),
    "normal notification, idle lane": Case(CREATE, "normal", has_backlog=False),
    "normal update, idle lane": Case(UPDATE, "normal", has_backlog=False),
}


class Task(Struct, frozen=True):
    """One case in one process."""

    case: Case
    base_url: str
    waiting: int
    jobs: int
    settle_s: float
    loop: LoopKind


class Latency(Benchmark, frozen=True, kw_only=True):
    """A high job with 100,000 normal ones waiting at the ceiling, and a lone job: submit to wire."""

    waiting: Annotated[AtLeastOne, Meta(description="normal jobs that wait")] = 100_000
    jobs: Annotated[AtLeastOne, Meta(description="jobs that are measured, in each round")] = 500
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    settle_s: Annotated[Positive, Meta(description="from an empty wire to the ceiling, before anything counts")] = 1.0
    rounds: Rounds = 1
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Measure each case in turn."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
        async with MeasuredMock(MockConfig(application_limit="off", keep_updates=False)) as mock:
            for _ in range(self.rounds):
                for name, case in CASES.items():
                    await mock.configure(latency_ms=self.latency_ms if case.has_backlog else 0.0)
                    await mock.reset()
                    task = Task(case, mock.base_url, self.waiting, self.jobs, self.settle_s, self.loop)
                    found[name].append(await in_fresh_process(measure, task))
        report = Report(rows=[row(name, rounds) for name, rounds in found.items()], checks=[])
        for each in report.rows:
            if CASES[each.case].has_backlog:
                report.checks.append(at_most(f"{each.case}, p99 ms", each.figures["p99 ms"].median, _P99_MS))
        return report


def measure(task: Task) -> dict[str, float]:
    """Measure one case in this process."""
    return run_on(task.loop, _measure(task))


async def _measure(task: Task) -> dict[str, float]:
    lasts_s = _INTERVAL_S * task.jobs * 1.5 + 2 * task.settle_s
    enough = task.waiting + round(DOCUMENTED[task.case.group] * lasts_s) if task.case.has_backlog else 0
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(Path(folder), base_url=task.base_url, waiting=2 * (enough + task.jobs))
        stamps = Stamps()

        def stamping(app: AppSettings, api_key: str) -> Transport:
            return StampingTransport(open_transport(app, api_key, config.transport), stamps)

        async with SendEngine(config, open_transport=stamping) as engine:
            tune_collector()
            if not task.case.has_backlog:
                waits_ms = await _on_idle_lane(engine, task, stamps)
                return _percentiles(waits_ms, waited=0, rate=0.0)
            Feed(engine).submit_at_once(islice(jobs(task.case.group), enough))
            await asyncio.sleep(task.settle_s)
            waits_ms, rate = await _before_backlog(engine, task, stamps)
            waited = engine.stats().lanes[lane_name(task.case.group)].depth
            assert waited >= task.waiting, f"only {waited} jobs waited at the end"
            await engine.abort()
            return _percentiles(waits_ms, waited=waited, rate=rate)


async def _before_backlog(engine: SendEngine, task: Task, stamps: "Stamps") -> tuple[list[float], float]:
    chance, lane = Random(1), lane_name(task.case.group)
    begun_s, sent_before = perf_counter(), engine.stats().lanes[lane].requests
    submitted_s: list[float] = []
    for number in range(task.jobs):
        submitted_s.append(perf_counter())
        await engine.submit(_job(task.case, number))
        await asyncio.sleep(_INTERVAL_S * (0.5 + chance.random()))
    rate = (engine.stats().lanes[lane].requests - sent_before) / (perf_counter() - begun_s)
    await stamps.reached(task.jobs)
    return stamps.since(submitted_s), rate


async def _on_idle_lane(engine: SendEngine, task: Task, stamps: "Stamps") -> list[float]:
    submitted_s: list[float] = []
    for number in range(task.jobs):
        submitted_s.append(perf_counter())
        await (await engine.submit(_job(task.case, number)))
        await asyncio.sleep(_INTERVAL_S / 4)
    return stamps.since(submitted_s)


def _job(case: Case, number: int) -> Job:
    target = external_id(f"measured-{number}")
    if case.group is CREATE:
        message = {"contents": {"en": f"Your code is {number}"}}
        return CreateNotification(to=target, channel="push", message=message, urgency=case.urgency)
    return UpdateUser(target, {"level": number}, urgency=case.urgency)


def _percentiles(waits_ms: list[float], *, waited: int, rate: float) -> dict[str, float]:
    ordered = sorted(waits_ms)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {
        "p50 ms": at(0.5),
        "p99 ms": at(0.99),
        "max ms": ordered[-1],
        "waiting at the end": float(waited),
        "requests/s": rate,
    }


class Stamps:
    """When each measured job was written, by its number."""

    def __init__(self) -> None:
        self._written_s: dict[int, float] = {}
        self._news = asyncio.Event()

    def note(self, number: int) -> None:
        """A measured job is being written."""
        self._written_s.setdefault(number, perf_counter())
        self._news.set()

    async def reached(self, count: int) -> None:
        """Wait until so many were written."""
        while len(self._written_s) < count:
            self._news.clear()
            await self._news.wait()

    def since(self, submitted_s: list[float]) -> list[float]:
        """How many milliseconds each took."""
        return [(self._written_s[number] - at_s) * 1e3 for number, at_s in enumerate(submitted_s)]


class StampingTransport:
    """A transport that notes when the requests of measured jobs are written."""

    def __init__(self, inner: Transport, stamps: Stamps) -> None:
        self._inner = inner
        self._stamps = stamps

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Exchange, and note when the permit was granted."""
        found = _MEASURED.search(request.body if request.method == "POST" else request.path.encode())
        if found is None:
            return await self._inner.exchange(request, permit)
        number = int(found[1])

        async def stamped() -> None:
            await permit()
            self._stamps.note(number)

        return await self._inner.exchange(request, stamped)

    async def warm(self, count: int) -> int:
        """Pass it on."""
        return await self._inner.warm(count)

    def replace_key(self, api_key: str) -> None:
        """Pass it on."""
        self._inner.replace_key(api_key)

    @property
    def open_connections(self) -> int:
        """As many as the inner one has."""
        return self._inner.open_connections

    async def aclose(self) -> None:
        """Pass it on."""
        await self._inner.aclose()
