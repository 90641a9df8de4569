"""Snapshots are values."""

import msgspec
import pytest

from sendengine.telemetry.snapshots import AppStats, EngineStats, LaneStats

LANE = LaneStats(
    depth=3, oldest_age_s=0.5, rate=4000.0, ceiling=6000.0, hold=None, hold_until_s=None, in_flight=600,
    connections=650, requests=12_000, replies={200: 11_400}, retries=2, throttled=0, epochs=0, most_in_one_second=5940,
    latency_p50_ms=100.4, latency_p99_ms=210.0, latency_max_ms=400.0, share_of_application_limit=0.25,
)  # fmt: skip
APP = AppStats(
    held=None, subscribed_users=1000, delivered=2500, application_limit=7000,
    connections=4, streams=400, protocol="h2",
)  # fmt: skip


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        LANE.depth = 4  # type: ignore[misc]  # what must not work


def test_a_snapshot_is_rendered_as_json_by_its_names() -> None:
    stats = EngineStats(
        taken_at_s=1_800_000_000.0,
        lanes={"shop/create_notification": LANE},
        apps={"shop": APP},
        longest_pause_s=0.012,
    )
    rendered = msgspec.to_builtins(stats, str_keys=True)
    assert rendered["lanes"]["shop/create_notification"]["replies"] == {"200": 11_400}
    assert rendered["apps"]["shop"] == {
        "held": None, "held_channels": (), "subscribed_users": 1000, "delivered": 2500, "application_limit": 7000,
        "connections": 4, "streams": 400, "protocol": "h2",
    }  # fmt: skip
