"""Checks the ids of recipients, many at a time: what OneSignal would refuse, and what a fence for staging keeps out.

A malformed subscription id makes OneSignal refuse the whole request it is in, which is why all of them are looked at
before the first is sent.

Source: create message and users, as `sendengine.core.onesignal` lists them; phone numbers are E.164.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from sendengine.core.onesignal import ALIAS_CAP, PLACEHOLDER_IDS

EMAIL_CAP: Final = 254  # RFC 5321, with its erratum 1690: characters of an address

_UUID: Final = re.compile("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EMAIL: Final = re.compile(r'[^\s@"(),:;<>\[\\\]]+@(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_](?:[\w-]*[^\W_])')
_PHONE: Final = re.compile(r"\+[1-9][0-9]{1,14}")

_FORMS: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    "subscription_id": (_UUID.fullmatch, "is no UUID, and a subscription id is one"),
    "email": (_EMAIL.fullmatch, "is no e-mail address"),
    "phone_number": (_PHONE.fullmatch, "is no phone number as E.164 has it, such as +14155550123"),
}
_SPACES: Final = tuple(character for character in map(chr, range(128)) if character.isspace())
_ANY_CASE: Final = frozenset({"subscription_id", "email"})


class IdCheck:
    """Judges the ids of one kind of target: an alias label, ``subscription_id``, ``email`` or ``phone_number``.

    ``only_to`` is the app's fence, ``"external_id:qa-1"`` and the like: where it is not empty, all others are refused.
    """

    __slots__ = ("_allowed", "_form", "_is_external", "_problem")

    def __init__(self, target: str, *, only_to: Sequence[str] = ()) -> None:
        self._form: Callable[[str], object] | None = None
        self._problem = ""
        if target in _FORMS:
            self._form, self._problem = _FORMS[target]
        self._is_external = target == "external_id"
        self._allowed = (
            frozenset(entry.partition(":")[2] for entry in only_to if entry.partition(":")[0] == target)
            if only_to
            else None
        )

    def faults(self, ids: Sequence[str]) -> Mapping[int, str]:
        """Return what is wrong with which of the ids, by their index; empty where all may be sent to."""
        if not ids or self._all_good(ids):
            return {}
        return {index: problem for index, item in enumerate(ids) if (problem := self._problem_of(item))}

    def _all_good(self, ids: Sequence[str]) -> bool:
        if self._allowed is not None and not self._allowed.issuperset(ids):
            return False
        if self._form is not None:
            return all(map(self._form, ids)) and max(map(len, ids)) <= EMAIL_CAP
        return (
            all(ids)
            and not _has_blanks(ids)
            and max(map(len, ids)) <= ALIAS_CAP
            and not (self._is_external and not PLACEHOLDER_IDS.isdisjoint(ids))
        )

    def _problem_of(self, item: str) -> str:
        if not item or item.isspace():
            return "is empty"
        cap = EMAIL_CAP if self._form else ALIAS_CAP
        if len(item) > cap:
            return f"has {len(item)} characters, at most {cap} are taken: {item[:40]}…"
        if self._form is not None and not self._form(item):
            return f"{item!r} {self._problem}"
        if self._is_external and item in PLACEHOLDER_IDS:
            return f"{item!r} is a placeholder, which OneSignal refuses"
        if self._allowed is not None and item not in self._allowed:
            return f"{item!r} is not in the app's only_to"
        return ""


def _has_blanks(ids: Sequence[str]) -> bool:
    """Whether one of the ids is white space alone; where there is none at all, one look at all of them tells."""
    text = "".join(ids)
    return any(map(str.isspace, ids)) if not text.isascii() or any(map(text.__contains__, _SPACES)) else False


def same_recipient_key(target: str) -> Callable[[Iterable[str]], Sequence[str]]:
    """Return what turns ids into keys that are equal where the same recipient is meant: case counts in aliases only."""
    return _lowered if target in _ANY_CASE else _as_they_are


def _lowered(ids: Iterable[str]) -> Sequence[str]:
    return list(map(str.lower, ids))


def _as_they_are(ids: Iterable[str]) -> Sequence[str]:
    return ids if isinstance(ids, list) else list(ids)
