"""One client's turn at both documented ceilings: the engine on a transport, or a bare aiohttp loop paced alike.

Units: seconds; CPU is of this process, all threads and the kernel's part included; shares are of the ceilings.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from math import ceil, exp, log
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from aiohttp import ClientSession
from msgspec import Struct

from benchmarks.arrivals import Start, arrive, percentiles_ms
from benchmarks.bare import open_session, send, send_all
from benchmarks.benchmark import LoopKind
from benchmarks.feeding import Filling, Meter
from benchmarks.fresh import run_on
from benchmarks.machine import peak_resident_bytes
from benchmarks.mocked import ACCEPTED, THROTTLED
from benchmarks.stamps import StampingTransport, Stamps, measured_job, number_of
from benchmarks.workload import (
    APP,
    CREATE,
    DOCUMENTED,
    H2,
    TRANSPORTS,
    all_rendered,
    job,
    jobs,
    lane_name,
    rendered,
    settings,
    wire,
)
from sendengine import Accepted, Receipt, SendEngine, Settings, Transport, tune_collector
from sendengine.core.onesignal import EndpointGroup
from sendengine.limiter import Limiter
from sendengine.settings import AppSettings
from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.histogram import Histogram
from sendengine.telemetry.loop_lag import LoopLag
from sendengine.transport import open_transport

BARE: Final = "bare aiohttp, paced"
CONNECTIONS: Final = 4000
_AHEAD_S: Final = 0.5  # of jobs that wait, beside those in flight
_MEASURED: Final = 8  # of so many jobs that come by themselves one is measured
_Z99: Final = 2.3263  # standard deviations to the 99th percentile


class Situation(Struct, frozen=True, kw_only=True):
    """A server's latency and wire, and what is asked of a client there; no ``least`` where connections must bind.

    ``most_connections`` is asked of HTTP/2, which has its turn alone where that ``is_h2_alone``.
    """

    latency_ms: float = 0.0
    latency_p99_ms: float = 0.0
    is_tls: bool = False
    least: float | None
    is_cost_judged: bool = False
    most_connections: int | None = None
    is_h2_alone: bool = False

    @property
    def mean_s(self) -> float:
        """The mean latency; a lognormal one's is above its median."""
        if not self.latency_p99_ms:
            return self.latency_ms / 1e3
        sigma = log(self.latency_p99_ms / self.latency_ms) / _Z99
        return self.latency_ms / 1e3 * exp(sigma**2 / 2)

    @property
    def title(self) -> str:
        """How tables call it."""
        spread = f", p99 {self.latency_p99_ms:g} ms" if self.latency_p99_ms else ""
        return f"{self.latency_ms:g} ms{spread}{', TLS' if self.is_tls else ''}"

    @property
    def contestants(self) -> list[str]:
        """Who has a turn: all, or the engine alone where connections bind."""
        if self.is_h2_alone:
            return [H2]
        ours = [name for name in TRANSPORTS if name != H2 or self.is_tls]
        return [*ours, BARE] if self.least is not None else ours[:1]


class Task(Struct, frozen=True):
    """One contestant's turn; ``mean_s`` is the server's latency, ``offered`` the part at which jobs come."""

    kind: str
    base_url: str
    seconds: float
    mean_s: float
    loop: LoopKind
    scale: float = 1.0
    offered: float = 1.0

    def ceiling(self, group: EndpointGroup) -> float:
        """The ceiling of a lane in this turn."""
        return DOCUMENTED[group] * self.scale

    def under_way(self, group: EndpointGroup) -> int:
        """How many jobs of a lane there should be at any time: those in flight, twice, and some that wait."""
        return ceil(self.ceiling(group) * (2 * self.mean_s + _AHEAD_S))


class Sent(Struct, frozen=True):
    """What a client says of its turn, while jobs were given; ``bound_by`` is the notifications' lane's.

    ``connections`` are those open at the end, None where nobody counts them; ``resident_mb`` is the most memory that
    its process had.
    """

    requests: int
    cpu_s: float
    cores: float
    longest_pause_ms: float
    bound_by: dict[str, float]
    connections: int | None
    resident_mb: float


class Timed(Struct, frozen=True):
    """Latencies of jobs that came by themselves, counted from the instants at which they were meant to."""

    figures: dict[str, float]
    total: Histogram
    added: Histogram | None


def settings_of(task: Task, folder: str) -> Settings:
    """Make the engine's settings of a turn."""
    create, update = (task.ceiling(group) for group in DOCUMENTED)
    return settings(
        Path(folder),
        base_url=task.base_url,
        create=create,
        update=update,
        waiting=ceil(task.ceiling(CREATE) * task.seconds) + task.under_way(CREATE),  # whatever the engine is late
        transport=wire(task.kind, base_url=task.base_url, connections=CONNECTIONS),
    )


def fill(engine: SendEngine, task: Task, meter: Meter) -> list[Filling]:
    """Keep both lanes full until the time is over."""
    return [
        Filling(engine, meter.until(task.seconds, jobs(group)), under_way=task.under_way(group)) for group in DOCUMENTED
    ]


def drive(task: Task) -> Sent:
    """Send as much as the ceilings allow, in this process."""
    return run_on(task.loop, _bare(task) if task.kind == BARE else _engine(task))


def time_arrivals(task: Task) -> Timed:
    """Send jobs that come by themselves, in this process."""
    return run_on(task.loop, _time_bare(task) if task.kind == BARE else _time_engine(task))


async def _engine(task: Task) -> Sent:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        async with SendEngine(settings_of(task, folder)) as engine:
            tune_collector()
            meter = Meter()
            fillings = fill(engine, task, meter)
            await asyncio.sleep(task.seconds)
            cpu_s, cores, counters = meter.cpu_s, meter.cores, engine.counters()
            requests = sum(each.requests for each in counters.values())
            lane = counters.get(lane_name(CREATE), LaneCounters())  # missing where nothing was sent
            bound_by = {str(cause): share for cause, share in lane.bound_by.items()}
            stats = engine.stats()
            connections, pause_ms = stats.apps[APP].connections, stats.longest_pause_s * 1e3
            for filling in fillings:
                filling.stop()
            await engine.abort()
            for filling in fillings:
                filling.check("abandoned")
            return Sent(requests, cpu_s, cores, pause_ms, bound_by, connections, peak_resident_bytes() / 1e6)


async def _bare(task: Task) -> Sent:
    async with open_session(task.base_url, connections=CONNECTIONS) as session:
        tune_collector()
        lag, meter = LoopLag(asyncio.get_running_loop()), Meter()
        lag.start()
        counts = await asyncio.gather(*(paced(session, task, group, meter) for group in DOCUMENTED))
        lag.stop()
        return Sent(sum(counts), meter.cpu_s, meter.cores, lag.longest_s * 1e3, {}, None, peak_resident_bytes() / 1e6)


async def paced(session: ClientSession, task: Task, group: EndpointGroup, meter: Meter) -> int:
    """Send as much of one lane as the ceiling allows, by a bare loop, and return how many requests that were."""
    limiter = Limiter(ceiling=task.ceiling(group), warms_up=True)
    statuses = await send_all(
        session,
        task.base_url,
        meter.until(task.seconds, all_rendered(group)),
        workers=task.under_way(group),
        permit=limiter.permit,
    )
    return statuses.total()


class Watch:
    """Times jobs from the instants at which they were meant to come."""

    def __init__(self) -> None:
        self.stamps = Stamps()
        self.total = Histogram()
        self.added = Histogram()
        self._meant_s: dict[int, float] = {}
        self._left = 0
        self._late_s: list[float] = []
        self._total_s: list[float] = []
        self._added_s: list[float] = []
        self._idle = asyncio.Event()

    def meant(self, number: int, at_s: float) -> None:
        """A job comes that was meant to come at that instant."""
        self._left += 1
        self._meant_s[number] = at_s
        self._late_s.append(perf_counter() - at_s)

    def over(self, number: int) -> None:
        """It has its outcome."""
        now_s, meant_s = perf_counter(), self._meant_s.pop(number)
        self._total_s.append(now_s - meant_s)
        self.total.record(now_s - meant_s)
        written_s, replied_s = self.stamps.written_s.pop(number, None), self.stamps.replied_s.pop(number, None)
        if written_s is not None and replied_s is not None:
            added_s = max(0.0, written_s - meant_s + now_s - replied_s)
            self._added_s.append(added_s)
            self.added.record(added_s)
        self._left -= 1
        self._idle.set()

    async def until_idle(self) -> None:
        """Wait until all have theirs."""
        while self._left:
            self._idle.clear()
            await self._idle.wait()

    def timed(self) -> Timed:
        """Sum up."""
        figures = {f"total {name}": value for name, value in percentiles_ms(self._total_s).items()}
        if self._added_s:  # by an engine: nobody knows what a bare loop has added
            figures |= {f"added {name}": value for name, value in percentiles_ms(self._added_s).items()}
        figures["came late p50 ms"] = percentiles_ms(self._late_s)["p50 ms"]
        return Timed(figures, self.total, self.added if self.added.count else None)


async def _both(task: Task, start_of: Callable[[EndpointGroup], Start]) -> None:
    """Let jobs of both lanes come by themselves."""
    arriving = [
        arrive(start_of(group), rate=task.ceiling(group) * task.offered, seconds=task.seconds, seed=seed)
        for seed, group in enumerate(DOCUMENTED)
    ]
    await asyncio.gather(*arriving)


async def _time_engine(task: Task) -> Timed:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config, watch = settings_of(task, folder), Watch()

        def stamping(app: AppSettings, api_key: str) -> Transport:
            return StampingTransport(open_transport(app, api_key, config.transport), watch.stamps)

        async with SendEngine(config, open_transport=stamping) as engine:
            tune_collector()

            def settled(receipt: Receipt) -> None:
                assert isinstance(receipt.outcome, Accepted), receipt.outcome
                watch.over(number_of(receipt.job))

            def start(group: EndpointGroup, numbers: Iterator[int], number: int, at_s: float) -> None:
                if number % _MEASURED:
                    engine.submit_nowait(job(group, number))
                    return
                own = next(numbers)
                watch.meant(own, at_s)
                engine.submit_nowait(measured_job(group, own, pack=False)).add_done_callback(settled)

            numbers = count()
            await _both(task, lambda group: partial(start, group, numbers))
            await watch.until_idle()
            await engine.drain()
    return watch.timed()


async def _time_bare(task: Task) -> Timed:
    watch, under_way = Watch(), set[asyncio.Task[None]]()
    async with open_session(task.base_url, connections=CONNECTIONS) as session:
        tune_collector()
        limiters = {group: Limiter(ceiling=task.ceiling(group), warms_up=True) for group in DOCUMENTED}

        async def one(group: EndpointGroup, number: int, own: int) -> None:
            await limiters[group].permit()
            status = await send(session, task.base_url, rendered(group, number))
            assert status in {*ACCEPTED, THROTTLED}, f"answered with {status}"  # it has no retries
            if own >= 0:
                watch.over(own)

        def start(group: EndpointGroup, numbers: Iterator[int], number: int, at_s: float) -> None:
            own = -1 if number % _MEASURED else next(numbers)
            if own >= 0:
                watch.meant(own, at_s)
            sending = asyncio.ensure_future(one(group, number, own))
            under_way.add(sending)
            sending.add_done_callback(under_way.discard)

        numbers = count()
        await _both(task, lambda group: partial(start, group, numbers))
        while under_way:
            await asyncio.gather(*under_way)
    return watch.timed()
