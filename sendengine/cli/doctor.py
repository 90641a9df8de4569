"""``sendengine doctor``: what would keep this machine from sending, and how to mend it."""

from collections.abc import Sequence
from pathlib import Path

import click

from sendengine.campaign.exits import Exit
from sendengine.cli.appcheck import ask_for_app, check_app
from sendengine.cli.checks import Check, check_connection, check_descriptors, check_disk, check_dns
from sendengine.cli.loop import run
from sendengine.cli.options import config_option, json_option, runs_dir_option
from sendengine.cli.output import say, show_json
from sendengine.core.onesignal import BASE_URL
from sendengine.errors import SettingsError, TransportError
from sendengine.settings import AppSettings, Settings, TransportSettings, load_settings


@click.command("doctor")
@click.option(
    "--app", "name", metavar="NAME", help="Ask OneSignal for this app once: its name, the key, its subscribers."
)
@config_option
@runs_dir_option
@json_option
def doctor_command(*, name: str | None, config: Path, runs_dir: Path, is_json: bool) -> None:
    """Check this machine and the way to OneSignal.

    Settings, file descriptors, disk, DNS, TLS, clock. Exits 2 where a check fails; warnings do not change the exit
    code.
    """
    checks = run(lambda: _diagnose(name, config, runs_dir))
    if is_json:
        show_json(checks)
    else:
        _show(checks)
    if any(check.result == "fail" for check in checks):
        raise click.exceptions.Exit(Exit.USAGE)


def _show(checks: Sequence[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        say(f"{check.result:<4}  {check.name:<{width}}  {check.detail}")
        if check.mend:
            say(f"{'':<{width + 8}}{check.mend}")


async def _diagnose(name: str | None, config: Path, runs_dir: Path) -> Sequence[Check]:
    settings: Settings | None = None
    try:
        settings = load_settings(config)
        first = _check_settings(config, settings, name)
    except SettingsError as error:
        first = Check("settings", "fail", str(error))
    transport = settings.transport if settings else TransportSettings()
    checks = [first, check_descriptors(transport), check_disk("disk, runs", runs_dir)]
    if settings is not None:
        checks.append(check_disk("disk, state", settings.state_dir))
    apps = settings.apps.values() if settings else ()
    for base_url in dict.fromkeys(app.base_url for app in apps) or (BASE_URL,):
        checks += [await check_dns(base_url), *await check_connection(base_url, transport)]
    if settings is not None and name is not None and name in settings.apps:
        checks.append(await _ask(name, settings.apps[name], transport))
    return checks


def _check_settings(config: Path, settings: Settings, name: str | None) -> Check:
    if name is not None and name not in settings.apps:
        return Check("settings", "fail", f"--app {name}: not in {config}, which has {', '.join(settings.apps)}")
    return Check("settings", "ok", str(config))


async def _ask(name: str, app: AppSettings, transport: TransportSettings) -> Check:
    try:
        return check_app(name, app, await ask_for_app(app, transport))
    except SettingsError as error:
        return Check(f"app {name}", "fail", str(error))
    except TransportError as error:
        return Check(f"app {name}", "fail", f"no answer: {error}", "see the checks before this one")
