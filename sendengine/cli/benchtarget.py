"""Where a benchmark goes, and with which settings: to a mock server of its own, or to a test server.

Units: ``_ms`` is milliseconds; ceilings are requests a second.
"""

import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from sendengine.bench.address import check_address
from sendengine.bench.result import Server
from sendengine.cli.checks import connect, in_words
from sendengine.core.onesignal import USER_INTERVAL_S, Plan
from sendengine.errors import SettingsError
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig, MockProcess
from sendengine.settings import AppSettings, CeilingSettings, Settings, TransportSettings, load_settings
from sendengine.settings.kinds import FieldError
from sendengine.settings.layers import PREFIX

LATENCY_MS: Final = 100.0
PLAN: Final = "paid"
_APP: Final = "bench"
_APP_ID: Final = "be4c4000-0000-4000-8000-000000000002"
_MANY: Final = 10**11  # subscribed users, so that the application limit is looked at and never reached
_LIFTED: Final = 1e9  # a ceiling that nothing reaches


class Asked(Struct, frozen=True, kw_only=True):
    """What the command line says of the way; None where it says nothing. ``is_named`` where it names ``config``.

    ``lifted`` takes the limits away, of the engine and of a mock server that is ours.
    """

    address: str | None
    app: str | None
    config: Path
    is_named: bool
    plan: Plan | None
    lifted: bool
    transport: Literal["direct", "aiohttp"] | None
    connections: int | None
    latency_ms: float | None
    latency_p99_ms: float | None

    @property
    def is_ours(self) -> bool:
        """Whether a mock server is started for it."""
        return self.address is None and self.app is None

    @property
    def median_ms(self) -> float:
        """The median latency of the mock server that is ours."""
        return LATENCY_MS if self.latency_ms is None else self.latency_ms

    def check(self) -> None:
        """Raise SettingsError where it asks for what cannot be had together."""
        if not self.is_ours and (self.latency_ms is not None or self.latency_p99_ms is not None):
            raise SettingsError(
                "--latency-ms and --latency-p99-ms are of the mock server that bench starts itself; start one with "
                "`sendengine mock --latency-ms …` and give its address, or leave --address and --app out"
            )
        if self.is_named and not os.access(self.config, os.F_OK):
            raise SettingsError(f"{self.config}: there is no such file; correct --config, or leave it out")
        if self.latency_p99_ms and not self.median_ms:
            raise SettingsError(
                "--latency-p99-ms: makes a latency lognormal, whose median is above 0; correct --latency-ms, or leave "
                "--latency-p99-ms out"
            )
        if self.latency_p99_ms and self.latency_p99_ms <= self.median_ms:
            raise SettingsError(
                f"--latency-p99-ms {self.latency_p99_ms:g}: must be above the median, which --latency-ms says is "
                f"{self.median_ms:g}; leave it out for a constant latency"
            )
        if self.app is not None and self.plan is not None:
            raise SettingsError(f"--plan: apps.{self.app} has a plan of its own in the settings; leave --plan out")


class Target(Struct, frozen=True):
    """A server that is there, and the settings to send to it. ``mock`` is None where it is not ours."""

    settings: Settings
    mock: MockProcess | None

    @property
    def app(self) -> tuple[str, AppSettings]:
        """The app, with its name."""
        return next(iter(self.settings.apps.items()))

    @property
    def url(self) -> str:
        """Where it is."""
        return self.app[1].base_url

    async def ledger(self) -> Mapping[str, Server]:
        """What the mock server counted, by lane; nothing of another server."""
        if self.mock is None:
            return {}
        summary = await self.mock.summary(doubled=False)
        return {
            lane.lane: Server(
                requests=lane.requests,
                refused=lane.refused,
                most_in_one_second=lane.peak_1s,
                inside_hold=lane.inside_hold,
            )
            for lane in summary.lanes
        }


@asynccontextmanager
async def opened(asked: Asked, *, state_dir: Path) -> AsyncIterator[Target]:
    """Find the server, or start one for as long as the block runs.

    Raises SettingsError where a benchmark must not go there, or where nothing answers.
    """
    asked.check()
    name, settings = _settings(asked, state_dir)
    if asked.is_ours:
        async with MockProcess(_mock(asked)) as mock:
            yield Target(_at(settings, name, mock.base_url), mock)
        return
    app = settings.apps[name]
    try:
        url = await check_address(asked.address or app.base_url, allowed=lambda: _allowed(asked))
    except SettingsError as error:
        where = "" if asked.address is not None else f"apps.{name}.base_url in {asked.config}: "
        raise SettingsError(f"{where}{error}") from None
    await _check_answers(url, settings.transport)
    yield Target(_at(settings, name, url), None)


def _settings(asked: Asked, state_dir: Path) -> tuple[str, Settings]:
    """Make the settings, of the app that is named or of a made-up one, wherever it says that its server is."""
    settings, name = _named(asked) if asked.app is not None else _made_up(asked)
    app = replace(settings.apps[name], subscribed_users=_MANY)
    if asked.lifted:
        app = replace(app, ceilings=CeilingSettings(create_notification=_LIFTED, update_user=_LIFTED), share=1.0)
    # A proxy would look the name up by itself, and might go anywhere.
    transport = replace(settings.transport, proxy=None, kind=asked.transport or settings.transport.kind)
    if asked.connections is not None:
        transport = replace(transport, max_connections=asked.connections)
    return name, replace(settings, apps={name: app}, state_dir=state_dir, transport=transport, journal=None)


def _made_up(asked: Asked) -> tuple[Settings, str]:
    app = AppSettings(app_id=_APP_ID, api_key="bench", plan=asked.plan or PLAN, allow_insecure=True)
    return Settings(apps={_APP: app}), _APP


def _named(asked: Asked) -> tuple[Settings, str]:
    settings, name = load_settings(asked.config), asked.app or ""
    if name not in settings.apps:
        raise SettingsError(f"--app {name}: not in {asked.config}, which has {', '.join(settings.apps)}")
    if settings.apps[name].only_to:
        raise SettingsError(
            f"apps.{name}.only_to in {asked.config}: fences the app, and a benchmark makes its users up; name an app "
            "without a fence, or leave --app out"
        )
    return settings, name


def _at(settings: Settings, name: str, url: str) -> Settings:
    try:
        app = replace(settings.apps[name], base_url=url)
    except FieldError as error:  # the app's key would go there in the clear
        raise SettingsError(f"{url}: {error.problem} for apps.{name}") from None
    return replace(settings, apps={name: app})


def _mock(asked: Asked) -> MockConfig:
    limit = LaneLimit(counter="off") if asked.lifted else LaneLimit()
    app = AppConfig(name="Bench", plan=asked.plan or PLAN, create_notification=limit, update_user=limit)
    return MockConfig(
        default=app,
        latency_ms=asked.median_ms,
        latency_p99_ms=asked.latency_p99_ms or 0.0,
        application_limit="off",
        keep_updates=False,
        user_interval_s=0.0 if asked.lifted else USER_INTERVAL_S,
    )


def _allowed(asked: Asked) -> Sequence[str]:
    """Read the list of test servers; where no settings are there and none were asked for, it is empty."""
    is_there = asked.is_named or os.access(asked.config, os.F_OK) or any(name.startswith(PREFIX) for name in os.environ)
    return load_settings(asked.config).bench.addresses if is_there else ()


async def _check_answers(url: str, transport: TransportSettings) -> None:
    """Connect once, so that a wrong address is told before anything is offered."""
    try:
        await connect(url, transport)
    except ssl.SSLCertVerificationError as error:
        raise SettingsError(
            f"{url}: {in_words(error)}; set transport.ca_file in the settings to what signed it, and name an app of "
            "them with --app"
        ) from None
    except (OSError, TimeoutError) as error:
        raise SettingsError(
            f"{url}: nothing answers there: {in_words(error)}; correct --address, start a server (`sendengine mock "
            "--port 8080`), or leave the address out and a mock server is started here"
        ) from None
