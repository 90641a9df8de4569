"""Tells the journals what becomes of requests: before their first attempt, and when they settle.

A job stays in the journal that it came from, so the jobs of one request may be at home in several.

A user's update has no key under which OneSignal would know its repeat, so it is on disk only while it may be on the
wire: what an earlier process had there is what may have been received.

Units: none.
"""

from collections.abc import Callable, Collection, Sequence

from sendengine.core.outcomes import Abandoned
from sendengine.core.requests import NotificationRequest
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed
from sendengine.errors import StorageError
from sendengine.ports import Journal, Part, Portion, Seal


class Custody:
    """An engine's. ``when_failed`` is told of a disk that has failed for good."""

    def __init__(self, when_failed: Callable[[StorageError], None]) -> None:
        self._when_failed = when_failed
        self.flush_s = 0.0  # how long the disk takes, lately

    async def keep(self, sealed: Sealed, *, lane: str) -> None:
        """Put a request on disk where it has to be before its attempt. Raises StorageError.

        Cancelling it may leave the record; the request was not sent then.
        """
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

    def settle(self, sealed: Sealed | None, settled: Sequence[tuple[Receipt, Part]]) -> None:
        """Portions are booked, and with them the request that carried them is over.

        What was abandoned stays on disk: a later process sends it.
        """
        portions = _portions(settled)
        records = dict(sealed.records) if sealed is not None else {}
        try:
            for home, own in portions.items():
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


def _by_home(sealed: Sealed) -> Sequence[tuple[Journal, tuple[tuple[int, tuple[str, ...]], ...]]]:
    """The journals of a request's jobs, each with those that are at home there."""
    first = sealed.shares[0][0].home
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
