"""``sendengine validate``: reads an input as `send` would, and says what is in it and what is wrong with it."""

from pathlib import Path

import click

from sendengine.campaign.exits import Exit
from sendengine.campaign.jobsfile import Audience, AudienceSize
from sendengine.campaign.work import CampaignInput, LoadedInput
from sendengine.cli.options import config_option, json_option
from sendengine.cli.output import counted, note, say, show_faults, show_json
from sendengine.cli.reading import read_for_a_look
from sendengine.settings import load_settings


@click.command("validate")
@click.argument("source", metavar="INPUT")
@config_option
@json_option
def validate_command(*, source: str, config: Path, is_json: bool) -> None:
    """Check an input, and count what is in it; nothing is sent.

    INPUT is a campaign (.toml), a file of jobs (.jsonl, .jsonl.gz), or - for jobs on standard input. Exits 2 where a
    row cannot be sent.
    """
    loaded = read_for_a_look(source, load_settings(config))
    if is_json:
        show_json(described(loaded))
    else:
        for line in lines_of(loaded):
            say(line)
        show_faults([str(fault) for fault in loaded.survey.faults], total=loaded.survey.invalid)
    if loaded.survey.invalid:
        raise click.exceptions.Exit(Exit.USAGE)


def lines_of(loaded: LoadedInput) -> list[str]:
    """Describe an input for a person."""
    survey = loaded.survey
    lines = [f"{loaded.name}: {counted(survey.to_send, loaded.noun.removesuffix('s'))} to send of {survey.rows:,} rows"]
    left_out = _left_out(loaded)
    if any(left_out.values()):
        listed = ", ".join(f"{count:,} {name}" for name, count in left_out.items() if count)
        lines.append(f"  left out: {listed}{_why_excluded(loaded)}")
    lines += [f"  {_audience(audience, size)}" for audience, size in loaded.audiences.items()]
    for warning in survey.warnings:
        note(f"warning: {warning}")
    return lines


def described(loaded: LoadedInput) -> dict[str, object]:
    """Describe an input for a program."""
    survey = loaded.survey
    return {
        "name": loaded.name,
        "counts": loaded.noun,
        "rows": survey.rows,
        "to_send": survey.to_send,
        "left_out": _left_out(loaded),
        "audiences": [
            {
                "app": audience.app,
                "kind": audience.kind,
                "channel": audience.channel,
                "jobs": size.jobs,
                "recipients": size.recipients,
                "uncounted": size.uncounted,
            }
            for audience, size in loaded.audiences.items()
        ],
        "faults": [{"line": each.line, "field": each.field, "reason": each.reason} for each in survey.faults],
        "warnings": list(survey.warnings),
    }


def _left_out(loaded: LoadedInput) -> dict[str, int]:
    if not isinstance(loaded, CampaignInput):
        return {"invalid": loaded.survey.invalid}
    survey = loaded.survey
    return {"invalid": survey.invalid, "duplicates": survey.duplicates, "excluded": survey.excluded}


def _why_excluded(loaded: LoadedInput) -> str:
    """Say why rows are excluded that no list of the campaign's own excludes; they are named last."""
    if not isinstance(loaded, CampaignInput):
        return ""
    reasons = {"that cannot be reached": loaded.survey.unusable, "without a value to set": loaded.survey.unchanged}
    told = [f"{count:,} {reason}" for reason, count in reasons.items() if count]
    return f" ({', '.join(told)})" if told else ""


def _audience(audience: Audience, size: AudienceSize) -> str:
    if audience.kind == "update_user":
        return f"{audience.app}, user updates: {counted(size.jobs, 'user')}"
    unknown = f", and {counted(size.uncounted, 'job')} to as many as OneSignal finds" if size.uncounted else ""
    return f"{audience.app}, {audience.channel or 'any channel'}: {counted(size.recipients, 'recipient')}{unknown}"
