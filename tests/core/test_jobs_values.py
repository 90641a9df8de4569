"""A job is a value: what it was made of may change, and what JSON cannot say is refused."""

import math
from typing import Any

import pytest

from sendengine.core.jobs import CreateNotification, UpdateUser
from sendengine.core.targets import external_id
from sendengine.errors import InvalidJobError

HI: dict[str, Any] = {"contents": {"en": "Hi"}}


def test_a_job_keeps_what_it_was_made_of_whatever_becomes_of_that() -> None:
    properties: dict[str, Any] = {"language": "en"}
    purchases: list[Any] = [{"sku": "a", "amount": "1", "iso": "EUR"}]
    job = UpdateUser(external_id("u"), properties=properties, deltas={"purchases": purchases})
    properties["language"] = "de"
    purchases.append({"sku": "b", "amount": "2", "iso": "EUR"})
    assert job.properties == {"language": "en"}
    nothing: dict[str, Any] = {}
    job_of_tags = UpdateUser(external_id("u"), {"a": 1}, nothing, nothing)
    nothing["session_count"] = 2**60
    assert (job_of_tags.properties, job_of_tags.deltas) == ({}, {})
    assert job.deltas == {"purchases": [{"sku": "a", "amount": "1", "iso": "EUR"}]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_refused_instead_of_becoming_null(value: float) -> None:
    with pytest.raises(InvalidJobError, match="NaN"):
        UpdateUser(external_id("u"), properties={"lat": value})
    with pytest.raises(InvalidJobError, match="NaN"):
        CreateNotification(to=external_id("u"), channel="push", message={**HI, "data": {"a": [None, value]}})


def test_nulls_and_the_word_null_are_no_such_numbers() -> None:
    UpdateUser(external_id("u"), properties={"country": None, "note": "null", "lat": 1.5})


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"expires_in_s": "5"}, "expires_in_s"),
        ({"expires_in_s": True}, "expires_in_s"),
        ({"expires_in_s": math.inf}, "expires_in_s"),
        ({"pack": "no"}, "pack"),
        ({"pack": 1}, "pack"),
    ],
)
def test_an_option_of_another_type_is_refused_where_it_was_written(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidJobError, match=field):
        CreateNotification(to=external_id("u"), channel="push", message=HI, **options)
