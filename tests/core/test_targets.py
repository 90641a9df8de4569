"""Whom a job can be for: what each way of naming recipients refuses, and what it knows of them."""

import math
from collections.abc import Callable

import pytest

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
from sendengine.errors import InvalidJobError

HALF = "\ud800"


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (external_id, "to.external_id: names nobody"),
        (lambda: external_id(""), "to.external_id: every id is a non-empty string, got ''"),
        (lambda: external_id("a", " \t"), r"every id is a non-empty string, got ' \\t'"),
        (lambda: external_id("a", "\u2003"), "every id is a non-empty string"),
        (lambda: external_id("\u2003"), "every id is a non-empty string"),
        (lambda: external_id("a", "", "b"), "every id is a non-empty string, got ''"),
        (lambda: external_id("a", 7), "every id is a non-empty string, got 7"),  # type: ignore[arg-type]
        (lambda: external_id(7), "every id is a non-empty string, got 7"),  # type: ignore[arg-type]
        (lambda: external_id("x" * 129), "an id has at most 128 characters, got 129"),
        (lambda: external_id("a", "x" * 129), "an id has at most 128 characters, got 129"),
        (lambda: external_id("NULL"), "'NULL' is a placeholder"),
        (lambda: external_id("a", "NULL"), "'NULL' is a placeholder"),
        (lambda: external_id(HALF), "half a surrogate pair"),
        (lambda: external_id("a", HALF), "half a surrogate pair"),
        (lambda: alias("", "a"), "an alias label has 1 to 128 characters"),
        (lambda: alias(" ", "a"), "to.alias label: every id is a non-empty string"),
        (lambda: alias("crm_id", ""), "to.crm_id: every id"),
        (lambda: email(" "), "to.email: every id"),
        (phone_number, "to.phone_number: names nobody"),
        (lambda: segments("a", excluded=[""]), "to.excluded_segments: every id"),
        (lambda: segments("a", excluded="Beta"), "to.excluded_segments: give a list of names, got the text 'Beta'"),
        (segments, "to.segments: names nobody"),
        (lambda: filters([{"field": "session_count", "value": math.nan}]), "to.filters: JSON has no infinity"),
    ],
)
def test_what_can_be_no_id_is_refused_alone_and_among_others(make: Callable[[], Target], complaint: str) -> None:
    with pytest.raises(InvalidJobError, match=complaint):
        make()


@pytest.mark.parametrize("ids", [("a",), ("two words",), (" padded ", "a"), ("é", "ü"), ("x" * 128,), ("00",)])
def test_any_other_text_is_an_id(ids: tuple[str, ...]) -> None:
    assert external_id(*ids).ids == ids


def test_placeholders_and_long_texts_are_refused_only_where_onesignal_does() -> None:
    assert onesignal_id("NULL").ids == ("NULL",)
    assert email("x" * 200 + "@example.com", "NULL").ids[1] == "NULL"
    assert subscription_id("x" * 200).kind == "subscription_id"


def test_a_target_knows_whether_all_are_different() -> None:
    assert external_id("a").are_distinct
    assert external_id("a", "b").are_distinct
    assert not external_id("a", "b", "a").are_distinct
    assert not Target("alias", ("a", "b"), "external_id").are_distinct, "nobody looked"


def test_a_target_of_several_knows_how_many_bytes_they_have_at_the_most() -> None:
    assert external_id("ab", "ü").text_bytes == 4
    assert Target("alias", ("ab", "ü"), "external_id").text_bytes == 0, "nobody counted"
    assert external_id("ab", "ü") == Target("alias", ("ab", "ü"), "external_id")


def test_what_is_known_of_the_ids_makes_no_difference_between_targets() -> None:
    looked_at, trusted = external_id("a", "b"), Target("alias", ("a", "b"), "external_id")
    assert looked_at == trusted
    assert hash(looked_at) == hash(trusted)
    assert looked_at != external_id("b", "a")
    assert looked_at != alias("crm_id", "a", "b")
    assert looked_at != ("a", "b")


def test_filters_are_what_they_were_when_they_were_given() -> None:
    rule: dict[str, str | int | float | bool] = {"field": "tag", "key": "level", "relation": "=", "value": "10"}
    target = filters([rule])
    rule["value"] = "11"
    assert target.rules == ({"field": "tag", "key": "level", "relation": "=", "value": "10"},)
