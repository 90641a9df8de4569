"""Jobs as lines: every line becomes its job or a fault that says what and where; jobs go back into lines."""

import json
from datetime import UTC, datetime

import pytest

from sendengine.core.joblines import job_fields, read_job
from sendengine.core.jobs import CreateNotification, Job, UpdateUser
from sendengine.core.targets import alias, email, external_id, filters, phone_number, segments, subscription_id
from sendengine.errors import InvalidJobError

UUID = "8250eaf6-1a58-489e-b136-7c74a864b434"
HI = {"contents": {"en": "Hi"}}
NOTE = '"kind":"create_notification","message":{"contents":{"en":"Hi"}}'
TO = '"to":{"external_id":["u1"]},"channel":"push"'


def read(line: str) -> Job:
    return read_job(line.encode())


def fault(line: str) -> str:
    with pytest.raises(InvalidJobError) as caught:
        read_job(line.encode(errors="surrogateescape"))
    return str(caught.value)


def test_the_lines_of_the_contract_are_jobs() -> None:
    for line, job in [
        (
            f'{{{NOTE},"to":{{"external_id":["u1","u2"]}},"channel":"push"}}',
            CreateNotification(to=external_id("u1", "u2"), message=HI, channel="push"),
        ),
        (
            f'{{"kind":"create_notification","message":{{"template_id":"t"}},"to":{{"subscription_id":["{UUID}"]}}}}',
            CreateNotification(to=subscription_id(UUID), message={"template_id": "t"}),
        ),
        (
            f'{{{NOTE},"to":{{"segments":["Subscribed Users"]}},"expected_recipients":120000}}',
            CreateNotification(to=segments("Subscribed Users"), message=HI, expected_recipients=120_000),
        ),
        (
            (
                '{"kind":"update_user","user":{"external_id":"u1"},"tags":{"level":"5","old":""},'
                '"properties":{"language":"en"},"deltas":{"purchases":[{"sku":"a1","amount":"9.99","iso":"EUR"}]}}'
            ),
            UpdateUser(
                external_id("u1"),
                tags={"level": "5", "old": ""},
                properties={"language": "en"},
                deltas={"purchases": [{"sku": "a1", "amount": "9.99", "iso": "EUR"}]},
            ),
        ),
    ]:
        assert read(line) == job


ALL_KINDS: list[Job] = [
    CreateNotification(
        to=alias("crm_id", "ü 1/2"),
        message={"template_id": "t", "data": {"a": [1, None, True]}},
        channel="email",
        app="shop",
        urgency="high",
        pack=True,
        expires_at=datetime(2026, 11, 27, 8, 0, 0, 250_000, tzinfo=UTC),
        idempotency_key="shipped:991",
        on_ambiguous="retry",
    ),
    CreateNotification(to=email("ann@example.com"), message={"email_subject": "x"}, expires_in_s=3600.5, pack=False),
    CreateNotification(to=phone_number("+14155550123"), message={"contents": {"en": "x"}}),
    CreateNotification(to=segments("A", "B", excluded=("C",)), message=HI, channel="push", expected_recipients=0),
    CreateNotification(
        to=filters([{"field": "tag", "key": "a", "relation": "=", "value": "1"}, {"operator": "OR"}]), message=HI
    ),
    UpdateUser(external_id("u"), deltas={"session_count": 1}, coalesce=False, on_missing="retry", on_ambiguous="retry"),
    UpdateUser(alias("crm_id", "u"), tags={"a": 1, "b": None}, app="shop", urgency="high", expires_in_s=5),
]


@pytest.mark.parametrize("job", ALL_KINDS)
def test_a_job_goes_into_a_line_and_back(job: Job) -> None:
    assert read(json.dumps(job_fields(job))) == job


def test_only_what_was_not_sent_goes_back_and_then_without_its_key() -> None:
    job = CreateNotification(to=external_id("a", "b"), message=HI, channel="push", idempotency_key="k")
    assert job_fields(job, only=("a", "b"))["idempotency_key"] == "k"
    assert job_fields(job, only=("b",)) == {
        "kind": "create_notification",
        "message": HI,
        "to": {"external_id": ["b"]},
        "channel": "push",
    }
    update = UpdateUser(external_id("u"), tags={"a": "1"})
    assert job_fields(update, only=("u",)) == {
        "kind": "update_user",
        "user": {"external_id": "u"},
        "tags": {"a": "1"},
    }


def test_a_line_of_failures_is_its_job_unless_it_may_have_been_sent() -> None:
    job = f"{{{NOTE},{TO}}}"
    line = f'{{"job":{job},"outcome":"rejected","reason":"x","maybe_sent":false,"key":"k"}}'
    assert read(line) == read(job)
    assert fault(line.replace("false", "true")).startswith("maybe_sent: this job may have been sent")
    assert "`sendengine retry RUN`" in fault(line.replace("false", "true"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", ": is no JSON: Input data was truncated"),
        ('{"kind":', ": is no JSON: Input data was truncated"),
        ("[1]", ": expected `object`, got `array`"),
        (f'{{{NOTE},"to":{{"external_id":["\udcff"]}}}}', ": holds bytes that are not UTF-8"),
        ("{}", "kind: is missing"),
        ('{"kind":"create_notifications"}', "kind: is one of create_notification and update_user"),
        ('{"kind":"create_notification"}', "to: is missing"),
        (f"{{{NOTE}}}", "to: is missing"),
        (f'{{{NOTE},{TO},"chanel":"push"}}', "chanel: there is no such key; did you mean 'channel'?"),
        (f'{{{NOTE},{TO},"tags":{{}}}}', "tags: there is no such key; such a job has: app,"),
        (
            '{"kind":"update_user","user":{"external_id":"u"},"tag":{}}',
            "tag: there is no such key; did you mean 'tags'?",
        ),
        (f'{{{NOTE},{TO},"urgency":"asap"}}', "urgency: 'high' or 'normal', got 'asap'"),
        (f'{{{NOTE},{TO},"on_ambiguous":"wait"}}', "on_ambiguous: 'report' or 'retry', got 'wait'"),
        (
            '{"kind":"update_user","user":{"external_id":"u"},"tags":{"a":"1"},"on_missing":"x"}',
            "on_missing: 'fail' or 'retry', got 'x'",
        ),
        (f'{{{NOTE},{TO},"expires_at":"soon"}}', "expires_at: a time with its zone, such as 2026-11-27T08:00:00Z"),
        (f'{{{NOTE},{TO},"expires_at":[]}}', "expires_at: expected `datetime | null`, got `array`"),
        (f'{{{NOTE},{TO},"expires_at":"2026-11-27T08:00:00"}}', "expires_at: a time with its zone"),
        (f'{{{NOTE},{TO},"expires_in_s":-1}}', "expires_in_s: seconds above 0"),
        (f'{{{NOTE},"to":{{}}}}', "to: holds exactly one of an alias label"),
        (
            f'{{{NOTE},"to":{{"external_id":["u"],"email":["a@b.de"]}}}}',
            (
                "to: holds exactly one of an alias label, subscription_id, email, phone_number, segments (with "
                "excluded_segments) and filters, got external_id and email"
            ),
        ),
        (f'{{{NOTE},"to":{{"external_id":"u"}}}}', 'to.external_id: is a list, such as ["…"], got str'),
        (f'{{{NOTE},"to":{{"external_id":[]}}}}', "to.external_id: names nobody"),
        (f'{{{NOTE},"to":{{"external_id":[7]}}}}', "to.external_id: every id is a non-empty string, got 7"),
        (f'{{{NOTE},"to":{{"external_ids":["u"]}}}}', "to.external_ids: there is no such target; did you mean"),
        (
            f'{{{NOTE},"to":{{"email":["a@b.de"],"excluded_segments":["x"]}}}}',
            "to.excluded_segments: goes with segments",
        ),
        (f'{{{NOTE},"to":{{"segments":["a"],"excluded_segments":"x"}}}}', "to.excluded_segments: is a list"),
        (f'{{{NOTE},"to":{{"external_id":["u"]}}}}', "channel: missing; an alias target needs one of push, email, sms"),
        (f'{{{NOTE},{TO},"expected_recipients":5}}', "expected_recipients: a whole number from 0 up to 1099"),
        (
            f'{{{NOTE},"to":{{"segments":["A"]}},"expected_recipients":{2**64}}}',
            "expected_recipients: a whole number from 0 up to 1099511627776, only for segments or filters",
        ),
        ('{"kind":"update_user","user":{"external_id":5},"tags":{"a":"1"}}', "user: expected `str`, got `int`"),
        ('{"kind":"update_user","user":{},"tags":{"a":"1"}}', "user: names one user by one alias"),
        ('{"kind":"update_user","user":{"external_id":"u"},"tags":{"level":[5]}}', "tags.level: a string, number or"),
        ('{"kind":"update_user","user":{"external_id":"u"}}', "tags: the job changes nothing"),
        (
            '{"kind":"update_user","user":{"external_id":"u"},"coalesce":false,"tags":'
            + json.dumps({f"t{n}": "1" for n in range(101)})
            + "}",
            "coalesce: 101 modifications do not fit one request",
        ),
    ],
)
def test_a_fault_is_told_with_its_field(line: str, told: str) -> None:
    assert fault(line).startswith(told)
