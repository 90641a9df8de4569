"""What an app's own page says (GET /apps/{id}): its name, whether the key is accepted, how many are subscribed.

Source: OneSignal's view-app reference, read 2026-11-21; some keys may not view the app and can send all the same.
"""

from collections.abc import Mapping
from typing import Final

import orjson
from anyio import to_thread

from sendengine.cli.checks import Check
from sendengine.engine import audience
from sendengine.ports import Reply
from sendengine.settings import AppSettings, TransportSettings, read_key
from sendengine.transport import open_transport

_OK: Final = 200
_KEY_REFUSED: Final = frozenset({400, 401, 403})
_NOT_FOUND: Final = 404
_THROTTLED: Final = 429


async def ask_for_app(app: AppSettings, transport: TransportSettings) -> Reply:
    """Ask once. Raises SettingsError where the key cannot be read, TransportError where no answer came."""
    key = await to_thread.run_sync(read_key, app)
    opened = open_transport(app, key, transport)
    try:
        return await audience.view_app(opened, app.app_id)
    finally:
        await opened.aclose()


def check_app(name: str, app: AppSettings, reply: Reply) -> Check:
    """Read the answer to a view of the app."""
    title = f"app {name}"
    page = _object(reply.body)
    if reply.status == _OK and page is not None:
        return _check_page(title, app, page.get("name"), audience.subscribed_users(reply))
    if reply.status in _KEY_REFUSED:
        return Check(
            title,
            "fail",
            f"OneSignal refused the key (status {reply.status})",
            "compare app_id and key with Settings > Keys & IDs; a key with an IP allow-list works only from there",
        )
    if reply.status == _NOT_FOUND:
        return Check(title, "fail", f"OneSignal knows no app {app.app_id}", "correct app_id, or base_url")
    if reply.status == _THROTTLED:
        return Check(title, "warn", "OneSignal asks to wait (status 429)", "try again in a minute")
    return Check(title, "warn", f"no usable answer (status {reply.status})", "try again; see status.onesignal.com")


def _check_page(title: str, app: AppSettings, name: object, users: int | None) -> Check:
    named = f"{name or 'without a name'!s}, the key is accepted"
    if users is None:
        mend = "give subscribed_users a number, or the application limit is not watched"
        return Check(title, "warn", f"{named}, subscribed users unknown", mend)
    set_to = app.subscribed_users
    limit = app.delivery_limit(users=users if set_to == "auto" else set_to)
    detail = f"{named}, {users:,} subscribed users, so up to {limit:,} deliveries in 15 minutes"
    if isinstance(set_to, int) and set_to > users:
        return Check(title, "warn", detail, f'subscribed_users = {set_to} is more than there are; use "auto"')
    return Check(title, "ok", detail)


def _object(body: bytes) -> Mapping[str, object] | None:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
