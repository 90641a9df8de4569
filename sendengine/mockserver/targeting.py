"""Whom a create-notification request is for: one method of targeting, read from the body.

Source: create message: exactly one method a request; ``include_aliases`` needs ``target_channel``; unknown addresses
and numbers become subscriptions. The older names of fields are still taken.
"""

from collections.abc import Mapping
from sys import intern
from typing import Final

from msgspec import Struct

from sendengine.core.onesignal import CHANNELS
from sendengine.mockserver import replies
from sendengine.mockserver.replies import Answer, refusal


class _Field(Struct, frozen=True):
    """A body field that lists recipients: what they are, how a reply names them, and the channel it implies."""

    kind: str
    naming: str
    channel: str | None = None
    creates: bool = False


_LISTS: Final = {
    "include_subscription_ids": _Field("subscription_id", "invalid_player_ids"),
    "include_player_ids": _Field("subscription_id", "invalid_player_ids"),
    "include_external_user_ids": _Field("external_id", "invalid_external_user_ids"),
    "email_to": _Field("email", "invalid_email_tokens", "email", creates=True),
    "include_email_tokens": _Field("email", "invalid_email_tokens", "email", creates=True),
    "include_phone_numbers": _Field("phone_number", "invalid_phone_numbers", "sms", creates=True),
}
_BROAD: Final = ("included_segments", "filters")
_METHODS: Final = frozenset({"include_aliases", *_LISTS, *_BROAD})
_CHANNELS: Final[Mapping[str, str]] = {
    channel: channel for channel in CHANNELS
}  # the log keeps these texts, not a copy a message


class Targeting(Struct, frozen=True, gc=False):
    """One method of targeting. ``ids`` are each named once, and empty for segments and filters.

    Several alias labels in one request make ids of the form ``label:id`` and the kind ``aliases``.
    """

    field: str
    kind: str
    ids: list[str]
    channel: str
    labels: tuple[str, ...] = ()
    creates: bool = False

    @property
    def is_listed(self) -> bool:
        """Whether recipients are named one by one."""
        return self.field not in _BROAD

    def naming(self, ids: list[str]) -> dict[str, object]:
        """Name ids as the ``errors`` object of a reply does."""
        if self.field != "include_aliases":
            return {_LISTS[self.field].naming: ids}
        if len(self.labels) == 1:
            return {"invalid_aliases": {self.labels[0]: ids}}
        named: dict[str, list[str]] = {label: [] for label in self.labels}
        for qualified in ids:
            label, _, name = qualified.partition(":")
            named[label].append(name)
        return {"invalid_aliases": named}


def read_targeting(body: Mapping[str, object]) -> Targeting | Answer:
    """Find the one method of targeting, or refuse."""
    methods = [name for name in _METHODS.intersection(body) if body[name]]
    if len(methods) > 1:
        return refusal(400, f"You may only use one method of targeting, got {', '.join(sorted(methods))}")
    if not methods:
        return refusal(400, replies.NO_TARGET)
    [field] = methods
    channel = body.get("target_channel") or body.get("channel_for_external_user_ids")
    if channel is not None and channel not in CHANNELS:
        return refusal(400, f"target_channel must be push, email or sms, got {channel!r}")
    channel = _CHANNELS.get(str(channel))
    implied = channel or _channel_of(body)
    if field == "include_aliases":
        return _aliases(body[field], channel)
    if field in _BROAD:
        return Targeting(field, "segments", [], implied)
    return _listed(field, body[field], channel, implied=implied)


def _channel_of(body: Mapping[str, object]) -> str:
    """Guess the channel of a request that does not name it from the fields that its message has."""
    if "email_body" in body or "email_subject" in body:
        return "email"
    return "sms" if "sms_from" in body or "sms_media_urls" in body else "push"


def _listed(field: str, ids: object, channel: str | None, *, implied: str) -> Targeting | Answer:
    about = _LISTS[field]
    if channel and about.channel and channel != about.channel:
        return refusal(400, replies.ONE_CHANNEL)
    unique = _unique(ids)
    if unique is None:
        return refusal(400, f"{field} must be a list of strings")
    return Targeting(field, about.kind, unique, about.channel or implied, creates=about.creates)


def _aliases(aliases: object, channel: str | None) -> Targeting | Answer:
    if not channel:
        return refusal(400, "target_channel must be given with include_aliases")
    if not isinstance(aliases, dict):
        return refusal(400, "include_aliases must be an object of lists")
    lists: dict[str, list[str]] = {}
    for label, ids in aliases.items():
        unique = _unique(ids)
        if unique is None:
            return refusal(400, f"include_aliases.{label} must be a list of strings")
        if unique:
            lists[label] = unique
    if not lists:
        return refusal(400, replies.NO_TARGET)
    if len(lists) == 1:
        [(label, only)] = lists.items()
        return Targeting("include_aliases", intern(label), only, channel, (label,))
    qualified = [f"{label}:{name}" for label, ids in lists.items() for name in ids]
    return Targeting("include_aliases", "aliases", qualified, channel, tuple(lists))


def _unique(ids: object) -> list[str] | None:
    """Return each id once, in order; None where it is not a list of strings."""
    if not isinstance(ids, list) or not set(map(type, ids)) <= {str}:
        return None
    return list(dict.fromkeys(ids))
