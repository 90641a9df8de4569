"""Tells the journals what becomes of requests: before their first attempt, and when they settle.

A job stays in the journal that it came from, so the jobs of one request may be at home in several.

A job that goes alone may be on disk with the key of its only request: then nothing more is written of that.

A user's update has no key under which OneSignal would know its repeat, so it is on disk only while it may be on the
wire: what an earlier process had there is what may have been received.

Units: none.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from sendengine.core.outcomes import Abandoned, Accepted, Expired, Rejected
from sendengine.core.requests import NotificationRequest
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed
from sendengine.errors import StorageError
from sendengine.ports import Journal, LoneJournal, Part, Portion, Seal

_WITHOUT_EFFECT: Final = (Rejected, Expired)


class Custody:
    """An engine's. ``when_failed`` is told of a disk that has failed for good."""

    def __init__(self, when_failed: Callable[[StorageError], None]) -> None:
        self._when_failed = when_failed
        self.flush_s = 0.0  # how long the disk takes, lately

    def has(self, sealed: Sealed) -> bool:
        """Whether everything about a request is on disk that has to be there before its attempt."""
        if not sealed.is_kept:
            receipt = sealed.shares[0][0]
            alone = receipt.alone
            if alone is not None and alone[1] == getattr(sealed.request, "key", None):
                sealed.is_kept = alone[0].may_go(receipt.record)
        return sealed.is_kept

    async def keep(self, sealed: Sealed, *, lane: str) -> None:
        """Put on disk what it has not (`has`) and what has to be there before the attempt. Raises StorageError.

        Cancelling it may leave the record; the request was not sent then.
        """
        if (lone := _lone_home(sealed)) is not None:
            await lone.until_it_may_go(sealed.shares[0][0].record)
            self.flush_s = lone.flush_s
            sealed.is_kept = True
            return
        for home, members in _by_home(sealed):
            seal = _seal_of(sealed, members, lane=lane)
            if home.must_seal(seal):
                sealed.records = (*sealed.records, (home, await home.seal(seal)))
                self.flush_s = home.flush_s
        sealed.is_kept = True

    def landed(self, sealed: Sealed) -> None:
        """An attempt is over and the request goes again: without a key it is on disk only while it is on the wire."""
        if sealed.records and not sealed.has_key:
            self._unseal(sealed, maybe_received=sealed.maybe_sent)

    def settle(self, sealed: Sealed | None, settled: Sequence[tuple[Receipt, Part]], *, lane: str) -> None:
        """Portions are booked, and with them the request that carried them is over.

        What was abandoned stays on disk: a later process sends it. A request that had no effect is gone before those
        are there that take its place, or a later process would send both; any other goes together with what it settles,
        or a later process would send that once more.
        """
        records: dict[Journal, int] = {}
        try:
            if sealed is not None:
                if len(settled) == 1 and _settle_whole(sealed, *settled[0]):
                    return
                if not sealed.records and len(settled) == 1 and (lone := _lone_home(sealed)) is not None:
                    _settle_lone(lone, sealed, *settled[0], lane=lane)
                    return
                if all(isinstance(part.outcome, _WITHOUT_EFFECT) for _, part in settled):
                    self._unseal(sealed, maybe_received=sealed.maybe_sent and not sealed.has_key)
                records = dict(sealed.records)
            for home, own in _portions(settled).items():
                home.settle(own, request=records.pop(home, None))
        except StorageError as error:
            self._when_failed(error)
        if sealed is None or not records:
            return
        sealed.records = tuple(records.items())
        left: set[Journal | None] = set()
        if sealed.has_key and sealed.maybe_sent:  # what was abandoned goes again under this key, else others replace it
            left = {receipt.home for receipt, part in settled if isinstance(part.outcome, Abandoned)}
        self._unseal(sealed, maybe_received=sealed.maybe_sent and not sealed.has_key, except_in=left)

    def _unseal(self, sealed: Sealed, *, maybe_received: bool, except_in: Collection[Journal | None] = ()) -> None:
        records, sealed.records = sealed.records, ()
        sealed.is_kept = False
        try:
            for home, record in records:
                if home not in except_in:
                    home.unseal(record, maybe_received=maybe_received)
        except StorageError as error:
            self._when_failed(error)


def _lone_home(sealed: Sealed) -> LoneJournal | None:
    """Where the job is at home that goes alone in this request, under the key that it has had since its acceptance."""
    alone = sealed.shares[0][0].alone
    return alone[0] if alone is not None and alone[1] == getattr(sealed.request, "key", None) else None


def _settle_whole(sealed: Sealed, receipt: Receipt, part: Part) -> bool:
    """Settle what most requests carry: the whole of one job, which was accepted; False where it is something else."""
    home, outcome = receipt.home, part.outcome
    if home is None or outcome.__class__ is not Accepted or receipt.outcome is not outcome:
        return False
    request = None
    if sealed.records:
        (written_in, request), *others = sealed.records
        if others or written_in is not home:
            return False
    home.settle((Portion(receipt.record, part.recipients, outcome, True),), request=request)  # noqa: FBT003 - a record
    return True


def _settle_lone(home: LoneJournal, sealed: Sealed, receipt: Receipt, part: Part, *, lane: str) -> None:
    """The only request of a job is over, and with it the job, unless that goes on in a later process.

    What may have been sent and was given up has to be kept whole, so it is told only now what that was.
    """
    outcome, request = part.outcome, None
    if isinstance(outcome, Abandoned):
        if not sealed.maybe_sent:
            home.spare(receipt.record)
        return
    if sealed.maybe_sent and not isinstance(outcome, Accepted):
        request = home.remember(_seal_of(sealed, ((receipt.record, part.recipients),), lane=lane))
    home.settle((Portion(receipt.record, part.recipients, outcome, True),), request=request)  # noqa: FBT003 - a record


def _by_home(sealed: Sealed) -> Sequence[tuple[Journal, tuple[tuple[int, tuple[str, ...]], ...]]]:
    """The journals of a request's jobs, each with those that are at home there."""
    receipt, ids = sealed.shares[0]
    first = receipt.home
    if first is not None and len(sealed.shares) == 1:
        return [(first, ((receipt.record, ids),))]
    if first is not None and all(receipt.home is first for receipt, _ in sealed.shares):
        return [(first, tuple([(receipt.record, ids) for receipt, ids in sealed.shares]))]
    homes: dict[Journal, list[tuple[int, tuple[str, ...]]]] = {}
    for receipt, ids in sealed.shares:
        if receipt.home is not None:
            homes.setdefault(receipt.home, []).append((receipt.record, ids))
    return [(home, tuple(members)) for home, members in homes.items()]


def _seal_of(sealed: Sealed, members: tuple[tuple[int, tuple[str, ...]], ...], *, lane: str) -> Seal:
    request = sealed.request
    if isinstance(request, NotificationRequest):
        return Seal(lane, request.key, request.ttl_s, sealed.wire, members)
    return Seal(lane, None, None, sealed.wire, members)


def _portions(settled: Sequence[tuple[Receipt, Part]]) -> dict[Journal, list[Portion]]:
    """What the journals are told: of each job the portions that were not abandoned, and which was its last."""
    portions: dict[Journal, list[Portion]] = {}
    last: set[Receipt] = set()
    for receipt, part in reversed(settled):
        home = receipt.home
        if home is None or isinstance(part.outcome, Abandoned):
            continue
        is_last = receipt.is_settled and receipt not in last and not _is_left(receipt)
        last.add(receipt)
        outcome = part.outcome if not is_last or receipt.outcome is None else receipt.outcome
        portions.setdefault(home, []).append(Portion(receipt.record, part.recipients, outcome, is_last))
    for own in portions.values():
        own.reverse()
    return portions


def _is_left(receipt: Receipt) -> bool:
    """Whether a part of it was abandoned, so that the job goes on in a later process."""
    return any(isinstance(part.outcome, Abandoned) for part in receipt.parts)
