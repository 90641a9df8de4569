"""A true limit below the documented one: how much of it is used, how rarely it is met, and that holds are kept.

Method: one lane at its documented ceiling of 6,000 a second for a while, then until all is delivered, against a server
that lets 4,000 through, and lets refused requests count. What the server could have accepted is its limit times the
time that lay outside of the holds that it asked for; both are taken from its own ledger, from the first request until
jobs are given no more.

Units: shares; seconds.
"""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Positive, Rounds
from benchmarks.feeding import Feed, Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import THROTTLED, MeasuredMock, Requests
from benchmarks.report import Report, at_least, at_most, row
from benchmarks.workload import CREATE, jobs, lane_name, settings
from sendengine import SendEngine, tune_collector
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig
from sendengine.mockserver.config import CounterKind

_SHARE: Final = 0.8
_EPOCHS: Final = 5
_REFUSED: Final = 0.05
_WAITING_S: Final = 0.5  # so many jobs as go in this time, those in flight among them

CaseName = Literal["sliding", "fixed", "bucket", "long_wait", "every"]


class Case(Struct, frozen=True):
    """How the server counts, and how long it asks to wait."""

    counter: CounterKind = "sliding_second"
    burst_share: float | None = None  # depth of a bucket, as a part of the limit
    retry_after: str = "1"


CASES: Final[Mapping[str, Case]] = {
    "sliding": Case(),
    "fixed": Case("fixed_second"),
    "bucket": Case("bucket", burst_share=0.1),
    "long_wait": Case(retry_after="5"),
}


class Task(Struct, frozen=True):
    """One run of the engine; ``ceiling`` is the one that it believes in."""

    base_url: str
    seconds: float
    ceiling: int
    loop: LoopKind


class LowerLimit(Benchmark, frozen=True, kw_only=True):
    """A true limit of 4,000 where 6,000 is documented, refused requests counted: accepted share, epochs, holds."""

    case: Annotated[CaseName, Meta(description="how the server counts")] = "every"
    seconds: Annotated[Positive, Meta(description="how long jobs are given")] = 20.0
    limit: Annotated[AtLeastOne, Meta(description="true limit, in requests a second")] = 4000
    ceiling: Annotated[AtLeastOne, Meta(description="documented limit, in requests a second")] = 6000
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    rounds: Rounds = 1
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Run each case."""
        report = Report(rows=[], checks=[])
        for name in CASES if self.case == "every" else [self.case]:
            found = row(name, [await self._measured(CASES[name]) for _ in range(self.rounds)])
            report.rows.append(found)
            figures = found.figures
            report.checks.append(at_least(f"{name}: share of what was allowed", figures["share"].low, _SHARE))
            report.checks.append(at_most(f"{name}: epochs", figures["epochs"].high, _EPOCHS))
            report.checks.append(at_most(f"{name}: refused share", figures["refused"].high, _REFUSED))
            report.checks.append(at_most(f"{name}: requests inside a hold", figures["inside hold"].high, 0))
        return report

    async def _measured(self, case: Case) -> dict[str, float]:
        async with MeasuredMock(self._config(case)) as mock:
            task = Task(mock.base_url, self.seconds, self.ceiling, self.loop)
            given, epochs = await in_fresh_process(measure, task)
            requests, summary = await mock.requests(CREATE.value), await mock.summary(doubled=True)
        assert summary.recipients == given, f"{summary.recipients} recipients for {given} jobs"
        assert summary.doubled is not None, "the audit was asked for"
        assert not summary.doubled.effects, f"{summary.doubled.effects} deliveries too many"
        return {
            **_figures(requests, limit=self.limit, seconds=self.seconds),
            "epochs": float(epochs),
            "inside hold": float(sum(lane.inside_hold for lane in summary.lanes)),
        }

    def _config(self, case: Case) -> MockConfig:
        limit = LaneLimit(
            rate=self.limit,
            counter=case.counter,
            burst=None if case.burst_share is None else max(1, round(self.limit * case.burst_share)),
            count_refused=True,
        )
        return MockConfig(
            default=AppConfig(create_notification=limit),
            application_limit="off",
            retry_after=case.retry_after,
            latency_ms=self.latency_ms,
        )


def _figures(requests: Requests, *, limit: float, seconds: float) -> dict[str, float]:
    from_s = requests.arrivals_s[0]
    until_s = from_s + seconds
    held_s = requests.held_s(from_s=from_s, until_s=until_s)
    accepted = requests.count((200,), from_s=from_s, until_s=until_s)
    refused = requests.count((THROTTLED,), from_s=from_s, until_s=until_s)
    return {
        "share": accepted / (limit * (seconds - held_s)),
        "refused": refused / (accepted + refused),
        "429s": float(refused),
        "held s": held_s,
    }


def measure(task: Task) -> tuple[int, int]:
    """Send in this process; how many jobs were given, and in how many epochs they were refused."""
    return run_on(task.loop, _send(task))


async def _send(task: Task) -> tuple[int, int]:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(
            Path(folder), base_url=task.base_url, create=task.ceiling, waiting=ceil(task.ceiling * _WAITING_S)
        )
        async with SendEngine(config) as engine:
            tune_collector()
            feed = Feed(engine)
            await feed.submit(Meter().until(task.seconds, jobs(CREATE)))
            await feed.all_accepted()
            return feed.submitted, engine.counters()[lane_name(CREATE)].epochs
