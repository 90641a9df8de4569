"""What each reply means: every body that OneSignal documents or was seen to send, and what edges put in its place."""

import json

import pytest

from sendengine.core.requests import NotificationRequest, Request, UserRequest
from sendengine.core.targets import external_id, segments, subscription_id
from sendengine.core.verdicts import (
    AppDisabled,
    ChannelRefused,
    Fault,
    KeyRefused,
    NobodyReached,
    Refused,
    ServerFault,
    Throttled,
    Took,
    Verdict,
)
from sendengine.core.wire import Reply, classify, retry_after_s

UUID_1 = "5a7c1c0e-2b4f-4f3e-9c55-0c2f1f6f0a01"
SEND = NotificationRequest("app", "key", b'{"contents":{"en":"Hi"}}', external_id("u-1", "u-2", "x"), "push")
TO_SUBSCRIPTIONS = NotificationRequest("app", "key", b"{}", subscription_id(UUID_1, "not-a-uuid"))
TO_SEGMENT = NotificationRequest("app", "key", b"{}", segments("u-1"))
CHANGE = UserRequest("app", "external_id", "u-1", {"level": "5"}, {}, {})
COUNT_UP = UserRequest("app", "external_id", "u-1", {}, {}, {"session_count": 1})

HTML = b"<!DOCTYPE html><html><head><title>Access denied | Cloudflare</title></head><body>key channel</body></html>"
ACCESS_DENIED = (
    "Access denied.  Please include an 'Authorization: ...' header with a valid API key "
    "(https://documentation.onesignal.com/docs/en/keys-and-ids#api-keys)."
)
DISABLED = "API rate limit exceeded. See the RateLimit response headers for more details."


def replied(status: int, body: object = b"", *, to: Request = SEND, **headers: str) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw), to)


# Successes

TOOK: list[tuple[int, object, Took]] = [
    (200, {"id": "m", "external_id": None}, Took("m")),
    (200, {"id": "m", "external_id": "key", "recipients": 0}, Took("m")),
    (202, {"id": "m"}, Took("m")),
    (200, {"id": "m", "errors": ""}, Took("m")),
    (200, {"id": "m", "errors": ["something"]}, Took("m")),
    (200, {"id": "m", "errors": [{}], "warnings": ["odd"]}, Took("m")),
    (200, {"id": "m", "warnings": {"invalid_external_user_ids": "text"}}, Took("m")),
    (200, {"id": "m", "errors": {"invalid_aliases": {"external_id": ["u-1"]}}}, Took("m", ("u-1",))),
    (
        200,
        {"id": "m", "errors": {"invalid_aliases": {"external_id": ["u-1", "u-1"], "onesignal_id": ["o", "u-1"]}}},
        Took("m", ("u-1", "o")),
    ),
    (200, {"id": "m", "errors": {"invalid_player_ids": ["a"], "invalid_email_tokens": ["b"]}}, Took("m", ("a", "b"))),
    (200, {"id": "m", "errors": {"invalid_phone_numbers": ["+1"]}}, Took("m", ("+1",))),
    (200, {"id": "m", "errors": {"invalid_external_user_ids": ["c", 7]}}, Took("m", ("c", "7"))),
    (200, {"id": "m", "errors": [{"invalid_player_ids": ["a"]}]}, Took("m", ("a",))),
    (200, {"id": "m", "errors": {"invalid_aliases": None}}, Took("m")),
    (200, {"id": "m", "errors": [DISABLED]}, Took("m")),
]


@pytest.mark.parametrize(("status", "body", "verdict"), TOOK)
def test_a_message_with_an_id_was_taken_whatever_else_the_reply_says(status: int, body: object, verdict: Took) -> None:
    assert replied(status, body) == verdict


@pytest.mark.parametrize(("value", "replayed"), [("true", True), ("True ", True), ("false", False), ("", False)])
def test_a_repeat_that_was_answered_from_memory_says_so(value: str, *, replayed: bool) -> None:
    assert replied(200, {"id": "m"}, idempotent_replayed=value) == Took("m", (), replayed)


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        (["All included players are not subscribed"], ("All included players are not subscribed",)),
        ({"invalid_player_ids": ["a"]}, ('invalid_player_ids: ["a"]',)),
        ("", ()),
        (None, ()),
    ],
)
def test_an_empty_id_reached_nobody(errors: object, shown: tuple[str, ...]) -> None:
    assert replied(200, {"id": "", "errors": errors}) == NobodyReached(shown)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[]", b'{"id":null}', b'{"id":7}', b'{"id":', b"OK", HTML, b"\xff\xfe"]
)
def test_a_success_without_a_readable_id_may_have_been_carried_out(body: bytes) -> None:
    verdict = replied(200, body)
    assert isinstance(verdict, ServerFault)
    assert verdict.status == 200


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, b'{"properties":{"tags":{"level":"5"}}}'),
        (200, b""),
        (202, b"{}"),
        (200, b"null"),
        (201, b"[1]"),
        (202, b"OK"),
    ],
)
def test_a_user_s_change_was_taken_whatever_the_body(status: int, body: bytes) -> None:
    assert replied(status, body, to=CHANGE) == Took()


def test_a_page_in_place_of_an_answer_is_an_edge_s_fault() -> None:
    for request in (SEND, CHANGE):
        assert isinstance(replied(200, HTML, to=request), ServerFault)
        assert isinstance(replied(200, b"  <a/>", to=request), ServerFault)
    assert isinstance(replied(200, b"Sign in", to=CHANGE, content_type="text/html"), ServerFault)


# Throttled


@pytest.mark.parametrize(
    "body",
    [
        {"errors": ["API rate limit exceeded."]},
        {"errors": ["API rate limit exceeded"]},
        {"errors": ["API rate limit exceeded"], "limit": "App ID"},
        {"errors": [{"code": "Rate Limit Exceeded", "title": "API rate limit exceeded"}]},
        b"",
        b"error code: 1015",
        HTML,
    ],
)
@pytest.mark.parametrize("request_", [SEND, CHANGE], ids=["send", "change"])
def test_a_429_throttles_the_lane(body: object, request_: Request) -> None:
    assert replied(429, body, to=request_, retry_after="7") == Throttled(7.0, user_only=False)


@pytest.mark.parametrize(
    "body",
    [
        {"errors": ["API rate limit exceeded"], "limit": "Subscription/User Update Per Device"},
        {"errors": [{"title": "API rate limit exceeded", "meta": {"limit": "subscription/user update per device"}}]},
    ],
)
def test_a_user_s_own_limit_throttles_that_user_and_never_a_lane_of_notifications(body: object) -> None:
    assert replied(429, body, to=CHANGE) == Throttled(None, user_only=True)
    assert replied(429, body, to=SEND) == Throttled(None, user_only=False)


@pytest.mark.parametrize("status", [200, 400, 403, 429, 503])
@pytest.mark.parametrize("body", [DISABLED.encode(), {"errors": [DISABLED]}, {"errors": DISABLED.upper()}])
def test_the_text_of_a_disabled_app_counts_at_any_status(status: int, body: object) -> None:
    assert isinstance(replied(status, body), AppDisabled)


RETRY_AFTER: list[tuple[dict[str, str], float | None]] = [
    ({"retry-after": "5"}, 5.0),
    ({"Retry-After": "0"}, 0.0),
    ({"RetryAfter": "2.5"}, 2.5),
    ({"RETRYAFTER": " 3 "}, 3.0),
    ({"retry-after": "3", "retryafter": "9"}, 9.0),
    ({"retry-after": "soon", "retryafter": "9"}, 9.0),
    ({"retry-after": "86400"}, 86_400.0),
    ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 30.0),
    ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "Date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 30.0),
    ({"retry-after": "Sat, 21 Nov 2026 10:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:30 GMT"}, None),
    ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT"}, None),
    ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "yesterday"}, None),
    *[
        ({"retry-after": garbage}, None)
        for garbage in (
            "",
            " ",
            "soon",
            "-1",
            "inf",
            "nan",
            "1e3",
            "1_0",
            "0x10",
            "٣",
            "5 s",
            "1.2.3",
            "9" * 15,
            "9" * 400,
        )
    ],
    ({}, None),
    ({"x-retry-after": "5"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
def test_retry_after_is_read_in_every_spelling_and_garbage_is_nothing(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


# The key and the channel

KEY_REFUSED: list[tuple[int, object]] = [
    (401, {"errors": [{"code": "auth-1", "title": "This operation requires 'Authorization' in the HTTP header"}]}),
    (401, b""),
    (401, HTML),
    (403, {"errors": [ACCESS_DENIED]}),
    (403, {"errors": ["Access denied"]}),
    (403, {"errors": ["Invalid API key"]}),
    (403, {"errors": ["This operation requires 'Authorization' in the HTTP header"]}),
    (403, b"{}"),
    (403, b""),
    (403, b" {} \n"),
    (400, {"errors": ["Please include a case-sensitive header of Authorization: Basic YOUR-KEY"], "reference": ["x"]}),
    (400, {"errors": ["Missing or invalid Authorization header"]}),
    (400, {"errors": ["The API key is not valid"]}),
]


@pytest.mark.parametrize(("status", "body"), KEY_REFUSED)
@pytest.mark.parametrize("request_", [SEND, CHANGE], ids=["send", "change"])
def test_the_key_was_refused(status: int, body: object, request_: Request) -> None:
    verdict = replied(status, body, to=request_)
    assert isinstance(verdict, KeyRefused)
    assert verdict.status == status


def test_a_refusal_of_the_key_without_a_type_is_one_too() -> None:
    assert replied(403, b"{}", content_type="text/plain") == KeyRefused(403, ())


@pytest.mark.parametrize(
    "errors",
    [
        ["This API is not available for applications on your plan."],
        ["Your API key is not allowed to send SMS for this app"],
        ["The feature is not enabled"],
        ["Access denied for the email channel"],
        ["something else"],
        [{}],
    ],
)
def test_another_403_in_json_refuses_the_channel(errors: object) -> None:
    verdict = replied(403, {"errors": errors})
    assert isinstance(verdict, ChannelRefused)
    assert verdict.status == 403


@pytest.mark.parametrize("body", [HTML, b"error code: 1020", b"Forbidden"])
def test_a_403_that_is_not_onesignal_s_counts_as_a_server_s_fault(body: bytes) -> None:
    assert isinstance(replied(403, body, content_type="text/html" if body == HTML else "text/plain"), ServerFault)


def test_an_empty_page_at_403_is_an_edge_s() -> None:
    assert isinstance(replied(403, b"", content_type="text/html; charset=UTF-8"), ServerFault)


# Server faults and redirects


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 520, 524, 599, 600, 999, 99, 0, -1, 10_000])
def test_these_statuses_may_have_been_received(status: int) -> None:
    assert replied(status, b"busy", retry_after="4") == ServerFault(status, 4.0, ("busy",))


OVERFLOW = "upstream connect error or disconnect/reset before headers. reset reason: overflow"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"errors": ["Service temporarily unavailable"]}, ("Service temporarily unavailable",)),
        (OVERFLOW.encode(), (OVERFLOW,)),
        (b"", ()),
        (HTML, ("Access denied | Cloudflare",)),
        (b"<html><body><h1>502</h1>\n<p>Bad   gateway</p></body></html>", ("502 Bad gateway",)),
    ],
)
def test_what_servers_say_about_their_faults_is_kept(body: object, errors: tuple[str, ...]) -> None:
    assert replied(503, body) == ServerFault(503, None, errors)


@pytest.mark.parametrize("status", [100, 101, 300, 301, 302, 304, 307, 308])
@pytest.mark.parametrize("request_", [SEND, CHANGE], ids=["send", "change"])
def test_a_redirect_is_definite_and_says_where_to(status: int, request_: Request) -> None:
    assert replied(status, b"", to=request_, location="https://api.onesignal.com/notifications") == Refused(
        status, ("redirected to https://api.onesignal.com/notifications; is base_url right?",), Fault.MESSAGE
    )
