"""Laws of `classify`: it never raises, whatever the reply, and never says more than the reply does."""

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.core.requests import NotificationRequest, Request, UserRequest
from sendengine.core.targets import Target
from sendengine.core.verdicts import Fault, KeyRefused, Refused, ServerFault, Took, Verdict
from sendengine.core.wire import Reply, classify, retry_after_s

texts = st.text(max_size=30) | st.sampled_from(
    [
        "",
        "u1",
        "u-17",
        "en",
        "API key",
        "Authorization: Key abc",
        "See the RateLimit response headers",
        "ttl",
        "'u1'",
        "[u1]",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "errors", "error", "invalid_aliases", "code", "title", "meta", "limit", "message"])
            | texts,
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
bodies = (
    st.binary(max_size=200)
    | values.map(lambda value: orjson.dumps(value, default=str) if _fits(value) else b"1" * 80)
    | st.builds(
        lambda head, tail: head + tail, st.sampled_from([b"<html>", b"{", b'{"id":', b"[", b'"', b"\x00"]), st.binary()
    )
)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "RetryAfter", "date", "content-type", "location", "idempotent-replayed"]) | texts,
    texts
    | st.sampled_from(["text/html", "application/json", "5", "-1", "inf", "Sat, 21 Nov 2026 10:00:00 GMT", "true"]),
    max_size=6,
)
statuses = st.sampled_from([200, 202, 204, 301, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503]) | st.integers()
requests = st.sampled_from(
    [
        NotificationRequest("app", "key", b"{}", Target("alias", ("u1", "u-17", "en", "ttl"), "external_id"), "push"),
        NotificationRequest("app", "key", b"{}", Target("segments", ("u1",))),
        UserRequest("app", "external_id", "u1", {"a": "1"}, {}, {}),
        UserRequest("app", "external_id", "u1", {}, {}, {"session_count": 1}),
    ]
)


def _fits(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@settings(max_examples=250, deadline=None)
@given(statuses, headers, bodies, requests)
def test_any_reply_has_a_verdict(status: int, headers: dict[str, str], body: bytes, request_: Request) -> None:
    verdict = classify(Reply(status, headers, body), request_)
    assert isinstance(verdict, Verdict)
    assert verdict == classify(Reply(status, headers, body), request_)
    errors = getattr(verdict, "errors", ())
    assert len(errors) <= 21
    assert all(len(error) <= 500 and error.isprintable() and error for error in errors)
    match verdict:
        case Took(unsubscribed=unsubscribed):
            assert 200 <= status < 300
            assert len(set(unsubscribed)) == len(unsubscribed)
        case Refused(fault=fault, named=named):
            assert 100 <= status < 500
            assert bool(named) == (fault is Fault.RECIPIENTS)
            assert not named or (isinstance(request_, NotificationRequest) and set(named) <= set(request_.target.ids))
        case KeyRefused():
            assert status in {400, 401, 403}
        case ServerFault(retry_after_s=wait_s):
            assert wait_s is None or wait_s >= 0


@settings(deadline=None)
@given(headers)
def test_what_is_asked_to_wait_is_a_time(headers: dict[str, str]) -> None:
    wait_s = retry_after_s(headers)
    assert wait_s is None or 0 <= wait_s <= 31_536_000


@settings(deadline=None)
@given(st.integers(0, 31_536_000))
def test_whole_seconds_are_read_exactly(seconds: int) -> None:
    assert retry_after_s({"retry-after": str(seconds)}) == seconds


@settings(max_examples=40, deadline=None)
@given(st.sets(st.from_regex(r"[a-z]{1,8}-[0-9]{1,6}", fullmatch=True), min_size=2, max_size=30), st.data())
def test_the_recipients_that_are_named_are_the_ones_that_are_named(ids: set[str], data: st.DataObject) -> None:
    everyone = tuple(sorted(ids))
    bad = data.draw(st.sets(st.sampled_from(everyone), min_size=1))
    request = NotificationRequest("app", "key", b"{}", Target("alias", everyone, "external_id"), "push")
    shape = data.draw(st.sampled_from(["list", "quoted", "bare", "structured"]))
    errors: object = {
        "list": [f"not valid: [{', '.join(sorted(bad))}]"],
        "quoted": [f"'{item}' is not valid" for item in bad],
        "bare": [f"{item} is not valid" for item in bad],
        "structured": {"invalid_aliases": {"external_id": list(bad)}},
    }[shape]
    verdict = classify(Reply(400, {}, orjson.dumps({"errors": errors})), request)
    assert isinstance(verdict, Refused)
    assert set(verdict.named) == bad
