"""A durable set of records in one file, changed from the event loop, a group of changes at a time.

What is in it is read once, when it is opened; from then on it is written: records come and go, values are replaced,
things are archived by name and looked up. When changes reach the disk is `sendengine.journal.flushing`'s.

Units: seconds; instants are since the epoch. Kinds of records are 1 to 254, their meaning is the caller's.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from logging import getLogger
from pathlib import Path
from time import time
from typing import Final, Protocol, Self, TypeAlias, TypeVar

from msgspec import Struct

from sendengine.errors import StorageError
from sendengine.journal.connection import Connect, Durability, afresh, connect_sqlite
from sendengine.journal.database import ArchivedRow
from sendengine.journal.flushing import GROUP_BYTES, GROUP_RECORDS, Flusher
from sendengine.journal.frames import Record, framed
from sendengine.journal.group import Archived, ArchiveName, Done, Group, Put
from sendengine.journal.lookups import Lookups
from sendengine.journal.opening import Opened, open_on, set_aside
from sendengine.journal.values import VALUE, value_payload
from sendengine.journal.writer import Writer

HOUSE_S: Final = 3600.0
"""How often what is too old is taken out of the archive."""

_Seen = TypeVar("_Seen")
WallClock: TypeAlias = Callable[[], float]
"""Seconds since the epoch: `time.time`, or a test's."""

_log = getLogger(__name__)


class Contents(Struct, frozen=True):
    """What a store held when it was opened; records in the order of their ids, ``damaged`` says what was set aside."""

    records: tuple[Record, ...]
    values: Mapping[str, bytes]
    damaged: tuple[str, ...]


class Collector(Protocol):
    """What a hook may add to a group that is about to be written."""

    def set_value(self, name: str, value: bytes) -> None:
        """Let a named value reach the disk with the group."""
        ...

    def do(self, work: Callable[[], None]) -> None:
        """Do blocking work on the store's thread before the group is written.

        It may raise OSError. Where the disk was full it is done again, so it must not mind what it has done before;
        any other error fails the store.
        """
        ...


class Store:
    """One file, open for this process alone (`Store.open`). All methods belong on the loop that opened it.

    ``when_trouble`` is called when `problem` changes.
    """

    def __init__(self, opened: Opened, *, writer: Writer, now_s: WallClock) -> None:
        database, found = opened.database, opened.found
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._writer = writer
        self._now_s = now_s
        self._next_id = found.next_id
        self._value_ids = opened.value_ids
        self._contents: Contents | None = Contents(opened.records, opened.values, found.damaged)
        self._flusher = Flusher(
            database,
            writer=writer,
            reserve=opened.reserve,
            liveness=found.liveness,
            seq=found.next_seq,
            next_id=lambda: self._next_id,
        )
        self._reserve = opened.reserve
        self._lookups: dict[int, Lookups] = {}
        self._ages_s: dict[int, float] = {}
        self._house: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        durability: Durability = "durable",
        connect: Connect = connect_sqlite,
        now_s: WallClock = time,
    ) -> Self:
        """Open the file; it is made where it is missing, with its directory, and nobody else may read either.

        Raises StorageError where it cannot be had, another process has it, or a newer version wrote it. What is
        damaged is set aside, named in `contents` and logged. Cancelling it gives the file back.
        """
        writer = Writer(f"sendengine {path.name}")
        opened = await open_on(writer, path, durability=durability, connect=connect)
        for damage in opened.found.damaged:
            _log.warning("%s", damage)
        return cls(opened, writer=writer, now_s=now_s)

    def __repr__(self) -> str:
        return f"<Store {self.path} {self.problem or 'at work'}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def failure(self) -> StorageError | None:
        """Why nothing is written any more: the disk has failed, or the store is closed; one that may be raised."""
        return afresh(self._flusher.failure)

    @property
    def problem(self) -> str | None:
        """Why nothing is taken on at the moment, and how to mend it; None where all is well."""
        if (failure := self._flusher.failure) is not None:
            return None if self._is_closing else str(failure)
        if self._flusher.is_full:
            return f"the disk that holds {self.path} is full; free some room there, and it goes on within 5 s"
        return None

    @property
    def flush_s(self) -> float:
        """How long a change that somebody waits for takes to reach the disk, lately."""
        return self._flusher.flush_s

    @property
    def has_values_alone(self) -> bool:
        """Whether it holds nothing but named values, and nothing is on its way."""
        return self._flusher.holds_at_most(len(self._value_ids))

    @property
    def when_trouble(self) -> Callable[[], None] | None:
        """Called on the loop when `problem` has changed."""
        return self._flusher.when_trouble

    @when_trouble.setter
    def when_trouble(self, callback: Callable[[], None] | None) -> None:
        self._flusher.when_trouble = callback

    def tell_failure(self, when_failed: Callable[[StorageError], None]) -> None:
        """Call ``when_failed`` on the loop when the disk has failed for good; takes the place of `when_trouble`."""

        def look() -> None:
            if (failure := self.failure) is not None:
                when_failed(failure)

        self.when_trouble = look

    def contents(self) -> Contents:
        """Return what it held when it was opened; to be called once, so that nothing is kept for longer."""
        contents, self._contents = self._contents, None
        if contents is None:
            raise AssertionError("what a store held is asked for once")
        return contents

    # Records and values

    def put(
        self,
        kind: int,
        payload: bytes,
        *,
        done: Done | None = None,
        record: int | None = None,
        archived: tuple[ArchiveName, bytes] | None = None,
        is_ordered: bool = False,
    ) -> int:
        """Add a record, or replace the one of this id; returns the id.

        With ``done`` it goes within milliseconds, and ``done`` is called on the loop when it is on disk, or with why it
        never will be (a future's ``set_result`` serves, and the future may be cancelled); ``archived`` goes with it.
        Without, it goes within a quarter second; ``is_ordered`` then says that it is there no later than what somebody
        waits for from now on.
        """
        flusher, name = self._flusher, None
        if record is None:
            record = self._next_id
            self._next_id = record + 1
        if flusher.failure is not None:
            if done is not None:
                self._loop.call_soon(done, self.failure)
            return record
        if archived is not None:
            name, content = archived
            flusher.urgent.archived[name] = Archived(round(self._now_s()), content)
        flusher.add(record, (framed(record, kind, payload), done, name), is_ordered=is_ordered)
        return record

    def take(self, kind: int, payload: bytes, done: Done) -> int:
        """Add a record for which somebody waits, as `put` does, in fewer steps: there are thousands a second."""
        flusher = self._flusher
        if flusher.failure is not None:
            return self.put(kind, payload, done=done)
        record = self._next_id
        self._next_id = record + 1
        frame = framed(record, kind, payload)
        group = flusher.urgent
        puts = group.puts
        puts[record] = (frame, done, None)
        size_bytes = group.size_bytes = group.size_bytes + len(frame)
        if flusher.since_s is None or len(puts) >= GROUP_RECORDS or size_bytes >= GROUP_BYTES:
            flusher.hurry()
        return record

    def new_ids(self, count: int) -> range:
        """Return ids for records of `put_as_one`."""
        first, self._next_id = self._next_id, self._next_id + count
        return range(first, self._next_id)

    async def put_as_one(self, records: Iterable[Record], *, forgotten: Iterable[ArchiveName]) -> None:
        """Add records, and keep no longer what is archived: all of it is on disk when this returns, or nothing is.

        Raises StorageError; on a full disk it waits. Their ids are from `new_ids`.
        """
        if (failure := self.failure) is not None:
            raise failure
        written: asyncio.Future[StorageError | None] = self._loop.create_future()
        puts: dict[int, Put] = {each.id: (framed(each.id, each.kind, each.payload), None, None) for each in records}
        self._flusher.add_as_one(puts, forgotten=forgotten, done=written.set_result)
        if (error := await written) is not None:
            raise error

    def withdraw(self, record: int) -> bool:
        """Take back a record that somebody waits for and that is not being written yet; its ``done`` is not called."""
        return self._flusher.urgent.withdraw(record)

    def remove(self, *records: int, is_ordered: bool = False) -> None:
        """Records do not count any more; ``is_ordered`` as in `put`."""
        flusher = self._flusher
        if flusher.failure is None:
            if is_ordered:
                flusher.remove_in_order(records)
            else:
                flusher.lazy.removed += records
            flusher.stir()

    def set_value(self, name: str, value: bytes, *, done: Done | None = None, is_ordered: bool = False) -> None:
        """Replace a named value, in the manner of `put`."""
        payload, record = value_payload(name, value), self._value_ids.id_of(name)
        record = self.put(VALUE, payload, done=done, record=record, is_ordered=is_ordered)
        self._value_ids.assign(name, record)

    def collect(self, hook: Callable[[Collector], None]) -> None:
        """Call ``hook`` on the loop for each group that carries what nobody waits for, a few times a second at most."""
        self._flusher.hooks.append(lambda group: hook(_Collected(group, self._record_of)))

    def stir(self) -> None:
        """Something waits in a hook: have a group within a quarter second."""
        if self._flusher.failure is None:
            self._flusher.stir()

    # Archive

    def archive(self, kind: int, name: str, payload: bytes) -> None:
        """Keep something by its name, in the place of what was kept there."""
        if self._flusher.failure is None:
            self._flusher.lazy.archived[kind, name] = Archived(round(self._now_s()), payload)
            self._flusher.stir()

    async def find(self, kind: int, name: str) -> bytes | None:
        """Return what is archived under a name, None where there is nothing, or it is damaged. Raises StorageError."""
        if (failure := self.failure) is not None:
            raise failure
        for group in self._flusher.gathering():
            if (entry := group.archived.get((kind, name))) is not None:
                return entry.payload
            if (kind, name) in group.forgotten:
                return None
        if kind not in self._lookups:
            self._lookups[kind] = Lookups(kind, database=self._database, writer=self._writer)
        return await self._lookups[kind].find(name)

    async def archived(self, kind: int, look: Callable[[ArchivedRow], _Seen]) -> list[_Seen]:
        """Return what ``look`` makes of everything archived of a kind, the oldest first. Raises StorageError.

        It looks on the store's thread: reading what was archived in 30 days takes longer than the loop has.
        """
        await self.flush()
        return await self._writer.run(partial(self._database.archived, kind, look))

    def prune(self, ages_s: Mapping[int, float]) -> None:
        """Take out of the archive what is older than its kind's age, now and every hour from now on."""
        self._ages_s = dict(ages_s)
        self._keep_house()

    # All of it

    def set_aside(self, what: str, record: Record) -> str:
        """Keep a record that says nothing understandable beside the file, take it out, and say so."""
        self.remove(record.id)
        aside = partial(set_aside, self.path, [(what, record.payload)])
        self._flusher.lazy.works.append(lambda: _discard(aside()))
        return f"{self.path}: {what} cannot be understood and is set aside in {self.path.name}.damaged.jsonl"

    async def flush(self) -> None:
        """Return when everything so far is on disk. Raises StorageError; on a full disk it waits."""
        if (failure := self.failure) is not None:
            raise failure
        reached: asyncio.Future[StorageError | None] = self._loop.create_future()
        self._flusher.flush(reached.set_result)
        if (error := await reached) is not None:
            raise error

    async def aclose(self) -> None:
        """Write what waits, and give the file back; never raises StorageError.

        Cancelling it lets the closing go on by itself; whoever calls it again waits for its end.
        """
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._is_closing = self._is_closing or self._flusher.failure is None
        if self._house is not None:
            self._house.cancel()
        try:
            await self._flusher.finish()
        finally:
            await self._writer.run(self._reserve.give)  # first: it never outlives the write-ahead log, see `lost_log`
            with suppress(StorageError):
                await self._writer.run(self._database.close)
            await self._writer.aclose()

    def _record_of(self, name: str) -> int:
        record = self._value_ids.id_of(name)
        if record is None:
            record = self._next_id
            self._next_id += 1
            self._value_ids.assign(name, record)
        return record

    def _keep_house(self) -> None:
        self._house = self._loop.call_later(HOUSE_S, self._keep_house)
        now_s = self._now_s()
        for kind, age_s in self._ages_s.items():
            self._prune(kind, before=round(now_s - age_s))
        self._writer.start(self._database.shrink, done=_discard, failed=self._flusher.went_wrong)

    def _prune(self, kind: int, *, before: int) -> None:
        """Take out a part, and then the next, with room for groups in between."""

        def pruned(has_more: bool) -> None:  # noqa: FBT001 - the thread's answer is its only argument
            if has_more and self._flusher.failure is None:
                self._prune(kind, before=before)

        self._writer.start(
            partial(self._database.prune, kind, before=before), done=pruned, failed=self._flusher.went_wrong
        )


class _Collected:
    __slots__ = ("_group", "_record_of")

    def __init__(self, group: Group, record_of: Callable[[str], int]) -> None:
        self._group = group
        self._record_of = record_of

    def set_value(self, name: str, value: bytes) -> None:
        record = self._record_of(name)
        self._group.put(record, (framed(record, VALUE, value_payload(name, value)), None, None))

    def do(self, work: Callable[[], None]) -> None:
        self._group.works.append(work)


def _discard(_: object) -> None:
    """What it returned says nothing more."""
