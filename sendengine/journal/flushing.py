"""When changes reach the disk, and what follows when they cannot.

A group goes when somebody has waited `URGENT_S` for it, or it has `GROUP_RECORDS` or `GROUP_BYTES`; what gathers while
one is being written goes with the next. What nobody waits for goes with a group at the latest after `LAZY_S`, and does
not hold up the others; among themselves these changes keep their order.

A failed write is never tried again: whoever waits, and whoever comes later, gets StorageError. A full disk is no
failure: what nobody waits for goes first, out of a reserve, and the rest is tried again every `AGAIN_S`.

Units: seconds on the running loop's clock; sizes are bytes.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from logging import getLogger
from typing import Final, TypeAlias

from sendengine.errors import StorageError
from sendengine.journal.connection import DiskFullError
from sendengine.journal.database import Batch, Database, Written
from sendengine.journal.group import ArchiveName, Done, Group, Put, put_before
from sendengine.journal.liveness import Liveness
from sendengine.journal.reserve import Reserve
from sendengine.journal.telling import Telling
from sendengine.journal.writer import Writer

GROUP_RECORDS: Final = 512
GROUP_BYTES: Final = 262_144
LARGEST_BYTES: Final = 1_048_576  # of what gathered while the disk was slow or full: it has to fit on it at once
URGENT_S: Final = 0.005
LAZY_S: Final = 0.15  # of the quarter second; the rest is for the group before it and its own
AGAIN_S: Final = 1.0

_PAGES_OF_A_GROUP: Final = 24_576  # what a group writes besides its records, about
_SMOOTHING: Final = 0.2
_log = getLogger(__name__)

Hook: TypeAlias = Callable[[Group], None]
"""Adds to a group that is about to be written, on the loop."""


class Flusher:
    """Two groups that gather, an urgent and a lazy one, and the one that is being written."""

    __slots__ = (
        "_again",
        "_database",
        "_flying",
        "_is_flying",
        "_is_lazy_due",
        "_is_whole",
        "_landed",
        "_lazy_timer",
        "_liveness",
        "_loop",
        "_next_id",
        "_reserve",
        "_seq",
        "_tell",
        "_timer",
        "_unchecked_bytes",
        "_writer",
        "failure",
        "flush_s",
        "hooks",
        "is_full",
        "lazy",
        "since_s",
        "urgent",
        "when_trouble",
    )

    def __init__(
        self,
        database: Database,
        *,
        writer: Writer,
        reserve: Reserve,
        liveness: Liveness,
        seq: int,
        next_id: Callable[[], int],
    ) -> None:
        self.urgent, self.lazy = Group(), Group()
        self.failure: StorageError | None = None
        self.flush_s = URGENT_S
        self.hooks: list[Hook] = []
        self.when_trouble: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._writer = writer
        self._reserve = reserve
        self._liveness = liveness
        self._seq = seq
        self._next_id = next_id
        self._flying = Group()
        self._is_flying = False
        self._is_whole = True  # whether the group that is being written has all that had gathered
        self.is_full = False  # the disk, as far as is known
        self._is_lazy_due = False
        self.since_s: float | None = None  # since when somebody waits for the urgent group
        self._unchecked_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._landed: list[asyncio.Future[None]] = []
        self._tell = Telling(self._loop)

    def holds_at_most(self, records: int) -> bool:
        """Whether no more records than these count, and none is on its way."""
        return len(self._liveness) <= records and not (self.urgent or self.lazy or self._flying)

    def gathering(self) -> tuple[Group, Group, Group]:
        """Return what is not on disk yet, the latest first."""
        return self.lazy, self.urgent, self._flying

    # Asking for a flush

    def add(self, record: int, put: Put, *, is_ordered: bool) -> None:
        """Put a record on disk that may take another's place, and for which nobody may wait."""
        is_urgent = put[1] is not None
        if is_urgent or is_ordered:
            self.lazy.withdraw(record)  # or it would come later, and win
            self.urgent.put(record, put)
        else:
            self.lazy.put(record, put)
        self.hurry() if is_urgent else self.stir()

    def add_as_one(self, puts: Mapping[int, Put], *, forgotten: Iterable[ArchiveName], done: Done) -> None:
        """Put records on disk, and forget what is archived, in one group; ``done`` is told."""
        for record, put in puts.items():
            self.urgent.put(record, put)
        for name in forgotten:
            self.urgent.forget(name)
        self.urgent.is_one = True
        self.flush(done)

    def remove_in_order(self, records: Sequence[int]) -> None:
        """Records do not count any more, no later than what somebody waits for from now on."""
        for record in records:
            self.lazy.withdraw(record)
        self.urgent.removed += records

    def hurry(self) -> None:
        """Somebody waits for what was added to the urgent group."""
        if self.since_s is None:
            self.since_s = self._loop.time()
        if self._is_flying or self.is_full:
            return
        if _is_large(self.urgent):
            self._write()
        elif self._timer is None:
            self._timer = self._loop.call_later(URGENT_S, self._urgent_due)

    def stir(self) -> None:
        """A change was added to the lazy group, or waits in a hook."""
        if self._lazy_timer is None and not self._is_lazy_due and self.failure is None:
            self._lazy_timer = self._loop.call_later(LAZY_S, self._lazy_due)

    def flush(self, done: Done) -> None:
        """Call ``done`` when everything so far is on disk."""
        self.urgent.waiters.append(done)
        self._lazy_due()

    async def finish(self) -> None:
        """Write what waits; whoever still waits then is told that it cannot be. Cancelling it leaves that undone."""
        while self._is_flying:
            await self._landing()
        is_left = True
        while is_left and self.failure is None:  # a group holds so much; where the disk is full, once
            self._is_lazy_due = True
            self._write(is_whole=True)
            while self._is_flying:  # and once more for what nobody waits for
                await self._landing()
            is_left = bool(self.urgent) and not self.is_full
        for timer in (self._timer, self._lazy_timer, self._again):
            if timer is not None:
                timer.cancel()
        if self.failure is None:
            self.failure = StorageError(f"{self._database.path} is closed")
        self._loop.call_soon(self._tell, self.urgent.everybody(), self.failure)

    # Writing

    def _urgent_due(self) -> None:
        self._timer = None
        if not self._is_flying:
            self._write()

    def _lazy_due(self) -> None:
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        self._is_lazy_due = True
        if not self._is_flying:
            self._write()

    def _write(self, *, is_whole: bool = False) -> None:
        """Hand what is due to the thread; on a full disk without what is taken on, unless ``is_whole``."""
        if self.failure is not None:  # a timer was still to ring: what a hook would add tells of changes that are lost
            return
        if self._is_lazy_due and not self._ask_hooks():
            return
        if is_whole or not self.is_full:
            group, self.urgent = self.urgent, Group()
            if group.size_bytes > LARGEST_BYTES and not group.is_one:
                self.urgent = group.cut(LARGEST_BYTES)
        else:
            group, self.urgent = self.urgent.split()
        if self._is_lazy_due:
            self._is_lazy_due = False
            group.extend(self.lazy)
            self.lazy = Group()
        if not group:
            if not self.urgent:
                self.since_s = None  # what somebody waited for was withdrawn: the next one has to set a timer
            if is_whole:
                self._has_room()
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_whole = is_whole or not self.is_full
        self._flying, self._is_flying = group, True
        batch = self._batch(group)
        since_s = self.since_s
        self.since_s = self._loop.time() if self.urgent.puts else None
        self._writer.start(
            partial(self._database.write, batch), done=partial(self._written, batch, since_s), failed=self._not_written
        )

    def _ask_hooks(self) -> bool:
        """Let the hooks add to what goes now; False where one could not, and nothing is written any more."""
        try:
            for hook in self.hooks:
                hook(self.lazy)
        except Exception as error:  # noqa: BLE001 - not caught here but told to everybody who waits, whatever it is
            self.went_wrong(error)
        return self.failure is None

    def _batch(self, group: Group) -> Batch:
        liveness = self._liveness
        liveness.removed(group.removed)
        last_moved = liveness.last_to_move()
        needed = liveness.first_needed()
        first_kept = self._seq if needed is None else needed
        return Batch(
            seq=self._seq,
            next_id=self._next_id(),
            frames=[put[0] for put in group.puts.values()],
            removed=group.removed,
            first_kept=first_kept if last_moved is None else max(first_kept, last_moved + 1),
            last_moved=last_moved,
            places=liveness.places,
            archived=group.archived,
            forgotten=group.forgotten,
            works=group.works,
        )

    def _written(self, batch: Batch, since_s: float | None, written: Written) -> None:
        group, self._flying, self._is_flying = self._flying, Group(), False
        liveness = self._liveness
        self._seq = batch.seq + 1
        liveness.removed((*group.replaced, *written.moved))  # where they stood before
        records = {*group.puts, *written.moved} if written.moved else group.puts
        liveness.appended(batch.seq, records, size_bytes=written.size_bytes)
        if not group.puts.keys().isdisjoint(group.removed):
            liveness.removed(group.removed)
        liveness.dropped_before(batch.first_kept)
        now_s = self._loop.time()
        if since_s is not None:
            self.flush_s += _SMOOTHING * (now_s - since_s - self.flush_s)
        self._unchecked_bytes += written.size_bytes + _PAGES_OF_A_GROUP
        if self._unchecked_bytes >= self._database.checkpoint_bytes:
            self._unchecked_bytes = 0
            self._writer.start(self._database.checkpoint, done=_nothing, failed=self.went_wrong)
        if self._is_whole:
            self._has_room()
        try:
            self._tell(group.everybody(), None)
        finally:  # what a caller's callback raises is the loop's to report, and must not stop the flushing
            self._go_on()

    def _go_on(self) -> None:
        self._wake()
        if self._is_flying or self.failure is not None:
            return
        if self._is_lazy_due or (not self.is_full and _is_large(self.urgent)):
            self._write()
        elif self.since_s is not None and not self.is_full:
            left_s = self.since_s + URGENT_S - self._loop.time()
            if left_s <= 0:
                self._write()
            elif self._timer is None:
                self._timer = self._loop.call_later(left_s, self._urgent_due)

    # When it cannot be written

    def _not_written(self, error: Exception) -> None:
        self._is_flying = False
        try:
            if isinstance(error, DiskFullError):
                self._found_full(error)
            else:
                self.went_wrong(error)
        finally:
            self._wake()

    def _found_full(self, error: DiskFullError) -> None:
        self.lazy, self.urgent = put_before(self._flying, lazy=self.lazy, urgent=self.urgent)
        self._flying = Group()
        was_full, self.is_full = self.is_full, True
        self._writer.start(self._reserve.give, done=_nothing, failed=self.went_wrong)
        if self._again is None:
            self._again = self._loop.call_later(AGAIN_S, self._try_again)
        if self._is_whole and self.lazy:  # the reserve may have been there until now
            self._lazy_due()
        if not was_full:
            _log.warning("%s; nothing is taken on until there is room", error)
            self._trouble()

    def _try_again(self) -> None:
        self._again = None
        self._writer.start(self._make_room, done=self._tried, failed=self.went_wrong)

    def _make_room(self) -> bool:
        self._database.make_room()
        return self._reserve.keep()

    def _tried(self, has_room: bool) -> None:  # noqa: FBT001 - the thread's answer is its only argument
        if self.failure is not None or not self.is_full:
            return
        self._again = self._loop.call_later(AGAIN_S, self._try_again)
        if not self._is_flying:
            self._is_lazy_due = True
            self.since_s = None  # how long the disk was full says nothing about a flush
            self._write(is_whole=has_room)

    def _has_room(self) -> None:
        if self.is_full:
            self.is_full = False
            _log.info("there is room again for %s", self._database.path)
            self._loop.call_soon(self._trouble)

    def went_wrong(self, error: Exception) -> None:
        """Nothing is written any more."""
        if self.failure is not None or isinstance(error, DiskFullError):  # a checkpoint's; the next group finds it too
            return
        told = error if isinstance(error, StorageError) else StorageError(f"{self._database.path}: {error!r}")
        _log.error("%s; nothing more is taken on", told)
        self.failure = told
        groups = (self._flying, self.urgent, self.lazy)
        self._flying, self.urgent, self.lazy = Group(), Group(), Group()
        try:
            self._trouble()
        finally:
            self._tell([done for group in groups for done in group.everybody()], told)

    def _trouble(self) -> None:
        if self.when_trouble is not None:
            self.when_trouble()

    async def _landing(self) -> None:
        landed = self._loop.create_future()
        self._landed.append(landed)
        await landed

    def _wake(self) -> None:
        landed, self._landed = self._landed, []
        for each in landed:
            if not each.done():
                each.set_result(None)


def _is_large(group: Group) -> bool:
    return len(group.puts) >= GROUP_RECORDS or group.size_bytes >= GROUP_BYTES


def _nothing(_: None) -> None:
    """It has succeeded."""
