"""What a web handler on the same loop notices of the engine: how long it is kept from running.

Method: on the client's loop, events come by themselves, some hundreds a second, as requests to a web app would; each
is a timer at an instant drawn beforehand, and what counts is how much later than that instant it ran. The client is the
engine on each transport at both ceilings, a bare aiohttp loop paced alike, and nothing at all: what the machine and
the loop's own timers cost. Each has its turn in a fresh process against one mock server.

Units: milliseconds from the intended instant.
"""

import asyncio
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Final, Literal

from aiohttp import ClientSession
from msgspec import Meta, Struct

from benchmarks.arrivals import instants, percentiles_ms
from benchmarks.atceilings import BARE, CONNECTIONS, Situation, Task, fill, paced, settings_of
from benchmarks.bare import open_session
from benchmarks.benchmark import Benchmark, Loop, Positive, Rounds
from benchmarks.feeding import Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import MeasuredMock
from benchmarks.report import Report, at_most, row
from benchmarks.workload import DOCUMENTED
from sendengine import SendEngine, tune_collector
from sendengine.mockserver import MockConfig

_LONGEST_MS: Final = 10.0
_IDLE: Final = "nothing"
_SETTLE_S: Final = 1.0  # until the ceilings are reached

Collector = Literal["tuned", "default"]


class Watched(Struct, frozen=True):
    """A client's turn, and how the handler's events come."""

    task: Task
    rate: float
    settle_s: float
    collector: Collector


class LoopStall(Benchmark, frozen=True, kw_only=True):
    """The longest stall that a co-resident web handler sees while the engine runs at both ceilings."""

    seconds: Annotated[Positive, Meta(description="how long events come, in each turn")] = 30.0
    rate: Annotated[Positive, Meta(description="events a second")] = 500.0
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    settle_s: Annotated[float, Meta(ge=0, description="from the first request until events count")] = _SETTLE_S
    scale: Annotated[Positive, Meta(description="part of both ceilings, where the machine is too small for them")] = 1.0
    collector: Annotated[Collector, Meta(description="as tune_collector() sets it, or as Python does")] = "tuned"
    rounds: Rounds = 3
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Let the clients have their turns."""
        situation = Situation(latency_ms=self.latency_ms, least=0.0)
        kinds = [*situation.contestants, _IDLE]
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        async with MeasuredMock(self._config()) as mock:
            for _ in range(self.rounds):
                for kind, rounds in found.items():
                    await mock.reset()
                    seconds = self.seconds + self.settle_s
                    task = Task(kind, mock.base_url, seconds, situation.mean_s, self.loop, self.scale)
                    watched = Watched(task, self.rate, self.settle_s, self.collector)
                    rounds.append(await in_fresh_process(measure, watched))
        report = Report(rows=[row(kind, rounds) for kind, rounds in found.items()], checks=[])
        ours = (each for each in report.rows if each.case not in {BARE, _IDLE})
        report.checks.extend(
            at_most(f"{each.case}: p99.9 ms", each.figures["p99.9 ms"].median, _LONGEST_MS) for each in ours
        )
        return report

    def _config(self) -> MockConfig:
        return MockConfig(latency_ms=self.latency_ms, application_limit="off", keep_updates=False)


def measure(watched: Watched) -> dict[str, float]:
    """Have one turn in this process."""
    return run_on(watched.task.loop, _measure(watched))


async def _measure(watched: Watched) -> dict[str, float]:
    task = watched.task
    handler = Handler(watched)
    if task.kind == _IDLE:
        _tune(watched)
        handler.begin()
        await asyncio.sleep(task.seconds)
        return handler.figures(0)
    if task.kind == BARE:
        async with open_session(task.base_url, connections=CONNECTIONS) as session:
            return await _beside_bare(session, watched, handler)
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        async with SendEngine(settings_of(task, folder)) as engine:
            _tune(watched)
            fillings = fill(engine, task, Meter())
            handler.begin()
            await asyncio.sleep(task.seconds)
            figures = handler.figures(sum(each.requests for each in engine.counters().values()))
            for filling in fillings:
                filling.stop()
            await engine.abort()
            return figures


async def _beside_bare(session: ClientSession, watched: Watched, handler: "Handler") -> dict[str, float]:
    _tune(watched)
    meter = Meter()
    handler.begin()
    counts = await asyncio.gather(*(paced(session, watched.task, group, meter) for group in DOCUMENTED))
    return handler.figures(sum(counts))


def _tune(watched: Watched) -> None:
    if watched.collector == "tuned":
        tune_collector()


class Handler:
    """A web handler's place: notes how late each of its events runs."""

    def __init__(self, watched: Watched) -> None:
        task = watched.task
        self._seconds = task.seconds - watched.settle_s
        self._settle_s = watched.settle_s
        self._due_s = instants(watched.rate, seconds=self._seconds)
        self._late_s: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._begun_s = 0.0

    def begin(self) -> None:
        """Let events come, once the client has settled."""
        self._begun_s = perf_counter() + self._settle_s
        self._wait()

    def figures(self, requests: int) -> dict[str, float]:
        """Sum up what it saw."""
        return {**percentiles_ms(self._late_s), "events": float(len(self._late_s)), "requests": float(requests)}

    def _wait(self) -> None:
        """Wait for the next event; those that came while the loop was away are late, each by its own time."""
        for due_s in self._due_s:
            at_s, now_s = self._begun_s + due_s, perf_counter()
            if at_s > now_s:
                self._loop.call_later(at_s - now_s, self._run, at_s)
                return
            self._late_s.append(now_s - at_s)

    def _run(self, at_s: float) -> None:
        self._late_s.append(max(0.0, perf_counter() - at_s))
        self._wait()
