"""Whom a job is for.

The functions check what they are given and raise InvalidJobError; `Target` itself trusts its maker,
so that a pack of thousands of checked ids costs nothing more.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import orjson
from msgspec import Struct

from sendengine.core.onesignal import ALIAS_CAP, FILTER_CAP, PLACEHOLDER_IDS
from sendengine.errors import InvalidJobError

TargetKind = Literal["alias", "subscription_id", "email", "phone_number", "segments", "filters"]
Rule = Mapping[str, str | int | float | bool]


class Target(Struct, frozen=True, gc=False):
    """One way of naming recipients; OneSignal takes exactly one a request.

    ``ids`` are alias ids, subscription ids, addresses, numbers or segment names; ``label`` is the alias
    label and empty otherwise; ``excluded`` are segment names; ``rules`` are OneSignal's filters.
    """

    kind: TargetKind
    ids: tuple[str, ...] = ()
    label: str = ""
    excluded: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def is_listed(self) -> bool:
        """Whether the recipients are named one by one, so that they can be counted, packed and split."""
        return self.kind not in {"segments", "filters"}

    @property
    def name(self) -> str:
        """How a file names this way of targeting: the alias label, or the kind."""
        return self.label or self.kind


def external_id(*ids: str) -> Target:
    """Users by your own id for them."""
    return alias("external_id", *ids)


def onesignal_id(*ids: str) -> Target:
    """Users by OneSignal's id for them."""
    return alias("onesignal_id", *ids)


def alias(label: str, *ids: str) -> Target:
    """Users by an alias of your own, such as ``alias("crm_id", "4711")``."""
    if not isinstance(label, str) or not 0 < len(label) <= ALIAS_CAP:
        raise InvalidJobError("to", f"an alias label has 1 to {ALIAS_CAP} characters, got {label!r}")
    _checked("alias label", (label,))
    return Target("alias", _checked(label, ids, cap=ALIAS_CAP), label)


def subscription_id(*ids: str) -> Target:
    """Single subscriptions (devices, addresses), by OneSignal's id."""
    return Target("subscription_id", _checked("subscription_id", ids))


def email(*addresses: str) -> Target:
    """E-mail addresses; OneSignal creates a subscription for one that it does not know."""
    return Target("email", _checked("email", addresses))


def phone_number(*numbers: str) -> Target:
    """Phone numbers as ``+14155550123``; OneSignal creates a subscription for one that it does not know."""
    return Target("phone_number", _checked("phone_number", numbers))


def segments(*names: str, excluded: Sequence[str] = ()) -> Target:
    """Everyone in any of the named segments, less those in an excluded one."""
    left_out = _checked("excluded_segments", tuple(excluded)) if excluded else ()
    return Target("segments", _checked("segments", names), excluded=left_out)


def filters(rules: Sequence[Rule]) -> Target:
    """Everyone that OneSignal's filters select; entries are OneSignal's own, operators included."""
    if isinstance(rules, (str, Mapping)) or not rules or not all(isinstance(rule, Mapping) for rule in rules):
        raise InvalidJobError("to.filters", "give a non-empty list of filter objects")
    if len(rules) > FILTER_CAP:
        raise InvalidJobError("to.filters", f"at most {FILTER_CAP} entries with operators, got {len(rules)}")
    try:
        orjson.dumps([dict(rule) for rule in rules])
    except TypeError as error:
        raise InvalidJobError("to.filters", f"cannot be written as JSON: {error}") from None
    return Target("filters", rules=tuple(rules))


def _checked(what: str, ids: tuple[str, ...], *, cap: int | None = None) -> tuple[str, ...]:
    if not ids:
        raise InvalidJobError(f"to.{what}", "names nobody; give at least one")
    for item in ids:
        if not isinstance(item, str) or not item or item.isspace():
            raise InvalidJobError(f"to.{what}", f"every id is a non-empty string, got {item!r}")
        if cap is not None and len(item) > cap:
            raise InvalidJobError(f"to.{what}", f"an id has at most {cap} characters, got {len(item)}: {item[:40]!r}…")
    try:
        "".join(ids).encode()
    except UnicodeEncodeError as error:
        raise InvalidJobError(f"to.{what}", f"half a surrogate pair is no text: {error.object!r:.60}") from None
    if what == "external_id" and (placeholders := PLACEHOLDER_IDS.intersection(ids)):
        raise InvalidJobError("to.external_id", f"{min(placeholders)!r} is a placeholder that OneSignal refuses")
    return ids
