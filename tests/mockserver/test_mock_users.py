"""Update user over a socket: what is applied, and what is refused."""

import asyncio
from urllib.parse import quote

import pytest

from sendengine.mockserver import AppConfig
from tests.mockserver.raw_client import APP, Connect, Start

TOO_MANY = "Please limit your tag updates to 100 per request"


def tags(**values: object) -> dict[str, object]:
    return {"properties": {"tags": values}}


async def test_an_update_is_accepted_and_echoed(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    body = {"properties": {"tags": {"level": "5"}, "language": "en"}}
    reply = await client.update("u1", body)
    assert (reply.status, reply.json()) == (202, body)


async def test_tags_are_set_and_deleted_properties_set_and_deltas_added(start: Start, connect: Connect) -> None:
    server = await start(user_interval_s=0)
    client = await connect(server)
    bought = {"sku": "a1", "amount": "9.99", "iso": "EUR"}
    for body in [
        {"properties": {"tags": {"a": "1", "b": 2, "c": True, "d": "x"}, "language": "de"}},
        {"properties": {"tags": {"a": "", "b": "3", "e": None}}, "deltas": {"session_count": 2, "session_time": 30}},
        {"properties": {"language": "en"}, "deltas": {"session_count": 1, "purchases": [bought]}},
        {"deltas": {"purchases": [bought]}},
    ]:
        assert (await client.update("u1", body)).status == 202
    user = server.world.apps[APP].profiles.find("external_id", "u1")
    assert user is not None
    assert (user.tags, user.properties) == ({"b": "3", "c": "true", "d": "x"}, {"language": "en"})
    assert (user.session_count, user.session_time, user.purchases) == (3, 30, [bought, bought])
    assert (user.applied, len(user.updates)) == (4, 4)
    assert user.updates[3] == b'{"deltas":{"purchases":[{"sku":"a1","amount":"9.99","iso":"EUR"}]}}'
    assert (server.ledger.updates, server.summary().users) == (4, 1)


async def test_the_updates_themselves_need_not_be_kept(start: Start, connect: Connect) -> None:
    server = await start(keep_updates=False)
    await (await connect(server)).update("u1", tags(a="1"))
    user = server.world.apps[APP].profiles.find("external_id", "u1")
    assert user is not None
    assert (user.applied, user.updates) == (1, [])


@pytest.mark.parametrize("user", ["a/b", "späß 100%", "日本", "a%2Fb", "+", "x?y#z"])
async def test_ids_and_labels_arrive_whole(start: Start, connect: Connect, user: str) -> None:
    server = await start()
    client = await connect(server)
    reply = await client.update(quote(user, safe=""), tags(a="1"), label=quote("my/label ü", safe=""))
    assert reply.status == 202
    assert [name for name, _ in server.world.apps[APP].profiles] == [("my/label ü", user)]


@pytest.mark.parametrize(("user", "status"), [("%FF", 400), ("a/b", 404), ("", 400), ("x" * 129, 400), ("NA", 400)])
async def test_an_id_that_cannot_be_is_refused(start: Start, connect: Connect, user: str, status: int) -> None:
    server = await start()
    assert (await (await connect(server)).update(user, tags(a="1"))).status == status
    assert server.ledger.updates == 0


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        (tags(**{f"t{n}": "1" for n in range(100)}), 100),
        (tags(**{f"t{n}": "" for n in range(101)}), 101),
        ({"properties": {"tags": {f"t{n}": "1" for n in range(99)}, "language": "en"}}, 100),
        ({"properties": {"tags": {f"t{n}": "1" for n in range(99)}, "language": "en", "country": "DE"}}, 101),
        ({"properties": {"tags": {f"t{n}": "1" for n in range(99)}}, "deltas": {"session_count": 1}}, 100),
        (
            {
                "properties": {"tags": {f"t{n}": "1" for n in range(98)}},
                "deltas": {"session_time": 1, "purchases": [{"sku": "a", "amount": "1", "iso": "EUR"}] * 2},
            },
            101,
        ),
    ],
)
async def test_a_hundred_modifications_and_no_more(
    start: Start, connect: Connect, body: dict[str, object], counted: int
) -> None:
    server = await start()
    reply = await (await connect(server)).update("u1", body)
    assert server.ledger.most_modifications == counted
    assert reply.status == (202 if counted <= 100 else 400)
    if counted > 100:
        assert reply.json() == {"errors": [TOO_MANY], "success": False}


async def test_tags_alone_may_count(start: Start, connect: Connect) -> None:
    client = await connect(await start(modifications="tags"))
    many = {f"t{n}": "1" for n in range(100)}
    assert (await client.update("u1", {"properties": {"tags": many, "language": "en"}})).status == 202


@pytest.mark.parametrize("status", [400, 409])
async def test_a_tag_cap_needs_deletions_in_a_request_before(start: Start, connect: Connect, status: int) -> None:
    server = await start(default=AppConfig(tag_cap=2), tag_cap_status=status, user_interval_s=0)
    client = await connect(server)
    for body, expected in [
        (tags(a="1", b="1", c="1"), status),
        (tags(a="1", b="1"), 202),
        (tags(a="2", b="2"), 202),  # updating works at the cap
        (tags(a="", c="1"), status),  # what is deleted in the same request makes no room yet
        (tags(a=""), 202),
        (tags(c="1"), 202),
    ]:
        reply = await client.update("u1", body)
        assert reply.status == expected, body
        if expected == 409:
            assert b'"code":"entitlements-tag-limit"' in reply.body
        elif expected == 400:
            assert b"App is limited to a maximum of 2 tags on a given player" in reply.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        {"properties": []},
        {"properties": {"tags": ["a"]}},
        {"deltas": 5},
        tags(a=["list"]),
        tags(a={"k": 1}),
        {"deltas": {"purchases": [{"sku": "a"}]}},
        {"deltas": {"purchases": 5}},
    ],
)
async def test_a_body_that_makes_no_sense_is_refused(start: Start, connect: Connect, body: object) -> None:
    server = await start()
    assert (await (await connect(server)).update("u1", body)).status == 400
    assert server.ledger.updates == 0


async def test_missing_users_are_not_found_and_new_ones_not_yet(start: Start, connect: Connect) -> None:
    people = AppConfig(missing_users=frozenset({"gone"}), new_users=frozenset({"new"}), new_user_lag_s=3600)
    server = await start(default=people, user_interval_s=0)
    client = await connect(server)
    for user, status in [("gone", 404), ("new", 404), ("old", 202), ("new", 404)]:
        assert (await client.update(user, tags(a="1"))).status == status, user
    server.configure(default={"new_user_lag_s": 0})
    for user, status in [("gone", 404), ("new", 202)]:
        assert (await client.update(user, tags(a="1"))).status == status, user


async def test_one_update_a_second_for_each_user(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(), user_interval_s=3600)
    client = await connect(server)
    for user, status in [("u1", 202), ("u1", 429), ("u2", 202), ("u1", 429)]:
        reply = await client.update(user, tags(a="1"))
        assert reply.status == status, user
    assert reply.json() == {"errors": ["API rate limit exceeded"], "limit": "Subscription/User Update Per Device"}
    assert reply.headers["Retry-After"] == "3600"
    lane = server.summary().lanes[0]
    assert (lane.refused, lane.user_refusals, lane.inside_hold, lane.holds) == (2, 2, 0, 0)


async def test_a_request_of_a_user_who_is_to_be_left_alone_is_inside_that_users_hold(
    start: Start, connect: Connect
) -> None:
    server = await start(user_interval_s=3600, hold_grace_ms=0)
    client = await connect(server)
    for _ in range(3):
        await client.update("u1", tags(a="1"))
    await client.update("u2", tags(a="1"))
    await asyncio.sleep(0)
    assert server.summary().lanes[0].user_inside_hold == 1  # the third; the second could not know
