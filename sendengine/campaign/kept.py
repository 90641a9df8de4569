"""Opens a run's journal, and keeps the run's books in it: of a campaign, or of a jobs file.

The books go to disk with what has settled, so that counts, lines and settlements tell of the same instant.

Units: rows are counted from 0; seconds on the running loop's clock.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from logging import getLogger
from typing import Final, Literal

from sendengine.campaign.books import BOOKS, DAMAGE, LANES, Books, parse_books, parse_lanes, render_books, render_lanes
from sendengine.campaign.handed import HandedRows
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.recorder import Recorder
from sendengine.campaign.rundir import JOURNAL, REQUESTS, RunDir
from sendengine.campaign.runoutbox import RunOutbox
from sendengine.campaign.unbooked import Unbooked, is_known, unbooked
from sendengine.campaign.work import Item
from sendengine.engine.past import Past
from sendengine.errors import StorageError
from sendengine.journal.campaign_ledger import CampaignLedger
from sendengine.journal.connection import Connect, connect_sqlite
from sendengine.journal.frames import Record
from sendengine.journal.store import Collector, Contents, Store
from sendengine.journal.threads import on_a_thread
from sendengine.ports import Part, Recovered
from sendengine.settings import JournalSettings
from sendengine.telemetry.counters import LaneCounters, LaneRecord

_log = getLogger(__name__)
Lanes = Callable[[], Mapping[str, LaneCounters]]
_LANES_EVERY_S: Final = 1.0


async def open_keeping(
    run_dir: RunDir,
    manifest: Manifest,
    *,
    durability: str,
    settings: JournalSettings | None = None,
    connect: Connect = connect_sqlite,
) -> "CampaignKeeping | JobsKeeping":
    """Open a run's journal, made where it is missing; raises StorageError. Its ``journal`` is to be closed."""
    level: Literal["durable", "relaxed"] = "relaxed" if durability == "relaxed" else "durable"
    store = await Store.open(run_dir.path / JOURNAL, durability=level, connect=connect)
    try:
        contents = store.contents()
        if manifest.kind == "campaign":
            campaign = CampaignKeeping(store, contents, manifest)
            campaign.look_for_losses(run_dir)
            return campaign
        keeping = JobsKeeping(store, contents, settings or JournalSettings(), rows=manifest.rows)
        await keeping.refuse_losses(contents.records, run_dir)
    except BaseException:
        await store.aclose()
        raise
    return keeping


class _Bookkeeping:
    """Writes a run's books with what has settled."""

    def __init__(self, store: Store, values: Mapping[str, bytes]) -> None:
        self.is_unreadable = False
        self.earlier = self._read(values.get(BOOKS))
        self.earlier_lanes: Mapping[str, LaneRecord] = parse_lanes(values.get(LANES))
        self.handed = HandedRows() if self.earlier is None else HandedRows(self.earlier.handed, self.earlier.ahead)
        self.joining = set(() if self.earlier is None else self.earlier.joined)  # that have still to join once more
        self._started_at = datetime.now(UTC).isoformat() if self.earlier is None else self.earlier.started_at
        self._store = store
        self._recorder: Recorder | None = None
        self._lanes: Lanes = dict
        self._lanes_at_s = float("-inf")
        self.is_ending = False

    def _read(self, content: bytes | None) -> Books | None:
        try:
            return parse_books(content)
        except StorageError:
            self.is_unreadable = True
            return None

    def open(self, recorder: Recorder, lanes: Lanes) -> None:
        """From now on, write them whenever something settles."""
        self._recorder, self._lanes = recorder, lanes
        self._store.collect(self._collect)

    def _collect(self, collector: Collector) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        writes, sizes = recorder.take()
        for write in writes:
            collector.do(write)
        books = Books(
            started_at=self._started_at,
            counts=recorder.kept_counts(),
            recipients=recorder.recipients,
            sizes=sizes,
            handed=self.handed.upto,
            ahead=self.handed.ahead,
            joined=(*recorder.joined_rows(), *self.joining),
        )
        collector.set_value(BOOKS, render_books(books))
        now_s = asyncio.get_running_loop().time()
        if self.is_ending or now_s >= self._lanes_at_s + _LANES_EVERY_S:  # they are long, and for reports only
            self._lanes_at_s = now_s
            collector.set_value(LANES, render_lanes(self._lanes()))

    def forget(self) -> None:
        """Begin anew: nothing of what the books said is known."""
        self.earlier = None
        self.earlier_lanes = {}

    def end(self) -> None:
        """Write the lanes' counts with every group from now on: each may be the last."""
        self.is_ending = True


class _Kept:
    """What both kinds have in common."""

    def __init__(self, store: Store, contents: Contents) -> None:
        self._store = store
        self._books = _Bookkeeping(store, contents.values)

    @property
    def earlier(self) -> Books | None:
        """The books of earlier processes, None where this is the first."""
        return self._books.earlier

    @property
    def earlier_lanes(self) -> Mapping[str, LaneRecord]:
        """What the lanes of earlier processes have counted."""
        return self._books.earlier_lanes

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at the moment; None where all is well, and where the store is being closed."""
        is_closed = self._books.is_ending and self._store.failure is not None  # if it failed, the run says so itself
        return None if is_closed else self._store.problem

    @property
    def damage(self) -> str | None:
        """Why the run cannot be brought to its end; None usually."""
        return None

    @property
    def left_behind(self) -> str | None:
        """What an earlier process left that the engine does not tell by itself; None where it tells all."""
        return None

    @property
    def is_anew(self) -> bool:
        """Whether what was done is lost, and all of it is done again."""
        return False

    def _unbooked(self, run_dir: RunDir) -> Unbooked:
        """What was accepted behind the books; raises StorageError."""
        size_bytes = 0 if self.earlier is None else self.earlier.sizes.get(REQUESTS, 0)
        return unbooked(run_dir.path / REQUESTS, size_bytes=size_bytes)

    def open(self, recorder: Recorder, lanes: Lanes) -> None:
        """From now on, write the books with whatever has settled."""
        self._books.open(recorder, lanes)

    def end(self) -> None:
        """The run is about to end: whatever is written from now on may be the last."""
        self._books.end()
        self._store.stir()

    async def flush(self) -> None:
        """Return when everything is on disk, the books as they are now. Raises StorageError."""
        await self._store.flush()


class CampaignKeeping(_Kept):
    """`sendengine.campaign.keeping.Keeping` of a campaign."""

    def __init__(self, store: Store, contents: Contents, manifest: Manifest) -> None:
        super().__init__(store, contents)
        self._plan, self._rows = manifest.plan, manifest.rows
        self.journal = CampaignLedger(store, contents)
        if (self._books.earlier is None) != self.journal.is_fresh:  # one of both was damaged, and is gone
            self._books.forget()
            self.journal.begin_anew()

    def look_for_losses(self, run_dir: RunDir) -> None:
        """See whether the journal knows how far the run was, before anything is changed; raises StorageError."""
        more = self._unbooked(run_dir)
        if more.end and not self.journal.may_have_sent(more.end - 1):
            _log.warning(
                "%s has lost what was written into it last: %s tells of rows that it does not know; all is repeated "
                "under its old keys", self._store.path, REQUESTS
            )  # fmt: skip
            self._books.forget()
            self.journal.begin_anew(is_set_back=True)

    @property
    def is_anew(self) -> bool:
        """Whether what was done is lost: it is repeated under its old keys, and what is refused again parted alike."""
        return self.journal.is_anew

    @property
    def left_behind(self) -> str | None:
        """What may have been sent, and what is too late; the rest has settled, or was never begun."""
        rows, pieces = self.journal.unsure(rows=self._rows)
        told = []
        if rows or pieces:
            what = f"{rows:,} rows, and {pieces:,} pieces of refused packs"
            told.append(f"{what}, may have been sent and go again, under their old keys where they have any")
        if self._plan is not None and self._plan.is_overdue(datetime.now(UTC)):
            told.append("its deadline has passed: what was not sent expires")
        return "; ".join(told) or None

    def open(self, recorder: Recorder, lanes: Lanes) -> None:
        """From now on, write the books; and let the journal know which items were certainly not sent."""
        recorder.when_spared = lambda item: self.journal.spare(item.first_row)
        super().open(recorder, lanes)

    @property
    def first_row(self) -> int:
        """Where reading goes on."""
        return self.journal.restart

    def is_done(self, item: Item) -> bool:
        """Whether an earlier process has done with an item."""
        self.journal.expect(item.first_row, item.end, is_boundary=item.is_boundary)
        return self.journal.is_settled(item.first_row, item.end)

    def past_of(self, item: Item) -> Past | None:
        """What an earlier process did of an item that is about to be handed over; None where nothing."""
        begun = self.journal.begun(item.first_row, item.end)
        is_good = self._is_message_good
        if begun is None:
            return Past(is_message_good=True) if is_good else None
        return Past(begun.parts, begun.requests, begun.maybe_sent, self.journal.first_sent_at_s, is_good)

    @property
    def _is_message_good(self) -> bool:
        """Whether earlier processes had it accepted; where each request has data of its own, that says nothing."""
        is_one = self._plan is not None and self._plan.campaign.has_one_message
        return is_one and self.earlier is not None and self.earlier.counts.accepted > 0

    def failed_before(self, item: Item) -> Sequence[tuple[Part, str | None]]:
        """Return what parts of an item came to in earlier processes, each with the key that may have carried it."""
        begun = self.journal.begun(item.first_row, item.end)
        parts = () if begun is None else begun.parts
        return [(part, self.journal.key_of(item.first_row, part)) for part in parts]

    def taken(self, item: Item) -> None:
        """The engine has taken an item: nothing to note, the file has it."""

    def refused(self, item: Item) -> None:
        """The engine has refused an item: it has settled."""
        self.journal.close(item.first_row)


class JobsKeeping(_Kept):
    """`sendengine.campaign.keeping.Keeping` of a jobs file: its jobs are copied into an outbox as they are read."""

    def __init__(self, store: Store, contents: Contents, settings: JournalSettings, *, rows: int) -> None:
        super().__init__(store, contents)
        self._rows = rows
        self.journal = RunOutbox(store, contents, settings, when_recovered=self._recovered, when_accepted=self._handed)
        self._again = set(self._books.joining)
        self._position = min(self._books.handed.upto, *self._again) if self._again else self._books.handed.upto
        self._damage = self._damage_of(contents)

    @property
    def first_row(self) -> int:
        """Where reading goes on: nowhere, where it is not known which rows have been read."""
        return self._position if self._damage is None else self._rows

    @property
    def damage(self) -> str | None:
        """Why the run cannot be brought to its end: a damaged journal does not tell which jobs have settled."""
        return self._damage

    async def refuse_losses(self, records: Sequence[Record], run_dir: RunDir) -> None:
        """See whether the journal knows what was sent, before anything is changed. Raises StorageError where not."""
        if self._damage is not None:
            await self._store.flush()  # so that a later process knows of it, too
            return
        more = self._unbooked(run_dir)
        if more and not await on_a_thread(partial(is_known, more, records)):
            raise StorageError(
                f"{self._store.path} has lost what was written into it last: {REQUESTS} tells of requests that it does "
                "not know, and they would be sent again; nothing was sent now. Put the journal back as it was, or send "
                f"the jobs that have no line in {run_dir.path / REQUESTS}"
            )

    def _damage_of(self, contents: Contents) -> str | None:
        """Say what is damaged, once and for all: a later process would find the rest whole, and read too much."""
        if (known := contents.values.get(DAMAGE)) is not None:
            return known.decode()
        if not contents.damaged and not self._books.is_unreadable:
            return None
        damage = (
            f"{self._store.path} was damaged, and does not tell which rows of the input have been sent: what it still "
            f"holds is sent, and no more is read; compare the input with requests.jsonl. {'; '.join(contents.damaged)}"
        )
        self._store.set_value(DAMAGE, damage.encode())
        return damage

    def open(self, recorder: Recorder, lanes: Lanes) -> None:
        """From now on, write the books; and follow the jobs that the journal gives back."""
        self._recorder = recorder
        super().open(recorder, lanes)

    def is_done(self, item: Item) -> bool:
        """Whether an earlier process has copied a job into the journal."""
        for row in range(self._position, item.first_row):  # those between are left out
            self._books.handed.add(row)
        self._position = item.end
        return item.first_row in self._books.handed and item.first_row not in self._again

    def past_of(self, item: Item) -> Past | None:
        """Nothing: what was begun is in the journal."""
        del item
        return None

    def failed_before(self, item: Item) -> Sequence[tuple[Part, str | None]]:
        """Nothing: what was begun is in the journal."""
        del item
        return ()

    def taken(self, item: Item) -> None:
        """The engine has taken an item; where it joined another, nothing is written of it."""
        if item.first_row not in self.journal.accepting:
            self._handed(item.first_row)

    def refused(self, item: Item) -> None:
        """The engine has refused an item: a later process does not try it again."""
        self._handed(item.first_row)

    def _handed(self, row: int) -> None:
        self._books.handed.add(row)
        self._books.joining.discard(row)
        self._store.stir()

    def _recovered(self, recovered: Recovered) -> None:
        for found in recovered.jobs:
            if found.row is not None:
                self._again.discard(found.row)
                self._handed(found.row)
            ticket = self._recorder.attach(Item(found.job, 1, found.row or 0, (found.row or 0) + 1))
            ticket.parts += [(part, self.journal.key_of(found.id, part)) for part in found.parts]
