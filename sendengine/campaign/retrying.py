"""What a retry of a run sends, from the run's failures and the requests that its journal kept.

What may have been sent goes again whole, with its old body and key, so that OneSignal answers from its memory where
it had arrived. What certainly was not goes as a new job; in a campaign's retry under keys that follow from run and
line, so that the same retry once more changes nothing. Deltas that may have been counted are repeated only where that
is asked for.

Units: instants are seconds since the epoch.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from logging import getLogger
from typing import Final
from uuid import UUID, uuid5

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import replace

from sendengine.campaign.linefiles import checksum
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.rundir import FAILURE_SUMS, FAILURES, RunDir
from sendengine.core.joblines import read_job
from sendengine.core.jobs import CreateNotification, Job, UpdateUser
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.outcomes import is_chosen
from sendengine.core.requests import NotificationRequest
from sendengine.core.wire import canonical, encode
from sendengine.errors import InvalidJobError
from sendengine.journal.records import RequestEntry
from sendengine.ports import Seal

NOT_KEPT: Final = "may have been sent, and the request is not in the journal any more"
DELTAS: Final = "deltas may have been counted; --repeat-deltas repeats them all the same"
OTHER: Final = "failed for another reason than asked for"
RETRIED: Final = "retried before"
DAMAGED: Final = "cannot be read any more"

_log = getLogger(__name__)


class Failure(Struct, frozen=True):
    """A line of ``failures.jsonl``."""

    job: msgspec.Raw
    outcome: str
    reason: str
    maybe_sent: bool
    key: str | None


class Replay(Struct, frozen=True):
    """A request that goes again whole, and the jobs that ride in it, each with its recipients in it.

    ``sealed_at_s`` is when it was sealed: its first attempt, from which on OneSignal knows its key, is no older.
    """

    seal: Seal
    jobs: tuple[Job, ...]
    sealed_at_s: float


class Kept(Struct, frozen=True):
    """What a run's journal has kept: requests by their keys, and how much of the failures it knows, None for all.

    What stands behind that was written by a process that died just then: the run itself sends it again.
    """

    requests: Mapping[str, RequestEntry] = {}
    failures_bytes: int | None = None


class Retry(Struct, frozen=True):
    """What a retry sends: new jobs, and requests again; ``left`` counts the failures that it leaves, by why.

    ``lines`` are those of the failures that it repeats.
    """

    new: tuple[Job, ...]
    replays: tuple[Replay, ...]
    left: Mapping[str, int]
    lines: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many jobs it has."""
        return len(self.new) + sum(len(replay.jobs) for replay in self.replays)

    @property
    def recipients(self) -> int:
        """How many people it is for, as far as they can be counted."""
        jobs = [*self.new, *(job for replay in self.replays for job in replay.jobs)]
        return sum(len(job.to.ids) if isinstance(job, CreateNotification) else 1 for job in jobs)


def plan_retry(
    run_dir: RunDir,
    manifest: Manifest,
    kept: Kept,
    *,
    retried: Collection[int] = (),
    reasons: Sequence[str] = (),
    repeat_deltas: bool = False,
) -> Retry:
    """Decide what becomes of each failure of a run; raises StorageError where they cannot be read.

    ``retried`` are the lines of those that another retry repeats. ``reasons`` choose failures by their outcome, or by a
    part of their reason; none of them chooses all.
    """
    new: list[Job] = []
    left: Counter[str] = Counter()
    lines: list[int] = []
    by_key: dict[str, list[tuple[int, Job]]] = {}
    for number, known in failures_of(run_dir, size_bytes=kept.failures_bytes):
        if known is None:
            left[DAMAGED] += 1
            continue
        failure, job = known
        if number in retried:
            left[RETRIED] += 1
        elif not is_chosen(reasons, outcome=failure.outcome, reason=failure.reason):
            left[OTHER] += 1
        elif failure.maybe_sent and failure.key is not None and isinstance(job, CreateNotification):
            by_key.setdefault(failure.key, []).append((number, job))
        elif failure.maybe_sent and isinstance(job, CreateNotification):
            left[NOT_KEPT] += 1
        elif failure.maybe_sent and isinstance(job, UpdateUser) and job.deltas and not repeat_deltas:
            left[DELTAS] += 1
        else:
            new.append(job if failure.maybe_sent else _anew(job, number, manifest))
            lines.append(number)
    replays: list[Replay] = []
    for key, found in by_key.items():
        replay = _replay(key, _riding([job for _, job in found]), kept.requests.get(key), manifest)
        if replay is None:
            left[NOT_KEPT] += len(found)
        else:
            replays.append(replay)
            lines += [number for number, _ in found]
    return Retry(tuple(new), tuple(replays), left, tuple(sorted(lines)))


def failures_of(run_dir: RunDir, *, size_bytes: int | None = None) -> Iterator[tuple[int, tuple[Failure, Job] | None]]:
    """Read a run's failures, or so much of them, each with its line and its job; None for one that is damaged.

    A flipped byte must not turn a recipient into another: each line's checksum is kept beside the file. Raises
    StorageError where one of them cannot be read.
    """
    path = run_dir.path / FAILURES
    content = run_dir.read(FAILURES) if run_dir.has(FAILURES) else b""
    if size_bytes is not None and len(content) < size_bytes:
        _log.warning("%s: has lost its end, and what stood there is left out; put it back as it was", path)
    sums = frozenset(run_dir.read(FAILURE_SUMS).splitlines()) if run_dir.has(FAILURE_SUMS) else None
    for number, line in enumerate(content[:size_bytes].splitlines(), 1):
        try:
            known = _read(line, sums)
        except (msgspec.MsgspecError, UnicodeDecodeError, InvalidJobError) as error:
            _log.warning("%s: line %d is damaged, and left out: %s", path, number, error)
            yield number, None
        else:
            yield number, known


def _read(line: bytes, sums: AbstractSet[bytes] | None) -> tuple[Failure, Job]:
    """Read a failure and its job. Raises InvalidJobError, or what its decoding raises, where it is damaged."""
    if sums is not None and b"%d" % checksum(line) not in sums:
        raise InvalidJobError("line", f"its checksum is not in {FAILURE_SUMS}")
    failure = msgspec.json.decode(line, type=Failure)
    return failure, read_job(bytes(failure.job))


def seal_of(replay: Replay, *, first: int) -> Seal:
    """The request of a replay; its jobs are known by their numbers, from ``first`` on."""
    members = tuple((number, _recipients(job)) for number, job in enumerate(replay.jobs, first))
    return replace(replay.seal, members=members)


def _anew(job: Job, number: int, manifest: Manifest) -> Job:
    """Return the job as a new one; a campaign's had a key that follows from another content."""
    if manifest.kind != "campaign" or not isinstance(job, CreateNotification):
        return job
    app_id = next(iter(manifest.app_ids.values()))
    key = uuid5(UUID(app_id), orjson.dumps(["retry", manifest.run, number]).decode())
    return replace(job, idempotency_key=str(key))


def _riding(jobs: Sequence[Job]) -> Sequence[Job]:
    """Leave out what joined another job by its caller's key: a request names nobody twice."""
    return tuple({_recipients(job): job for job in jobs}.values())


def _replay(key: str, jobs: Sequence[Job], kept: RequestEntry | None, manifest: Manifest) -> Replay | None:
    """Find the request of a key: in the journal, or made again from a campaign's job, whose key it is."""
    if kept is not None:
        return Replay(kept.seal, tuple(replace(job, idempotency_key=None) for job in jobs), kept.sealed_at_s)
    job = jobs[0]
    if len(jobs) != 1 or not isinstance(job, CreateNotification) or job.idempotency_key != key or job.app is None:
        return None
    app_id = manifest.app_ids.get(job.app)
    if app_id is None:
        return None
    request = NotificationRequest(app_id, key, canonical(job.message), job.to, job.channel)
    lane = f"{job.app}/{EndpointGroup.CREATE_NOTIFICATION.value}"
    seal = Seal(lane, key, None, encode(request), ())
    return Replay(seal, (replace(job, idempotency_key=None),), manifest.oldest_key_s)


def _recipients(job: Job) -> tuple[str, ...]:
    return job.to.ids if isinstance(job, CreateNotification) and job.to.is_listed else ()
