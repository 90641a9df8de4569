"""What a permit costs while many wait for it, and how many fall into the busiest second: the limiter against others.

Method: so many tasks that each ask for the next permit as soon as they have one, in a fresh process for each
contestant, on both event loops. *Hand-out* is the least that any limiter could cost: every two milliseconds it wakes as
many waiters as the rate has room for, and counts nothing. The busiest second is found from the instants at which tasks
went on, wherever it starts. aiolimiter is shown as its own documentation has it, and with the burst of our pacer.

Units: permits a second; µs of CPU a permit, the task's own step included.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Annotated, Final

from aiolimiter import AsyncLimiter
from msgspec import Meta, Struct

from benchmarks.benchmark import AtLeastOne, Benchmark, LoopKind, Positive, Rounds
from benchmarks.feeding import Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.report import Report, Row, at_least, at_most, row
from sendengine import tune_collector
from sendengine.limiter import Limiter

_DEAREST_US: Final = 2.0  # above what waking the waiter costs anyway
_USED: Final = 0.99
_TICK_S: Final = 0.002
_LOOPS: Final[tuple[LoopKind, ...]] = ("uvloop", "asyncio")
_OURS: Final = "sendengine"
_LEAST: Final = "hand-out"
_CPU: Final = "µs CPU"

Permits = Callable[[], Awaitable[object]]


def _ours(rate: float) -> Permits:
    return Limiter(ceiling=rate).permit


def _hand_out(rate: float) -> Permits:
    return HandOut(rate).permit


def _documented(rate: float) -> Permits:
    return AsyncLimiter(rate, 1).acquire


def _short_burst(rate: float) -> Permits:
    burst = max(1.0, rate / 100)
    return AsyncLimiter(burst, burst / (rate - burst)).acquire


CONTESTANTS: Final[Mapping[str, Callable[[float], Permits]]] = {
    _LEAST: _hand_out,
    _OURS: _ours,
    "aiolimiter, N in 1 s": _documented,
    "aiolimiter, burst N/100": _short_burst,
}


class Task(Struct, frozen=True):
    """One contestant's turn."""

    contestant: str
    rate: float
    waiters: int
    seconds: float
    loop: LoopKind


class Pacing(Benchmark, frozen=True, kw_only=True):
    """Permits a second and CPU a permit with many waiting, the busiest second, on both event loops."""

    rate: Annotated[Positive, Meta(description="ceiling, in permits a second")] = 6000.0
    waiters: Annotated[AtLeastOne, Meta(description="tasks that ask for permits")] = 900
    seconds: Annotated[Positive, Meta(description="length of a turn")] = 3.0
    rounds: Rounds = 3

    async def run(self) -> Report:
        """Let the contestants have their turns, loop by loop."""
        report = Report(rows=[], checks=[])
        for loop in _LOOPS:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
            for _ in range(self.rounds):
                for name, rounds in found.items():
                    task = Task(name, self.rate, self.waiters, self.seconds, loop)
                    rounds.append(await in_fresh_process(measure, task))
            rows = {name: row(f"{loop}: {name}", rounds) for name, rounds in found.items()}
            report.rows.extend(rows.values())
            self._check(report, loop, ours=rows[_OURS], least=rows[_LEAST])
        return report

    def _check(self, report: Report, loop: LoopKind, *, ours: Row, least: Row) -> None:
        dearer = ours.figures[_CPU].median - least.figures[_CPU].median
        report.checks.append(at_most(f"{loop}: µs CPU a permit, above waking the waiter", dearer, _DEAREST_US))
        report.checks.append(at_least(f"{loop}: used of the ceiling", ours.figures["used"].median, _USED))
        report.checks.append(at_most(f"{loop}: busiest second", ours.figures["busiest second"].high, self.rate))


def measure(task: Task) -> dict[str, float]:
    """Have one turn in this process."""
    return run_on(task.loop, _measure(task))


async def _measure(task: Task) -> dict[str, float]:
    permit = CONTESTANTS[task.contestant](task.rate)
    granted_s: list[float] = []

    async def ask() -> None:
        while True:
            await permit()
            granted_s.append(perf_counter())

    tasks = [asyncio.create_task(ask()) for _ in range(task.waiters)]
    tune_collector()
    meter = Meter()
    await asyncio.sleep(task.seconds)
    cpu_s, wall_s = meter.cpu_s, meter.wall_s
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "permits/s": len(granted_s) / wall_s,
        "used": len(granted_s) / wall_s / task.rate,
        "busiest second": float(busiest(granted_s)),
        _CPU: cpu_s / len(granted_s) * 1e6,
        "cores": cpu_s / wall_s,
    }


def busiest(instants_s: Sequence[float]) -> int:
    """The most instants in any one second."""
    most = first = 0
    for index, at_s in enumerate(instants_s):
        while instants_s[first] <= at_s - 1:
            first += 1
        most = max(most, index - first + 1)
    return most


class HandOut:
    """Wakes waiters at a steady rate, and bounds nothing: what every limiter must do at the least."""

    def __init__(self, rate: float) -> None:
        self._each_tick = rate * _TICK_S
        self._owed = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time()
        self._tick()

    async def permit(self) -> None:
        """Wait to be woken."""
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _tick(self) -> None:
        self._owed += self._each_tick
        while self._owed >= 1 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
            self._owed -= 1
        self._due_s += _TICK_S
        self._loop.call_at(self._due_s, self._tick)
