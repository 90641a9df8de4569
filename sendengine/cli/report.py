"""``sendengine report``: shows what came of a run that has finished."""

from pathlib import Path

import click

from sendengine.campaign import manifest as manifests
from sendengine.campaign.inventory import describe
from sendengine.campaign.report import DamagedReportError, parse
from sendengine.campaign.rundir import MANIFEST, REPORT, RunDir, find_runs
from sendengine.cli.carrying import command_line, resume_line
from sendengine.cli.options import json_option, runs_dir_option
from sendengine.cli.output import note, say, show_json
from sendengine.cli.summary import as_json, summary_lines
from sendengine.errors import InputError, StorageError


@click.command("report")
@click.argument("run", metavar="RUN")
@runs_dir_option
@json_option
def report_command(*, run: str, runs_dir: Path, is_json: bool) -> None:
    """Show the report of a run that has finished or was stopped.

    RUN is its name, the start of it, its directory, "latest", or the name of a campaign that only one run sends.
    """
    found = find_run(run, runs_dir)
    if not found.has(REPORT):
        raise InputError(_without_report(found))
    try:
        report = parse(found.read(REPORT))
    except DamagedReportError as error:
        raise StorageError(f"{found.path}: {error}; to have it made anew: {resume_line(found)}") from None
    if (state := describe(found).state) in {"going on", "killed"}:
        how = f"was killed; to go on with it: {resume_line(found)}" if state == "killed" else "is going on"
        note(f"sendengine: {found.run}: was resumed since, and {how}")
    if is_json:
        show_json(as_json(report, folder=found.path))
        return
    for line in summary_lines(report, folder=found.path):
        say(line)


def _without_report(found: RunDir) -> str:
    """Say why a run has no report, and what is to be done about it."""
    info = describe(found)
    if info.state == "going on":
        return f"{found.path}: has no {REPORT} yet: it is going on; {command_line('status', found)} shows how far it is"
    more = f"; to go on with it: {resume_line(found)}" if info.is_resumable else ""
    return f"{found.path}: has no {REPORT}; the run has not finished, or was killed{more}"


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


def _sends(run: RunDir) -> str | None:
    """The name of the campaign, or of the jobs, that a run sends; None where it does not say."""
    try:
        return manifests.load(run).name if run.has(MANIFEST) else None
    except (InputError, StorageError):
        return None
