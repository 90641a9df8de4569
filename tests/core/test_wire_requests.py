"""How sealed requests look on the wire."""

import json
from hashlib import sha256
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.core import wire
from sendengine.core.jobs import Json
from sendengine.core.requests import NotificationRequest, UserRequest
from sendengine.core.targets import (
    Target,
    alias,
    email,
    external_id,
    filters,
    onesignal_id,
    phone_number,
    segments,
    subscription_id,
)

APP = "8250eaf6-1a58-489e-b136-7c74a864b434"
KEY = "0f0e0d0c-0b0a-4908-8706-050403020100"
HI = {"contents": {"en": "Hi"}}


def sealed(
    target: Target,
    *,
    message: dict[str, Json] | None = None,
    channel: str | None = None,
    ttl_s: int | None = None,
    key: str = KEY,
) -> NotificationRequest:
    content = wire.canonical(HI if message is None else message)
    return NotificationRequest(APP, key, content, target, channel, ttl_s)


def body_of(request: NotificationRequest | UserRequest) -> dict[str, object]:
    body = json.loads(wire.encode(request).body)
    assert isinstance(body, dict)
    return body


TARGETS: dict[str, tuple[Target, str | None, dict[str, object]]] = {
    "external ids": (
        external_id("u1", "u2"),
        "push",
        {"include_aliases": {"external_id": ["u1", "u2"]}, "target_channel": "push"},
    ),
    "OneSignal's ids": (
        onesignal_id("o1"),
        "sms",
        {"include_aliases": {"onesignal_id": ["o1"]}, "target_channel": "sms"},
    ),
    "an alias of one's own": (
        alias("crm_id", "4711"),
        "email",
        {"include_aliases": {"crm_id": ["4711"]}, "target_channel": "email"},
    ),
    "subscriptions": (subscription_id("s1"), "push", {"include_subscription_ids": ["s1"]}),
    "addresses": (email("a@b.example"), "email", {"email_to": ["a@b.example"]}),
    "numbers": (phone_number("+14155550123"), "sms", {"include_phone_numbers": ["+14155550123"]}),
    "segments": (segments("Active", "New"), None, {"included_segments": ["Active", "New"]}),
    "segments by SMS": (segments("Active"), "sms", {"included_segments": ["Active"], "target_channel": "sms"}),
    "segments less others": (
        segments("Active", excluded=["Staff"]),
        "push",
        {"included_segments": ["Active"], "excluded_segments": ["Staff"], "target_channel": "push"},
    ),
    "filters": (
        filters([{"field": "tag", "key": "level", "relation": ">", "value": 5}, {"operator": "OR"}]),
        None,
        {"filters": [{"field": "tag", "key": "level", "relation": ">", "value": 5}, {"operator": "OR"}]},
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_each_kind_of_target_has_its_field_and_only_those_that_need_it_the_channel(name: str) -> None:
    target, channel, fields = TARGETS[name]
    request = sealed(target, channel=channel)
    assert body_of(request) == {"app_id": APP, "idempotency_key": KEY, **HI, **fields}
    encoded = wire.encode(request)
    assert (encoded.method, encoded.path) == ("POST", "/notifications")


def test_the_message_passes_through_as_it_is() -> None:
    message: dict[str, Json] = {
        "contents": {"en": 'quote " and \\ and \u2028', "de": "Grüße 👋"},
        "data": {"ttl": 5, "nested": [1, 2.5, None, True]},
    }
    assert body_of(sealed(external_id("u"), message=message)).items() >= message.items()


def test_the_bytes_are_these() -> None:
    assert wire.encode(sealed(email("a@b.example"), ttl_s=60)).body == (
        b'{"app_id":"8250eaf6-1a58-489e-b136-7c74a864b434","contents":{"en":"Hi"},"ttl":60,"email_to":["a@b.example"],'
        b'"idempotency_key":"0f0e0d0c-0b0a-4908-8706-050403020100"}'
    )


@pytest.mark.parametrize(
    ("message", "ttl_s", "ttl"),
    [
        (HI, None, None),
        (HI, 60, 60),
        (HI, 0, 0),
        ({**HI, "ttl": 5}, 60, 5),
        ({**HI, "data": {"ttl": 5}}, 60, 60),
        ({**HI, "data": '"ttl":'}, 60, 60),
    ],
)
def test_a_deadline_becomes_the_ttl_where_the_message_has_none(
    message: dict[str, Json], ttl_s: int | None, ttl: int | None
) -> None:
    assert body_of(sealed(external_id("u"), message=message, ttl_s=ttl_s)).get("ttl") == ttl


def test_the_canonical_body_is_the_body_without_its_key() -> None:
    request = sealed(external_id("u1"), channel="push", ttl_s=9)
    body = body_of(request)
    del body["idempotency_key"]
    assert json.loads(wire.canonical_body(request)) == body


def test_the_canonical_body_is_the_same_in_every_run() -> None:
    request = sealed(external_id("u1", "ü"), channel="push")
    assert sha256(wire.canonical_body(request)).hexdigest() == (
        "8a5a5222fce9625284604a1120a00cf6b050ca5e0d7fe9723af4ba8bb2479c4b"
    )


@pytest.mark.parametrize(
    "other",
    [
        sealed(external_id("u2", "u1"), channel="push"),
        sealed(external_id("u1", "u2"), channel="sms"),
        sealed(external_id("u1", "u2"), channel="push", ttl_s=1),
        sealed(external_id("u1", "u2"), channel="push", message={"contents": {"en": "Hi!"}}),
        sealed(onesignal_id("u1", "u2"), channel="push"),
    ],
)
def test_another_content_has_another_canonical_body(other: NotificationRequest) -> None:
    assert wire.canonical_body(other) != wire.canonical_body(sealed(external_id("u1", "u2"), channel="push"))


def test_the_key_does_not_count_for_the_canonical_body() -> None:
    first, second = (sealed(external_id("u"), key=key) for key in ("a", "b"))
    assert wire.canonical_body(first) == wire.canonical_body(second)
    assert wire.encode(first) != wire.encode(second)


def test_equal_messages_are_equal_bytes_whatever_the_order_of_their_fields() -> None:
    assert (
        wire.canonical({"b": {"y": 1, "x": [{"d": 2, "c": 3}]}, "a": 4}) == b'{"a":4,"b":{"x":[{"c":3,"d":2}],"y":1}}'
    )


def test_an_empty_message_leaves_no_comma_behind() -> None:
    assert body_of(sealed(email("a@b.example"), message={})) == {
        "app_id": APP,
        "email_to": ["a@b.example"],
        "idempotency_key": KEY,
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ids = st.lists(
    st.text(min_size=1, max_size=8).filter(lambda text: not text.isspace()), min_size=1, max_size=5, unique=True
)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), json_values, min_size=1, max_size=4), ids)
def test_whatever_the_message_and_the_ids_the_body_is_json_with_all_of_them(
    message: dict[str, Json], named: list[str]
) -> None:
    request = NotificationRequest(APP, KEY, wire.canonical(message), Target("alias", tuple(named), "crm"), "push")
    own = {"app_id", "target_channel", "include_aliases", "idempotency_key"}
    body = body_of(request)
    assert body["include_aliases"] == {"crm": named}
    assert {name: value for name, value in body.items() if name not in own} == {
        name: value for name, value in message.items() if name not in own
    }


# Users


def test_a_user_s_change_is_a_patch_of_that_user() -> None:
    request = UserRequest(APP, "external_id", "u1", {"level": "5", "old": ""}, {"language": "en"}, {"session_count": 2})
    encoded = wire.encode(request)
    assert (encoded.method, encoded.path) == ("PATCH", f"/apps/{APP}/users/by/external_id/u1")
    assert json.loads(encoded.body) == {
        "properties": {"language": "en", "tags": {"level": "5", "old": ""}},
        "deltas": {"session_count": 2},
    }


@pytest.mark.parametrize(
    ("tags", "properties", "deltas", "body"),
    [
        ({"a": "1"}, {}, {}, {"properties": {"tags": {"a": "1"}}}),
        ({}, {"language": "en"}, {}, {"properties": {"language": "en"}}),
        ({}, {}, {"session_time": 3}, {"deltas": {"session_time": 3}}),
    ],
)
def test_empty_parts_are_left_out(
    tags: dict[str, str], properties: dict[str, Json], deltas: dict[str, Json], body: dict[str, object]
) -> None:
    assert body_of(UserRequest(APP, "external_id", "u1", tags, properties, deltas)) == body


@pytest.mark.parametrize(
    ("user_id", "segment"),
    [
        ("u/1", "u%2F1"),
        ("a b", "a%20b"),
        ("100%", "100%25"),
        ("?q=1&r#s", "%3Fq%3D1%26r%23s"),
        ("é", "%C3%A9"),
        ("漢字", "%E6%BC%A2%E5%AD%97"),
        ("a+b~c-d_e.f", "a%2Bb~c-d_e.f"),
        ("%2F", "%252F"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("a\r\nb", "a%0D%0Ab"),
    ],
)
def test_labels_and_ids_are_percent_encoded(user_id: str, segment: str) -> None:
    path = wire.encode(UserRequest(APP, user_id, user_id, {"a": "1"}, {}, {})).path
    assert path == f"/apps/{APP}/users/by/{segment}/{segment}"


@settings(deadline=None)
@given(st.text(min_size=1))
def test_an_id_comes_back_whole_from_the_path(user_id: str) -> None:
    path = wire.encode(UserRequest(APP, "external_id", user_id, {"a": "1"}, {}, {})).path
    assert path.isascii()
    assert path.count("/") == 6
    assert unquote(path.rsplit("/", 1)[1], errors="strict") == user_id


def test_half_a_character_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        wire.encode(UserRequest(APP, "external_id", "\ud800", {"a": "1"}, {}, {}))
