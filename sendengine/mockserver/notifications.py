"""Create notification: what is refused, who is reached, and what is answered.

Sources: create message, idempotency, the error catalogue of OneSignal's Python SDK 5.18, and replies in public issues.
"""

import re
from collections.abc import Mapping
from typing import Final

import orjson
from msgspec import Struct

from sendengine.core.onesignal import CUSTOM_DATA_CAP_BYTES, FILTER_CAP, NAME_CAP
from sendengine.mockserver import replies
from sendengine.mockserver.apps import App
from sendengine.mockserver.audience import Split
from sendengine.mockserver.config import MockConfig
from sendengine.mockserver.keys import First, parse_key
from sendengine.mockserver.ledger import Ledger
from sendengine.mockserver.messages import Message, pack
from sendengine.mockserver.replies import Answer, refusal
from sendengine.mockserver.targeting import Targeting, read_targeting

_NOT_CONTENT: Final = frozenset({"app_id", "idempotency_key", "external_id", "ttl"})
_REPLAYED: Final = b"Idempotent-Replayed: true\r\n"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class Draft(Struct, frozen=True, gc=False):
    """A request that OneSignal would carry out. ``content`` is its checksum without recipients, key and ttl."""

    targeting: Targeting
    content: int


def create(body: Mapping[str, object], app: App, *, config: MockConfig, ledger: Ledger, now_s: float) -> Answer:
    """Carry out a request, or refuse it."""
    key_text = body.get("idempotency_key") or body.get("external_id")
    key = parse_key(key_text)
    if key_text and key is None:
        return refusal(400, "idempotency_key must be a valid UUID")
    draft = _read(body, app, config)
    first = app.keys.find(key) if key is not None else None
    if first is not None:
        return _replay(first, key_text, draft, app, ledger)
    if isinstance(draft, Answer):
        return draft
    if app.is_disabled:
        return Answer(config.disabled_status, replies.DISABLED)
    return _deliver(draft, key, key_text, app=app, config=config, ledger=ledger, now_s=now_s)


def _replay(first: First, key_text: object, draft: Draft | Answer, app: App, ledger: Ledger) -> Answer:
    """Answer a repeat with the first success; other content under the same key is dropped silently, but counted."""
    message = ledger.messages[first.place]
    ledger.replays += 1
    if not isinstance(draft, Draft) or message.content != draft.content or message.recipients != _packed(draft, app):
        ledger.reused_keys += 1
    body = _success(ledger.messages.message_id(first.place), key_text, first.errors)
    return Answer(200, body, headers=_REPLAYED)


def _packed(draft: Draft, app: App) -> bytes | tuple[str, ...]:
    targeting = draft.targeting
    return pack(app.audience.split(targeting.ids, creates=targeting.creates).reached)


def _deliver(
    draft: Draft, key: int | None, key_text: object, *, app: App, config: MockConfig, ledger: Ledger, now_s: float
) -> Answer:
    targeting = draft.targeting
    split = app.audience.split(targeting.ids, creates=targeting.creates)
    count = len(split.reached) if targeting.is_listed else _segment_size(app)
    named = split.unsubscribed * config.unsubscribed_repeats
    if config.unknown_ids == "named":
        named += split.unknown
    ledger.most_recipients = max(ledger.most_recipients, len(targeting.ids))
    ledger.named += len(named)
    if not count:
        ledger.nobody_reached += 1
        return Answer(200, _nobody(targeting, named, key_text, config))
    message = _message(draft, split, count, key, app=app, now_s=now_s)
    place = ledger.messages.add(message)
    ledger.recipients += count
    app.delivered(count, now_s=now_s)
    errors = orjson.dumps(targeting.naming(named)) if named else (b'""' if config.legacy_reply else b"")
    first = First(place, errors)
    if key is not None and config.key_counts == "arrival":
        app.keys.remember(key, first)
    reply = _success(ledger.messages.message_id(place), key_text, errors, count if config.legacy_reply else None)
    return Answer(200, reply, is_effect=True, key=key, first=first)


def _message(draft: Draft, split: Split, count: int, key: int | None, *, app: App, now_s: float) -> Message:
    targeting = draft.targeting
    return Message(app.app_id, targeting.channel, targeting.kind, key, draft.content, count, pack(split.reached), now_s)


def _segment_size(app: App) -> int:
    size = app.config.segment_recipients
    return app.config.subscribed_users if size is None else size


def _success(message_id: str, key_text: object, errors: bytes, recipients: int | None = None) -> bytes:
    key = b'"%b"' % key_text.encode() if isinstance(key_text, str) else b"null"
    body = b'{"id":"%b","external_id":%b' % (message_id.encode(), key)
    if recipients is not None:
        body += b',"recipients":%d' % recipients
    return body + b',"errors":%b}' % errors if errors else body + b"}"


def _nobody(targeting: Targeting, named: list[str], key_text: object, config: MockConfig) -> bytes:
    errors = targeting.naming(named) if config.nobody_reply == "object" and named else [replies.NOBODY]
    return orjson.dumps({"id": "", "external_id": key_text or None, "errors": errors})


def _read(body: Mapping[str, object], app: App, config: MockConfig) -> Draft | Answer:
    """Check a request without carrying it out."""
    targeting = read_targeting(body)
    if isinstance(targeting, Answer):
        return targeting
    if targeting.channel not in app.config.channels:
        return refusal(403, replies.PLAN_REFUSED)
    if fault := _message_fault(body, targeting.channel, config) or _ids_fault(targeting, config):
        return refusal(400, fault)
    left_out = _NOT_CONTENT | {targeting.field} if targeting.is_listed else _NOT_CONTENT
    content = {name: value for name, value in body.items() if name not in left_out}
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    if any(text.encode() in canonical for text in config.message_faults):
        return refusal(400, replies.VAGUE)
    if poisoned := app.audience.poisoned(targeting.ids):
        return _poisoned(poisoned, targeting, config)
    return Draft(targeting, hash((app.app_id, targeting.channel, targeting.kind, canonical)))


def _message_fault(body: Mapping[str, object], channel: str, config: MockConfig) -> str | None:
    if not (body.get("template_id") or body.get("content_available") or _has_contents(body, channel)):
        return replies.NO_CONTENTS
    name = body.get("name")
    if isinstance(name, str) and len(name) > NAME_CAP:
        return f"Name must be no more than {NAME_CAP} characters long"
    if "data" in body and len(orjson.dumps(body["data"])) > config.data_cap_bytes:
        return replies.DATA_TOO_LONG.format(config.data_cap_bytes)
    if "custom_data" in body and len(orjson.dumps(body["custom_data"])) > CUSTOM_DATA_CAP_BYTES[channel]:
        return "Request body too large"
    rules = body.get("filters")
    if isinstance(rules, list) and len(rules) > FILTER_CAP:
        return f"Filters must have no more than {FILTER_CAP} entries"
    return None


def _has_contents(body: Mapping[str, object], channel: str) -> bool:
    if channel == "email":
        return bool(body.get("email_subject")) and bool(body.get("email_body"))
    contents = body.get("contents")
    return isinstance(contents, dict) and bool(contents.get("en"))


def _ids_fault(targeting: Targeting, config: MockConfig) -> str | None:
    if len(targeting.ids) > config.recipient_cap:
        return f"{targeting.field} must have no more than {config.recipient_cap} entries"
    if targeting.kind != "subscription_id":
        return None
    matches = _UUID.fullmatch
    malformed = [name for name in targeting.ids if not matches(name)]
    return replies.NOT_A_UUID.format(targeting.field, orjson.dumps(malformed).decode()) if malformed else None


def _poisoned(ids: list[str], targeting: Targeting, config: MockConfig) -> Answer:
    match config.poison_reply:
        case "vague":
            return refusal(400, replies.VAGUE)
        case "empty":
            return Answer(400, b'{"errors":[{}]}')
        case "named":
            return Answer(400, orjson.dumps({"errors": targeting.naming(ids)}))
        case "named_text":
            return refusal(400, f"Invalid recipients in {targeting.field}: {orjson.dumps(ids).decode()}")
