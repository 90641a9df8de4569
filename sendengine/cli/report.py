"""``sendengine report``: shows what came of a run that has finished."""

from pathlib import Path

import click

from sendengine.campaign.inventory import describe
from sendengine.campaign.report import parse
from sendengine.campaign.rundir import MANIFEST, REPORT, RunDir, find_runs
from sendengine.cli.options import json_option, runs_dir_option
from sendengine.cli.output import note, say, show_json
from sendengine.cli.summary import as_json, summary_lines
from sendengine.errors import InputError


@click.command("report")
@click.argument("run", metavar="RUN")
@runs_dir_option
@json_option
def report_command(*, run: str, runs_dir: Path, is_json: bool) -> None:
    """Show the report of a finished run: its name, the start of its name, or its directory; "latest" is the last."""
    found = find_run(run, runs_dir)
    if not (found.path / REPORT).exists():
        raise InputError(f"{found.path}: has no {REPORT}; the run has not finished, or was killed")
    report = parse(found.read(REPORT))
    if (state := describe(found).state) in {"going on", "killed"}:
        note(f"sendengine: {found.run}: was resumed since, and {'was killed' if state == 'killed' else 'is going on'}")
    if is_json:
        show_json(as_json(report, folder=found.path))
        return
    for line in summary_lines(report, folder=found.path):
        say(line)


def find_run(name: str, runs_dir: Path) -> RunDir:
    """Find a run by its directory, its name, or the start of it; raises InputError."""
    if any(Path(name, file).exists() for file in (REPORT, MANIFEST)):
        return RunDir(Path(name))
    runs = find_runs(runs_dir)
    if name == "latest" and runs:
        return runs[-1]
    found = [run for run in runs if run.run == name] or [run for run in runs if run.run.startswith(name)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} runs begin with {name!r}" if found else f"there is no run {name!r}"
    known = ", ".join(run.run for run in (found or runs)[-5:])
    raise InputError(f"{runs_dir}: {what}; " + (f"the last are: {known}" if known else "it holds no runs"))
