"""Idempotency keys of one app: the first success of each, kept as long as the server runs.

Source: idempotency: a repeat gets the first successful result; the same key with other content is not processed.
"""

import re
from typing import Final

from msgspec import Struct

_SHARDS: Final = 64  # a dict of more than 350,000 entries stops the loop for 8-20 ms while it grows
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}").fullmatch


class First(Struct, frozen=True, gc=False):
    """The first success under a key: the place of its message in the log, and what the body said of errors."""

    place: int
    errors: bytes = b""


class Keys:
    """First successes by key; a key is the number of its UUID."""

    __slots__ = ("_shards",)

    def __init__(self) -> None:
        self._shards: tuple[dict[int, First], ...] = tuple({} for _ in range(_SHARDS))

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def find(self, key: int) -> First | None:
        """Return what was answered under the key, or None."""
        return self._shards[key % _SHARDS].get(key)

    def remember(self, key: int, first: First) -> bool:
        """Keep a success, and return whether it is the first under its key; a later one changes nothing."""
        return self._shards[key % _SHARDS].setdefault(key, first) is first


def parse_key(text: object) -> int | None:
    """Return the number of a UUID in text, or None where it is none."""
    if not isinstance(text, str):
        return None
    return int(text.replace("-", ""), 16) if _UUID(text) else None
