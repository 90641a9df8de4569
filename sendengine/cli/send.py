"""``sendengine send``: shows what an input is going to do, asks, sends it, and reports."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
from msgspec.structs import replace

from sendengine.campaign.errorbudget import DEFAULT_RATE
from sendengine.campaign.exits import Exit
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.recorder import write_invalid
from sendengine.campaign.run import RunOptions
from sendengine.campaign.rundir import RunDir
from sendengine.cli import overview
from sendengine.cli.asking import Expectation, can_ask, confirm
from sendengine.cli.beginning import Beginning, ending_of, with_limits
from sendengine.cli.carrying import carry_out
from sendengine.cli.forecast import reached
from sendengine.cli.options import (
    config_option,
    json_option,
    max_error_rate_option,
    max_outage_option,
    rate_option,
    runs_dir_option,
    share_of,
    share_option,
    yes_option,
)
from sendengine.cli.output import note, say, show_json
from sendengine.cli.preparing import Choices, RunPlace, prepare
from sendengine.cli.rendering import render, text_of
from sendengine.cli.session import Session
from sendengine.errors import InputError, SettingsError, StorageError

_SAMPLES: Final = 3


@click.command("send")
@click.argument("source", metavar="INPUT")
@config_option
@runs_dir_option
@click.option("--name", help="What a jobs file is called in its report.  [default: the file's name]")
@click.option("--dry-run", "is_dry", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--expect", type=click.IntRange(0), metavar="N", help="Stop unless there are N recipients (or jobs).")
@click.option("--within", type=share_of, metavar="PART", help="By how much --expect may be missed: 2%.")
@click.option("--test", metavar="ID,ID", help="Send the campaign to these recipients alone, under keys of their own.")
@click.option("--edition", type=click.IntRange(1), default=1, show_default=True, help="2 sends the same once more.")
@share_option
@rate_option
@max_outage_option
@click.option("--skip-invalid", is_flag=True, help="Leave rows out that cannot be sent, instead of sending nothing.")
@max_error_rate_option
@click.option("--fail-on", type=click.Choice(["unreachable"]), help="Exit 3 also where recipients are unreachable.")
@yes_option
@json_option
def send_command(  # noqa: PLR0913 - the options of a command line
    *,
    source: str,
    config: Path,
    runs_dir: Path,
    name: str | None,
    is_dry: bool,
    expect: int | None,
    within: float | None,
    test: str | None,
    edition: int,
    share: float | None,
    rate: float | None,
    max_outage_s: float | None,
    skip_invalid: bool,
    max_error_rate: float | None,
    fail_on: str | None,
    is_sure: bool,
    is_json: bool,
) -> None:
    """Send an input, and leave a report.

    INPUT is a campaign (.toml), a file of jobs (.jsonl, .jsonl.gz), or - for jobs on standard input. On a terminal it
    shows what it is going to do, and asks. Ctrl-C lets what is on the wire finish and exits 75; a second one gives it
    up and exits 130; `sendengine resume` goes on with either. A campaign, or a jobs file of the same content, that was
    begun before is refused.
    """
    choices = Choices(
        source=source,
        config=config,
        name=name,
        test=() if test is None else _ids(test),
        edition=edition,
        expectation=_expectation(expect, within),
        share=share,
        rate=rate,
        max_outage_s=max_outage_s,
        skip_invalid=skip_invalid,
    )
    if is_dry:
        _look(choices, is_json=is_json)
        return
    options = RunOptions(max_error_rate=max_error_rate, fail_on_unreachable=fail_on is not None)
    place = RunPlace(runs_dir)
    code = _send(choices, place, options, is_sure=is_sure, is_json=is_json)
    raise click.exceptions.Exit(code)


def _ids(test: str) -> Sequence[str]:
    """Read the recipients of a test: a variable of a shell that is empty must not send to everybody."""
    ids = tuple(part.strip() for part in test.split(",") if part.strip())
    if not ids:
        raise click.UsageError("--test: names nobody; give ids with commas between, or leave it out to send to all")
    return ids


def _expectation(expect: int | None, within: float | None) -> Expectation | None:
    if expect is None:
        if within is not None:
            raise click.UsageError("--within: needs --expect, since it says by how much that may be missed")
        return None
    return Expectation(expect, within or 0.0)


def _look(choices: Choices, *, is_json: bool) -> None:
    """Show what would be sent, and the first requests of it."""
    with TemporaryDirectory(prefix="sendengine-") as folder:
        shown = prepare(choices, RunPlace(Path(folder)), is_exact=True, is_asked=True)
        apps = shown.settings.apps
        samples = [
            render(item.job, app_id=apps[item.job.app or next(iter(apps))].app_id)
            for item in islice(shown.work.items(), _SAMPLES)
        ]
    if is_json:
        show_json({**overview.as_json(shown), "samples": samples})
        return
    for line in [*overview.lines(shown), *(f"\n{text_of(sample)}" for sample in samples)]:
        say(line)
    say("\nA dry run: nothing was sent.")


def _send(choices: Choices, place: RunPlace, options: RunOptions, *, is_sure: bool, is_json: bool) -> int:
    """Send, and return the exit code; a run's directory stays only where something was begun."""
    beginning = None
    try:
        shown = prepare(choices, place, is_exact=False, is_asked=can_ask())
        if not choices.test and shown.work.total:  # nothing to send begins nothing: the file may be empty by mistake
            beginning = Beginning(shown, edition=choices.edition)
            beginning.check()
        loaded = shown.loaded
        if options.max_error_rate is None and shown.work.is_campaign:
            options = replace(options, max_error_rate=DEFAULT_RATE)
        run_dir = place.get(loaded.name)
        note(f"Run {run_dir.run}")
        for line in overview.lines(shown):
            note(line)
        if not confirm(name=loaded.name, recipients=reached(loaded, shown.work), is_sure=is_sure):
            note("Nothing was sent.")
            place.drop()
            return Exit.USAGE
        if loaded.survey.invalid:
            write_invalid(run_dir, loaded.survey.faults)
    except BaseException:
        place.drop()
        raise
    with place.held():
        try:
            manifest = None if beginning is None else _entered(beginning, place, run_dir, options)
            return carry_out(_session(shown, run_dir, options, manifest), is_json=is_json)
        except (SettingsError, InputError):  # nothing was sent
            if beginning is not None:
                beginning.undo()
            place.drop()
            raise


def _entered(beginning: Beginning, place: RunPlace, run_dir: RunDir, options: RunOptions) -> Manifest:
    """Enter the beginning; where the disk refuses that, nothing is left of a run that sent nothing."""
    try:
        return beginning.enter(run_dir, ending_of(options))
    except StorageError:
        if not beginning.is_known:
            place.drop()
        raise


def _session(shown: overview.Overview, run_dir: RunDir, options: RunOptions, manifest: Manifest | None) -> Session:
    loaded, settings = shown.loaded, shown.settings
    return Session(
        work=shown.work,
        run_dir=run_dir,
        settings=settings,
        apps={audience.app for audience in loaded.audiences},
        lanes=shown.forecast.requests,
        options=with_limits(options, settings, manifest),
        manifest=manifest if manifest is not None and manifest.durability != "memory" else None,
    )
