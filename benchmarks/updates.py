"""A million updates on 100,000 users: how fast they are taken in, and how many requests merging saves.

Method: a fresh process for each turn. Jobs are made before the clock starts; while they are submitted no connection
opens, so that all of them wait. Then the transport opens and answers within the process until all have settled, with
the lane's ceiling lifted and each user's second kept. Beside it the least that any merging could cost: a dictionary of
tags for each user, updated.

Units: updates a second of wall time.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated, Final

from msgspec import Meta, Struct

from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Rounds
from benchmarks.feeding import Feed, Meter
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.gated import GatedTransport
from benchmarks.report import Report, at_least, row
from benchmarks.workload import LIFTED, settings
from sendengine import SendEngine, UpdateUser, external_id, tune_collector

_INTAKE: Final = 150_000
_CONNECTIONS: Final = 100
_TAGS: Final = 40
_LEAST: Final = "dictionaries, no engine"
_RATE: Final = "updates/s taken in"


class Task(Struct, frozen=True):
    """One turn."""

    way: str
    updates: int
    users: int
    loop: LoopKind


class Updates(Benchmark, frozen=True, kw_only=True):
    """1 million updates on 100,000 users: taken in a second, and requests saved by merging."""

    updates: Annotated[AtLeastOne, Meta(description="updates of one tag each")] = 1_000_000
    users: Annotated[AtLeastOne, Meta(description="users, drawn at random")] = 100_000
    rounds: Rounds = 3
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Let each way have its turns."""
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(self.rounds):
            for way, rounds in found.items():
                rounds.append(await in_fresh_process(measure, Task(way, self.updates, self.users, self.loop)))
        report = Report(rows=[], checks=[])
        for way, rounds in found.items():
            figures = [
                {**each, f"× {_LEAST}": each[_RATE] / found[_LEAST][number][_RATE]}
                for number, each in enumerate(rounds)
            ]
            each = row(way, figures)
            report.rows.append(each)
            if way != _LEAST:
                report.checks.append(at_least(f"{way}: {_RATE}", each.figures[_RATE].median, _INTAKE))
        return report


def measure(task: Task) -> dict[str, float]:
    """Have one turn in this process."""
    return WAYS[task.way](task)


def _jobs(task: Task) -> list[UpdateUser]:
    chance = Random(1)
    return [
        UpdateUser(external_id(f"user-{chance.randrange(task.users)}"), {f"tag-{number % _TAGS}": number})
        for number in range(task.updates)
    ]


def _by_dictionaries(task: Task) -> dict[str, float]:
    jobs = _jobs(task)
    tune_collector()
    meter = Meter()
    pending: dict[str, dict[str, object]] = {}
    for job in jobs:
        pending.setdefault(job.user.ids[0], {}).update(job.tags)
    return _figures(meter.wall_s, meter.cpu_s, task, requests=len(pending))


def _by_engine(*, waits: bool) -> Callable[[Task], dict[str, float]]:
    return lambda task: run_on(task.loop, _engine(task, waits=waits))


async def _engine(task: Task, *, waits: bool) -> dict[str, float]:
    jobs = _jobs(task)
    transport = GatedTransport()
    with TemporaryDirectory(prefix="sendengine-bench-") as folder:
        config = settings(Path(folder), create=LIFTED, update=LIFTED, waiting=task.updates)
        async with SendEngine(config, open_transport=lambda *_: transport) as engine:
            feed = Feed(engine)
            tune_collector()
            meter = Meter()
            if waits:
                await feed.submit(jobs)
            else:
                feed.submit_at_once(jobs)
            wall_s, cpu_s = meter.wall_s, meter.cpu_s
            assert not feed.settled, "an update was sent while all were to wait"
            transport.open()
            await feed.all_accepted()
            return _figures(wall_s, cpu_s, task, requests=transport.requests)


def _figures(wall_s: float, cpu_s: float, task: Task, *, requests: int) -> dict[str, float]:
    return {
        _RATE: task.updates / wall_s,
        "µs CPU": cpu_s / task.updates * 1e6,
        "requests": float(requests),
        "requests saved": 1 - requests / task.updates,
    }


WAYS: Final[dict[str, Callable[[Task], dict[str, float]]]] = {
    _LEAST: _by_dictionaries,
    "await submit": _by_engine(waits=True),
    "submit_nowait": _by_engine(waits=False),
}
