"""Keeps a run's books: what came of every row, in numbers and, line by line, in the run's directory.

It sees every request and every job that settles, as the engine's observer. Lines are rendered on the event loop, some
microseconds each, and written elsewhere: see `sendengine.campaign.linefiles`.

Units: rows are counted from 1 in the files that people read, the first row being that below a header.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import copy
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Final

from msgspec.structs import replace

from sendengine.campaign.books import Books
from sendengine.campaign.linefiles import checksum
from sendengine.campaign.packs import rows_of
from sendengine.campaign.report import JobCounts, RecipientCounts
from sendengine.campaign.rundir import FAILURE_SUMS, FAILURES, INVALID, REQUESTS, UNREACHABLE, RunDir
from sendengine.campaign.tables import Fault
from sendengine.campaign.work import Item, Work
from sendengine.core.joblines import job_fields
from sendengine.core.jobs import CreateNotification, Job, UpdateUser, target_of
from sendengine.core.outcomes import (
    OUTCOME_NAMES,
    Abandoned,
    Accepted,
    Ambiguous,
    Outcome,
    Rejected,
    Unreachable,
    may_have_been_sent,
    reason_of,
)
from sendengine.errors import StorageError
from sendengine.ports import Part, RequestRecord

_ABANDONED: Final = OUTCOME_NAMES[Abandoned]


class Ticket:
    """An item on its way, and the keys of the requests that carried those of its parts that were not accepted."""

    __slots__ = ("item", "parts")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.parts: list[tuple[Part, str | None]] = []


class Recorder:
    """The books of one run. ``counts`` and ``recipients`` are up to date after every call.

    ``earlier`` are the books of the process that this one goes on for; ``first_row`` is where it goes on. Where the run
    ``is_kept`` in a journal, what is abandoned goes on in a later process: it is counted in ``abandoned``, and has
    neither settled nor a line among the failures. ``when_spared`` is told of an item of which nothing was sent.
    """

    def __init__(
        self,
        work: Work,
        run_dir: RunDir,
        *,
        earlier: Books | None = None,
        first_row: int = 0,
        is_kept: bool = False,
        is_durable: bool = False,
    ) -> None:
        self.counts = JobCounts() if earlier is None else copy(earlier.counts)
        self.recipients = RecipientCounts() if earlier is None else copy(earlier.recipients)
        self.abandoned = JobCounts()
        self.when_spared: Callable[[Item], None] | None = None
        self._work = work
        self._is_kept = is_kept
        self._position = 0
        self._tickets: dict[int, Ticket] = {}
        self._by_key: dict[str, Ticket] = {}
        self._joined: dict[int, list[Ticket]] = {}
        self._left_joined: list[int] = []
        sizes = {} if earlier is None else earlier.sizes
        self._files = {
            file: run_dir.lines(file, size_bytes=sizes.get(file, 0), is_durable=is_durable)
            for file in (REQUESTS, FAILURES, FAILURE_SUMS, UNREACHABLE)
        }
        if sizes.get(FAILURES) and FAILURE_SUMS not in sizes:  # of a version that kept none: what is there is believed
            for line in run_dir.read(FAILURES)[: sizes[FAILURES]].splitlines():
                self._files[FAILURE_SUMS].append(checksum(line))
        self.pass_over(first_row)

    # What happens to items

    def begin(self, item: Item) -> Ticket:
        """Enter an item that is about to be handed to the engine, and the rows before it that are left out."""
        self.pass_over(item.end)
        return self.attach(item)

    def attach(self, item: Item) -> Ticket:
        """Enter an item that an earlier process has handed to the engine's journal."""
        ticket = self._tickets[id(item.job)] = Ticket(item)
        if item.job.idempotency_key is not None:
            self._by_key[item.job.idempotency_key] = ticket
        return ticket

    def pass_over(self, end: int) -> None:
        """Count the rows up to ``end`` that are left out; the others are counted as they settle."""
        if self._work.total < self._work.rows and end > self._position:
            left_out = self._work.selection.counts(self._position, end - self._position)
            self.counts.invalid += left_out.invalid
            self.counts.duplicates += left_out.duplicates
            self.counts.excluded += left_out.excluded
        self._position = max(self._position, end)

    def withdraw(self, ticket: Ticket) -> None:
        """Undo `begin`: the item was not handed over, and a later run sends it."""
        self._forget(ticket)

    def refused(self, ticket: Ticket, problem: str) -> None:
        """An item was refused by the engine itself, before anything was sent."""
        self._forget(ticket)
        item = ticket.item
        outcome = Rejected(0, (problem,), attempts=0, not_sent=_ids(item.job))
        self.counts.add(outcome, item.count)
        self._write_failure(ticket, Part(_ids(item.job), outcome), None)

    def taken(self, ticket: Ticket, job: Job, outcome: Outcome | None) -> None:
        """The engine has taken an item; ``job`` is another's that has its key, and the item comes to what that does."""
        if id(ticket.item.job) not in self._tickets:
            return  # it has settled meanwhile, and was counted
        if outcome is not None:  # its key was used before, for the same, and this came of it
            self._forget(ticket)
            parts = (Part(_ids(job), outcome),)
            self._count(ticket.item, outcome, parts)
            self._write_failures(ticket, parts, {})
        elif job is not ticket.item.job:
            self._forget(ticket)
            self._joined.setdefault(id(job), []).append(ticket)

    def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:
        """Count a job, as the engine's observer; others' jobs are passed over."""
        ticket = self._tickets.get(id(job))
        if ticket is None:
            return
        self._forget(ticket)
        parts = parts or (Part(_ids(job), outcome),)
        joined = self._joined.pop(id(job), ())
        for each in (ticket, *joined):
            self._count(each.item, outcome, parts)
        if self._goes_on(outcome, parts):
            self._left_joined += [each.item.first_row for each in joined]
            if self.when_spared is not None and not _was_tried(outcome, parts):
                self.when_spared(ticket.item)
            return
        keys = {id(part): key for part, key in ticket.parts}
        for each in (ticket, *joined):
            self._write_failures(each, parts, keys)

    def request_settled(self, record: RequestRecord) -> None:
        """Write a request's line, as the engine's observer."""
        for job, part in record.parts:
            if not isinstance(part.outcome, Accepted) and (ticket := self._tickets.get(id(job))) is not None:
                ticket.parts.append((part, record.key))
        if self._is_kept and record.outcome == _ABANDONED:
            return  # it goes on, and has its line then
        unsubscribed = [
            item for _, part in record.parts if isinstance(part.outcome, Accepted) for item in part.outcome.unsubscribed
        ]
        line: dict[str, object] = {
            "lane": record.lane,
            "key": record.key,
            "message_id": record.message_id,
            "recipients": record.recipients,
            "rows": self._rows_of(record),
            "outcome": record.outcome,
            "status": record.status,
            "attempts": record.attempts,
            "replayed": record.replayed,
            "cf_ray": record.cf_ray,
            "sealed_at": _moment(record.sealed_at_s),
            "first_sent_at": None if record.first_sent_at_s is None else _moment(record.first_sent_at_s),
            "settled_at": _moment(record.settled_at_s),
        }
        if unsubscribed:
            line["unsubscribed"] = unsubscribed
        self._files[REQUESTS].append(line)

    # Files

    @property
    def has_lines(self) -> bool:
        """Whether lines wait to be written."""
        return any(file.waiting for file in self._files.values())

    def take(self) -> tuple[Sequence[Callable[[], None]], Mapping[str, int]]:
        """Take the lines that wait: what writes them (raising OSError), and how long the files are then."""
        writes = [write for file in self._files.values() if (write := file.take()) is not None]
        return writes, {name: file.size_bytes for name, file in self._files.items()}

    def joined_rows(self) -> tuple[int, ...]:
        """Rows that have joined a job that has not settled: a later process lets them join again, and counts them."""
        return (*self._left_joined, *(each.item.first_row for joined in self._joined.values() for each in joined))

    def kept_counts(self) -> JobCounts:
        """What of the counts a later process goes on from."""
        counts = copy(self.counts)
        counts.invalid = counts.duplicates = counts.excluded = 0
        return counts

    def flush(self) -> None:
        """Write the lines that wait, on any one thread at a time; raises StorageError."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Write what waits, and close the files; raises StorageError."""
        with ExitStack() as files:
            for file in self._files.values():
                files.callback(file.close)

    def discard(self) -> None:
        """Close the files of a run that is given up, as well as the disk lets them be closed."""
        with suppress(StorageError):
            self.close()

    def _forget(self, ticket: Ticket) -> None:
        job = ticket.item.job
        self._tickets.pop(id(job), None)
        if job.idempotency_key is not None:
            self._by_key.pop(job.idempotency_key, None)

    def _goes_on(self, outcome: Outcome, parts: Sequence[Part]) -> bool:
        """Whether a later process goes on with a job."""
        return self._is_kept and any(isinstance(each, Abandoned) for each in (outcome, *(p.outcome for p in parts)))

    def _count(self, item: Item, outcome: Outcome, parts: Sequence[Part]) -> None:
        goes_on = self._goes_on(outcome, parts)
        counts = self.abandoned if goes_on else self.counts
        if self._work.is_campaign:
            for part in parts:
                counts.add(part.outcome, len(part.recipients))
            counts.add(outcome, item.count - sum(len(part.recipients) for part in parts))
        else:
            counts.add(outcome, 1)
        if goes_on:
            return
        job = item.job
        if isinstance(job, CreateNotification):
            self.recipients.targeted += len(job.to.ids) if job.to.is_listed else job.expected_recipients or 0
        for part in parts:
            if isinstance(part.outcome, Accepted):
                self.recipients.unsubscribed += len(part.outcome.unsubscribed)

    def _write_failures(self, ticket: Ticket, parts: Sequence[Part], keys: Mapping[int, str | None]) -> None:
        """Write a line for each part that was not accepted; ``keys`` are of its request, by the part's `id`."""
        for part in parts:
            if not isinstance(part.outcome, Accepted):
                self._write_failure(ticket, part, keys.get(id(part)), is_all=len(parts) == 1)

    def _write_failure(self, ticket: Ticket, part: Part, key: str | None, *, is_all: bool = True) -> None:
        outcome = part.outcome
        job = ticket.item.job if is_all else _share_of(ticket.item.job, outcome)
        line = {
            "job": job_fields(job, only=part.recipients),
            "outcome": OUTCOME_NAMES[type(outcome)],
            "reason": reason_of(outcome),
            "maybe_sent": may_have_been_sent(outcome),
            "key": key,
        }
        if isinstance(outcome, Unreachable):
            self._files[UNREACHABLE].append(line)
        else:
            self._files[FAILURE_SUMS].append(checksum(self._files[FAILURES].append(line)))

    def _rows_of(self, record: RequestRecord) -> list[list[int]]:
        if not record.parts:  # it was split: smaller requests tell what came of its rows
            whole = self._by_key.get(record.key or "")
            return [] if whole is None else _ranges(self._rows(whole.item, ()))
        found = [(self._tickets.get(id(job)), part.recipients) for job, part in record.parts]
        stretches = [self._rows(ticket.item, recipients) for ticket, recipients in found if ticket is not None]
        return _ranges(stretches[0] if len(stretches) == 1 else list(chain.from_iterable(stretches)))

    def _rows(self, item: Item, recipients: Sequence[str]) -> Sequence[int]:
        """Return the rows of some of an item's recipients, or of all of them."""
        if not self._work.is_campaign:
            return (item.first_row,)
        rows = rows_of(self._work.selection, first_row=item.first_row, size=item.end - item.first_row)
        if len(recipients) in {0, item.count}:
            return rows
        by_id = dict(zip(_ids(item.job), rows, strict=True))
        return [by_id[recipient] for recipient in recipients]


def _was_tried(outcome: Outcome, parts: Sequence[Part]) -> bool:
    outcomes = (outcome, *(part.outcome for part in parts))
    return any(not isinstance(each, Abandoned) or each.maybe_sent for each in outcomes)


def _share_of(job: Job, outcome: Outcome) -> Job:
    """What of a user's change came to one of its outcomes: deltas that may have been counted end by themselves."""
    is_change = isinstance(job, UpdateUser) and not isinstance(outcome, Ambiguous)
    return replace(job, deltas={}) if is_change else job


def _ids(job: Job) -> tuple[str, ...]:
    target = target_of(job)
    return target.ids if target.is_listed else ()


def _ranges(rows: Sequence[int]) -> list[list[int]]:
    """Return rows as ranges of first and last, counted from 1."""
    if isinstance(rows, range):
        return [[rows.start + 1, rows.stop]]
    ranges: list[list[int]] = []
    for row in sorted(rows):
        if ranges and ranges[-1][1] == row:
            ranges[-1][1] = row + 1
        else:
            ranges.append([row + 1, row + 1])
    return ranges


def _moment(epoch_s: float) -> str:
    """Return a time as ISO 8601 has it, to the millisecond."""
    milliseconds = int(epoch_s * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}+00:00"


@lru_cache(64)  # thousands of requests settle in the same second
def _second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def write_invalid(run_dir: RunDir, faults: Iterable[Fault]) -> None:
    """List the rows that were left out because something is wrong with them; raises StorageError."""
    lines = run_dir.lines(INVALID)
    for fault in faults:
        lines.append({"line": fault.line, "field": fault.field, "reason": fault.reason})
    lines.close()
