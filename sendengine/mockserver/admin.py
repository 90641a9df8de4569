"""The endpoints under /__mock__/: the ledger and the settings, for other processes. Nothing here is counted or limited.

GET  ledger       the summary; ``?doubled=0`` leaves out the audit that takes long with millions of recipients
GET  messages     notifications; ``?offset=0&limit=1000&recipients=1&app=…``
GET  deliveries   deliveries by recipient, as ``kind:id``; ``?app=…``
GET  users        users that were updated; ``?app=…&label=…&id=…&offset=0&limit=1000&updates=1``
GET  requests     every request of a lane, with its status, and the holds; ``?app=…&lane=…``
GET  config       the settings; POST merges a JSON merge patch into them
POST reset        begin anew; POST enable ``?app=…`` enables a disabled app again
POST goaway       end every connection: after the replies that are under way, or at once with ``?hard=1``
POST stop_reading read nothing more of the connections that are open, for ``?for_s=…`` or until POST read_on
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec
import orjson

from sendengine.errors import SettingsError
from sendengine.mockserver.config import MockConfig, patched
from sendengine.mockserver.messages import recipients
from sendengine.mockserver.profiles import Profile
from sendengine.mockserver.replies import Answer, refusal
from sendengine.mockserver.summary import sum_up
from sendengine.mockserver.world import World

ADMIN_PREFIX: Final = b"/__mock__/"
_LIMIT: Final = 1000
_MOST: Final = 1e12
_Query = Mapping[str, str]
T = TypeVar("T")


class Server(Protocol):
    """What the server itself can be told."""

    def configure(self, config: MockConfig | None = None, /) -> None:
        """Go on under other settings. Raises SettingsError, and changes nothing then."""
        ...

    def reset(self) -> None:
        """Begin anew."""
        ...

    def go_away_soon(self, *, hard: bool) -> None:
        """End every connection, when this answer is written."""
        ...

    def stop_reading(self, *, for_s: float | None = None) -> None:
        """Read nothing more of the connections that are open, for so long or until `read_on`."""
        ...

    def read_on(self) -> None:
        """Read again."""
        ...


class Admin:
    """Answers what is asked about the server."""

    def __init__(self, world: World, server: Server) -> None:
        self._world = world
        self._server = server
        self._routes: dict[tuple[bytes, bytes], Callable[[_Query, bytes], object]] = {
            (b"GET", b"ledger"): self._ledger,
            (b"GET", b"messages"): self._messages,
            (b"GET", b"deliveries"): self._deliveries,
            (b"GET", b"users"): self._users,
            (b"GET", b"requests"): self._requests,
            (b"GET", b"config"): self._config,
            (b"POST", b"config"): self._change_config,
            (b"POST", b"reset"): self._begin_anew,
            (b"POST", b"enable"): self._enable,
            (b"POST", b"goaway"): self._go_away,
            (b"POST", b"stop_reading"): self._stop_reading,
            (b"POST", b"read_on"): self._read_on,
        }

    def answer(self, method: bytes, path: bytes, query: bytes, body: bytes) -> Answer:
        """Answer one request; 400 with a reason where it asks for something impossible."""
        route = self._routes.get((method, path.removeprefix(ADMIN_PREFIX)))
        if route is None:
            return refusal(404, "Not found")
        try:
            found = route(dict(parse_qsl(query.decode("latin-1"))), body)
        except (SettingsError, ValueError) as error:
            return refusal(400, str(error))
        return Answer(200, orjson.dumps(found))

    def _ledger(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # a route's signature
        return msgspec.to_builtins(sum_up(self._world, doubled=query.get("doubled") != "0"))

    def _messages(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        log = self._world.ledger.messages
        app = query.get("app")
        rows = ((place, message) for place, message in enumerate(log) if app in {None, message.app})
        return [
            {
                "id": log.message_id(place), "app": message.app, "channel": message.channel, "kind": message.kind,
                "key": f"{message.key:032x}" if message.key is not None else None,
                "content": f"{message.content & 0xFFFFFFFFFFFFFFFF:016x}", "at_s": message.at_s,
                "count": message.count,
            } | ({"recipients": list(recipients(message))} if query.get("recipients") == "1" else {})
            for place, message in _window(rows, query)
        ]  # fmt: skip

    def _deliveries(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        return dict(self._world.ledger.messages.deliveries(query.get("app")))

    def _users(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        rows = (
            (app_id, label, user_id, profile)
            for app_id, app in self._world.apps.items()
            for (label, user_id), profile in app.profiles
            if query.get("app") in {None, app_id} and query.get("label") in {None, label}
            and query.get("id") in {None, user_id}
        )  # fmt: skip
        return [
            {"app": app_id, "label": label, "id": user_id} | _shown(profile, updates=query.get("updates") == "1")
            for app_id, label, user_id, profile in _window(rows, query)
        ]

    def _requests(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        return [
            {
                "app": app_id, "lane": lane, "arrivals_s": list(found.arrivals), "statuses": list(found.statuses),
                "holds": found.holds, "inside_hold_s": list(found.inside_hold),
                "inside_hold_raw_s": list(found.inside_hold_raw),
                "user_inside_hold_s": list(found.user_inside_hold),
            }
            for (app_id, lane), found in self._world.ledger.lanes.items()
            if query.get("app") in {None, app_id} and query.get("lane") in {None, lane}
        ]  # fmt: skip

    def _config(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        return msgspec.to_builtins(self._world.config)

    def _change_config(self, query: _Query, body: bytes) -> object:
        patch = orjson.loads(body)
        if not isinstance(patch, dict):
            raise SettingsError("mock server: the body is a JSON merge patch, an object")
        self._server.configure(patched(self._world.config, patch))
        return self._config(query, body)

    def _begin_anew(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # a route's signature
        self._server.reset()
        return {}

    def _enable(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        world = self._world
        for app_id, app in world.apps.items():
            if query.get("app") in {None, app_id}:
                app.enable(world.config, now_s=world.now_s())
        return {}

    def _go_away(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        self._server.go_away_soon(hard=query.get("hard") == "1")
        return {}

    def _stop_reading(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        self._server.stop_reading(for_s=_number(query, "for_s") if "for_s" in query else None)
        return {}

    def _read_on(self, query: _Query, body: bytes) -> object:  # noqa: ARG002  # the same
        self._server.read_on()
        return {}


def _window(rows: Iterator[T], query: _Query) -> Iterator[T]:
    offset = int(_number(query, "offset"))
    return islice(rows, offset, offset + int(_number(query, "limit", unset=_LIMIT)))


def _number(query: _Query, name: str, *, unset: int = 0) -> float:
    """Read a number that is 0 or more, and that some clock or list may reach; raises SettingsError."""
    text = query.get(name, str(unset))
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if 0 <= number <= _MOST:
        return number
    raise SettingsError(f"{name}: {text!r} is no number from 0 up")


def _shown(profile: Profile, *, updates: bool) -> dict[str, object]:
    shown: dict[str, object] = {
        "tags": profile.tags, "properties": profile.properties, "session_time": profile.session_time,
        "session_count": profile.session_count, "purchases": profile.purchases, "applied": profile.applied,
    }  # fmt: skip
    if updates:
        shown["updates"] = [orjson.Fragment(body) for body in profile.updates]
    return shown
