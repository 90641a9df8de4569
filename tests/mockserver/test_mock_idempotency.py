"""Idempotency keys: the first success again, and when a key begins to count."""

from sendengine.mockserver import AppConfig
from tests.mockserver.raw_client import APP, KEY, Connect, Start, happened

OTHER_APP = "11111111-1a58-489e-b136-7c74a864b434"


async def test_a_repeat_gets_the_first_success_and_delivers_nothing(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(unsubscribed=frozenset({"b"})))
    client = await connect(server)
    first = await client.notify("a", "b", key=KEY)
    again = await client.notify("a", "b", key=KEY)
    assert (again.status, again.json()) == (200, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    found = server.summary()
    assert (found.notifications, found.recipients, found.replays, found.reused_keys) == (1, 1, 1, 0)


async def test_other_content_under_the_same_key_is_dropped_silently_and_counted(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    first = await client.notify("a", key=KEY)
    others: list[dict[str, object]] = [
        {"contents": {"en": "Other"}},
        {"include_aliases": {"external_id": ["c"]}},
        {"contents": {}},
    ]
    for fields in others:
        again = await client.notify("a", key=KEY, **fields)
        assert (again.status, again.json()) == (200, first.json())
    assert (server.ledger.replays, server.ledger.reused_keys) == (3, 3)
    assert server.ledger.messages.deliveries() == {"external_id:a": 1}


async def test_the_old_name_of_the_key_is_taken(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    first = await client.notify("a", external_id=KEY)
    again = await client.notify("a", key=KEY.upper())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.json() == {"id": "5e4de491-0001-4000-8000-000000000000", "external_id": KEY}


async def test_a_header_has_no_effect(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    body = {"app_id": APP, "contents": {"en": "Hi"}, "target_channel": "push", "include_aliases": {"crm": ["1"]}}
    for _ in range(2):
        await client.ask("POST", "/notifications", body, headers={"Idempotency-Key": KEY})
    assert len(server.ledger.messages) == 2
    assert server.ledger.messages.doubled().effects == 1


async def test_keys_of_one_app_are_not_those_of_another(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    for app in (APP, OTHER_APP):
        assert "Idempotent-Replayed" not in (await client.notify("a", key=KEY, app=app)).headers
    assert len(server.ledger.messages) == 2
    assert server.ledger.messages.doubled().effects == 0


async def test_only_a_success_is_kept_under_a_key(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "503", "count": 1}, {"kind": "429", "count": 1}])
    client = await connect(server)
    statuses = [(await client.notify("a", key=KEY)).status for _ in range(2)]
    statuses.append((await client.notify("a", key=KEY, contents={})).status)
    statuses.append((await client.notify("a", key=KEY)).status)
    assert statuses == [503, 429, 400, 200]
    assert (server.ledger.replays, len(server.ledger.messages)) == (0, 1)


async def test_a_key_that_counts_on_arrival_covers_a_request_that_is_still_worked_on(
    start: Start, connect: Connect
) -> None:
    server = await start(faults=[{"kind": "hang", "count": 1}], key_counts="arrival")
    (await connect(server)).send("POST", "/notifications", notification())
    await happened(lambda: server.ledger.requests("create_notification") == 1)
    again = await (await connect(server)).ask("POST", "/notifications", notification())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (len(server.ledger.messages), server.summary().lanes[0].effects) == (1, 1)


async def test_a_key_that_counts_on_completion_lets_a_hasty_repeat_through(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "stall", "count": 1, "delay_s": 0.05}], key_counts="completion")
    hasty, slow = await connect(server), await connect(server)
    slow.send("POST", "/notifications", notification())
    await happened(lambda: server.ledger.requests("create_notification") == 1)
    first = await hasty.ask("POST", "/notifications", notification())
    assert "Idempotent-Replayed" not in first.headers
    await slow.read()
    later = await hasty.ask("POST", "/notifications", notification())
    assert (later.headers["Idempotent-Replayed"], later.json()) == ("true", first.json())
    found = server.summary()
    assert (found.notifications, found.doubled_keys, found.replays) == (2, 1, 1)
    assert found.doubled is not None
    assert (found.doubled.effects, found.doubled.sample) == (1, ("external_id:a",))


def notification() -> dict[str, object]:
    return {
        "app_id": APP,
        "contents": {"en": "Hi"},
        "target_channel": "push",
        "include_aliases": {"external_id": ["a"]},
        "idempotency_key": KEY,
    }
