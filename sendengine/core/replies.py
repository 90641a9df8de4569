"""What one reply means for the request that it answers. Never raises, whatever the reply.

Units: ``_s`` is seconds.

Method: a success is read first, since nearly every reply is one; anything else goes through a table of rules, and
the first that knows the reply decides. Statuses decide before texts, except that the text of a disabled app counts
at any status, and that a 403 and a 400 are told apart by what they say.

Decided here: a 1xx or 3xx is definite, because a redirect is never followed and every request would meet it; it is
almost always a wrong base_url. A status that HTTP does not know is a server's fault, and so is a 2xx to a
create-notification request without a readable id: a repeat under the same key tells what became of it. A 403 in HTML
or in plain words that blame no key comes from an edge; an empty one, or ``{}``, is how OneSignal refuses a key.

Source: rate limits, create message and update user (documentation.onesignal.com, read 2026-11-21), and replies
quoted in issues of OneSignal's SDKs.
"""

import re
from collections.abc import Callable, Container, Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

import orjson
from msgspec import Struct

from sendengine.core.jobs import Json
from sendengine.core.onesignal import DISABLED_TEXT, PER_USER_LIMIT
from sendengine.core.refusals import complaint, fault_of, leaves, page_text, said_by, short, shortened, shown
from sendengine.core.requests import NotificationRequest, Request, UserRequest
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

_SUCCESS: Final = range(200, 300)
_RETRY_AFTER: Final = frozenset({"retry-after", "retryafter"})
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{0,9})?", re.ASCII)
_LONGEST_S: Final = 31_536_000.0  # a year: a server that says more does not mean it
_AUTHORIZATION: Final = re.compile(
    r"\b(?:include|missing|invalid|incorrect|requires?)\b.{0,60}\b(?:authorization|api[_ ]key)\b"
    r"|\b(?:authorization|api[_ ]key)\b.{0,60}\b(?:missing|invalid|incorrect|required|not valid)\b|\bauth-\d",
    re.IGNORECASE,
)
_FORBIDDEN: Final[tuple[tuple[re.Pattern[str], type[KeyRefused] | type[ChannelRefused]], ...]] = (
    (re.compile(r"\bauthorization\b|\b(?:in)?valid\b.{0,20}\bkey\b|\bauth-\d", re.IGNORECASE), KeyRefused),
    (re.compile(r"\bplan\b|\bchannel\b|\bfeature|\bsms\b|\be-?mails?\b|\bpush\b", re.IGNORECASE), ChannelRefused),
    (re.compile(r"\baccess denied\b|\bkeys?\b|\bcredentials?\b|\bunauthori[sz]ed\b", re.IGNORECASE), KeyRefused),
)


class Reply(Struct, frozen=True, gc=False):
    """What came back: names of ``headers`` are lower case; ``body`` is decoded and bounded in size."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def classify(reply: Reply, request: Request) -> Verdict:
    """Say what a reply means; never raises, whatever its status, headers and body are."""
    if reply.status in _SUCCESS and (took := _took(reply, request)) is not None:
        return took
    reading = _Reading(reply, request)
    for statuses, rule in _RULES:
        if reply.status in statuses and (verdict := rule(reading)) is not None:
            return verdict
    return _server_fault(reading)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` or ``RetryAfter`` asks for; the longer where both do.

    A date counts from the ``Date`` of the same reply. None where nothing is asked for or it cannot be understood.
    """
    named = {name.lower(): value for name, value in headers.items()}
    asked = [_seconds(value, date=named.get("date", "")) for name, value in named.items() if name in _RETRY_AFTER]
    return max((seconds for seconds in asked if seconds is not None), default=None)


def _seconds(value: str, *, date: str) -> float | None:
    text = value.strip()
    seconds = float(text) if _NUMBER.fullmatch(text) else _between(date, text)
    return seconds if isfinite(seconds) and 0 <= seconds <= _LONGEST_S else None


def _between(start: str, end: str) -> float:
    """Seconds from one HTTP date to another; -1 where either cannot be read."""
    try:
        return (parsedate_to_datetime(end) - parsedate_to_datetime(start)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return -1.0


def _took(reply: Reply, request: Request) -> Took | None:
    """Read a 2xx as a success, or return None where it is none."""
    mark = reply.headers.get("idempotent-replayed")
    replayed = mark is not None and mark.strip().lower() == "true"
    if isinstance(request, UserRequest):  # applied later, so the body is an echo that says nothing more
        return None if _is_page(reply) else Took(replayed=replayed)
    document = _parsed(reply.body)
    if not isinstance(document, dict):
        return None
    message_id, errors = document.get("id"), document.get("errors")
    if not isinstance(message_id, str) or not message_id:
        return None
    return Took(message_id, _unsubscribed(errors) if errors else (), replayed)


def _unsubscribed(errors: Json) -> tuple[str, ...]:
    """Gather the ids in all lists named ``invalid_…``, each once; those of any alias label count."""
    parts = errors if isinstance(errors, list) else [errors]
    lists = [value for part in parts if isinstance(part, dict) for name, value in part.items() if "invalid_" in name]
    return tuple(dict.fromkeys(leaves(lists)))


def _parsed(body: bytes) -> Json:
    """Return the JSON of a body, or None where it is none (or is ``null``)."""
    try:
        document: Json = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document


def _is_page(reply: Reply) -> bool:
    """Whether the body is HTML or XML: what an edge or a proxy answers, never OneSignal's API."""
    start = reply.body.lstrip()[:1]
    return start == b"<" or (start not in {b"", b"{", b"["} and "html" in reply.headers.get("content-type", "").lower())


class _Reading:
    """A reply that is no plain success, taken apart once for all rules."""

    __slots__ = ("document", "errors", "is_empty", "is_page", "reply", "request", "said", "texts")

    def __init__(self, reply: Reply, request: Request) -> None:
        self.reply = reply
        self.request = request
        self.document = _parsed(reply.body)
        self.is_page = self.document is None and (
            _is_page(reply) or "html" in reply.headers.get("content-type", "").lower()
        )
        self.is_empty = not self.is_page and self.document in ({}, None) and reply.body.strip() in {b"", b"{}", b"null"}
        if self.document is None:
            text = page_text(reply.body.decode(errors="replace"))
            self.texts: tuple[str, ...] = (text,) if text and not self.is_empty else ()
            self.errors = shortened(self.texts)
        else:
            part = complaint(self.document)
            self.texts = tuple(leaves(part))
            self.errors = shown(part)
        self.said = said_by(self.texts)


def _disabled(reading: _Reading) -> Verdict | None:
    return AppDisabled() if DISABLED_TEXT.lower() in reading.said.lower() else None


def _nobody_reached(reading: _Reading) -> Verdict | None:
    if isinstance(reading.document, dict) and isinstance(reading.request, NotificationRequest):
        return NobodyReached(reading.errors) if reading.document.get("id") == "" else None
    return None


def _throttled(reading: _Reading) -> Verdict:
    limits = (*leaves(reading.document), *reading.texts)
    is_user = isinstance(reading.request, UserRequest)
    user_only = is_user and any(PER_USER_LIMIT.lower() in text.lower() for text in limits)
    return Throttled(retry_after_s(reading.reply.headers), user_only)


def _key_refused(reading: _Reading) -> Verdict:
    return KeyRefused(reading.reply.status, reading.errors)


def _unauthorised(reading: _Reading) -> Verdict | None:
    return _key_refused(reading) if not reading.is_page and _AUTHORIZATION.search(reading.said) else None


def _forbidden(reading: _Reading) -> Verdict:
    if reading.is_page:
        return _server_fault(reading)
    if reading.is_empty:
        return _key_refused(reading)
    for pattern, refusal in _FORBIDDEN:
        if pattern.search(reading.said):
            return refusal(reading.reply.status, reading.errors)
    if reading.document is None:
        return _server_fault(reading)
    return ChannelRefused(reading.reply.status, reading.errors)


def _redirected(reading: _Reading) -> Verdict:
    location = reading.reply.headers.get("location", "")
    where = (short(f"redirected to {location}; is base_url right?"),) if location else ()
    return Refused(reading.reply.status, (*where, *reading.errors), Fault.MESSAGE)


def _server_fault(reading: _Reading) -> Verdict:
    return ServerFault(reading.reply.status, retry_after_s(reading.reply.headers), reading.errors)


def _refused(reading: _Reading) -> Verdict:
    texts = () if reading.is_page else reading.texts
    fault, named = fault_of(reading.request, status=reading.reply.status, texts=texts)
    return Refused(reading.reply.status, reading.errors, fault, named)


_RULES: Final[tuple[tuple[Container[int], Callable[[_Reading], Verdict | None]], ...]] = (
    (range(1000), _disabled),
    (_SUCCESS, _nobody_reached),
    (_SUCCESS, _server_fault),
    ({429}, _throttled),
    ({401}, _key_refused),
    ({400}, _unauthorised),
    ({403}, _forbidden),
    ({408, 425}, _server_fault),
    (range(400, 500), _refused),
    (range(100, 400), _redirected),
)
