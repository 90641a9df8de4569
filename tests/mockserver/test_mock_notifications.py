"""Create notification over a socket: the documented replies."""

import pytest

from sendengine.mockserver import AppConfig
from tests.mockserver.raw_client import APP, KEY, Answered, Connect, Start

UUID_1 = "6e2e0ba2-8d76-4a9c-8a36-8c3b5a1f0001"
NOBODY = "All included players are not subscribed"


def errors(reply: Answered) -> object:
    found = reply.json()
    assert isinstance(found, dict)
    return found["errors"]


async def test_a_notification_is_answered_with_its_id_and_its_key(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    reply = await client.notify("u1", "u2", key=KEY)
    message_id = server.ledger.messages.message_id(0)
    assert (reply.status, reply.json()) == (200, {"id": message_id, "external_id": KEY})
    assert "Idempotent-Replayed" not in reply.headers
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    reply = await client.notify("u3")
    assert reply.json() == {"id": server.ledger.messages.message_id(1), "external_id": None}
    assert server.ledger.messages.deliveries() == {"external_id:u1": 1, "external_id:u2": 1, "external_id:u3": 1}


async def test_it_stands_below_a_path_prefix_too(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    body = {"app_id": APP, "contents": {"en": "Hi"}, "include_aliases": {"crm": ["1"]}, "target_channel": "push"}
    assert (await client.ask("POST", "/api/v1/notifications?c=push", body)).status == 200
    for method, path in [("POST", "/api/v2/notifications"), ("GET", "/notifications"), ("PUT", f"/apps/{APP}")]:
        assert (await client.ask(method, path, body)).status == 404, path


@pytest.mark.parametrize(
    ("target", "naming"),
    [
        ({"include_aliases": {"external_id": ["a", "b", "c"]}}, {"invalid_aliases": {"external_id": ["b"]}}),
        ({"include_aliases": {"crm/id": ["a", "b"]}}, {"invalid_aliases": {"crm/id": ["b"]}}),
        (
            {"include_aliases": {"external_id": ["a", "b"], "onesignal_id": ["b"]}},
            {"invalid_aliases": {"external_id": ["b"], "onesignal_id": ["b"]}},
        ),
        ({"include_external_user_ids": ["a", "b"]}, {"invalid_external_user_ids": ["b"]}),
        ({"email_to": ["a@x.org", "b@x.org"]}, {"invalid_email_tokens": ["b@x.org"]}),
        ({"include_email_tokens": ["a@x.org", "b@x.org"]}, {"invalid_email_tokens": ["b@x.org"]}),
        ({"include_phone_numbers": ["+1", "+2"]}, {"invalid_phone_numbers": ["+2"]}),
        ({"include_subscription_ids": [UUID_1, KEY]}, {"invalid_player_ids": [KEY]}),
        ({"include_player_ids": [UUID_1, KEY]}, {"invalid_player_ids": [KEY]}),
    ],
)
async def test_unsubscribed_ids_are_named_as_their_target_has_it(
    start: Start, connect: Connect, target: dict[str, object], naming: dict[str, object]
) -> None:
    gone = {"b", "b@x.org", "+2", KEY}
    if "onesignal_id" in str(target):
        gone = {"external_id:b", "onesignal_id:b"}
    server = await start(default=AppConfig(unsubscribed=frozenset(gone)))
    client = await connect(server)
    channel = {"email_to": "email", "include_email_tokens": "email", "include_phone_numbers": "sms"}
    fields = target | {"target_channel": channel.get(next(iter(target)), "push")}
    reply = await client.notify(template_id=KEY, **fields)
    assert (reply.status, errors(reply)) == (200, naming)


async def test_an_id_may_be_named_once_for_each_of_its_subscriptions(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(unsubscribed=frozenset({"b"})), unsubscribed_repeats=2)
    reply = await (await connect(server)).notify("a", "b")
    assert errors(reply) == {"invalid_aliases": {"external_id": ["b", "b"]}}
    assert server.ledger.recipients == 1


@pytest.mark.parametrize(("switch", "named"), [("silent", ["gone"]), ("named", ["gone", "who"])])
async def test_unknown_ids_are_left_out_silently_or_named(
    start: Start, connect: Connect, switch: str, named: list[str]
) -> None:
    people = AppConfig(unsubscribed=frozenset({"gone"}), unknown=frozenset({"who"}))
    server = await start(default=people, unknown_ids=switch)
    reply = await (await connect(server)).notify("a", "who", "gone")
    assert errors(reply) == {"invalid_aliases": {"external_id": named}}
    assert server.ledger.messages.deliveries() == {"external_id:a": 1}


async def test_unknown_addresses_become_subscriptions(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(unknown=frozenset({"new@x.org"})), unknown_ids="named")
    client = await connect(server)
    reply = await client.notify(
        email_to=["new@x.org"], target_channel="email", email_subject="Hi", email_body="<p>Hi</p>"
    )
    assert reply.status == 200
    assert server.ledger.messages.deliveries() == {"email:new@x.org": 1}


async def test_nobody_reached_is_a_success_with_an_empty_id(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(unsubscribed=frozenset("ab"), unknown=frozenset("c")))
    client = await connect(server)
    reply = await client.notify("a", "b", "c", key=KEY)
    assert (reply.status, reply.json()) == (200, {"id": "", "external_id": KEY, "errors": [NOBODY]})
    server.configure(nobody_reply="object")
    assert errors(await client.notify("a")) == {"invalid_aliases": {"external_id": ["a"]}}
    assert errors(await client.notify("c")) == [NOBODY]  # a silent unknown id gives nobody to name
    assert (server.ledger.nobody_reached, len(server.ledger.messages)) == (3, 0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "You must include which players, segments, or tags you wish to send this notification to."),
        ({"include_aliases": {"external_id": []}}, "You must include which players"),
        (
            {"include_aliases": {"external_id": ["a"]}, "filters": [{"field": "tag"}]},
            "only use one method of targeting",
        ),
        ({"include_aliases": {"external_id": ["a"]}, "target_channel": ""}, "target_channel must be given"),
        ({"include_aliases": {"external_id": ["a"]}, "target_channel": "fax"}, "target_channel must be"),
        ({"include_aliases": {"external_id": "a"}}, "include_aliases.external_id must be a list of strings"),
        ({"include_aliases": ["a"]}, "include_aliases must be an object"),
        ({"include_subscription_ids": [1]}, "include_subscription_ids must be a list of strings"),
        ({"email_to": ["a@x.org"], "target_channel": "sms"}, "You may only send to one delivery channel at a time"),
        (
            {"include_aliases": {"external_id": ["a"]}, "contents": {"de": "Hallo"}},
            "must have English language content",
        ),
        ({"include_aliases": {"external_id": ["a"]}, "contents": {}}, "must have English language content"),
        ({"email_to": ["a@x.org"], "target_channel": "email"}, "must have English language content"),
        ({"include_aliases": {"external_id": ["a"]}, "name": "n" * 129}, "Name must be no more than 128"),
        ({"include_aliases": {"external_id": ["a"]}, "data": {"k": "v" * 2048}}, "no more than 2048 bytes long"),
        ({"include_aliases": {"external_id": ["a"]}, "custom_data": {"k": "v" * 2048}}, "Request body too large"),
        ({"filters": [{"field": "tag"}] * 201}, "Filters must have no more than 200 entries"),
        ({"include_aliases": {"external_id": ["a"]}, "idempotency_key": "no-uuid"}, "must be a valid UUID"),
        (
            {"include_subscription_ids": [UUID_1, "abc", "d"]},
            'Incorrect subscription_id format in include_subscription_ids (not a valid UUID): ["abc","d"]',
        ),
        ({"app_id": ""}, "app_id not found"),
        ({"app_id": 7}, "app_id not found"),
    ],
)
async def test_a_request_at_fault_is_refused_whole(
    start: Start, connect: Connect, fields: dict[str, object], text: str
) -> None:
    server = await start()
    reply = await (await connect(server)).notify(**fields)
    assert reply.status == 400
    found = errors(reply)
    assert isinstance(found, list)
    assert text in found[0]
    assert len(server.ledger.messages) == 0


async def test_subscriptions_need_no_channel_where_the_message_shows_it(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    messages: list[dict[str, object]] = [
        {},
        {"email_subject": "Hi", "email_body": "<p>Hi</p>", "contents": None},
        {"sms_from": "+15551234"},
    ]
    for message in messages:
        reply = await client.notify(include_subscription_ids=[UUID_1], target_channel=None, **message)
        assert reply.status == 200, message
    assert [message.channel for message in server.ledger.messages] == ["push", "email", "sms"]


@pytest.mark.parametrize("fields", [{"template_id": KEY}, {"content_available": True}])
async def test_contents_are_not_needed_with_a_template_or_silent_content(
    start: Start, connect: Connect, fields: dict[str, object]
) -> None:
    assert (await (await connect(await start())).notify("a", contents=None, **fields)).status == 200


@pytest.mark.parametrize("cap", [2000, 20_000])
async def test_the_recipient_cap_is_as_set(start: Start, connect: Connect, cap: int) -> None:
    server = await start(recipient_cap=cap)
    client = await connect(server)
    assert (await client.notify(*map(str, range(cap)))).status == 200
    over = await client.notify(*map(str, range(cap + 1)))
    assert (over.status, errors(over)) == (400, [f"include_aliases must have no more than {cap} entries"])
    assert server.summary().most_recipients == cap


@pytest.mark.parametrize(
    ("switch", "said"),
    [
        ("vague", ["The request could not be processed"]),
        ("empty", [{}]),
        ("named", {"invalid_aliases": {"external_id": ["bad"]}}),
        ("named_text", ['Invalid recipients in include_aliases: ["bad"]']),
    ],
)
async def test_one_poisoned_recipient_spoils_the_whole_request(
    start: Start, connect: Connect, switch: str, said: object
) -> None:
    server = await start(default=AppConfig(poisoned=frozenset({"bad"})), poison_reply=switch)
    client = await connect(server)
    reply = await client.notify("a", "bad", "b", key=KEY)
    assert (reply.status, errors(reply)) == (400, said)
    assert (await client.notify("a", "b", key=KEY)).status == 200  # the key was never used up
    assert server.ledger.recipients == 2


async def test_a_message_can_be_at_fault_without_being_told_how(start: Start, connect: Connect) -> None:
    client = await connect(await start(message_faults=["broken-template"]))
    assert (await client.notify("a")).status == 200
    reply = await client.notify("a", contents={"en": "a broken-template here"})
    assert (reply.status, errors(reply)) == (400, ["The request could not be processed"])


async def test_the_same_recipient_twice_in_one_request_is_reached_once(start: Start, connect: Connect) -> None:
    server = await start()
    await (await connect(server)).notify("a", "b", "a")
    assert server.ledger.recipients == 2
    assert server.summary().doubled is not None
    assert server.ledger.messages.doubled().effects == 0


async def test_segments_and_filters_reach_as_many_as_the_settings_say(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(subscribed_users=70))
    client = await connect(server)
    await client.notify(included_segments=["All"])
    server.configure(default=AppConfig(segment_recipients=5))
    await client.notify(filters=[{"field": "tag", "key": "k", "relation": "exists"}])
    assert [message.count for message in server.ledger.messages] == [70, 5]


async def test_a_body_that_is_no_json_or_has_no_content_type_is_refused(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    reply = await client.ask("POST", "/notifications", b'{"app_id": ')
    assert (reply.status, errors(reply)) == (400, ["The body is not JSON"])
    reply = await client.ask("POST", "/notifications", {"app_id": APP}, headers={"Content-Type": ""})
    assert "app_id not found" in str(errors(reply))
    assert (await client.ask("POST", "/notifications", [])).status == 400
    assert server.summary().lanes[0].app == ""


async def test_a_legacy_reply_counts_recipients_and_has_empty_errors(start: Start, connect: Connect) -> None:
    found = (await (await connect(await start(legacy_reply=True))).notify("a", "b")).json()
    assert isinstance(found, dict)
    assert (found["recipients"], found["errors"]) == (2, "")


async def test_shares_of_people_are_the_same_in_every_run(start: Start, connect: Connect) -> None:
    server = await start(default=AppConfig(unsubscribed_share=0.1))
    client = await connect(server)
    ids = [f"user-{number}" for number in range(2000)]
    replies = [await client.notify(*ids) for _ in range(2)]
    named = [errors(reply) for reply in replies]
    assert named[0] == named[1]
    assert 140 < server.ledger.named / 2 < 260
