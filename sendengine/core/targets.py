"""Whom a job is for.

The functions check what they are given and raise InvalidJobError; `Target` itself trusts its maker,
so that a pack of thousands of checked ids costs nothing more.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import orjson
from msgspec import Struct

from sendengine.core.onesignal import ALIAS_CAP, FILTER_CAP, PLACEHOLDER_IDS
from sendengine.core.rendering import rendered
from sendengine.errors import InvalidJobError

TargetKind = Literal["alias", "subscription_id", "email", "phone_number", "segments", "filters"]
Rule = Mapping[str, str | int | float | bool]

IMPLIED_CHANNEL: Final = {"email": "email", "phone_number": "sms"}
"""The channel of a target that names the addresses of one."""

_OWN_LABELS: Final = frozenset({"external_id", "onesignal_id"})  # nothing about these need be checked


class Target(Struct, frozen=True, gc=False, eq=False):
    """One way of naming recipients; OneSignal takes exactly one a request.

    ``ids`` are alias ids, subscription ids, addresses, numbers or segment names; ``label`` is the alias
    label and empty otherwise; ``excluded`` are segment names; ``rules`` are OneSignal's filters. ``are_distinct``
    says that its maker knows that no id stands twice, and ``text_bytes`` that the ids have no more as UTF-8 (0 where
    nobody counted), so that nobody need look; both count for nothing in comparisons, and whoever makes a target of
    another with other ids sets them anew.
    """

    kind: TargetKind
    ids: tuple[str, ...] = ()
    label: str = ""
    excluded: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    are_distinct: bool = False
    text_bytes: int = 0

    def __eq__(self, other: object) -> bool:
        return self._meaning == other._meaning if isinstance(other, Target) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._meaning)

    @property
    def is_listed(self) -> bool:
        """Whether the recipients are named one by one, so that they can be counted, packed and split."""
        return self.kind not in {"segments", "filters"}

    @property
    def name(self) -> str:
        """How a file names this way of targeting: the alias label, or the kind."""
        return self.label or self.kind

    @property
    def _meaning(self) -> tuple[object, ...]:
        return self.kind, self.ids, self.label, self.excluded, self.rules


def external_id(*ids: str) -> Target:
    """Users by your own id for them."""
    return alias("external_id", *ids)


def onesignal_id(*ids: str) -> Target:
    """Users by OneSignal's id for them."""
    return alias("onesignal_id", *ids)


def alias(label: str, *ids: str) -> Target:
    """Users by an alias of your own, such as ``alias("crm_id", "4711")``."""
    if label not in _OWN_LABELS:
        if not isinstance(label, str) or not 0 < len(label) <= ALIAS_CAP:
            raise InvalidJobError("to", f"an alias label has 1 to {ALIAS_CAP} characters, got {label!r}")
        _check("alias label", (label,))
    return _listed("alias", ids, label, cap=ALIAS_CAP)


def subscription_id(*ids: str) -> Target:
    """Single subscriptions (devices, addresses), by OneSignal's id."""
    return _listed("subscription_id", ids)


def email(*addresses: str) -> Target:
    """E-mail addresses; OneSignal creates a subscription for one that it does not know."""
    return _listed("email", addresses)


def phone_number(*numbers: str) -> Target:
    """Phone numbers as ``+14155550123``; OneSignal creates a subscription for one that it does not know."""
    return _listed("phone_number", numbers)


def segments(*names: str, excluded: Sequence[str] = ()) -> Target:
    """Everyone in any of the named segments, less those in an excluded one."""
    if isinstance(excluded, str):
        raise InvalidJobError("to.excluded_segments", f"give a list of names, got the text {excluded!r}")
    left_out = tuple(excluded)
    if left_out:
        _check("excluded_segments", left_out)
    _check("segments", names)
    return Target("segments", names, excluded=left_out)


def filters(rules: Sequence[Rule]) -> Target:
    """Everyone that OneSignal's filters select; entries are OneSignal's own, operators included, and are copied."""
    if isinstance(rules, (str, Mapping)) or not rules or not all(isinstance(rule, Mapping) for rule in rules):
        raise InvalidJobError("to.filters", "give a non-empty list of filter objects")
    if len(rules) > FILTER_CAP:
        raise InvalidJobError("to.filters", f"at most {FILTER_CAP} entries with operators, got {len(rules)}")
    return Target("filters", rules=tuple(orjson.loads(rendered("to.filters", [dict(rule) for rule in rules]))))


def _listed(kind: TargetKind, ids: tuple[str, ...], label: str = "", *, cap: int | None = None) -> Target:
    """Name recipients one by one, and note whether all of them are different, and how much they are."""
    if len(ids) == 1:
        if not _is_plain(ids[0]):
            _check(label or kind, ids, cap=cap)
        return Target(kind, ids, label, (), (), True)  # noqa: FBT003 - a record
    are_distinct, text_bytes = _check(label or kind, ids, cap=cap)
    return Target(kind, ids, label, (), (), are_distinct, text_bytes)


def _is_plain(item: str) -> bool:
    """Whether an id is one of the many that need no second look."""
    return (
        isinstance(item, str)
        and 0 < len(item) <= ALIAS_CAP
        and item.isascii()
        and not item.isspace()
        and item not in PLACEHOLDER_IDS
    )


def _check(what: str, ids: tuple[str, ...], *, cap: int | None = None) -> tuple[bool, int]:
    """Raise InvalidJobError where one of the ids can be none; return whether all are different, and their bytes.

    They are looked at all at once, and one by one only where a fault is likely.
    """
    try:
        text = "".join(ids)
    except TypeError:
        text = ""
    is_spaced = len(text.split(None, 1)) != 1 or text[0].isspace() or text[-1].isspace()
    if is_spaced or not all(ids) or (cap is not None and max(map(len, ids)) > cap):
        _check_each(what, ids, cap=cap)
    try:
        text_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidJobError(f"to.{what}", f"half a surrogate pair is no text: {error.object!r:.60}") from None
    distinct = set(ids)
    if what == "external_id" and (placeholders := distinct & PLACEHOLDER_IDS):
        raise InvalidJobError("to.external_id", f"{min(placeholders)!r} is a placeholder that OneSignal refuses")
    return len(distinct) == len(ids), text_bytes


def _check_each(what: str, ids: tuple[str, ...], *, cap: int | None) -> None:
    """Raise InvalidJobError for the first id that can be none."""
    if not ids:
        raise InvalidJobError(f"to.{what}", "names nobody; give at least one")
    for item in ids:
        if not isinstance(item, str) or not item or item.isspace():
            raise InvalidJobError(f"to.{what}", f"every id is a non-empty string, got {item!r}")
        if cap is not None and len(item) > cap:
            raise InvalidJobError(f"to.{what}", f"an id has at most {cap} characters, got {len(item)}: {item[:40]!r}…")
