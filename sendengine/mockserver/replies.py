"""Replies as bytes, and the bodies that OneSignal documents or was seen to send.

Sources: the reference pages of create message and update user, the error catalogue of OneSignal's Python SDK 5.18,
and replies quoted in public issues (python-api, node-api, Android-SDK, Flutter-SDK, onesignal-node), read 2026-11-21.
"""

from http import HTTPStatus
from itertools import count
from typing import Final

import orjson
from msgspec import Struct

from sendengine.core.onesignal import DISABLED_TEXT, PER_USER_LIMIT
from sendengine.mockserver.keys import First

JSON: Final = b"application/json; charset=utf-8"
TEXT: Final = b"text/plain"
HTML: Final = b"text/html"

KEY_REFUSED: Final = (
    "Access denied.  Please include an 'Authorization: ...' header with a valid API key "
    "(https://documentation.onesignal.com/docs/en/keys-and-ids#api-keys)."
)
KEY_REFUSED_USERS: Final = "This operation requires 'Authorization' in the HTTP header"
PLAN_REFUSED: Final = "This API is not available for applications on your plan."
APP_NOT_FOUND: Final = "app_id not found. You may be missing a Content-Type: application/json header."
NO_TARGET: Final = "You must include which players, segments, or tags you wish to send this notification to."
NO_CONTENTS: Final = "Message Notifications must have English language content"
NOBODY: Final = "All included players are not subscribed"
ONE_CHANNEL: Final = "Platforms You may only send to one delivery channel at a time."
DATA_TOO_LONG: Final = "Data Data must be no more than {} bytes long"
NOT_A_UUID: Final = "Incorrect subscription_id format in {} (not a valid UUID): {}"
VAGUE: Final = "The request could not be processed"
TOO_MANY_TAGS: Final = "App is limited to a maximum of {} tags on a given player"
TOO_MANY_TAGS_TITLE: Final = "The tags for this user exceed the limit for this organization's plan."
TOO_MANY_MODIFICATIONS: Final = "Please limit your tag updates to {} per request"
UNAVAILABLE: Final = b'{"errors":["Service temporarily unavailable"]}'
ENVOY: Final = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"
THROTTLED: Final = {
    "plain": b'{"errors":["API rate limit exceeded"]}',
    "dotted": b'{"errors":["API rate limit exceeded."]}',
    "coded": b'{"errors":[{"code":"Rate Limit Exceeded","title":"API rate limit exceeded"}]}',
    "app_limit": b'{"errors":["API rate limit exceeded"],"limit":"App ID"}',
    "empty": b"",
}
USER_THROTTLED: Final = orjson.dumps({"errors": ["API rate limit exceeded"], "limit": PER_USER_LIMIT})
DISABLED: Final = orjson.dumps({"errors": [f"API rate limit exceeded. {DISABLED_TEXT} for more details."]})

rays: Final = count(1)  # the numbers of replies, whatever connection they go by


class Answer(Struct, frozen=True, gc=False):
    """A reply that is not rendered yet. ``headers`` are whole lines.

    ``is_effect`` says that something was carried out for it. ``key`` and ``first`` are a success to be remembered once
    it has been answered; ``retry_after_s`` is what a 429 announces, and ``user`` whom alone it concerns.
    """

    status: int
    body: bytes
    headers: bytes = b""
    content_type: bytes = JSON
    is_effect: bool = False
    key: int | None = None
    first: First | None = None
    retry_after_s: float | None = None
    user: str | None = None


def refusal(status: int, *errors: str) -> Answer:
    """Refuse with texts, as the notifications endpoint words it."""
    return Answer(status, orjson.dumps({"errors": list(errors)}))


def coded(status: int, code: str, title: str) -> Answer:
    """Refuse with a code, as the user endpoints word it."""
    return Answer(status, orjson.dumps({"errors": [{"code": code, "title": title}]}))


TOO_LARGE: Final = Answer(413, b"", content_type=TEXT)


def page(status: int) -> Answer:
    """Return an HTML page, as the edge in front of OneSignal sends it."""
    phrase = HTTPStatus(status).phrase if status in _PHRASES else "A timeout occurred"
    body = f"<html>\r\n<head><title>{status} {phrase}</title></head>\r\n<body>cloudflare</body>\r\n</html>\r\n"
    return Answer(status, body.encode(), content_type=HTML)


def render(answer: Answer, *, keep_alive: bool) -> tuple[bytes, bytes]:
    """Return head and body as they go on the wire."""
    head = b"%bcf-ray: %016x-MCK\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (
        _status_line(answer.status),
        next(rays),
        answer.headers,
        answer.content_type,
        len(answer.body),
        b"" if keep_alive else b"Connection: close\r\n",
    )
    return head, answer.body


_PHRASES: Final = frozenset(status.value for status in HTTPStatus)
_LINES: dict[int, bytes] = {}


def _status_line(status: int) -> bytes:
    line = _LINES.get(status)
    if line is None:
        phrase = HTTPStatus(status).phrase if status in _PHRASES else "Unknown"
        line = _LINES[status] = f"HTTP/1.1 {status} {phrase}\r\n".encode()
    return line
