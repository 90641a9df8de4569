"""Packs notification jobs: decides which wait together for a request, and which pack may be sealed when.

Jobs with the same message, channel, kind of target, label and minute of deadline share *packs* (where each recipient
goes: `sendengine.core.drafts`). A pack is open to more members until it is taken: `Packer.take` is asked only when
the lane will have a permit, so that a backlog packs better instead of worse. High jobs and jobs that go alone have
queues of their own.

Units: ``_s`` is seconds on a monotonic clock, handed in as ``now_s`` and never going back; sizes are bytes of JSON.

Method: queues in order of arrival, a heap of what may go before its turn to linger is over; what has left is passed
over when it comes to the front. An operation costs O(log n) in what waits, and O(1) for each recipient that it moves.
"""

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import chain, count
from math import inf
from typing import Final, Generic, TypeVar

import orjson
from msgspec import Struct

from sendengine.core.deadlines import Deadlines
from sendengine.core.drafts import Caps, Draft, Line, Pack, PackKey, Queued, Share, Solo, json_bytes

M = TypeVar("M")
K = TypeVar("K")
V = TypeVar("V")

DEADLINE_MARGIN_S: Final = 1.0  # a pack waits for no more company this long before a member's deadline
_KEPT_EMPTIED: Final = 1000
_MANY: Final = 100  # recipients: rendered once, to weigh them and for the body; what orjson returns holds 4 KB at least
_SHARDS: Final = 61  # of dicts that grow with the backlog: resizing one of 175,000 entries stops the loop for 8 ms


class _Place(Struct, Generic[M], gc=False):
    """Where a waiting member is: a slot of a draft, and ``others`` for a job that was cut; ``left`` are not taken."""

    draft: Draft[M]
    slot: int
    deadline_s: float
    left: int = 1
    others: tuple[tuple[Draft[M], int], ...] = ()


class Packer(Generic[M]):
    """The notification jobs of one lane that wait to be sealed. A member may wait once at a time.

    ``linger_s`` is the least time that a pack of normal jobs waits for company. ``max_bytes`` bounds the message
    with its recipients, except that a pack takes its first recipient whatever the size.
    """

    __slots__ = (
        "_alone", "_arrivals", "_caps", "_deadlines", "_early", "_emptied", "_has_deadlines", "_high", "_last_alone",
        "_lines", "_linger_s", "_lingering", "_members", "_near", "_overdue", "_places", "_recipients",
    )  # fmt: skip

    def __init__(self, *, max_recipients: int, max_bytes: int, linger_s: float) -> None:
        self._caps = Caps(recipients=max_recipients, bytes=max_bytes)
        self._linger_s = linger_s
        self._arrivals = count()
        self._members = self._recipients = self._emptied = 0
        self._lines: tuple[list[dict[PackKey, Line[M]]], ...] = (_shards(), _shards())  # normal, high
        self._places: list[dict[int, _Place[M] | Solo[M]]] = _shards()  # by the id() of the member
        self._last_alone: PackKey | None = None  # a campaign's jobs go alone and have one message: keep it once
        self._high: deque[Queued[M]] = deque()
        self._alone: deque[Queued[M]] = deque()
        self._lingering: deque[Queued[M]] = deque()
        self._early: list[tuple[int, Draft[M]]] = []  # may go before their linger is over: full, or near a deadline
        self._near: list[tuple[float, int, Draft[M]]] = []  # when a deadline is near, where that is before the linger
        self._deadlines = Deadlines()
        self._has_deadlines = False  # any, so far
        self._overdue: list[Share[M]] = []

    def __len__(self) -> int:
        """How many members wait, wholly or in part."""
        return self._members

    @property
    def recipients(self) -> int:
        """How many recipients wait."""
        return self._recipients

    @property
    def has_high(self) -> bool:
        """Whether a high job waits."""
        return bool(self._high) and _front(self._high) is not None  # asked for each request

    def add(
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
    ) -> None:
        """Let a job wait. ``ids`` are its recipients, none for segments and filters, which must go alone.

        ``distinct`` where it is known that nobody is named twice.

        A job for more recipients than there is room for is cut over packs; one that names a recipient twice gets
        the second into the next pack, as two jobs would.
        """
        deadline = inf if deadline_s is None else deadline_s
        rendered = orjson.dumps(ids) if alone and len(ids) >= _MANY else b""
        size_bytes = len(group.content) + (len(rendered) - 1 if rendered else json_bytes(ids)) if alone else 0
        if alone and (len(ids) < 2 or self._is_one_pack(ids, size_bytes, distinct=distinct)):  # noqa: PLR2004 - one always fits
            solo = Solo(
                self._kept(group), member, ids, next(self._arrivals), now_s, size_bytes, deadline, high, rendered
            )
            (self._high if high else self._alone).append(solo)
            place: _Place[M] | Solo[M] = solo
        else:
            line = self._line(group, is_alone=alone, is_high=high)
            parts = line.spread(ids, now_s=now_s)
            place = self._place_in(parts, member, deadline_s=deadline)
            if alone or line.filled:
                self._note_filled(line)
        key = id(member)
        self._places[key % _SHARDS][key] = place
        self._members += 1
        self._recipients += len(ids)
        if deadline_s is not None:
            self._deadlines.add(key, deadline_s=deadline_s)
            self._has_deadlines = True

    def take(self, *, now_s: float, prefer_normal: bool = False) -> Pack[M] | None:
        """Seal the next pack that may be sealed now; None where there is none.

        High ones first, in order (after the normal ones with ``prefer_normal``). Then of the full, the lone, those
        whose linger is over and those near a deadline, the one whose oldest member came first, so that none of the
        four starves another. A member whose deadline has passed is never sealed: `expire` tells.
        """
        if self._has_deadlines:
            self._collect_overdue(now_s)
        if not self._members:
            return None
        draft = _front(self._high) if self._high else None
        if draft is None or prefer_normal:
            draft = self._oldest_ripe(now_s) or draft
        if draft is None:
            return None
        if isinstance(draft, Solo):
            return self._seal_alone(draft)
        # A later draft of the line can be ripe first; the earlier goes, so that no recipient's order is turned.
        return self._seal(draft.line.head or draft)

    def next_due_s(self) -> float | None:
        """Return when `take` may give a pack, in the past where it would now; None where nothing waits."""
        if not self._members:
            return None
        takable = _front(self._high) or _front(self._alone) or self._first_early()
        if takable is not None:
            return takable.opened_at_s
        while self._near and self._near[0][2].is_gone:
            heappop(self._near)
        lingering = _front(self._lingering)
        due_s = inf if lingering is None else lingering.opened_at_s + self._linger_s
        if self._near:
            due_s = min(due_s, self._near[0][0])
        return None if due_s == inf else due_s

    def oldest_s(self) -> float | None:
        """Return when the pack that waits longest was opened; None where nothing waits."""
        fronts = (_front(self._high), _front(self._alone), _front(self._lingering), self._first_early())
        return min((draft.opened_at_s for draft in fronts if draft is not None), default=None)

    def next_expiry_s(self) -> float | None:
        """Return an instant before which no deadline passes, at most a second early; None without deadlines."""
        return -inf if self._overdue else self._deadlines.next_s()

    def expire(self, now_s: float) -> list[Share[M]]:
        """Remove the members whose deadline has passed, earliest first, each with the recipients not yet taken."""
        self._collect_overdue(now_s)
        overdue, self._overdue = self._overdue, []
        return overdue

    def withdraw(self, member: M) -> tuple[str, ...] | None:
        """Remove a member, and return its recipients that were not taken yet; None where it does not wait."""
        key = id(member)
        return self._remove(key).ids if key in self._places[key % _SHARDS] else None

    def drain_all(self) -> list[Share[M]]:
        """Remove everything that waits, in order of the packs, each member with its recipients not yet taken."""
        overdue, self._overdue = self._overdue, []
        waiting = sorted([(*_turn(place), key) for shard in self._places for key, place in shard.items()])
        return overdue + [self._remove(key) for _, _, key in waiting]

    def _is_one_pack(self, ids: tuple[str, ...], size_bytes: int, *, distinct: bool) -> bool:
        """Whether a job that nobody joins goes as it is: neither cut, nor with anybody twice."""
        caps = self._caps
        return len(ids) <= caps.recipients and size_bytes <= caps.bytes and (distinct or len(set(ids)) == len(ids))

    def _kept(self, group: PackKey) -> PackKey:
        """Return the group as the last job that went alone had it, if that was equal."""
        if group == self._last_alone:
            return self._last_alone
        self._last_alone = group
        return group

    def _place_in(self, parts: list[tuple[Draft[M], tuple[str, ...]]], member: M, *, deadline_s: float) -> _Place[M]:
        """Enter a job into the drafts of its line."""
        draft = parts[0][0]
        place = _Place(draft, len(draft.shares), deadline_s)
        if len(parts) > 1:
            place.left = len(parts)
            place.others = tuple([(draft, len(draft.shares)) for draft, _ in parts[1:]])
        for draft, part in parts:
            self._join(draft, Share(member, part), deadline_s)
        return place

    def _line(self, group: PackKey, *, is_alone: bool, is_high: bool) -> Line[M]:
        """Return the line that a job joins: its message's, or one that nobody else joins."""
        if is_alone:
            return Line(self._kept(group), self._caps, self._arrivals, is_alone, is_high)
        lines = self._lines[is_high][hash(group) % _SHARDS]
        line = lines.get(group)
        if line is None:
            line = lines[group] = Line(group, self._caps, self._arrivals, is_alone, is_high)
        return line

    def _join(self, draft: Draft[M], share: Share[M], deadline_s: float) -> None:
        """Enter a share into its draft, and a draft with its first share into its queue."""
        line = draft.line
        if not draft.shares:
            queue = self._high if line.is_high else self._alone if line.is_alone else self._lingering
            queue.append(draft)
        draft.shares.append(share)
        draft.members += 1
        if deadline_s < draft.deadline_s:
            draft.deadline_s = deadline_s
            near_s = deadline_s - DEADLINE_MARGIN_S
            if near_s < draft.opened_at_s + self._linger_s and not (line.is_alone or line.is_high):
                heappush(self._near, (near_s, draft.arrival, draft))

    def _note_filled(self, line: Line[M]) -> None:
        """Let full drafts go before their linger is over; those that never lingered need no leave."""
        if line.is_alone:
            line.holders = line.earlier = None  # nobody else joins, and they are as large as the job
        elif line.filled and not line.is_high:
            for draft in line.filled:
                heappush(self._early, (draft.arrival, draft))
        if line.filled:
            line.filled = ()

    def _oldest_ripe(self, now_s: float) -> Queued[M] | None:
        """Of the normal drafts that may be sealed, the one that was opened first."""
        while self._near and self._near[0][0] <= now_s:
            _, arrival, draft = heappop(self._near)
            heappush(self._early, (arrival, draft))
        oldest = _front(self._alone)
        if self._lingering:
            lingering = _front(self._lingering)
            if lingering is not None and lingering.opened_at_s + self._linger_s <= now_s:
                oldest = _older(oldest, lingering)
        return _older(oldest, self._first_early()) if self._early else oldest

    def _first_early(self) -> Draft[M] | None:
        while self._early and self._early[0][1].is_gone:
            heappop(self._early)
        return self._early[0][1] if self._early else None

    def _seal_alone(self, solo: Solo[M]) -> Pack[M]:
        solo.is_gone = True
        key = id(solo.member)
        del self._places[key % _SHARDS][key]
        self._members -= 1
        self._recipients -= len(solo.ids)
        deadline_s = None if solo.deadline_s == inf else solo.deadline_s
        if deadline_s is not None:
            self._deadlines.discard(key, deadline_s=deadline_s)
        return Pack(
            solo.group,
            (Share(solo.member, solo.ids),),
            solo.ids,
            solo.opened_at_s,
            deadline_s,
            solo.size_bytes,
            len(solo.ids) >= self._caps.recipients,
            solo.is_high,
            solo.rendered,
        )

    def _seal(self, draft: Draft[M]) -> Pack[M]:
        is_full = draft.is_closed
        line = draft.line
        line.close(draft)
        self._retire(draft)
        shares = tuple([share for share in draft.shares if share is not None])
        draft.shares = []
        deadline_s = min([self._leave(share) for share in shares])
        self._recipients -= draft.recipients
        return Pack(
            line.group,
            shares,
            shares[0].ids if len(shares) == 1 else tuple(chain.from_iterable([share.ids for share in shares])),
            draft.opened_at_s,
            None if deadline_s == inf else deadline_s,
            draft.size_bytes,
            is_full,
            line.is_high,
        )

    def _leave(self, share: Share[M]) -> float:
        """Note that a share is taken, and return its member's deadline."""
        key = id(share.member)
        shard = self._places[key % _SHARDS]
        place = shard[key]
        if isinstance(place, Solo):
            raise TypeError("a job that goes as it is shares no draft")
        place.left -= 1
        if not place.left:
            del shard[key]
            self._members -= 1
            if place.deadline_s != inf:
                self._deadlines.discard(key, deadline_s=place.deadline_s)
        return place.deadline_s

    def _retire(self, draft: Draft[M]) -> None:
        """Take a draft out of its line, and a line without drafts out of the packer."""
        line = draft.line
        line.unlink(draft)
        if line.head is None and not line.is_alone:
            del self._lines[line.is_high][hash(line.group) % _SHARDS][line.group]

    def _collect_overdue(self, now_s: float) -> None:
        for deadline_s, key in self._deadlines.due(now_s):
            place = self._places[key % _SHARDS].get(key)
            if place is not None and place.deadline_s == deadline_s:
                self._overdue.append(self._remove(key))

    def _remove(self, key: int) -> Share[M]:
        """Take a member out wherever it still waits."""
        place = self._places[key % _SHARDS].pop(key)
        if isinstance(place, Solo):
            place.is_gone = True
            share = Share(place.member, place.ids)
            self._note_emptied()
        else:
            slots = [(place.draft, place.slot), *place.others]
            shares = [self._pull(draft, slot) for draft, slot in slots if not draft.is_gone]
            share = Share(shares[0].member, tuple(chain.from_iterable([share.ids for share in shares])))
        self._members -= 1
        self._recipients -= len(share.ids)
        if place.deadline_s != inf:
            self._deadlines.discard(key, deadline_s=place.deadline_s)
        return share

    def _pull(self, draft: Draft[M], slot: int) -> Share[M]:
        share = draft.line.pull(draft, slot=slot)
        if not draft.members:
            self._retire(draft)
            self._note_emptied()
        return share

    def _note_emptied(self) -> None:
        self._emptied += 1
        if self._emptied > _KEPT_EMPTIED + (len(self._high) + len(self._alone) + len(self._lingering)) // 2:
            self._forget_emptied()

    def _forget_emptied(self) -> None:
        """Clear the queues of drafts that all have left, since those behind somebody who stays never reach the front.

        It costs as much as has left since the last time.
        """
        self._emptied = 0
        for queue in (self._high, self._alone, self._lingering):
            live = [draft for draft in queue if not draft.is_gone]
            queue.clear()
            queue.extend(live)
        self._early = [entry for entry in self._early if not entry[1].is_gone]
        self._near = [entry for entry in self._near if not entry[2].is_gone]
        heapify(self._early)
        heapify(self._near)


def _turn(place: _Place[M] | Solo[M]) -> tuple[int, int]:
    """Its draft's arrival, and its slot in it."""
    return (place.arrival, 0) if isinstance(place, Solo) else (place.draft.arrival, place.slot)


def _shards() -> list[dict[K, V]]:
    return [{} for _ in range(_SHARDS)]


def _front(queue: deque[Queued[M]]) -> Queued[M] | None:
    """Return the first in the queue that is not gone."""
    while queue and queue[0].is_gone:
        queue.popleft()
    return queue[0] if queue else None


def _older(one: Queued[M] | None, other: Queued[M] | None) -> Queued[M] | None:
    if one is None or other is None:
        return one or other
    return one if one.arrival < other.arrival else other
