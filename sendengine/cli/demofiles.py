"""The files that `sendengine demo` sends: a campaign with data of each recipient's own, and mixed jobs."""

from pathlib import Path
from typing import Final

import orjson

_TEMPLATE_ID: Final = "7e3b1a52-0000-4000-8000-000000000001"
_CAMPAIGN: Final = f"""\
[campaign]
name = "demo-campaign"
channel = "push"
message.template_id = "{_TEMPLATE_ID}"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
[campaign.custom_data]  # data of its own makes each row a request of its own
first_name = "first_name"
"""
_NAMES: Final = ("Ada", "Bo", "Chidi", "Dana", "Edda", "Femi", "Gül", "Håkon")


def write_campaign(folder: Path, *, count: int) -> Path:
    """Write a campaign of ``count`` recipients, a request each, and return its path."""
    rows = (f"user-{number},{_NAMES[number % len(_NAMES)]}\n" for number in range(count))
    (folder / "recipients.csv").write_text("external_id,first_name\n" + "".join(rows), encoding="utf-8")
    path = folder / "demo-campaign.toml"
    path.write_text(_CAMPAIGN, encoding="utf-8")
    return path


def write_jobs(folder: Path, *, count: int) -> Path:
    """Write ``count`` jobs, in turn a notification and a user update, and return their path."""
    path = folder / "demo-jobs.jsonl"
    with path.open("wb") as file:
        for number in range(count):
            job = _update(number) if number % 2 else _notification(number)
            file.write(orjson.dumps(job, option=orjson.OPT_APPEND_NEWLINE))
    return path


def _notification(number: int) -> dict[str, object]:
    """A message that nobody else gets, so that it shares no request."""
    return {
        "kind": "create_notification",
        "message": {"contents": {"en": f"Your order {number} has shipped"}},
        "to": {"external_id": [f"user-{number}"]},
        "channel": "push",
    }


def _update(number: int) -> dict[str, object]:
    return {"kind": "update_user", "user": {"external_id": f"user-{number}"}, "tags": {"level": number % 10}}
