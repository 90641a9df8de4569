"""What a person is shown of a run while it goes on: one glance in, lines of text out.

Units: ``_s`` seconds, ``_ms`` milliseconds; rates are requests a second.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from sendengine.cli.output import ceiling, duration
from sendengine.telemetry.snapshots import LaneStats

_BAR_WIDTH: Final = 48
_SPAN_S: Final = 3.0  # what "now" means: long enough to be calm, short enough to see a hold
_ETA_SPAN_S: Final = 30.0
_HEAD: Final = " now/s ceiling in flight waiting p50 ms p99 ms  429s retries"  # 60 columns, as narrow as terminals are


class Glance(Struct, frozen=True):
    """A run at one instant, ``taken_at_s`` since the epoch. ``noun`` says what is counted: recipients or jobs."""

    name: str
    noun: str
    done: int
    total: int | None
    lanes: Mapping[str, LaneStats]
    taken_at_s: float


class Speed:
    """How fast a count grows, over a span that ends now."""

    __slots__ = ("_marks", "_span_s")

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._marks: deque[tuple[float, int]] = deque()

    def note(self, count: int, *, now_s: float) -> float:
        """Take note of the count, and return its growth a second; 0 before there are two marks."""
        marks = self._marks
        marks.append((now_s, count))
        while len(marks) > 1 and marks[1][0] <= now_s - self._span_s:
            marks.popleft()  # one mark at or before the start of the span stays
        since_s, before = marks[0]
        return (count - before) / (now_s - since_s) if now_s > since_s else 0.0


class Teller:
    """Turns glances into text; keeps what it needs to tell speeds."""

    __slots__ = ("_done", "_lanes", "_started_at_s")

    def __init__(self, *, now_s: float) -> None:
        self._started_at_s = now_s
        self._done = Speed(_ETA_SPAN_S)
        self._lanes: dict[str, Speed] = {}

    def screen(self, glance: Glance, *, now_s: float) -> str:
        """Several lines for a terminal, the same number every time as long as the lanes are the same."""
        lines = [f"{glance.name}  {_done(glance)}", _bar(glance), _HEAD]
        for name, lane in glance.lanes.items():
            rate = self._rate(name, lane, now_s=now_s)
            lines.append(f"{name}  {_hold(lane, now_s=glance.taken_at_s)}".rstrip())
            lines.append(
                f"{rate:>6,.0f} {ceiling(lane.ceiling):>7} {lane.in_flight:>9,} {lane.depth:>7,}"
                f" {lane.latency_p50_ms:>6,.0f} {lane.latency_p99_ms:>6,.0f} {lane.throttled:>5,} {lane.retries:>7,}"
            )
        left_s = self._left_s(glance, now_s=now_s)
        gone = duration(now_s - self._started_at_s)
        lines.append(f"{gone} gone{_left(left_s)}")  # short, since a terminal writes ^C behind it
        return "\n".join(lines)

    def line(self, glance: Glance, *, now_s: float) -> str:
        """One plain line, for a log."""
        left_s = self._left_s(glance, now_s=now_s)
        parts = [f"{glance.name}: {_done(glance)}"]
        for name, lane in glance.lanes.items():
            rate = self._rate(name, lane, now_s=now_s)
            hold = _hold(lane, now_s=glance.taken_at_s)
            parts.append(
                f"{name} {rate:,.0f}/s of {ceiling(lane.ceiling)}, {lane.in_flight:,} in flight, "
                f"p50 {lane.latency_p50_ms:,.0f} ms, p99 {lane.latency_p99_ms:,.0f} ms, {lane.throttled:,} 429s, "
                f"{lane.retries:,} retries" + (f", {hold}" if hold else "")
            )
        return "; ".join(parts) + _left(left_s)

    def _rate(self, name: str, lane: LaneStats, *, now_s: float) -> float:
        if name not in self._lanes:
            self._lanes[name] = Speed(_SPAN_S)
        return self._lanes[name].note(lane.requests, now_s=now_s)

    def _left_s(self, glance: Glance, *, now_s: float) -> float | None:
        speed = self._done.note(glance.done, now_s=now_s)
        if glance.total is None or glance.done >= glance.total or not speed:
            return None
        return (glance.total - glance.done) / speed


def _done(glance: Glance) -> str:
    if glance.total is None:
        return f"{glance.done:,} {glance.noun}"
    percent = f" ({100 * glance.done / glance.total:.0f} %)" if glance.total else ""
    return f"{glance.done:,} of {glance.total:,} {glance.noun}{percent}"


def _left(left_s: float | None) -> str:
    return "" if left_s is None else f", about {duration(left_s)} left"


def _bar(glance: Glance) -> str:
    share = min(1.0, glance.done / glance.total) if glance.total else 0.0
    filled = int(share * _BAR_WIDTH)
    return f"[{'█' * filled}{'░' * (_BAR_WIDTH - filled)}]"


def _hold(lane: LaneStats, *, now_s: float) -> str:
    """Why nothing goes, and until when; empty while it goes."""
    if lane.hold is None:
        return ""
    if lane.hold_until_s is None:
        return f"held: {lane.hold}"
    return f"held for {duration(max(0.0, lane.hold_until_s - now_s))}: {lane.hold}"
