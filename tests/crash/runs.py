"""A run of the command line, killed and resumed as its operator would, and what its directory says in the end."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from sendengine.campaign.exits import FINISHED, Exit
from sendengine.core.joblines import read_job
from sendengine.mockserver import MockServer
from tests.crash.deaths import Death, live_until
from tests.crash.embedded import number_of
from tests.crash.inputs import APP_ID
from tests.crash.processes import Body, Order, command, said
from tests.crash.scene import Scene


async def sent_and_resumed(
    scene: Scene, source: str, deaths: Sequence[Death], *, mischief: tuple[Body, ...] = ()
) -> int:
    """Send, resume whatever was killed, and return the exit code of the process that came to the end."""
    code = await _go_on(scene, source, deaths[0] if deaths else None, mischief)
    for death in [*deaths[1:], None]:
        if code != -9:
            break
        finished = _finished(scene.folder)  # it may have died when all was over
        code = finished if finished is not None else await _go_on(scene, source, death, mischief)
    return code


async def _go_on(scene: Scene, source: str, death: Death | None, mischief: tuple[Body, ...]) -> int:
    """As an operator does: resume the run if there is one to resume, else send again."""
    folder = scene.folder
    if runs_in(folder):
        code = await live_until(death, scene, Order(folder, command, ("resume", "latest"), mischief=mischief))
        if code != Exit.USAGE:
            return code
    return await live_until(death, scene, Order(folder, command, ("send", source, "--yes"), mischief=mischief))


def _finished(folder: Path) -> int | None:
    """The exit code of the run that has nothing left to send; None where there is none."""
    codes = [report_in(run)["exit_code"] for run in runs_in(folder) if (run / "report.json").exists()]
    return next((int(code) for code in codes if code in FINISHED), None)


def runs_in(folder: Path) -> list[Path]:
    runs = folder / "runs"
    return sorted(runs.iterdir()) if runs.exists() else []


def run_in(folder: Path) -> Path:
    """The run that came to the end: those before it, if any, had not begun."""
    finished = [run for run in runs_in(folder) if (run / "report.json").exists()]
    assert len(finished) == 1, said(folder)
    return finished[0]


def report_in(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((run / "report.json").read_bytes())
    return found


def lines_in(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def told_in(run: Path) -> dict[int, list[str]]:
    """What a jobs file's run says came of its jobs; those without a line were accepted."""
    told: dict[int, list[str]] = defaultdict(list)
    for line in lines_in(run / "failures.jsonl"):
        told[number_of(read_job(orjson.dumps(line["job"])))].append(line["outcome"])
    return told


def judge_report(run: Path, server: MockServer) -> dict[str, Any]:
    """Hold the report and the lines beside it against each other and against the ledger; returns its counts."""
    report = report_in(run)
    counts: dict[str, Any] = report["jobs"]
    assert counts["read"] == sum(count for name, count in counts.items() if name != "read"), counts
    failures = Counter(line["outcome"] for line in lines_in(run / "failures.jsonl"))
    assert failures.keys() <= {name for name, count in counts.items() if count}, (failures, counts)
    log = server.ledger.messages
    there = {log.message_id(place): message.count for place, message in enumerate(log) if message.app == APP_ID}
    settled = [line for line in lines_in(run / "requests.jsonl") if line["message_id"]]
    noted = Counter(line["message_id"] for line in settled)
    assert set(noted.values()) <= {1}, f"requests.jsonl has lines twice: {noted.most_common(3)}"
    assert noted.keys() == there.keys(), f"{noted.keys() ^ there.keys()} stand in one of ledger and requests.jsonl"
    assert {line["message_id"]: line["recipients"] for line in settled} == there
    return counts
