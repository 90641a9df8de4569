"""Definite refusals: where they put the fault, whom they name, and how their errors are shown."""

import json

import pytest

from sendengine.core import wire
from sendengine.core.requests import NotificationRequest, Request, UserRequest
from sendengine.core.targets import external_id, segments, subscription_id
from sendengine.core.verdicts import Fault, Refused, Verdict
from sendengine.core.wire import Reply, classify

UUID_1 = "5a7c1c0e-2b4f-4f3e-9c55-0c2f1f6f0a01"
SEND = NotificationRequest("app", "key", b'{"contents":{"en":"Hi"}}', external_id("u-1", "u-2", "x"), "push")
TO_SUBSCRIPTIONS = NotificationRequest("app", "key", b"{}", subscription_id(UUID_1, "not-a-uuid"))
TO_SEGMENT = NotificationRequest("app", "key", b"{}", segments("u-1"))
CHANGE = UserRequest("app", "external_id", "u-1", {"level": "5"}, {}, {})
COUNT_UP = UserRequest("app", "external_id", "u-1", {}, {}, {"session_count": 1})

HTML = b"<!DOCTYPE html><html><head><title>Access denied | Cloudflare</title></head><body>key channel</body></html>"


def replied(status: int, body: object = b"", *, to: Request = SEND, **headers: str) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(Reply(status, headers, raw), to)


# Where the fault is

MESSAGE_AT_FAULT: list[tuple[int, object]] = [
    (400, {"errors": ["Message Notifications must have English language content"]}),
    (
        400,
        {
            "errors": [
                "Platforms You may only send to one delivery channel at a time. Make sure you are only including one"
            ]
        },
    ),
    (400, {"errors": ["Data Data must be no more than 2048 bytes long"]}),
    (400, {"errors": ["Request body too large"]}),
    (413, b"Request body too large"),
    (400, {"errors": ["app_id not found. You may be missing a Content-Type: application/json header."]}),
    (400, {"errors": ["App ID is invalid"]}),
    (400, {"errors": ["Template not found"]}),
    (400, {"errors": [{"code": "notification-1", "title": "template_id is not a valid UUID"}]}),
    (400, {"errors": ["You must include which players, segments, or tags you wish to send this notification to."]}),
    (400, {"errors": ["ttl must be a number"], "success": False}),
    (400, {"errors": ["email_subject is required"]}),
    (400, {"errors": ["Name is too long (maximum is 128 characters)"]}),
    (400, {"errors": ["You may only use one method of targeting"]}),
    (402, b""),
    (404, {"errors": ["Not found"]}),
    (405, HTML),
    (410, b""),
    (415, b""),
]


@pytest.mark.parametrize(("status", "body"), MESSAGE_AT_FAULT)
def test_the_message_is_at_fault(status: int, body: object) -> None:
    verdict = replied(status, body)
    assert isinstance(verdict, Refused)
    assert (verdict.status, verdict.fault, verdict.named) == (status, Fault.MESSAGE, ())


NAMING: list[tuple[NotificationRequest, object, tuple[str, ...]]] = [
    (
        TO_SUBSCRIPTIONS,
        ["Incorrect subscription_id format in include_subscription_ids (not a valid UUID): [not-a-uuid]"],
        ("not-a-uuid",),
    ),
    (
        TO_SUBSCRIPTIONS,
        ['Incorrect subscription_id format in include_subscription_ids (not a valid UUID): ["not-a-uuid", "other"]'],
        ("not-a-uuid",),
    ),
    (TO_SUBSCRIPTIONS, [f"Subscription {UUID_1.upper()} is blocked"], (UUID_1,)),
    (SEND, {"invalid_aliases": {"external_id": ["u-2", "x"]}}, ("u-2", "x")),
    (SEND, {"invalid_external_user_ids": ["x"]}, ("x",)),
    (SEND, [{"code": "alias-1", "title": "Invalid alias", "meta": {"external_id": "x"}}], ("x",)),
    (SEND, ["x"], ("x",)),
    (SEND, "x", ("x",)),
    (SEND, ["the alias 'x' is invalid"], ("x",)),
    (SEND, ['the alias "x" is invalid'], ("x",)),
    (SEND, ["the alias `x` is invalid"], ("x",)),
    (SEND, ["invalid aliases: [x, u-1]"], ("u-1", "x")),
    (SEND, ["user u-1 cannot be messaged"], ("u-1",)),
    (SEND, ["users u-1, u-2: cannot be messaged"], ("u-1", "u-2")),
    (SEND, ["the alias 'X' is invalid"], ("x",)),
]


@pytest.mark.parametrize(("request_", "errors", "named"), NAMING)
def test_recipients_are_named(request_: NotificationRequest, errors: object, named: tuple[str, ...]) -> None:
    verdict = replied(400, {"errors": errors}, to=request_)
    assert isinstance(verdict, Refused)
    assert (verdict.fault, verdict.named) == (Fault.RECIPIENTS, named)


@pytest.mark.parametrize(
    "errors",
    [
        [{}],
        "",
        [],
        None,
        ["Bad Request"],
        ["something is wrong with a recipient"],
        ["recipient x is bad"],  # a word that may be an id and may be a word
        ["the alias 'nobody-here' is invalid"],
        ["u-10 and u-1000 are bad"],  # parts of words are nobody
        [["u"], [7, True, None]],
    ],
)
def test_where_the_reply_names_nothing_the_fault_is_unnamed(errors: object) -> None:
    verdict = replied(400, {"errors": errors})
    assert isinstance(verdict, Refused)
    assert (verdict.fault, verdict.named) == (Fault.UNNAMED, ())


def test_a_number_in_a_sentence_is_nobody_s_id() -> None:
    request = NotificationRequest("app", "key", b"{}", external_id("2000", "100", "42"), "push")
    for text in ("at most 2000 recipients", "100 of them are odd", "error 42"):
        verdict = replied(400, {"errors": [text]}, to=request)
        assert isinstance(verdict, Refused)
        assert verdict.fault is Fault.UNNAMED


@pytest.mark.parametrize("status", [400, 409, 413, 418, 422, 451])
def test_a_page_names_nothing(status: int) -> None:
    verdict = replied(status, HTML)
    assert isinstance(verdict, Refused)
    assert (verdict.fault, verdict.named, verdict.errors) == (Fault.UNNAMED, (), ("Access denied | Cloudflare",))


def test_a_segment_s_name_is_no_recipient() -> None:
    verdict = replied(400, {"errors": ["'u-1' does not exist"]}, to=TO_SEGMENT)
    assert isinstance(verdict, Refused)
    assert verdict.named == ()


USERS: list[tuple[int, object, Fault]] = [
    (404, {"errors": [{"code": "user-2", "title": "not found"}]}, Fault.MISSING_USER),
    (404, b"", Fault.MISSING_USER),
    (400, {"errors": ["App is limited to a maximum of 10 tags on a given player"]}, Fault.TAG_CAP),
    (409, {"errors": [{"code": "entitlement-1", "title": "Tag limit exceeded for your plan"}]}, Fault.TAG_CAP),
    (409, {"errors": ["Entitlement limit reached"]}, Fault.TAG_CAP),
    (409, {"errors": ["The tags for this user exceed the limit for this organization's plan."]}, Fault.TAG_CAP),
    (400, {"errors": ["Please limit your tag updates to 100 per request"]}, Fault.UNNAMED),
    (
        409,
        {"errors": [{"code": "user-2", "title": "Alias claimed", "meta": {"conflicting_aliases": {}}}]},
        Fault.UNNAMED,
    ),
    (409, {"errors": ["Subscription Limit Exceeded"]}, Fault.UNNAMED),
    (400, {"errors": [{"code": "request-1", "title": "invalid UUID"}]}, Fault.UNNAMED),
    (422, b"", Fault.UNNAMED),
    (410, b"", Fault.UNNAMED),
]


@pytest.mark.parametrize(("status", "body", "fault"), USERS)
def test_a_user_s_change_is_refused(status: int, body: object, fault: Fault) -> None:
    verdict = replied(status, body, to=CHANGE)
    assert isinstance(verdict, Refused)
    assert (verdict.status, verdict.fault) == (status, fault)


def test_a_change_without_tags_does_not_meet_their_cap() -> None:
    verdict = replied(409, {"errors": ["Entitlement limit reached"]}, to=COUNT_UP)
    assert isinstance(verdict, Refused)
    assert verdict.fault is Fault.UNNAMED


# What errors look like


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"errors": ["a", "b"]}, ("a", "b")),
        ({"errors": "a"}, ("a",)),
        ({"errors": {"base": ["a"]}}, ('base: ["a"]',)),
        ({"errors": [{"code": "c", "title": "t", "meta": {"k": 1}}]}, ('c: t {"meta":{"k":1}}',)),
        ({"errors": [{"title": "t"}]}, ("t",)),
        ({"errors": [{"odd": 1}]}, ('{"odd":1}',)),
        ({"errors": [{}]}, ("{}",)),
        ({"errors": [7, None, True]}, ("7", "null", "true")),
        ({"errors": ["", "a"]}, ("a",)),
        ({"error": "a"}, ("a",)),
        ({"message": "a"}, ("a",)),
        ({"success": False}, ("success: false",)),
        (["a"], ("a",)),
        ("a", ("a",)),
        (b"plain\n  text", ("plain text",)),
        (b"\xff\xfe\x00", ("\ufffd\ufffd",)),
        ({"errors": ["red \x1b[31malert\x07\nnext"]}, ("red  [31malert  next",)),
    ],
)
def test_errors_of_every_shape_become_short_texts(body: object, errors: tuple[str, ...]) -> None:
    verdict = replied(400, body)
    assert isinstance(verdict, Refused)
    assert verdict.errors == errors


def test_errors_are_bounded_in_number_and_length() -> None:
    verdict = replied(400, {"errors": ["e" * 10_000] * 1000})
    assert isinstance(verdict, Refused)
    assert len(verdict.errors) == 20
    assert {len(error) for error in verdict.errors} == {500}


@pytest.mark.parametrize("body", [b'{"errors":[' + b"[" * 900 + b"]" * 900 + b"]}", b"[" * 100_000, b'{"a":' * 1000])
def test_deep_nesting_is_survived(body: bytes) -> None:
    assert isinstance(replied(400, body), Refused)


CANARY = "canarycanarycanarycanary0123"


@pytest.mark.parametrize(
    "text",
    [
        f"os_v2_app_{CANARY}",
        f"bad key os_v2_org_{CANARY}!",
        f"Authorization: Key {CANARY}",
        f"authorization = 'Basic {CANARY}'",
        f"got Bearer {CANARY}, expected another",
        "Authorization: Key short-canary",
        '{"Authorization":"Key short-canary"}',
    ],
)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 429, 503])
def test_a_key_that_a_reply_quotes_is_masked(text: str, status: int) -> None:
    for body in (
        {"errors": [text]},
        {"errors": {"a": text}},
        {"errors": [{"title": text}]},
        text.encode(),
        {"id": "", "errors": [text]},
    ):
        verdict = replied(status, body, location=f"https://elsewhere/?{text}")
        assert "canary" not in repr(verdict)


def test_a_key_at_the_end_of_a_long_text_is_not_half_shown() -> None:
    verdict = replied(400, {"errors": ["e" * 480 + f" os_v2_app_{CANARY}"]})
    assert "canary" not in repr(verdict)


def test_wire_offers_what_belongs_together() -> None:
    assert {"encode", "classify", "canonical", "canonical_body", "retry_after_s"} <= set(wire.__all__)
