"""What an earlier process did of a job, and what of it is left to do.

Units: ``_s`` is seconds; ages are the wall clock's.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sendengine.core.jobs import CreateNotification, Job, UpdateUser
from sendengine.core.onesignal import KEY_KEPT_DAYS
from sendengine.core.outcomes import Ambiguous, Expired, GaveUp, Outcome
from sendengine.engine.receipts import Receipt
from sendengine.engine.source import OVERDUE
from sendengine.ports import Part, RecoveredJob, RecoveredRequest

MOST_DEATHS: Final = 5
"""A job that was on the wire when more processes than these died is not tried again: it may be what kills them."""

MOST_SETTLED: Final = 10_000
"""So many receipts of recovered jobs are held after they have settled."""

KEY_AGE_S: Final = (KEY_KEPT_DAYS - 1) * 86_400.0
"""Older keys are not trusted: a day is left for the repeat itself."""

_EVIDENCE: Final = "a process died while it was on the wire"
_PARTED: Final = "an earlier process sent a part of it, and which is not known"


class Past(Struct, frozen=True):
    """What a run knows of a job from an earlier process.

    ``parts`` have settled, ``requests`` were sealed and may have been received. ``maybe_sent`` says, where there are
    neither, that the job as a whole may have been received, ``sent_since_s`` when the run first sent anything (seconds
    since the epoch), None where that is not known. ``is_message_good`` says that the job's message was accepted in
    another request, so that a refused one is parted as that process would have parted it.
    """

    parts: tuple[Part, ...] = ()
    requests: tuple[RecoveredRequest, ...] = ()
    maybe_sent: bool = False
    sent_since_s: float | None = None
    is_message_good: bool = False

    @property
    def is_begun(self) -> bool:
        """Whether anything of the job may have been sent."""
        return bool(self.parts or self.requests or self.maybe_sent)


class RecoveredReceipt(Struct, frozen=True):
    """The receipt of a job that the journal gave back, and the row of the input that it came from."""

    receipt: Receipt
    row: int | None


class RecoveredReceipts:
    """What an earlier process left, in the order in which it was put back.

    Of those that have settled, only the last `MOST_SETTLED` are held: an engine may live for weeks.
    """

    __slots__ = ("_found", "_settled")

    def __init__(self) -> None:
        self._found: dict[Receipt, RecoveredReceipt] = {}
        self._settled: deque[Receipt] = deque()

    def __bool__(self) -> bool:
        return bool(self._found)

    def everything(self) -> Sequence[RecoveredReceipt]:
        """Return them."""
        return tuple(self._found.values())

    def add(self, found: Iterable[RecoveredReceipt]) -> None:
        """More was found; some of it may have settled already."""
        for one in found:
            self._found[one.receipt] = one
            if one.receipt.is_settled:
                self.settled(one.receipt)

    def settled(self, receipt: Receipt) -> None:
        """A job has settled, of those or of others."""
        if receipt in self._found:
            self._settled.append(receipt)
            if len(self._settled) > MOST_SETTLED:
                del self._found[self._settled.popleft()]


class Rest(Struct, frozen=True):
    """What is left of a job: ``job`` is to be sent, None where nothing is; ``ended`` is what the others came to.

    ``may_wait`` says that an attempt of it may still be at work, so that it waits as after a lost reply;
    ``may_go_alone`` that it is the whole of a notification that goes again with its old body and key.
    """

    job: Job | None
    ended: Sequence[Part] = ()
    may_wait: bool = False
    may_go_alone: bool = False


class Ages(Struct, frozen=True):
    """How old a notification may grow in the journal before it is sent; the urgencies apart."""

    high_s: float
    normal_s: float

    def are_over(self, job: Job, *, age_s: float) -> bool:
        """Whether a job has grown too old to be sent."""
        limit_s = self.high_s if job.urgency == "high" else self.normal_s
        return isinstance(job, CreateNotification) and age_s > limit_s


def rest_of(recovered: RecoveredJob, sealed: Sequence[str] | None, *, is_over: bool) -> Rest:
    """Decide what becomes of a recovered job.

    ``sealed`` are its recipients that ride in sealed requests, which go again by themselves; empty where it has such
    a request and its recipients cannot be counted, None where it has none. ``is_over`` where it has grown too old, or
    its deadline passes before anything of it may go.
    """
    job = recovered.job
    if isinstance(job, CreateNotification):
        left = _unsealed(job, recovered.parts, sealed)
        if left is job and recovered.was_begun and recovered.request_key is not None:
            return Rest(job, may_wait=True, may_go_alone=True)
        if left is None or not is_over:
            return Rest(left)
        return Rest(None, (Part(left.to.ids if left.to.is_listed else (), _expired(left)),))
    return _rest_of_update(recovered, job, is_over=is_over)


def stale_outcome(job: Job, ids: tuple[str, ...]) -> Outcome:
    """What a sealed request that has grown too old comes to, for one of its jobs."""
    return GaveUp(
        f"{'high' if job.urgency == 'high' else 'normal'} notifications this old are not repeated after a restart",
        maybe_sent=True,
        not_sent=ids,
    )


def _rest_of_update(recovered: RecoveredJob, job: UpdateUser, *, is_over: bool) -> Rest:
    """Tags and properties may go again; deltas that may have been counted only where their job asks for it."""
    ids = job.user.ids
    if recovered.deaths > MOST_DEATHS and job.idempotency_key is None:
        last = f"{recovered.deaths} processes died while it was on the wire"
        return Rest(None, (Part(ids, GaveUp(last, recovered.deaths, maybe_sent=True, not_sent=ids)),))
    has_parts = bool(recovered.parts)
    if is_over and not (has_parts or recovered.was_begun):
        return Rest(None, (Part(ids, Expired(ids)),))
    is_left = not is_over
    if job.deltas and (has_parts or (recovered.was_begun and job.on_ambiguous == "report")):
        others = replace(job, deltas={}) if is_left and (job.tags or job.properties) else None
        evidence = _EVIDENCE if recovered.was_begun else _PARTED
        return Rest(others, (Part(ids, Ambiguous(evidence, not_sent=ids)),), may_wait=recovered.was_begun)
    if is_left:
        return Rest(job, may_wait=recovered.was_begun)
    return Rest(None, (Part(ids, GaveUp(OVERDUE, maybe_sent=True, not_sent=ids)),))


def _unsealed(
    job: CreateNotification, parts: Sequence[Part], sealed: Sequence[str] | None
) -> CreateNotification | None:
    """The job for those recipients that neither settled nor ride in a sealed request."""
    if not job.to.is_listed:
        return job if sealed is None and not parts else None
    if sealed is None and not parts:
        return job
    gone = Counter(sealed or ())  # a job may name a recipient twice
    for part in parts:
        gone.update(part.recipients)
    left = tuple((Counter(job.to.ids) - gone).elements())
    return replace(job, to=replace(job.to, ids=left)) if left else None


def _expired(job: CreateNotification) -> Expired:
    return Expired(job.to.ids if job.to.is_listed else ())
