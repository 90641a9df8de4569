"""2,000 open connections, all closed by the server at once, while the engine runs at both ceilings.

Method: the mock server answers after a while, so that most connections carry a request; then it resets all of them in
one step, and goes on. Requests that were under way may have been carried out: they go again under their keys after
``wait_s`` (``retry.lost_reply_wait_s``, shorter here). In the end every job must have been accepted, and the server's
ledger is the judge: every recipient reached once, every user's update applied. The rate is back when half a second has
95 % of what it was before.

Units: seconds; requests a second.
"""

import asyncio
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

from msgspec import Meta, Struct

from benchmarks.atceilings import CONNECTIONS
from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Positive, Rounds, check_begin
from benchmarks.drawing import rate_drawing
from benchmarks.feeding import Filling, Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import THROTTLED, MeasuredMock, Requests
from benchmarks.report import Report, at_least, at_most, row
from benchmarks.workload import CERTIFICATE, DOCUMENTED, H2, TRANSPORTS, jobs, settings, wire
from sendengine import SendEngine, tune_collector
from sendengine.mockserver import Fault, MockConfig
from sendengine.settings import RetrySettings

_BACK_S: Final = 3.0
_BACK: Final = 0.95  # of the rate before
_WINDOW_S: Final = 0.5
_STEP_S: Final = 0.05
_LEAD_S: Final = 0.1
_RESET_S: Final = 0.05  # so long new connections are reset too: a busy server must not miss it
_ALL: Final = 0.95  # of the connections that were asked for
_TRANSPORTS: Final = [name for name in TRANSPORTS if name != H2]  # over HTTP/2 there are never so many connections


class Task(Struct, frozen=True):
    """One turn; ``under_way`` jobs of each lane at any time, by lane."""

    transport: str
    base_url: str
    seconds: float
    wait_s: float
    under_way: dict[str, int]
    scale: float
    loop: LoopKind


class Sent(Struct, frozen=True):
    """What the client says: jobs accepted by lane, and what else came of any; how many replies were lost."""

    accepted: dict[str, int]
    others: dict[str, int]
    lost: int
    not_sent: int


class ClosedAtOnce(Benchmark, frozen=True, kw_only=True):
    """2,000 open connections all closed by the server at once: outcomes, the ledger, and how soon the rate is back."""

    connections: Annotated[AtLeastOne, Meta(description="that are open when they are closed, about")] = 2_000
    seconds: Annotated[Positive, Meta(description="how long jobs are given; half of it before the closing")] = 16.0
    wait_s: Annotated[float, Meta(ge=0, description="how long a request whose reply was lost waits")] = 2.0
    scale: Annotated[Positive, Meta(description="part of both ceilings, where the machine is too small for them")] = 1.0
    only: Annotated[str, Meta(description="only transports whose names begin so")] = ""
    tls: Annotated[bool, Meta(description="over TLS")] = False
    rounds: Rounds = 1
    loop: Loop = "uvloop"

    def __post_init__(self) -> None:
        check_begin(self.only, _TRANSPORTS)

    async def run(self) -> Report:
        """Close them for each transport in turn."""
        names = [name for name in _TRANSPORTS if name.startswith(self.only)]
        report = Report(rows=[], checks=[], notes=[], plots={})
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(self.rounds):
            for name, rounds in found.items():
                rounds.append(await self._closed(name, report))
        for name, rounds in found.items():
            each = row(name, rounds)
            report.rows.append(each)
            figures = each.figures
            report.checks.append(at_least(f"{name}: open when closed", figures["open"].low, _ALL * self.connections))
            report.checks.append(at_most(f"{name}: not accepted", figures["not accepted"].high, 0))
            report.checks.append(at_most(f"{name}: reached twice", figures["reached twice"].high, 0))
            report.checks.append(at_most(f"{name}: not reached", figures["not reached"].high, 0))
            report.checks.append(at_most(f"{name}: rate back after s", figures["back after s"].high, _BACK_S))
        return report

    async def _closed(self, transport: str, report: Report) -> dict[str, float]:
        config = MockConfig(latency_ms=self._latency_s * 1e3, application_limit="off", keep_updates=False)
        async with MeasuredMock(config, certfile=CERTIFICATE if self.tls else None) as mock:
            under_way = {group.value: round(rate * self.scale) for group, rate in DOCUMENTED.items()}
            task = Task(transport, mock.base_url, self.seconds, self.wait_s, under_way, self.scale, self.loop)
            sending = asyncio.ensure_future(in_fresh_process(measure, task))
            before, closed_s = await self._close(mock, sending)
            sent = await sending
            summary = await mock.summary(doubled=True)
            lanes = {group.value: await mock.requests(group.value) for group in DOCUMENTED}
        report.plots[transport] = rate_drawing(
            {transport: {lane: found.accepted_s for lane, found in lanes.items()}},
            ceilings={group.value: rate * self.scale for group, rate in DOCUMENTED.items()},
            title=f"All connections closed at once, {transport}",
            command=self.command,
        )
        assert summary.doubled is not None, "the audit was asked for"
        assert sent.lost + sent.not_sent, "the server has missed the instant"
        return {
            "open": float(before),
            "lost replies": float(sent.lost),
            "not sent": float(sent.not_sent),
            "429s": float(sum(found.statuses.count(THROTTLED) for found in lanes.values())),
            "not accepted": float(sum(sent.others.values())),
            "reached twice": float(summary.doubled.effects),
            "not reached": float(_missing(sent, summary.recipients, summary.users)),
            "back after s": back_after_s(list(lanes.values()), closed_s),
        }

    @property
    def _latency_s(self) -> float:
        """As long as keeps so many connections busy at both ceilings."""
        return self.connections / sum(DOCUMENTED.values()) / self.scale

    async def _close(self, mock: MeasuredMock, sending: "asyncio.Future[Sent]") -> tuple[int, float]:
        """Wait until half of the time is over, reset everything, and return how many were open, and when that was."""
        while not (await mock.summary(doubled=False)).lanes and not sending.done():  # noqa: ASYNC110 - another process
            await asyncio.sleep(_STEP_S)
        await asyncio.sleep(self.seconds / 2)
        summary = await mock.summary(doubled=False)
        outage = Fault(kind="outage_reset", from_s=_LEAD_S, until_s=_LEAD_S + _RESET_S)  # after the reply to this
        await mock.configure(faults=[outage])
        return mock.open_descriptors, summary.now_s + _LEAD_S


def _missing(sent: Sent, recipients: int, users: int) -> int:
    """How many were accepted, as the client says, and are not in the ledger."""
    notifications, updates = (sent.accepted[group.value] for group in DOCUMENTED)
    return max(0, notifications - recipients) + max(0, updates - users)


def back_after_s(lanes: list[Requests], closed_s: float) -> float:
    """Seconds from the closing to the end of the first half second that has the rate of before."""
    accepted_s = [at_s for lane in lanes for at_s in lane.accepted_s]
    steps = Counter(int((at_s - closed_s) // _STEP_S) for at_s in accepted_s)
    window = round(_WINDOW_S / _STEP_S)
    before = sum(steps[step] for step in range(-4 * window - window, -window)) / 4
    last = max(steps, default=0)
    for first in range(1, last):
        if sum(steps[step] for step in range(first, first + window)) >= _BACK * before:
            return (first + window) * _STEP_S
    return float("inf")


def measure(task: Task) -> Sent:
    """Send in this process."""
    return run_on(task.loop, _send(task))


async def _send(task: Task) -> Sent:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        create, update = (rate * task.scale for rate in DOCUMENTED.values())
        config = settings(
            Path(folder),
            base_url=task.base_url,
            create=create,
            update=update,
            transport=wire(task.transport, base_url=task.base_url, connections=CONNECTIONS),
            retry=RetrySettings(lost_reply_wait_s=task.wait_s),
        )
        async with SendEngine(config) as engine:
            tune_collector()
            meter = Meter()
            fillings = {
                group.value: Filling(
                    engine, meter.until(task.seconds, jobs(group)), under_way=max(1, task.under_way[group.value])
                )
                for group in DOCUMENTED
            }
            await asyncio.gather(*(filling.is_over for filling in fillings.values()))
            counters = engine.counters().values()
            lost, not_sent = sum(each.lost for each in counters), sum(each.not_sent for each in counters)
        others = sum((filling.outcomes for filling in fillings.values()), Counter[str]())
        return Sent({lane: filling.accepted for lane, filling in fillings.items()}, dict(others), lost, not_sent)
