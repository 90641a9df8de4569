"""Makes sense of the records that an earlier process left in an outbox: which of them belong together, and which lie.

Nothing is done here; what is to be done about it is said.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sendengine.journal.frames import Record
from sendengine.journal.records import (
    JOB,
    PART,
    REQUEST,
    JobEntry,
    RequestEntry,
    UnreadableRecordError,
    read_job,
    read_part,
    read_request,
)
from sendengine.ports import Part, Recovered, RecoveredJob, RecoveredRequest

_NAMES: Final[Mapping[int, str]] = {JOB: "a job", REQUEST: "a request", PART: "what came of a part of a job"}


class Recollection(Struct):
    """What was left, by the ids of its records.

    ``died`` are jobs that were on the wire without a key, with one death more now; ``over`` records that say nothing
    any more, ``orphans`` requests whose jobs are lost, ``unreadable`` what cannot be understood, each with what it
    should have been.
    """

    jobs: dict[int, JobEntry]
    requests: dict[int, RequestEntry]
    parts: dict[int, list[tuple[int, Part]]]
    died: set[int]
    over: list[int]
    orphans: dict[int, RequestEntry]
    unreadable: list[tuple[str, Record]]

    def recovered(self, *, may_have_gone: Callable[[int, JobEntry], bool]) -> Recovered:
        """Say what it is that was left; ``may_have_gone`` says so of a job whose request is not written."""
        for job, entry in self.jobs.items():
            if entry.request_key is not None and not entry.is_begun and may_have_gone(job, entry):
                self.jobs[job] = replace(entry, is_begun=True)
        return Recovered(
            tuple(_recovered(job, entry, self.parts.get(job, ())) for job, entry in self.jobs.items()),
            tuple(RecoveredRequest(each, entry.seal, entry.sealed_at_s) for each, entry in self.requests.items()),
        )


def recollect(records: Iterable[Record], *, is_damaged: bool) -> Recollection:
    """Sort out what a store held; ``is_damaged`` where some of it was lost, removals perhaps."""
    found = Recollection({}, {}, {}, set(), [], {}, [])
    for record in records:
        try:
            _read(record, found)
        except UnreadableRecordError as error:
            found.unreadable.append((f"{_NAMES.get(record.kind, 'a record')} ({error})", record))
    for job in [job for job in found.parts if job not in found.jobs]:
        found.over += [record for record, _ in found.parts.pop(job)]
    for request, entry in list(found.requests.items()):
        members = [job for job, _ in entry.seal.members]
        if entry.seal.key is None:
            del found.requests[request]
            found.over.append(request)
            found.died.update(job for job in members if job in found.jobs)
        elif not any(job in found.jobs for job in members):
            found.orphans[request] = found.requests.pop(request)
    for job in found.died:
        found.jobs[job] = replace(found.jobs[job], deaths=found.jobs[job].deaths + 1, is_begun=True)
    if is_damaged:
        _drop_superseded(found)
    return found


def _recovered(job: int, entry: JobEntry, parts: Iterable[tuple[int, Part]]) -> RecoveredJob:
    return RecoveredJob(
        job,
        entry.job,
        entry.app,
        entry.accepted_at_s,
        entry.row,
        tuple(part for _, part in parts),
        entry.deaths,
        entry.is_begun,
        entry.request_key,
    )


def _read(record: Record, found: Recollection) -> None:
    if record.kind == JOB:
        found.jobs[record.id] = read_job(record.payload)
    elif record.kind == REQUEST:
        found.requests[record.id] = read_request(record.payload)
    elif record.kind == PART:
        job, part = read_part(record.payload)
        found.parts.setdefault(job, []).append((record.id, part))
    else:
        raise UnreadableRecordError(f"its kind is {record.kind}")


def _drop_superseded(found: Recollection) -> None:
    """Of requests that carry the same recipient of the same job, only the latest counts: the others were taken back.

    A request is taken back before another is sealed for what it carried; where both are there, a removal was lost.
    """
    carried: set[tuple[int, str | None]] = set()
    for request in sorted(found.requests, reverse=True):
        mine = _carried(found.requests[request])
        if carried.isdisjoint(mine):
            carried |= mine
        else:
            del found.requests[request]
            found.over.append(request)


def _carried(entry: RequestEntry) -> set[tuple[int, str | None]]:
    return {(job, recipient) for job, ids in entry.seal.members for recipient in ids or (None,)}
