"""What durability costs: throughput at the ceilings, CPU, `submit`'s latency and the loop's pauses, against memory.

Method: the same engine with its jobs in memory, and with a journal on a disk that takes 0, 5 and 20 ms longer for each
commit (a sleep on the journal's thread), each in a fresh process against one mock server. Then notifications are
submitted at an even rate, whatever becomes of the earlier ones, and each `submit` is timed. Then the journal alone
accepts and settles jobs at that rate, as the engine has it do: notifications that go alone, which have no seal, and one
user's change, which has, for every six; against a loop that does the same without a journal.

Units: shares of the ceilings, as means over the whole run; CPU is the client's, all threads together.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

from msgspec import Meta, Struct

from benchmarks.arrivals import percentiles_ms
from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Positive, Rounds
from benchmarks.feeding import Filling, Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import ACCEPTED, MeasuredMock
from benchmarks.report import Check, Report, at_least, at_most, ratios, row
from benchmarks.workload import APP, CREATE, DOCUMENTED, UPDATE, job, jobs, rendered, settings
from sendengine import SendEngine, tune_collector
from sendengine.cli.session import SWITCH_S
from sendengine.core.outcomes import Accepted
from sendengine.errors import StorageError
from sendengine.journal.connection import Connect, Connection, Value, connect_sqlite
from sendengine.journal.connection import Row as StoredRow
from sendengine.journal.outbox import Outbox
from sendengine.journal.schema import WRITE
from sendengine.mockserver import MockConfig
from sendengine.ports import Portion, Seal

_DELAYS_MS: Final = (0.0, 5.0, 20.0)
_LEAST: Final = {5.0: 0.95, 20.0: 0.9}  # of memory's throughput
_SUBMIT_MS: Final = {"p50": 15.0, "p99": 50.0}  # at 5 ms
_STORE_US: Final = 10.0
_PAUSE_MS: Final = 5.0
_LOOK_S: Final = 0.002
_CHANGES: Final = 7  # one job of so many is a user's change: about as the ceilings are
_KEY: Final = "8250eaf6-1a58-489e-b136-7c74a864b434"
_DIFFERENT: Final = 994  # jobs; seven times a whole number
_TOOK: Final = Accepted((_KEY,))


class Task(Struct, frozen=True):
    """One contestant's turn; ``delay_ms`` None keeps jobs in memory."""

    delay_ms: float | None
    base_url: str
    seconds: float
    rate: float
    under_way: int
    loop: LoopKind

    @property
    def name(self) -> str:
        """What it is called."""
        return "memory" if self.delay_ms is None else f"durable, {self.delay_ms:.0f} ms"


class Journal(Benchmark, frozen=True, kw_only=True):
    """What a durable journal costs in throughput, CPU, latency and pauses of the loop, at three speeds of the disk."""

    seconds: Annotated[Positive, Meta(description="how long jobs are given, in each turn")] = 10.0
    latency_ms: Annotated[float, Meta(ge=0, description="latency of the server")] = 100.0
    rate: Annotated[
        Positive, Meta(description="submits a second where they are timed, and jobs of the store alone")
    ] = 6_000.0
    under_way: Annotated[AtLeastOne, Meta(description="jobs of each lane that are under way, at the ceilings")] = 3_000
    rounds: Rounds = 1
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Let all contestants have their turns."""
        config = MockConfig(latency_ms=self.latency_ms, application_limit="off", keep_updates=False)
        sent: dict[str, list[dict[str, float]]] = {}
        timed: dict[str, list[dict[str, float]]] = {}
        alone: dict[str, list[dict[str, float]]] = {}
        async with MeasuredMock(config) as mock:
            for _ in range(self.rounds):
                for delay_ms in (None, *_DELAYS_MS):
                    task = Task(delay_ms, mock.base_url, self.seconds, self.rate, self.under_way, self.loop)
                    await mock.reset()
                    figures = await in_fresh_process(at_the_ceilings, task)
                    sent.setdefault(task.name, []).append(await _with_shares(figures, mock, seconds=self.seconds))
                    await mock.reset()
                    timed.setdefault(task.name, []).append(await in_fresh_process(submitting, task))
                    alone.setdefault(task.name, []).append(await in_fresh_process(store_alone, task))
        return _report(sent, timed, alone)


Found = dict[str, list[dict[str, float]]]


def _report(sent: Found, timed: Found, alone: Found) -> Report:
    rows = [row(f"{name}, at the ceilings", rounds) for name, rounds in sent.items()]
    rows += [row(f"{name}, submitting", rounds) for name, rounds in timed.items()]
    rows += [row(f"{name}, the store alone", rounds) for name, rounds in alone.items()]
    checks: list[Check] = []
    for delay_ms in _DELAYS_MS:
        name = f"durable, {delay_ms:.0f} ms"
        share = ratios(
            f"{name}, throughput against memory",
            name="ratio",
            ours=[each["share"] for each in sent[name]],
            others=[each["share"] for each in sent["memory"]],
        )
        cost = [
            mine["µs CPU a job"] - other["µs CPU a job"]
            for mine, other in zip(alone[name], alone["memory"], strict=True)
        ]
        store = row(f"{name}, the store", [{"µs CPU a job of the store": each} for each in cost])
        more = [
            {"µs CPU a request more than in memory": mine["µs CPU a request"] - other["µs CPU a request"]}
            for mine, other in zip(sent[name], sent["memory"], strict=True)
        ]
        rows += [share, store, row(f"{name}, the whole engine", more)]
        if delay_ms in _LEAST:
            checks.append(at_least(share.case, share.figures["ratio"].median, _LEAST[delay_ms]))
        checks.append(
            at_most(f"{store.case}, µs CPU a job", store.figures["µs CPU a job of the store"].median, _STORE_US)
        )
        pauses = [
            mine["pause p99.9 ms"] - other["pause p99.9 ms"]
            for mine, other in zip(alone[name], alone["memory"], strict=True)
        ]
        checks.append(at_most(f"{name}, pauses of the loop, p99.9 ms more", max(pauses), _PAUSE_MS))
    for part, most_ms in _SUBMIT_MS.items():
        value_ms = max(each[f"submit {part} ms"] for each in timed["durable, 5 ms"])
        checks.append(at_most(f"durable, 5 ms: submit {part}, ms", value_ms, most_ms))
    return Report(rows=rows, checks=checks)


async def _with_shares(figures: dict[str, float], mock: MeasuredMock, *, seconds: float) -> dict[str, float]:
    """Add what the server says: the share of both ceilings together, from the first request on."""
    total, accepted = sum(DOCUMENTED.values()), 0.0
    for group in DOCUMENTED:
        requests = await mock.requests(group.value)
        first_s = requests.arrivals_s[0]
        accepted += requests.count(ACCEPTED, from_s=first_s, until_s=first_s + seconds) / seconds
    return {"share": accepted / total, **figures}


# At the ceilings


def at_the_ceilings(task: Task) -> dict[str, float]:
    """Send as much as may be sent, in this process."""
    return run_on(task.loop, _at_the_ceilings(task))


async def _at_the_ceilings(task: Task) -> dict[str, float]:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(Path(folder), base_url=task.base_url, waiting=task.under_way)
        async with SendEngine(config, journal=await _journal(task, Path(folder))) as engine:
            _tune()
            pauses, meter = Pauses(), Meter()
            given = {group: meter.until(task.seconds, jobs(group)) for group in DOCUMENTED}
            fillings = [Filling(engine, each, under_way=task.under_way) for each in given.values()]
            await asyncio.gather(*(filling.is_over for filling in fillings))
            for filling in fillings:
                filling.check()
            return {
                "µs CPU a request": meter.cpu_s / sum(filling.accepted for filling in fillings) * 1e6,
                "cores": meter.cores,
                "pause p99.9 ms": pauses.stop(),
            }


# Submitting at an even rate


def submitting(task: Task) -> dict[str, float]:
    """Time `submit`, in this process."""
    return run_on(task.loop, _submitting(task))


async def _submitting(task: Task) -> dict[str, float]:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(Path(folder), base_url=task.base_url, create=task.rate)  # above it the server would refuse
        async with SendEngine(config, journal=await _journal(task, Path(folder))) as engine:
            _tune()
            took_s: list[float] = []

            async def submit(number: int) -> None:
                begun_s = time.perf_counter()
                receipt = await engine.submit(job(CREATE, number))
                took_s.append(time.perf_counter() - begun_s)
                await receipt

            await _evenly(submit, rate=task.rate, seconds=task.seconds)
            return {f"submit {name}": value_ms for name, value_ms in percentiles_ms(took_s).items()}


# The store alone


def store_alone(task: Task) -> dict[str, float]:
    """Accept, seal and settle jobs without an engine, in this process."""
    return run_on(task.loop, _store_alone(task))


async def _store_alone(task: Task) -> dict[str, float]:
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        outbox = await _journal(task, Path(folder))
        if outbox is not None:
            await outbox.recover(when_failed=_refuse)
        _tune()
        groups = [UPDATE if number % _CHANGES == 0 else CREATE for number in range(_DIFFERENT)]
        given = [job(group, number) for number, group in enumerate(groups)]
        bodies = [rendered(group, number) for number, group in enumerate(groups)]
        loop, count = asyncio.get_running_loop(), 0

        async def one(number: int) -> None:
            """The same steps with a journal and without; what only the journal needs is its cost."""
            nonlocal count
            number %= _DIFFERENT
            written: asyncio.Future[None] = loop.create_future()
            ids, is_change = (f"user-{number}",), groups[number] is UPDATE
            if outbox is None:
                loop.call_soon(written.set_result, None)
                await written
                if is_change:
                    sealed: asyncio.Future[Seal] = loop.create_future()
                    loop.call_soon(sealed.set_result, Seal("bench", None, None, bodies[number], ((number, ids),)))
                    await sealed
                await asyncio.sleep(0.1)
            else:
                record, request = (
                    outbox.accept(
                        given[number],
                        app=APP,
                        done=lambda _: written.set_result(None),
                        request_key=None if is_change else _KEY,
                    ),
                    None,
                )
                await written
                if is_change:
                    request = await outbox.seal(Seal("bench", None, None, bodies[number], ((record, ids),)))
                elif not outbox.may_go(record):
                    await outbox.until_it_may_go(record)
                await asyncio.sleep(0.1)
                outbox.settle([Portion(record, ids, _TOOK, is_last=True)], request=request)
            count += 1

        pauses, meter = Pauses(), Meter()
        await _evenly(one, rate=task.rate, seconds=task.seconds)
        figures = {"µs CPU a job": meter.cpu_s / count * 1e6, "cores": meter.cores, "pause p99.9 ms": pauses.stop()}
        if outbox is not None:
            await outbox.aclose()
        return figures


# What they share


def _tune() -> None:
    """Set the process up as a host is told to that wants `submit` back soon."""
    tune_collector()
    sys.setswitchinterval(SWITCH_S)


async def _journal(task: Task, folder: Path) -> Outbox | None:
    if task.delay_ms is None:
        return None
    return await Outbox.open(folder / "engine-1.db", connect=_delayed(task.delay_ms / 1e3))


def _refuse(error: StorageError) -> None:
    raise error


def _delayed(delay_s: float) -> Connect:
    """A disk whose every commit takes so much longer, and a checkpoint, which syncs twice, twice that."""

    class Delayed:
        def __init__(self, path: Path) -> None:
            self._connection: Connection = connect_sqlite(path)

        def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Iterator[StoredRow]:
            rows = self._connection.execute(sql, parameters)
            if delay_s and (sql == WRITE or "wal_checkpoint" in sql):
                time.sleep(delay_s if sql == WRITE else 2 * delay_s)
            return rows

        def close(self) -> None:
            self._connection.close()

    return Delayed


async def _evenly(start: Callable[[int], Awaitable[None]], *, rate: float, seconds: float) -> None:
    """Start so many a second, whatever becomes of the earlier ones, and wait for all of them."""
    begun_s, number, tasks = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (passed_s := time.perf_counter() - begun_s) < seconds:
        while number < passed_s * rate:
            task = asyncio.ensure_future(start(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(0.001)
    while tasks:
        await asyncio.gather(*tasks)


class Pauses:
    """Looks every two milliseconds how late the loop is."""

    def __init__(self) -> None:
        self._late_s: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._wait()

    def stop(self) -> float:
        """Look no longer, and return the 99.9th percentile, in milliseconds."""
        self._timer.cancel()
        return percentiles_ms(self._late_s)["p99.9 ms"]

    def _wait(self) -> None:
        self._due_s = time.perf_counter() + _LOOK_S
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._late_s.append(max(0.0, time.perf_counter() - self._due_s))
        self._wait()
