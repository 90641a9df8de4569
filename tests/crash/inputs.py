"""What is sent: jobs and campaigns of which every effect can be told apart in the mock server's ledger.

Each recipient of a notification stands in one job, so that it is reached once or something is wrong. Each user update
sets a tag of its own beside one that all of its user's updates set; each delta is a purchase of its own.
"""

from pathlib import Path
from random import Random
from typing import TypeAlias

import orjson

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
CANARY = "os_v2_app_canary7f3a"
USERS = 12
SHARDS = 4
PACK = 10

Json: TypeAlias = str | int | list[str] | dict[str, "Json"] | list["Json"]
Line: TypeAlias = dict[str, Json]

SETTINGS = """\
state_dir = "{state_dir}"
[apps.shop]
app_id = "{app_id}"
api_key = "{key}"
plan = "paid"
base_url = "{base_url}"
subscribed_users = 10000000
[apps.shop.ceilings]
create_notification = {rate}
update_user = {rate}
[batching]
max_recipients_per_request = {pack}
max_modifications_per_request = 8
[retry]
lost_reply_wait_s = {wait_s}
max_outage_s = {max_outage_s}
[stopping]
drain_timeout_s = 60
[journal]
durability = "durable"
"""

CAMPAIGN = """\
[campaign]
name = "{name}"
app = "shop"
{kind}
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
{more}
"""


def write_settings(
    folder: Path,
    base_url: str,
    *,
    state_dir: str = "state",
    rate: int = 150,
    pack: int = PACK,
    wait_s: float = 0.3,
    max_outage_s: float = 40,
) -> None:
    text = SETTINGS.format(
        state_dir=state_dir,
        app_id=APP_ID,
        key=CANARY,
        base_url=base_url,
        rate=rate,
        pack=pack,
        wait_s=wait_s,
        max_outage_s=max_outage_s,
    )
    (folder / "sendengine.toml").write_text(text)


def job_lines(chance: Random, count: int, *, apart: int = 0) -> list[Line]:
    """Make jobs of every kind; ids that begin with ``bad`` are those that the mock server takes for poison.

    With ``apart``, each so many jobs have users of their own.
    """
    return [_job(chance, number, first_user=number // apart * USERS if apart else 0) for number in range(count)]


def _job(chance: Random, number: int, *, first_user: int) -> Line:  # noqa: PLR0911 - a kind of job each
    user = f"user{first_user + chance.randrange(USERS)}"
    match chance.randrange(10):
        case 0 | 1 | 2:
            return _update(user, number)
        case 3 | 4:
            purchase: Json = {"sku": f"s{number}", "amount": "1.00", "iso": "EUR"}
            return {**_update(user, number), "deltas": {"purchases": [purchase]}}
        case 5:
            return {**_note(chance, number, size=1), "idempotency_key": f"order {number}"}
        case 6:
            return {**_note(chance, number, size=1), "urgency": "high"}
        case 7:
            line = _note(chance, number, size=7)
            return {**line, "to": {"external_id": [*recipients_of(line), f"bad{number}"]}}
        case 8:
            return _note(chance, number, size=23)
        case _:
            return _note(chance, number, size=1)


def _update(user: str, number: int) -> Line:
    return {
        "kind": "update_user",
        "user": {"external_id": user},
        "tags": {"level": str(number), f"j{number}": "1"},
    }


def _note(chance: Random, number: int, *, size: int) -> Line:
    return {
        "kind": "create_notification",
        "message": {"contents": {"en": f"text {chance.randrange(2)}"}},
        "channel": "push",
        "to": {"external_id": [f"r{number}-{place}" for place in range(size)]},
    }


def write_jobs(folder: Path, lines: list[Line]) -> None:
    (folder / "jobs.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


def recipients_of(line: Line) -> list[str]:
    """The recipients of a notification's line, the poison among them."""
    target = line["to"]
    assert isinstance(target, dict)
    ids = target["external_id"]
    assert isinstance(ids, list)
    return [str(item) for item in ids]


def user_of(line: Line) -> str:
    target = line["user"]
    assert isinstance(target, dict)
    return str(target["external_id"])


def is_update(line: Line) -> bool:
    return line["kind"] == "update_user"


def poison(count: int) -> frozenset[str]:
    return frozenset(f"bad{number}" for number in range(count))


def write_campaign(folder: Path, rows: int, *, bad: int = 0, is_personal: bool = False) -> None:
    """A message for ``rows`` recipients, of whom ``bad`` are poison, or a message for each of them."""
    ids = [f"r{row}" for row in range(rows)]
    for number in range(bad):
        ids[number * rows // bad] = f"bad{number}"
    (folder / "recipients.csv").write_text("".join(f"{item}\n" for item in ["external_id", *ids]))
    kind = 'channel = "push"\nmessage.' + ('template_id = "x"' if is_personal else 'contents.en = "24 hours only"')
    more = '[campaign.custom_data]\nwho = "external_id"' if is_personal else ""
    (folder / "campaign.toml").write_text(CAMPAIGN.format(name="spring", kind=kind, more=more))


def write_changes(folder: Path, rows: int, *, users: int) -> None:
    """A campaign of user changes, several rows for each user."""
    lines = [f"user{row % users},{row}\n" for row in range(rows)]
    (folder / "recipients.csv").write_text("external_id,level\n" + "".join(lines))
    kind, more = 'kind = "update_user"', '[campaign.tags]\nlevel = "level"'
    (folder / "campaign.toml").write_text(CAMPAIGN.format(name="levels", kind=kind, more=more))
