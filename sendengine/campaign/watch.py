"""Looks, during a run, for what makes going on pointless: an app that is held, an outage that lasts.

Units: seconds on the running loop's clock.
"""

from collections.abc import Collection, Mapping

from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.snapshots import AppStats

_SERVER_FAULT = 500


def held_app(apps: Mapping[str, AppStats], *, used: Collection[str | None]) -> str | None:
    """Say which of the apps in use is held, and why; None where none is. None among ``used`` is the only app."""
    for name, app in apps.items():
        if name not in used and None not in used:
            continue
        if app.held is not None:
            return f"app {name!r} is held: {app.held}"
        if app.held_channels:
            return f"app {name!r}: OneSignal refuses {', '.join(app.held_channels)} to it; check the plan and the key"
    return None


class OutageWatch:
    """Tells when a lane has had failures and no answer, a reply below 500, for too long."""

    __slots__ = ("_answers", "_failures", "_max_s", "_since_s")

    def __init__(self, *, max_s: float) -> None:
        self._max_s = max_s
        self._answers: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._since_s: dict[str, float] = {}

    def look(self, lanes: Mapping[str, LaneCounters], *, now_s: float) -> str | None:
        """Return which lane has been out for too long, for how long, and what it met; None where none has."""
        for name, lane in lanes.items():
            answers = sum(count for status, count in lane.replies.items() if status < _SERVER_FAULT)
            failures = lane.not_sent + lane.lost + sum(lane.replies.values()) - answers
            if answers != self._answers.get(name, 0):
                self._since_s.pop(name, None)
            elif failures != self._failures.get(name, 0):
                self._since_s.setdefault(name, now_s)
            self._answers[name], self._failures[name] = answers, failures
            out_s = now_s - self._since_s.get(name, now_s)
            if out_s > self._max_s:
                met = f": {lane.failure}" if lane.failure else ""
                return f"{name} has had no answer for {out_s:,.0f} s{met}; `sendengine doctor` looks closer"
        return None
