"""The source of a lane of user updates: changes per user, one request a second and one in flight for each.

A user is in one of four states: *ready* (changes wait, nothing is on the wire, its second is over), *busy* (a request
of it is under way, however often it is repeated), *cooling* (its second is not over), or not there at all. Memory is
for those with changes pending or a request within the last second.

Units: seconds on the running loop's clock.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from msgspec import Struct

from sendengine.core.coalescing import ChangeSet, leave_out, take_apart, without_uncertain_deltas
from sendengine.core.jobs import Job, UpdateUser
from sendengine.core.onesignal import USER_INTERVAL_S
from sendengine.core.outcomes import Accepted, Ambiguous, Expired, GaveUp, Outcome, Rejected
from sendengine.core.requests import UserRequest
from sendengine.core.verdicts import Fault, NobodyReached, Refused, Took
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed, Share
from sendengine.engine.source import AT_ONCE, OVERDUE, Resolution, Settled
from sendengine.engine.user import User, UserKey

PAUSE_S: Final = USER_INTERVAL_S + 0.05  # the wire may bring two requests closer together
_SPARE: Final = 100  # deadlines of jobs that wait no more may stay, beside as many as there are of waiting ones
_SHARDS: Final = 64  # a dict that grows past 350,000 entries stops the loop while it is resized

_DIVISIBLE: Final = frozenset({400, 409, 422})  # statuses that one bad value of a merge may have caused


class _Origin(Struct, eq=False):
    """What a sealed request was made of, and what became ambiguous on its way."""

    user: User
    changes: ChangeSet[Receipt]
    ambiguous: list[Settled] = []
    is_spent: bool = False  # everything in it became ambiguous


class UserSource:
    """Coalesces what waits, and paces each user; urgency orders users, never one user's own updates."""

    is_guarded = False
    pause_s = PAUSE_S
    spread = 0
    is_cut_short = False

    def __init__(self, *, app_id: str, max_modifications: int) -> None:
        self._app_id = app_id
        self._max_modifications = max_modifications
        self._users: tuple[dict[UserKey, User], ...] = tuple({} for _ in range(_SHARDS))
        self._high: deque[User] = deque()
        self._normal: deque[User] = deque()
        self._cooling: list[tuple[float, int, User]] = []
        self._deadlines: list[tuple[float, int, Receipt]] = []
        self._count = 0  # of what entered a heap: of equal instants the first goes first, and no users are compared
        self.waiting = 0  # jobs, unsealed

    @property
    def has_high(self) -> bool:
        """Whether a high job could be pulled now."""
        while self._high and not self._high[0].is_ready:
            self._high.popleft().queued_high = False
        return bool(self._high)

    @property
    def oldest_s(self) -> float | None:
        """When the oldest job came, of the users who are first in their lines or within their second."""
        first = (next((user for user in line if user.is_ready), None) for line in (self._high, self._normal))
        waiting = (*first, *(user for _, _, user in self._cooling if user.waits))
        return min((user.since_s for user in waiting if user is not None), default=None)

    def add(
        self,
        receipt: Receipt,
        *,
        content: bytes,  # noqa: ARG002 - the port's
        now_s: float,
        left: Job | None = None,
    ) -> None:
        """Take an admitted job, or what is ``left`` of it; it merges into what waits for its user."""
        job = receipt.job if left is None else left
        if not isinstance(job, UpdateUser):
            raise TypeError(f"a lane of user updates was given {type(job).__name__}")
        user = self._user_of(job)
        self.waiting += 1
        is_first = not user.waits
        user.enter(receipt, job)
        if receipt.deadline_s is not None:
            self._note_deadline(receipt, receipt.deadline_s)
        if job.urgency != "high" and not is_first:
            return  # a user that is ready is in line already
        if is_first:
            user.since_s = now_s
        self._queue(user)

    def restore(
        self,
        receipt: Receipt,
        job: Job,
        *,
        content: bytes,
        now_s: float,
        not_before_s: float | None,
        is_foreign: bool,
    ) -> None:
        """Take what is left of a job, in its turn; where it may have been received, its user waits.

        One of another journal goes alone: a crash could leave it there although what it was merged with, and what came
        after it, had settled, and it would be sent once more, last.
        """
        change = _update(job)
        user = self._user_of(change)
        if not_before_s is not None:
            self._hold(user, until_s=not_before_s)
        if is_foreign:
            user.close()
        self.add(receipt, content=content, now_s=now_s, left=change)
        if is_foreign:
            user.close()

    def vouch(self, job: Job, *, content: bytes) -> None:
        """Pass it over: changes have no message."""

    def _user_of(self, job: UpdateUser) -> User:
        ids = job.user.ids
        key = (job.user.label, ids[0])
        shard = self._users[hash(ids[0]) % _SHARDS]  # a text keeps its hash, a tuple does not
        user = shard.get(key)
        if user is None:
            user = shard[key] = User(key=key, ids=ids, max_modifications=self._max_modifications)
        return user

    def _note_deadline(self, receipt: Receipt, deadline_s: float) -> None:
        self._count += 1
        heappush(self._deadlines, (deadline_s, self._count, receipt))
        if len(self._deadlines) > 2 * self.waiting + _SPARE:
            self._deadlines = [entry for entry in self._deadlines if not (entry[2].is_begun or entry[2].is_settled)]
            heapify(self._deadlines)

    def stop_lingering(self) -> None:
        """Pass it over: changes wait for their user's turn, not for company."""

    def pull(self, *, now_s: float, prefer_normal: bool) -> Sealed | None:
        """Seal the changes of the next user that is ready."""
        if self._deadlines and (self.next_expiry_s() or inf) <= now_s:
            return None  # they go first, or would be sealed, and each take a permit
        if self._cooling:
            self._cool(now_s)
        user = self._next(self._high) if self._high and not prefer_normal else None
        if user is None:
            user = self._next(self._normal)
        if user is None and prefer_normal:
            user = self._next(self._high)
        return None if user is None else self._seal(user, now_s=now_s)

    def _next(self, queue: deque[User]) -> User | None:
        while queue:
            user = queue.popleft()
            if queue is self._high:
                user.queued_high = False
            else:
                user.queued_normal = False
            if user.is_ready:
                return user
        return None

    def next_due_s(self, *, now_s: float) -> float | None:
        """The earliest instant at which `pull` may give something."""
        if self._cooling:
            self._cool(now_s)
        queue = self._normal
        while queue and not queue[0].is_ready:
            queue.popleft().queued_normal = False
        if queue or self.has_high:
            return now_s
        return self._cooling[0][0] if self._cooling else None

    def next_expiry_s(self) -> float | None:
        """No deadline passes before this instant."""
        while self._deadlines and self._deadlines[0][2].is_begun:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, *, now_s: float) -> Sequence[Share]:
        """Remove and return what waits although its deadline has passed; what is begun goes on."""
        expired: dict[Receipt, User] = {}
        while self._deadlines and self._deadlines[0][0] <= now_s and len(expired) < AT_ONCE:
            receipt = heappop(self._deadlines)[2]
            if not receipt.is_begun and not receipt.is_settled:
                user = expired[receipt] = self._user_of(_update(receipt.job))
                user.expire(receipt)
        self.waiting -= len(expired)
        for user in dict.fromkeys(expired.values()):
            if not (user.is_busy or user.held_until_s is not None):
                self._queue_or_forget(user)
        return [(receipt, user.ids) for receipt, user in expired.items()]

    def withdraw_all(self) -> Iterator[Share]:
        """Remove and return everything that waits, each as it is asked for."""
        for shard in self._users:
            for user in tuple(shard.values()):
                members = user.withdraw()
                self.waiting -= len(members)
                for member in members:
                    yield member, user.ids

    def unseal(self, sealed: Sealed, *, now_s: float) -> Resolution:
        """Its deadline has passed for some of its jobs: the others wait again, before everything else of the user.

        Where it may have been received, nothing goes before its repeat would have gone.
        """
        ids = _origin(sealed).user.ids
        outcome = GaveUp(OVERDUE, sealed.attempts, maybe_sent=True, not_sent=ids) if sealed.maybe_sent else Expired(ids)
        return self._part(sealed, lambda receipt: _is_over(receipt, now_s), outcome, now_s=now_s)

    def give_up_high(self, sealed: Sealed, *, last: str, now_s: float) -> Resolution | None:
        """Normal jobs that ride with high ones, or go before one, are tried for longer: they wait again."""
        if all(receipt.is_high for receipt, _ in sealed.shares):
            return None
        outcome = GaveUp(last, sealed.attempts, sealed.maybe_sent, _origin(sealed).user.ids)
        return self._part(sealed, lambda receipt: receipt.is_high, outcome, now_s=now_s)

    def _part(
        self, sealed: Sealed, is_over: Callable[[Receipt], bool], outcome: Outcome, *, now_s: float
    ) -> Resolution:
        """End some of a request's jobs, and let the others wait again."""
        origin = _origin(sealed)
        user = origin.user
        rest, gone = leave_out(origin.changes, is_over, was_sent=sealed.maybe_sent)
        over = {change.member for change in gone}
        self.waiting -= user.drop(over.__contains__)
        if rest is not None:
            self._put_back(user, [rest], sealed)
        self._release(origin, sealed, now_s=now_s)
        ended: list[Settled] = [(receipt, user.ids, outcome) for receipt in over]
        return Resolution([*origin.ambiguous, *ended], is_replaced=rest is not None)

    def took(self, sealed: Sealed, verdict: Took | NobodyReached, *, now_s: float) -> Resolution:  # noqa: ARG002 - the port's
        """Every job that was merged into it is accepted."""
        outcome = Accepted((), len(sealed.shares) - 1, (), False, sealed.attempts)  # noqa: FBT003 - a record
        settled: list[Settled] = [(receipt, ids, outcome) for receipt, ids in sealed.shares]
        return Resolution(self._finish(sealed, settled, now_s=now_s))

    def refused(self, sealed: Sealed, verdict: Refused, *, now_s: float) -> Resolution:
        """Take a refused merge apart: its jobs go one by one, in order, before everything else of the user."""
        origin = _origin(sealed)
        at_tag_cap = verdict.fault is Fault.TAG_CAP
        if verdict.status in _DIVISIBLE and (sets := take_apart(origin.changes, tag_cap=at_tag_cap)):
            self._put_back(origin.user, sets, sealed)
            self._release(origin, sealed, now_s=now_s)
            return Resolution(origin.ambiguous, is_replaced=True)
        outcome = Rejected(verdict.status, verdict.errors, sealed.attempts, origin.user.ids)
        rejected: list[Settled] = [(receipt, ids, outcome) for receipt, ids in sealed.shares]
        return Resolution(self._finish(sealed, rejected, now_s=now_s))

    def ended(self, sealed: Sealed, *, now_s: float) -> Resolution:
        """The user's next request may go when its second is over."""
        return Resolution(self._finish(sealed, [], now_s=now_s))

    def uncertain(self, sealed: Sealed, *, evidence: str) -> Sequence[Settled] | None:
        """Deltas that may have been counted do not go again, unless their job asks for it; all else does."""
        origin = _origin(sealed)
        again, ambiguous = without_uncertain_deltas(origin.changes)
        if not ambiguous:
            return None
        ids = origin.user.ids
        for change in ambiguous:
            if not change.is_last:
                change.member.await_portion()
            origin.ambiguous.append((change.member, ids, Ambiguous(evidence, sealed.attempts, ids)))
        if again is None:
            origin.is_spent = True
            return []
        origin.changes = again
        sealed.shares = [(change.member, ids) for change in again.changes]
        sealed.amend(_request(self._app_id, origin.user, again))
        return None

    def retries_missing(self, sealed: Sealed) -> bool:
        """Whether a job in it wants a 404 repeated."""
        return any(_update(receipt.job).on_missing == "retry" for receipt, _ in sealed.shares)

    def _seal(self, user: User, *, now_s: float) -> Sealed:
        before = user.jobs
        changes, is_high = user.seal()
        self.waiting -= before - user.jobs
        user.is_busy = True
        user.since_s = now_s
        ids, members = user.ids, changes.members
        shares: list[Share] = []
        deadline_s: float | None = None
        for receipt in members:
            receipt.is_begun = True
            shares.append((receipt, ids))
            if receipt.deadline_s is not None and not receipt.parts:
                deadline_s = receipt.deadline_s if deadline_s is None else min(deadline_s, receipt.deadline_s)
        sealed = Sealed.of(
            _request(self._app_id, user, changes),
            shares=shares,
            origin=_Origin(user, changes),
            is_high=is_high,
            deadline_s=deadline_s,
            now_s=now_s,
        )
        sealed.maybe_received_at_s = changes.maybe_received_at_s
        return sealed

    def _finish(self, sealed: Sealed, settled: list[Settled], *, now_s: float) -> list[Settled]:
        """The request is over; a job that goes on in a later one is owed one portion more."""
        origin = _origin(sealed)
        for receipt in () if origin.is_spent else origin.changes.going_on:
            receipt.await_portion()
        self._release(origin, sealed, now_s=now_s)
        return [*origin.ambiguous, *settled] if origin.ambiguous else settled

    def _release(self, origin: _Origin, sealed: Sealed, *, now_s: float) -> None:
        """The request is off the wire: the user's second runs on, and so does its hold."""
        user = origin.user
        user.is_busy = False
        ready_at_s = sealed.sent_at_s + PAUSE_S if sealed.first_sent_at_s is not None else now_s
        ready_at_s = max(ready_at_s, sealed.held_until_s)
        if ready_at_s > now_s:
            self._hold(user, until_s=ready_at_s)
        else:
            self._queue_or_forget(user)

    def _hold(self, user: User, *, until_s: float) -> None:
        """Let nothing of a user go before, nor before an earlier hold ends."""
        if user.held_until_s is None or until_s > user.held_until_s:
            user.held_until_s = until_s
            self._count += 1
            heappush(self._cooling, (until_s, self._count, user))

    def _put_back(self, user: User, sets: Sequence[ChangeSet[Receipt]], sealed: Sealed) -> None:
        self.waiting += user.put_back(sets, maybe_received_at_s=sealed.maybe_received_at_s)

    def _cool(self, now_s: float) -> None:
        while self._cooling and self._cooling[0][0] <= now_s:
            until_s, _, user = heappop(self._cooling)
            if until_s == user.held_until_s:  # else held for longer since
                user.held_until_s = None
                self._queue_or_forget(user)

    def _queue_or_forget(self, user: User) -> None:
        if user.waits:
            self._queue(user)
        else:
            del self._users[hash(user.key[1]) % _SHARDS][user.key]

    def _queue(self, user: User) -> None:
        """Line a user up where it may go now; high and normal lines may both hold it."""
        if not user.is_ready:
            return
        if user.high and not user.queued_high:
            user.queued_high = True
            self._high.append(user)
        elif not user.high and not user.queued_normal:
            user.queued_normal = True
            self._normal.append(user)


def _request(app_id: str, user: User, changes: ChangeSet[Receipt]) -> UserRequest:
    label, user_id = user.key
    whole = changes.whole
    tags: Mapping[str, str] = whole.tags  # type: ignore[assignment]  # a job's are texts
    return UserRequest(app_id, label, user_id, tags, whole.properties, whole.deltas)


def _update(job: Job) -> UpdateUser:
    if not isinstance(job, UpdateUser):
        raise TypeError(f"a lane of user updates was given {type(job).__name__}")
    return job


def _origin(sealed: Sealed) -> _Origin:
    origin = sealed.origin
    if not isinstance(origin, _Origin):
        raise TypeError(f"a lane of user updates sealed {type(origin).__name__}")
    return origin


def _is_over(receipt: Receipt, now_s: float) -> bool:
    """Whether a job's deadline has passed; one of which a part took effect goes on to its end."""
    return receipt.deadline_s is not None and receipt.deadline_s <= now_s and not receipt.parts
