"""Who of an app's people can be reached, and who spoils a request.

Method: ids are listed in the settings, or picked by a checksum, so that the same id meets the same fate in every run.
"""

from collections.abc import Sequence
from zlib import crc32

from msgspec import Struct

from sendengine.mockserver.config import AppConfig

_ALL = 2**32


class Split(Struct, frozen=True, gc=False):
    """The ids of one request, each in one place, in the order in which they came."""

    reached: list[str]
    unsubscribed: list[str]
    unknown: list[str]


class Audience:
    """One app's people. ``creates`` in `split` says that an unknown address becomes a subscription."""

    __slots__ = ("_new", "_poisoned", "_unknown", "_unsubscribed")

    def __init__(self, config: AppConfig) -> None:
        self._unsubscribed = _Some(config.unsubscribed, config.unsubscribed_share, b"unsubscribed:")
        self._unknown = _Some(config.unknown, config.unknown_share, b"unknown:")
        self._poisoned = _Some(config.poisoned, config.poisoned_share, b"poisoned:")
        self._new = _Some(config.new_users, config.new_users_share, b"new:")

    def split(self, ids: list[str], *, creates: bool) -> Split:
        """Say who of ``ids`` is reached."""
        unsubscribed = self._unsubscribed.among(ids)
        unknown = set() if creates else self._unknown.among(ids) - unsubscribed
        if not unsubscribed and not unknown:
            return Split(ids, [], [])
        return Split(
            [name for name in ids if name not in unsubscribed and name not in unknown],
            [name for name in ids if name in unsubscribed],
            [name for name in ids if name in unknown],
        )

    def poisoned(self, ids: Sequence[str]) -> list[str]:
        """Who of ``ids`` spoils the request."""
        found = self._poisoned.among(ids)
        return [name for name in ids if name in found] if found else []

    def is_new(self, user_id: str) -> bool:
        """Whether a user was created a moment ago."""
        return bool(self._new.among((user_id,)))


class _Some:
    """A part of all ids: those listed, and a share by checksum."""

    __slots__ = ("_below", "_listed", "_salt")

    def __init__(self, listed: frozenset[str], share: float, salt: bytes) -> None:
        self._listed = listed
        self._below = round(share * _ALL)
        self._salt = crc32(salt)

    def among(self, ids: Sequence[str]) -> set[str]:
        found = set(self._listed.intersection(ids)) if self._listed else set()
        if self._below:
            salt, below = self._salt, self._below
            found.update([name for name in ids if crc32(name.encode("utf-8", "surrogatepass"), salt) < below])
        return found
