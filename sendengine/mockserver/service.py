"""From a request to its reply: the order in which a request is judged.

Order: outage, path, JSON, app, key, limits (evaluated when a request is received), fault, endpoint. The effect takes
place on arrival; the reply leaves when the latency is over.

Units: instants are seconds since the server started or was reset.
"""

import asyncio
from math import ceil
from typing import Final

from msgspec import Struct

from sendengine.mockserver import replies
from sendengine.mockserver.admin import ADMIN_PREFIX, Admin
from sendengine.mockserver.apps import App
from sendengine.mockserver.config import Fault, Lane
from sendengine.mockserver.endings import WITHOUT_REPLY, answer_to, delay_of, leave
from sendengine.mockserver.faults import takes_effect
from sendengine.mockserver.latency import TimerWheel
from sendengine.mockserver.ledger import NO_REPLY, LaneLedger
from sendengine.mockserver.limits import LET_THROUGH
from sendengine.mockserver.protocol import Exchange, Link
from sendengine.mockserver.replies import Answer, coded, refusal
from sendengine.mockserver.routing import Call, Router
from sendengine.mockserver.world import World

_DEFAULT_BLOCK_S: Final = 1.0


class _Departure(Struct, frozen=True, gc=False):
    """A reply on its way, with what is noted when it leaves."""

    exchange: Exchange
    shown: Answer
    done: Answer | None
    fault: Fault | None
    app: App | None
    ledger: LaneLedger


class Service:
    """Answers the requests of all connections."""

    def __init__(self, world: World, admin: Admin, *, loop: asyncio.AbstractEventLoop) -> None:
        self.world = world
        self._admin = admin
        self._router = Router(world)
        self._loop = loop
        self._wheel: TimerWheel[_Departure] = TimerWheel(self._depart, call_at=loop.call_at)
        self.connections: set[Link] = set()
        self.config = world.config

    def configured(self) -> None:
        """Take note of new settings."""
        self.config = self.world.config
        for connection in tuple(self.connections):
            connection.configured()

    def opened(self, connection: Link) -> None:
        """Count a connection, or reset it where an outage reigns."""
        self.connections.add(connection)
        self.world.ledger.connections += 1
        self.count_open()
        if self.world.faults.outage(self.world.now_s()):
            self.world.ledger.outage_resets += 1
            connection.reset()

    def count_open(self) -> None:
        """Count the connections that are open at once."""
        ledger = self.world.ledger
        ledger.most_connections = max(ledger.most_connections, len(self.connections))

    def closed(self, connection: Link) -> None:
        """Forget a connection."""
        self.connections.discard(connection)

    def spoken(self, *, is_http2: bool) -> None:
        """Count the connections that speak HTTP/2."""
        self.world.ledger.http2_connections += is_http2

    def too_many(self) -> None:
        """Count a request beyond the limit of streams."""
        self.world.ledger.refused_streams += 1

    def unparsable(self) -> None:
        """Count bytes that are no request."""
        self.world.ledger.unparsable += 1

    def receive(self, exchange: Exchange) -> None:
        """Judge a request, and send its reply on its way."""
        path, _, query = exchange.url.partition(b"?")
        if path.startswith(ADMIN_PREFIX) and self.world.config.admin:
            answer = self._admin.answer(exchange.method, path, query, exchange.body)
            exchange.reply(answer)
            return
        now_s = self.world.now_s()
        if self.world.faults.outage(now_s):
            self.world.ledger.outage_resets += 1
            exchange.drop_connection()
            return
        call = self._router.find(exchange, path)
        if call is None:
            self.world.ledger.unrouted += 1
            exchange.reply(refusal(404, "Not found"))
            return
        self._carry_out(exchange, call, now_s)

    def reset_all(self) -> None:
        """Reset every connection."""
        for connection in tuple(self.connections):
            connection.reset()

    def go_away(self, *, hard: bool) -> None:
        """End every connection: after the replies that are under way, or ``hard``, at once."""
        for connection in tuple(self.connections):
            connection.go_away(hard=hard)

    def stop_reading(self) -> None:
        """Read nothing more of the connections that are open."""
        for connection in self.connections:
            connection.stop_reading()

    def read_on(self) -> None:
        """Read again."""
        for connection in self.connections:
            connection.read_on()

    def stop(self) -> None:
        """Send no more replies, and close every connection."""
        self._wheel.stop()
        self.reset_all()

    def _carry_out(self, exchange: Exchange, call: Call, now_s: float) -> None:
        app = call.app
        ledger = self.world.ledger.lane(app.app_id if app else "", call.lane)
        ledger.arrived(now_s)
        ledger.http2 += exchange.is_http2
        shown, done, fault = self._judge(exchange, call, ledger, now_s)
        gone = fault is not None and fault.kind in WITHOUT_REPLY
        ledger.judged(NO_REPLY if gone else shown.status, now_s)
        ledger.effects += done is not None and done.is_effect
        delay_s = self.world.latency.draw()
        if fault is not None and fault.kind == "stall":
            delay_s += delay_of(fault)
        departure = _Departure(exchange, shown, done, fault, app, ledger)
        if delay_s > 0:
            self._wheel.add(departure, due_s=self._loop.time() + delay_s)
        else:
            self._depart(departure)

    def _judge(
        self, exchange: Exchange, call: Call, ledger: LaneLedger, now_s: float
    ) -> tuple[Answer, Answer | None, Fault | None]:
        """Return what is answered, what the endpoint said where it was reached, and the fault that was met."""
        app = call.app
        if app is None or call.work is None:
            return call.missing or refusal(400, replies.APP_NOT_FOUND), None, None
        if not app.takes_key(_token(exchange.authorization), lane=call.lane):
            return self._key_refused(call.lane), None, None
        wait_s = app.take(call.lane, now_s=now_s)
        if wait_s != LET_THROUGH:
            return self._throttled(app, call.lane, wait_s, now_s=now_s), None, None
        if call.user is not None:
            ledger.user_arrived(call.user, now_s)
            wait_s = app.pace.take(call.user, now_s)
            if wait_s > LET_THROUGH:
                ledger.user_refusals += 1
                return self._user_throttled(call.user, wait_s), None, None
        fault = self.world.faults.draw(call.lane, app_id=app.app_id, now_s=now_s)
        if fault is None:
            done = call.work(now_s)
            return done, done, None
        self.world.ledger.faults[fault.kind] += 1
        worked = call.work(now_s) if takes_effect(fault) else None
        throttled = self._throttled(app, call.lane, 1.0, now_s=now_s, fault=fault) if fault.kind == "429" else None
        return answer_to(fault, worked, throttled=throttled or refusal(429)), worked, fault

    def _key_refused(self, lane: Lane) -> Answer:
        if lane == "update_user":
            return coded(401, "auth-1", replies.KEY_REFUSED_USERS)
        match self.world.config.key_refusal:
            case "403_empty":
                return Answer(403, b"{}", content_type=replies.TEXT)
            case "400":
                return refusal(400, replies.KEY_REFUSED)
            case "403":
                return refusal(403, replies.KEY_REFUSED)

    def _throttled(self, app: App, lane: Lane, wait_s: float, *, now_s: float, fault: Fault | None = None) -> Answer:
        headers, announced_s = self._retry_after(wait_s, fault)
        app.refused(lane, announced_s or _DEFAULT_BLOCK_S, now_s=now_s)
        return Answer(429, replies.THROTTLED[self.world.config.throttle_body], headers, retry_after_s=announced_s)

    def _user_throttled(self, user: str, wait_s: float) -> Answer:
        headers, announced_s = self._retry_after(wait_s, None)
        return Answer(429, replies.USER_THROTTLED, headers, retry_after_s=announced_s, user=user)

    def _retry_after(self, wait_s: float, fault: Fault | None) -> tuple[bytes, float | None]:
        config = self.world.config
        text = fault.retry_after if fault and fault.retry_after is not None else config.retry_after
        if text == "auto":
            text = str(max(1, ceil(wait_s)))
        header = f"{config.retry_after_header}: {text}\r\n".encode() if text else b""
        return header, float(text) if text.isdecimal() else None

    def _depart(self, departure: _Departure) -> None:
        now_s = self.world.now_s()
        done = departure.done
        if departure.app is not None and done is not None and done.key is not None and done.first is not None:
            # Where an earlier success is there already, this key was carried out twice.
            self.world.ledger.doubled_keys += not departure.app.keys.remember(done.key, done.first)
        if departure.exchange.is_read:
            _announce(departure.shown, departure.ledger, now_s)
            leave(departure.exchange, departure.shown, departure.fault)
        else:
            self.world.ledger.unread_replies += 1


def _announce(shown: Answer, ledger: LaneLedger, now_s: float) -> None:
    """Note the hold that a 429 asks for, now that it is written."""
    if shown.retry_after_s is None:
        return
    if shown.user is None:
        ledger.hold_announced(shown.retry_after_s, now_s=now_s)
    else:
        ledger.user_hold_announced(shown.user, shown.retry_after_s, now_s=now_s)


def _token(authorization: bytes) -> str:
    """Return the token of an Authorization header; the scheme word is not evaluated."""
    words = authorization.split()
    return words[-1].decode("latin-1") if words else ""
