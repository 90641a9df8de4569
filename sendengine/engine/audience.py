"""Finds out how many users an app has subscribed, which is what its application limit rests on.

Source: OneSignal's view-app endpoint: ``GET /apps/{id}`` answers with ``messageable_players``.
"""

import asyncio
import logging
from http import HTTPStatus

import msgspec

from sendengine.core.onesignal import app_path
from sendengine.core.volume import delivery_limit
from sendengine.core.wire import WireRequest
from sendengine.engine.app import App
from sendengine.engine.events import announce
from sendengine.errors import TransportError

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
    share = settings.application_limit_share * settings.share
    app.guard.limit_to(delivery_limit(subscribed_users=users, share=share), users=users)


async def _look_up(app: App) -> int | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reply = await app.transport.exchange(WireRequest("GET", app_path(app.settings.app_id)), _at_once)
        error: Exception | str = f"OneSignal answered {reply.status}"
        if reply.status == HTTPStatus.OK:
            users = msgspec.json.decode(reply.body, type=_AppView).messageable_players
            if users > 0:
                return users
            error = "it says that there are none"
    except (TransportError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError) as failure:
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
