"""What the tests of sending from the command line have in common: a campaign, its settings, and the mock server's view.

``sending_mock`` and ``sending_folder`` (conftest) are the server and the folder that they are sent in.
"""

from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

import orjson
from click.testing import CliRunner, Result

from sendengine.cli.commands import cli

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
CANARY = "os_v2_app_canary7f3a"
CAMPAIGN = """\
[campaign]
name = "black-friday"
app = "shop"
channel = "push"
message.contents.en = "24 hours only"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
"""
PERSONAL = CAMPAIGN.replace("message.contents.en", 'message.template_id = "x"\nmessage.name').replace(
    "[campaign.recipients]", '[campaign.custom_data]\nfirst_name = "external_id"\n[campaign.recipients]'
)


def admin(base_url: str, path: str, *, method: str = "GET", body: object = None) -> dict[str, Any]:
    data = None if body is None else orjson.dumps(body)
    request = Request(f"{base_url}/__mock__/{path}", method=method, data=data)  # noqa: S310 - loopback
    with urlopen(request, timeout=20) as reply:  # noqa: S310 - loopback
        return cast("dict[str, Any]", orjson.loads(reply.read()))


def behave(base_url: str, **switches: object) -> None:
    """Let a mock server begin anew with these settings, and otherwise the defaults."""
    defaults = dict.fromkeys(admin(base_url, "config"))
    for patch in (defaults, switches):  # one after the other: a patch of a table goes into the table that is there
        admin(base_url, "config", method="POST", body=patch)
    admin(base_url, "reset", method="POST")


def write_settings(base_url: str) -> None:
    Path("sendengine.toml").write_text(
        f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "$SHOP_KEY"\nplan = "paid"\nbase_url = "{base_url}"\n'
    )


def campaign(*ids: str, text: str = CAMPAIGN) -> None:
    Path("campaign.toml").write_text(text)
    Path("recipients.csv").write_text("external_id\n" + "".join(f"{item}\n" for item in ids))


def jobs(count: int) -> bytes:
    job = {"kind": "create_notification", "message": {"contents": {"en": "Hi"}}, "channel": "push"}
    return b"".join(orjson.dumps({**job, "to": {"external_id": [f"u-{n}"]}}) + b"\n" for n in range(count))


def run(*arguments: str, typed: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, list(arguments), input=typed, prog_name="sendengine")
    assert CANARY not in result.output, "the key was shown"
    assert "Traceback" not in result.output
    return result


def runs() -> list[Path]:
    return sorted(Path("runs").iterdir()) if Path("runs").exists() else []


def report() -> dict[str, dict[str, int]]:
    (folder,) = runs()
    return cast("dict[str, dict[str, int]]", orjson.loads((folder / "report.json").read_bytes()))


def requests_of(base_url: str, lane: str) -> int:
    lanes = cast("list[dict[str, object]]", admin(base_url, "ledger")["lanes"])
    return sum(cast("int", found["requests"]) for found in lanes if found["lane"] == lane)
