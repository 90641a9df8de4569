"""How far a campaign is: a journal that copies no rows, because the campaign's file is durable already.

A job's id is its first row. What has settled is a set of stretches of rows; what may have been sent is whatever is
before the frontier (`sendengine.journal.frontier`). A request that carries the whole of a job under the job's own key
can be made again from the file, so it is not written; the pieces of a job that was split are, and what came of them
until their job has settled. A piece that may have been sent and was given up stays for a retry.

Units: rows are counted from 0; instants are seconds since the epoch, or, in the frontier, on the loop's clock.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from sendengine.core.jobs import CreateNotification, Job
from sendengine.errors import StorageError
from sendengine.journal.connection import afresh
from sendengine.journal.frontier import Frontier
from sendengine.journal.letters import is_to_be_kept
from sendengine.journal.records import (
    PART,
    REQUEST,
    RequestEntry,
    UnreadableRecordError,
    read_part,
    read_request,
    write_part,
    write_request,
)
from sendengine.journal.store import Collector, Contents, Store
from sendengine.journal.stretches import Stretches
from sendengine.ports import KeyRecall, Part, Portion, Recovered, RecoveredRequest, Seal

MOST_BOUNDARIES: Final = 10_000
NOTHING_STORED: Final = 0
"""The id of a seal that was only waited for."""

_FRONTIER: Final = "frontier"
_SETTLED: Final = "settled"


class _FrontierRow(Struct, frozen=True):
    row: int
    first_sent_at_s: float


class _Settled(Struct, frozen=True):
    stretches: list[tuple[int, int]]
    restart: int


class Begun(Struct, frozen=True):
    """What an earlier process did of an item; ``maybe_sent`` says that the whole of it may have been received."""

    parts: tuple[Part, ...]
    requests: tuple[RecoveredRequest, ...]
    maybe_sent: bool


class _Item(Struct):
    """An item under way: its end, and the key and size of the request that can be made again from the file.

    It may be sent from when it was accepted until the engine is done with it without having sent it.
    """

    end: int
    key: str | None = None
    count: int = 0
    parts: tuple[int, ...] = ()
    may_be_sent: bool = False


class CampaignLedger:
    """A `sendengine.ports.Journal` over a store of its own.

    ``restart`` is where reading the file goes on: the end of an item behind which packing can begin anew, before
    which everything has settled. ``is_fresh`` says that no earlier process wrote what has settled.
    ``first_sent_at_s`` is None where nothing was ever sent. ``is_anew`` says that what was done is lost, so that it is
    done again.
    """

    def __init__(self, store: Store, contents: Contents) -> None:
        """Read what an earlier process left: ``contents`` are those of the store when it was opened."""
        self.damaged = list(contents.damaged)
        self.restart = 0
        self.is_fresh = True  # nothing is known to have settled, or to have begun to
        self.first_sent_at_s: float | None = None
        self._store = store
        self._items: dict[int, _Item] = {}
        self._boundaries: deque[int] = deque()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._parts: dict[int, list[tuple[int, Part]]] = {}
        self._requests: dict[int, list[RecoveredRequest]] = {}
        self._settled = self._read_settled(contents)
        self._frontier = Frontier(self._read_frontier(contents))
        self._read_records(contents)
        self._from = self._frontier.durable
        self.is_anew = self._from == _ALL
        store.collect(self._collect)

    # Beside the engine

    def is_settled(self, first: int, end: int) -> bool:
        """Whether an item has settled."""
        return self._settled.covers(first, end)

    def begin_anew(self, *, is_set_back: bool = False) -> None:
        """Forget what has settled: all of it is repeated under its old keys.

        Its books are lost, or the journal ``is_set_back`` and does not even know how far the campaign was.
        """
        self._settled = Stretches()
        self.restart = 0
        self.is_anew = True
        self._from = _ALL if is_set_back else self._from

    def may_have_sent(self, row: int) -> bool:
        """Whether a row may have been sent by an earlier process, as far as is known."""
        return row < self._from

    def begun(self, first: int, end: int) -> Begun | None:
        """What an earlier process did of an item; None where nothing of it can have been sent."""
        parts = tuple(part for _, part in self._parts.get(first, ()))
        ended = {recipient for part in parts for recipient in part.recipients}  # those of kept requests among them
        requests = tuple(
            request for request in self._requests.get(first, ()) if ended.isdisjoint(request.seal.members[0][1])
        )
        maybe_sent = end <= self._from
        return Begun(parts, requests, maybe_sent) if parts or requests or maybe_sent else None

    def unsure(self, *, rows: int) -> tuple[int, int]:
        """How many of a file's ``rows`` may have been sent by earlier processes, and how many pieces of theirs."""
        before = min(self._from, rows)
        pieces = [each for first, each in self._requests.items() if not self._settled.covers(first, first + 1)]
        return before - self._settled.count(before), sum(map(len, pieces))

    def key_of(self, first: int, part: Part) -> str | None:
        """Return the key of the piece that may have carried a part of an item; None where it certainly did not."""
        wanted = set(part.recipients)
        kept = self._requests.get(first, ())
        return next((each.seal.key for each in kept if wanted == set(each.seal.members[0][1])), None)

    def expect(self, first: int, end: int, *, is_boundary: bool) -> None:
        """An item is about to be accepted, or has settled before; packing can begin anew behind a boundary."""
        if is_boundary:
            self._boundaries.append(end)
            if len(self._boundaries) > MOST_BOUNDARIES:  # an item in front takes long: half of them will do
                self._boundaries = deque(list(self._boundaries)[1::2])
        if self._settled.covers(first, end):
            self._advance()
        else:
            self._items[first] = _Item(end, parts=tuple(record for record, _ in self._parts.get(first, ())))

    def close(self, first: int) -> None:
        """An item was refused before it was accepted: it has settled."""
        item = self._items.pop(first)
        self._settle(first, item)
        self._store.stir()

    def spare(self, first: int) -> None:
        """The engine is done with an item, and nothing of it was ever sent."""
        if (item := self._items.get(first)) is not None:
            item.may_be_sent = False

    # As the engine's journal

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at the moment, and how to mend it; None where all is well."""
        return self._store.problem

    @property
    def flush_s(self) -> float:
        """How long a change takes to reach the disk, lately."""
        return self._store.flush_s

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        """Give nothing back: the run reads its file again, and knows from `begun` what was done."""
        self._store.tell_failure(when_failed)
        return Recovered(damaged=tuple(self.damaged))

    def accept(
        self,
        job: Job,
        *,
        app: str,
        row: int | None = None,
        key: str | None = None,
        fingerprint: bytes = b"",
        done: Callable[[StorageError | None], None],
    ) -> int:
        """Take note of an item that was announced with `expect`; nothing has to be written."""
        del app, fingerprint
        if row is None:
            raise AssertionError("a campaign's jobs have rows")
        item = self._items[row]
        item.key = key
        item.may_be_sent = True
        item.count = len(job.to.ids) if isinstance(job, CreateNotification) else 0
        asyncio.get_running_loop().call_soon(done, self._store.failure)  # the id first: it may settle at once
        return row

    def withdraw(self, job: int) -> bool:
        """Nothing is ever being written."""
        del job
        return False

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        """Know no keys: each stands in the file once."""
        del key, app
        return None

    def must_seal(self, seal: Seal) -> bool:
        """Whether it has to wait for the frontier, or is a piece that the file does not tell."""
        now_s = asyncio.get_running_loop().time()
        is_ahead = False
        for first, _ in seal.members:
            end = self._items[first].end
            if (row := self._frontier.pull(first, end, now_s=now_s)) is not None:
                self._move(row)
            is_ahead |= end > self._frontier.durable
        return is_ahead or self._is_piece(seal)

    async def seal(self, seal: Seal) -> int:
        """Wait until the frontier is behind all of its rows; write a piece. Raises StorageError."""
        end = max(self._items[first].end for first, _ in seal.members)
        if end > self._frontier.durable:
            if (failure := self._store.failure) is not None:
                raise failure
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((end, waiter))
            await waiter
        return await self._write(seal) if self._is_piece(seal) else NOTHING_STORED

    def unseal(self, request: int, *, maybe_received: bool = False) -> None:
        """Forget a piece; a whole request was never written."""
        del maybe_received
        if request != NOTHING_STORED:
            self._store.remove(request, is_ordered=True)  # gone before the pieces that take its place are there

    def settle(self, portions: Sequence[Portion], *, request: int | None) -> None:
        """Add to the stretches that have settled, or keep what came of a piece."""
        for portion in portions:
            item = self._items[portion.job]
            if portion.is_last:
                del self._items[portion.job]
                self._settle(portion.job, item)
            else:
                record = self._store.put(PART, write_part(portion.job, Part(portion.recipients, portion.outcome)))
                item.parts = (*item.parts, record)
        if request and not is_to_be_kept(portions):
            self._store.remove(request)
        self._store.stir()

    async def flush(self) -> None:
        """Return when everything so far is on disk. Raises StorageError."""
        await self._store.flush()

    async def aclose(self) -> None:
        """Write what waits, and close; never raises StorageError.

        What was not sent although it is before the frontier need not wait when the run goes on: that is set back.
        """
        self._set_back()
        await self._store.aclose()

    # How it does that

    def _is_piece(self, seal: Seal) -> bool:
        if seal.key is None or len(seal.members) != 1:
            return False
        first, ids = seal.members[0]
        item = self._items[first]
        return seal.key != item.key or len(ids) != item.count

    async def _write(self, seal: Seal) -> int:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = RequestEntry(seal, time.time())
        record = self._store.put(REQUEST, write_request(entry), done=lambda error: _resolve(written, error))
        await written
        return record

    def _move(self, row: int) -> None:
        """Move the frontier, and let those go that wait for it when it is on disk."""
        payload = self._frontier_row(row)

        def done(error: StorageError | None) -> None:
            if error is None:
                self._frontier.durable = max(self._frontier.durable, row)
            waiting, self._waiting = self._waiting, deque()
            for end, waiter in waiting:
                if error is None and end > self._frontier.durable:
                    self._waiting.append((end, waiter))
                else:
                    _resolve(waiter, afresh(error))

        self._store.set_value(_FRONTIER, payload, done=done)

    def _set_back(self) -> None:
        """Set the frontier back to behind what may have been sent, by this process or an earlier one."""
        earlier = self._from if self._settled.prefix_end < self._from else 0
        row = max([earlier, *(item.end for item in self._items.values() if item.may_be_sent)])
        if row < self._frontier.durable:
            self._frontier.lower(row)
            self._store.set_value(_FRONTIER, self._frontier_row(row))

    def _frontier_row(self, row: int) -> bytes:
        if self.first_sent_at_s is None:
            self.first_sent_at_s = time.time()
        return msgspec.json.encode(_FrontierRow(row, self.first_sent_at_s))

    def _settle(self, first: int, item: _Item) -> None:
        self._settled.add(first, item.end)
        for record in item.parts:
            self._store.remove(record)
        self._advance()

    def _advance(self) -> None:
        prefix = self._settled.prefix_end
        while self._boundaries and self._boundaries[0] <= prefix:
            self.restart = self._boundaries.popleft()

    def _collect(self, collector: Collector) -> None:
        settled = _Settled(self._settled.pairs, self.restart)
        collector.set_value(_SETTLED, msgspec.json.encode(settled))

    # What an earlier process left

    def _read_settled(self, contents: Contents) -> Stretches:
        if (payload := contents.values.get(_SETTLED)) is None:
            return Stretches()
        try:
            found = msgspec.json.decode(payload, type=_Settled)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.damaged.append(f"what has settled cannot be read ({error}): all of it is repeated under its old keys")
            return Stretches()
        self.restart = found.restart
        self.is_fresh = False
        return Stretches(found.stretches)

    def _read_frontier(self, contents: Contents) -> int:
        """Return the frontier; as far as can be, where it is damaged: everything may have been sent then."""
        payload = contents.values.get(_FRONTIER)
        if payload is None and not contents.damaged:
            return 0
        try:
            found = msgspec.json.decode(payload or b"", type=_FrontierRow)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _ALL
        self.first_sent_at_s = found.first_sent_at_s
        return found.row

    def _read_records(self, contents: Contents) -> None:
        for record in contents.records:
            try:
                if record.kind == PART:
                    first, part = read_part(record.payload)
                    self._parts.setdefault(first, []).append((record.id, part))
                elif record.kind == REQUEST:
                    entry = read_request(record.payload)
                    found = RecoveredRequest(record.id, entry.seal, entry.sealed_at_s)
                    self._requests.setdefault(entry.seal.members[0][0], []).append(found)
            except (UnreadableRecordError, IndexError) as error:
                self.damaged.append(f"a record cannot be read: {error}")

    def kept_requests(self) -> Mapping[str, RequestEntry]:
        """Pieces that may have been sent and were given up, by their keys."""
        return {
            request.seal.key: RequestEntry(request.seal, request.sealed_at_s)
            for requests in self._requests.values()
            for request in requests
            if request.seal.key is not None
        }


_ALL: Final = 2**62


def _resolve(waiter: "asyncio.Future[None]", error: StorageError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
