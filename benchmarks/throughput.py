"""What the whole engine costs with all limits lifted, against a bare aiohttp loop with the same connections and bodies.

Method: in each round each contestant has its turn in a fresh process, against one mock server in a process of its own
whose limits are off. Jobs are made, and the bare loop's bodies rendered, before the clock starts; each contestant
opens its connections with some jobs that do not count. Every job is a request of its own, except where packed.

Units: jobs a second of the client's CPU, all threads and the kernel's part included; µs of CPU a job.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from benchmarks.bare import open_session, send_all
from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Rounds
from benchmarks.feeding import Feed, Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import UNLIMITED, MeasuredMock
from benchmarks.report import Report, at_least, ratios, row
from benchmarks.workload import CREATE, LIFTED, UPDATE, all_rendered, job, settings
from sendengine import SendEngine, tune_collector
from sendengine.core.onesignal import EndpointGroup

_TARGET: Final = 0.8
Kind = Literal["engine", "engine, packed", "bare aiohttp"]
_FIGURE: Final = "jobs/CPU-s"


class Task(Struct, frozen=True):
    """One contestant's turn. The first ``warm`` jobs do not count."""

    kind: Kind
    group: EndpointGroup
    base_url: str
    jobs: int
    warm: int
    connections: int
    loop: LoopKind


class Throughput(Benchmark, frozen=True, kw_only=True):
    """Jobs per CPU-second of the engine with limits lifted, against a bare aiohttp loop."""

    jobs: Annotated[AtLeastOne, Meta(description="jobs in each turn")] = 20_000
    warm: Annotated[AtLeastOne, Meta(description="jobs before them that do not count")] = 2_000
    connections: Annotated[AtLeastOne, Meta(description="connections of each contestant")] = 100
    rounds: Rounds = 5
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Let the contestants send in turn, lane by lane."""
        report = Report(rows=[], checks=[])
        async with MeasuredMock(UNLIMITED) as mock:
            for group, kinds in _CONTESTANTS.items():
                found: dict[Kind, list[dict[str, float]]] = {kind: [] for kind in kinds}
                for _ in range(self.rounds):
                    for kind in kinds:
                        await mock.reset()
                        found[kind].append(await self._turn(kind, group, mock))
                _sum_up(report, group, found)
        return report

    async def _turn(self, kind: Kind, group: EndpointGroup, mock: MeasuredMock) -> dict[str, float]:
        task = Task(kind, group, mock.base_url, self.jobs, self.warm, self.connections, self.loop)
        figures = await in_fresh_process(measure, task)
        requests = await mock.accepted(group.value)
        if kind != "engine, packed":
            assert requests == self.jobs + self.warm, f"{requests} requests for {self.jobs + self.warm} jobs"
        return figures


_CONTESTANTS: Final[Mapping[EndpointGroup, tuple[Kind, ...]]] = {
    CREATE: ("bare aiohttp", "engine", "engine, packed"),
    UPDATE: ("bare aiohttp", "engine"),
}


def _sum_up(report: Report, group: EndpointGroup, found: Mapping[Kind, list[dict[str, float]]]) -> None:
    report.rows.extend(row(f"{group.value}: {kind}", rounds) for kind, rounds in found.items())
    ours, others = ([figures[_FIGURE] for figures in found[kind]] for kind in ("engine", "bare aiohttp"))
    compared = ratios(f"{group.value}: engine against bare aiohttp", name="ratio", ours=ours, others=others)
    report.rows.append(compared)
    report.checks.append(at_least(compared.case, compared.figures["ratio"].median, _TARGET))


def measure(task: Task) -> dict[str, float]:
    """Have one turn in this process."""
    return run_on(task.loop, _bare(task) if task.kind == "bare aiohttp" else _engine(task))


async def _engine(task: Task) -> dict[str, float]:
    jobs = [job(task.group, number, pack=task.kind == "engine, packed") for number in range(task.warm + task.jobs)]
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(
            Path(folder),
            base_url=task.base_url,
            create=LIFTED,
            update=LIFTED,
            connections=task.connections,
            waiting=len(jobs),
        )
        async with SendEngine(config) as engine:
            feed = Feed(engine)
            await feed.submit(jobs[: task.warm])
            await feed.all_accepted()
            tune_collector()
            meter = Meter()
            await feed.submit(jobs[task.warm :])
            await feed.all_accepted()
            return _figures(meter, task.jobs)


async def _bare(task: Task) -> dict[str, float]:
    requests = list(islice(all_rendered(task.group), task.warm + task.jobs))
    warm, rest = iter(requests[: task.warm]), iter(requests[task.warm :])
    async with open_session(connections=task.connections) as session:
        await send_all(session, task.base_url, warm, workers=task.connections)
        tune_collector()
        meter = Meter()
        statuses = await send_all(session, task.base_url, rest, workers=task.connections)
        figures = _figures(meter, task.jobs)
    assert not set(statuses) - {200, 202}, f"not everything was accepted: {dict(statuses)}"
    return figures


def _figures(meter: Meter, jobs: int) -> dict[str, float]:
    cpu_s, wall_s = meter.cpu_s, meter.wall_s
    return {_FIGURE: jobs / cpu_s, "µs CPU": cpu_s / jobs * 1e6, "jobs/s": jobs / wall_s}
