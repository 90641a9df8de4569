"""Packs notification jobs: decides which wait together for a request, and which pack may be sealed when.

Jobs with the same message, channel, kind of target, label and minute of deadline share *packs* (where each recipient
goes: `sendengine.core.drafts`). A pack is open to more members until it is taken: `Packer.take` is asked only when
the lane will have a permit, so that a backlog packs better instead of worse. Which goes next is for
`sendengine.core.queues`.

Units: ``_s`` is seconds on a monotonic clock, handed in as ``now_s`` and never going back; sizes are bytes of JSON.

Method: an operation costs O(log n) in what waits, and O(1) for each recipient that it moves.
"""

from collections.abc import Iterator
from itertools import chain, count
from math import inf
from typing import Final, Generic, TypeVar

from msgspec import Struct

from sendengine.core.deadlines import Deadlines
from sendengine.core.drafts import Caps, Draft, Line, Pack, PackKey, Share, Solo, json_bytes
from sendengine.core.queues import Queues

M = TypeVar("M")
K = TypeVar("K")
V = TypeVar("V")

_ESCAPED_BYTES: Final = 6  # what JSON makes of one byte at the most,
_QUOTED_BYTES: Final = 3  # and what it puts around an id
_AT_ONCE: Final = 64  # leave at once, of those whose deadline has passed: a millisecond's work with all that follows
_SHARDS: Final = 61  # of dicts that grow with the backlog: resizing one of 175,000 entries stops the loop for 8 ms


class _Place(Struct, Generic[M], gc=False):
    """Where a member waits: a slot of a draft, and ``others`` for a job that was cut; ``left`` are not taken."""

    draft: Draft[M]
    slot: int
    deadline_s: float
    left: int = 1
    others: tuple[tuple[Draft[M], int], ...] = ()


class Packer(Generic[M]):
    """The notification jobs of one lane that wait to be sealed. A member may wait once at a time.

    ``members`` and ``recipients`` are how many wait; they are for reading, which is done several times a request.
    ``linger_s`` is the least time that a pack of normal jobs waits for company. ``max_bytes`` bounds the message
    with its recipients, except that a pack takes its first recipient whatever the size.
    """

    __slots__ = (
        "_arrivals", "_caps", "_deadlines", "_has_deadlines", "_last_alone", "_lines", "_overdue", "_places", "_queues",
        "members", "recipients",
    )  # fmt: skip

    def __init__(self, *, max_recipients: int, max_bytes: int, linger_s: float) -> None:
        self._caps = Caps(recipients=max_recipients, bytes=max_bytes)
        self._queues: Queues[M] = Queues(linger_s=linger_s)
        self._arrivals = count()
        self.members = self.recipients = 0  # that wait, wholly or in part
        self._lines: tuple[list[dict[PackKey, Line[M] | Solo[M]]], ...] = (_shards(), _shards())  # normal, high
        # By the id() of the member, for those with a deadline and those cut over packs: nobody else is looked for.
        self._places: list[dict[int, _Place[M] | Solo[M]]] = _shards()
        self._last_alone: PackKey | None = None  # a campaign's jobs go alone and have one message: keep it once
        self._deadlines = Deadlines()
        self._has_deadlines = False  # any, so far
        self._overdue: list[Share[M]] = []

    @property
    def has_high(self) -> bool:
        """Whether a high job waits."""
        return self._queues.has_high

    def add(  # noqa: PLR0913 - a record of them would cost each job more than they do
        self,
        member: M,
        *,
        group: PackKey,
        ids: tuple[str, ...],
        alone: bool,
        high: bool,
        deadline_s: float | None,
        now_s: float,
        distinct: bool = False,
        text_bytes: int = 0,
    ) -> None:
        """Let a job wait. ``ids`` are its recipients, none for segments and filters, which must go alone.

        ``distinct`` where it is known that nobody is named twice; ``text_bytes`` where it is known that the ids have
        no more.

        A job for more recipients than there is room for is cut over packs; one that names a recipient twice gets
        the second into the next pack, as two jobs would.
        """
        deadline = inf if deadline_s is None else deadline_s
        is_solo = alone or (len(ids) == 1 and self._begins(group, is_high=high, deadline_s=deadline, now_s=now_s))
        if is_solo and len(ids) > 1:
            is_solo = self._is_one_pack(group, ids, distinct=distinct, text_bytes=text_bytes)
        if is_solo:
            self._enter(Solo(group, member, ids, next(self._arrivals), now_s, deadline, high, not alone))
        else:
            self._join_line(member, ids, group=group, is_alone=alone, is_high=high, deadline_s=deadline, now_s=now_s)
        self.members += 1
        self.recipients += len(ids)
        if deadline_s is not None:
            self._deadlines.add(id(member), deadline_s=deadline_s)
            self._has_deadlines = True

    def stop_lingering(self) -> None:
        """Let no pack wait for company any more: none comes."""
        self._queues.stop_lingering()

    def take(self, *, now_s: float, prefer_normal: bool = False) -> Pack[M] | None:
        """Seal the next pack that may be sealed now; None where there is none.

        In the order of `Queues.next`. A member whose deadline has passed is never sealed: `expire` tells, and where
        many have passed there is nothing to take before.
        """
        if self._has_deadlines and self._collect_overdue(now_s):
            return None
        if not self.members:
            return None
        queued = self._queues.next(now_s=now_s, prefer_normal=prefer_normal)
        if queued is None:
            return None
        if isinstance(queued, Solo):
            return self._seal_solo(queued)
        # A later draft of the line can be ripe first; the earlier goes, so that no recipient's order is turned.
        return self._seal(queued.line.head or queued)

    def next_due_s(self) -> float | None:
        """Return when `take` may give a pack, in the past where it would now; None where nothing waits."""
        return self._queues.next_due_s() if self.members else None

    def oldest_s(self) -> float | None:
        """Return when the pack that waits longest was opened; None where nothing waits."""
        return self._queues.oldest_s()

    def next_expiry_s(self) -> float | None:
        """Return an instant before which no deadline passes, at most a second early; None without deadlines."""
        return -inf if self._overdue else self._deadlines.next_s()

    def expire(self, now_s: float) -> list[Share[M]]:
        """Remove members whose deadline has passed, earliest first, each with the recipients not yet taken.

        They are a few at a time: `next_expiry_s` says whether there are more.
        """
        self._collect_overdue(now_s)
        overdue, self._overdue = self._overdue, []
        return overdue

    def drain_all(self) -> Iterator[Share[M]]:
        """Remove everything that waits, one member at a time, each with its recipients not yet taken; in no order."""
        while self._overdue:
            yield self._overdue.pop()
        while (queued := self._queues.any()) is not None:
            if isinstance(queued, Solo):
                yield self._drop(queued)
                continue
            for slot, share in enumerate(queued.shares):
                if queued.is_gone:  # the last one left in between
                    break
                if share is not None:
                    yield self._take_out(queued, share, slot=slot)

    def _begins(self, group: PackKey, *, is_high: bool, deadline_s: float, now_s: float) -> bool:
        """Whether a job for one recipient is its message's first, and may wait for company as long as any."""
        if group in self._lines[is_high][hash(group) % _SHARDS] or self._caps.recipients == 1:
            return False
        return is_high or self._queues.may_linger(deadline_s, from_s=now_s)

    def _is_one_pack(self, group: PackKey, ids: tuple[str, ...], *, distinct: bool, text_bytes: int) -> bool:
        """Whether a job goes as it is: neither cut, nor with anybody twice."""
        if len(ids) > self._caps.recipients or not (distinct or len(set(ids)) == len(ids)):
            return False
        room_bytes = self._caps.bytes - len(group.content)
        if text_bytes and _ESCAPED_BYTES * text_bytes + _QUOTED_BYTES * len(ids) <= room_bytes:
            return True  # without a look at thousands of them
        return json_bytes(ids) <= room_bytes

    def _enter(self, solo: Solo[M]) -> None:
        """Let a job wait in a pack of its own."""
        group = solo.group
        if solo.has_room:
            self._lines[solo.is_high][hash(group) % _SHARDS][group] = solo
        elif group == self._last_alone:
            solo.group = self._last_alone
        else:
            self._last_alone = group
        self._queues.add(solo, is_high=solo.is_high, is_alone=not solo.has_room)
        if solo.deadline_s != inf:
            self._note(solo.member, solo)

    def _join_line(
        self,
        member: M,
        ids: tuple[str, ...],
        *,
        group: PackKey,
        is_alone: bool,
        is_high: bool,
        deadline_s: float,
        now_s: float,
    ) -> None:
        """Enter a job into the drafts of its line."""
        line = self._line(group, is_alone=is_alone, is_high=is_high)
        parts = line.spread(ids, now_s=now_s)
        if deadline_s != inf or len(parts) > 1:
            (draft, slot), *others = [(draft, len(draft.shares)) for draft, _ in parts]
            self._note(member, _Place(draft, slot, deadline_s, len(parts), tuple(others)))
        for draft, part in parts:
            self._join(draft, Share(member, part), deadline_s)
        if is_alone or line.filled:
            self._note_filled(line)

    def _note(self, member: M, place: _Place[M] | Solo[M]) -> None:
        """Let a member be found."""
        self._places[id(member) % _SHARDS][id(member)] = place

    def _line(self, group: PackKey, *, is_alone: bool, is_high: bool) -> Line[M]:
        """Return the line that a job joins: its message's, or one that nobody else joins."""
        lines = self._lines[is_high][hash(group) % _SHARDS]
        known = None if is_alone else lines.get(group)
        if isinstance(known, Line):
            return known
        line: Line[M] = Line(known.group if known else group, self._caps, self._arrivals, is_alone, is_high)
        if known is not None:
            first = line.adopt(known)
            if known.deadline_s != inf:
                self._note(known.member, _Place(first, 0, known.deadline_s))
        if not is_alone:
            lines[group] = line
        return line

    def _join(self, draft: Draft[M], share: Share[M], deadline_s: float) -> None:
        """Enter a share into its draft, and a draft with its first share into its queue."""
        line = draft.line
        if not draft.shares:
            self._queues.add(draft, is_high=line.is_high, is_alone=line.is_alone)
        draft.shares.append(share)
        draft.members += 1
        if deadline_s < draft.deadline_s:
            draft.deadline_s = deadline_s
            lingers = not (line.is_alone or line.is_high)
            if lingers and not self._queues.may_linger(deadline_s, from_s=draft.opened_at_s):
                self._queues.hasten(draft, deadline_s=deadline_s)

    def _note_filled(self, line: Line[M]) -> None:
        """Let full drafts go before their linger is over; those that never lingered need no leave."""
        if line.is_alone:
            line.holders, line.earlier = {}, {}  # nobody else joins, and they are as large as the job
        elif line.filled and not line.is_high:
            for draft in line.filled:
                self._queues.release(draft)
        if line.filled:
            line.filled = []

    def _seal_solo(self, solo: Solo[M]) -> Pack[M]:
        self._queues.took(solo)
        self._dismiss(solo)
        if solo.deadline_s != inf:
            self._forget(solo.member, deadline_s=solo.deadline_s)
        self.members -= 1
        self.recipients -= len(solo.ids)
        return Pack(
            solo.group,
            (Share(solo.member, solo.ids),),
            solo.ids,
            None if solo.deadline_s == inf else solo.deadline_s,
            solo.is_high,
        )

    def _seal(self, draft: Draft[M]) -> Pack[M]:
        line = draft.line
        line.close(draft)
        self._retire(draft)
        shares = tuple([share for share in draft.shares if share is not None])
        draft.shares = []
        deadline_s = min([self._leave(share) for share in shares])
        self.recipients -= draft.recipients
        return Pack(
            line.group,
            shares,
            shares[0].ids if len(shares) == 1 else tuple(chain.from_iterable([share.ids for share in shares])),
            None if deadline_s == inf else deadline_s,
            line.is_high,
        )

    def _leave(self, share: Share[M]) -> float:
        """Note that a share is taken, and return its member's deadline."""
        key = id(share.member)
        place = self._places[key % _SHARDS].get(key)
        if place is None:
            self.members -= 1
            return inf
        if isinstance(place, Solo):
            raise TypeError("a job that goes as it is shares no draft")
        place.left -= 1
        if not place.left:
            self._forget(share.member, deadline_s=place.deadline_s)
            self.members -= 1
        return place.deadline_s

    def _forget(self, member: M, *, deadline_s: float) -> None:
        """Let a member be found no more: nothing of it waits."""
        key = id(member)
        self._places[key % _SHARDS].pop(key, None)
        if deadline_s != inf:
            self._deadlines.discard(key, deadline_s=deadline_s)

    def _dismiss(self, solo: Solo[M]) -> None:
        """Let a solo be gone, and its message have no first job any more."""
        solo.is_gone = True
        if solo.has_room:
            del self._lines[solo.is_high][hash(solo.group) % _SHARDS][solo.group]

    def _retire(self, draft: Draft[M]) -> None:
        """Take a draft out of its line, and a line without drafts out of the packer."""
        line = draft.line
        line.unlink(draft)
        if line.head is None and not line.is_alone:
            del self._lines[line.is_high][hash(line.group) % _SHARDS][line.group]

    def _collect_overdue(self, now_s: float) -> bool:
        """Take out whose deadline has passed; True where those are as many as leave at once, and may not be all."""
        overdue, due = self._overdue, self._deadlines.due(now_s)
        while len(overdue) < _AT_ONCE:
            deadline_s, key = next(due, (None, 0))
            if deadline_s is None:
                return False
            place = self._places[key % _SHARDS].get(key)
            if place is not None and place.deadline_s == deadline_s:
                overdue.append(self._remove(key))
        return True

    def _remove(self, key: int) -> Share[M]:
        """Take a member that has a place out wherever it still waits."""
        place = self._places[key % _SHARDS][key]
        if isinstance(place, Solo):
            return self._drop(place)
        slots = [(place.draft, place.slot), *place.others]
        shares = [self._pull(draft, slot) for draft, slot in slots if not draft.is_gone]
        member = shares[0].member
        self._forget(member, deadline_s=place.deadline_s)
        self.members -= 1
        return Share(member, tuple(chain.from_iterable([share.ids for share in shares])))

    def _take_out(self, draft: Draft[M], share: Share[M], *, slot: int) -> Share[M]:
        """Take a member out that waits in a draft, and in others too where it was cut."""
        key = id(share.member)
        if key in self._places[key % _SHARDS]:
            return self._remove(key)
        self.members -= 1
        return self._pull(draft, slot)

    def _drop(self, solo: Solo[M]) -> Share[M]:
        """Take a member out that waits in a pack of its own."""
        self._dismiss(solo)
        self._queues.emptied()
        if solo.deadline_s != inf:
            self._forget(solo.member, deadline_s=solo.deadline_s)
        self.members -= 1
        self.recipients -= len(solo.ids)
        return Share(solo.member, solo.ids)

    def _pull(self, draft: Draft[M], slot: int) -> Share[M]:
        share = draft.line.pull(draft, slot=slot)
        self.recipients -= len(share.ids)
        if not draft.members:
            self._retire(draft)
            self._queues.emptied()
        return share


def _shards() -> list[dict[K, V]]:
    return [{} for _ in range(_SHARDS)]
