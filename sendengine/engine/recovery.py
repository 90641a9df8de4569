"""Puts what an earlier process left back where it was: jobs into their lanes, sealed requests behind their wait.

Sealed requests go again whole, with their old body and key. What may have been on the wire when that process died
counts as a lost reply from now on. User updates keep the order in which they were accepted, and one that was on the
wire goes alone from then on, so that only its own attempts tell whether it is what kills processes.

It is done in small steps, because hundreds of thousands of jobs take seconds. The engine takes nothing new meanwhile,
but what is back in its place is sent.

Units: seconds on the running loop's clock; records carry seconds since the epoch.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from heapq import merge
from typing import Final, TypeAlias

from msgspec import Struct

from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.outcomes import OUTCOME_NAMES
from sendengine.engine import endings
from sendengine.engine.admission import first_outside, render
from sendengine.engine.app import App
from sendengine.engine.events import announce
from sendengine.engine.interrupted import OnTheWay, Work
from sendengine.engine.lane import Lane
from sendengine.engine.past import KEY_AGE_S, Ages, Past, RecoveredReceipt, Rest, rest_of, stale_outcome
from sendengine.engine.recalled import receipt_of, sealed_of
from sendengine.engine.receipts import Receipt
from sendengine.engine.recounted import COUNTED_S, recounted
from sendengine.engine.sealed import Sealed
from sendengine.ports import Journal, LoneJournal, Recovered, RecoveredJob, RecoveredRequest

_SLICE: Final = 32  # jobs between two turns of the loop: about half a millisecond of work
_SEALED_WORK: Final = 8  # a sealed request is as much work as so many jobs, and
_MEMBERS_OF_A_JOB: Final = 16  # so many of its members as another


_Later: TypeAlias = Callable[[Callable[[], None]], object]
"""Does something when whoever opened the engine has had a chance to look."""


class Found(Struct):
    """What journals gave back, counted for the line that says so at the start."""

    jobs: int = 0
    requests: int = 0
    waiting: int = 0
    unknown: int = 0
    left: int = 0
    ended: dict[str, int] = {}


class Recovery:
    """Restores an engine's lanes from its journals, before anything new is taken.

    ``lane_of`` finds a job's lane by the name of its app, None where that is no longer configured; ``readmit`` gives
    a restored job its room and its key.
    """

    def __init__(
        self,
        *,
        lanes: Mapping[str, Lane],
        lane_of: Callable[[Job, str], Lane | None],
        readmit: Callable[[Job, Receipt, Lane], None],
        ages: Ages,
    ) -> None:
        self.receipts: list[RecoveredReceipt] = []
        self._found = Found()
        self._damaged: list[str] = []
        self._lanes = lanes
        self._lane_of = lane_of
        self._readmit = readmit
        self._ages = ages
        self._on_the_way = OnTheWay()
        self._again: deque[tuple[Lane, Sealed]] = deque()  # sealed requests; lined up when all of their jobs are back
        self._ends: Work = deque()

    async def put_back(self, found: Sequence[tuple[Journal, Recovered]], *, own: Journal | None) -> None:
        """Put back what the journals held; all but ``own`` are other engines', whose jobs share no keyed request.

        Jobs of several journals go back in the order of their acceptance, as far as each journal's own order allows.
        What ends here is booked when all are back, so that whoever opened the engine can attach itself first.
        Cancelling it leaves the rest on disk: what of it has a receipt already settles as abandoned.
        """
        try:
            for _ in self._steps(found, own=own):
                await asyncio.sleep(0)
        except (asyncio.CancelledError, Exception):
            self._found.jobs, self._found.left = len(self.receipts), len(self._on_the_way)
            self._found.requests -= len(self._again)
            self._on_the_way.abandon(found, sealed=self._again, ends=self._ends)
            raise

    def _steps(self, found: Sequence[tuple[Journal, Recovered]], *, own: Journal | None) -> Generator[None]:
        loop = asyncio.get_running_loop()
        now_s, epoch_s = loop.time(), time.time()
        waiting: list[Sequence[_Returning]] = []
        for journal, recovered in found:
            opening = self._open(journal, recovered, is_foreign=journal is not own, now_s=now_s, epoch_s=epoch_s)
            waiting.append((yield from opening))
        for number, one in enumerate(merge(*waiting, key=lambda one: one.recovered.accepted_at_s), 1):
            self.receipts.append(RecoveredReceipt(one.receipt, one.recovered.row))
            self._count(one)
            _put_back(one, now_s=now_s, later=self._ends.append)
            self._on_the_way.arrived(one.receipt)
            if not number % _SLICE:
                yield
        yield from self._resend_all()
        self._found.jobs = len(self.receipts)
        _do_in_slices(self._ends)

    def announce(self) -> None:
        """Say what was found; nothing where there was nothing."""
        found = self._found
        for damage in self._damaged:
            announce("journal_damaged", f"set aside: {damage}", level=logging.ERROR, damage=damage)
        if not (found.jobs or found.unknown or found.left):
            return
        ended = "".join(f", {count} {name.replace('_', ' ')}" for name, count in sorted(found.ended.items()))
        others = f"; {found.unknown} wait for an app that is not configured" if found.unknown else ""
        others += f"; {found.left} stay on disk for a later process" if found.left else ""
        announce(
            "recovered",
            f"recovered {found.jobs} jobs of an earlier process: {found.requests} sealed requests go again, "
            f"{found.waiting} jobs wait{ended}{others}",
            jobs=found.jobs,
            requests=found.requests,
            waiting=found.waiting,
            unknown=found.unknown,
            damaged=len(self._damaged),
            **({"left": found.left} if found.left else {}),
            **found.ended,
        )

    def _open(
        self,
        journal: Journal,
        recovered: Recovered,
        *,
        is_foreign: bool,
        now_s: float,
        epoch_s: float,
    ) -> Generator[None, None, Sequence["_Returning"]]:
        """Make the receipts of one journal's jobs; returns what is to be put back."""
        self._damaged += recovered.damaged
        lone = journal if isinstance(journal, LoneJournal) else None
        places: dict[int, tuple[Lane, Receipt, bytes]] = {}
        accepted_at_s: dict[int, float] = {}
        for number, job in enumerate(recovered.jobs, 1):
            if not number % _SLICE:
                yield
            lane = self._lane_of(job.job, job.app)
            if lane is None:
                self._found.unknown += 1
                continue
            content = render(job.job)
            age_s = max(0.0, epoch_s - job.accepted_at_s)
            receipt = receipt_of(job, journal, content=content, now_s=now_s, age_s=age_s)
            if lone is not None and job.request_key is not None:
                receipt.alone = lone, job.request_key
            places[job.id] = lane, receipt, content
            accepted_at_s[job.id] = job.accepted_at_s
            self._readmit(job.job, receipt, lane)
            lane.books.unsettled += 1
            self._on_the_way.add(receipt, job, lane=lane)
        receipts = {number: receipt for number, (_, receipt, _) in places.items()}
        riding = yield from self._recall(
            journal, recovered.requests, receipts, accepted_at_s, now_s=now_s, epoch_s=epoch_s
        )
        returning: list[_Returning] = []
        for number, job in enumerate(recovered.jobs, 1):
            if not number % _SLICE:
                yield
            if job.id in places:
                lane, receipt, content = places[job.id]
                is_too_old = self._ages.are_over(job.job, age_s=epoch_s - job.accepted_at_s)
                is_over = is_too_old or _is_overdue(lane, receipt, may_wait=job.was_begun, now_s=now_s)
                if not is_over:
                    _keep_inside(lane.app, job.job)
                rest = rest_of(job, riding.get(job.id), is_over=is_over)
                if rest.job is not job.job:
                    receipt.alone = None  # what is left of it has another body
                is_stale = rest.may_go_alone and (is_too_old or epoch_s - job.accepted_at_s > KEY_AGE_S)
                is_counted = not rest.may_go_alone  # whether that request was sealed, and counted, is not known
                one = _Returning(lane, receipt, job, rest, content, is_foreign, is_counted, is_stale)
                returning.append(one)
        return returning

    def _recall(
        self,
        journal: Journal,
        requests: Sequence[RecoveredRequest],
        receipts: Mapping[int, Receipt],
        accepted_at_s: Mapping[int, float],
        *,
        now_s: float,
        epoch_s: float,
    ) -> Generator[None, None, Mapping[int, list[str]]]:
        """Take the sealed requests; returns which recipients of each job ride in them."""
        riding: dict[int, list[str]] = {}
        work = 0
        for request in requests:
            work += _SEALED_WORK + len(request.seal.members) // _MEMBERS_OF_A_JOB
            if work >= _SLICE:
                yield
                work = 0
            shares = [(receipts[job], ids) for job, ids in request.seal.members if job in receipts]
            lane = self._lanes.get(request.seal.lane)
            if lane is None or not shares:
                continue
            for job, ids in request.seal.members:
                riding.setdefault(job, []).extend(ids)
                if job in receipts and accepted_at_s[job] > request.sealed_at_s:
                    _defer_deadline(lane, receipts[job])
            sealed = sealed_of(request, shares, app_id=lane.app.settings.app_id, home=journal, now_s=now_s)
            age_s = epoch_s - request.sealed_at_s
            since_s = [accepted_at_s[job] for job, _ in request.seal.members if job in receipts]
            waited_s = min(age_s, epoch_s - max(since_s))  # one that was put back waits since then
            is_over = all(self._ages.are_over(receipt.job, age_s=waited_s) for receipt, _ in shares)
            if is_over or age_s > KEY_AGE_S:  # whatever the settings say: OneSignal may have forgotten its key
                self._ends.append(partial(_end_stale, lane, sealed))
                self._found.ended["gave_up"] = self._found.ended.get("gave_up", 0) + len(shares)
                continue
            self._found.requests += 1
            if age_s > COUNTED_S:
                sealed = recounted(sealed, now_s=now_s)
            self._again.append((lane, sealed))
        return riding

    def _resend_all(self) -> Generator[None]:
        now_s = asyncio.get_running_loop().time()
        while self._again:
            for _ in range(min(_SLICE, len(self._again))):
                lane, sealed = self._again.popleft()
                _resend(lane, sealed, now_s=now_s, later=self._ends.append)
            yield

    def _count(self, one: "_Returning") -> None:
        rest, found = one.rest, self._found
        found.requests += rest.may_go_alone and not one.is_stale
        found.waiting += rest.job is not None and not rest.may_go_alone
        names = ["gave_up"] if one.is_stale else [OUTCOME_NAMES[type(part.outcome)] for part in rest.ended]
        for name in names:
            found.ended[name] = found.ended.get(name, 0) + 1


def readmit_row(lane: Lane, receipt: Receipt, past: Past, *, content: bytes, now_s: float) -> None:
    """Take a job of which an earlier process of the same run may have done something."""
    home = receipt.home
    job = receipt.job
    later = asyncio.get_running_loop().call_soon
    lane.books.unsettled += 1
    if past.is_message_good:
        lane.source.vouch(job, content=content)
    riding: list[str] | None = None
    epoch_s = time.time()
    for request in past.requests:
        ids = tuple([item for _, part in request.seal.members for item in part])
        riding = [*(riding or ()), *ids]
        sealed = sealed_of(request, [(receipt, ids)], app_id=lane.app.settings.app_id, home=home, now_s=now_s)
        if epoch_s - request.sealed_at_s > COUNTED_S:
            sealed = recounted(sealed, now_s=now_s)
        _resend(lane, sealed, now_s=now_s, later=later)
    recovered = RecoveredJob(receipt.record, job, lane.app.name, 0.0, parts=past.parts, was_begun=past.maybe_sent)
    is_update = not isinstance(job, CreateNotification)
    is_over = is_update and _is_overdue(lane, receipt, may_wait=past.maybe_sent, now_s=now_s)
    rest = rest_of(recovered, riding, is_over=is_over)
    if past.maybe_sent and not is_update:
        rest = Rest(rest.job, rest.ended, may_wait=True)
    is_counted = past.sent_since_s is not None and epoch_s - past.sent_since_s <= COUNTED_S
    _put_back(_Returning(lane, receipt, recovered, rest, content, is_counted=is_counted), now_s=now_s, later=later)


class _Returning(Struct, frozen=True):
    """A job on its way back into its lane: what is known of it, what is left of it, and what was rendered of it."""

    lane: Lane
    receipt: Receipt
    recovered: RecoveredJob
    rest: Rest
    content: bytes
    is_foreign: bool = False
    is_counted: bool = True
    is_stale: bool = False  # too old to be repeated


def _put_back(one: _Returning, *, now_s: float, later: _Later) -> None:
    """Book what had settled, give the lane what is left, and book ``later`` what ends here."""
    lane, receipt, rest, parts = one.lane, one.receipt, one.rest, one.recovered.parts
    if isinstance(receipt.job, CreateNotification):
        for part in parts:
            receipt.book(part)
    elif parts or rest.may_wait:
        receipt.deadline_s = None  # what may have taken effect goes on to its end
    if rest.job is not None:
        if rest.ended:
            receipt.await_portion()
        sealed = lane.source.restore(
            receipt,
            rest.job,
            content=one.content,
            now_s=now_s,
            not_before_s=_goes_at_s(lane, receipt, now_s=now_s) if rest.may_wait else None,
            is_foreign=one.is_foreign or rest.may_wait,
        )
        if sealed is not None and one.is_stale:
            later(partial(_end_stale, lane, sealed))
        elif sealed is not None:
            _resend(
                lane,
                sealed if one.is_counted else recounted(sealed, now_s=now_s),
                now_s=now_s,
                later=later,
            )
        lane.added(receipt, now_s=now_s)
    if rest.ended:
        settled = [(receipt, part.recipients, part.outcome) for part in rest.ended]
        later(partial(lane.books.book, settled))
    elif rest.job is None and receipt.is_complete:
        later(partial(lane.books.book, [(receipt, (), parts[-1].outcome)]))


def _goes_at_s(lane: Lane, receipt: Receipt, *, now_s: float) -> float:
    """When what may have been received goes again: as after a lost reply."""
    return now_s + lane.retries.wait_after_restart_s(high=receipt.is_high)


def _keep_inside(app: App, job: Job) -> None:
    """Hold an app whose fence is narrower than it was: what was accepted outside of it must not go, nor be lost."""
    only_to = app.settings.only_to
    who = first_outside(job, only_to) if only_to else None
    if who is not None:
        app.fence(
            f"jobs that were accepted earlier are for {who!r}, and perhaps others, outside of its only_to; they stay "
            "on disk until it starts with an only_to that lets them through, or resume_app sends them all the same"
        )


def _defer_deadline(lane: Lane, receipt: Receipt) -> None:
    """A job that was put back with a request from before has to wait with it first, and has all of its time then."""
    if receipt.deadline_s is not None and receipt.job.expires_in_s is not None:
        receipt.deadline_s = _goes_at_s(lane, receipt, now_s=receipt.deadline_s)


def _is_overdue(lane: Lane, receipt: Receipt, *, may_wait: bool, now_s: float) -> bool:
    """Whether a job's deadline passes before anything of it may go."""
    goes_at_s = _goes_at_s(lane, receipt, now_s=now_s) if may_wait else now_s
    return receipt.deadline_s is not None and receipt.deadline_s <= goes_at_s


def _resend(lane: Lane, sealed: Sealed, *, now_s: float, later: _Later) -> None:
    """Send it again as after a lost reply: the earlier attempt may still be at work."""
    if sealed.deadline_s is not None and sealed.deadline_s <= now_s:
        later(partial(_end_overdue, lane, sealed))
        return
    lane.again(sealed, at_s=now_s + lane.retries.wait_after_restart_s(high=sealed.is_high))


def _end_overdue(lane: Lane, sealed: Sealed) -> None:
    endings.expired(lane, sealed, now_s=asyncio.get_running_loop().time())


def _end_stale(lane: Lane, sealed: Sealed) -> None:
    settled = [(receipt, ids, stale_outcome(receipt.job, ids)) for receipt, ids in sealed.shares]
    endings.end(lane, sealed, settled, now_s=asyncio.get_running_loop().time())


def _do_in_slices(work: Work) -> None:
    """Do it from the loop's next turn on, a part in each."""

    def do_some() -> None:
        for _ in range(min(_SLICE, len(work))):
            work.popleft()()
        _do_in_slices(work)

    if work:
        asyncio.get_running_loop().call_soon(do_some)
