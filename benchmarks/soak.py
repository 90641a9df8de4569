"""The engine at both ceilings for a long time: memory, tasks, sockets and the collector's objects, flat or not.

Method: one engine in a fresh process against a mock server whose ledger is audited and emptied every minute, so that
its own memory stays small. That stops the server for half a second, so the engine rests meanwhile, with nothing in
flight; the rest is no part of the time that shares are taken of. The client looks at itself at equal intervals. What
leaks grows: the slope of a straight line through the second half of the samples is judged, over the whole half,
against a part of its middle.

Units: MB are 10⁶ bytes of resident memory; counts else.
"""

import asyncio
import gc
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import asdict

from benchmarks.atceilings import Situation, Task, fill, settings_of
from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, Positive
from benchmarks.feeding import Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.machine import open_descriptors, resident_bytes
from benchmarks.mocked import THROTTLED, MeasuredMock
from benchmarks.report import Report, at_least, at_most, row
from benchmarks.workload import CERTIFICATE, DOCUMENTED, TRANSPORTS
from sendengine import SendEngine, tune_collector
from sendengine.bench.plots import Line, rate_plot
from sendengine.mockserver import MockConfig, Summary
from sendengine.mockserver.client import MockClient

_GROWTH: Final = 0.05  # over the second half, of what there is in its middle
_SHARE: Final = 0.98
_MB: Final = 1e6
_AUDIT_S: Final = 60.0
_LOOK_S: Final = 0.05
_SLACK_S: Final = 300.0  # beyond its time, after which a soak has hung
_LEFT: Final = {"tasks": 3, "descriptors": 8}  # more than before the engine was there, once it is gone


class Sample(Struct, frozen=True):
    """What the client saw of itself at one instant."""

    at_s: float
    mb: float
    tasks: int
    descriptors: int
    objects: int
    requests: int


class Soaked(Struct, frozen=True):
    """All samples, the first before the engine was there and the last after it was gone."""

    samples: list[Sample]
    others: dict[str, int]
    cores: float
    rested_s: float
    audit: "Audit"


class Audit(Struct):
    """What the server's ledgers have said so far."""

    refused: int = 0
    doubled: int = 0

    def take(self, summary: Summary) -> None:
        """Count one more of them."""
        self.refused += sum(lane.replies.get(str(THROTTLED), 0) for lane in summary.lanes)
        self.doubled += 0 if summary.doubled is None else summary.doubled.effects


class Turn(Struct, frozen=True):
    """A task, and how often the client looks at itself."""

    task: Task
    samples: int


class Soak(Benchmark, frozen=True, kw_only=True):
    """20 minutes at both ceilings: memory, tasks, sockets and collector's objects, flat or not."""

    seconds: Annotated[Positive, Meta(description="how long it sends")] = 1200.0
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    transport: Annotated[str, Meta(description="which transport")] = "direct"
    tls: Annotated[bool, Meta(description="over TLS")] = False
    scale: Annotated[Positive, Meta(description="part of both ceilings, where the machine is too small for them")] = 1.0
    samples: Annotated[AtLeastOne, Meta(description="how often the client looks at itself")] = 120
    loop: Loop = "uvloop"

    def __post_init__(self) -> None:
        if self.transport not in TRANSPORTS:
            raise ValueError(f"--transport: one of {'; '.join(TRANSPORTS)}, got {self.transport!r}")

    async def run(self) -> Report:
        """Send, audit every minute, and judge the samples."""
        situation = Situation(latency_ms=self.latency_ms, is_tls=self.tls, least=_SHARE)
        config = MockConfig(latency_ms=self.latency_ms, application_limit="off", keep_updates=False)
        async with MeasuredMock(config, certfile=CERTIFICATE if self.tls else None) as mock:
            task = Task(self.transport, mock.base_url, self.seconds, situation.mean_s, self.loop, self.scale)
            soaked = await in_fresh_process(soak, Turn(task, self.samples))
            soaked.audit.take(await mock.summary())
        return self._report(soaked)

    def _report(self, soaked: Soaked) -> Report:
        before, *during, after = soaked.samples
        half = during[len(during) // 2 :]
        looks = {name: [float(getattr(each, name)) for each in half] for name in _GROWING}
        rising = {name: growth([each.at_s for each in half], values) for name, values in looks.items()}
        first, last = during[0], during[-1]
        rate = (last.requests - first.requests) / max(last.at_s - first.at_s - soaked.rested_s, 1e-9)
        share = rate / (sum(DOCUMENTED.values()) * self.scale)
        report = Report(rows=[], checks=[], notes=[], plots={})
        named = {
            "before": before,
            "at the beginning": first,
            "in the middle": half[0],
            "at the end": last,
            "gone": after,
        }
        audit = {"429s": float(soaked.audit.refused), "reached twice": float(soaked.audit.doubled)}
        report.rows.extend(row(name, [_shown(sample)]) for name, sample in named.items())
        report.rows.append(row("growth over the second half", [rising]))
        report.rows.append(row("all of it", [{"share": share, "cores": soaked.cores, **audit}]))
        report.checks.extend(at_most(f"growth of {name}", value, _GROWTH) for name, value in rising.items())
        for name, most in _LEFT.items():
            report.checks.append(at_most(f"{name} left over", getattr(after, name) - getattr(before, name), most))
        report.checks.append(at_least("share of both ceilings", share, _SHARE))
        report.checks.extend(at_most(name, value, 0) for name, value in audit.items())
        assert not soaked.others.keys() - {"abandoned"}, f"not everything was accepted: {soaked.others}"
        memory = [Line("resident", [(each.at_s, each.mb) for each in during])]
        report.plots["memory"] = rate_plot(memory, title="Memory at both ceilings", command=self.command, unit="MB")
        return report


_GROWING: Final = ("mb", "tasks", "descriptors", "objects")


def _shown(sample: Sample) -> dict[str, float]:
    return {name: float(value) for name, value in asdict(sample).items()}


def growth(at_s: Sequence[float], values: Sequence[float]) -> float:
    """How much a straight line through the samples rises from the first to the last, against their mean."""
    count = len(values)
    mean_s, mean = sum(at_s) / count, sum(values) / count
    spread = sum((each - mean_s) ** 2 for each in at_s)
    if not spread or not mean:
        return 0.0
    slope = sum((each - mean_s) * (value - mean) for each, value in zip(at_s, values, strict=True)) / spread
    return slope * (at_s[-1] - at_s[0]) / mean


def soak(turn: Turn) -> Soaked:
    """Send in this process."""
    return run_on(turn.task.loop, _soak(turn), within_s=turn.task.seconds + _SLACK_S)


async def _soak(turn: Turn) -> Soaked:
    task, audit, rested_s = turn.task, Audit(), 0.0
    server = MockClient(task.base_url, certfile=CERTIFICATE if task.base_url.startswith("https") else None)
    samples = [_look(0.0, 0)]
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        async with SendEngine(settings_of(task, folder)) as engine:
            tune_collector()
            meter = Meter()
            fillings = fill(engine, task, meter)
            for number in range(turn.samples):
                due_s = task.seconds * (number + 1) / turn.samples
                await asyncio.sleep(due_s - meter.wall_s)
                samples.append(_look(meter.wall_s, sum(each.requests for each in engine.counters().values())))
                if due_s // _AUDIT_S > task.seconds * number / turn.samples // _AUDIT_S and number + 1 < turn.samples:
                    begun_s = meter.wall_s
                    await _rest(engine, server, audit)
                    rested_s += meter.wall_s - begun_s
            cores = meter.cores
            for filling in fillings:
                filling.stop()
            await engine.abort()
        others: dict[str, int] = {}
        for filling in fillings:
            others |= filling.outcomes
    await asyncio.sleep(0.1)  # what is closed leaves the loop a step later
    samples.append(_look(meter.wall_s, samples[-1].requests))
    return Soaked(samples, others, cores, rested_s, audit)


async def _rest(engine: SendEngine, server: MockClient, audit: Audit) -> None:
    """Send nothing while the ledger is audited and emptied."""
    engine.pause()
    while any(lane.in_flight for lane in engine.stats().lanes.values()):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(_LOOK_S)
    audit.take(await server.summary())
    await server.reset()
    engine.unpause()


def _look(at_s: float, requests: int) -> Sample:
    return Sample(
        at_s,
        resident_bytes() / _MB,
        len(asyncio.all_tasks()),
        open_descriptors(),
        len(gc.get_objects()),
        requests,
    )
