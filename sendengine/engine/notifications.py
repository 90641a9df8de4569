"""The source of a lane of notifications: jobs into packs, refused packs into smaller ones.

Units: seconds on the running loop's clock.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from sendengine.core.drafts import Pack, PackKey
from sendengine.core.drafts import Share as PackShare
from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.onesignal import TTL_MAX_S
from sendengine.core.outcomes import Accepted, Expired
from sendengine.core.packing import Packer
from sendengine.core.requests import NotificationRequest
from sendengine.core.splitting import Dissection, Piece, Trial, dissect
from sendengine.core.targets import Target
from sendengine.core.verdicts import Fault, NobodyReached, Refused, Took
from sendengine.engine.guard import Guard
from sendengine.engine.keys import chance_of, portion_key, wire_key
from sendengine.engine.messages import Messages, subject_of, subject_of_group
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed, Share
from sendengine.engine.settling import accepted, rejected, unreachable
from sendengine.engine.source import AT_ONCE, Resolution, Settled

_CERTAIN: Final = 100  # recipients of a pack whose trial failed: with fewer, the bad ones may just have come together


class NotificationSource:
    """Packs jobs, seals packs when they are pulled, and takes refused packs apart.

    ``new_key`` makes idempotency keys, ``chance`` numbers in [0, 1); ``book`` settles what needs no request.
    """

    is_guarded = True
    pause_s = 0.0

    def __init__(
        self,
        *,
        app_id: str,
        deliveries_per_recipient: float,
        recipients_per_request: int,
        packer: Packer[Receipt],
        guard: Guard,
        new_key: Callable[[], str],
        chance: Callable[[], float],
        book: Callable[[Sequence[Settled]], None],
    ) -> None:
        self._app_id = app_id
        self._deliveries_per_recipient = deliveries_per_recipient
        self._recipients_per_request = recipients_per_request
        self._packer = packer
        self._guard = guard
        self._new_key = new_key
        self._chance = chance
        self._book = book
        self._trials: set[Trial[Receipt]] = set()
        self._messages = Messages()
        self.is_cut_short = False

    @property
    def has_high(self) -> bool:
        """Whether a high job could be pulled now."""
        return self._packer.has_high

    @property
    def oldest_s(self) -> float | None:
        """When the pack that waits longest was opened."""
        return self._packer.oldest_s()

    @property
    def waiting(self) -> int:
        """How many jobs wait unsealed."""
        return self._packer.members

    @property
    def spread(self) -> int:
        """How many more requests than jobs that may come to, since large jobs are cut over several."""
        return self._packer.recipients // self._recipients_per_request

    def add(
        self,
        receipt: Receipt,
        *,
        content: bytes,
        now_s: float,
        left: CreateNotification | None = None,
        is_foreign: bool = False,
    ) -> None:
        """Take an admitted job, or what is ``left`` of it; one that ``is_foreign`` goes alone."""
        job = receipt.job if left is None else left
        if not isinstance(job, CreateNotification):
            raise TypeError(f"a lane of notifications was given {type(job).__name__}")
        to = job.to
        is_listed = to.is_listed
        is_high = job.urgency == "high"
        self._packer.add(
            receipt,
            group=_group_of(job, content, receipt.deadline_s),
            ids=to.ids if is_listed else (),
            alone=(
                job.pack is False
                or (is_high and not job.pack)
                or job.idempotency_key is not None
                or is_foreign
                or not is_listed
            ),
            high=is_high,
            deadline_s=receipt.deadline_s,
            now_s=now_s,
            distinct=to.are_distinct,
            text_bytes=to.text_bytes,
        )

    def restore(
        self,
        receipt: Receipt,
        job: Job,
        *,
        content: bytes,
        now_s: float,
        not_before_s: float | None,
        is_foreign: bool,
    ) -> Sealed | None:
        """Take what is left of a job; where it may have been received, it is sealed as it was then."""
        left = _notification(job)
        if any(isinstance(part.outcome, Accepted) for part in receipt.parts):
            self.vouch(left, content=content)
        if not_before_s is None:
            self.add(receipt, content=content, now_s=now_s, left=left, is_foreign=is_foreign)
            return None
        ids = left.to.ids if left.to.is_listed else ()
        group = _group_of(left, content, receipt.deadline_s)
        pack = Pack(group, (PackShare(receipt, ids),), ids, receipt.deadline_s, receipt.is_high)
        sealed = self._seal(pack, [(receipt, ids)], now_s=now_s)
        sealed.is_counted = True
        sealed.maybe_received_at_s = sealed.sent_at_s = now_s
        return sealed

    def vouch(self, job: Job, *, content: bytes) -> None:
        """An earlier process had the message of a job accepted."""
        self._messages.accept(subject_of_group(_group_of(_notification(job), content, None)))

    def stop_lingering(self) -> None:
        """Let no pack wait for company any more."""
        self._packer.stop_lingering()

    def pull(self, *, now_s: float, prefer_normal: bool) -> Sealed | None:
        """Seal the next pack that may go now; what cannot be taken is refused unsent, a part each time."""
        messages, refused = self._messages, 0
        while refused < AT_ONCE and (pack := self._packer.take(now_s=now_s, prefer_normal=prefer_normal)):
            shares = _plain(pack.shares)
            fault = messages.fault(subject_of_group(pack.group), now_s=now_s) if messages.has_faulty else None
            if fault is None:
                sealed = self._seal(pack, shares, now_s=now_s)
                limit = self._guard.limit
                if limit is None or not sealed.weight or sealed.weight <= limit:
                    self.is_cut_short = False
                    return sealed
            self._book([rejected(share, fault or _NEVER_FITS, attempts=0) for share in shares])
            refused += len(shares)
        self.is_cut_short = refused >= AT_ONCE
        return None

    def next_due_s(self, *, now_s: float) -> float | None:  # noqa: ARG002 - the port's; packs need no clock
        """The earliest instant at which `pull` may give something."""
        return self._packer.next_due_s()

    def next_expiry_s(self) -> float | None:
        """No deadline passes before this instant."""
        return self._packer.next_expiry_s()

    def expire(self, *, now_s: float) -> Sequence[Share]:
        """Remove and return what waits although its deadline has passed."""
        return _plain(self._packer.expire(now_s))

    def withdraw_all(self) -> Iterator[Share]:
        """Remove and return everything that waits, each as it is asked for."""
        trials, self._trials = self._trials, set()
        for shares in (*[trial.rest for trial in trials], self._packer.drain_all()):
            yield from ((share.member, share.ids) for share in shares)

    def unseal(self, sealed: Sealed, *, now_s: float) -> Resolution:
        """Its deadline has passed for some of its jobs: the others go on under a new key, since none was used yet."""
        expired: list[Settled] = []
        alive: list[Share] = []
        for receipt, ids in sealed.shares:
            if receipt.deadline_s is not None and receipt.deadline_s <= now_s:
                expired.append((receipt, ids, Expired(ids)))
            else:
                alive.append((receipt, ids))
        decided = self._resolution(sealed, expired, self._settle_trial(sealed, was_refused=None), now_s=now_s)
        again = [self._reseal(sealed, alive, now_s=now_s)] if alive else []
        return Resolution(decided.settled, [*again, *decided.again], is_replaced=bool(again))

    def give_up_high(self, sealed: Sealed, *, last: str, now_s: float) -> None:
        """A pack is high or normal, and ends as a whole."""

    def took(self, sealed: Sealed, verdict: Took | NobodyReached, *, now_s: float) -> Resolution:
        """Book the reply on each job: those of its own recipients that it names, and how many others there were."""
        if isinstance(verdict, Took):
            self._messages.accept(subject_of(sealed.request))
            settled = accepted(sealed, verdict)
        else:
            settled = unreachable(sealed, verdict)
        if sealed.origin is None:
            return Resolution(settled)
        return self._resolution(sealed, settled, self._settle_trial(sealed, was_refused=False), now_s=now_s)

    def refused(self, sealed: Sealed, verdict: Refused, *, now_s: float) -> Resolution:
        """Take the pack apart as `sendengine.core.splitting` decides."""
        request = _request(sealed)
        subject = subject_of(request)
        is_known_good = self._messages.is_good(subject)
        piece = sealed.origin if isinstance(sealed.origin, Piece) else Piece(_shares(sealed), is_known_good)
        if piece.trial is not None and piece.trial not in self._trials:  # it was withdrawn: only this one is left
            piece = Piece(piece.shares, is_message_good=True)
        root = self._root_of(sealed.shares[0][0])
        chance = self._chance() if root is None else chance_of(root)
        dissection = dissect(piece, verdict, message_accepted=is_known_good, chance=chance)
        is_certain = verdict.fault is Fault.MESSAGE or sum(len(share.ids) for share in dissection.rejected) >= _CERTAIN
        if dissection.is_message_at_fault and is_certain and not is_known_good and request.target.is_listed:
            self._messages.blame(subject, verdict, now_s=now_s)
        return self._resolution(sealed, [], dissection, now_s=now_s, refused=verdict)

    def ended(self, sealed: Sealed, *, now_s: float) -> Resolution:
        """A trial's request that ended without an answer says nothing about the message."""
        return self._resolution(sealed, [], self._settle_trial(sealed, was_refused=None), now_s=now_s)

    def uncertain(self, sealed: Sealed, *, evidence: str) -> None:
        """A repeat under the same key is safe: go on as it is."""

    def retries_missing(self, sealed: Sealed) -> bool:  # noqa: ARG002 - the port's; a notification names no single user
        """Nothing to wait for."""
        return False

    def _seal(self, pack: Pack[Receipt], shares: Sequence[Share], *, now_s: float) -> Sealed:
        first = _notification(pack.shares[0].member.job)
        group = pack.group
        is_whole = pack.ids is first.to.ids or not first.to.is_listed
        request = NotificationRequest(
            self._app_id,
            self._key_of(pack.shares[0].member, first, pack.ids),
            group.content,
            first.to if is_whole else Target(group.kind, pack.ids, group.label),
            group.channel,
            None if pack.deadline_s is None else _ttl_s(pack.deadline_s, now_s=now_s),
        )
        return Sealed.of(
            request,
            shares=shares,
            origin=None,
            is_high=pack.is_high,
            deadline_s=pack.deadline_s,
            now_s=now_s,
            weight=0 if self._guard.limit is None else self._weigh(first, pack.ids),
        )

    def _reseal(self, sealed: Sealed, shares: Sequence[Share], *, now_s: float, origin: object = None) -> Sealed:
        """Seal some of a request's recipients anew; they are counted against the application limit already."""
        old = _request(sealed)
        ids = tuple(item for _, part in shares for item in part)
        root = self._root_of(shares[0][0])
        deadline_s = min((receipt.deadline_s for receipt, _ in shares if receipt.deadline_s is not None), default=None)
        request = replace(
            old,
            key=self._new_key() if root is None else portion_key(root, ids),
            target=replace(old.target, ids=ids) if ids else old.target,
            ttl_s=None if deadline_s is None else _ttl_s(deadline_s, now_s=now_s),
        )
        fresh = Sealed.of(
            request, shares=shares, origin=origin, is_high=sealed.is_high, deadline_s=deadline_s, now_s=now_s
        )
        fresh.count_with(sealed)
        return fresh

    def _key_of(self, receipt: Receipt, job: CreateNotification, ids: tuple[str, ...]) -> str:
        if receipt.alone is not None:
            return receipt.alone[1]
        root = self._root_of(receipt)
        if root is None:
            return self._new_key()
        return root if not job.to.is_listed or len(ids) == len(job.to.ids) else portion_key(root, ids)

    def _root_of(self, receipt: Receipt) -> str | None:
        """The wire form of a job's key, from which those of its requests and of their pieces follow; None without one.

        Such a job goes alone. Whoever sends it once more, from another process, thereby makes the same pieces.
        """
        key = receipt.job.idempotency_key
        return None if key is None else wire_key(self._app_id, key)

    def _weigh(self, job: CreateNotification, ids: tuple[str, ...]) -> int:
        if ids or job.to.is_listed:
            return self._guard.weigh(len(ids) * self._deliveries_per_recipient)
        expected = job.expected_recipients
        return self._guard.weigh(None if expected is None else expected * self._deliveries_per_recipient)

    def _settle_trial(self, sealed: Sealed, *, was_refused: bool | None) -> Dissection[Receipt]:
        trial = sealed.origin.trial if isinstance(sealed.origin, Piece) else None
        if trial is None or trial not in self._trials:
            return Dissection()
        return trial.settle(
            was_refused=was_refused, message_accepted=self._messages.is_good(subject_of(sealed.request))
        )

    def _resolution(
        self,
        sealed: Sealed,
        settled: Sequence[Settled],
        dissection: Dissection[Receipt],
        *,
        now_s: float,
        refused: Refused | None = None,
    ) -> Resolution:
        """Put a dissection into effect: what it rejects settles, what it wants sent is sealed.

        What a trial's request is followed by are those who waited for it; its own recipient has come to an end.
        """
        trial = sealed.origin.trial if isinstance(sealed.origin, Piece) else None
        if trial is not None and trial.is_decided:
            self._trials.discard(trial)
        verdict = refused or Refused(sealed.status)
        refusals = [
            rejected((share.member, share.ids), verdict, attempts=sealed.attempts) for share in dissection.rejected
        ]
        if trial is not None:  # its request carried one of them; the others are given up with it
            self._book(refusals[1:])
            del refusals[1:]
        self._trials.update(piece.trial for piece in dissection.pieces if piece.trial is not None)
        again = [self._reseal(sealed, _plain(piece.shares), now_s=now_s, origin=piece) for piece in dissection.pieces]
        return Resolution([*settled, *refusals], again, is_replaced=bool(again) and trial is None)


_NEVER_FITS: Final = Refused(
    0,
    ("the application limit never admits so many deliveries in one request: raise application_limit_share",),
    Fault.MESSAGE,
)


def _group_of(job: CreateNotification, content: bytes, deadline_s: float | None) -> PackKey:
    minute = None if deadline_s is None else int(deadline_s // 60)
    return PackKey(content, job.channel, job.to.kind, job.to.label, minute)


def _notification(job: Job) -> CreateNotification:
    if not isinstance(job, CreateNotification):
        raise TypeError(f"a lane of notifications was given {type(job).__name__}")
    return job


def _request(sealed: Sealed) -> NotificationRequest:
    request = sealed.request
    if not isinstance(request, NotificationRequest):
        raise TypeError(f"a lane of notifications sealed {type(request).__name__}")
    return request


def _ttl_s(deadline_s: float, *, now_s: float) -> int:
    """How long OneSignal may still deliver, in whole seconds."""
    return min(TTL_MAX_S, max(1, int(deadline_s - now_s)))


def _plain(shares: Sequence[PackShare[Receipt]]) -> list[Share]:
    if len(shares) == 1:
        return [(shares[0].member, shares[0].ids)]
    return [(share.member, share.ids) for share in shares]


def _shares(sealed: Sealed) -> tuple[PackShare[Receipt], ...]:
    return tuple([PackShare(receipt, ids) for receipt, ids in sealed.shares])
