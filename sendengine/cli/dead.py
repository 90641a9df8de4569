"""``sendengine dead``: the jobs that embedded engines gave up, in the journals of the state directory."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson

from sendengine.campaign.deadletters import Slot, open_slot, requeue
from sendengine.cli.loop import run
from sendengine.cli.options import config_option, json_option
from sendengine.cli.output import counted, note, say, show_json
from sendengine.core.joblines import job_fields
from sendengine.core.outcomes import OUTCOME_NAMES, Accepted, is_chosen, may_have_been_sent, reason_of
from sendengine.journal.letters import DeadLetter
from sendengine.journal.slots import slot_paths
from sendengine.settings import JournalSettings, Settings, load_settings

reason_option = click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="TEXT",
    help="Only those of this outcome (gave_up, rejected, …), or that say this; may be given again.",
)


@click.group("dead")
def dead_group() -> None:
    """List, export and put back jobs that engines gave up.

    A journal that a live engine holds is left alone.
    """


@dead_group.command("list")
@config_option
@reason_option
@json_option
def list_command(*, config: Path, reasons: tuple[str, ...], is_json: bool) -> None:
    """List them, the oldest first."""
    lines = run(lambda: _lines(load_settings(config), reasons))
    if is_json:
        show_json(lines)
        return
    for line in lines:
        maybe = ", may have been sent" if line["maybe_sent"] else ""
        say(f"{line['at']}  {line['journal']}  {line['id']}  {line['outcome']}{maybe}: {line['reason']}")
    note(counted(len(lines), "dead letter"))


@dead_group.command("export")
@config_option
@reason_option
def export_command(*, config: Path, reasons: tuple[str, ...]) -> None:
    """Write them as lines of JSON.

    `sendengine send` takes those that were certainly not sent.
    """
    for line in run(lambda: _lines(load_settings(config), reasons)):
        say(orjson.dumps(line))


@dead_group.command("requeue")
@config_option
@reason_option
@click.option("--repeat-deltas", is_flag=True, help="Repeat deltas that may have been counted already.")
def requeue_command(*, config: Path, reasons: tuple[str, ...], repeat_deltas: bool) -> None:
    """Put them back, for the next engine to send.

    That is the next one with this state directory. What may have been sent goes again whole, under its old key.
    """
    back = run(lambda: _requeue_all(load_settings(config), reasons, repeat_deltas=repeat_deltas))
    if back:
        say(f"{counted(back, 'job')} put back; the next engine of this state directory sends them")
    else:
        say("nothing was put back")


async def _lines(settings: Settings, reasons: Sequence[str]) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for path in slot_paths(settings.state_dir):
        async with open_slot(path, _journal_of(settings)) as slot:
            lines += [_line(slot, letter) for letter in await _letters(slot, reasons)]
    return lines


async def _requeue_all(settings: Settings, reasons: Sequence[str], *, repeat_deltas: bool) -> int:
    back = 0
    for path in slot_paths(settings.state_dir):
        async with open_slot(path, _journal_of(settings)) as slot:
            chosen = await _letters(slot, reasons)
            if not chosen:
                continue
            done = await requeue(slot, chosen, repeat_deltas=repeat_deltas)
            back += done.back
            if done.left:
                note(
                    f"{path.name}: {counted(done.left, 'job')} left: deltas may have been counted; see --repeat-deltas"
                )
            if done.lost:
                note(
                    f"{path.name}: {counted(done.lost, 'job')} left: may have been sent, and the request is not kept "
                    "any more, or is so old that OneSignal may have forgotten its key; see `sendengine dead export`"
                )
    return back


async def _letters(slot: Slot, reasons: Sequence[str]) -> Sequence[DeadLetter]:
    if slot.outbox is None:
        note(f"{slot.path}: is held by a live engine, and is left alone")
        return ()
    letters = await slot.outbox.dead_letters()
    return [
        letter
        for letter in letters
        if is_chosen(reasons, outcome=OUTCOME_NAMES[type(letter.outcome)], reason=reason_of(letter.outcome))
    ]


def _line(slot: Slot, letter: DeadLetter) -> dict[str, object]:
    outcome = letter.outcome
    missed = () if isinstance(outcome, Accepted) else outcome.not_sent
    return {
        "at": datetime.fromtimestamp(letter.at_s, UTC).isoformat(timespec="seconds"),
        "journal": slot.path.name,
        "id": letter.name,
        "job": job_fields(letter.entry.job, only=missed or None),
        "outcome": OUTCOME_NAMES[type(outcome)],
        "reason": reason_of(outcome),
        "maybe_sent": may_have_been_sent(outcome),
        "key": letter.entry.key,
    }


def _journal_of(settings: Settings) -> JournalSettings:
    return settings.journal or JournalSettings()
