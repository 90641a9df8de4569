"""Apps: keys, plans, several of them, the view of one, and one that is disabled."""

import pytest

from sendengine.mockserver import AppConfig, LaneLimit
from tests.mockserver.raw_client import APP, KEY, Client, Connect, Start

SHOP = "22222222-1a58-489e-b136-7c74a864b434"
DENIED = (
    "Access denied.  Please include an 'Authorization: ...' header with a valid API key "
    "(https://documentation.onesignal.com/docs/en/keys-and-ids#api-keys)."
)
DISABLED = {"errors": ["API rate limit exceeded. See the RateLimit response headers for more details."]}


async def with_key(client: Client, authorization: str) -> list[int]:
    headers = {"Authorization": authorization}
    body = {"app_id": APP, "contents": {"en": "Hi"}, "included_segments": ["All"]}
    return [
        (await client.ask("POST", "/notifications", body, headers=headers)).status,
        (await client.ask("PATCH", f"/apps/{APP}/users/by/external_id/u1", {}, headers=headers)).status,
        (await client.ask("GET", f"/apps/{APP}", headers=headers)).status,
    ]


async def test_the_token_decides_and_the_scheme_does_not(start: Start, connect: Connect) -> None:
    server = await start(apps={APP: {"api_key": "secret"}}, user_interval_s=0)
    client = await connect(server)
    for authorization in ("Key secret", "key secret", "Basic secret", "Bearer secret", "secret"):
        assert await with_key(client, authorization) == [200, 202, 200]
    for authorization in ("Key wrong", ""):
        assert await with_key(client, authorization) == [403, 401, 403]


async def test_any_key_is_taken_where_none_is_set_but_one_must_be_there(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    assert await with_key(client, "Key whatever") == [200, 202, 200]
    assert await with_key(client, "") == [403, 401, 403]


async def test_an_organisation_key_may_be_needed_to_view_an_app(start: Start, connect: Connect) -> None:
    client = await connect(await start(apps={APP: {"api_key": "secret", "organisation_key": "org"}}))
    assert await with_key(client, "Key secret") == [200, 202, 403]
    assert await with_key(client, "Key org") == [403, 401, 200]


@pytest.mark.parametrize(
    ("switch", "status", "body"),
    [("403", 403, {"errors": [DENIED]}), ("400", 400, {"errors": [DENIED]}), ("403_empty", 403, {})],
)
async def test_a_wrong_key_is_refused_in_one_of_the_ways_that_were_seen(
    start: Start, connect: Connect, switch: str, status: int, body: object
) -> None:
    server = await start(default=AppConfig(api_key="secret"), key_refusal=switch)
    client = await connect(server)
    reply = await client.notify("a")
    assert (reply.status, reply.json()) == (status, body)
    assert reply.headers["Content-Type"] == (
        "text/plain" if switch == "403_empty" else "application/json; charset=utf-8"
    )
    reply = await client.update("u1", {})
    assert reply.json() == {
        "errors": [{"code": "auth-1", "title": "This operation requires 'Authorization' in the HTTP header"}]
    }


async def test_a_key_can_be_replaced_at_run_time(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(api_key="old"))
    client = await connect(server)
    assert (await with_key(client, "Key new"))[0] == 403
    server.configure(default={"api_key": "new"})
    assert (await with_key(client, "Key new"))[0] == 200


async def test_the_plan_decides_the_channels(start: Start, connect: Connect) -> None:
    client = await connect(await start(default=AppConfig(channels=("push",))))
    assert (await client.notify("a")).status == 200
    for channel in ("email", "sms"):
        reply = await client.notify("a", target_channel=channel, template_id=KEY)
        assert (reply.status, reply.json()) == (
            403,
            {"errors": ["This API is not available for applications on your plan."]},
        )


async def test_apps_have_limits_keys_and_users_of_their_own(start: Start, connect: Connect) -> None:
    limits = AppConfig(api_key="k", plan="free", create_notification=LaneLimit(rate=1, counter="bucket", burst=1))
    server = await start(apps={SHOP: limits})
    client = await connect(server)
    statuses = [(await client.notify("a", app=app)).status for app in (SHOP, SHOP, APP, APP)]
    assert statuses == [200, 429, 200, 200]
    assert (await client.update("u1", {}, app=SHOP)).status == 202
    assert (await client.update("u1", {}, app=APP)).status == 202
    lanes = {(lane.app, lane.lane): lane.replies for lane in server.summary().lanes}
    assert lanes == {
        (SHOP, "create_notification"): {"200": 1, "429": 1},
        (APP, "create_notification"): {"200": 2},
        (SHOP, "update_user"): {"202": 1},
        (APP, "update_user"): {"202": 1},
    }


@pytest.mark.parametrize(("plan", "rate"), [("free", 150), ("paid", 6000)])
async def test_the_plan_decides_the_limit_of_notifications(
    start: Start, connect: Connect, plan: str, rate: int
) -> None:
    server = await start(default={"plan": plan})
    await (await connect(server)).notify("a")
    app = server.world.apps[APP]
    assert (app.gate("create_notification").rate, app.gate("update_user").rate) == (rate, 1000)


async def test_unlisted_apps_are_refused_where_the_list_is_strict(start: Start, connect: Connect) -> None:
    client = await connect(await start(apps={SHOP: {}}, strict_apps=True))
    assert (await client.notify("a", app=SHOP)).status == 200
    assert (await client.notify("a")).status == 400
    assert (await client.update("u1", {})).status == 404
    assert (await client.ask("GET", f"/apps/{APP}")).status == 404


async def test_an_app_shows_its_name_and_whom_it_can_reach(start: Start, connect: Connect) -> None:
    client = await connect(await start(default=AppConfig(name="The shop", subscribed_users=1234)))
    reply = await client.ask("GET", f"/apps/{APP}")
    assert (reply.status, reply.json()) == (
        200,
        {"id": APP, "name": "The shop", "players": 1234, "messageable_players": 1234},
    )


@pytest.mark.parametrize("window", ["rolling", "static", "off"])
async def test_reaching_the_application_limit_disables_the_app_until_it_is_enabled(
    start: Start, connect: Connect, window: str
) -> None:
    server = await start(default=AppConfig(subscribed_users=10), application_limit=window)
    client = await connect(server)
    ids = [f"u{number}" for number in range(50)]
    assert [(await client.notify(*ids, key=key)).status for key in (KEY, None)] == [200, 200]  # 100 of 100
    reply = await client.notify("u1")
    if window == "off":
        assert reply.status == 200
        return
    assert (reply.status, reply.json(), reply.headers.get("Retry-After")) == (429, DISABLED, None)
    assert (await client.notify(*ids, key=KEY)).headers["Idempotent-Replayed"] == "true"
    assert (await client.update("u1", {})).status == 202
    assert server.summary().disabled_apps == (APP,)
    assert server.summary().most_deliveries_in_window == 100
    server.configure(disabled_status=400)
    assert (await client.notify("u1")).status == 400
    server.enable(APP)
    assert (await client.notify("u1")).status == 200
