"""Both documented ceilings at once: how near the engine comes, whether it is ever refused, and what that costs.

Method: the engine on either transport, then a bare aiohttp loop that is paced by the same limiter, each in a fresh
process against a mock server that counts the exact second before each request. Jobs are made as they are taken.

Units: shares of the ceilings, as means over the whole run; CPU is the client's, in µs a request and in cores.
"""

import asyncio
from collections.abc import Mapping
from itertools import islice
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final, Literal

from aiohttp import ClientSession
from msgspec import Meta, Struct

from benchmarks.bare import open_session, send_all
from benchmarks.benchmark import Benchmark, Loop, LoopKind, Positive, Rounds
from benchmarks.feeding import Feed, Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import THROTTLED, MeasuredMock, Requests
from benchmarks.report import Check, Report, Row, at_least, at_most, ratios, row
from benchmarks.workload import CREATE, DOCUMENTED, UPDATE, TransportKind, all_rendered, jobs, lane_name, settings
from sendengine import SendEngine, tune_collector
from sendengine.core.onesignal import EndpointGroup
from sendengine.limiter import Limiter
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig
from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.loop_lag import LoopLag

_SHARE: Final = 0.97  # over a run of 15 s; over a minute it is 98.5 %
_MOST: Final[Mapping["Kind", float]] = {"direct": 0.5, "aiohttp": 1.25}
_COST: Final = "µs CPU a request"
_WAITING: Final = 3_000  # jobs in each lane, those in flight among them
_CONNECTIONS: Final = 4000

Kind = Literal["direct", "aiohttp", "bare aiohttp, paced"]
_KINDS: Final[tuple[Kind, ...]] = ("direct", "aiohttp", "bare aiohttp, paced")


class Task(Struct, frozen=True):
    """One contestant's turn."""

    kind: Kind
    base_url: str
    seconds: float
    slowest_s: float  # for so long a worker of the bare loop may be busy with one request
    loop: LoopKind
    scale: float  # of the documented ceilings


class Sent(Struct, frozen=True):
    """What a client says of its turn, while jobs were given; ``bound_by`` is the notifications' lane's."""

    requests: int
    cpu_s: float
    cores: float
    longest_pause_ms: float
    bound_by: dict[str, float]


class Turn(Struct, frozen=True):
    """One contestant's turn, client's and server's word together."""

    figures: dict[str, float]
    bound_by: dict[str, float]


class Ceilings(Benchmark, frozen=True, kw_only=True):
    """6,000 notifications and 1,000 user updates a second together: shares reached, 429s, CPU."""

    seconds: Annotated[Positive, Meta(description="how long jobs are given")] = 15.0
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    latency_p99_ms: Annotated[float, Meta(ge=0, description="makes it lognormal with this 99th percentile")] = 0.0
    scale: Annotated[Positive, Meta(description="part of both ceilings, where the machine is too small for them")] = 1.0
    rounds: Rounds = 1
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Let the contestants send in turn."""
        found: dict[Kind, list[Turn]] = {kind: [] for kind in _KINDS}
        async with MeasuredMock(self._config()) as mock:
            for _ in range(self.rounds):
                for kind, turns in found.items():
                    await mock.reset()
                    turns.append(await self._turn(kind, mock))
        rows = {kind: row(kind, [turn.figures for turn in turns]) for kind, turns in found.items()}
        more: list[Row] = []
        checks: list[Check] = []
        bare = [turn.figures[_COST] for turn in found["bare aiohttp, paced"]]
        for kind, most in _MOST.items():
            ours = [turn.figures[_COST] for turn in found[kind]]
            cost = ratios(f"CPU a request, {kind} against bare loop", name="ratio", ours=ours, others=bare)
            more += [cost, row(f"{kind}, share of the time bound by", [turn.bound_by for turn in found[kind]])]
            shares = rows[kind].figures
            checks += [at_least(f"{kind}: {each.value}", shares[each.value].low, _SHARE) for each in DOCUMENTED]
            checks.append(at_most(f"{kind}: 429s", shares["429s"].high, 0))
            checks.append(at_most(cost.case, cost.figures["ratio"].median, most))
        return Report(rows=[*rows.values(), *more], checks=checks)

    async def _turn(self, kind: Kind, mock: MeasuredMock) -> Turn:
        slowest_s = max(self.latency_ms * 2, self.latency_p99_ms / 2) / 1e3
        sent = await in_fresh_process(
            measure, Task(kind, mock.base_url, self.seconds, slowest_s, self.loop, self.scale)
        )
        lanes = {group: await mock.requests(group.value) for group in DOCUMENTED}
        shares = {
            group.value: _share(lanes[group], ceiling * self.scale, seconds=self.seconds)
            for group, ceiling in DOCUMENTED.items()
        }
        refused = sum(requests.statuses.count(THROTTLED) for requests in lanes.values())
        figures = {
            **shares,
            "429s": float(refused),
            _COST: sent.cpu_s / sent.requests * 1e6,
            "cores": sent.cores,
            "longest pause ms": sent.longest_pause_ms,
        }
        return Turn(figures, sent.bound_by)

    def _config(self) -> MockConfig:
        create, update = (LaneLimit(rate=ceil(DOCUMENTED[group] * self.scale)) for group in (CREATE, UPDATE))
        return MockConfig(
            default=AppConfig(create_notification=create, update_user=update),
            latency_ms=self.latency_ms,
            latency_p99_ms=self.latency_p99_ms,
            application_limit="off",
            keep_updates=False,
        )


def _share(requests: Requests, ceiling: float, *, seconds: float) -> float:
    """The mean rate of what was accepted while jobs were given, from the first request on, by the ceiling."""
    if not requests.arrivals_s:
        return 0.0
    first_s = requests.arrivals_s[0]
    until_s = min(requests.arrivals_s[-1], first_s + seconds)
    return requests.count((200, 202), from_s=first_s, until_s=until_s) / (until_s - first_s) / ceiling


def measure(task: Task) -> Sent:
    """Have one turn in this process."""
    return run_on(task.loop, _bare(task) if task.kind == "bare aiohttp, paced" else _engine(task, task.kind))


async def _engine(task: Task, transport: TransportKind) -> Sent:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        create, update = (DOCUMENTED[group] * task.scale for group in (CREATE, UPDATE))
        config = settings(
            Path(folder),
            base_url=task.base_url,
            create=create,
            update=update,
            waiting=_WAITING,
            transport=transport,
        )
        async with SendEngine(config) as engine:
            tune_collector()
            meter = Meter()
            feeds = {group: Feed(engine) for group in DOCUMENTED}
            await asyncio.gather(*(_feed(feed, group, meter, task) for group, feed in feeds.items()))
            cpu_s, cores, counters = meter.cpu_s, meter.cores, engine.counters()
            requests = sum(each.requests for each in counters.values())
            lane = counters.get(lane_name(CREATE), LaneCounters())  # missing where nothing was sent
            bound_by = {str(cause): share for cause, share in lane.bound_by.items()}
            await engine.abort()
            for feed in feeds.values():
                feed.check("accepted", "abandoned")
            return Sent(requests, cpu_s, cores, engine.stats().longest_pause_s * 1e3, bound_by)


async def _feed(feed: Feed, group: EndpointGroup, meter: Meter, task: Task) -> None:
    endless = jobs(group)
    feed.submit_at_once(islice(endless, _WAITING))
    await feed.submit(meter.until(task.seconds, endless))


async def _bare(task: Task) -> Sent:
    async with open_session(connections=_CONNECTIONS) as session:
        tune_collector()
        lag, meter = LoopLag(asyncio.get_running_loop()), Meter()
        lag.start()
        counts = await asyncio.gather(*(_paced(session, task, group, meter) for group in DOCUMENTED))
        lag.stop()
        return Sent(sum(counts), meter.cpu_s, meter.cores, lag.longest_s * 1e3, {})


async def _paced(session: ClientSession, task: Task, group: EndpointGroup, meter: Meter) -> int:
    ceiling = DOCUMENTED[group] * task.scale
    limiter = Limiter(ceiling=ceiling)
    workers = ceil(ceiling * task.slowest_s)
    requests = meter.until(task.seconds, all_rendered(group))
    statuses = await send_all(session, task.base_url, requests, workers=workers, permit=limiter.permit)
    return statuses.total()
