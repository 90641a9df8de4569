"""How long the engine holds a job up: a high job in front of a large backlog at the ceiling, and a lone job.

Method: with a backlog, a transport notes when each measured job's permit was granted, which is when it is written; the
clock starts before `SendEngine.submit`. The jobs come one by one at intervals that vary, while at least ``waiting``
normal ones wait, each a request of its own. A lone job on an idle engine (linger 0) is sent in turn with the same
bytes as a bare request over a transport of the same kind, in one process and to one server; what the engine added is
the difference of the two, from before `submit` until the outcome is awaited, pair by pair. They follow on one another,
as in a process that has other work; and once more after a pause each, which takes all of them two to three times as
long: the processor slept, and its caches hold what others have run.

Units: milliseconds with a backlog, µs for a lone job.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from benchmarks.arrivals import percentiles_ms
from benchmarks.bare import open_session, send
from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Positive, Rounds
from benchmarks.feeding import Feed
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import UNLIMITED, MeasuredMock
from benchmarks.report import Report, at_most, row
from benchmarks.stamps import StampingTransport, Stamps, measured_job
from benchmarks.workload import APP, CREATE, DOCUMENTED, UPDATE, job, jobs, lane_name, rendered, settings, wire
from sendengine import Accepted, SendEngine, Transport, tune_collector
from sendengine.core.jobs import Urgency
from sendengine.core.onesignal import EndpointGroup
from sendengine.mockserver import MockConfig
from sendengine.settings import AppSettings, BatchingSettings, read_key
from sendengine.transport import open_transport

_P99_MS: Final = 20.0
_LONE_US: Final = 100.0
_INTERVAL_S: Final = 0.02
_PAUSE_S: Final = 0.002
_WARM: Final = 20

CaseName = Literal["backlog", "lone", "every"]


class Case(Struct, frozen=True):
    """Which jobs are measured, and whether others wait."""

    group: EndpointGroup
    urgency: Urgency
    has_backlog: bool


CASES: Final[Mapping[str, Case]] = {
    "high notification, backlog": Case(CREATE, "high", has_backlog=True),
    "high update, backlog": Case(UPDATE, "high", has_backlog=True),
    "lone high notification": Case(CREATE, "high", has_backlog=False),
    "lone normal notification": Case(CREATE, "normal", has_backlog=False),
    "lone normal update": Case(UPDATE, "normal", has_backlog=False),
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
    """A high job with 100,000 normal ones waiting at the ceiling; a lone job against a bare request."""

    case: Annotated[CaseName, Meta(description="with a backlog, alone, or both")] = "every"
    waiting: Annotated[AtLeastOne, Meta(description="normal jobs that wait")] = 100_000
    jobs: Annotated[AtLeastOne, Meta(description="jobs that are measured, in each round")] = 500
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server, with a backlog")] = 100.0
    settle_s: Annotated[Positive, Meta(description="from an empty wire to the ceiling, before anything counts")] = 1.0
    rounds: Rounds = 3
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Measure each case in turn."""
        names = [
            name for name, case in CASES.items() if self.case in {"every", "backlog" if case.has_backlog else "lone"}
        ]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        limits = MockConfig(application_limit="off", keep_updates=False, latency_ms=self.latency_ms)
        async with MeasuredMock(limits) as limited, MeasuredMock(UNLIMITED) as unlimited:
            for _ in range(self.rounds):
                for name, rounds in found.items():
                    case = CASES[name]
                    mock = limited if case.has_backlog else unlimited  # three ways in turn are more than it may be
                    await mock.reset()
                    task = Task(case, mock.base_url, self.waiting, self.jobs, self.settle_s, self.loop)
                    rounds.append(await in_fresh_process(measure, task))
        report = Report(rows=[row(name, rounds) for name, rounds in found.items()], checks=[])
        for each in report.rows:
            if CASES[each.case].has_backlog:
                report.checks.append(at_most(f"{each.case}, p99 ms", each.figures["p99 ms"].median, _P99_MS))
            else:
                report.checks.append(
                    at_most(f"{each.case}, µs added at the median", each.figures["µs added"].median, _LONE_US)
                )
        return report


def measure(task: Task) -> dict[str, float]:
    """Measure one case in this process."""
    return run_on(task.loop, _before_backlog(task) if task.case.has_backlog else _alone(task))


# A high job in front of a backlog


async def _before_backlog(task: Task) -> dict[str, float]:
    lasts_s = _INTERVAL_S * task.jobs * 1.5 + 2 * task.settle_s
    enough = task.waiting + round(DOCUMENTED[task.case.group] * lasts_s)
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(Path(folder), base_url=task.base_url, waiting=2 * (enough + task.jobs))
        stamps = Stamps()

        def stamping(app: AppSettings, api_key: str) -> Transport:
            return StampingTransport(open_transport(app, api_key, config.transport), stamps)

        async with SendEngine(config, open_transport=stamping) as engine:
            tune_collector()
            Feed(engine).submit_at_once(islice(jobs(task.case.group), enough))
            await asyncio.sleep(task.settle_s)
            figures = await _high_jobs(engine, task, stamps)
            waited = engine.stats().lanes[lane_name(task.case.group)].depth
            assert waited >= task.waiting, f"only {waited} jobs waited at the end"
            await engine.abort()
            return figures | {"waiting at the end": float(waited)}


async def _high_jobs(engine: SendEngine, task: Task, stamps: Stamps) -> dict[str, float]:
    """Submit measured jobs one by one, and time each until it is written."""
    chance, lane = Random(1), lane_name(task.case.group)
    begun_s, sent_before = perf_counter(), engine.stats().lanes[lane].requests
    submitted_s: list[float] = []
    for number in range(task.jobs):
        submitted_s.append(perf_counter())
        await engine.submit(measured_job(task.case.group, number, urgency=task.case.urgency))
        await asyncio.sleep(_INTERVAL_S * (0.5 + chance.random()))
    rate = (engine.stats().lanes[lane].requests - sent_before) / (perf_counter() - begun_s)
    await stamps.reached(task.jobs)
    waits_s = [stamps.written_s[number] - at_s for number, at_s in enumerate(submitted_s)]
    return percentiles_ms(waits_s) | {"requests/s": rate}


# A lone job on an idle engine


async def _alone(task: Task) -> dict[str, float]:
    group = task.case.group
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(
            Path(folder),
            base_url=task.base_url,
            transport=wire("direct", base_url=task.base_url),
            batching=BatchingSettings(linger_ms=0),
        )
        app = config.apps[APP]
        bare = open_transport(app, read_key(app), config.transport)
        async with SendEngine(config) as engine, open_session(task.base_url, connections=1) as session:
            count = _WARM + task.jobs
            given = [replace(job(group, number), urgency=task.case.urgency) for number in _numbers(task, 0)]
            bodies = [[rendered(group, number) for number in _numbers(task, way)] for way in (1, 2)]
            tune_collector()

            async def by_engine(number: int) -> None:
                assert isinstance(await (await engine.submit(given[number])), Accepted)

            async def by_transport(number: int) -> None:
                await bare.exchange(bodies[0][number], _at_once)

            async def by_aiohttp(number: int) -> None:
                await send(session, task.base_url, bodies[1][number])

            ways = [by_engine, by_transport, by_aiohttp]
            at_once = await _in_turn(ways, range(count), pause_s=0)
            after_pause = await _in_turn(ways, range(count, 2 * count), pause_s=_PAUSE_S)
        await bare.aclose()
    return _compared(at_once) | {f"{name}, after a pause": value for name, value in _compared(after_pause).items()}


def _compared(took_s: list[list[float]]) -> dict[str, float]:
    engine_us, transport_us, aiohttp_us = ([each * 1e6 for each in times] for times in took_s)
    return {
        "µs engine": median(engine_us),
        "µs bare transport": median(transport_us),
        "µs bare aiohttp": median(aiohttp_us),
        "µs added": median(mine - other for mine, other in zip(engine_us, transport_us, strict=True)),
        "× bare aiohttp": median(engine_us) / median(aiohttp_us),
    }


async def _in_turn(
    ways: Sequence[Callable[[int], Awaitable[None]]], numbers: range, *, pause_s: float
) -> list[list[float]]:
    """Send these requests each way, in turn, and time them; the first few do not count."""
    took_s: list[list[float]] = [[] for _ in ways]
    for number in numbers:
        for way, times in zip(ways, took_s, strict=True):
            await asyncio.sleep(pause_s)  # at least a turn of the loop, so that what the last one left to do is done
            begun_s = perf_counter()
            await way(number)
            if number >= numbers.start + _WARM:
                times.append(perf_counter() - begun_s)
    return took_s


def _numbers(task: Task, way: int) -> range:
    """The users of one way, nobody else's: each user has one update a second."""
    count = 2 * (_WARM + task.jobs)
    return range(way * count, (way + 1) * count)


async def _at_once() -> None:
    """A permit that is there."""
