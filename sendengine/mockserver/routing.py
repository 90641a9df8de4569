"""Which lane and app a request is for, and the work that would carry it out.

Source: `sendengine.core.onesignal` has the paths. They stand below any of the configured prefixes.
"""

from collections.abc import Callable
from typing import Final

import orjson
from msgspec import Struct

from sendengine.core.onesignal import notifications_path
from sendengine.mockserver.apps import App, view
from sendengine.mockserver.config import Lane
from sendengine.mockserver.notifications import create
from sendengine.mockserver.protocol import Exchange
from sendengine.mockserver.replies import Answer, coded, refusal
from sendengine.mockserver.users import decoded, update
from sendengine.mockserver.world import World

_NOTIFICATIONS: Final = notifications_path().encode()
_APP_PARTS: Final = 3  # "", "apps", app
_USER_PARTS: Final = 7  # "", "apps", app, "users", "by", label, id


class Call(Struct, frozen=True, gc=False):
    """A request that has found its lane. ``work`` carries it out; ``user`` is whom an update concerns."""

    lane: Lane
    app: App | None
    missing: Answer | None = None
    work: Callable[[float], Answer] | None = None
    user: str | None = None


class Router:
    """Finds out what a request is for."""

    def __init__(self, world: World) -> None:
        self._world = world

    def find(self, exchange: Exchange, path: bytes) -> Call | None:
        """Find the lane of a request, and the app where it names one; None for an unknown path."""
        for prefix in self._world.config.path_prefixes:
            root = prefix.encode()
            if path.startswith(root) and (call := self._route(exchange, path[len(root) :])):
                return call
        return None

    def _route(self, exchange: Exchange, path: bytes) -> Call | None:
        if path == _NOTIFICATIONS:
            return self._notification(exchange) if exchange.method == b"POST" else None
        parts = path.split(b"/")
        if len(parts) < _APP_PARTS or parts[:2] != [b"", b"apps"]:
            return None
        app_id = parts[2].decode("latin-1")
        if len(parts) == _APP_PARTS and exchange.method == b"GET":
            app = self._world.app(app_id)
            return Call("view", app, work=lambda _: view(app)) if app else Call("view", None, _no_app(app_id))
        if len(parts) == _USER_PARTS and parts[3:5] == [b"users", b"by"] and exchange.method == b"PATCH":
            return self._user(exchange, app_id, decoded(parts[5]), decoded(parts[6]))
        return None

    def _notification(self, exchange: Exchange) -> Call:
        lane: Lane = "create_notification"
        try:
            body = orjson.loads(exchange.body)
        except orjson.JSONDecodeError:
            return Call(lane, None, refusal(400, "The body is not JSON"))
        if not isinstance(body, dict) or b"application/json" not in exchange.content_type.lower():
            return Call(lane, None)
        app_id = body.get("app_id")
        app = self._world.app(app_id) if isinstance(app_id, str) and app_id else None
        if app is None:
            return Call(lane, None)
        world = self._world

        def work(now_s: float) -> Answer:
            return create(body, app, config=world.config, ledger=world.ledger, now_s=now_s)

        return Call(lane, app, work=work)

    def _user(self, exchange: Exchange, app_id: str, label: str | None, user_id: str | None) -> Call:
        lane: Lane = "update_user"
        app = self._world.app(app_id)
        if app is None:
            return Call(lane, None, _no_app(app_id))
        if label is None or user_id is None:
            return Call(lane, None, coded(400, "request-1", "The path is not UTF-8"))
        world = self._world

        def work(now_s: float) -> Answer:
            return update((label, user_id), exchange.body, app, config=world.config, ledger=world.ledger, now_s=now_s)

        return Call(lane, app, work=work, user=f"{label}\n{user_id}")


def _no_app(app_id: str) -> Answer:
    return coded(404, "app-0", f"No app with id {app_id}")
