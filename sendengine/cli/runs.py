"""``sendengine runs``: which runs there are, and throwing old ones away."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import click
from msgspec import to_builtins

from sendengine.campaign.disk import as_storage_error
from sendengine.campaign.inventory import RunInfo, describe, to_prune
from sendengine.campaign.rundir import MANIFEST, RunDir, find_runs
from sendengine.cli.options import json_option, number_of, runs_dir_option
from sendengine.cli.output import counted, note, say, show_json
from sendengine.journal.whole_file import sync_directory


@click.group("runs")
def runs_group() -> None:
    """List runs, and throw old ones away."""


@runs_group.command("list")
@runs_dir_option
@json_option
def list_command(*, runs_dir: Path, is_json: bool) -> None:
    """List the runs, the latest last."""
    found = [describe(run_dir) for run_dir in find_runs(runs_dir)]
    if is_json:
        show_json([to_builtins(info) for info in found])
        return
    for info in found:
        say(_line(info))


@runs_group.command("prune")
@runs_dir_option
@click.option(
    "--older-than",
    "days",
    type=number_of("days", most=36_500, is_zero_fine=True),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Only those that began so long ago.",
)
@click.option("--keep", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Keep the newest N.")
@click.option("--force", "is_forced", is_flag=True, help="Also those that could still be resumed.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Say which, and throw none away.")
def prune_command(*, runs_dir: Path, days: float, keep: int, is_forced: bool, is_dry: bool) -> None:
    """Throw old runs away, with their reports; never one that is going on."""
    found = [describe(run_dir) for run_dir in find_runs(runs_dir) if run_dir.has_a_runs_name]
    chosen = to_prune(found, now=datetime.now(UTC), days=days, keep=keep, is_forced=is_forced)
    for info in chosen:
        say(_line(info))
        if not is_dry:
            _throw_away(RunDir(runs_dir / info.run))
    note(f"{counted(len(chosen), 'run')} {'would be ' if is_dry else ''}thrown away, {len(found) - len(chosen):,} kept")


def _throw_away(run_dir: RunDir) -> None:
    """Take a run away; one that is left half is none that could be resumed, and is taken away the next time."""
    with run_dir.locked(), as_storage_error(run_dir.path):
        (run_dir.path / MANIFEST).unlink(missing_ok=True)
        sync_directory(run_dir.path)
        shutil.rmtree(run_dir.path)


def _line(info: RunInfo) -> str:
    code = "" if info.exit_code is None else f" (exit {info.exit_code})"
    resumable = ", can be resumed" if info.is_resumable else ""
    return f"{info.run}  {info.state}{code}  {info.done:,} of {info.total:,}{resumable}"
