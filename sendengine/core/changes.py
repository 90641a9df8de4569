"""One member's changes to a user, what several of them come to, and which part of one fits into a request.

Units: sizes are modifications, as OneSignal counts them (`sendengine.core.jobs.modifications`).
"""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from sendengine.core.jobs import Json, Modifications, TagValue

M = TypeVar("M")
V = TypeVar("V")


class Change(Struct, Generic[M], frozen=True, gc=False):
    """A member's job, or the part of it that one set holds. A member must not refer back: nothing collects them.

    ``is_last`` says that no part follows, so that the job settles with this one. ``repeats_deltas`` says that its
    deltas go again although they may have been counted.
    """

    member: M
    tags: Mapping[str, TagValue]
    properties: Mapping[str, Json]
    deltas: Mapping[str, Json]
    is_last: bool = True
    repeats_deltas: bool = False


class Merged(Struct):
    """Changes merged."""

    tags: dict[str, TagValue]
    properties: dict[str, Json]
    deltas: dict[str, Json]

    def apply(self, change: Modifications) -> None:
        """Let a change come after what was applied before."""
        if change.tags:
            self.tags.update(change.tags)
        if change.properties:
            self.properties.update(change.properties)
        for name, value in change.deltas.items() if change.deltas else ():
            before = self.deltas.get(name)
            if isinstance(value, int):
                self.deltas[name] = value + before if isinstance(before, int) else value
            elif isinstance(value, Sequence):
                self.deltas[name] = [*before, *value] if isinstance(before, Sequence) else value


def fitting(change: Change[M], merged: Merged, room: int) -> tuple[Change[M], Change[M] | None]:
    """Part what fits into a set with ``room`` for so many more modifications, which may be nothing, from the rest."""
    tags, more_tags, room = _fit_keys(change.tags, merged.tags, room)
    properties, more_properties, room = _fit_keys(change.properties, merged.properties, room)
    deltas, more_deltas = _fit_deltas(change.deltas, merged.deltas, room)
    if not (more_tags or more_properties or more_deltas):
        return change, None
    fit = replace(change, tags=tags, properties=properties, deltas=deltas, is_last=False)
    return fit, replace(change, tags=more_tags, properties=more_properties, deltas=more_deltas)


def _fit_keys(new: Mapping[str, V], known: Mapping[str, V], room: int) -> tuple[dict[str, V], dict[str, V], int]:
    """Part the keys that fit, for those already known cost nothing, from the others; with the room that is left."""
    fit: dict[str, V] = {}
    rest: dict[str, V] = {}
    for key, value in new.items():
        if key in known:
            fit[key] = value
        elif room > 0:
            fit[key] = value
            room -= 1
        else:
            rest[key] = value
    return fit, rest, room


def _fit_deltas(
    new: Mapping[str, Json], known: Mapping[str, Json], room: int
) -> tuple[dict[str, Json], dict[str, Json]]:
    """Part increments likewise; each purchase costs one."""
    counts = {name: value for name, value in new.items() if name != "purchases"}
    fit, rest, room = _fit_keys(counts, known, room)
    purchases = new.get("purchases")
    if isinstance(purchases, Sequence):
        if room:
            fit["purchases"] = purchases[:room]
        if room < len(purchases):
            rest["purchases"] = purchases[room:]
    return fit, rest
