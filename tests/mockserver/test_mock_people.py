"""People, keys and targets: laws and tables without a socket."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.mockserver import AppConfig
from sendengine.mockserver.audience import Audience
from sendengine.mockserver.keys import First, Keys, parse_key
from sendengine.mockserver.profiles import Profiles, apply, tag_text
from sendengine.mockserver.replies import Answer, page, render
from sendengine.mockserver.targeting import Targeting, read_targeting

ids = st.lists(st.sampled_from(["a", "b", "c", "d", "ü", "日本", "a b"]), unique=True)
some = st.frozensets(st.sampled_from(["a", "b", "ü", "x"]))


@given(ids=ids, unsubscribed=some, unknown=some, share=st.sampled_from([0.0, 0.3, 1.0]), creates=st.booleans())
def test_everybody_of_a_request_is_in_one_place_and_in_order(
    ids: list[str], unsubscribed: frozenset[str], unknown: frozenset[str], share: float, creates: bool
) -> None:
    people = Audience(AppConfig(unsubscribed=unsubscribed, unknown=unknown, unknown_share=share))
    split = people.split(ids, creates=creates)
    parts = (split.reached, split.unsubscribed, split.unknown)
    assert sorted(name for part in parts for name in part) == sorted(ids)
    assert all(part == [name for name in ids if name in part] for part in parts)
    assert set(split.unsubscribed) == unsubscribed.intersection(ids)
    assert not (creates and split.unknown)
    assert share < 1 or creates or not split.reached


def test_a_share_is_about_that_many_people() -> None:
    people = Audience(AppConfig(poisoned_share=0.01, new_users_share=0.5))
    names = [f"user-{number}" for number in range(20_000)]
    assert 150 <= len(people.poisoned(names)) <= 250
    assert 9000 <= sum(people.is_new(name) for name in names) <= 11_000


def test_nobody_is_poisoned_or_new_unless_the_settings_say_so() -> None:
    people = Audience(AppConfig())
    assert people.poisoned(["a"]) == []
    assert not people.is_new("a")


changes = st.fixed_dictionaries(
    {
        "tags": st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["", "1", "2", None, 3, True])),
        "properties": st.dictionaries(st.sampled_from(["language", "country"]), st.sampled_from(["de", "en"])),
        "deltas": st.fixed_dictionaries(
            {}, optional={"session_count": st.integers(0, 9), "session_time": st.integers(0, 9)}
        ),
    }
)


@given(st.lists(st.tuples(st.sampled_from(["u", "v"]), changes), max_size=12))
def test_a_user_is_what_the_updates_in_turn_have_made(updates: list[tuple[str, dict[str, dict[str, object]]]]) -> None:
    profiles = Profiles()
    for user, change in updates:
        apply(profiles.open("external_id", user), **change)
    for user in {user for user, _ in updates}:
        own = [change for name, change in updates if name == user]
        profile = profiles.find("external_id", user)
        assert profile is not None
        last = {name: value for change in own for name, value in change["tags"].items()}
        assert profile.tags == {name: tag_text(value) for name, value in last.items() if value not in {"", None}}
        assert profile.properties == {name: value for change in own for name, value in change["properties"].items()}
        for delta in ("session_count", "session_time"):
            counts = [change["deltas"].get(delta, 0) for change in own]
            assert getattr(profile, delta) == sum(count for count in counts if isinstance(count, int))
        assert profile.applied == len(own)
    assert len(profiles) == len({user for user, _ in updates}) == len(list(profiles))


def test_a_user_who_was_never_updated_has_no_profile() -> None:
    profiles = Profiles()
    profiles.open("external_id", "u")
    assert profiles.find("external_id", "v") is profiles.find("crm", "u") is None


@given(st.uuids())
def test_a_key_is_the_number_of_its_uuid(key: UUID) -> None:
    assert parse_key(str(key)) == parse_key(key.hex.upper()) == key.int


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "key", "0b6b6ad4-4b1e-4b3a-9d3c", "0b6b6ad4-4b1e4b3a-9d3c-2a52a7a0a001", "g" * 32, "0x" + "1" * 30],
)
def test_what_is_no_uuid_is_no_key(text: object) -> None:
    assert parse_key(text) is None


def test_the_first_success_under_a_key_stays() -> None:
    keys = Keys()
    assert keys.find(5) is None
    assert keys.remember(5, first := First(1))
    assert keys.remember(5, first)
    assert not keys.remember(5, First(2))
    assert (keys.find(5), len(keys)) == (first, 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"include_aliases": {"crm": ["a", "b", "a"]}, "target_channel": "sms"},
            Targeting("include_aliases", "crm", ["a", "b"], "sms", ("crm",)),
        ),
        (
            {"include_aliases": {"x": ["a"], "y": ["a"], "z": []}, "target_channel": "push"},
            Targeting("include_aliases", "aliases", ["x:a", "y:a"], "push", ("x", "y")),
        ),
        ({"include_player_ids": ["p"]}, Targeting("include_player_ids", "subscription_id", ["p"], "push")),
        ({"email_to": ["a@x"]}, Targeting("email_to", "email", ["a@x"], "email", creates=True)),
        (
            {"include_external_user_ids": ["e"], "channel_for_external_user_ids": "email"},
            Targeting("include_external_user_ids", "external_id", ["e"], "email"),
        ),
        (
            {"included_segments": ["All"], "excluded_segments": ["None"], "filters": []},
            Targeting("included_segments", "segments", [], "push"),
        ),
        ({"filters": [{"field": "tag"}], "target_channel": "sms"}, Targeting("filters", "segments", [], "sms")),
    ],
)
def test_one_method_of_targeting_is_read(body: dict[str, object], expected: Targeting) -> None:
    assert read_targeting(body) == expected


def test_a_reply_is_rendered_whole() -> None:
    head, body = render(Answer(202, b"{}", headers=b"X: y\r\n"), keep_alive=False)
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 202 Accepted"
    assert lines[1].startswith("cf-ray: ")
    assert lines[2:] == [
        "X: y",
        "Content-Type: application/json; charset=utf-8",
        "Content-Length: 2",
        "Connection: close",
        "",
        "",
    ]
    assert body == b"{}"
    assert render(Answer(524, b""), keep_alive=True)[0].startswith(b"HTTP/1.1 524 Unknown\r\n")
    assert render(page(524), keep_alive=True)[1].startswith(b"<html>\r\n<head><title>524 A timeout occurred</title>")


def test_no_two_replies_have_the_same_ray() -> None:
    rays = {render(Answer(200, b""), keep_alive=True)[0].split(b"\r\n")[1] for _ in range(100)}
    assert len(rays) == 100
