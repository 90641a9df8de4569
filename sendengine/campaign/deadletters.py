"""Dead letters of embedded engines: jobs that ended without being accepted, and how they are put back.

What may have been sent goes again whole, under its old key, and stays a letter where that cannot be done any more; what
of a job was in none of its requests goes as a new job, under a key that follows from the letter, so that putting it
back twice changes nothing.

Units: instants are seconds since the epoch.
"""

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct
from msgspec.structs import replace

from sendengine.core.jobs import CreateNotification, Job, UpdateUser
from sendengine.core.outcomes import Accepted, may_have_been_sent
from sendengine.engine.past import KEY_AGE_S
from sendengine.journal.letters import DeadLetter, KeptRequest
from sendengine.journal.outbox import Outbox
from sendengine.journal.records import JobEntry, RequestEntry
from sendengine.journal.slots import take_lock
from sendengine.settings import JournalSettings

_KEYS: Final = UUID("5e2c1f3a-6b70-4d0e-9f5e-64656164aa01")  # of requeued jobs; any constant does
_BATCH: Final = 200


class Slot(Struct, frozen=True):
    """One journal: its file, and its outbox, None where a live engine holds it."""

    path: Path
    outbox: Outbox | None


class Requeued(Struct, frozen=True):
    """How many letters were put back, and how many were left because their deltas may have been counted.

    ``lost`` are those left because they may have been sent in a request that is not kept any more, or whose key
    OneSignal may have forgotten.
    """

    back: int = 0
    left: int = 0
    lost: int = 0


@asynccontextmanager
async def open_slot(path: Path, settings: JournalSettings) -> AsyncIterator[Slot]:
    """Open a journal that no engine holds; raises StorageError."""
    lock = take_lock(path)
    if lock is None:
        yield Slot(path, None)
        return
    try:
        outbox = await Outbox.open(path, settings=settings)
        try:
            yield Slot(path, outbox)
        finally:
            await outbox.aclose()
    finally:
        os.close(lock)


async def requeue(slot: Slot, letters: Iterable[DeadLetter], *, repeat_deltas: bool) -> Requeued:
    """Put letters back into their journal; the next engine of its state directory sends them. Raises StorageError.

    A letter is there, or what is put back of it, whenever this is interrupted.
    """
    outbox = slot.outbox
    if outbox is None:
        raise AssertionError("a live engine's journal is left alone")
    chosen = list(letters)
    counted = set() if repeat_deltas else {letter.name for letter in chosen if _counts_twice(letter)}
    kept = {request.name: request for request in await outbox.kept_requests()}
    lost = {letter.name for letter in chosen if not _is_repeatable(letter, kept, now_s=time.time())}
    left = counted | lost
    repeated = {letter.name: letter for letter in chosen if letter.name not in left}
    others = [letter for letter in await outbox.dead_letters() if letter.name not in repeated]
    needed = {name for letter in others for name in letter.requests}
    await outbox.recover(when_failed=lambda _: None)
    for batch in _batches(repeated.values()):
        jobs = _Jobs(now_s=time.time())
        requests, carried = _replayed(batch, kept, jobs)
        for letter in batch:
            if (job := _rest(letter, carried.get(letter.name), slot.path)) is not None:
                jobs.add(job, letter)
        gone = [_without(letter, needed) for letter in batch]
        await outbox.put_back(jobs.remembered(), requests=requests, letters=gone)
    await outbox.flush()
    return Requeued(len(repeated), len(counted), len(lost))


def _batches(letters: Iterable[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    """Give letters in the order in which they came, some hundreds at a time; those that share a request together."""
    parts: dict[int, list[DeadLetter]] = {}
    part_of: dict[str, int] = {}
    for number, letter in enumerate(letters):
        first, *others = sorted({part_of[name] for name in letter.requests if name in part_of}) or [number]
        for other in others:
            part_of.update({name: first for each in parts[other] for name in each.requests})
            parts[first] += parts.pop(other)
        parts.setdefault(first, []).append(letter)
        part_of.update(dict.fromkeys(letter.requests, first))
    batch: list[DeadLetter] = []
    for part in parts.values():
        batch += part
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _Jobs:
    """The jobs that are put back together; those that ride in a request are named there by their places."""

    def __init__(self, *, now_s: float) -> None:
        self._entries: list[JobEntry] = []
        self._letters: list[DeadLetter] = []
        self._now_s = now_s

    def add(self, job: Job, letter: DeadLetter) -> int:
        """Add one, and return its place."""
        self._entries.append(JobEntry(job, letter.entry.app, self._now_s))
        self._letters.append(letter)
        return len(self._entries) - 1

    def remembered(self) -> Sequence[JobEntry]:
        """Return them. What comes of one that is all of its letter is remembered by the letter's key, if it has one."""
        counts = Counter(letter.name for letter in self._letters)
        return [
            replace(entry, key=letter.entry.key, fingerprint=letter.entry.fingerprint)
            if letter.entry.key is not None and counts[letter.name] == 1
            else entry
            for entry, letter in zip(self._entries, self._letters, strict=True)
        ]


def _replayed(
    letters: Iterable[DeadLetter], kept: Mapping[str, KeptRequest], jobs: _Jobs
) -> tuple[Sequence[RequestEntry], Mapping[str, set[str]]]:
    """Return kept requests as they were, and which recipients of each letter, by its name, they carry."""
    by_member = {(name, _id_of(letter)): letter for letter in letters for name in letter.requests}
    carried: dict[str, set[str]] = {}
    requests: list[RequestEntry] = []
    for name in dict.fromkeys(name for name, _ in by_member if name in kept):
        request = kept[name]
        members: list[tuple[int, tuple[str, ...]]] = []
        for old, ids in request.seal.members:
            letter = by_member.get((name, old))
            if letter is None:
                continue
            carried.setdefault(letter.name, set()).update(ids)
            job = replace(_only(letter.entry.job, ids), idempotency_key=None)
            members.append((jobs.add(job, letter), ids))
        if members:
            requests.append(RequestEntry(replace(request.seal, members=tuple(members)), request.sealed_at_s))
    return requests, carried


def _rest(letter: DeadLetter, carried: set[str] | None, path: Path) -> Job | None:
    """Return what of a letter is to be sent as a new job; None where nothing is."""
    job = letter.entry.job
    if isinstance(job, UpdateUser):
        return job
    if not job.to.is_listed:
        return None if carried is not None else _keyed(job, letter, path)
    missed = () if isinstance(letter.outcome, Accepted) else letter.outcome.not_sent
    left = tuple(item for item in missed or job.to.ids if not carried or item not in carried)
    return _keyed(_only(job, left), letter, path) if left else None


def _keyed(job: CreateNotification, letter: DeadLetter, path: Path) -> CreateNotification:
    if job.idempotency_key is not None:
        return job
    return replace(job, idempotency_key=str(uuid5(_KEYS, f"{path.name} {letter.name}")))


def _only(job: Job, ids: tuple[str, ...]) -> CreateNotification:
    """Return a notification for these of its recipients; with others left out, its key would meet another body."""
    match job:
        case UpdateUser():
            raise AssertionError("only notifications have several recipients")
        case CreateNotification() if not job.to.is_listed or ids == job.to.ids:
            return job
    return replace(job, to=replace(job.to, ids=ids), idempotency_key=None)


def _counts_twice(letter: DeadLetter) -> bool:
    job = letter.entry.job
    return isinstance(job, UpdateUser) and bool(job.deltas) and may_have_been_sent(letter.outcome)


def _is_repeatable(letter: DeadLetter, kept: Mapping[str, KeptRequest], *, now_s: float) -> bool:
    """Whether what may have been sent of a notification can go again under a key that OneSignal remembers."""
    if isinstance(letter.entry.job, UpdateUser):
        return True
    if not letter.requests:
        return not may_have_been_sent(letter.outcome)
    return all(name in kept and now_s - kept[name].sealed_at_s <= KEY_AGE_S for name in letter.requests)


def _without(letter: DeadLetter, needed: Collection[str]) -> DeadLetter:
    """Name only those of its requests that no other letter needs."""
    return replace(letter, requests=tuple(name for name in letter.requests if name not in needed))


def _id_of(letter: DeadLetter) -> int:
    """The id that a letter's job had in its journal: the end of the letter's name."""
    return int(letter.name.rpartition("-")[2])
