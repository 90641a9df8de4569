"""Jobs, requests and outcomes go into a journal and come back equal; nonsense is named, never a wrong job."""

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.joblines import job_fields
from sendengine.core.jobs import CreateNotification, Job, Json, UpdateUser
from sendengine.core.outcomes import (
    Abandoned,
    Accepted,
    Ambiguous,
    Expired,
    GaveUp,
    Outcome,
    Rejected,
    Unreachable,
)
from sendengine.core.targets import alias, email, external_id, filters, phone_number, segments, subscription_id
from sendengine.errors import InvalidJobError
from sendengine.journal.records import (
    DeadEntry,
    JobEntry,
    RequestEntry,
    UnreadableRecordError,
    read_dead,
    read_job,
    read_key,
    read_part,
    read_request,
    write_dead,
    write_job,
    write_key,
    write_part,
    write_request,
)
from sendengine.ports import KeyRecall, Part
from tests.support.stores import a_job, a_seal

HI = {"contents": {"en": "Hi"}}
JOBS: list[Job] = [
    a_job(),
    CreateNotification(to=alias("email", "x@example.com"), channel="email", message=HI),  # a label, not an address
    CreateNotification(to=email("x@example.com"), message={"email_subject": "ü\u2028\n", "data": {"a": [1, 1e-7]}}),
    CreateNotification(to=phone_number("+14155550123"), message=HI, expires_in_s=3600.25, pack=False),
    CreateNotification(to=subscription_id("a", "b"), message=HI, expires_at=datetime(2026, 11, 27, 8, 0, 0, 5, UTC)),
    CreateNotification(
        to=segments("A", "B", excluded=("C",)), message=HI, channel="push", expected_recipients=0, urgency="high"
    ),
    CreateNotification(
        to=filters([{"field": "tag", "key": "a", "relation": ">", "value": 1.5}, {"operator": "OR"}]), message=HI
    ),
    CreateNotification(
        to=external_id(*(f"u{n}" for n in range(2000))), channel="push", message=HI, pack=True, idempotency_key="k",
        on_ambiguous="retry", app="shop",
    ),
    UpdateUser(external_id("u"), {"a": 1, "b": None, "c": True}, {"language": "en"}, {"session_count": 2**40}),
    UpdateUser(
        alias("filters", "u"), {}, {}, {"purchases": [{"sku": "a", "amount": "9.99", "iso": "EUR"}]},
        coalesce=False, on_missing="retry", on_ambiguous="retry", urgency="high", idempotency_key="schlüssel",
        expires_at=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ),
]  # fmt: skip
OUTCOMES: list[Outcome] = [
    Accepted(("m1", "m2"), 7, ("u1",), replayed=True, attempts=3),
    Unreachable(("nobody",), 2, ("u1", "u2")),
    Rejected(400, ("bad",), 1, ("u1",)),
    GaveUp("status 500", 10, maybe_sent=True, not_sent=("u1",)),
    Ambiguous("reply lost", 2),
    Expired(("u1",)),
    Abandoned(maybe_sent=True),
]


@pytest.mark.parametrize("job", JOBS)
def test_a_job_comes_back_equal(job: Job) -> None:
    for entry in (
        JobEntry(job, "shop", 1_700_000_000.123456),
        JobEntry(job, "app-ü", 0.5, 10**12, "8250eaf6", b"\x00\xff", 3, is_begun=True),
    ):
        assert read_job(write_job(entry)) == entry


@pytest.mark.parametrize("levels", range(240, 256))
def test_a_job_that_is_nested_too_deeply_for_a_record_is_none(levels: int) -> None:
    value: list[Json] = []
    for _ in range(levels):
        value = [value]
    for make in (
        lambda: CreateNotification(to=segments("A"), message={"data": value}),
        lambda: CreateNotification(to=filters([{"value": value}]), message=HI),  # type: ignore[dict-item]  # as a line may
        lambda: UpdateUser(external_id("u"), properties={"a": value}),
    ):
        try:
            job: Job = make()
        except InvalidJobError:
            continue
        entry = JobEntry(job, "shop", 1.0)
        assert read_job(write_job(entry)) == entry
        dead = DeadEntry(entry, Rejected(400, ("bad",), 1), ())
        assert read_dead(write_dead(dead)) == dead
        assert orjson.dumps({"job": job_fields(job)})  # a line of failures.jsonl


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_comes_back_equal_wherever_it_stands(outcome: Outcome) -> None:
    part = Part(("u1", "u\n2"), outcome)
    assert read_part(write_part(2**40, part)) == (2**40, part)
    recall = KeyRecall(b"\x01\x02", outcome)
    assert read_key(write_key(recall)) == recall
    dead = DeadEntry(JobEntry(a_job(), "shop", 1.0), outcome, ("1-2", "3-4"))
    assert read_dead(write_dead(dead)) == dead


def test_a_key_that_is_under_way_has_no_outcome() -> None:
    assert read_key(write_key(KeyRecall(b"", None))) == KeyRecall(b"", None)


@given(st.binary(), st.lists(st.tuples(st.integers(0, 2**62), st.lists(st.text(), max_size=3).map(tuple)), max_size=3))
def test_a_request_comes_back_byte_for_byte(body: bytes, members: list[tuple[int, tuple[str, ...]]]) -> None:
    try:
        "".join(each for _, ids in members for each in ids).encode()
    except UnicodeEncodeError:
        return  # no job has such ids
    entry = RequestEntry(a_seal(*members, body=body), 1_700_000_000.5)
    assert read_request(write_request(entry)) == entry


@given(st.binary())
def test_nonsense_is_unreadable_and_nothing_else(payload: bytes) -> None:
    for read in (read_job, read_request, read_part, read_key, read_dead):
        with pytest.raises(UnreadableRecordError):
            read(payload)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"push"', b'"carrier pigeon"'),
        (b'["u1"]', b'"u1"'),
        (b'["n",', b'["x",'),
        (b'"normal"', b'"whenever"'),
        (b'{"contents":{"en":"Hi"}}', b'{"app_id":"x"}'),
        (b'"shop"', b"5"),
    ],
)
def test_a_job_that_could_not_be_made_is_not_read(old: bytes, new: bytes) -> None:
    written = write_job(JobEntry(a_job(), "shop", 1.0))
    assert old in written
    with pytest.raises(UnreadableRecordError):
        read_job(written.replace(old, new))


def test_an_outcome_that_does_not_exist_is_not_read() -> None:
    written = write_part(1, Part(("u",), Expired()))
    for old, new in ((b"expired", b"lost"), (b'["expired",[]]', b"[]"), (b'["expired",[]]', b'["expired",5]')):
        with pytest.raises(UnreadableRecordError):
            read_part(written.replace(old, new))
