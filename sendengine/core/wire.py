"""Requests as bytes, and the two values that cross the wire; what a reply means is in `sendengine.core.replies`.

Units: bodies are UTF-8 JSON; paths stand below the base URL and are percent-encoded.

Method: a message is rendered once, as its canonical JSON object, and spliced into the body of every request that
carries it, so that a request of 2,000 recipients costs little more than rendering their ids.

Source: create message, users and idempotency, as `sendengine.core.onesignal` lists them.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import orjson
from msgspec import Struct

from sendengine.core.jobs import Json
from sendengine.core.onesignal import notifications_path, user_path
from sendengine.core.replies import Reply, classify, retry_after_s
from sendengine.core.requests import NotificationRequest, Request, UserRequest
from sendengine.core.targets import Target, TargetKind

__all__ = ["Reply", "WireRequest", "canonical", "canonical_body", "classify", "encode", "retry_after_s"]

_FIELDS_OF: Final[Mapping[TargetKind, Callable[[Target], Mapping[str, object]]]] = {
    "segments": lambda target: (
        {"included_segments": target.ids} | ({"excluded_segments": target.excluded} if target.excluded else {})
    ),
    "filters": lambda target: {"filters": [dict(rule) for rule in target.rules]},
}
_PATH: Final = notifications_path()
_PLAIN: Final = re.compile(r"[A-Za-z0-9_~-]+").fullmatch  # nothing to encode, and no step in a tree
_LISTS: Final[Mapping[TargetKind, bytes]] = {
    "subscription_id": b',"include_subscription_ids":',
    "email": b',"email_to":',
    "phone_number": b',"include_phone_numbers":',
}
_WITH_CHANNEL: Final = frozenset({"alias", "segments", "filters"})  # the others are of one channel by themselves


class WireRequest(Struct, frozen=True, gc=False):
    """A request as bytes: ``path`` is below the base URL and percent-encoded; ``body`` is JSON, or empty."""

    method: str
    path: str
    body: bytes = b""


def canonical(message: Mapping[str, Json]) -> bytes:
    """Render a message so that equal messages have equal bytes: keys sorted on every level, no spaces.

    Raises TypeError where it cannot be written as JSON; a job's message always can.
    """
    return _kept(orjson.dumps(message, option=orjson.OPT_SORT_KEYS))


def canonical_body(request: NotificationRequest) -> bytes:
    """Render a request's body without its key: the same content always gives the same bytes."""
    return b"".join((*_content_of(request), b"}"))


def encode(request: Request) -> WireRequest:
    """Render a sealed request; the same request always gives the same bytes.

    Raises ValueError (UnicodeEncodeError) where an id holds half a surrogate pair, which JSON and URLs cannot carry.
    """
    if isinstance(request, UserRequest):
        return WireRequest("PATCH", _path_of(request), _changes_of(request))
    pieces = _content_of(request)
    pieces += (b',"idempotency_key":', orjson.dumps(request.key), b"}")
    return WireRequest("POST", _PATH, b"".join(pieces))


def _content_of(request: NotificationRequest) -> list[bytes]:
    """The body's pieces up to where the key may follow; the closing brace is left to the caller."""
    target, message = request.target, request.content[1:-1]
    pieces = [b'{"app_id":', _quoted(request.app_id)]
    if message:
        pieces += (b",", message)
    if request.channel is not None and target.kind in _WITH_CHANNEL:
        pieces += (b',"target_channel":', _quoted(request.channel))
    if request.ttl_s is not None and not _has_ttl(request.content):
        pieces.append(b',"ttl":%d' % request.ttl_s)
    if target.kind == "alias":
        pieces += (b',"include_aliases":{', _quoted(target.label), b":", orjson.dumps(target.ids), b"}")
    elif (field := _LISTS.get(target.kind)) is not None:
        pieces += (field, orjson.dumps(target.ids))
    else:
        pieces += (b",", orjson.dumps(_FIELDS_OF[target.kind](target), option=orjson.OPT_SORT_KEYS)[1:-1])
    return pieces


@lru_cache(maxsize=64)
def _quoted(text: str) -> bytes:
    """An app, a channel or a label as JSON: there are few."""
    return _kept(orjson.dumps(text))


def _has_ttl(content: bytes) -> bool:
    """Whether the message itself says how long it may be delivered, and not a field within its data."""
    return b'"ttl":' in content and "ttl" in orjson.loads(content)


def _path_of(request: UserRequest) -> str:
    return user_path(request.app_id, _label(request.label), _segment(request.user_id))


@lru_cache(maxsize=64)
def _label(text: str) -> str:
    """An alias label as a segment: there are few."""
    return _segment(text)


def _segment(text: str) -> str:
    """One segment of a path; ``.`` and ``..`` would be taken for steps in the tree, so their dots are encoded too."""
    if _PLAIN(text):
        return text
    quoted = quote(text, safe="")
    return quoted.replace(".", "%2E") if quoted in {".", ".."} else quoted


def _changes_of(request: UserRequest) -> bytes:
    if not request.properties and not request.deltas:
        return _kept(orjson.dumps({"properties": {"tags": dict(request.tags)}}))
    properties = dict(request.properties)
    if request.tags:
        properties["tags"] = dict(request.tags)
    body: dict[str, Mapping[str, Json]] = {}
    if properties:
        body["properties"] = properties
    if request.deltas:
        body["deltas"] = dict(request.deltas)
    return _kept(orjson.dumps(body))


def _kept(rendered: bytes) -> bytes:
    """Copy what will be kept: what orjson returns holds 4 KB, whatever its length."""
    return bytes(memoryview(rendered))
