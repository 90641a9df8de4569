"""``--share`` and ``--rate``: settings that go below what the file says, and never above.

Units: rates are requests a second.
"""

from collections.abc import Collection

from msgspec.structs import replace

from sendengine.core.onesignal import EndpointGroup
from sendengine.errors import SettingsError
from sendengine.settings import AppSettings, CeilingSettings, Settings
from sendengine.settings.kinds import FieldError


def slowed(settings: Settings, *, apps: Collection[str], share: float | None, rate: float | None) -> Settings:
    """Return the settings with the named apps no faster than ``share`` and ``rate`` allow.

    Each lane of an app sends at most ``rate`` requests a second. Raises SettingsError where ``share`` is none,
    or less than a request a minute would be left.
    """
    try:
        changed = {
            name: _slowed(app, share=share, rate=rate) if name in apps else app for name, app in settings.apps.items()
        }
    except FieldError as error:
        raise SettingsError(f"{'--share' if error.field == 'share' else '--rate'}: {error.problem}") from None
    return replace(settings, apps=changed)


def _slowed(app: AppSettings, *, share: float | None, rate: float | None) -> AppSettings:
    if share is not None:
        app = replace(app, share=min(app.share, share))
    if rate is None:
        return app
    allowed = rate / app.share  # the engine multiplies by the share
    slower = {group.value: min(app.granted(group), allowed) for group in EndpointGroup}
    return replace(app, ceilings=CeilingSettings(**slower))
