"""A journal without a disk that keeps the port's promises on a virtual clock, and forgets what a crash would lose.

What has been flushed stands in a `Disk`, which outlives the journal, as a file outlives its process.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from sendengine import Job, Outcome, StorageError
from sendengine.core.outcomes import Ambiguous, GaveUp
from sendengine.ports import KeyRecall, Part, Portion, Recovered, RecoveredJob, RecoveredRequest, Seal

URGENT_S = 0.005
LAZY_S = 0.25


@dataclass
class Disk:
    """What a crash leaves."""

    jobs: dict[int, RecoveredJob] = field(default_factory=dict)
    requests: dict[int, RecoveredRequest] = field(default_factory=dict)
    kept: list[RecoveredRequest] = field(default_factory=list)
    keys: dict[tuple[str, str], tuple[bytes, int | None, Outcome | None]] = field(default_factory=dict)
    accepted: dict[int, Job] = field(default_factory=dict)
    settled: dict[int, Outcome] = field(default_factory=dict)
    last_id: int = 0


class FakeJournal:
    """`sendengine.ports.Journal`; a flush takes ``fsync_s``. ``fail_with`` breaks the next one for good."""

    def __init__(self, disk: Disk, *, fsync_s: float = 0.002) -> None:
        self.disk = disk
        self.fsync_s = fsync_s
        self.is_dead = False
        self.fail_with: StorageError | None = None
        self.problem: str | None = None
        self.flushes = 0
        self.seals: list[Seal] = []
        self.unsealed: list[tuple[int, bool]] = []
        self._changes: list[tuple[Callable[[], object], Callable[[StorageError | None], None] | None]] = []
        self._accepting: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_flushing = False
        self._failed: StorageError | None = None
        self._when_failed: Callable[[StorageError], None] | None = None
        self._idle = asyncio.Event()

    @property
    def flush_s(self) -> float:
        return self.fsync_s

    @property
    def is_empty(self) -> bool:
        return not (self.disk.jobs or self.disk.requests or self._changes or self._is_flushing)

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        self._when_failed = when_failed
        for number, request in list(self.disk.requests.items()):
            if request.seal.key is None:
                for job, _ in request.seal.members:
                    known = self.disk.jobs.get(job)
                    if known is not None:
                        self.disk.jobs[job] = replace(known, deaths=known.deaths + 1, was_begun=True)
                del self.disk.requests[number]
        return Recovered(tuple(self.disk.jobs.values()), tuple(self.disk.requests.values()))

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
        self._check()
        self.disk.last_id += 1
        number = self.disk.last_id
        accepted_at_s = time.time()

        def write() -> None:
            self.disk.jobs[number] = RecoveredJob(number, job, app, accepted_at_s, row)
            self.disk.accepted[number] = job
            if key is not None:
                self.disk.keys[app, key] = (fingerprint, number, None)

        self._accepting[number] = len(self._changes)
        self._change(write, done, urgent=True)
        return number

    def withdraw(self, job: int) -> bool:
        place = self._accepting.pop(job, None)
        if place is None:
            return False
        self._changes[place] = (lambda: None, None)
        return True

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        self._check()
        await asyncio.sleep(self.fsync_s)
        known = self.disk.keys.get((app, key))
        return None if known is None else KeyRecall(known[0], known[2])

    def must_seal(self, seal: Seal) -> bool:  # noqa: ARG002 - the port's
        return True

    async def seal(self, seal: Seal) -> int:
        self._check()
        self.disk.last_id += 1
        number = self.disk.last_id
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sealed_at_s = time.time()

        def done(error: StorageError | None) -> None:
            if not written.done():
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)

        def write() -> None:
            self.disk.requests[number] = RecoveredRequest(number, seal, sealed_at_s)

        self._change(write, done, urgent=True)
        try:
            await written
        except asyncio.CancelledError:
            self._change(lambda: self.disk.requests.pop(number, None), None, urgent=False)
            raise
        self.seals.append(seal)
        return number

    def unseal(self, request: int, *, maybe_received: bool = False) -> None:
        self._check()
        self.unsealed.append((request, maybe_received))

        def write() -> None:
            gone = self.disk.requests.pop(request, None)
            for job, _ in gone.seal.members if gone is not None and maybe_received else ():
                if job in self.disk.jobs:
                    self.disk.jobs[job] = replace(self.disk.jobs[job], was_begun=True)

        self._change(write, None, urgent=False)

    def settle(self, portions: Sequence[Portion], *, request: int | None) -> None:
        self._check()
        own = list(portions)

        def write() -> None:
            gone = self.disk.requests.pop(request, None) if request is not None else None
            if gone is not None and any(is_uncertain(portion.outcome) for portion in own):
                self.disk.kept.append(gone)
            for portion in own:
                self._settle(portion)

        self._change(write, None, urgent=False)

    async def flush(self) -> None:
        self._check()
        while (self._changes or self._is_flushing) and not self.is_dead:
            self._begin()
            self._idle.clear()
            await self._idle.wait()
        self._check()

    async def aclose(self) -> None:
        if self.problem is not None:  # whoever waits for room on the disk is told that it was not to be
            self._failed = StorageError(self.problem)
            self._tell_who_waits()
        if self._failed is None and not self.is_dead:
            with contextlib.suppress(StorageError):
                await self.flush()
        if self._timer is not None:
            self._timer.cancel()

    def die(self) -> None:
        """The process is killed: nothing more reaches the disk, and nobody is told anything."""
        self.is_dead = True
        self._idle.set()

    def _settle(self, portion: Portion) -> None:
        job = self.disk.jobs.get(portion.job)
        if job is None:
            return
        if not portion.is_last:
            self.disk.jobs[portion.job] = replace(job, parts=(*job.parts, Part(portion.recipients, portion.outcome)))
            return
        del self.disk.jobs[portion.job]
        assert portion.job not in self.disk.settled, "a job settles once"
        self.disk.settled[portion.job] = portion.outcome
        for name, (mark, number, _) in list(self.disk.keys.items()):
            if number == portion.job:
                self.disk.keys[name] = (mark, None, portion.outcome)

    def _change(
        self, write: Callable[[], object], done: Callable[[StorageError | None], None] | None, *, urgent: bool
    ) -> None:
        self._changes.append((write, done))
        if self.is_dead or self._is_flushing:
            return
        loop = asyncio.get_running_loop()
        at_s = loop.time() + (URGENT_S if urgent else LAZY_S)
        if self._timer is not None and self._timer.when() <= at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(at_s, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_flushing or self.is_dead or self.problem is not None or not self._changes:
            return
        self._is_flushing = True
        group, self._changes, self._accepting = self._changes, [], {}
        asyncio.get_running_loop().call_later(self.fsync_s, self._written, group)

    def _written(self, group: list[tuple[Callable[[], object], Callable[[StorageError | None], None] | None]]) -> None:
        if self.is_dead:
            return
        self._is_flushing = False
        self.flushes += 1
        if self.fail_with is not None and self._failed is None:
            self._fail(self.fail_with)
        for write, done in group:
            if self._failed is None:
                write()
            if done is not None:
                done(self._failed)
        if self._failed is not None:
            self._tell_who_waits()
        self._idle.set()
        self._begin()

    def _tell_who_waits(self) -> None:
        waiting, self._changes = self._changes, []
        for _, done in waiting:
            if done is not None:
                done(self._failed)

    def _fail(self, error: StorageError) -> None:
        self._failed = error
        if self._when_failed is not None:
            self._when_failed(error)

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed


def is_uncertain(outcome: Outcome) -> bool:
    """Whether its request is kept whole, because it may have been sent."""
    return isinstance(outcome, Ambiguous) or (isinstance(outcome, GaveUp) and outcome.maybe_sent)
