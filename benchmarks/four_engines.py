"""Engines that know nothing of each other on one app: what they reach together, and how fairly they share it.

Method: each engine in a process of its own, with a state directory of its own, always has jobs to send; the server
lets the ceiling through, and lets refused requests count. All begin at the same instant: afresh (``together``), one
after another (``staggered``), or with what they would have learned at 70, 10, 10 and 10 percent (``unequal``).

Units: shares of the ceiling; Jain's index is 1 where all have the same and 1/n where one has everything.
"""

import asyncio
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, to_builtins

from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Positive
from benchmarks.feeding import Feed, Meter
from benchmarks.fresh import in_fresh_processes, run_on
from benchmarks.machine import this_machine
from benchmarks.mocked import THROTTLED, MeasuredMock
from benchmarks.report import Report, Row, at_least, at_most, row
from benchmarks.workload import APP_ID, CREATE, job, lane_name, settings
from sendengine import SendEngine, tune_collector
from sendengine.core.backoff import Learned
from sendengine.journal import learned
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig

_TOTAL: Final = 0.8
_REFUSED: Final = 0.02
_FAIR: Final = 0.9
_BUSY: Final = 0.9  # of the machine's cores: beyond it the processor decides, and not the engines
_WAITING: Final = 3_000  # jobs in each engine
_QUARTERS: Final = 4
_SAMPLES: Final = 40 * _QUARTERS  # looks at each engine's counts

StartKind = Literal["unequal", "together", "staggered", "every"]
_STARTS: Final[tuple[StartKind, ...]] = ("unequal", "together", "staggered")


class Task(Struct, frozen=True):
    """One engine: when it begins and ends (seconds since the epoch), and the rate it has learned, if any."""

    base_url: str
    number: int
    begins_at_s: float
    waits_s: float
    ends_at_s: float
    ceiling: int
    learned_rate: float | None
    loop: LoopKind


class Sent(Struct, frozen=True):
    """What one engine had been answered at each look, evenly over the run, and its CPU in cores."""

    accepted: list[int]
    refused: list[int]
    cores: float


class FourEngines(Benchmark, frozen=True, kw_only=True):
    """Four engines in four processes on one app, refused requests counted: total, refused share, fairness."""

    start: Annotated[StartKind, Meta(description="how the engines begin")] = "unequal"
    engines: Annotated[int, Meta(ge=2, description="how many engines")] = 4
    seconds: Annotated[Positive, Meta(description="how long they send")] = 120.0
    ceiling: Annotated[AtLeastOne, Meta(description="of the app, in requests a second")] = 6000
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    setup_s: Annotated[Positive, Meta(description="until all processes are up, and begin")] = 4.0
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Run each start; the second half of a run counts, and for fairness its last quarter."""
        report = Report(rows=[], checks=[], notes=[])
        for start in _STARTS if self.start == "every" else [self.start]:
            sent, server_cores = await self._sent(start)
            rows = [self._quarter(start, sent, number) for number in range(_QUARTERS)]
            report.rows.extend(rows)
            half = self._stretch(sent, 0.5, 1.0)
            report.checks.append(at_least(f"{start}: total share, second half", half["total"], _TOTAL))
            report.checks.append(at_most(f"{start}: refused share, second half", half["refused"], _REFUSED))
            report.checks.append(at_least(f"{start}: Jain's index, last quarter", rows[-1].figures["Jain"].low, _FAIR))
            cores = sum(each.cores for each in sent) + server_cores
            report.notes.append(f"{start}: {cores:.2f} cores, of them the server {server_cores:.2f}.")
            if cores > _BUSY * this_machine().cores:
                report.notes.append("That is all that the machine has: take a lower --ceiling.")
        return report

    async def _sent(self, start: StartKind) -> tuple[list[Sent], float]:
        limit = LaneLimit(rate=self.ceiling, count_refused=True)
        config = MockConfig(
            default=AppConfig(create_notification=limit), application_limit="off", latency_ms=self.latency_ms
        )
        async with MeasuredMock(config) as mock:
            meter, before_s = Meter(), mock.cpu_s
            sent = await in_fresh_processes(measure, self._tasks(start, mock.base_url))
            server_cores = (mock.cpu_s - before_s) / meter.wall_s
            refused = (await mock.requests(CREATE.value)).statuses.count(THROTTLED)
        seen = sum(each.refused[-1] for each in sent)
        assert seen <= refused, f"the engines saw {seen} refusals, and the server {refused}"
        return sent, server_cores

    def _tasks(self, start: StartKind, base_url: str) -> list[Task]:
        begins_at_s = time() + self.setup_s
        largest = 0.7
        shares = [largest, *[(1 - largest) / (self.engines - 1)] * (self.engines - 1)]
        return [
            Task(
                base_url=base_url,
                number=number,
                begins_at_s=begins_at_s,
                waits_s=self.seconds / 8 / self.engines * number if start == "staggered" else 0.0,
                ends_at_s=begins_at_s + self.seconds,
                ceiling=self.ceiling,
                learned_rate=shares[number] * self.ceiling if start == "unequal" else None,
                loop=self.loop,
            )
            for number in range(self.engines)
        ]

    def _quarter(self, start: StartKind, sent: Sequence[Sent], number: int) -> Row:
        begin, end = number / _QUARTERS, (number + 1) / _QUARTERS
        name = f"{start}, {begin * self.seconds:.0f}–{end * self.seconds:.0f} s"
        return row(name, [self._stretch(sent, begin, end)])

    def _stretch(self, sent: Sequence[Sent], begin: float, end: float) -> dict[str, float]:
        """Sum up a stretch of the run, given as parts of it."""
        first, last = round(begin * _SAMPLES), round(end * _SAMPLES)
        accepted = [_between(each.accepted, first, last) for each in sent]
        refused = sum(_between(each.refused, first, last) for each in sent)
        possible = self.ceiling * self.seconds * (end - begin)
        return {
            "total": sum(accepted) / possible,
            "refused": refused / max(1, refused + sum(accepted)),
            "Jain": jain(accepted),
            "smallest": min(accepted) / possible,
            "largest": max(accepted) / possible,
        }


def _between(counts: Sequence[int], first: int, last: int) -> int:
    """Count what was answered between two looks; the first one is at 0."""
    return counts[last] - counts[first]


def jain(counts: Sequence[int]) -> float:
    """Jain's fairness index: the square of the sum, by the sum of the squares, by how many; 0 where all are 0."""
    squares = sum(each * each for each in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else 0.0


def measure(task: Task) -> Sent:
    """Send in this process."""
    return run_on(task.loop, _send(task))


async def _send(task: Task) -> Sent:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        state_dir = Path(folder)
        if task.learned_rate is not None:
            numbers = to_builtins(Learned(rate=task.learned_rate))
            lane = learned.lane_key(app_id=APP_ID, group=CREATE.value)
            learned.save(state_dir / "learned.json", {lane: numbers})
        config = settings(state_dir, base_url=task.base_url, create=task.ceiling, waiting=_WAITING)
        async with SendEngine(config) as engine:
            tune_collector()
            meter = Meter()
            feeding = asyncio.create_task(_feed(engine, task))
            accepted, refused = await _watch(engine, task)
            feeding.cancel()
            cores = meter.cores
            await engine.abort()
        return Sent(accepted, refused, cores)


async def _feed(engine: SendEngine, task: Task) -> None:
    await asyncio.sleep(task.begins_at_s + task.waits_s - time())
    numbers = count(task.number * 10**8)
    await Feed(engine).submit(job(CREATE, number) for number in numbers)


async def _watch(engine: SendEngine, task: Task) -> tuple[list[int], list[int]]:
    accepted: list[int] = []
    refused: list[int] = []
    step_s = (task.ends_at_s - task.begins_at_s) / _SAMPLES
    for look in range(_SAMPLES + 1):
        await asyncio.sleep(task.begins_at_s + look * step_s - time())
        counters = engine.counters().get(lane_name(CREATE))
        replies = {} if counters is None else counters.replies
        accepted.append(replies.get(200, 0))
        refused.append(replies.get(THROTTLED, 0))
    return accepted, refused
