"""Finds out how many users an app has subscribed, which is what its application limit rests on.

Source: OneSignal's view-app endpoint: ``GET /apps/{id}`` answers with ``messageable_players``.
"""

import asyncio
import logging
from http import HTTPStatus

import msgspec

from sendengine.core.onesignal import app_path
from sendengine.engine.app import App
from sendengine.engine.events import announce
from sendengine.errors import TransportError
from sendengine.ports import Reply, Transport, WireRequest

_TIMEOUT_S = 10.0


class _AppView(msgspec.Struct):
    messageable_players: int


async def set_limit(app: App) -> None:
    """Give the app's guard its limit; a look-up that fails warns and leaves the guard off."""
    settings = app.settings
    users = await _look_up(app) if settings.subscribed_users == "auto" else settings.subscribed_users
    if users is None:
        app.guard.turn_off()
        return
    app.guard.limit_to(settings.delivery_limit(users=users), users=users)


async def view_app(transport: Transport, app_id: str) -> Reply:
    """Ask once for an app's own page. Raises TransportError where no answer came."""
    return await transport.exchange(WireRequest("GET", app_path(app_id)), _at_once)


def subscribed_users(reply: Reply) -> int | None:
    """Read how many users an app's page says are subscribed; None where it does not say, or says that none are."""
    if reply.status != HTTPStatus.OK:
        return None
    try:
        users = msgspec.json.decode(reply.body, type=_AppView).messageable_players
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return users if users > 0 else None


async def _look_up(app: App) -> int | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reply = await view_app(app.transport, app.settings.app_id)
        users = subscribed_users(reply)
        if users is not None:
            return users
        error: Exception | str = f"OneSignal does not say, status {reply.status}"
    except (TransportError, TimeoutError) as failure:
        error = failure
    announce(
        "audience_unknown",
        f"app {app.name}: its number of subscribed users could not be looked up ({error or 'timeout'}), so the "
        f"application limit is not guarded; set apps.{app.name}.subscribed_users to a number",
        level=logging.WARNING,
        app=app.name,
    )
    return None


async def _at_once() -> None:
    """No lane counts this request."""
