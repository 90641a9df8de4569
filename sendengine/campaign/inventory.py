"""What runs there are, which one is meant, and which of them can be thrown away.

Units: ``_at`` is an aware datetime, from the run's name; ``days`` are of 24 hours.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from msgspec import Struct

from sendengine.campaign import manifest as manifests
from sendengine.campaign.exits import FINISHED
from sendengine.campaign.report import parse
from sendengine.campaign.rundir import MANIFEST, REPORT, STATUS, RunDir, find_runs
from sendengine.campaign.status import read_status
from sendengine.errors import InputError, StorageError

State = Literal["going on", "finished", "stopped", "killed", "damaged"]


class RunInfo(Struct, frozen=True):
    """A run as a list has it. ``is_resumable`` where something is left that `sendengine resume` can send."""

    run: str
    state: State
    is_resumable: bool
    made_at: datetime
    name: str = ""
    done: int = 0
    total: int = 0
    exit_code: int | None = None


def describe(run_dir: RunDir) -> RunInfo:
    """Look at a run without touching it. One that cannot be read is damaged, and may be resumable for all we know."""
    name, done, total, exit_code = run_dir.run, 0, 0, None
    state: State = "killed"
    has_ended = True  # the latest process of it
    has_manifest = True
    try:
        has_manifest = run_dir.has(MANIFEST)
        if has_manifest:
            manifest = manifests.load(run_dir)
            name, total = manifest.name, manifest.total
        if run_dir.has(STATUS):
            status = read_status(run_dir)
            name, done, total = status.name, status.done, status.total
            has_ended = status.exit_code is not None
        if run_dir.has(REPORT):
            report = parse(run_dir.read(REPORT))
            name = report.name
            if has_ended or report.exit_code in FINISHED:  # otherwise an earlier process left it
                exit_code = report.exit_code
                state = "finished" if exit_code in FINISHED else "stopped"
    except (StorageError, InputError):
        state = "damaged"
    if run_dir.is_going_on:
        state, exit_code = "going on", None
    is_resumable = state in {"stopped", "killed", "damaged"} and has_manifest
    return RunInfo(run_dir.run, state, is_resumable, _made_at(run_dir), name, done, total, exit_code)


def find_run(name: str, runs_dir: Path) -> RunDir:
    """Find a run by its directory, its name, the start of it, or what it sends where only one sends that.

    Raises InputError, and StorageError where the directory cannot be read.
    """
    place = Path(name)
    if any(RunDir(place).has(file) for file in (REPORT, MANIFEST)):
        return RunDir(place.resolve() if place.name in {"", ".."} else place)  # "." has no name that a run could have
    runs = find_runs(runs_dir)
    if name == "latest" and runs:
        return runs[-1]
    found = [run for run in runs if run.run == name] or [run for run in runs if name and run.run.startswith(name)]
    how = "begin with" if found else "send"
    found = found or [run for run in runs if _sends(run) == name]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} runs {how} {name!r}" if found else f"there is no run {name!r}"
    known = ", ".join(run.run for run in (found or runs)[-5:])
    raise InputError(f"{runs_dir}: {what}; " + (f"the last are: {known}" if known else "it holds no runs"))


def to_prune(runs: Sequence[RunInfo], *, now: datetime, days: float, keep: int, is_forced: bool) -> Sequence[RunInfo]:
    """Choose the runs that are older than ``days``, the newest ``keep`` apart.

    Never one that is going on, and one that can be resumed only where it ``is_forced``.
    """
    oldest_first = sorted(runs, key=lambda info: info.made_at)
    candidates = oldest_first[: max(0, len(oldest_first) - keep)]
    return [
        info
        for info in candidates
        if info.made_at < now - timedelta(days=days)
        and info.state != "going on"
        and (is_forced or not info.is_resumable)
    ]


def _sends(run: RunDir) -> str | None:
    """The name of the campaign, or of the jobs, that a run sends; None where it does not say."""
    try:
        return manifests.load(run).name if run.has(MANIFEST) else None
    except (InputError, StorageError):
        return None


def _made_at(run_dir: RunDir) -> datetime:
    with suppress(ValueError):
        return datetime.strptime(run_dir.run[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return datetime.fromtimestamp(run_dir.path.stat().st_mtime, UTC)
