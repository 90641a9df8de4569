"""``sendengine status``, ``pause``, ``continue`` and ``rate``: see and steer a run from another terminal.

They read and write small files in the run's directory, and never its journal.

Units: ``_s`` is seconds; rates are requests a second.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from msgspec import to_builtins

from sendengine.campaign.control import give_order
from sendengine.campaign.exits import CUT_SHORT, Exit
from sendengine.campaign.inventory import describe, find_run
from sendengine.campaign.rundir import STATUS, RunDir
from sendengine.campaign.status import LaneStatus, Status, read_status
from sendengine.cli.carrying import resume_line
from sendengine.cli.options import json_option, requests_per_s, runs_dir_option
from sendengine.cli.output import ceiling, duration, note, say, show_json, show_json_line
from sendengine.errors import InputError

_WATCH_S: Final = 1.0
_ANSWER_S: Final = 5.0
_LOOK_S: Final = 0.1


@click.command("status")
@click.argument("run", metavar="[RUN]", default="latest")
@runs_dir_option
@click.option("--watch", "is_watching", is_flag=True, help="Show it every second, until the run ends.")
@json_option
def status_command(*, run: str, runs_dir: Path, is_watching: bool, is_json: bool) -> None:
    """Show how far a run is, the latest where none is named."""
    run_dir = find_run(run, runs_dir)
    for status, is_going_on in _looks(run_dir, is_watching=is_watching):
        if is_json:
            show = show_json_line if is_watching else show_json
            show({**to_builtins(status), "is_going_on": is_going_on})
        else:
            for line in status_lines(status, run_dir, is_going_on=is_going_on):
                say(line)


@click.command("pause")
@click.argument("run", metavar="RUN")
@runs_dir_option
def pause_command(*, run: str, runs_dir: Path) -> None:
    """Let a run put nothing new on the wire until it is continued."""
    _ask(find_run(run, runs_dir), "paused", is_paused=True)


@click.command("continue")
@click.argument("run", metavar="RUN")
@runs_dir_option
def continue_command(*, run: str, runs_dir: Path) -> None:
    """Let a paused run go on."""
    _ask(find_run(run, runs_dir), "going on", is_paused=False)


@click.command("rate")
@click.argument("run", metavar="RUN")
@click.argument("rate", metavar="N", type=requests_per_s)
@runs_dir_option
def rate_command(*, run: str, rate: float, runs_dir: Path) -> None:
    """Let a run send at most N requests/s in each lane.

    Never above the settings, nor above the run's own --rate and --share. A run that is resumed starts as these say.
    """
    _ask(find_run(run, runs_dir), f"sending at most {rate:,g} requests/s in each lane", rate=rate)


def status_lines(status: Status, run_dir: RunDir, *, is_going_on: bool) -> Iterator[str]:
    """Describe a status for a person."""
    percent = f" ({100 * status.done / status.total:.0f} %)" if status.total else ""
    state = status.state if is_going_on or status.exit_code is not None else "killed"
    ago = "" if not is_going_on else f", {duration(max(0.0, time.time() - status.updated_at_s))} ago"
    yield f"{status.run}: {state}{ago}"
    yield f"  {status.name}: {status.done:,} of {status.total:,} {status.noun}{percent}"
    others = {name: count for name, count in to_builtins(status.counts).items() if count}
    if others:
        yield "  " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in others.items())
    if is_going_on:
        yield from (f"  {name}: {_lane(lane)}" for name, lane in status.lanes.items())
    if status.rate is not None and is_going_on:
        yield f"  at most {status.rate:,g} requests/s in each lane"
    if status.problem is not None:
        yield f"  {status.problem}"
    if status.why:
        yield f"  {status.why}"
    if not is_going_on and (status.exit_code is None or status.exit_code in CUT_SHORT):
        yield f"  go on: {resume_line(run_dir)}"


def _lane(lane: LaneStatus) -> str:
    held = "" if lane.hold is None else f", held: {lane.hold}"
    return (
        f"{lane.requests:,} requests, ceiling {ceiling(lane.ceiling)}/s, {lane.in_flight:,} in flight, "
        f"{lane.waiting:,} waiting, p50 {lane.p50_ms:,.0f} ms, p99 {lane.p99_ms:,.0f} ms, {lane.throttled:,} 429s{held}"
    )


def _looks(run_dir: RunDir, *, is_watching: bool) -> Iterator[tuple[Status, bool]]:
    while True:
        is_going_on = run_dir.is_going_on  # asked first: what it wrote last is read then
        yield read_status(run_dir), is_going_on
        if not (is_watching and is_going_on):
            return
        time.sleep(_WATCH_S)


def _ask(run_dir: RunDir, answer: str, **wanted: object) -> None:
    """Give a run an order, and wait for it to obey."""
    if not run_dir.is_going_on:
        more = f"; to go on with it: {resume_line(run_dir)}" if describe(run_dir).is_resumable else ""
        raise InputError(f"{run_dir.run}: is not going on, so nothing was changed{more}")
    order = give_order(run_dir, **wanted)
    until_s = time.monotonic() + _ANSWER_S
    while time.monotonic() < until_s:
        if run_dir.has(STATUS) and read_status(run_dir).order >= order.number:
            say(f"{run_dir.run}: {answer}")
            return
        if not run_dir.is_going_on:
            raise InputError(f"{run_dir.run}: has just ended")
        time.sleep(_LOOK_S)
    note(f"{run_dir.run}: is alive and was asked, and has not answered within {_ANSWER_S:.0f} s")
    raise click.exceptions.Exit(Exit.INTERNAL)
