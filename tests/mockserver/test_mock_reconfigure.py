"""Settings that change while the server runs: what they touch begins anew, and nothing else."""

import pytest

from sendengine.errors import SettingsError
from sendengine.mockserver import AppConfig, MockConfig
from tests.mockserver.raw_client import APP, KEY, Connect, Start, happened

OTHER = "33333333-1a58-489e-b136-7c74a864b434"


async def test_whole_settings_may_be_replaced(start: Start, connect: Connect) -> None:
    server = await start(recipient_cap=1)
    client = await connect(server)
    assert (await client.notify("a", "b")).status == 400
    server.configure(MockConfig(recipient_cap=2))
    assert (await client.notify("a", "b")).status == 200
    server.configure(MockConfig(), recipient_cap=1)
    assert (await client.notify("a", "b")).status == 400


async def test_the_users_pace_changes_at_once(start: Start, connect: Connect) -> None:
    server = await start(user_interval_s=3600)
    client = await connect(server)
    assert [(await client.update("u1", {})).status for _ in range(2)] == [202, 429]
    server.configure(latency_ms=0.001)
    assert (await client.update("u1", {})).status == 429
    server.configure(user_interval_s=0)
    assert [(await client.update("u1", {})).status for _ in range(2)] == [202, 202]
    server.configure(user_interval_s=3600, count_refused_users=True)
    assert [(await client.update("u1", {})).status for _ in range(2)] == [202, 429]


async def test_another_kind_of_block_forgets_the_old_one(start: Start, connect: Connect) -> None:
    server = await start(block="hold", block_s=3600, faults=[{"kind": "429", "count": 1}])
    client = await connect(server)
    assert [(await client.notify("a")).status for _ in range(2)] == [429, 429]
    server.configure(block="none")
    assert (await client.notify("a")).status == 200


async def test_another_application_limit_counts_from_nothing_and_enables_nobody(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(subscribed_users=1))
    client = await connect(server)
    nine = [str(number) for number in range(9)]
    assert (await client.notify(*nine)).status == 200
    server.configure(application_limit="static")
    assert (await client.notify(*nine)).status == 200
    assert (await client.notify("one more")).status == 200  # ten of ten in the new window
    server.configure(application_limit="rolling")
    assert (await client.notify("a")).status == 429
    server.configure(default={"subscribed_users": 1000})
    assert (await client.notify("a")).status == 429  # a person must enable it
    server.enable(APP)
    assert (await client.notify("a")).status == 200


async def test_an_app_that_was_never_seen_can_be_enabled(start: Start) -> None:
    server = await start(apps={APP: {}}, strict_apps=True)
    server.enable(APP)
    server.enable(OTHER)
    assert server.summary().disabled_apps == ()


async def test_apps_that_are_no_longer_listed_are_gone(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    assert (await client.notify("a", app=OTHER)).status == 200
    server.configure(apps={APP: {}}, strict_apps=True)
    assert (await client.notify("a", app=OTHER)).status == 400
    assert (await client.notify("a")).status == 200
    assert server.summary().notifications == 2  # the ledger keeps what was


async def test_keys_and_users_outlive_a_change_and_not_a_reset(start: Start, connect: Connect) -> None:
    server = await start(user_interval_s=0)
    client = await connect(server)
    await client.notify("a", key=KEY)
    await client.update("u1", {"properties": {"tags": {"t": "1"}}})
    server.configure(default={"plan": "free"}, latency_ms=0.001)
    assert "Idempotent-Replayed" in (await client.notify("a", key=KEY)).headers
    assert server.summary().users == 1
    server.reset()
    assert "Idempotent-Replayed" not in (await client.notify("a", key=KEY)).headers
    assert (server.summary().users, server.config.default.plan) == (0, "free")


async def test_a_reset_while_a_reply_is_on_its_way_does_not_count_it_again(start: Start, connect: Connect) -> None:
    server = await start(latency_ms=20, key_counts="completion")
    client = await connect(server)
    client.send("POST", "/notifications", {"app_id": APP, "included_segments": ["All"], "contents": {"en": "Hi"}})
    await happened(lambda: len(server.ledger.messages) == 1)
    server.reset()
    assert (await client.read()).status == 200
    assert server.summary().notifications == 0


async def test_faults_count_from_when_they_were_set(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "503", "count": 1}])
    client = await connect(server)
    assert [(await client.notify("a")).status for _ in range(2)] == [503, 200]
    server.configure(recipient_cap=5)
    assert (await client.notify("a")).status == 200  # the same faults: used up
    server.configure(faults=[{"kind": "503", "count": 1}, {"kind": "500", "count": 1}])
    assert [(await client.notify("a")).status for _ in range(3)] == [503, 500, 200]


@pytest.mark.parametrize("changes", [{"default": {"plan": "gold"}}, {"faults": [{}]}, {"surprise": 1}])
async def test_what_makes_no_sense_changes_nothing(start: Start, changes: dict[str, object]) -> None:
    server = await start(recipient_cap=7)
    with pytest.raises(SettingsError, match="mock server"):
        server.configure(**changes)
    assert server.config == MockConfig(recipient_cap=7)
