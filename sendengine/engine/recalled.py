"""A job's receipt, and a sealed request, as an earlier process left them.

Units: seconds on the running loop's clock; ages on the wall clock's.
"""

from collections.abc import Sequence

from sendengine.core.jobs import CreateNotification
from sendengine.core.requests import NotificationRequest
from sendengine.core.targets import Target
from sendengine.core.wire import canonical
from sendengine.engine.admission import deadline_of, weigh
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed, Share
from sendengine.ports import Journal, RecoveredJob, RecoveredRequest


def receipt_of(recovered: RecoveredJob, journal: Journal, *, content: bytes, now_s: float, age_s: float) -> Receipt:
    """A receipt whose deadline counts from the job's acceptance."""
    job = recovered.job
    deadline_s = deadline_of(job, now_s=now_s)
    if deadline_s is not None and job.expires_in_s is not None:
        deadline_s -= age_s
    receipt = Receipt(job, deadline_s=deadline_s, size_bytes=weigh(job, content=content))
    receipt.home = journal
    receipt.record = recovered.id
    return receipt


def sealed_of(
    recovered: RecoveredRequest, shares: Sequence[Share], *, app_id: str, home: Journal | None, now_s: float
) -> Sealed:
    """The request as it was sealed: its old key and, byte for byte, its old body."""
    seal = recovered.seal
    job = shares[0][0].job
    if not isinstance(job, CreateNotification) or seal.key is None:
        raise TypeError("a recovered request is a notification's, and has a key")
    ids = tuple([item for _, part in shares for item in part])
    target = Target(job.to.kind, ids, job.to.label) if job.to.is_listed else job.to
    deadlines = [receipt.deadline_s for receipt, _ in shares if receipt.deadline_s is not None]
    sealed = Sealed.of(
        NotificationRequest(app_id, seal.key, canonical(job.message), target, job.channel, seal.ttl_s),
        shares=shares,
        origin=None,
        is_high=any(receipt.is_high for receipt, _ in shares),
        deadline_s=min(deadlines, default=None),
        now_s=now_s,
    )
    sealed.wire = seal.wire
    sealed.is_counted = True  # against the application limit, when it was sealed
    sealed.maybe_received_at_s = sealed.sent_at_s = now_s
    sealed.is_kept = True
    if home is not None:
        sealed.records = ((home, recovered.id),)
    return sealed
