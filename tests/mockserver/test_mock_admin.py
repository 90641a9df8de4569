"""The endpoints under /__mock__/."""

import pytest

from sendengine.mockserver import AppConfig
from tests.mockserver.raw_client import APP, KEY, Connect, Start


async def test_the_ledger_is_there_for_other_processes(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    await client.notify("a", "b")
    await client.update("u1", {"properties": {"tags": {"t": "1"}}})
    found = (await client.ask("GET", "/__mock__/ledger")).json()
    assert isinstance(found, dict)
    assert (found["notifications"], found["recipients"], found["updates"], found["users"]) == (1, 2, 1, 1)
    assert found["doubled"] == {"effects": 0, "sample": []}
    assert [lane["lane"] for lane in found["lanes"]] == ["create_notification", "update_user"]
    found = (await client.ask("GET", "/__mock__/ledger?doubled=0")).json()
    assert isinstance(found, dict)
    assert found["doubled"] is None


async def test_what_is_asked_about_the_server_is_not_counted(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "503"}], latency_ms=3_600_000)
    client = await connect(server)
    await client.ask("GET", "/__mock__/ledger", headers={"Authorization": ""})
    assert server.summary().lanes == ()


async def test_messages_are_listed(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    for number in range(3):
        await client.notify(f"u{number}", "x", key=KEY if number == 1 else None)
    rows = (await client.ask("GET", f"/__mock__/messages?offset=1&limit=1&recipients=1&app={APP}")).json()
    assert isinstance(rows, list)
    [row] = rows
    assert row["id"] == "5e4de491-0001-4000-8000-000000000001"
    assert (row["app"], row["channel"], row["kind"], row["count"]) == (APP, "push", "external_id", 2)
    assert (row["key"], row["recipients"]) == (KEY.replace("-", ""), ["u1", "x"])
    contents = (await client.ask("GET", "/__mock__/messages")).json()
    assert isinstance(contents, list)
    assert len({row["content"] for row in contents}) == 1
    assert "recipients" not in contents[0]
    assert (await client.ask("GET", "/__mock__/messages?app=other")).json() == []


async def test_deliveries_are_counted_by_recipient(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    await client.notify("a", "b")
    await client.notify("b")
    found = (await client.ask("GET", "/__mock__/deliveries")).json()
    assert found == {"external_id:a": 1, "external_id:b": 2}


async def test_users_are_listed_with_their_updates_in_order(start: Start, connect: Connect) -> None:
    client = await connect(await start(user_interval_s=0))
    bodies = [{"properties": {"tags": {"t": str(number)}}} for number in range(3)]
    for body in bodies:
        await client.update("u1", body)
    await client.update("u2", bodies[0])
    rows = (await client.ask("GET", f"/__mock__/users?app={APP}&label=external_id&id=u1&updates=1")).json()
    assert isinstance(rows, list)
    [row] = rows
    assert (row["id"], row["tags"], row["applied"], row["updates"]) == ("u1", {"t": "2"}, 3, bodies)
    assert len((await client.ask("GET", "/__mock__/users")).body) > 0
    assert (await client.ask("GET", "/__mock__/users?label=crm")).json() == []


async def test_every_request_of_a_lane_can_be_looked_at(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "429", "count": 1, "retry_after": "60"}], hold_grace_ms=0)
    client = await connect(server)
    for _ in range(2):
        await client.notify("a")
    rows = (await client.ask("GET", "/__mock__/requests?lane=create_notification")).json()
    assert isinstance(rows, list)
    [row] = rows
    assert (row["statuses"], len(row["arrivals_s"]), len(row["holds"])) == ([429, 200], 2, 1)
    assert len(row["inside_hold_s"]) == len(row["inside_hold_raw_s"]) == 1
    assert row["user_inside_hold_s"] == []


async def test_settings_are_changed_at_run_time_by_a_merge_patch(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(name="Shop", tag_cap=5))
    client = await connect(server)
    patch = {"recipient_cap": 7, "default": {"tag_cap": None, "plan": "free"}, "apps": {"x": {"api_key": "k"}}}
    reply = await client.ask("POST", "/__mock__/config", patch)
    assert reply.status == 200
    assert (server.config.recipient_cap, server.config.default.tag_cap) == (7, None)
    assert (server.config.default.plan, server.config.default.name) == ("free", "Shop")
    assert server.config.apps["x"].api_key == "k"
    assert (await client.ask("GET", "/__mock__/config")).json() == reply.json()


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"recipient_cap": 0}, "recipient_cap: Expected `int` >= 1"),
        ({"latency": 5}, "unknown field `latency`"),
        ({"faults": [{"kind": "504"}]}, "faults[0].kind: Invalid enum value"),
        ([], "an object"),
        (b"{", "unexpected end of data"),
    ],
)
async def test_settings_that_make_no_sense_change_nothing(
    start: Start, connect: Connect, patch: object, said: str
) -> None:
    server = await start()
    before = server.config
    reply = await (await connect(server)).ask("POST", "/__mock__/config", patch)
    assert reply.status == 400
    assert said in reply.body.decode()
    assert server.config == before


async def test_a_reset_begins_anew(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(subscribed_users=0))
    client = await connect(server)
    first = await client.notify("a", key=KEY)
    assert (await client.notify("b")).status == 429  # disabled
    assert (await client.ask("POST", "/__mock__/reset")).status == 200
    again = await client.notify("a", key=KEY)
    assert again.status == 200
    assert again.json() != first.json()
    assert (await client.ask("POST", f"/__mock__/enable?app={APP}")).status == 200
    assert (await client.notify("b")).status == 200
    assert server.summary().notifications == 2


async def test_unknown_questions_have_no_answer(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    for method, path in [("GET", "secrets"), ("DELETE", "ledger"), ("GET", "reset")]:
        assert (await client.ask(method, f"/__mock__/{path}")).status == 404
    assert (await client.ask("GET", "/__mock__/messages?limit=many")).status == 400


async def test_the_endpoints_can_be_switched_off(start: Start, connect: Connect) -> None:
    server = await start(admin=False)
    assert (await (await connect(server)).ask("GET", "/__mock__/ledger")).status == 404
    assert server.summary().unrouted == 1


@pytest.mark.parametrize(
    ("request_line", "name"),
    [
        ("GET messages?limit=many", "limit"),
        ("GET messages?offset=-1", "offset"),
        ("GET users?limit=inf", "limit"),
        ("POST stop_reading?for_s=nan", "for_s"),
        ("POST stop_reading?for_s=-5", "for_s"),
    ],
)
async def test_a_number_that_makes_no_sense_is_named(
    start: Start, connect: Connect, request_line: str, name: str
) -> None:
    method, _, what = request_line.partition(" ")
    reply = await (await connect(await start())).ask(method, f"/__mock__/{what}")
    assert reply.status == 400
    assert f"{name}: '{what.partition('=')[2]}' is no number from 0 up" in reply.body.decode()
