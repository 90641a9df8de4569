"""What an attempt's end means for its request: settle it, send it again, or send others in its place.

One synchronous step for each way in which an attempt can end.

Units: seconds on the running loop's clock.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, assert_never

from msgspec.structs import replace

from sendengine.core.onesignal import EndpointGroup
from sendengine.core.outcomes import Abandoned, Accepted, Expired, GaveUp, Rejected, Unreachable
from sendengine.core.replies import Reply, classify
from sendengine.core.retry import Failure, NotSent, ReplyLost, ServerFaulted
from sendengine.core.verdicts import (
    AppDisabled,
    ChannelRefused,
    Fault,
    KeyRefused,
    NobodyReached,
    Refused,
    ServerFault,
    Throttled,
    Took,
    Verdict,
)
from sendengine.engine.sealed import Sealed
from sendengine.engine.source import OVERDUE, Settled
from sendengine.errors import NotSentError, ReplyLostError

if TYPE_CHECKING:
    from sendengine.engine.lane import Lane

_ACCEPTED: Final = Accepted()
_DISABLED_AFTER_S: Final = 300.0  # of nothing but refusals, over at least so many epochs, which brings a lane to its
_DISABLED_AFTER_EPOCHS: Final = 5  # lowest rate: OneSignal has disabled the app
MISSING_USER_WAIT_S: Final = 60.0  # a user who was created a moment ago is there by then
_MISSING_USER_AGAIN_S: Final = 5.0


def answered(lane: "Lane", sealed: Sealed, reply: Reply) -> None:
    """There is a reply, whatever it says."""
    now_s = lane.time()
    sealed.status = reply.status
    sealed.headers = reply.headers
    verdict = classify(reply, sealed.request)
    lane.stalls.answered(sealed.sent_at_s, now_s=now_s)
    lane.counters.replied(reply.status, latency_s=now_s - sealed.sent_at_s)
    lane.land(sealed)
    _act(lane, sealed, verdict, now_s=now_s)


def unanswered(lane: "Lane", sealed: Sealed, error: NotSentError | ReplyLostError) -> None:
    """There is no reply."""
    lane.stalls.lost()
    if isinstance(error, NotSentError):
        _not_sent(lane, sealed, error)
    else:
        _reply_lost(lane, sealed, error)


def not_kept(lane: "Lane", sealed: Sealed) -> None:
    """The disk did not take it, so it must not be sent."""
    lane.land(sealed)
    abandon(lane, sealed)


def gate_closed(lane: "Lane", sealed: Sealed) -> None:
    """The gate closed while the request waited for its permit."""
    lane.land(sealed)
    lane.returned(sealed)


def stale(lane: "Lane", sealed: Sealed) -> None:
    """Its deadline passed while it waited for its permit."""
    lane.land(sealed)
    expired(lane, sealed, now_s=lane.time())


def interrupted(lane: "Lane", sealed: Sealed) -> None:
    """Its worker was cancelled with it in hand, or broke."""
    if sealed.is_over:
        return
    if sealed.is_launched:
        sealed.maybe_received_at_s = sealed.sent_at_s
    lane.land(sealed)
    abandon(lane, sealed)


def _not_sent(lane: "Lane", sealed: Sealed, error: NotSentError) -> None:
    """The request was certainly not received."""
    had_connection = sealed.is_launched
    if not had_connection:
        sealed.attempts += 1
        sealed.sent_at_s = lane.time()
    lane.counters.not_sent += 1
    lane.land(sealed)
    _repeat(lane, sealed, NotSent(had_connection), last=str(error))


def _reply_lost(lane: "Lane", sealed: Sealed, error: ReplyLostError) -> None:
    """The request may have been received."""
    lane.counters.lost += 1
    lane.land(sealed)
    sealed.status = 0
    _repeat(lane, sealed, ReplyLost(), last=str(error))


def _act(lane: "Lane", sealed: Sealed, verdict: Verdict, *, now_s: float) -> None:
    """Do what a verdict asks for; every branch settles the request, lines it up again, or replaces it."""
    if not isinstance(verdict, (Throttled, ServerFault, AppDisabled)):
        lane.pace.accepted()
    if not isinstance(verdict, ServerFault) and lane.retries.answered(now_s=now_s):
        lane.outage_over(now_s=now_s)
    match verdict:
        case Took() | NobodyReached():
            _took(lane, sealed, verdict, now_s=now_s)
        case Throttled():
            _throttled(lane, sealed, verdict, now_s=now_s)
        case ServerFault():
            failure = ServerFaulted(verdict.retry_after_s)
            _repeat(lane, sealed, failure, last=f"status {verdict.status} {'; '.join(verdict.errors)}".strip())
        case Refused():
            _refused(lane, sealed, verdict, now_s=now_s)
        case KeyRefused():
            sealed.attempts -= 1
            lane.app.key_refused(sent_at_s=sealed.sent_at_s, status=verdict.status)
            lane.again(sealed, at_s=now_s)  # another key may be there at once, and its user's second is not over
        case ChannelRefused():
            _channel_refused(lane, sealed, verdict, now_s=now_s)
        case AppDisabled():
            sealed.attempts -= 1
            lane.app.disabled(sent_at_s=sealed.sent_at_s)
            lane.returned(sealed)
        case _:
            assert_never(verdict)


def _took(lane: "Lane", sealed: Sealed, verdict: Took | NobodyReached, *, now_s: float) -> None:
    lane.app.accepted_at_s = now_s
    if lane.app.has_refusals:
        lane.app.channel_accepted(sealed.channel)
    resolution = lane.source.took(sealed, verdict, now_s=now_s)
    if isinstance(verdict, Took):
        lane.close(sealed, resolution, now_s=now_s, outcome=_ACCEPTED, took=verdict)
    else:
        lane.close(sealed, resolution, now_s=now_s, outcome=Unreachable(verdict.errors))


def _throttled(lane: "Lane", sealed: Sealed, verdict: Throttled, *, now_s: float) -> None:
    """Not judged: it goes again with its old key, in its old place, and uses up no attempt."""
    sealed.attempts -= 1
    if verdict.user_only and lane.group is EndpointGroup.UPDATE_USER:
        wait_s = lane.missing_retry_after_s if verdict.retry_after_s is None else verdict.retry_after_s
        sealed.held_until_s = now_s + wait_s + lane.retries.apart_s(sealed)
        lane.again(sealed, at_s=sealed.held_until_s)
        return
    lane.pace.throttled(sent_at_s=sealed.sent_at_s, retry_after_s=verdict.retry_after_s)
    since_s = lane.pace.fruitless_since_s(least_epochs=_DISABLED_AFTER_EPOCHS)
    if since_s is not None and lane.app.accepted_at_s < since_s:
        was_open_s = now_s - max(since_s, lane.app.key_changed_at_s)
        if was_open_s >= _DISABLED_AFTER_S:
            lane.app.disabled(sent_at_s=sealed.sent_at_s)
    lane.returned(sealed)


def _channel_refused(lane: "Lane", sealed: Sealed, verdict: ChannelRefused, *, now_s: float) -> None:
    if _must_wait(lane, sealed, now_s=now_s):
        return
    if sealed.channel is not None:
        lane.app.channel_refused(sealed.channel, sent_at_s=sealed.sent_at_s)
    reject(lane, sealed, status=verdict.status, errors=verdict.errors, now_s=now_s)


def _must_wait(lane: "Lane", sealed: Sealed, *, now_s: float) -> bool:
    """Whether a refusal is not definite yet: a first attempt may still be at work, and succeed."""
    definite_at_s = lane.retries.definite_at_s(sealed)
    if now_s >= definite_at_s:
        return False
    lane.again(sealed, at_s=definite_at_s)
    return True


def _refused(lane: "Lane", sealed: Sealed, verdict: Refused, *, now_s: float) -> None:
    if _must_wait(lane, sealed, now_s=now_s):
        return
    if verdict.fault is Fault.MISSING_USER and lane.source.retries_missing(sealed):
        again_at_s = now_s + _MISSING_USER_AGAIN_S
        if again_at_s <= (sealed.first_sent_at_s or now_s) + MISSING_USER_WAIT_S:
            lane.again(sealed, at_s=again_at_s)
            return
    resolution = lane.source.refused(sealed, verdict, now_s=now_s)
    lane.close(sealed, resolution, now_s=now_s, outcome=Rejected(verdict.status, verdict.errors))


def _repeat(lane: "Lane", sealed: Sealed, failure: Failure, *, last: str) -> None:
    """Send it again when the policy says, or give up."""
    now_s = lane.time()
    again = lane.retries.failed(sealed, failure, why=last, now_s=now_s)
    if not isinstance(failure, NotSent):
        sealed.maybe_received_at_s = sealed.sent_at_s
        settled = lane.source.uncertain(sealed, evidence=last)
        if settled is not None:
            end(lane, sealed, settled, now_s=now_s)
            return
    if again is not None:
        lane.counters.retries += 1
        if not sealed.has_key and sealed.maybe_sent:
            sealed.held_until_s = again.at_s
        lane.again(sealed, at_s=again.at_s, not_before_s=again.not_before_s)
        return
    if not _give_up_high(lane, sealed, failure, last=last, now_s=now_s):
        give_up(lane, sealed, last=last, now_s=now_s)


def _give_up_high(lane: "Lane", sealed: Sealed, failure: Failure, *, last: str, now_s: float) -> bool:
    """Give up the high jobs of a user's request, and let the normal ones wait; False where there are none to wait."""
    again = None if sealed.has_key else lane.retries.as_normal(sealed, failure, now_s=now_s)
    if again is None:
        return False
    sealed.held_until_s = again.at_s
    resolution = lane.source.give_up_high(sealed, last=last, now_s=now_s)
    if resolution is None:
        return False
    if lane.custody is not None:
        lane.custody.landed(sealed)
    lane.counters.retries += 1
    lane.close(sealed, resolution, now_s=now_s, outcome=None)
    return True


def expired(lane: "Lane", sealed: Sealed, *, now_s: float) -> None:
    """Its deadline has passed while it waited: expired if it was never received, else given up."""
    if sealed.maybe_sent and sealed.has_key:
        give_up(lane, sealed, last=OVERDUE, now_s=now_s)
        return
    resolution = lane.source.unseal(sealed, now_s=now_s)
    outcome = resolution.settled[0][2] if resolution.settled else Expired()
    lane.close(sealed, resolution, now_s=now_s, outcome=outcome)


def give_up(lane: "Lane", sealed: Sealed, *, last: str, now_s: float) -> None:
    """Its jobs end as GaveUp."""
    gave_up = [(receipt, ids, GaveUp(last, sealed.attempts, sealed.maybe_sent, ids)) for receipt, ids in sealed.shares]
    end(lane, sealed, gave_up, now_s=now_s)


def reject(lane: "Lane", sealed: Sealed, *, status: int, errors: tuple[str, ...], now_s: float) -> None:
    """Every job in it is rejected."""
    rejected = [(receipt, ids, Rejected(status, errors, sealed.attempts, ids)) for receipt, ids in sealed.shares]
    end(lane, sealed, rejected, now_s=now_s)


def abandon(lane: "Lane", sealed: Sealed) -> None:
    """The engine stops first: every job in it is abandoned."""
    abandoned = [(receipt, ids, Abandoned(sealed.maybe_sent, ids)) for receipt, ids in sealed.shares]
    end(lane, sealed, abandoned, now_s=lane.time())


def turn_away(lane: "Lane", sealed: Sealed, *, why: str, now_s: float) -> None:
    """It may not be sent: rejected if it was never received, else given up."""
    if sealed.maybe_sent:
        give_up(lane, sealed, last=why, now_s=now_s)
    else:
        reject(lane, sealed, status=0, errors=(why,), now_s=now_s)


def end(lane: "Lane", sealed: Sealed, settled: Sequence[Settled], *, now_s: float) -> None:
    """The request ends without a definite answer to it, in the way that its jobs settle."""
    resolution = lane.source.ended(sealed, now_s=now_s)
    everything = [*settled, *resolution.settled]
    outcome = everything[0][2] if everything else None
    lane.close(sealed, replace(resolution, settled=everything), now_s=now_s, outcome=outcome)
