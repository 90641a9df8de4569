"""What came of a job.

Every outcome but Accepted has ``not_sent``: the job's recipients that its message did not reach, or may not
have reached. A job that needed several requests ends with the worst of their outcomes.
"""

from collections.abc import Sequence
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace


class Accepted(Struct, frozen=True, gc=False):
    """OneSignal took the request, or all of them where a job needed several.

    ``shared_with`` other recipients rode in the same requests. ``unsubscribed`` are those of this job's ids that
    the reply named: one name per unsubscribed *subscription*, so such a user may still have been reached on
    another device. ``replayed`` says that OneSignal answered a repeat from its memory of the key.
    """

    message_ids: tuple[str, ...] = ()
    shared_with: int = 0
    unsubscribed: tuple[str, ...] = ()
    replayed: bool = False
    attempts: int = 1


class Unreachable(Struct, frozen=True, gc=False):
    """The whole request came back with an empty id: nobody in it is subscribed."""

    errors: tuple[str, ...] = ()
    attempts: int = 1
    not_sent: tuple[str, ...] = ()


class Rejected(Struct, frozen=True, gc=False):
    """OneSignal refused the request for good, with this status and these errors."""

    status: int
    errors: tuple[str, ...] = ()
    attempts: int = 1
    not_sent: tuple[str, ...] = ()


class GaveUp(Struct, frozen=True, gc=False):
    """Tried as often or as long as the policy allows; ``last`` is what the last attempt met."""

    last: str
    attempts: int = 1
    maybe_sent: bool = False
    not_sent: tuple[str, ...] = ()


class Ambiguous(Struct, frozen=True, gc=False):
    """It may or may not have taken effect, and a repeat could double it; ``evidence`` says what was seen."""

    evidence: str
    attempts: int = 1
    not_sent: tuple[str, ...] = ()


class Expired(Struct, frozen=True, gc=False):
    """Its deadline passed before it was on the wire."""

    not_sent: tuple[str, ...] = ()


class Abandoned(Struct, frozen=True, gc=False):
    """The engine stopped first; ``maybe_sent`` where a request of it was on the wire."""

    maybe_sent: bool = False
    not_sent: tuple[str, ...] = ()


Outcome = Accepted | Unreachable | Rejected | GaveUp | Ambiguous | Expired | Abandoned

OUTCOME_NAMES: dict[type, str] = {
    Accepted: "accepted",
    Unreachable: "unreachable",
    Rejected: "rejected",
    GaveUp: "gave_up",
    Ambiguous: "ambiguous",
    Expired: "expired",
    Abandoned: "abandoned",
}
"""What reports and files call each outcome."""

SPLIT = "split"
"""What they call the end of a request whose place smaller ones take."""


_FROM_BEST_TO_WORST = (Accepted, Unreachable, Expired, Rejected, Abandoned, GaveUp, Ambiguous)


def severity(outcome: Outcome) -> int:
    """How bad an outcome is, for choosing the worst of several; 0 is best."""
    return _FROM_BEST_TO_WORST.index(type(outcome))


def may_have_been_sent(outcome: Outcome) -> bool:
    """Whether an attempt of what was not accepted may have taken effect."""
    return isinstance(outcome, Ambiguous) or (isinstance(outcome, GaveUp | Abandoned) and outcome.maybe_sent)


def reason_of(outcome: Outcome) -> str:
    """Why it was not accepted, in words for a report; empty where it was."""
    match outcome:
        case Rejected():
            reason = "; ".join(outcome.errors) or f"status {outcome.status}"
        case Unreachable():
            reason = "; ".join(outcome.errors) or "nobody is subscribed"
        case GaveUp():
            reason = outcome.last
        case Ambiguous():
            reason = outcome.evidence
        case Expired():
            reason = "its deadline passed before it was sent"
        case Abandoned():
            reason = "the run was stopped first"
        case Accepted():
            reason = ""
        case _:
            assert_never(outcome)
    return reason


def is_chosen(reasons: Sequence[str], *, outcome: str, reason: str) -> bool:
    """Whether any of ``reasons`` is the name of a failure's outcome or stands in its reason; none choose all."""
    return not reasons or any(each == outcome or each.lower() in reason.lower() for each in reasons)


def merge(portions: Sequence[tuple[tuple[str, ...], Outcome]]) -> Outcome:
    """One outcome for a job of several requests, from ``(recipients, outcome)`` of each.

    It is the worst of them, with the attempts of all added up. An Accepted one gathers the message ids and the
    unsubscribed of all; any other names in ``not_sent`` the recipients of every portion that was not accepted.
    """
    if len(portions) == 1:
        return portions[0][1]
    outcomes = [outcome for _, outcome in portions]
    attempts = sum(getattr(outcome, "attempts", 0) for outcome in outcomes)
    worst = max(outcomes, key=severity)
    if isinstance(worst, Accepted):
        return _merge_accepted([outcome for outcome in outcomes if isinstance(outcome, Accepted)], attempts=attempts)
    missed = tuple(
        dict.fromkeys(item for ids, outcome in portions if not isinstance(outcome, Accepted) for item in ids)
    )
    maybe_sent = any(getattr(outcome, "maybe_sent", False) for outcome in outcomes)
    match worst:
        case Expired():
            return Expired(missed)
        case Abandoned():
            return Abandoned(maybe_sent, missed)
        case GaveUp():
            return GaveUp(worst.last, attempts, maybe_sent, missed)
        case _:
            return replace(worst, attempts=attempts, not_sent=missed)


def _merge_accepted(outcomes: Sequence[Accepted], *, attempts: int) -> Accepted:
    return Accepted(
        message_ids=tuple(dict.fromkeys(item for outcome in outcomes for item in outcome.message_ids)),
        shared_with=sum(outcome.shared_with for outcome in outcomes),
        unsubscribed=tuple(item for outcome in outcomes for item in outcome.unsubscribed),
        replayed=any(outcome.replayed for outcome in outcomes),
        attempts=attempts,
    )
