"""Merges the changes of one user that wait: many updates become few requests, and the end state stays the same.

Tags and properties: the last write wins. Delta counts add up, purchases append. A set holds at most so many
modifications (each tag, property, delta count and purchase is one); what is too much goes into the next set, so that
a job may span sets. Only what waits is merged into, never what was taken.

Method: an update joins the last set that is open, and a set is merged when it is read, or when only merging can tell
whether there is room. So a user with one waiting update holds no copy of it and no set, and taking another in is an
append.

Units: sizes are modifications, as OneSignal counts them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from sendengine.core.jobs import Json, TagValue, UpdateUser, modifications

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


class ChangeSet(Generic[M]):
    """A request's worth of changes to one user, in order; it holds at least one. Closed, it takes no more."""

    __slots__ = ("_merged", "_most", "changes", "is_closed")

    def __init__(self, changes: list[Change[M]], *, is_closed: bool, size: int | None = None) -> None:
        self.changes = changes
        self.is_closed = is_closed
        self._merged: _Merged | None = None
        self._most = sum([_size(change) for change in changes]) if size is None else size

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags to set; an empty value deletes."""
        return cast("Mapping[str, str]", self._whole().tags)

    @property
    def properties(self) -> Mapping[str, Json]:
        """The properties to set."""
        return self._whole().properties

    @property
    def deltas(self) -> Mapping[str, Json]:
        """The increments."""
        return self._whole().deltas

    @property
    def size(self) -> int:
        """How many modifications the request has."""
        return _size(self._whole())

    def join(self, change: Change[M], *, size: int, cap: int) -> Change[M] | None:
        """Take a change of ``size`` modifications in, and return the part that there is no room for."""
        if self._most + size <= cap:
            self._append(change, size)
            return None
        merged = self._merge()
        self._most = _size(merged)
        fit, rest = _fit(change, merged, cap - self._most)
        if _size(fit):
            self._append(fit, 0)
            self._most = _size(merged)
        return rest

    def _append(self, change: Change[M], size: int) -> None:
        self.changes.append(change)
        self._most += size
        if self._merged is not None:
            self._merged.apply(change)

    def _whole(self) -> "Change[M] | _Merged":
        return self.changes[0] if len(self.changes) == 1 else self._merge()

    def _merge(self) -> "_Merged":
        if self._merged is None:
            self._merged = _Merged({}, {}, {})
            for change in self.changes:
                self._merged.apply(change)
        return self._merged


class PendingChanges(Generic[M]):
    """What waits for one user, in order."""

    __slots__ = ("_lone", "_max_modifications", "_sets")

    def __init__(self, *, max_modifications: int) -> None:
        self._max_modifications = max_modifications
        self._lone: Change[M] | None = None  # all that waits: one update needs no set, which takes 250 bytes
        self._sets: list[ChangeSet[M]] | None = None

    def __len__(self) -> int:
        """How many requests wait."""
        return 1 if self._lone is not None else len(self._sets) if self._sets else 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self._lone is not None or bool(self._sets)

    def add(self, member: M, job: UpdateUser) -> None:
        """Let an update wait behind what waits already, merged into the last set where both allow it."""
        size = modifications(job) if job.deltas else len(job.tags) + len(job.properties)
        change = Change(member, job.tags, job.properties, job.deltas, repeats_deltas=job.on_ambiguous == "retry")
        sets = self._sets
        if sets is None:
            if self._lone is None and job.coalesce and size <= self._max_modifications:
                self._lone = change
                return
            sets = self._unfold()
        rest: Change[M] | None = change
        if job.coalesce and sets and not sets[-1].is_closed:
            rest = sets[-1].join(change, size=size, cap=self._max_modifications)
        if rest is change and size <= self._max_modifications:
            sets.append(ChangeSet([change], size=size, is_closed=not job.coalesce))
            return
        while rest is not None:
            fit, rest = _fit(rest, _Merged({}, {}, {}), self._max_modifications)
            sets.append(ChangeSet([fit], size=_size(fit), is_closed=not job.coalesce))

    def close(self) -> None:
        """Let nothing merge into what waits."""
        for change_set in self._unfold():
            change_set.is_closed = True

    def take(self) -> ChangeSet[M] | None:
        """Take the next request's changes; nothing merges into them any more. None where nothing waits."""
        sets = self._unfold()
        taken = sets.pop(0) if sets else None
        if not sets:
            self._sets = None
        return taken

    def put_back_front(self, sets: Iterable[ChangeSet[M]]) -> None:
        """Let sets that were taken, or made of one that was, wait before everything else, as they are."""
        returned = list(sets)
        for change_set in returned:
            change_set.is_closed = True
        self._unfold()[:0] = returned

    def leave_out(self, is_gone: Callable[[M], bool]) -> list[Change[M]]:
        """Remove the changes of the members that are gone, and return them in order."""
        removed: list[Change[M]] = []
        kept: list[ChangeSet[M]] = []
        for change_set in self._unfold():
            rest, gone = leave_out(change_set, is_gone)
            removed += gone
            if rest is not None:
                kept.append(rest)
        self._sets = kept
        return removed

    def _unfold(self) -> list[ChangeSet[M]]:
        """Return what waits as sets, which may be changed."""
        lone, self._lone = self._lone, None
        if self._sets is None:
            self._sets = []
        if lone is not None:
            self._sets.append(ChangeSet([lone], size=_size(lone), is_closed=False))
        return self._sets


def take_apart(change_set: ChangeSet[M], *, tag_cap: bool) -> list[ChangeSet[M]]:
    """Return what goes in place of a set that was refused for good; none where it cannot be taken apart.

    Its changes go one by one, so that one bad value spoils one job. With ``tag_cap`` (the user has as many tags as
    the plan allows) its deletions go first, alone, and then all the rest: OneSignal makes room only in a request of
    its own.
    """
    if tag_cap and (deletions := {tag for tag, value in change_set.tags.items() if not value}):
        parts = [_parted(change, deletions) for change in change_set.changes]
        rest = [change for _, change in parts if change is not None]
        if rest:
            first = [change for change, _ in parts if change is not None]
            return [ChangeSet(first, is_closed=True), ChangeSet(rest, is_closed=True)]
    changes = change_set.changes
    return [ChangeSet([change], is_closed=True) for change in changes] if len(changes) > 1 else []


def without_uncertain_deltas(change_set: ChangeSet[M]) -> tuple[ChangeSet[M] | None, list[Change[M]]]:
    """Return what goes again after a request that was maybe received, and the changes that have become ambiguous.

    Tags and properties go again, deltas only where their job asks for it. A change that became ambiguous and says
    ``is_last`` has nothing left in the set, so that its job settles now; another's settles with a later part.
    """
    again: list[Change[M]] = []
    ambiguous: list[Change[M]] = []
    for change in change_set.changes:
        if not change.deltas or change.repeats_deltas:
            again.append(change)
        elif change.tags or change.properties:
            again.append(replace(change, deltas={}))
            ambiguous.append(replace(change, is_last=False))
        else:
            ambiguous.append(change)
    if not ambiguous:
        return change_set, []
    return ChangeSet(again, is_closed=True) if again else None, ambiguous


def leave_out(change_set: ChangeSet[M], is_gone: Callable[[M], bool]) -> tuple[ChangeSet[M] | None, list[Change[M]]]:
    """Return a set without the changes of the members that are gone (None where none is left), and those changes."""
    gone = [change for change in change_set.changes if is_gone(change.member)]
    if not gone:
        return change_set, []
    kept = [change for change in change_set.changes if not is_gone(change.member)]
    return ChangeSet(kept, is_closed=change_set.is_closed) if kept else None, gone


class _Merged(Struct):
    """Changes merged."""

    tags: dict[str, TagValue]
    properties: dict[str, Json]
    deltas: dict[str, Json]

    def apply(self, change: Change[M]) -> None:
        self.tags.update(change.tags)
        self.properties.update(change.properties)
        for name, value in change.deltas.items():
            before = self.deltas.get(name)
            if isinstance(value, int):
                self.deltas[name] = value + before if isinstance(before, int) else value
            elif isinstance(value, Sequence):
                self.deltas[name] = [*before, *value] if isinstance(before, Sequence) else value


def _size(whole: Change[M] | _Merged) -> int:
    """Count modifications as `sendengine.core.jobs.modifications` does."""
    size = len(whole.tags) + len(whole.properties) + len(whole.deltas)
    purchases = whole.deltas.get("purchases") if whole.deltas else None
    return size + len(purchases) - 1 if isinstance(purchases, Sequence) else size


def _fit(change: Change[M], merged: _Merged, room: int) -> tuple[Change[M], Change[M] | None]:
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


def _parted(change: Change[M], deletions: set[str]) -> tuple[Change[M] | None, Change[M] | None]:
    """Part a change into what it has to do with the tags that end up deleted, which is to delete them, and the rest."""
    own = {tag: "" for tag in change.tags if tag in deletions}
    if not own:
        return None, change
    rest = {tag: value for tag, value in change.tags.items() if tag not in deletions}
    if not (rest or change.properties or change.deltas):
        return replace(change, tags=own), None
    return replace(change, tags=own, properties={}, deltas={}, is_last=False), replace(change, tags=rest)
