"""Whether a job costs more where more of them wait.

Method: a fresh process for each backlog. Its transport opens no connection while jobs are submitted, so that all of
them wait; then it opens as many as are asked for and answers at once, within the process, until all have settled.
Ceilings are lifted. Memory is resident, the jobs included, and the receipts not kept.

Units: µs of CPU and bytes, per job.
"""

import asyncio
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Rounds
from benchmarks.feeding import Feed
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.machine import resident_bytes
from benchmarks.report import Report, Row, at_most, row
from benchmarks.workload import LIFTED, settings
from sendengine import CreateNotification, Job, SendEngine, UpdateUser, external_id, tune_collector
from sendengine.core.jobs import Urgency
from sendengine.ports import Permit, Reply, WireRequest

_BOUND: Final = 1.2
_CONNECTIONS: Final = 100
_WARM: Final = 200  # jobs that go first, for what is made once
_JSON: Final = {"content-type": "application/json"}
_REPLIES: Final[Mapping[str, Reply]] = {
    "POST": Reply(200, _JSON, b'{"id":"5e4de491-0000-4000-8000-000000000001","external_id":null}'),
    "PATCH": Reply(202, _JSON, b'{"properties":{}}'),
}

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


class Backlog(Benchmark, frozen=True, kw_only=True):
    """Time and memory per job with a large backlog waiting, against a small one."""

    case: Annotated[CaseName, Meta(description="which jobs wait")] = "every"
    small: Annotated[AtLeastOne, Meta(description="jobs in the small backlog")] = 10_000
    large: Annotated[AtLeastOne, Meta(description="jobs in the large backlog")] = 100_000
    rounds: Rounds = 3
    loop: Loop = "uvloop"
    collector: Annotated[Collector, Meta(description="as tune_collector() sets it, or as Python does")] = "tuned"

    async def run(self) -> Report:
        """Measure each case, small and large backlogs in turn."""
        compared: list[Row] = []
        report = Report(rows=[], checks=[])
        for case in CASES if self.case == "every" else [self.case]:
            small, large = await self._measured(case)
            report.rows.append(row(f"{case}, {self.small:,} waiting", small))
            report.rows.append(row(f"{case}, {self.large:,} waiting", large))
            compared.append(row(f"{case}, {self.large:,} against {self.small:,}", _ratios(small, large)))
        report.rows.extend(compared)
        for each in compared:
            for name, found in each.figures.items():
                report.checks.append(at_most(f"{each.case}, {name}", found.median, _BOUND))
        return report

    async def _measured(self, case: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        task = Task(case, self.small, self.loop, self.collector)
        small: list[dict[str, float]] = []
        large: list[dict[str, float]] = []
        for _ in range(self.rounds):
            small.append(await in_fresh_process(measure, task))
            large.append(await in_fresh_process(measure, replace(task, jobs=self.large)))
        return small, large


def measure(task: Task) -> dict[str, float]:
    """Submit a backlog, then send it, in this process."""
    return run_on(task.loop, _measure(task))


async def _measure(task: Task) -> dict[str, float]:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(
            Path(folder), create=LIFTED, update=LIFTED, connections=_CONNECTIONS, waiting=task.jobs + _WARM
        )
        warm = GatedTransport()
        warm.open()
        async with SendEngine(config, open_transport=lambda *_: warm) as engine:
            feed = Feed(engine)
            await feed.submit(map(CASES[task.case], range(_WARM)))
            await feed.all_accepted()
        if task.collector == "tuned":
            tune_collector()
        gated = GatedTransport()
        async with SendEngine(config, open_transport=lambda *_: gated) as engine:
            return await _timed(engine, task, gated)


async def _timed(engine: SendEngine, task: Task, transport: "GatedTransport") -> dict[str, float]:
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


def _ratios(small: list[dict[str, float]], large: list[dict[str, float]]) -> list[dict[str, float]]:
    """Compare each round's two backlogs; time is that of submitting and sending."""
    return [
        # a handful of jobs may fit into memory that is there already
        {"time": _time(many) / _time(few), "memory": many["bytes"] / max(1.0, few["bytes"])}
        for few, many in zip(small, large, strict=True)
    ]


def _time(figures: Mapping[str, float]) -> float:
    return figures["µs to submit"] + figures["µs to send"]


class GatedTransport:
    """Opens no connection until it is opened itself; then as many as are wanted, and answers within the process."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()
        self._connections = 0

    def open(self) -> None:
        """Let every connection open from now on."""
        self._gate.set()

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Answer as OneSignal does when all is well, a turn of the loop after the permit."""
        await permit()
        await asyncio.sleep(0)
        return _REPLIES[request.method]

    async def warm(self, count: int) -> int:
        """Wait for the gate, then count."""
        await self._gate.wait()
        self._connections = max(self._connections, count)
        return self._connections

    def replace_key(self, api_key: str) -> None:
        """Nobody looks at keys here."""

    @property
    def open_connections(self) -> int:
        """As many as were ever wanted."""
        return self._connections

    async def aclose(self) -> None:
        """Forget them."""
        self._connections = 0
