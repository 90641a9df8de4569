"""Limits on real sockets: used and never broken, and what a lower one, a storm, a user's own and an outage do."""

import asyncio
from pathlib import Path

import pytest

from sendengine import Accepted, Job
from sendengine.core.onesignal import Plan
from sendengine.mockserver import AppConfig, Fault, LaneLimit, MockConfig
from sendengine.mockserver.config import CounterKind, FaultKind
from sendengine.settings import CeilingSettings, StoppingSettings
from tests.support.engines import CREATE, SOON, UPDATE, change, note, now_s
from tests.support.events import listening
from tests.support.mocked import INSTANT_MS, all_accepted, assert_clean, lane, mocked

PATIENT = StoppingSettings(drain_timeout_s=120)
UPDATES = 1000
WARM_UP_LOST_S = 0.03  # of sends, while connections are opened
NOTIFICATIONS: dict[Plan, int] = {"free": 150, "paid": 6000}


def notes(count: int) -> list[Job]:
    """Make notifications that cannot share a request."""
    return [note("a", text=str(number)) for number in range(count)]


def changes(count: int) -> list[Job]:
    """Make changes, each of another user."""
    return [change(f"u{number}", a=1) for number in range(count)]


@pytest.mark.parametrize(
    ("plan", "seconds"), [("free", 3.0), ("paid", 1.1), pytest.param("paid", 10.0, marks=pytest.mark.slow)]
)
async def test_the_documented_limits_of_both_lanes_are_used_and_never_met(
    tmp_path: Path, plan: Plan, seconds: float
) -> None:
    limits = {"create_notification": NOTIFICATIONS[plan], "update_user": UPDATES}
    config = MockConfig(default=AppConfig(plan=plan), latency_ms=30, latency_p99_ms=300)
    jobs = [make(round(limit * seconds)) for make, limit in zip((notes, changes), limits.values(), strict=True)]
    async with mocked(tmp_path, config, app={"plan": plan}, stopping=PATIENT) as (engine, server):
        await asyncio.gather(*(all_accepted(engine, each) for each in jobs))
        found = server.summary()
    assert_clean(found)
    for name, limit in limits.items():
        one = lane(found, name)
        assert (one.requests, one.refused) == (round(limit * seconds), 0)
        assert one.peak_1s <= limit
        took_s = one.last_at_s - one.first_at_s - WARM_UP_LOST_S
        assert (one.requests - 1) / took_s >= 0.97 * limit


@pytest.mark.parametrize(
    ("counter", "rate", "seconds"),
    [
        ("sliding_second", 4000, 2),
        ("sliding_second", 400, 5),
        ("two_windows", 400, 5),
        ("fixed_second", 400, 5),
        ("bucket", 400, 5),
        *[
            pytest.param(counter, 4000, 10, marks=pytest.mark.slow)
            for counter in ("sliding_second", "two_windows", "fixed_second", "bucket")
        ],
    ],
)
async def test_a_lower_true_limit_is_found_without_sending_inside_a_hold(
    tmp_path: Path, counter: CounterKind, rate: int, seconds: int
) -> None:
    """It is two thirds of what the settings have."""
    limit = LaneLimit(rate=rate, counter=counter, burst=rate // 10, count_refused=True)
    config = MockConfig(default=AppConfig(create_notification=limit), latency_ms=30, hold_grace_ms=INSTANT_MS)
    app = {"ceilings": CeilingSettings(create_notification=rate * 1.5)}
    async with mocked(tmp_path, config, app=app, stopping=PATIENT) as (engine, server):
        began_s = now_s()
        await all_accepted(engine, notes(rate * seconds))
        took_s = now_s() - began_s
        found = server.summary()
        stats = engine.stats().lanes[CREATE]
    assert_clean(found)
    assert found.notifications == rate * seconds
    assert stats.throttled == lane(found).refused > 0
    assert stats.throttled <= stats.epochs * 0.1 * rate  # what goes beyond the limit in the time of the wire
    assert stats.epochs <= 2
    assert seconds / took_s >= 0.6  # of the true limit, the pauses included


@pytest.mark.parametrize("retry_after", ["1", "4"])
async def test_two_hundred_refusals_at_once_are_one_event(tmp_path: Path, retry_after: str) -> None:
    storm = Fault(kind="429", lane="create_notification", skip=600, count=200, retry_after=retry_after)
    config = MockConfig(latency_ms=400, hold_grace_ms=INSTANT_MS, faults=(storm,))
    app = {"ceilings": CeilingSettings(create_notification=1000)}
    with listening() as events:
        async with mocked(tmp_path, config, app=app, stopping=PATIENT) as (engine, server):
            await all_accepted(engine, notes(1300))
            stats = engine.stats().lanes[CREATE]
            found = server.summary()
    assert (stats.throttled, stats.epochs) == (200, 1)
    assert len([fields for fields in events.fields("rate_change") if fields["hold_s"]]) == 1
    assert_clean(found)
    assert found.notifications == 1300


async def test_one_users_limit_slows_that_user_only(tmp_path: Path) -> None:
    config = MockConfig(user_interval_s=2.5, latency_ms=10, hold_grace_ms=INSTANT_MS)
    async with mocked(tmp_path, config, stopping=PATIENT) as (engine, server):
        assert isinstance(await engine.send(change("slow", a=1)), Accepted)
        slow = await engine.submit(change("slow", a=2))  # goes a second later, which is too early here
        await all_accepted(engine, changes(2000))
        assert isinstance(await slow, Accepted)
        found = server.summary()
        stats = engine.stats().lanes[UPDATE]
    assert_clean(found)
    assert lane(found, "update_user").user_refusals == 1
    assert (stats.throttled, stats.epochs) == (1, 0)
    assert found.updates == 2002


@pytest.mark.parametrize("kind", ["outage_reset", "outage_refuse"])
async def test_an_outage_is_outlived_and_nothing_is_lost_or_doubled(tmp_path: Path, kind: FaultKind) -> None:
    outage = Fault(kind=kind, from_s=0.3, until_s=120)
    config = MockConfig(latency_ms=20, faults=(outage,))
    app = {"ceilings": CeilingSettings(create_notification=300, update_user=200)}
    with listening() as events:
        async with mocked(tmp_path, config, app=app, retry=SOON, stopping=PATIENT) as (engine, server):
            await all_accepted(engine, [*notes(600), *changes(400)])
            found = server.summary()
    told = [name for name in events.names if name.startswith("outage")]
    assert told == ["outage"] * 2 + ["outage_over"] * 2  # a lane each
    assert_clean(found)
    assert (found.notifications, found.users) == (600, 400)
    assert found.outage_resets <= 60 + 2 * 102  # what was under way, and probes: one a second, and fewer after a minute
    assert found.now_s <= 120 + 2 + 1 + 2  # a probe, a pause before the next connection, and what was left
