"""A small model of OneSignal for tests on a virtual clock: keys, users, poisoned recipients, and chance.

It judges a request when it arrives and takes effect then; what the reply says, or whether it comes, is chance.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sendengine import NotSentError, ReplyLostError
from sendengine.core.wire import Reply
from tests.support.fake_transport import Answer, Arrival, json_reply, refuse, throttle

PER_USER = "Subscription/User Update Per Device"


@dataclass
class Profile:
    """What a user has become."""

    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    sessions: int = 0
    skus: list[str] = field(default_factory=list)


@dataclass
class Model:
    """``fault_share`` of the requests meet a fault. A recipient that starts with "bad" spoils its request."""

    chance: Random
    fault_share: float = 0.2
    deliveries: Counter[tuple[str, str]] = field(default_factory=Counter)
    users: dict[str, Profile] = field(default_factory=lambda: defaultdict(Profile))
    arrivals: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    holds: list[tuple[str, float, float]] = field(default_factory=list)
    _replies: dict[str, Reply] = field(default_factory=dict)

    def __call__(self, arrival: Arrival) -> Answer:
        answer = self._fault(arrival) if self.chance.random() < self.fault_share else self._carry_out(arrival)
        if arrival.method == "PATCH" and not isinstance(answer, NotSentError):
            self.arrivals[arrival.user].append(arrival.at_s)
        return answer

    def _fault(self, arrival: Arrival) -> Answer:  # noqa: PLR0911 - a fault a return
        match self.chance.randrange(9):
            case 0:
                return self._throttled(arrival)
            case 1 if arrival.method == "PATCH":
                return throttle(self.chance.choice(["1", "2"]), limit=PER_USER)
            case 2:
                return NotSentError("refused")
            case 3:
                return ReplyLostError("reset before the effect")
            case 4:
                self._carry_out(arrival)
                return ReplyLostError("reset after the effect")
            case 5:
                self._carry_out(arrival)
                return json_reply(502, "<html>")
            case 6:
                self._carry_out(arrival)
                return Reply(200, {"content-type": "text/html"}, b"<html>hello</html>")
            case 7:
                return Reply(403, {"content-type": "text/html"}, b"<html>blocked</html>")
            case _:
                return json_reply(503, {"errors": ["busy"]}, retry_after=self.chance.choice(["0", "1", "7"]))

    def _throttled(self, arrival: Arrival) -> Answer:
        wait_s = self.chance.choice([0, 1, 3])
        self.holds.append((arrival.method, arrival.at_s, arrival.at_s + wait_s))
        return throttle(str(wait_s))

    def _carry_out(self, arrival: Arrival) -> Reply:
        return self._update(arrival) if arrival.method == "PATCH" else self._deliver(arrival)

    def _deliver(self, arrival: Arrival) -> Reply:
        if (known := self._replies.get(arrival.key)) is not None:
            return Reply(known.status, {**known.headers, "idempotent-replayed": "true"}, known.body)
        if arrival.text.startswith("bad") or any(name.startswith("bad") for name in arrival.ids):
            return refuse("The request could not be processed")
        self.deliveries.update((arrival.text, name) for name in arrival.ids)
        gone = [name for name in arrival.ids if name.startswith("gone")]
        body = (
            {"id": f"m{arrival.number}", "errors": {"invalid_aliases": {"external_id": gone}}} if gone else {"id": "m"}
        )
        reply = self._replies[arrival.key] = json_reply(200, body)
        return reply

    def _update(self, arrival: Arrival) -> Reply:
        properties = dict(arrival.body.get("properties", {}))
        tags = properties.pop("tags", {})
        if any(name.startswith("bad") for name in tags):
            return refuse("no such tag")
        profile = self.users[arrival.user]
        apply(profile, tags=tags, properties=properties, deltas=arrival.body.get("deltas", {}))
        return json_reply(202, {"properties": {}})


def apply(profile: Profile, *, tags: dict[str, Any], properties: dict[str, Any], deltas: dict[str, Any]) -> None:
    """Apply one update, as OneSignal's pages say: an empty tag is deleted, deltas add up."""
    for name, value in tags.items():
        if value == "":
            profile.tags.pop(name, None)
        else:
            profile.tags[name] = str(value)
    profile.properties.update(properties)
    profile.sessions += deltas.get("session_count", 0)
    profile.skus += [purchase["sku"] for purchase in deltas.get("purchases", [])]
