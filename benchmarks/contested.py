"""A quota that others use too: a foreign client that takes a varying part of it, and four engines side by side.

Method: one lane at its documented ceiling, against a mock server that counts the exact second before each request,
refused ones included, and whose other client asks for 0 to 80 % of the limit, in a wave and in steps. What is left is
the limit less what the other client asks for; both are taken second by second, from the first request on. The other
client goes through the same counter, so that it is refused, and refuses, as a real one would. Then
`benchmarks.four_engines`, whose own report follows.

Units: shares.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil, cos, pi
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Positive, Rounds
from benchmarks.drawing import rates
from benchmarks.feeding import Filling
from benchmarks.four_engines import FourEngines
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import THROTTLED, MeasuredMock, Requests
from benchmarks.report import Report, at_least, at_most, row
from benchmarks.workload import CREATE, jobs, lane_name, settings
from sendengine import SendEngine, tune_collector
from sendengine.bench.plots import Line, rate_plot
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig
from sendengine.mockserver.config import Steps

_LEAST: Final = 0.9
_REFUSED: Final = 0.005
_MOST: Final = 0.8  # of the limit, for the other client
_STEP_S: Final = 0.5
_WAITING_S: Final = 0.7  # so many seconds' jobs are under way
_STEPS: Final = (0.2, 0.7, 0.4, 0.8, 0.0)

CaseName = Literal["wave", "steps", "four", "every"]

FOREIGN: Final[Mapping[str, Callable[[float], float]]] = {
    "wave": lambda part: _MOST / 2 * (1 - cos(2 * pi * part)),
    "steps": lambda part: _STEPS[min(len(_STEPS) - 1, int(part * len(_STEPS)))],
}
"""The other client's share of the limit, by the part of the run that has passed."""


class Task(Struct, frozen=True):
    """One run of the engine."""

    base_url: str
    seconds: float
    ceiling: int
    loop: LoopKind


class Contested(Benchmark, frozen=True, kw_only=True):
    """A foreign client that takes a varying 0-80 % of the quota, and four engines side by side: what is reached."""

    case: Annotated[CaseName, Meta(description="how the other client's share varies, or four engines")] = "every"
    seconds: Annotated[Positive, Meta(description="length of a run")] = 120.0
    ceiling: Annotated[AtLeastOne, Meta(description="limit, in requests a second")] = 6000
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    setup_s: Annotated[Positive, Meta(description="until four processes are up, and begin")] = 4.0
    rounds: Rounds = 1
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Run each case."""
        report = Report(rows=[], checks=[], notes=[], plots={})
        for name in FOREIGN if self.case == "every" else {self.case} & FOREIGN.keys():
            found = row(f"foreign client, {name}", [await self._measured(name, report) for _ in range(self.rounds)])
            report.rows.append(found)
            report.checks.append(at_least(f"{found.case}: share of what it leaves", found.figures["share"].low, _LEAST))
            report.checks.append(at_most(f"{found.case}: refused share", found.figures["refused"].high, _REFUSED))
        if self.case in {"four", "every"}:
            await self._four(report)
        return report

    async def _measured(self, name: str, report: Report) -> dict[str, float]:
        async with MeasuredMock(self._config(name)) as mock:
            await mock.reset()  # the schedule begins now
            epochs = await in_fresh_process(measure, Task(mock.base_url, self.seconds, self.ceiling, self.loop))
            requests = await mock.requests(CREATE.value)
            [lane] = (await mock.summary(doubled=False)).lanes
        report.plots[name] = self._drawn(name, requests)
        return {
            **self._figures(name, requests),
            "epochs": float(epochs),
            "inside hold": float(lane.inside_hold),
            "foreign taken": lane.foreign_taken / max(1, lane.foreign_offered),
        }

    def _figures(self, name: str, requests: Requests) -> dict[str, float]:
        from_s = requests.arrivals_s[0]
        until_s = max(self.seconds, from_s + 1e-3)
        seconds = max(1, round((until_s - from_s) / _STEP_S))
        step_s = (until_s - from_s) / seconds
        left = sum(self._left(name, from_s + (number + 0.5) * step_s) * step_s for number in range(seconds))
        accepted = requests.count((200,), from_s=from_s, until_s=until_s)
        refused = requests.count((THROTTLED,), from_s=from_s, until_s=until_s)
        return {
            "share": accepted / left,
            "refused": refused / max(1, accepted + refused),
            "429s": float(refused),
            "held": requests.held_s(from_s=from_s, until_s=until_s) / (until_s - from_s),
        }

    def _left(self, name: str, at_s: float) -> float:
        """What the other client leaves of the limit, in requests a second."""
        return self.ceiling * (1 - FOREIGN[name](min(1.0, at_s / self.seconds)))

    def _drawn(self, name: str, requests: Requests) -> str:
        first_s, last_s = requests.arrivals_s[0], requests.arrivals_s[-1]
        steps = Counter({second: self._left(name, second) for second in range(ceil(first_s), int(last_s))})
        bound = [(second - first_s, left) for second, left in sorted(steps.items())]
        line = Line("accepted", rates(requests.accepted_s), bound)
        return rate_plot([line], title=f"Beside a foreign client, {name}", command=self.command)

    async def _four(self, report: Report) -> None:
        four = FourEngines(
            seconds=self.seconds,
            ceiling=self.ceiling,
            latency_ms=self.latency_ms,
            setup_s=self.setup_s,
            loop=self.loop,
        )
        found = await four.run()
        report.rows.extend(found.rows)
        report.checks.extend(found.checks)
        report.notes.extend(found.notes)

    def _config(self, name: str) -> MockConfig:
        limit = LaneLimit(rate=self.ceiling, count_refused=True, foreign_schedule=self._schedule(name))
        return MockConfig(
            default=AppConfig(create_notification=limit), application_limit="off", latency_ms=self.latency_ms
        )

    def _schedule(self, name: str) -> Steps:
        count = max(1, round(self.seconds / _STEP_S))
        step_s = self.seconds / count
        return tuple((number * step_s, FOREIGN[name]((number + 0.5) / count)) for number in range(count))


def measure(task: Task) -> int:
    """Send in this process; in how many epochs it was refused."""
    return run_on(task.loop, _send(task))


async def _send(task: Task) -> int:
    under_way = ceil(task.ceiling * _WAITING_S)
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(Path(folder), base_url=task.base_url, create=task.ceiling, waiting=under_way)
        async with SendEngine(config) as engine:
            tune_collector()
            filling = Filling(engine, jobs(CREATE), under_way=under_way)
            await asyncio.sleep(task.seconds)
            epochs = engine.counters()[lane_name(CREATE)].epochs
            filling.stop()
            await engine.abort()
            filling.check("abandoned")
            return epochs
