"""Whether a job costs more where more of them wait, and how much memory each takes.

Method: a fresh process for each backlog, from a thousand to a million jobs. Its transport opens no connection while
jobs are submitted, so that all of them wait; then it opens as many as are asked for and answers at once, within the
process, until all have settled. Ceilings are lifted. Memory is the growth of the resident set, receipts not kept; the
jobs' own, which is measured by keeping as many of them in a list and nothing else, is taken off.

Units: µs of CPU and bytes, per job.
"""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Rounds
from benchmarks.feeding import Feed
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.gated import GatedTransport
from benchmarks.machine import resident_bytes
from benchmarks.report import Report, at_most, row
from benchmarks.workload import LIFTED, settings, wire
from sendengine import CreateNotification, Job, SendEngine, UpdateUser, external_id, tune_collector
from sendengine.core.jobs import Urgency

_BOUND: Final = 1.2
_BYTES: Final = 600.0
_STEP: Final = 10
_SHORT: Final = 10_000
_SHORT_TURNS: Final = 3
_SMALL: Final = "Bytes of a backlog that fits into what the first jobs have left say nothing."
_CONNECTIONS: Final = 100

CaseName = Literal[
    "packed", "alone", "own_messages", "high", "updates", "coalesced", "high_updates", "every"
]  # fmt: skip
Collector = Literal["tuned", "default"]


def _note(number: int, *, text: str = "Hi", urgency: Urgency = "normal", pack: bool | None = None) -> Job:
    return CreateNotification(
        to=external_id(f"user-{number}"),
        channel="push",
        message={"contents": {"en": text}},
        urgency=urgency,
        pack=pack,
    )


def _change(number: int, *, user: int, urgency: Urgency = "normal") -> Job:
    return UpdateUser(external_id(f"user-{user}"), {f"tag-{number % 40}": number}, urgency=urgency)


CASES: Final[Mapping[str, Callable[[int], Job]]] = {
    "packed": _note,
    "alone": lambda number: _note(number, pack=False),
    "own_messages": lambda number: _note(number, text=f"Code {number}"),
    "high": lambda number: _note(number, urgency="high"),
    "updates": lambda number: _change(number, user=number),
    "coalesced": lambda number: _change(number, user=number % 500),
    "high_updates": lambda number: _change(number, user=number, urgency="high"),
}
"""Notifications to one recipient each, changes of one tag each; ``coalesced`` ones are for 500 users."""


class Task(Struct, frozen=True):
    """One backlog of one case."""

    case: str
    jobs: int
    loop: LoopKind
    collector: Collector
    warm: int


class Backlog(Benchmark, frozen=True, kw_only=True):
    """Time and memory per job with a thousand to a million waiting."""

    case: Annotated[CaseName, Meta(description="which jobs wait")] = "every"
    small: Annotated[AtLeastOne, Meta(description="jobs in the smallest backlog; each is ten times the last one")] = (
        1_000
    )
    large: Annotated[AtLeastOne, Meta(description="jobs in the largest backlog")] = 1_000_000
    warm: Annotated[AtLeastOne, Meta(description="jobs that go first, for what is made once")] = 5_000
    rounds: Rounds = 3
    loop: Loop = "uvloop"
    collector: Annotated[Collector, Meta(description="as tune_collector() sets it, or as Python does")] = "tuned"

    async def run(self) -> Report:
        """Measure each case, all backlogs in turn."""
        report = Report(rows=[], checks=[], notes=[_SMALL])
        for case in CASES if self.case == "every" else (self.case,):
            found: dict[int, list[dict[str, float]]] = {size: [] for size in self._sizes()}
            for _ in range(self.rounds):
                for size, rounds in found.items():
                    rounds.append(await self._measured(case, size, smallest=found[self.small]))
            rows = [row(f"{case}, {size:,} waiting", rounds) for size, rounds in found.items()]
            report.rows.extend(rows)
            dearest, largest = max(rows, key=lambda each: each.figures["× smallest"].median), rows[-1]
            report.checks.append(
                at_most(f"{dearest.case}, the dearest: time × smallest", dearest.figures["× smallest"].median, _BOUND)
            )
            report.checks.append(
                at_most(f"{largest.case}: bytes beside", largest.figures["bytes beside"].median, _BYTES)
            )
        return report

    def _sizes(self) -> list[int]:
        sizes = [self.small]
        while sizes[-1] * _STEP < self.large:
            sizes.append(sizes[-1] * _STEP)
        return [*sizes, self.large]

    async def _measured(self, case: str, size: int, *, smallest: list[dict[str, float]]) -> dict[str, float]:
        task = Task(case, size, self.loop, self.collector, self.warm)
        own_bytes = await in_fresh_process(measure_own, task)
        # a short run says little: several of them, each in a process of its own
        turns = [await in_fresh_process(measure, task) for _ in range(_SHORT_TURNS if size < _SHORT else 1)]
        figures = {name: median([turn[name] for turn in turns]) for name in turns[0]}
        figures["bytes beside"] = max(0.0, figures["bytes"] - own_bytes)
        first = smallest[-1] if size != self.small else figures
        return {**figures, "× smallest": _time(figures) / _time(first)}


def measure(task: Task) -> dict[str, float]:
    """Submit a backlog, then send it, in this process."""
    return run_on(task.loop, _measure(task))


def measure_own(task: Task) -> float:
    """Return what a job itself takes, in bytes, with the place in a list that keeps it."""
    make = CASES[task.case]
    kept: list[Job | None] = [None] * task.jobs  # made before, to be no part of it
    warm = list(map(make, range(task.warm)))
    gc.collect()
    before_bytes = resident_bytes()
    for number in range(task.jobs):
        kept[number] = make(number)
    own_bytes = (resident_bytes() - before_bytes) / task.jobs
    del warm
    return own_bytes


async def _measure(task: Task) -> dict[str, float]:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(
            Path(folder),
            create=LIFTED,
            update=LIFTED,
            transport=wire(connections=_CONNECTIONS),
            waiting=task.jobs + task.warm,
        )
        warm = GatedTransport()
        warm.open()
        async with SendEngine(config, open_transport=lambda *_: warm) as engine:
            feed = Feed(engine)
            await feed.submit(map(CASES[task.case], range(task.warm)))
            await feed.all_accepted()
        if task.collector == "tuned":
            tune_collector()
        gated = GatedTransport()
        async with SendEngine(config, open_transport=lambda *_: gated) as engine:
            return await _timed(engine, task, gated)


async def _timed(engine: SendEngine, task: Task, transport: GatedTransport) -> dict[str, float]:
    feed = Feed(engine)
    gc.collect()
    before_bytes, begun_s = resident_bytes(), process_time()
    await feed.submit(map(CASES[task.case], range(task.jobs)))
    waiting_bytes, waiting_s = resident_bytes(), process_time()
    assert not feed.settled, "a job was sent while all were to wait"
    transport.open()
    await feed.all_accepted()
    return {
        "µs to submit": (waiting_s - begun_s) / task.jobs * 1e6,
        "µs to send": (process_time() - waiting_s) / task.jobs * 1e6,
        "bytes": (waiting_bytes - before_bytes) / task.jobs,
    }


def _time(figures: Mapping[str, float]) -> float:
    return figures["µs to submit"] + figures["µs to send"]
