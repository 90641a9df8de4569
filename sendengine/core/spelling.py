"""Says how a misspelt name may be mended: the nearest known one, or all of them."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

TARGET_SLIPS: Final = {
    "external_ids": "external_id",
    "external_user_id": "external_id",
    "external_user_ids": "external_id",
    "onesignal_ids": "onesignal_id",
    "subscription_ids": "subscription_id",
    "player_id": "subscription_id",
    "player_ids": "subscription_id",
    "emails": "email",
    "e-mail": "email",
    "email_to": "email",
    "phone": "phone_number",
    "phones": "phone_number",
    "phone_numbers": "phone_number",
    "sms": "phone_number",
    "segment": "segments",
    "included_segments": "segments",
    "filter": "filters",
}
"""Targets that would pass for alias labels, reach nobody, and are somebody's slip; with what was meant."""


def mend(name: str, known: Iterable[str], *, what: str = "known") -> str:
    """Return half a sentence that names the nearest of the ``known`` names, or lists all of them after ``what``."""
    names = list(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"{what}: {', '.join(names) or 'none'}"
