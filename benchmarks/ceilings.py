"""Both documented ceilings at once: how near the engine comes, whether it is ever refused, and what that costs.

Method: the engine on each transport, then a bare aiohttp loop that is paced by the same limiter, each in a fresh
process against a mock server that counts the exact second before each request. In the first turns jobs are there as
they are taken. Then both have jobs that come by themselves, at a part of the ceilings, and latency is counted from the
instant at which each was meant to come; what the engine added is what passed until the request was written, and from
its reply to its outcome.

Units: shares of the ceilings, as means over the whole run; CPU is the client's, in µs a request and in cores.
"""

from collections.abc import Collection, Mapping
from math import ceil
from typing import Annotated, Final, Literal

from msgspec import Meta, structs

from benchmarks.atceilings import BARE, Sent, Situation, Task, Timed, drive, time_arrivals
from benchmarks.benchmark import Benchmark, Loop, Positive, Rounds, check_begin
from benchmarks.drawing import latency_drawing, rate_drawing
from benchmarks.fresh import in_fresh_process
from benchmarks.mocked import ACCEPTED, THROTTLED, MeasuredMock, Requests
from benchmarks.report import Report, Row, at_least, at_most, ratios, row
from benchmarks.workload import CERTIFICATE, CREATE, DOCUMENTED, H2, UPDATE
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig

_MOST: Final[Mapping[str, float]] = {"direct": 0.5, "aiohttp": 1.25}
_COST: Final = "µs CPU a request"
_RESIDENT_MB: Final = 250.0  # with 14,000 requests in flight
_START_S: Final = 1.0  # what the first connections may take of a turn
_BINDING: Final = 0.5  # of the time: what has held the lane back

CaseName = Literal["0", "100", "300", "lognormal", "2000", "2000-h2", "every"]

CASES: Final[Mapping[str, Situation]] = {
    "0": Situation(least=0.985),
    "100": Situation(latency_ms=100, least=0.985, is_cost_judged=True),
    "300": Situation(latency_ms=300, least=0.98),
    "lognormal": Situation(latency_ms=300, latency_p99_ms=2000, is_tls=True, least=0.98, most_connections=60),
    "2000": Situation(latency_ms=2000, least=None),
    "2000-h2": Situation(latency_ms=2000, is_tls=True, least=0.98, most_connections=150, is_h2_alone=True),
}


class Turn(Sent, frozen=True):
    """One contestant's turn, client's and server's word together."""

    shares: dict[str, float]
    refused: int
    arrivals_s: dict[str, list[float]]

    @property
    def figures(self) -> dict[str, float]:
        """What its row shows."""
        return {
            **self.shares,
            "429s": float(self.refused),
            _COST: self.cpu_s / max(1, self.requests) * 1e6,
            "cores": self.cores,
            "longest pause ms": self.longest_pause_ms,
            "resident MB": self.resident_mb,
            **({} if self.connections is None else {"connections": float(self.connections)}),
        }


class Ceilings(Benchmark, frozen=True, kw_only=True):
    """6,000 notifications and 1,000 user updates a second together: shares reached, 429s, CPU, latency added."""

    case: Annotated[CaseName, Meta(description="latency of the server in ms, or lognormal and TLS")] = "every"
    seconds: Annotated[Positive, Meta(description="how long jobs are given, in each turn")] = 60.0
    offered: Annotated[float, Meta(gt=0, le=1, description="part of the ceilings at which jobs come by themselves")] = (
        0.95
    )
    scale: Annotated[Positive, Meta(description="part of both ceilings, where the machine is too small for them")] = 1.0
    only: Annotated[str, Meta(description="only contestants whose names begin so, and the bare loop")] = ""
    rounds: Rounds = 1
    loop: Loop = "uvloop"

    def __post_init__(self) -> None:
        check_begin(self.only, [kind for name in self._cases for kind in CASES[name].contestants])

    @property
    def _cases(self) -> Collection[str]:
        return CASES if self.case == "every" else (self.case,)

    async def run(self) -> Report:
        """Let the contestants send in turn, case by case."""
        report = Report(rows=[], checks=[], notes=[], plots={})
        for name in self._cases:
            situation = CASES[name]
            kinds = [kind for kind in situation.contestants if kind == BARE or kind.startswith(self.only)]
            if not kinds:
                continue
            found: dict[str, list[Turn]] = {kind: [] for kind in kinds}
            timed: dict[str, list[Timed]] = {kind: [] for kind in kinds}
            certificate = CERTIFICATE if situation.is_tls else None
            async with MeasuredMock(self._config(situation), certfile=certificate) as mock:
                for _ in range(self.rounds):
                    for kind, turns in found.items():
                        task = self._task(kind, situation, mock.base_url)
                        await mock.reset()
                        turns.append(await self._turn(task, mock))
                        if situation.least is not None:
                            await mock.reset()
                            timed[kind].append(await in_fresh_process(time_arrivals, task))
            self._sum_up(report, name, found, timed)
        return report

    def _task(self, kind: str, situation: Situation, base_url: str) -> Task:
        return Task(kind, base_url, self.seconds, situation.mean_s, self.loop, self.scale, self.offered)

    async def _turn(self, task: Task, mock: MeasuredMock) -> Turn:
        sent = await in_fresh_process(drive, task)
        lanes = {group: await mock.requests(group.value) for group in DOCUMENTED}
        shares = {
            group.value: share_reached(lanes[group], ceiling * self.scale, seconds=self.seconds)
            for group, ceiling in DOCUMENTED.items()
        }
        refused = sum(requests.statuses.count(THROTTLED) for requests in lanes.values())
        arrivals_s = {group.value: lanes[group].accepted_s for group in DOCUMENTED}
        return Turn(**structs.asdict(sent), shares=shares, refused=refused, arrivals_s=arrivals_s)

    def _sum_up(
        self, report: Report, name: str, found: Mapping[str, list[Turn]], timed: Mapping[str, list[Timed]]
    ) -> None:
        situation = CASES[name]
        where = situation.title
        rows = {kind: row(f"{where}: {kind}", [turn.figures for turn in turns]) for kind, turns in found.items()}
        report.rows.extend(rows.values())
        report.rows.extend(
            row(f"{where}: {kind}, jobs come by themselves", [each.figures for each in rounds])
            for kind, rounds in timed.items()
            if rounds
        )
        for kind in found:
            if kind != BARE:
                self._judge(report, f"{where}: {kind}", rows[kind], found[kind], situation)
        for kind, most in _MOST.items():
            if not situation.is_cost_judged or kind not in found:
                continue
            ours, bare = ([turn.figures[_COST] for turn in found[each]] for each in (kind, BARE))
            cost = ratios(f"{where}: CPU a request, {kind} × {BARE}", name="ratio", ours=ours, others=bare)
            report.rows.append(cost)
            report.checks.append(at_most(cost.case, cost.figures["ratio"].median, most))
        report.plots[f"{name}-rate"] = rate_drawing(
            {kind: turns[0].arrivals_s for kind, turns in found.items()},
            ceilings={group.value: ceiling * self.scale for group, ceiling in DOCUMENTED.items()},
            title=f"Both ceilings at {where}",
            command=self.command,
        )
        if first := {kind: rounds[0] for kind, rounds in timed.items() if rounds}:
            report.plots[f"{name}-latency"] = latency_drawing(
                first, title=f"Latency at {self.offered:.0%} of both ceilings, {where}", command=self.command
            )

    def _judge(self, report: Report, who: str, found: Row, turns: list[Turn], situation: Situation) -> None:
        bound_by = row(f"{who}, share of the time bound by", [turn.bound_by for turn in turns])
        report.rows.append(bound_by)
        report.checks.append(at_most(f"{who}: 429s", found.figures["429s"].high, 0))
        if situation.least is None:
            bound = bound_by.figures["connections"].median if "connections" in bound_by.figures else 0.0
            report.checks.append(at_least(f"{who}: bound by connections", bound, _BINDING))
            return
        for group in DOCUMENTED:
            share = found.figures[group.value].low
            report.checks.append(at_least(f"{who}: {group.value}, share", share, situation.least))
        if situation.most_connections is not None and who.endswith(H2):
            report.checks.append(
                at_most(f"{who}: connections", found.figures["connections"].high, situation.most_connections)
            )
            report.checks.append(at_most(f"{who}: resident MB", found.figures["resident MB"].high, _RESIDENT_MB))

    def _config(self, situation: Situation) -> MockConfig:
        create, update = (LaneLimit(rate=ceil(DOCUMENTED[group] * self.scale)) for group in (CREATE, UPDATE))
        return MockConfig(
            default=AppConfig(create_notification=create, update_user=update),
            latency_ms=situation.latency_ms,
            latency_p99_ms=situation.latency_p99_ms,
            application_limit="off",
            keep_updates=False,
        )


def share_reached(requests: Requests, ceiling: float, *, seconds: float) -> float:
    """Return the mean rate of what was accepted while jobs were given, from the first request on, by the ceiling."""
    if not requests.arrivals_s:
        return 0.0
    first_s = requests.arrivals_s[0]
    until_s = min(requests.arrivals_s[-1], first_s + seconds)
    over_s = max(until_s - first_s, seconds - _START_S, 1e-9)  # who begins late or ends early has sent nothing then
    return requests.count(ACCEPTED, from_s=first_s, until_s=until_s) / over_s / ceiling
