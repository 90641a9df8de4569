"""``sendengine report``: shows what came of a run that has finished."""

from pathlib import Path

import click

from sendengine.campaign.inventory import describe, find_run
from sendengine.campaign.report import DamagedReportError, parse
from sendengine.campaign.rundir import REPORT, RunDir
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
