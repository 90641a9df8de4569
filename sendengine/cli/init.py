"""``sendengine init``: settings, an example campaign and its recipients, to begin with."""

import os
import shlex
from pathlib import Path
from typing import Final

import click

from sendengine.campaign.exits import Exit
from sendengine.cli.asking import can_ask
from sendengine.cli.options import config_option, json_option, yes_option
from sendengine.cli.output import note, say, show_json
from sendengine.errors import SettingsError
from sendengine.settings import DEFAULT_FILE, AppSettings
from sendengine.settings.kinds import FieldError, parse

PLACEHOLDER_APP_ID: Final = "00000000-0000-4000-8000-000000000000"

_SETTINGS: Final = """\
# Settings of sendengine; `sendengine config show` lists all there are.
[apps.shop]
app_id = "{app_id}"  # from OneSignal: Settings > Keys & IDs
api_key = "$ONESIGNAL_API_KEY"  # read from the environment; api_key_file and api_key_command also serve
plan = "{plan}"  # "free": 150 create-notification requests/s; "paid": 6,000
"""

_CAMPAIGN: Final = """\
# One message to the recipients of a file. Look first: sendengine send campaign.toml --dry-run
[campaign]
name = "first-campaign"  # with the app, the identity of the campaign: the same name sends nothing twice
app = "shop"
channel = "push"
message.headings.en = "Hello"
message.contents.en = "This is our first message"

[campaign.recipients]
file = "recipients.csv"  # relative to this file
column = "external_id"
target = "external_id"
"""

_RECIPIENTS: Final = "external_id\nuser-1\nuser-2\nuser-3\n"


@click.command("init")
@config_option
@click.option("--app-id", default=PLACEHOLDER_APP_ID, metavar="UUID", help="The app's id at OneSignal.")
@click.option("--plan", type=click.Choice(["free", "paid"]), default="free", show_default=True, help="The app's plan.")
@yes_option
@json_option
def init_command(*, config: Path, app_id: str, plan: str, is_sure: bool, is_json: bool) -> None:
    """Write settings, an example campaign and its recipients.

    Asks before it overwrites a file; where nobody can be asked, it needs --yes.
    """
    try:
        parse(AppSettings, "app_id", app_id)
    except FieldError as error:
        raise click.BadParameter(error.problem, param_hint="--app-id") from None
    files = {
        config: _SETTINGS.format(app_id=app_id, plan=plan),
        config.with_name("campaign.toml"): _CAMPAIGN,
        config.with_name("recipients.csv"): _RECIPIENTS,
    }
    chosen = [path for path in files if not os.access(path, os.F_OK) or is_sure or _may_overwrite(path)]
    for path in chosen:
        _write(path, files[path])
    if is_json:
        show_json({"written": [str(path) for path in chosen]})
        return
    for path in files:
        say(f"{'wrote' if path in chosen else 'kept '}  {path}")
    put = f"put the app's id into {config}, " if app_id == PLACEHOLDER_APP_ID else ""
    where = "" if config == Path(DEFAULT_FILE) else f" --config {shlex.quote(str(config))}"
    say(f"\nNext: {put}export ONESIGNAL_API_KEY, then: sendengine doctor --app shop{where}")


def _may_overwrite(path: Path) -> bool:
    if not can_ask():
        note(f"sendengine: {path} is there already, and nothing was written; overwrite it with --yes")
        raise click.exceptions.Exit(Exit.USAGE)
    return click.confirm(f"{path} is there already. Overwrite it?", default=False, err=True)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # one that was there keeps its mode otherwise
            file.write(text)
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be written: {error.strerror}; choose another place with --config"
        ) from None
