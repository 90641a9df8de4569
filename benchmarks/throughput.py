"""What the whole engine costs with all limits lifted, against everything that one could send with instead.

Method: in each round each contestant has its turn in a fresh process, against one server in a process of its own that
limits nothing: nginx where HTTP/2 has its turn, for it is compared with the others. Jobs, bodies and models are made
before the clock starts; each contestant opens its connections with some jobs that do not count. Every job is a request
of its own, except where packed: the server's count is the judge. Slow contestants are given fewer jobs. Contestants
that are not installed are left out.

Units: jobs a second of the client's CPU, all threads and the kernel's part included; µs of CPU a job.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final, Literal, Self

from aiolimiter import AsyncLimiter
from msgspec import Meta, Struct

from benchmarks.bare import Permits, open_session, send_all
from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Rounds, check_begin
from benchmarks.feeding import Feed, Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import ACCEPTED, UNLIMITED, MeasuredMock
from benchmarks.nginx import Nginx, nginx_program
from benchmarks.peers import Sdk, is_installed, open_httpx, send_by_httpx
from benchmarks.report import Report, at_least, row
from benchmarks.sink import Server, Sink
from benchmarks.workload import CERTIFICATE, CREATE, H2, LIFTED, UPDATE, job, rendered, settings, wire
from sendengine import SendEngine, tune_collector
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.wire import WireRequest

BARE: Final = "bare aiohttp"
SDK: Final = "official SDK, 1 thread"
DIRECT: Final = "direct"
_FIGURE: Final = "jobs/CPU-s"
_LEAST: Final[Mapping[tuple[str, str], float]] = {
    (DIRECT, BARE): 3.0,
    (DIRECT, SDK): 40.0,
    ("aiohttp", BARE): 0.8,
    (H2, BARE): 4.0,
    (H2, DIRECT): 1.3,
}
_STREAMS: Final = 8  # requests that HTTP/2 has under way for each connection of the others, at the least

Wire = Literal["plain", "tls", "every"]
ServerKind = Literal["sink", "nginx", "mock"]


class Task(Struct, frozen=True):
    """One contestant's turn. The first ``warm`` jobs do not count; a notification is for so many ``recipients``."""

    kind: str
    group: EndpointGroup
    base_url: str
    jobs: int
    warm: int
    connections: int
    loop: LoopKind
    recipients: int = 1

    @property
    def numbers(self) -> range:
        """The first user of each job."""
        return range(0, (self.warm + self.jobs) * self.recipients, self.recipients)


Figures = dict[str, float]


class Contestant(Struct, frozen=True):
    """How a contestant has its turn, with which part of the jobs, and what it needs."""

    turn: Callable[[Task], Figures]
    part: float = 1.0
    needs: Callable[[], bool] = lambda: True
    is_packed: bool = False
    is_h2: bool = False  # it wants a server that speaks HTTP/2, and shares its connections


class Throughput(Benchmark, frozen=True, kw_only=True):
    """Jobs per CPU-second with limits lifted: bare aiohttp, aiolimiter, httpx, OneSignal's SDK, and our transports."""

    jobs: Annotated[AtLeastOne, Meta(description="jobs in each turn")] = 20_000
    warm: Annotated[AtLeastOne, Meta(description="jobs before them that do not count")] = 2_000
    connections: Annotated[AtLeastOne, Meta(description="connections of each contestant")] = 64
    wire: Annotated[Wire, Meta(description="in the clear, over TLS, or both in turn")] = "every"
    server: Annotated[ServerKind, Meta(description="what answers; all but the mock server only count")] = "sink"
    only: Annotated[str, Meta(description="only contestants whose names begin so, and the bare loop")] = ""
    rounds: Rounds = 3
    loop: Loop = "uvloop"

    def __post_init__(self) -> None:
        has_tls = self.wire != "plain"
        check_begin(self.only, [kind for kind, contestant in CONTESTANTS.items() if has_tls or not contestant.is_h2])

    async def run(self) -> Report:
        """Let the contestants send in turn, wire by wire and lane by lane."""
        report = Report(rows=[], checks=[], notes=[])
        for wire_kind in ("plain", "tls") if self.wire == "every" else (self.wire,):
            async with AsyncExitStack() as stack:
                is_tls = wire_kind == "tls"
                kinds = self._kinds(report, is_tls=is_tls)
                is_h2 = any(CONTESTANTS[kind].is_h2 for kind in kinds)
                server: Server = await stack.enter_async_context(self._server(is_tls=is_tls, is_h2=is_h2))
                if is_h2 and self.server == "sink":
                    report.notes.append(f"{wire_kind}: nginx answers all, for HTTP/2 has its turn.")
                for group in (CREATE, UPDATE):
                    found: dict[str, list[Figures]] = {kind: [] for kind in kinds}
                    for _ in range(self.rounds):
                        for kind, rounds in found.items():
                            rounds.append(await self._turn(kind, group, server))
                    _sum_up(report, f"{wire_kind}, {group.value}", found)
        return report

    def _server(self, *, is_tls: bool, is_h2: bool) -> "Sink | Nginx | CountingMock":
        """Choose the server of all: a quicker one would make a contestant look dear. The sink speaks no HTTP/2."""
        match self.server:
            case "mock":
                return CountingMock(is_tls=is_tls)
            case "sink" if not is_h2:
                return Sink(is_tls=is_tls)
            case _:
                return Nginx(is_tls=is_tls, is_h2=is_h2)

    def _kinds(self, report: Report, *, is_tls: bool) -> list[str]:
        """Name the contestants of a wire, and say who is left out."""
        there = [kind for kind, contestant in CONTESTANTS.items() if is_tls or not contestant.is_h2]
        missing = [kind for kind in there if not CONTESTANTS[kind].needs()]
        note = f"Not installed, and left out: {', '.join(missing)}."
        if missing and note not in report.notes:
            report.notes.append(note)
        return [kind for kind in there if kind not in missing and (kind == BARE or kind.startswith(self.only))]

    async def _turn(self, kind: str, group: EndpointGroup, server: Server) -> Figures:
        contestant, before = CONTESTANTS[kind], await server.requests()
        count = max(1, round(self.jobs * contestant.part))
        warm = max(1, round(self.warm * contestant.part))
        connections = max(1, self.connections // _STREAMS) if contestant.is_h2 else self.connections
        task = Task(kind, group, server.base_url, count, warm, connections, self.loop)
        figures = await in_fresh_process(measure, task)
        requests = await server.requests() - before
        if not contestant.is_packed:
            assert requests == count + warm, f"{kind}: {requests} requests for {count + warm} jobs"
        return figures


class CountingMock:
    """A mock server without limits that is asked for its count alone."""

    def __init__(self, *, is_tls: bool) -> None:
        self._mock = MeasuredMock(UNLIMITED, certfile=CERTIFICATE if is_tls else None)

    async def __aenter__(self) -> Self:
        await self._mock.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._mock.__aexit__(None, None, None)

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return self._mock.base_url

    async def requests(self) -> int:
        """How many requests it has answered so far."""
        return sum(lane.requests for lane in (await self._mock.summary(doubled=False)).lanes)


def _sum_up(report: Report, where: str, found: Mapping[str, Sequence[Figures]]) -> None:
    """Put each contestant's ratios to the others beside its figures, round by round."""
    others = [other for other in (BARE, SDK, *((DIRECT,) if H2 in found else ())) if other in found]
    for kind, rounds in found.items():
        beside = [
            {f"× {other}": figures[_FIGURE] / found[other][number][_FIGURE] for other in others}
            for number, figures in enumerate(rounds)
        ]
        each = row(f"{where}: {kind}", [figures | more for figures, more in zip(rounds, beside, strict=True)])
        report.rows.append(each)
        for other in others:
            least = _LEAST.get((kind, other))
            if least is not None:
                report.checks.append(at_least(f"{each.case} × {other}", each.figures[f"× {other}"].median, least))


def measure(task: Task) -> Figures:
    """Have one turn in this process."""
    return CONTESTANTS[task.kind].turn(task)


def _by_engine(transport: str, *, pack: bool = False) -> Callable[[Task], Figures]:
    return lambda task: run_on(task.loop, _engine(task, transport, pack=pack))


def _by_aiohttp(permit_of: Callable[[], Permits | None]) -> Callable[[Task], Figures]:
    return lambda task: run_on(task.loop, _bare(task, permit_of))


def _by_httpx(task: Task) -> Figures:
    return run_on(task.loop, _httpx(task))


def _by_sdk(threads: int) -> Callable[[Task], Figures]:
    return lambda task: _sdk(task, threads=threads)


async def _engine(task: Task, transport: str, *, pack: bool) -> Figures:
    jobs = [job(task.group, number, pack=pack, recipients=task.recipients) for number in task.numbers]
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(
            Path(folder),
            base_url=task.base_url,
            create=LIFTED,
            update=LIFTED,
            waiting=len(jobs),
            transport=wire(transport, base_url=task.base_url, connections=task.connections),
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


async def _bare(task: Task, permit_of: Callable[[], Permits | None]) -> Figures:
    warm, rest = _bodies(task)
    permit = permit_of()
    async with open_session(task.base_url, connections=task.connections) as session:
        await send_all(session, task.base_url, iter(warm), workers=task.connections, permit=permit)
        tune_collector()
        meter = Meter()
        statuses = await send_all(session, task.base_url, iter(rest), workers=task.connections, permit=permit)
        figures = _figures(meter, task.jobs)
    _check(statuses)
    return figures


async def _httpx(task: Task) -> Figures:
    warm, rest = _bodies(task)
    async with open_httpx(task.base_url, connections=task.connections) as client:
        await send_by_httpx(client, iter(warm), workers=task.connections)
        tune_collector()
        meter = Meter()
        statuses = await send_by_httpx(client, iter(rest), workers=task.connections)
        figures = _figures(meter, task.jobs)
    _check(statuses)
    return figures


def _sdk(task: Task, *, threads: int) -> Figures:
    sdk = Sdk(task.base_url, threads=threads)
    calls = [sdk.call(task.group, number) for number in task.numbers]
    sdk.make(iter(calls[: task.warm]))
    tune_collector()
    meter = Meter()
    sdk.make(iter(calls[task.warm :]))
    figures = _figures(meter, task.jobs)
    sdk.close()
    return figures


def _bodies(task: Task) -> tuple[list[WireRequest], list[WireRequest]]:
    """Render what is sent: first what does not count."""
    requests = [rendered(task.group, number, recipients=task.recipients) for number in task.numbers]
    return requests[: task.warm], requests[task.warm :]


def _check(statuses: Mapping[int, int]) -> None:
    assert not set(statuses).difference(ACCEPTED), f"not everything was accepted: {dict(statuses)}"


def _figures(meter: Meter, jobs: int) -> Figures:
    cpu_s, wall_s = meter.cpu_s, meter.wall_s
    return {_FIGURE: jobs / cpu_s, "µs CPU": cpu_s / jobs * 1e6, "jobs/s": jobs / wall_s}


CONTESTANTS: Final[Mapping[str, Contestant]] = {
    BARE: Contestant(_by_aiohttp(lambda: None)),
    "bare aiohttp, aiolimiter": Contestant(_by_aiohttp(lambda: AsyncLimiter(LIFTED, 1).acquire)),
    "httpx": Contestant(_by_httpx, part=0.05, needs=lambda: is_installed("httpx")),
    SDK: Contestant(_by_sdk(1), part=0.05, needs=lambda: is_installed("onesignal")),
    "official SDK, 16 threads": Contestant(_by_sdk(16), part=0.05, needs=lambda: is_installed("onesignal")),
    "aiohttp": Contestant(_by_engine("aiohttp")),
    DIRECT: Contestant(_by_engine("direct")),
    "direct, packed": Contestant(_by_engine("direct", pack=True), is_packed=True),
    H2: Contestant(
        _by_engine(H2),
        needs=lambda: nginx_program() is not None,
        is_h2=True,
    ),
}
"""By name; those that have no other are the engine, whole, over one of its transports."""
