"""What users have become: tags, properties, and sums of deltas, with the updates that made them so, in order."""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct, field

_SHARDS: Final = 64  # a dict of more than 350,000 entries stops the loop for 8-20 ms while it grows


class Profile(Struct, gc=False):
    """One user. ``applied`` counts updates; ``updates`` are their bodies in the order in which they were applied."""

    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, object] = field(default_factory=dict)
    session_time: int = 0
    session_count: int = 0
    purchases: list[object] = field(default_factory=list)
    applied: int = 0
    updates: list[bytes] = field(default_factory=list)


class Profiles:
    """The users of one app that were ever updated, by alias label and id."""

    __slots__ = ("_shards",)

    def __init__(self) -> None:
        self._shards: tuple[dict[tuple[str, str], Profile], ...] = tuple({} for _ in range(_SHARDS))

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def __iter__(self) -> Iterator[tuple[tuple[str, str], Profile]]:
        for shard in self._shards:
            yield from shard.items()

    def find(self, label: str, user_id: str) -> Profile | None:
        """Return a user's profile, or None where nothing was ever applied."""
        return self._shards[hash(user_id) % _SHARDS].get((label, user_id))

    def open(self, label: str, user_id: str) -> Profile:
        """Return a user's profile, made where there is none."""
        shard = self._shards[hash(user_id) % _SHARDS]
        profile = shard.get((label, user_id))
        if profile is None:
            profile = shard[label, user_id] = Profile()
        return profile


def apply(profile: Profile, *, tags: Mapping[str, object], properties: Mapping[str, object],
          deltas: Mapping[str, object]) -> None:  # fmt: skip
    """Carry out one update: tags and properties are set, an empty tag is deleted, deltas add up."""
    for name, value in tags.items():
        if value is None or value == "":
            profile.tags.pop(name, None)
        else:
            profile.tags[name] = tag_text(value)
    profile.properties.update(properties)
    for name, value in deltas.items():
        if name == "purchases" and isinstance(value, list):
            profile.purchases += value
        elif isinstance(value, int) and name in {"session_time", "session_count"}:
            setattr(profile, name, getattr(profile, name) + value)
    profile.applied += 1


def tag_text(value: object) -> str:
    """Return a tag's value as the string that it is kept as."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
