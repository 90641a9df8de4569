"""Update user: what is refused, and what is applied.

Sources: update user, users and tags pages; 400 and 409 bodies from public issues of OneSignal's SDKs.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

import orjson
from msgspec import Struct

from sendengine.core.onesignal import ALIAS_CAP, PLACEHOLDER_IDS
from sendengine.mockserver import replies
from sendengine.mockserver.apps import App
from sendengine.mockserver.config import MockConfig
from sendengine.mockserver.ledger import Ledger
from sendengine.mockserver.profiles import Profile, apply
from sendengine.mockserver.replies import Answer, coded

_PURCHASE: Final = frozenset({"sku", "amount", "iso"})


class Change(Struct, frozen=True, gc=False):
    """An update as its body has it: every part an object, perhaps an empty one."""

    tags: dict[str, object]
    properties: dict[str, object]
    deltas: dict[str, object]

    @property
    def modifications(self) -> int:
        """Tags, other properties, deltas and purchases, each counted one."""
        count = len(self.tags) + len(self.properties) + len(self.deltas)
        purchases = self.deltas.get("purchases")
        return count - 1 + len(purchases) if isinstance(purchases, list) else count


def decoded(part: bytes) -> str | None:
    """Return a percent-encoded part of a path as text; None where it is not UTF-8."""
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        return None


def update(user: tuple[str, str], body: bytes, app: App, *, config: MockConfig, ledger: Ledger, now_s: float) -> Answer:
    """Carry out an update of ``user``, a label and an id, or refuse it."""
    label, user_id = user
    if refused := _user_fault(label, user_id, app, now_s):
        return refused
    change = _read(body)
    if isinstance(change, Answer):
        return change
    modifications = change.modifications
    ledger.most_modifications = max(ledger.most_modifications, modifications)
    if config.modifications == "tags":
        modifications = len(change.tags)
    if modifications > config.modification_cap:
        return _told(replies.TOO_MANY_MODIFICATIONS.format(config.modification_cap))
    if refused := _change_fault(change, app.profiles.find(label, user_id), app, config):
        return refused
    profile = app.profiles.open(label, user_id)
    apply(profile, tags=change.tags, properties=change.properties, deltas=change.deltas)
    if config.keep_updates:
        profile.updates.append(body)
    ledger.updates += 1
    accepted = change.properties | {"tags": change.tags} if change.tags else change.properties
    return Answer(202, orjson.dumps({"properties": accepted}), is_effect=True)


def _user_fault(label: str, user_id: str, app: App, now_s: float) -> Answer | None:
    if not 0 < len(label) <= ALIAS_CAP or not 0 < len(user_id) <= ALIAS_CAP:
        return coded(400, "request-1", f"alias labels and ids have 1 to {ALIAS_CAP} characters")
    if label == "external_id" and user_id in PLACEHOLDER_IDS:
        return coded(400, "user-4", f"external_id {user_id} is not allowed")
    if user_id in app.config.missing_users or app.is_unseen(user_id, now_s=now_s):
        return coded(404, "user-1", "User not found")
    return None


def _read(body: bytes) -> Change | Answer:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return coded(400, "request-2", "The body is not JSON")
    if not isinstance(request, dict):
        return coded(400, "request-2", "The body is not an object")
    properties = _part(request, "properties")
    deltas = _part(request, "deltas")
    if not isinstance(properties, dict) or not isinstance(deltas, dict):
        return coded(400, "request-2", "properties and deltas must be objects")
    tags = _part(properties, "tags")
    if not isinstance(tags, dict):
        return coded(400, "request-2", "tags must be an object")
    properties.pop("tags", None)
    return Change(tags, properties, deltas)


def _part(whole: dict[str, object], name: str) -> object:
    """Return a part of a body; an empty one where it is missing or null."""
    part = whole.get(name)
    return {} if part is None else part


def _change_fault(change: Change, profile: Profile | None, app: App, config: MockConfig) -> Answer | None:
    if wrong := [name for name, value in change.tags.items() if isinstance(value, (list, dict))]:
        return coded(400, "request-3", f"tag values cannot be arrays or objects: {wrong[0]}")
    purchases = change.deltas.get("purchases", [])
    if not isinstance(purchases, list) or not all(_is_purchase(purchase) for purchase in purchases):
        return coded(400, "request-3", "a purchase needs sku, amount and iso")
    cap = app.config.tag_cap
    if cap is not None and _tags_over(change.tags, profile, cap):
        if config.tag_cap_status == 400:  # noqa: PLR2004  # the setting is a status
            return _told(replies.TOO_MANY_TAGS.format(cap))
        return coded(409, "entitlements-tag-limit", replies.TOO_MANY_TAGS_TITLE)
    return None


def _tags_over(tags: Mapping[str, object], profile: Profile | None, cap: int) -> bool:
    """Whether new tags go over the cap; those deleted in the same request make no room for them yet."""
    there = profile.tags if profile else {}
    new = sum(1 for name, value in tags.items() if name not in there and value not in {None, ""})
    return new > 0 and len(there) + new > cap


def _is_purchase(purchase: object) -> bool:
    return isinstance(purchase, dict) and purchase.keys() >= _PURCHASE


def _told(text: str) -> Answer:
    return Answer(400, orjson.dumps({"errors": [text], "success": False}))
