"""The journal of jobs that are submitted in code or read from a jobs file: whole jobs, until they have settled.

Units: instants are seconds since the epoch.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import time
from typing import Final, Self

import orjson
from msgspec.structs import replace

from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.onesignal import KEY_KEPT_DAYS
from sendengine.core.outcomes import Accepted, Outcome, Unreachable
from sendengine.errors import StorageError
from sendengine.journal.connection import Connect, Durability, connect_sqlite
from sendengine.journal.frames import Record
from sendengine.journal.group import ArchiveName
from sendengine.journal.keepsakes import Keepsakes, look_for_shares
from sendengine.journal.letters import (
    DEAD,
    KEPT,
    KEY,
    SETTLED,
    DeadLetter,
    KeptRequest,
    dead_letter,
    is_to_be_kept,
    kept_request,
    names_of,
)
from sendengine.journal.lone import LoneRequests
from sendengine.journal.recollection import Recollection, recollect
from sendengine.journal.records import (
    JOB,
    PART,
    REQUEST,
    DeadEntry,
    JobEntry,
    RequestEntry,
    UnreadableRecordError,
    read_key,
    write_dead,
    write_job,
    write_key,
    write_part,
    write_request,
)
from sendengine.journal.store import Contents, Store, WallClock
from sendengine.journal.threads import on_a_thread
from sendengine.journal.wal import lost_log
from sendengine.ports import KeyRecall, Part, Portion, Recovered, Seal
from sendengine.settings import JournalSettings

KEYS_S: Final = KEY_KEPT_DAYS * 86_400.0
"""How long callers' keys are remembered: as long as OneSignal remembers them."""

_HARMLESS: Final = (Accepted, Unreachable)  # what ended so is no dead letter


class Outbox:
    """A `sendengine.ports.LoneJournal` over a store. `settle` and `unseal` do nothing once the disk has failed."""

    def __init__(self, store: Store, contents: Contents, *, settings: JournalSettings, now_s: WallClock = time) -> None:
        """``contents`` are those of the store when it was opened."""
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._contents: Contents | None = contents
        self._settings = settings
        self._now_s = now_s
        self._jobs: dict[int, JobEntry] = {}
        self._requests: dict[int, RequestEntry] = {}
        self._parts: dict[int, list[int]] = {}  # of a job: the records of what came of some of its recipients
        self._kept = Keepsakes()
        self._is_recovered = False  # until then nobody knows what was sent
        self._lone = LoneRequests(store, contents.values, is_damaged=bool(contents.damaged))

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        settings: JournalSettings | None = None,
        connect: Connect = connect_sqlite,
        now_s: WallClock = time,
    ) -> Self:
        """Open the file, as `Store.open` does; ``settings`` say how durable it is and how long it keeps what."""
        settings = settings or JournalSettings()
        durability: Durability = "relaxed" if settings.durability == "relaxed" else "durable"
        lost = await on_a_thread(partial(lost_log, path))
        store = await Store.open(path, durability=durability, connect=connect, now_s=now_s)
        contents = store.contents()
        if lost is not None:
            contents = replace(contents, damaged=(*contents.damaged, lost))
        return cls(store, contents, settings=settings, now_s=now_s)

    def __repr__(self) -> str:
        return f"<Outbox {self._store.path}: {len(self._jobs)} jobs, {len(self._requests)} requests>"

    @property
    def store(self) -> Store:
        """What it writes to."""
        return self._store

    @property
    def is_empty(self) -> bool:
        """Whether it holds no job and no request."""
        return self._store.has_values_alone

    @property
    def problem(self) -> str | None:
        """Why nothing can be accepted at the moment, and how to mend it; None where all is well."""
        return self._store.problem

    @property
    def flush_s(self) -> float:
        """How long a change takes to reach the disk, lately."""
        return self._store.flush_s

    # What an earlier process left

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        """Return what it left, and begin to keep house; called once, before anything else. Raises StorageError.

        What was on the wire without a key when that process died may have been received: its jobs are marked as begun,
        on disk before this returns.
        """
        contents, self._contents = self._contents, None
        if contents is None:
            raise AssertionError("an outbox recovers once")
        self._store.tell_failure(when_failed)
        # On a thread: reading 200,000 jobs takes seconds, in which the host's loop has other work.
        found, left = await on_a_thread(partial(_sort_out, contents, self._lone))
        self._jobs, self._requests = found.jobs, found.requests
        for job, known in found.jobs.items():
            if known.is_begun and known.request_key is not None:
                self._lone.came_back(job)
                if contents.damaged:  # the next look finds the rest whole, and would not know
                    self._rewrite(job, known)
        self._lone.none_behind(self._store.new_ids(0).start)
        self._parts = {job: [record for record, _ in parts] for job, parts in found.parts.items()}
        for shares in await self._store.archived(KEPT, partial(look_for_shares, jobs=frozenset(found.jobs))):
            for job, share in shares:
                self._kept.add(job, share)
        damaged = [*contents.damaged, *(self._store.set_aside(what, record) for what, record in found.unreadable)]
        for request, entry in found.orphans.items():
            name = self._keep(request, entry)
            damaged.append(f"the jobs of a request are lost; it may have been sent, and is kept as {name} for a retry")
        for record in (*found.over, *found.orphans):
            self._store.remove(record)
        for job in found.died:
            self._rewrite(job, found.jobs[job])
        await self._store.flush()
        self._is_recovered = True
        self._keep_house()
        return replace(left, damaged=tuple(damaged))

    def key_of(self, job: int, part: Part) -> str | None:
        """Return the key of the request that may have carried a part of a job; None where it certainly did not."""
        return self._kept.key_of(job, part.recipients)

    # Jobs

    def accept(
        self,
        job: Job,
        *,
        app: str,
        row: int | None = None,
        key: str | None = None,
        fingerprint: bytes = b"",
        done: Callable[[StorageError | None], None],
        request_key: str | None = None,
    ) -> int:
        """Put a job on disk; returns its id at once, and calls ``done`` on the loop when it is there, or failed.

        With ``request_key`` it goes whole and alone, under that key, and nothing else is written before it is sent.
        """
        message = orjson.dumps(job.message) if isinstance(job, CreateNotification) else b""
        entry = JobEntry(job, app, self._now_s(), row, key, fingerprint, 0, False, request_key, message)  # noqa: FBT003 - a record
        if key is None:
            record = self._store.take(JOB, write_job(entry), done)
        else:
            archived = _key_name(app, key), write_key(KeyRecall(fingerprint, None))
            record = self._store.put(JOB, write_job(entry), done=done, archived=archived)
        self._jobs[record] = entry
        return record

    def withdraw(self, job: int) -> bool:
        """Take back an acceptance that is not being written yet; its ``done`` is not called then."""
        if not self._store.withdraw(job):
            return False
        del self._jobs[job]
        return True

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        """Look a caller's key up; one whose record is damaged is not remembered. Raises StorageError."""
        payload = await self._store.find(*_key_name(app, key))
        try:
            return None if payload is None else read_key(payload)
        except UnreadableRecordError:
            return None

    # Requests that are not written

    def may_go(self, job: int) -> bool:
        """Whether a job that was accepted with a ``request_key`` may be sent at once; asked before it is sent."""
        return self._lone.may_go(job, self._jobs[job])

    async def until_it_may_go(self, job: int) -> None:
        """Wait until it may. Raises StorageError; cancelling it costs nothing."""
        await self._lone.until_it_may_go(job, self._jobs[job])

    def spare(self, job: int) -> None:
        """A job that might have gone was not sent after all, and nothing of it ever was."""
        self._lone.over(job)

    def remember(self, seal: Seal) -> int:
        """Return an id for a request that was never written and may have been sent, to be given up with `settle`."""
        (request,) = self._store.new_ids(1)
        ((job, _),) = seal.members
        self._requests[request] = RequestEntry(seal, self._jobs[job].accepted_at_s)  # no younger than its key
        return request

    # Requests

    def must_seal(self, seal: Seal) -> bool:
        """Always: what jobs ride together is nowhere else."""
        del seal
        return True

    async def seal(self, seal: Seal) -> int:
        """Put a request on disk before its first attempt, and return its id. Raises StorageError.

        Cancelling it takes the record back.
        """
        entry = RequestEntry(seal, self._now_s())
        for job, _ in seal.members if seal.key is not None else ():
            known = self._jobs.get(job)
            if known is not None and known.request_key is not None:  # it does not go alone: this takes that's place
                self._rewrite(job, replace(known, request_key=None))
                self._lone.over(job)
        written: asyncio.Future[StorageError | None] = self._loop.create_future()
        record = self._store.take(REQUEST, write_request(entry), written.set_result)
        try:
            error = await written
        except asyncio.CancelledError:
            self._store.remove(record, is_ordered=True)
            raise
        if error is not None:
            raise error
        self._requests[record] = entry
        return record

    def unseal(self, request: int, *, maybe_received: bool = False) -> None:
        """A request is off the wire: on disk no later than the seal of whatever takes its place."""
        entry = self._requests.pop(request, None)
        if entry is None:
            return
        for job, _ in entry.seal.members if maybe_received else ():
            known = self._jobs.get(job)
            if known is not None and not known.is_begun:
                self._rewrite(job, replace(known, is_begun=True))
        self._store.remove(request, is_ordered=True)

    def settle(self, portions: Sequence[Portion], *, request: int | None) -> None:
        """Portions have come to their outcomes, and with them the sealed request that carried them."""
        if request is None and len(portions) == 1 and self._has_settled(portions[0]):
            return
        gone: list[int] = []
        if request is not None and (entry := self._requests.pop(request, None)) is not None:
            gone.append(request)
            if entry.seal.key is not None and is_to_be_kept(portions):
                self._kept.note(self._keep(request, entry), entry.seal, jobs=self._jobs)
        for portion in portions:
            job = portion.job
            if portion.is_last:
                gone.append(job)
                self._settle(job, portion.outcome, gone)
            else:
                part = self._store.put(PART, write_part(job, Part(portion.recipients, portion.outcome)))
                self._parts.setdefault(job, []).append(part)
        self._store.remove(*gone)

    # All of it

    async def flush(self) -> None:
        """Return when everything so far is on disk. Raises StorageError."""
        await self._store.flush()

    async def aclose(self) -> None:
        """Write what waits, and close; never raises StorageError."""
        if self._is_recovered:
            for job in self._lone.out:
                known = self._jobs.get(job)
                if known is not None:
                    self._rewrite(job, replace(known, is_begun=True))
            self._lone.set_back()
        await self._store.aclose()

    # What has ended

    async def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Return the jobs that ended without being accepted, the oldest first. Raises StorageError."""
        return tuple(filter(None, await self._store.archived(DEAD, dead_letter)))

    async def kept_requests(self) -> tuple[KeptRequest, ...]:
        """Return the requests that may have been received and were given up, the oldest first. Raises StorageError."""
        return tuple(filter(None, await self._store.archived(KEPT, kept_request)))

    async def put_back(
        self, jobs: Sequence[JobEntry], *, requests: Sequence[RequestEntry], letters: Iterable[DeadLetter] = ()
    ) -> None:
        """Accept jobs, seal requests, and forget the dead letters that they come from: all of it or, raising, nothing.

        The members of the requests are given by their places in ``jobs``. A request stays as old as it says: OneSignal
        counts from its first attempt. Raises StorageError.
        """
        ids = self._store.new_ids(len(jobs) + len(requests))
        sealed = [_with_ids(request, ids) for request in requests]
        accepted = dict(zip(ids, jobs, strict=False))
        requested = dict(zip(ids[len(jobs) :], sealed, strict=True))
        records = [Record(each, JOB, write_job(entry)) for each, entry in accepted.items()]
        records += [Record(each, REQUEST, write_request(entry)) for each, entry in requested.items()]
        await self._store.put_as_one(records, forgotten=names_of(letters))
        self._jobs |= accepted
        self._requests |= requested

    # How it does that

    def _has_settled(self, portion: Portion) -> bool:
        """Let a job go of which nothing is kept, where it is one: most are."""
        job = portion.job
        entry = self._jobs.get(job)
        if entry is None or entry.key is not None or not portion.is_last or portion.outcome.__class__ is not Accepted:
            return False
        if self._settings.keep_settled_s or self._parts or self._kept:
            return False
        del self._jobs[job]
        if entry.request_key is not None:
            self._lone.over(job)
        self._store.remove(job)
        return True

    def _settle(self, job: int, outcome: Outcome, gone: list[int]) -> None:
        """Archive what has to be remembered of a job, and add its parts to the records that are gone."""
        entry = self._jobs.pop(job, None)
        if self._parts:
            gone += self._parts.pop(job, ())
        kept = self._kept.take(job)
        if entry is None:
            return
        if entry.request_key is not None:
            self._lone.over(job)
        if entry.key is not None:
            self._store.archive(*_key_name(entry.app, entry.key), write_key(KeyRecall(entry.fingerprint, outcome)))
        if not isinstance(outcome, _HARMLESS):
            self._store.archive(DEAD, self._name_of(job), write_dead(DeadEntry(entry, outcome, kept)))
        elif self._settings.keep_settled_s:
            self._store.archive(SETTLED, self._name_of(job), write_dead(DeadEntry(entry, outcome)))

    def _rewrite(self, job: int, entry: JobEntry) -> None:
        self._jobs[job] = entry
        self._store.put(JOB, write_job(entry), record=job, is_ordered=True)

    def _keep(self, request: int, entry: RequestEntry) -> str:
        name = self._name_of(request)
        self._store.archive(KEPT, name, write_request(entry))
        return name

    def _name_of(self, record: int) -> str:
        """Name what is archived, so that no other bears its name even where a damaged file gives ids away again."""
        return f"{round(self._now_s() * 1000)}-{record}"

    def _keep_house(self) -> None:
        keep_s = self._settings.keep_dead_s
        self._store.prune({KEY: KEYS_S, DEAD: keep_s, KEPT: keep_s, SETTLED: self._settings.keep_settled_s})


def _sort_out(contents: Contents, lone: LoneRequests) -> tuple[Recollection, Recovered]:
    found = recollect(contents.records, is_damaged=bool(contents.damaged))
    return found, found.recovered(may_have_gone=lone.may_have_gone)


def _with_ids(request: RequestEntry, ids: Sequence[int]) -> RequestEntry:
    members = tuple([(ids[place], recipients) for place, recipients in request.seal.members])
    return replace(request, seal=replace(request.seal, members=members))


def _key_name(app: str, key: str) -> ArchiveName:
    return KEY, f"{app}/{key}"
