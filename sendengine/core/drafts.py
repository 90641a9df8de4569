"""Decides which pack a recipient goes into: the packs of one message, in order, under a cap of recipients and bytes.

Units: ``_s`` is seconds on a monotonic clock; sizes are bytes of JSON.

Method: a *line* holds the *drafts* of a message (packs not yet sealed) in order. A recipient goes into the first
draft with room or, where one names it already, into the draft behind the last that does. So the recipients of an open
draft are among those of the open draft before it: the first fills first, and nothing has to be searched. A message's
first job waits as a *solo*, without a line, until a second one comes: many messages have but one.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from math import inf
from typing import ClassVar, Generic, TypeVar

import orjson
from msgspec import Struct, field

from sendengine.core.targets import TargetKind

M = TypeVar("M")


class PackKey(Struct, frozen=True, gc=False):
    """What jobs must have in common to share a request; one is kept for all waiting jobs of a message.

    ``content`` is the message as canonical JSON. ``deadline_minute`` is a number that is the same for deadlines in
    the same minute, and None without a deadline.
    """

    content: bytes
    channel: str | None
    kind: TargetKind
    label: str = ""
    deadline_minute: int | None = None


class Share(Struct, Generic[M], frozen=True, gc=False):
    """Which of a member's recipients are meant. A member must not refer back to its shares: nothing collects them."""

    member: M
    ids: tuple[str, ...]


class Pack(Struct, Generic[M], frozen=True):
    """A request's worth of recipients. ``ids`` are those of all shares, in order; ``deadline_s`` is their earliest."""

    group: PackKey
    shares: tuple[Share[M], ...]
    ids: tuple[str, ...]
    deadline_s: float | None
    is_high: bool


class Draft(Struct, Generic[M], eq=False):
    """A pack that is not sealed yet. ``shares`` has None where a member left; ``is_gone``: sealed, or all left."""

    line: "Line[M]"
    arrival: int
    opened_at_s: float
    size_bytes: int
    recipients: int = 0
    members: int = 0
    deadline_s: float = inf
    is_closed: bool = False
    is_gone: bool = False
    shares: list[Share[M] | None] = field(default_factory=list)
    before: "Draft[M] | None" = None
    after: "Draft[M] | None" = None
    became: ClassVar[None] = None  # unlike a solo


class Solo(Struct, Generic[M], eq=False, gc=False):
    """A job in a pack that nobody has joined: no line looks after its recipients.

    Full packs that go alone cost a fifth of the time so, and less than half of the memory. One with ``has_room`` is
    its message's first job, and ``became`` a line's first draft when the second came. ``is_gone``: sealed, left, or
    became a draft.
    """

    group: PackKey
    member: M
    ids: tuple[str, ...]
    arrival: int
    opened_at_s: float
    deadline_s: float
    is_high: bool
    has_room: bool = False
    is_gone: bool = False
    became: Draft[M] | None = None


Queued = Draft[M] | Solo[M]
Part = tuple[Draft[M], tuple[str, ...]]


class Caps(Struct, frozen=True, gc=False):
    """The most that a request holds; its first recipient goes in whatever the size."""

    recipients: int
    bytes: int


class Line(Struct, Generic[M], eq=False):
    """The drafts of one message: the closed ones, then those from ``open`` on.

    ``arrivals`` numbers the drafts. ``holders`` tells the last open draft that names a recipient, ``earlier`` those
    before it, where there are any. ``filled`` are the drafts that were closed for want of room since its reader emptied
    it.
    """

    group: PackKey
    caps: Caps
    arrivals: Iterator[int]
    is_alone: bool
    is_high: bool
    head: Draft[M] | None = None
    open: Draft[M] | None = None
    tail: Draft[M] | None = None
    holders: dict[str, Draft[M]] = field(default_factory=dict)
    earlier: dict[str, list[Draft[M]]] = field(default_factory=dict)
    filled: list[Draft[M]] = field(default_factory=list)

    def spread(self, ids: tuple[str, ...], *, now_s: float) -> list[Part[M]]:
        """Give every recipient a place, and return the drafts that they went into and which went where."""
        if len(ids) == 1:
            return [(self._place(ids[0], now_s), ids)]
        if self.holders.keys().isdisjoint(ids) and len(set(ids)) == len(ids):
            return self._fill(ids, now_s)
        parts: dict[Draft[M], list[str]] = {}
        for name in ids:
            parts.setdefault(self._place(name, now_s), []).append(name)
        return [(draft, tuple(names)) for draft, names in parts.items()]

    def adopt(self, solo: Solo[M]) -> Draft[M]:
        """Let the line, which has no draft yet, begin with the one that a job with room becomes."""
        draft = self._append(solo.opened_at_s, arrival=solo.arrival)
        draft.size_bytes += json_bytes(solo.ids)
        draft.deadline_s = solo.deadline_s
        draft.recipients, draft.members = len(solo.ids), 1
        draft.shares.append(Share(solo.member, solo.ids))
        self.holders.update(dict.fromkeys(solo.ids, draft))
        solo.became, solo.is_gone = draft, True
        return draft

    def pull(self, draft: Draft[M], *, slot: int) -> Share[M]:
        """Take a share out of its draft. Raises LookupError where it left before."""
        share = draft.shares[slot]
        if share is None:
            raise LookupError(slot)
        draft.shares[slot] = None
        draft.members -= 1
        draft.recipients -= len(share.ids)
        draft.size_bytes -= json_bytes(share.ids)
        for name in share.ids:
            self._release(name, draft)
        return share

    def close(self, last: Draft[M]) -> tuple[Draft[M], ...]:
        """Close the open drafts up to ``last``, and return them."""
        closed: list[Draft[M]] = []
        while self.open is not None and not last.is_closed:
            self.open.is_closed = True
            closed.append(self.open)
            self.open = self.open.after
        self.holders = {name: draft for name, draft in self.holders.items() if not draft.is_closed}
        if self.open is None:
            self.earlier = {}
        else:
            self.earlier = {name: left for name, drafts in self.earlier.items() if (left := _still_open(drafts))}
        return tuple(closed)

    def unlink(self, draft: Draft[M]) -> None:
        """Take a draft out of the line, for good."""
        draft.is_gone = True
        if self.open is draft:
            self.open = draft.after
        if draft.before is None:
            self.head = draft.after
        else:
            draft.before.after = draft.after
        if draft.after is None:
            self.tail = draft.before
        else:
            draft.after.before = draft.before
        draft.before = draft.after = None

    def _release(self, name: str, draft: Draft[M]) -> None:
        """An open draft names a recipient no more; the one before it that does holds it now."""
        holders, others = self.holders, self.earlier
        earlier = others.get(name, [])
        if holders.get(name) is not draft:
            if draft in earlier:
                earlier.remove(draft)
            return
        del holders[name]
        while earlier:
            before = earlier.pop()
            if not before.is_closed:
                holders[name] = before
                return
        others.pop(name, None)

    def _hold(self, name: str, draft: Draft[M]) -> None:
        """An open draft behind all others that name a recipient names it, too."""
        holder = self.holders.get(name)
        if holder is not None:
            self.earlier.setdefault(name, []).append(holder)
        self.holders[name] = draft

    def _place(self, name: str, now_s: float) -> Draft[M]:
        """Give one recipient a place in the first draft with room behind all that name it."""
        holder = self.holders.get(name)
        draft = self.open if holder is None else holder.after
        size_bytes = len(orjson.dumps(name)) + 1
        while draft is not None and draft.recipients and draft.size_bytes + size_bytes > self.caps.bytes:
            self.filled += self.close(draft)
            draft = draft.after
        if draft is None:
            draft = self._append(now_s)
        draft.recipients += 1
        draft.size_bytes += size_bytes
        self._hold(name, draft)
        if draft.recipients >= self.caps.recipients:
            self.filled += self.close(draft)
        return draft

    def _fill(self, ids: tuple[str, ...], now_s: float) -> list[Part[M]]:
        """Give recipients that no open draft names to the first draft with room, and on until all have a place."""
        parts: list[Part[M]] = []
        start = 0
        while start < len(ids) or not parts:
            draft = self.open or self._append(now_s)
            part, size_bytes = self._fitting(draft, ids[start : start + self.caps.recipients - draft.recipients])
            if part or not ids:
                parts.append((draft, part))
                self._count(draft, part, size_bytes)
            else:
                self.filled += self.close(draft)
            start += len(part)
        return parts

    def _fitting(self, draft: Draft[M], ids: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """Return those of the recipients that the bytes have room for, and the bytes that they take."""
        size_bytes = json_bytes(ids)
        room_bytes = self.caps.bytes - draft.size_bytes
        if size_bytes <= room_bytes:
            return ids, size_bytes
        sizes = list(accumulate(json_bytes((name,)) for name in ids))
        fit = bisect_right(sizes, room_bytes) or (0 if draft.recipients else 1)
        return ids[:fit], sizes[fit - 1] if fit else 0

    def _count(self, draft: Draft[M], part: tuple[str, ...], size_bytes: int) -> None:
        draft.recipients += len(part)
        draft.size_bytes += size_bytes
        if draft.recipients >= self.caps.recipients:
            self.filled += self.close(draft)
        else:
            self.holders.update(dict.fromkeys(part, draft))

    def _append(self, now_s: float, *, arrival: int | None = None) -> Draft[M]:
        arrival = next(self.arrivals) if arrival is None else arrival
        draft = Draft(self, arrival, now_s, len(self.group.content), before=self.tail)
        if self.tail is None:
            self.head = draft
        else:
            self.tail.after = draft
        self.tail = draft
        if self.open is None:
            self.open = draft
        return draft


def _still_open(drafts: list[Draft[M]]) -> list[Draft[M]]:
    """Leave out the closed ones, which come first, when they are half: so each is looked at but a few times."""
    if drafts and not drafts[len(drafts) // 2].is_closed:
        return drafts
    return [draft for draft in drafts if not draft.is_closed]


def json_bytes(ids: tuple[str, ...]) -> int:
    """Return what recipients add to a request: each its JSON string and a comma."""
    return len(orjson.dumps(ids)) - 1 if ids else 0
