"""The ledger in numbers, and as lines for a person."""

from collections import Counter
from typing import Final

from sendengine.mockserver.config import Lane
from sendengine.mockserver.ledger import NO_REPLY, LaneLedger, LaneSummary, Summary
from sendengine.mockserver.world import World

_THROTTLED: Final = 429


def sum_up(world: World, *, doubled: bool = True) -> Summary:
    """Sum up the ledger. ``doubled`` looks for doubled effects: a second or so for each million recipients."""
    ledger = world.ledger
    apps = world.apps.values()
    return Summary(
        now_s=round(world.now_s(), 3),
        connections=ledger.connections,
        http2_connections=ledger.http2_connections,
        most_connections=ledger.most_connections,
        refused_streams=ledger.refused_streams,
        lanes=tuple(_lane(world, app_id, lane, found) for (app_id, lane), found in ledger.lanes.items()),
        notifications=len(ledger.messages),
        recipients=ledger.recipients,
        nobody_reached=ledger.nobody_reached,
        named=ledger.named,
        replays=ledger.replays,
        reused_keys=ledger.reused_keys,
        doubled_keys=ledger.doubled_keys,
        doubled=ledger.messages.doubled() if doubled else None,
        users=sum(len(app.profiles) for app in apps),
        updates=ledger.updates,
        most_recipients=ledger.most_recipients,
        most_modifications=ledger.most_modifications,
        most_deliveries_in_window=max((app.application.most_seen for app in apps), default=0),
        disabled_apps=tuple(app.app_id for app in apps if app.is_disabled),
        faults=dict(ledger.faults),
        outage_resets=ledger.outage_resets,
        unrouted=ledger.unrouted,
        unparsable=ledger.unparsable,
        unread_replies=ledger.unread_replies,
    )


def summary_lines(found: Summary) -> list[str]:
    """Return the summary as lines for a person, the suspicious ones marked with an exclamation mark."""
    lines = [line for lane in found.lanes for line in _lane_lines(lane)]
    lines.append(
        f"notifications: {found.notifications:,}, recipients: {found.recipients:,}, {found.replays:,} replayed, "
        f"{found.named:,} ids named, {found.nobody_reached:,} reached nobody"
    )
    lines.append(f"user updates: {found.updates:,}, users: {found.users:,}")
    over = f"{found.http2_connections:,} of them speak HTTP/2"
    lines.append(f"connections: {found.connections:,} opened, {found.most_connections:,} at once, {over}")
    if found.faults or found.outage_resets:
        met = Counter(found.faults) + Counter(outage=found.outage_resets)
        lines.append("faults: " + ", ".join(f"{kind} {count:,}" for kind, count in met.most_common()))
    lines += [f"! {text}" for text in _suspicions(found)]
    return lines


def _suspicions(found: Summary) -> list[str]:
    """Say what a client that keeps the rules never causes."""
    texts = []
    if found.doubled and found.doubled.effects:
        sample = ", ".join(found.doubled.sample[:3])
        texts = [f"deliveries of the same content to the same recipient: {found.doubled.effects:,}, such as {sample}"]
    counts = [
        (found.doubled_keys, "idempotency keys carried out twice"),
        (found.reused_keys, "idempotency keys reused for other content, which was dropped"),
        (sum(lane.inside_hold + lane.user_inside_hold for lane in found.lanes), "requests inside a Retry-After"),
        (found.refused_streams, "requests beyond a connection's limit of streams"),
        (found.unrouted, "requests to unknown paths"),
        (found.unparsable, "connections or requests that were no HTTP"),
    ]
    texts += [f"{text}: {count:,}" for count, text in counts if count]
    return texts + [f"app {app_id} is disabled: it reached the application limit" for app_id in found.disabled_apps]


def _lane_lines(lane: LaneSummary) -> list[str]:
    statuses = ", ".join(f"{status} {count:,}" for status, count in sorted(lane.replies.items()))
    spell_s = lane.last_at_s - lane.first_at_s
    mean = f", {lane.requests / spell_s:,.0f}/s on average" if spell_s >= 1 else ""
    name = f"{lane.app or '(no app)'} {lane.lane}"
    lines = [f"{name}, requests: {lane.requests:,} ({statuses}), {lane.peak_1s:,} in the busiest second{mean}"]
    if lane.refused:
        lines.append(f"  429s: {lane.refused:,}, of them {lane.user_refusals:,} for a user; holds: {lane.holds:,}")
    if lane.foreign_offered:
        lines.append(f"  the other client: {lane.foreign_taken:,} of {lane.foreign_offered:,} requests taken")
    return lines


def _lane(world: World, app_id: str, lane: Lane, found: LaneLedger) -> LaneSummary:
    counts = found.counts
    app = world.apps.get(app_id)
    gate = app.gate(lane) if app else None
    return LaneSummary(
        app=app_id,
        lane=lane,
        requests=len(found.arrivals),
        http2=found.http2,
        replies={"none" if status == NO_REPLY else str(status): count for status, count in sorted(counts.items())},
        accepted=sum(count for status, count in counts.items() if 200 <= status < 300),  # noqa: PLR2004  # 2xx
        effects=found.effects,
        refused=found.count(_THROTTLED),
        user_refusals=found.user_refusals,
        peak_1s=found.peak_1s,
        accepted_peak_1s=found.accepted_peak_1s,
        holds=len(found.holds),
        inside_hold=len(found.inside_hold),
        inside_hold_raw=len(found.inside_hold_raw),
        user_inside_hold=len(found.user_inside_hold),
        foreign_offered=gate.foreign_offered if gate else 0,
        foreign_taken=gate.foreign_taken if gate else 0,
        first_at_s=found.arrivals[0] if found.arrivals else 0.0,
        last_at_s=found.arrivals[-1] if found.arrivals else 0.0,
    )
