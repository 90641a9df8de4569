"""One app as the server knows it: its limits, keys, people and users; and the reply that shows it.

Units: instants are seconds since the server started or was reset.
"""

import orjson

from sendengine.core.onesignal import CREATE_CEILING, UPDATE_CEILING
from sendengine.mockserver.application import ApplicationLimit
from sendengine.mockserver.audience import Audience
from sendengine.mockserver.config import LANES, AppConfig, Lane, LaneLimit, MockConfig
from sendengine.mockserver.gates import Block, Gate
from sendengine.mockserver.keys import Keys
from sendengine.mockserver.limits import UserPace
from sendengine.mockserver.profiles import Profiles
from sendengine.mockserver.replies import Answer

_VIEW_CEILING = 1.0  # rate limits: views; GET /apps/{id} itself has no published limit


class App:
    """One app. ``is_disabled`` is set when the application limit trips, and stays until `enable`."""

    __slots__ = (
        "_blocks", "_first_seen_s", "_gates", "app_id", "application", "audience", "config", "is_disabled", "keys",
        "pace", "profiles",
    )  # fmt: skip

    def __init__(self, app_id: str, config: AppConfig, server: MockConfig, *, now_s: float) -> None:
        self.app_id = app_id
        self.config = config
        self.audience = Audience(config)
        self.keys = Keys()
        self.profiles = Profiles()
        self.is_disabled = False
        self.application = ApplicationLimit(server.application_limit, now_s=now_s)
        self._first_seen_s: dict[str, float] = {}
        self._gates = {lane: _gate(config, lane, now_s) for lane in LANES}
        self._blocks = {lane: Block(server) for lane in LANES}
        self.pace = UserPace(server.user_interval_s, count_refused=server.count_refused_users, now_s=now_s)

    def configure(self, config: AppConfig, server: MockConfig, *, was: MockConfig, now_s: float) -> None:
        """Go on under other settings; counters whose settings stay as they are keep what they counted."""
        for lane in LANES:
            if _limit(config, lane) != _limit(self.config, lane) or config.plan != self.config.plan:
                self._gates[lane] = _gate(config, lane, now_s)
        if (server.block, server.block_s) != (was.block, was.block_s):
            self._blocks = {lane: Block(server) for lane in LANES}
        if (server.user_interval_s, server.count_refused_users) != (was.user_interval_s, was.count_refused_users):
            self.pace = UserPace(server.user_interval_s, count_refused=server.count_refused_users, now_s=now_s)
        if server.application_limit != was.application_limit:
            self.application = ApplicationLimit(server.application_limit, now_s=now_s)
        self.audience = Audience(config)
        self.config = config

    def takes_key(self, token: str | None, *, lane: Lane) -> bool:
        """Whether the token of an Authorization header opens this app; the scheme before it is not looked at."""
        if not token:
            return False
        if lane == "view" and self.config.organisation_key is not None:
            return token == self.config.organisation_key
        return self.config.api_key is None or token == self.config.api_key

    def take(self, lane: Lane, *, now_s: float) -> float:
        """Count a request: 0.0 where it is let through, otherwise the seconds until one would be."""
        return self._blocks[lane].left(now_s) or self._gates[lane].take(now_s)

    def refused(self, lane: Lane, retry_after_s: float, *, now_s: float) -> None:
        """Note that the lane answered 429, after which some servers refuse everything for a while."""
        self._blocks[lane].refused(retry_after_s, now_s=now_s)

    def gate(self, lane: Lane) -> Gate:
        """Return the gate of one lane."""
        return self._gates[lane]

    def is_unseen(self, user_id: str, *, now_s: float) -> bool:
        """Whether a user was created so recently that updates do not find it; the first look starts its clock."""
        if not self.audience.is_new(user_id):
            return False
        return now_s < self._first_seen_s.setdefault(user_id, now_s) + self.config.new_user_lag_s

    def delivered(self, count: int, *, now_s: float) -> None:
        """Count deliveries; where they reach the application limit, the app is disabled from then on."""
        if self.application.add(count, subscribed_users=self.config.subscribed_users, now_s=now_s):
            self.is_disabled = True

    def enable(self, server: MockConfig, *, now_s: float) -> None:
        """Do what a person does in the dashboard: enable the app again, with a fresh window."""
        self.is_disabled = False
        self.application = ApplicationLimit(server.application_limit, now_s=now_s)


def view(app: App) -> Answer:
    """Show the app, as GET /apps/{id} does."""
    people = app.config.subscribed_users
    shown = {"id": app.app_id, "name": app.config.name, "players": people, "messageable_players": people}
    return Answer(200, orjson.dumps(shown))


def _limit(config: AppConfig, lane: Lane) -> LaneLimit:
    limit: LaneLimit = getattr(config, lane)
    return limit


def _gate(config: AppConfig, lane: Lane, now_s: float) -> Gate:
    documented = {
        "create_notification": CREATE_CEILING[config.plan],
        "update_user": UPDATE_CEILING,
        "view": _VIEW_CEILING,
    }
    return Gate(_limit(config, lane), documented=documented[lane], now_s=now_s)
