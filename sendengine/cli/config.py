"""``sendengine config check`` and ``config show``: what the settings are, and what is wrong with them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import click
from msgspec import Struct

from sendengine.campaign.exits import Exit
from sendengine.cli.init import PLACEHOLDER_APP_ID
from sendengine.cli.options import config_option, json_option
from sendengine.cli.output import say, show_json
from sendengine.errors import SettingsError
from sendengine.settings import EffectiveSetting, Settings, effective, key_source, load_settings, read_key


@click.group("config")
def config_group() -> None:
    """Check and show the settings."""


@config_group.command("check")
@config_option
@json_option
def check_command(*, config: Path, is_json: bool) -> None:
    """Check the settings, and that each key is there.

    Nothing goes over the network. Exits 2 where something is wrong.
    """
    settings = load_settings(config)
    findings = (*check_sources(settings), *check_apps(settings), *check_file(settings, config))
    is_right = all(finding.is_right for finding in findings)
    if is_json:
        show_json({"ok": is_right, "file": str(config), "findings": findings})
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.is_right else 'fail'}  {finding.text}")
    if not is_right:
        raise click.exceptions.Exit(Exit.USAGE)


@config_group.command("show")
@config_option
@json_option
def show_command(*, config: Path, is_json: bool) -> None:
    """Show every setting with its value and where that comes from.

    Keys and passwords are masked.
    """
    entries = effective(config)
    if is_json:
        show_json(
            [{"key": each.key, "value": each.value, "source": each.source, "place": each.place} for each in entries]
        )
        return
    width = max(len(each.key) for each in entries)
    for each in entries:
        say(f"{each.key:<{width}}  {_shown(each)}")


class Finding(Struct, frozen=True):
    """What was found about one thing."""

    is_right: bool
    text: str


def check_sources(settings: Settings) -> Iterator[Finding]:
    """Try to read each app's key, without showing it."""
    for name, app in settings.apps.items():
        if app.app_id == PLACEHOLDER_APP_ID:
            yield Finding(is_right=False, text=f"apps.{name}.app_id: is still the one that `sendengine init` wrote")
        try:
            read_key(app)
        except SettingsError as error:
            yield Finding(is_right=False, text=f"apps.{name}: {error}")
        else:
            yield Finding(is_right=True, text=f"apps.{name}: the key is there (from {key_source(app).rstrip(',')})")


def check_apps(settings: Settings) -> Iterator[Finding]:
    """Find an app that has two tables, whose ceilings would be reached twice at once."""
    names: dict[tuple[str, str], str] = {}
    for name, app in settings.apps.items():
        first = names.setdefault((app.app_id.lower(), app.base_url.lower()), name)
        if first != name:
            yield Finding(
                is_right=False,
                text=f"apps.{name}.app_id: is the app of apps.{first} too, and OneSignal counts all requests of an app "
                "together; keep one table for it",
            )


def check_file(settings: Settings, path: Path) -> Iterator[Finding]:
    """Find files that settings name and that are not there, and a key that others can read."""
    ca_file = settings.transport.ca_file
    if ca_file is not None:
        is_there = os.access(ca_file, os.R_OK) and Path(ca_file).is_file()
        yield Finding(is_right=is_there, text=f"transport.ca_file: {ca_file} is {'there' if is_there else 'not there'}")
    holds_key = any(app.api_key is not None and not app.api_key.startswith("$") for app in settings.apps.values())
    if holds_key and path.exists() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield Finding(is_right=False, text=f"{path} holds a key and others can read it; run: chmod 600 {path}")


def _shown(entry: EffectiveSetting) -> str:
    value = entry.value
    if value is None:
        text = "(not set)"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)
    return f"{text}  ({entry.place or 'default'})"
