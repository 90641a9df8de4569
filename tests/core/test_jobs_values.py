"""A job is a value: what it was made of may change, and what JSON cannot say is refused."""

import math
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest

from sendengine.core.joblines import read_job
from sendengine.core.jobs import CreateNotification, UpdateUser
from sendengine.core.targets import external_id, filters, segments
from sendengine.errors import InvalidJobError
from sendengine.journal import records

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
        ({"expires_in_s": 10**400}, "expires_in_s"),
        ({"expires_at": datetime(2027, 1, 1, tzinfo=timezone(timedelta(seconds=3601)))}, "expires_at"),
    ],
)
def test_an_option_of_another_type_is_refused_where_it_was_written(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidJobError, match=field):
        CreateNotification(to=external_id("u"), channel="push", message=HI, **options)


@pytest.mark.parametrize("expected", [True, -1, 2**70, pytest.param(10**400, id="huge"), 1.0])
def test_expected_recipients_is_a_number_that_can_be_counted_with(expected: Any) -> None:
    with pytest.raises(InvalidJobError, match="expected_recipients"):
        CreateNotification(to=segments("All"), message=HI, expected_recipients=expected)


@pytest.mark.parametrize("coalesce", [0, None, "no"])
def test_coalesce_is_yes_or_no(coalesce: Any) -> None:
    with pytest.raises(InvalidJobError, match="coalesce"):
        UpdateUser(external_id("u"), {"a": 1}, coalesce=coalesce)


def test_a_tag_that_is_a_number_of_hundreds_of_digits_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidJobError, match=r"tags\.a"):
        read_job(b'{"kind":"update_user","user":{"external_id":"u"},"tags":{"a":1%b}}' % (b"0" * 400))


class _Float(float):
    """Such as the numbers of numpy, which JSON writers refuse."""


@pytest.mark.parametrize(
    "job",
    [
        CreateNotification(to=external_id("u"), channel="push", message=HI, expires_in_s=_Float(60)),
        CreateNotification(to=external_id("u"), channel="push", message=HI, expires_in_s=2**70),
        CreateNotification(
            to=external_id("u"), channel="push", message=HI, expires_at=datetime.max.replace(tzinfo=UTC)
        ),
        CreateNotification(to=segments("All"), message=HI, expected_recipients=2**40),
        CreateNotification(to=filters([MappingProxyType({"field": "tag", "value": "1"})]), message=HI),
        UpdateUser(external_id("u"), {"a": _Float(1.5)}, coalesce=False),
    ],
)
def test_what_is_taken_for_a_job_comes_back_from_a_journal(job: CreateNotification | UpdateUser) -> None:
    entry = records.JobEntry(job, "shop", 1.0)
    assert records.read_job(records.write_job(entry)) == entry
