"""What a person is shown before a run: whom it is for, how many requests, how long, and the application limit.

Units: ``_s`` is seconds.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec import Struct

from sendengine.campaign.work import LoadedInput, Work
from sendengine.cli.appcheck import ask_for_app
from sendengine.cli.forecast import Forecast, Limit, ceiling_of, deliveries, forecast, held_s
from sendengine.cli.output import ceiling, counted, duration
from sendengine.cli.validate import described, lines_of
from sendengine.engine.audience import subscribed_users
from sendengine.errors import SettingsError, TransportError
from sendengine.settings import AppSettings, Settings, TransportSettings

_LOOK_UP_S: Final = 5.0


class Overview(Struct, frozen=True):
    """An input, what sending it needs, and each app's application limit beside what is delivered."""

    loaded: LoadedInput
    work: Work
    settings: Settings
    forecast: Forecast
    limits: tuple[Limit, ...]

    @property
    def least_s(self) -> float:
        """How long the run takes at least."""
        return max(self.forecast.least_s, held_s(self.limits))


def overview(
    loaded: LoadedInput, work: Work, settings: Settings, *, most: Mapping[str, int | None], is_exact: bool
) -> Overview:
    """Work out what sending needs; ``most`` are the apps' application limits, as far as they have been looked for."""
    counts = deliveries(loaded, work, settings)
    limits = tuple(Limit(app, count, most[app]) for app, count in counts.items() if app in most)
    return Overview(loaded, work, settings, forecast(loaded, work, settings, is_exact=is_exact), limits)


async def look_up_limits(settings: Settings, apps: Collection[str]) -> Mapping[str, int | None]:
    """Find the application limits, asking OneSignal where the settings say "auto"; None where it does not say."""
    found = await asyncio.gather(*(_most(settings.apps[name], settings.transport) for name in apps))
    return dict(zip(apps, found, strict=True))


def known_limits(settings: Settings, apps: Collection[str]) -> Mapping[str, int | None]:
    """Find the application limits that the settings give, without asking anybody."""
    known = {name: _known(settings.apps[name]) for name in apps}
    return {name: most for name, most in known.items() if most is not None}


def lines(shown: Overview) -> Sequence[str]:
    """Describe it for a person."""
    written = list(lines_of(shown.loaded))
    if shown.work.total != shown.loaded.survey.to_send:
        written.append(f"  a test: to {counted(shown.work.total, 'recipient')} alone")
    about = "" if shown.forecast.is_exact else "about "
    for lane, count in shown.forecast.requests.items():
        most = ceiling_of(shown.settings, lane)
        seconds = duration(count / most)
        written.append(f"  {lane}: {about}{counted(count, 'request')}, {seconds} at its ceiling of {ceiling(most)}/s")
    written += [f"  application limit of {each.app}: {_limit(each)}" for each in shown.limits]
    written.append(f"  expected duration: {duration(shown.least_s)} or a little more")
    return written


def as_json(shown: Overview) -> dict[str, object]:
    """Describe it for a program."""
    return {
        **described(shown.loaded),
        "requests": dict(shown.forecast.requests),
        "requests_are_exact": shown.forecast.is_exact,
        "least_s": round(shown.least_s, 3),
        "application_limit": shown.limits,
    }


def _limit(limit: Limit) -> str:
    if limit.most is None:
        return "not known: OneSignal could not be asked, or did not say, how many users are subscribed"
    if limit.deliveries is None:
        return f"{limit.most:,} deliveries in 15 minutes; how many these are is known only to OneSignal"
    share = f" ({limit.deliveries / limit.most:.1%})" if limit.most else ""
    held = "; sending is held in between" if limit.windows or not limit.most else ""
    return f"{limit.deliveries:,} of {limit.most:,} deliveries in 15 minutes{share}{held}"


async def _most(app: AppSettings, transport: TransportSettings) -> int | None:
    if app.subscribed_users != "auto":
        return _known(app)
    try:
        async with asyncio.timeout(_LOOK_UP_S):
            users = subscribed_users(await ask_for_app(app, transport))
    except (SettingsError, TransportError, TimeoutError):
        return None  # a look goes on without it, and a run finds out what is wrong
    return None if users is None else app.delivery_limit(users=users)


def _known(app: AppSettings) -> int | None:
    return None if app.subscribed_users == "auto" else app.delivery_limit(users=app.subscribed_users)
