"""What the jobs of a pack come to: each its own recipients, and what the reply says of them.

Units: recipients.
"""

from sendengine.core.outcomes import Accepted, Rejected, Unreachable
from sendengine.core.verdicts import NobodyReached, Refused, Took
from sendengine.engine.sealed import Sealed, Share
from sendengine.engine.source import Settled


def accepted(sealed: Sealed, verdict: Took) -> list[Settled]:
    """OneSignal took it: each job is told of its unsubscribed ones, and how many others there were."""
    message_ids = (verdict.message_id,)
    if len(sealed.shares) == 1 and not verdict.unsubscribed:
        receipt, ids = sealed.shares[0]
        return [(receipt, ids, Accepted(message_ids, 0, (), verdict.replayed, sealed.attempts))]
    total = sealed.recipients
    named = frozenset(verdict.unsubscribed)
    return [
        (
            receipt,
            ids,
            Accepted(
                message_ids,
                shared_with=total - len(ids) if ids else 0,
                unsubscribed=tuple([item for item in ids if item in named]) if named else (),
                replayed=verdict.replayed,
                attempts=sealed.attempts,
            ),
        )
        for receipt, ids in sealed.shares
    ]


def unreachable(sealed: Sealed, verdict: NobodyReached) -> list[Settled]:
    """Nobody in it is subscribed."""
    return [(receipt, ids, Unreachable(verdict.errors, sealed.attempts, ids)) for receipt, ids in sealed.shares]


def rejected(share: Share, refused: Refused, *, attempts: int) -> Settled:
    """It was refused, or never sent for what was refused before."""
    receipt, ids = share
    return receipt, ids, Rejected(refused.status, refused.errors, attempts, ids)
