"""Merges the changes of one user that wait: many updates become few requests, and the end state stays the same.

Tags and properties: the last write wins. Delta counts add up, purchases append. A set holds at most so many
modifications (each tag, property, delta count and purchase is one); what is too much goes into the next set, so that
a job may span sets. Only what waits is merged into, never what was taken.

Method: updates wait as they came, and are merged when somebody asks for a request. What fits into one, by far the most,
is merged whole; only what does not is parted into changes. So taking an update in is an append.

Units: sizes are modifications, as OneSignal counts them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from sendengine.core.changes import Change, Merged, fitting
from sendengine.core.jobs import Modifications, UpdateUser, modifications

M = TypeVar("M")


class ChangeSet(Generic[M]):
    """A request's worth of changes to one user, in order; it holds at least one. Closed, it takes no more.

    ``maybe_received_at_s`` is when a request that held all of it may have been received; None where none was.
    """

    __slots__ = ("_changes", "_most", "_updates", "_whole", "is_closed", "maybe_received_at_s")

    def __init__(
        self,
        changes: list[Change[M]] | None,
        *,
        is_closed: bool,
        size: int | None = None,
        updates: "Sequence[_Update[M]]" = (),
        whole: Modifications | None = None,
    ) -> None:
        self.is_closed = is_closed
        self.maybe_received_at_s: float | None = None
        self._changes = changes
        self._updates = updates  # where nothing was parted: the changes are made of them when somebody asks
        self._whole = whole
        self._most = sum([modifications(change) for change in self.changes]) if size is None else size

    @property
    def changes(self) -> list[Change[M]]:
        """The parts that the members have in it."""
        if self._changes is None:
            self._changes = [_change(update) for update in self._updates]
        return self._changes

    @property
    def members(self) -> list[M]:
        """Whose changes they are, in order."""
        updates = self._updates
        if len(updates) == 1:
            return [updates[0].member]
        return [part.member for part in updates or self.changes]

    @property
    def going_on(self) -> list[M]:
        """The members of which a part follows in another set."""
        return [] if self._updates else [change.member for change in self.changes if not change.is_last]

    @property
    def whole(self) -> Modifications:
        """What all of it comes to; an empty tag deletes."""
        if self._whole is None:
            return self.changes[0] if len(self.changes) == 1 else self._merge()
        return self._whole

    def join(self, change: Change[M], *, size: int, cap: int) -> Change[M] | None:
        """Take a change of ``size`` modifications in, and return the part that there is no room for."""
        if self._most + size <= cap:
            self._append(change, size)
            return None
        merged = self._merge()
        self._most = modifications(merged)
        fit, rest = fitting(change, merged, cap - self._most)
        if modifications(fit):
            self._append(fit, 0)
            self._most = modifications(merged)
        return rest

    def _append(self, change: Change[M], size: int) -> None:
        self.changes.append(change)
        self._most += size
        if isinstance(self._whole, Merged):
            self._whole.apply(change)

    def _merge(self) -> Merged:
        if not isinstance(self._whole, Merged):
            self._whole = Merged({}, {}, {})
            for change in self.changes:
                self._whole.apply(change)
        return self._whole


class PendingChanges(Struct, Generic[M], eq=False, kw_only=True):
    """What waits for one user, in order; ``waits`` tells whether anything does."""

    max_modifications: int
    waits: bool = False
    _sets: "list[ChangeSet[M]] | None" = None
    _first: "_Update[M] | None" = None  # what came behind the sets; most users have one update waiting, and
    _more: "list[_Update[M]] | None" = None  # need no list, which takes 88 bytes

    def add(self, member: M, job: UpdateUser) -> None:
        """Let an update wait behind what waits already; it is merged into the last set where both allow it."""
        update = _Update(member, job)
        if self._first is None:
            self._first = update
            self.waits = True
        elif self._more is None:
            self._more = [update]
        else:
            self._more.append(update)

    def close(self) -> None:
        """Let nothing merge into what waits."""
        for change_set in self._unfold():
            change_set.is_closed = True

    def take(self) -> ChangeSet[M] | None:
        """Take the next request's changes; nothing merges into them any more. None where nothing waits."""
        if not self._sets and (taken := self._take_all()) is not None:
            return taken
        sets = self._unfold()
        if not sets:
            return None
        first = sets.pop(0)
        if not sets:
            self._sets = None
            self.waits = False
        return first

    def put_back_front(self, sets: Iterable[ChangeSet[M]], *, maybe_received_at_s: float | None = None) -> None:
        """Let sets that were taken, or made of one that was, wait before everything else, as they are."""
        returned = list(sets)
        for change_set in returned:
            change_set.is_closed = True
            change_set.maybe_received_at_s = maybe_received_at_s
        self._sets = [*returned, *(self._sets or ())]
        self.waits = self.waits or bool(returned)

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
        self.waits = bool(kept)
        return removed

    def withdraw_all(self) -> list[M]:
        """Remove everything, and return whose it was: each member once, in order."""
        members = [change.member for change_set in self._sets or () for change in change_set.changes]
        if self._first is not None:
            members += [update.member for update in (self._first, *(self._more or ()))]
        self._sets = self._first = self._more = None
        self.waits = False
        return list(dict.fromkeys(members))

    def _take_all(self) -> ChangeSet[M] | None:
        """Take everything, where no set is there yet and one request holds it; None otherwise."""
        first, more, cap = self._first, self._more, self.max_modifications
        if first is None:
            return None
        updates: Sequence[_Update[M]] = (first,)
        whole: Modifications = first.job
        if more is not None:
            updates = (first, *more)
            whole = merged = Merged({}, {}, {})
            tags = merged.tags
            for update in updates:
                job = update.job
                if not job.coalesce or len(tags) > cap:
                    return None
                if job.properties or job.deltas:
                    merged.apply(job)
                    if modifications(merged) > cap:  # purchases are copied for each that is appended
                        return None
                else:
                    tags.update(job.tags)
        if modifications(whole) > cap:
            return None
        self._first = self._more = None
        self.waits = False
        return ChangeSet(None, is_closed=True, size=cap, updates=updates, whole=whole)

    def _unfold(self) -> list[ChangeSet[M]]:
        """Return what waits as sets, which may be changed."""
        sets = self._sets
        if sets is None:
            sets = self._sets = []
        if self._first is not None:
            for update in (self._first, *(self._more or ())):
                self._join(sets, update)
            self._first = self._more = None
        return sets

    def _join(self, sets: list[ChangeSet[M]], update: "_Update[M]") -> None:
        """Merge an update into the last set where both allow it, and give the rest sets of its own."""
        job, cap = update.job, self.max_modifications
        change = _change(update)
        rest: Change[M] | None = change
        if job.coalesce and sets and not sets[-1].is_closed:
            rest = sets[-1].join(change, size=modifications(job), cap=cap)
        while rest is not None:
            fit, rest = fitting(rest, Merged({}, {}, {}), cap)
            sets.append(ChangeSet([fit], size=modifications(fit), is_closed=not job.coalesce))


class _Update(Struct, Generic[M], frozen=True, gc=False):
    """A member with its job, as it came."""

    member: M
    job: UpdateUser


def take_apart(change_set: ChangeSet[M], *, tag_cap: bool) -> list[ChangeSet[M]]:
    """Return what goes in place of a set that was refused for good; none where it cannot be taken apart.

    Its changes go one by one, so that one bad value spoils one job. With ``tag_cap`` (the user has as many tags as
    the plan allows) its deletions go first, alone, and then all the rest: OneSignal makes room only in a request of
    its own.
    """
    if tag_cap and (deletions := {tag for tag, value in change_set.whole.tags.items() if not value}):
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
    if not change_set.whole.deltas:
        return change_set, []
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


def leave_out(
    change_set: ChangeSet[M], is_gone: Callable[[M], bool], *, was_sent: bool = False
) -> tuple[ChangeSet[M] | None, list[Change[M]]]:
    """Return a set without the changes of the members that are gone (None where none is left), and those changes.

    Where the set ``was_sent``, and may have been received, what stays writes no older value over one that may be
    there by now: a tag or property that a change which is gone set later keeps that later value.
    """
    gone = [change for change in change_set.changes if is_gone(change.member)]
    if not gone:
        return change_set, []
    kept: list[Change[M]] = []
    later = Merged({}, {}, {})
    for change in reversed(change_set.changes):
        if not is_gone(change.member):
            kept.append(_outlasted(change, later) if was_sent else change)
        else:
            later.tags = {**change.tags, **later.tags}
            later.properties = {**change.properties, **later.properties}
    if not kept:
        return None, gone
    rest = ChangeSet(kept[::-1], is_closed=change_set.is_closed)
    rest.maybe_received_at_s = change_set.maybe_received_at_s
    return rest, gone


def _outlasted(change: Change[M], later: Merged) -> Change[M]:
    """Return a change to the same tags and properties, with the values that came later."""
    tags = {tag: later.tags.get(tag, value) for tag, value in change.tags.items()}
    properties = {name: later.properties.get(name, value) for name, value in change.properties.items()}
    return replace(change, tags=tags, properties=properties)


def _change(update: _Update[M]) -> Change[M]:
    job = update.job
    return Change(update.member, job.tags, job.properties, job.deltas, repeats_deltas=job.on_ambiguous == "retry")


def _parted(change: Change[M], deletions: set[str]) -> tuple[Change[M] | None, Change[M] | None]:
    """Part a change into what it has to do with the tags that end up deleted, which is to delete them, and the rest."""
    own = {tag: "" for tag in change.tags if tag in deletions}
    if not own:
        return None, change
    rest = {tag: value for tag, value in change.tags.items() if tag not in deletions}
    if not (rest or change.properties or change.deltas):
        return replace(change, tags=own), None
    return replace(change, tags=own, properties={}, deltas={}, is_last=False), replace(change, tags=rest)
