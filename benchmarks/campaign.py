"""A campaign from a CSV file of millions of rows, and full packs over TLS against a bare loop.

Method: the command line itself, ``sendengine send``, in a process of its own, at the documented ceilings, with its
journal on disk and without one, against a sink that counts; wall time is that of the whole process, its start
included, and memory its peak, both as the system has them. Beside it the script that one would write first: the csv
module, a set, aiohttp. Then packs of 2,000 recipients with all limits lifted, over TLS: the engine's jobs are made and
the bare loop's bodies rendered before the clock starts.

Units: rows a second of wall time and of CPU; bytes are those of bodies; MB are 10⁶ bytes.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from time import perf_counter
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from benchmarks.bare import open_session, send_all
from benchmarks.benchmark import AtLeastOne, Benchmark, Loop, LoopKind, Rounds
from benchmarks.feeding import Meter
from benchmarks.fresh import WITHIN_S, in_fresh_process, run_on
from benchmarks.machine import peak_resident_bytes
from benchmarks.report import Report, at_least, at_most, row
from benchmarks.sink import Sink
from benchmarks.throughput import BARE
from benchmarks.throughput import Task as PacksTask
from benchmarks.throughput import measure as measure_packs
from benchmarks.workload import API_KEY, APP, APP_ID, CREATE, rendered
from sendengine.campaign.report import Report as CampaignReport
from sendengine.core.onesignal import RECIPIENT_CAP
from sendengine.core.requests import NotificationRequest
from sendengine.core.targets import Target
from sendengine.core.wire import WireRequest, canonical, encode

_ROWS_A_SECOND: Final = 1_000_000
_MEMORY_MB: Final = 150.0
_DEDUPE_BYTES: Final = 24  # a recipient, at most
_PACKS: Final = 0.8
_MB: Final = 1e6
_LINES: Final = 100_000  # of the file that are written at once
_RUN: Final = "import sys; from sendengine.cli.main import main; sys.exit(main())"
_ENGINES: Final = ("direct", "aiohttp")

_STRIDE: Final = 2**31 - 1  # a prime above any number of rows: steps of it come by each row once, in no order

CaseName = Literal["csv", "packs", "every"]
Order = Literal["ascending", "shuffled"]

_SETTINGS: Final = """
state_dir = "{folder}/state"
[apps.{app}]
app_id = "{app_id}"
api_key = "{key}"
plan = "paid"
base_url = "{base_url}"
subscribed_users = 100_000_000_000
[journal]
durability = "{durability}"
"""
_CAMPAIGN: Final = """
[campaign]
name = "benchmark"
app = "{app}"
channel = "push"
message.contents.en = "24 hours only"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
"""


class Task(Struct, frozen=True):
    """One turn with the CSV file; ``durability`` None is the script."""

    folder: str
    base_url: str
    durability: str | None
    loop: LoopKind


class Campaign(Benchmark, frozen=True, kw_only=True):
    """10 million rows of CSV: rows a second and memory; full packs over TLS in bytes a second against a bare loop."""

    case: Annotated[CaseName, Meta(description="the file, the packs, or both")] = "every"
    rows: Annotated[AtLeastOne, Meta(description="rows of the CSV file")] = 10_000_000
    order: Annotated[
        Order, Meta(description="how the ids stand in the file: such that none can occur twice, or not")
    ] = "ascending"
    packs: Annotated[AtLeastOne, Meta(description="packs of 2,000 recipients, in each turn")] = 2_000
    connections: Annotated[AtLeastOne, Meta(description="connections of the packs' contestants")] = 64
    rounds: Rounds = 3
    loop: Loop = "uvloop"

    async def run(self) -> Report:
        """Send the file each way in turn, then the packs."""
        report = Report(rows=[], checks=[])
        if self.case != "packs":
            await self._send_file(report)
        if self.case != "csv":
            await self._send_packs(report)
        return report

    async def _send_file(self, report: Report) -> None:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        with TemporaryDirectory(prefix="sendengine-bench-") as folder:
            write_recipients(Path(folder) / "recipients.csv", self.rows, order=self.order)
            async with Sink() as sink:
                for _ in range(self.rounds):
                    for name, rounds in found.items():
                        before = await sink.requests()
                        rounds.append(
                            await in_fresh_process(send_file, Task(folder, sink.base_url, WAYS[name], self.loop))
                        )
                        assert await sink.requests() - before >= self.rows / RECIPIENT_CAP, "not everything was sent"
        for name, rounds in found.items():
            figures = [
                {
                    "rows/s": self.rows / each["s"],
                    "rows/CPU-s": self.rows / each["CPU s"],
                    "peak MB": each["peak MB"],
                    "× the script": found[SCRIPT][number]["s"] / each["s"],
                }
                for number, each in enumerate(rounds)
            ]
            report.rows.append(row(f"{self.rows:,} rows, {self.order}, {name}", figures))
        ours = next(each for each in report.rows if each.case.endswith(DURABLE))
        report.checks.append(at_least(f"{ours.case}: rows/s", ours.figures["rows/s"].median, _ROWS_A_SECOND))
        most_mb = _MEMORY_MB + _DEDUPE_BYTES * self.rows / _MB
        report.checks.append(at_most(f"{ours.case}: peak MB", ours.figures["peak MB"].high, most_mb))

    async def _send_packs(self, report: Report) -> None:
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in (BARE, *_ENGINES)}
        size = len(rendered(CREATE, 1_000_000, recipients=RECIPIENT_CAP).body)
        async with Sink(is_tls=True) as sink:
            for _ in range(self.rounds):
                for kind, rounds in found.items():
                    before = await sink.counted()
                    task = PacksTask(
                        kind,
                        CREATE,
                        sink.base_url,
                        self.packs,
                        self.connections,
                        self.connections,
                        self.loop,
                        RECIPIENT_CAP,
                    )
                    figures = await in_fresh_process(measure_packs, task)
                    counted = await sink.counted()
                    assert counted.requests - before.requests == self.packs + self.connections, "a request a pack"
                    mean = (counted.body_bytes - before.body_bytes) / (counted.requests - before.requests)
                    rounds.append(
                        {"MB/s": figures["jobs/s"] * mean / _MB, "MB/CPU-s": figures["jobs/CPU-s"] * mean / _MB}
                    )
        for kind, rounds in found.items():
            beside = [
                {**each, f"× {BARE}": each["MB/s"] / found[BARE][number]["MB/s"]} for number, each in enumerate(rounds)
            ]
            packs = row(f"packs of 2,000, {size / 1e3:.0f} KB, TLS: {kind}", beside)
            report.rows.append(packs)
            if kind != BARE:
                report.checks.append(at_least(f"{packs.case}, × {BARE}", packs.figures[f"× {BARE}"].median, _PACKS))


SCRIPT: Final = "the script one would write"
DURABLE: Final = "durable"
WAYS: Final[Mapping[str, str | None]] = {SCRIPT: None, DURABLE: "durable", "in memory": "memory"}
"""How the file is sent: by the command line, with its journal or without, or by a script."""


def write_recipients(path: Path, rows: int, *, order: Order = "ascending") -> None:
    """Write a CSV file of so many recipients, each once, and a column that nothing looks at."""
    with path.open("w", encoding="ascii") as file:
        file.write("external_id,country\n")
        step = 1 if order == "ascending" else _STRIDE
        for first in range(0, rows, _LINES):
            numbers = range(first, min(first + _LINES, rows))
            file.write("".join(f"user-{number * step % rows},DE\n" for number in numbers))


def send_file(task: Task) -> dict[str, float]:
    """Send the file, and say what that took."""
    return run_on(task.loop, _by_script(task)) if task.durability is None else _by_command(task, task.durability)


def _by_command(task: Task, durability: str) -> dict[str, float]:
    folder = Path(task.folder)
    with TemporaryDirectory(prefix="sendengine-bench-") as own:
        place = Path(own)
        (place / "recipients.csv").symlink_to(folder / "recipients.csv")
        (place / "campaign.toml").write_text(_CAMPAIGN.format(app=APP), encoding="utf-8")
        (place / "sendengine.toml").write_text(
            _SETTINGS.format(
                folder=own, app=APP, app_id=APP_ID, key=API_KEY, base_url=task.base_url, durability=durability
            ),
            encoding="utf-8",
        )
        begun_s = perf_counter()
        with (place / "said.txt").open("wb") as said:
            child = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-c", _RUN, "send", "campaign.toml", "--yes", "--json"],
                cwd=place,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=said,
                stderr=said,
            )
        bound = Timer(WITHIN_S, child.kill)
        bound.start()
        _, status, used = os.wait4(child.pid, 0)
        bound.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        took_s = perf_counter() - begun_s
        assert child.returncode == 0, (place / "said.txt").read_text(encoding="utf-8")
        [report] = place.glob("runs/*/report.json")
        found = msgspec.json.decode(report.read_bytes(), type=CampaignReport)
        assert found.jobs.accepted == found.jobs.read, f"not everything was accepted: {found.jobs}"
    return {"s": took_s, "CPU s": used.ru_utime + used.ru_stime, "peak MB": used.ru_maxrss * 1024 / _MB}


async def _by_script(task: Task) -> dict[str, float]:
    meter = Meter()
    async with open_session(task.base_url, connections=64) as session:
        with (Path(task.folder) / "recipients.csv").open(encoding="utf-8", newline="") as file:
            statuses = await send_all(session, task.base_url, _packs(file), workers=64)
    assert set(statuses) == {200}, f"not everything was accepted: {dict(statuses)}"
    peak_mb = peak_resident_bytes() / _MB
    return {"s": meter.wall_s, "CPU s": meter.cpu_s, "peak MB": peak_mb}


def _packs(lines: Iterator[str]) -> Iterator[WireRequest]:
    """Read rows, leave repeated ids out, and make a request of each two thousand."""
    content = canonical({"contents": {"en": "24 hours only"}})
    seen = set[str]()
    fresh = _fresh(csv.DictReader(lines), seen)
    number = 0
    while ids := tuple(islice(fresh, RECIPIENT_CAP)):
        number += 1
        key = f"00000000-0000-4000-8000-{number:012d}"
        yield encode(NotificationRequest(APP_ID, key, content, Target("alias", ids, "external_id"), "push"))


def _fresh(rows: Iterator[dict[str, str]], seen: set[str]) -> Iterator[str]:
    for each in rows:
        user = each["external_id"]
        if user not in seen:
            seen.add(user)
            yield user
