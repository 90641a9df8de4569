"""``sendengine retry``: repeats what a run did not get accepted, as a new run that points to the old one."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from sendengine.campaign import manifest as manifests
from sendengine.campaign.begun import RETRIES, Begun, Registry, retry_identity
from sendengine.campaign.exits import Exit
from sendengine.campaign.inventory import describe, find_run
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.retrying import RETRIED, Retry, plan_retry
from sendengine.campaign.retryrun import fill_journal, kept_of, save_manifest, write_jobs
from sendengine.campaign.rundir import JOURNAL, MANIFEST, RunDir
from sendengine.campaign.saved import check_age, settings_for
from sendengine.cli.asking import confirm
from sendengine.cli.beginning import durability_of
from sendengine.cli.carrying import carry_out, command_line, resume_line
from sendengine.cli.loop import run as run_async
from sendengine.cli.options import (
    config_option,
    json_option,
    max_outage_option,
    overrides_of,
    rate_option,
    runs_dir_option,
    share_option,
    yes_option,
)
from sendengine.cli.output import counted, note
from sendengine.cli.resume import session_of
from sendengine.cli.slower import slowed
from sendengine.core.jobs import Job
from sendengine.errors import InputError
from sendengine.settings import Settings, load_settings


@click.command("retry")
@click.argument("run", metavar="RUN")
@config_option
@runs_dir_option
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="TEXT",
    help="Only failures of this outcome (gave_up, rejected, …), or with this in their reason; may be given again.",
)
@click.option("--repeat-deltas", is_flag=True, help="Repeat deltas that may have been counted already.")
@click.option("--accept-duplicates", is_flag=True, help="Repeat although more than 29 days have passed.")
@share_option
@rate_option
@max_outage_option
@yes_option
@json_option
def retry_command(  # noqa: PLR0913 - the options of a command line
    *,
    run: str,
    config: Path,
    runs_dir: Path,
    reasons: tuple[str, ...],
    repeat_deltas: bool,
    accept_duplicates: bool,
    share: float | None,
    rate: float | None,
    max_outage_s: float | None,
    is_sure: bool,
    is_json: bool,
) -> None:
    """Repeat what failed in a run, as a run of its own.

    RUN is its name, the start of it, its directory, "latest", or the name of a campaign that only one run sends. What
    may have been sent goes again whole, under its old key; what certainly was not, as new jobs. It is a run of its own,
    which counts jobs.
    """
    old = find_run(run, runs_dir)
    settings = load_settings(config, overrides=overrides_of(max_outage_s))
    with old.locked():
        before = manifests.load(old)
        settings = slowed(settings_for(before, settings), apps=before.app_ids, share=share, rate=rate)
        check_age(before, now_s=time.time(), duplicates_are_accepted=accept_duplicates)
        _refuse_unfinished(old, before)
        earlier = _retries_of(old)
        kept = run_async(lambda: kept_of(old, before))
        retried = {line for begun in earlier for line in begun.lines}
        retry = plan_retry(old, before, kept, retried=retried, reasons=reasons, repeat_deltas=repeat_deltas)
        if not retry.count and RETRIED in retry.left:
            raise InputError(_retried_before(old, earlier[-1]))
        _show(retry, before)
        if not retry.count:
            raise click.exceptions.Exit(Exit.OK)
        if not confirm(name=before.name, recipients=retry.recipients, is_sure=is_sure):
            note("Nothing was sent.")
            raise click.exceptions.Exit(Exit.USAGE)
        new, manifest = _begin(old, before, retry, settings, is_young=accept_duplicates)
    note(f"Run {new.run}")
    with new.locked():
        code = carry_out(session_of(new, manifest, settings), is_json=is_json)
    raise click.exceptions.Exit(code)


def _begin(
    old: RunDir, before: Manifest, retry: Retry, settings: Settings, *, is_young: bool
) -> tuple[RunDir, Manifest]:
    """Make the new run, and take note of it in the old one's directory, whatever the state directory is.

    The manifest comes after the note: without it nothing can be resumed, and the note of such a run counts for nothing,
    also when its directory has been thrown away.
    """
    level = durability_of(settings)
    durability: Literal["durable", "relaxed"] = "relaxed" if level == "relaxed" else "durable"
    now = datetime.now(UTC)
    new = RunDir.make(old.path.parent, name=f"{before.name}-retry", now=now)
    write_jobs(new, retry)
    run_async(
        lambda: fill_journal(
            new, retry, app_of=lambda job: _app_of(job, before), durability=durability, is_young=is_young
        )
    )
    identity = retry_identity(run=new.run)
    begun = Begun(new.run, str(new.path.absolute()), before.name, now.timestamp(), retry.lines, is_made=False)
    registry = Registry(old.path, folder=RETRIES)
    registry.enter(identity, begun)
    manifest = save_manifest(new, before, retry, begun_at_s=now.timestamp(), durability=durability, identity=identity)
    registry.confirm(identity, begun)
    return new, manifest


def _refuse_unfinished(old: RunDir, before: Manifest) -> None:
    """Raise InputError where resuming a run would send its failures again, beside their retry."""
    if before.kind == "campaign" and not old.has(JOURNAL) and describe(old).state != "finished":
        raise InputError(
            f"{old.run}: has not finished, and kept no journal that tells what failed for good; finish it first: "
            f"{resume_line(old)}"
        )


def _retries_of(old: RunDir) -> Sequence[Begun]:
    """Return the retries of a run, the latest last, without those that died before they had a manifest."""
    return [begun for begun in Registry(old.path, folder=RETRIES).everything() if _was_made(old, begun)]


def _was_made(old: RunDir, begun: Begun) -> bool:
    return begun.is_made or RunDir(old.path.parent / begun.run).has(MANIFEST)


def _retried_before(old: RunDir, last: Begun) -> str:
    """Say where the same failures were repeated: what failed then has failed in that run."""
    again = RunDir(old.path.parent / last.run)
    return (
        f"{old.run}: was retried before, as run {last.run}; to go on with that: {resume_line(again)}; "
        f"to repeat what failed in it: {command_line('retry', again)}"
    )


def _app_of(job: Job, before: Manifest) -> str:
    return job.app or next(iter(before.app_ids))


def _show(retry: Retry, before: Manifest) -> None:
    replayed = sum(len(replay.jobs) for replay in retry.replays)
    note(f"{before.name}: {counted(len(retry.new), 'job')} to send anew, under new keys")
    if replayed:
        requests = counted(len(retry.replays), "request")
        note(f"  {counted(replayed, 'job')} in {requests} that may have been sent, again under the old keys")
    for why, count in retry.left.items():
        note(f"  left out: {counted(count, 'failure')}: {why}")
