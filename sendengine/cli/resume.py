"""``sendengine resume``: goes on with a run that was stopped or killed, as its manifest has it."""

import time
from pathlib import Path

import click

from sendengine.campaign import manifest as manifests
from sendengine.campaign.exits import FINISHED, Exit
from sendengine.campaign.inventory import find_run
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.report import DamagedReportError, parse
from sendengine.campaign.run import RunOptions
from sendengine.campaign.rundir import JOURNAL, REPORT, REQUESTS, RunDir
from sendengine.campaign.saved import check_age, saved_work, settings_for
from sendengine.cli.asking import can_ask
from sendengine.cli.beginning import claim, with_limits
from sendengine.cli.carrying import carry_out
from sendengine.cli.options import (
    config_option,
    json_option,
    max_error_rate_option,
    max_outage_option,
    overrides_of,
    rate_option,
    runs_dir_option,
    share_option,
    yes_option,
)
from sendengine.cli.output import note
from sendengine.cli.session import Session
from sendengine.cli.slower import slowed
from sendengine.errors import InputError
from sendengine.settings import Settings, load_settings


@click.command("resume")
@click.argument("run", metavar="RUN")
@config_option
@runs_dir_option
@click.option(
    "--accept-duplicates",
    is_flag=True,
    help="Go on although more than 29 days have passed, and some people may be reached twice.",
)
@share_option
@rate_option
@max_outage_option
@max_error_rate_option
@yes_option
@json_option
def resume_command(  # noqa: PLR0913 - the options of a command line
    *,
    run: str,
    config: Path,
    runs_dir: Path,
    accept_duplicates: bool,
    share: float | None,
    rate: float | None,
    max_outage_s: float | None,
    max_error_rate: float | None,
    is_sure: bool,
    is_json: bool,
) -> None:
    """Go on with a run that was stopped or killed.

    RUN is its name, the start of it, its directory, "latest", or the name of a campaign that only one run sends. It
    sends what the run was begun with, whatever the settings have become: what was accepted is not sent again, and what
    may have been is repeated under its old key. Refused where the input has changed since.
    """
    run_dir = find_run(run, runs_dir)
    settings = load_settings(config, overrides=overrides_of(max_outage_s))
    with run_dir.locked():
        manifest = manifests.load(run_dir)
        refuse_finished(run_dir)
        settings = slowed(settings_for(manifest, settings), apps=manifest.app_ids, share=share, rate=rate)
        check_age(manifest, now_s=time.time(), duplicates_are_accepted=accept_duplicates)
        session = session_of(run_dir, manifest, settings, max_error_rate=max_error_rate)
        claim(run_dir, manifest, settings)
        note(f"Run {run_dir.run}")
        note(f"{manifest.name}: going on with {manifest.total:,} {session.work.noun}, less what is done")
        if can_ask() and not is_sure and not click.confirm("Go on?", default=False, err=True):
            note("Nothing was sent.")
            raise click.exceptions.Exit(Exit.USAGE)
        code = carry_out(session, is_json=is_json)
    raise click.exceptions.Exit(code)


def refuse_finished(run_dir: RunDir) -> None:
    """Raise InputError where nothing is left to send. A report that is damaged says nothing, and is made anew."""
    if run_dir.has(REPORT):
        try:
            code = parse(run_dir.read(REPORT)).exit_code
        except DamagedReportError as error:
            aside = run_dir.set_aside(REPORT)
            note(f"warning: {run_dir.path}: {error}; it is kept as {aside.name}, and made anew")
            return
        if code in FINISHED:
            more = "" if code == Exit.OK else "; `sendengine retry` repeats what failed"
            raise InputError(f"{run_dir.run}: has finished, and nothing is left to send{more}")


def session_of(
    run_dir: RunDir, manifest: Manifest, settings: Settings, *, max_error_rate: float | None = None
) -> Session:
    """Make what goes on with a run; raises InputError where it cannot, and StorageError.

    Without ``max_error_rate`` it keeps to what the run was begun with; a retry repeats what failed, and may fail again.
    """
    if manifest.kind == "jobs" and manifest.durability == "memory":
        raise InputError(
            f'{run_dir.run}: kept no journal (durability = "memory"), so what it has sent is told by its '
            "requests.jsonl alone; send the jobs that are not there"
        )
    if manifest.durability != "memory" and not run_dir.has(JOURNAL):
        if manifest.kind == "jobs" and run_dir.has(REQUESTS):  # which is made later
            raise InputError(
                f"{run_dir.path / JOURNAL}: is gone, and with it which jobs have been sent; put it back, or send the "
                f"jobs that are not in {run_dir.path / REQUESTS}"
            )
        note("It had sent nothing yet.")
    ending = manifest.ending
    if max_error_rate is None and manifest.retry_of is None:
        max_error_rate = ending.max_error_rate
    options = RunOptions(max_error_rate=max_error_rate, fail_on_unreachable=ending.fail_on_unreachable)
    return Session(
        work=saved_work(run_dir, manifest),
        run_dir=run_dir,
        settings=settings,
        apps=set(manifest.app_ids),
        lanes=manifest.lanes,
        options=with_limits(options, settings, manifest),
        manifest=None if manifest.durability == "memory" else manifest,
    )
