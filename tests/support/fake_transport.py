"""A transport without sockets that keeps the port's promises, for tests on a virtual clock."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

from sendengine.core.wire import Reply, WireRequest
from sendengine.ports import Permit

Answer = Reply | Exception
Behaviour = Callable[["Arrival"], Answer]


@dataclass(frozen=True)
class Arrival:
    """A request as the server sees it; ``number`` counts from 1."""

    number: int
    at_s: float
    method: str
    path: str
    body: dict[str, Any]

    @property
    def ids(self) -> list[str]:
        aliases = self.body.get("include_aliases", {})
        return next(iter(aliases.values()), [])

    @property
    def key(self) -> str:
        return str(self.body["idempotency_key"])

    @property
    def text(self) -> str:
        """The English text of a notification."""
        return str(self.body["contents"]["en"])

    @property
    def user(self) -> str:
        """Whom an update is for."""
        return unquote(self.path.rpartition("/")[2])

    @property
    def tags(self) -> dict[str, str]:
        """The tags of an update."""
        return dict(self.body.get("properties", {}).get("tags", {}))


def json_reply(status: int, body: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"content-type": "application/json", **named}, orjson.dumps(body))


def accept(arrival: Arrival) -> Reply:
    """What OneSignal says when all is well."""
    if arrival.method == "PATCH":
        return json_reply(202, {"properties": {}})
    return json_reply(200, {"id": f"message-{arrival.number}", "external_id": None})


def throttle(retry_after: str | None = "1", **body: str) -> Reply:
    headers = {} if retry_after is None else {"retry_after": retry_after}
    return json_reply(429, {"errors": ["API rate limit exceeded."], **body}, **headers)


def refuse(*errors: str) -> Reply:
    """A 400 that says these; nothing that helps where they are not given."""
    return json_reply(400, {"errors": list(errors or ["no"])})


def first(answers: Iterable[Answer], **options: Any) -> "FakeTransport":
    """A transport that gives these answers first, and then accepts."""
    waiting = list(answers)
    return FakeTransport(lambda arrival: waiting.pop(0) if waiting else accept(arrival), **options)


@dataclass
class FakeTransport:
    """Answers after ``latency_s`` as ``behaviour`` says; it counts what must not leak.

    A ``view`` answers ``GET /apps/{id}``: a number of subscribed users, a reply, an exception, or None for 404.
    """

    behaviour: Behaviour = accept
    latency_s: float = 0.1
    connect_s: float = 0.0
    view: int | Answer | None = None
    view_s: float = 0.0
    arrivals: list[Arrival] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    connections: int = 0
    most_connections: int = 0  # no bound of its own
    streams: int = 1  # of a connection
    keys: list[str] = field(default_factory=list)
    is_closed: bool = False

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        if request.method == "GET":
            return await self._show()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await permit()
            body = orjson.loads(request.body) if request.body else {}
            arrival = Arrival(
                len(self.arrivals) + 1, asyncio.get_running_loop().time(), request.method, request.path, body
            )
            self.arrivals.append(arrival)
            answer = self.behaviour(arrival)
            await asyncio.sleep(self.latency_s)
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.under_way -= 1

    async def warm(self, count: int) -> int:
        if self.connect_s:
            await asyncio.sleep(self.connect_s)
        self.connections = max(self.connections, -(-count // self.streams))
        return self.capacity

    def replace_key(self, api_key: str) -> None:
        self.keys.append(api_key)

    @property
    def open_connections(self) -> int:
        return self.connections

    @property
    def capacity(self) -> int:
        return self.connections * self.streams

    @property
    def max_exchanges(self) -> int:
        return self.most_connections * self.streams

    @property
    def protocol(self) -> str | None:
        return "h2" if self.streams > 1 else "http/1.1"

    async def aclose(self) -> None:
        self.is_closed = True
        self.connections = 0

    async def _show(self) -> Reply:
        await asyncio.sleep(self.view_s)
        if isinstance(self.view, Exception):
            raise self.view
        if isinstance(self.view, Reply):
            return self.view
        if self.view is None:
            return json_reply(404, {"errors": ["no such app"]})
        return json_reply(200, {"id": "app", "name": "Shop", "messageable_players": self.view})

    # What tests ask

    @property
    def most_in_one_second(self) -> int:
        times = [arrival.at_s for arrival in self.arrivals]
        most = first = 0
        for index, at_s in enumerate(times):
            while times[first] <= at_s - 1.0:
                first += 1
            most = max(most, index - first + 1)
        return most

    @property
    def deliveries(self) -> Counter[str]:
        """How often each recipient was named in a request."""
        return Counter(recipient for arrival in self.arrivals for recipient in arrival.ids)

    @property
    def texts(self) -> list[str]:
        """The texts of the notifications, in the order in which they arrived."""
        return [arrival.text for arrival in self.arrivals]

    @property
    def users(self) -> list[str]:
        """The users of the updates, in the order in which they arrived."""
        return [arrival.user for arrival in self.arrivals]
