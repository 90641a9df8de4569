"""When a failed attempt is made again, and when it is enough.

Decides about attempts that ended without an answer. A 429 is the backoff controller's: it uses up no attempts
and never comes here; a definite refusal is final. The lane's breaker, budget and window of answers are objects of
their own: `sendengine.core.breaker`, `sendengine.core.budget`, `sendengine.core.answers`.

Units: ``_s`` is seconds; instants are on a monotonic clock, handed in; ``chance`` is in [0, 1).

Method: waits double with each failure of the request, and chance moves them over their upper half, so that what
failed together does not return together.

===================  ============================  ==========================  =====================
the attempt          normal jobs wait              high jobs wait              from
===================  ============================  ==========================  =====================
was not received     0.5 s, doubling to 2 s        0.5 s, doubling to 60 s     the failure
lost its reply       ``lost_reply_wait_s``,        2 s, doubling to 60 s       the send
                     doubling to 60 s
met a server fault   2 s, doubling to 60 s; ``Retry-After`` is the minimum     the failure
===================  ============================  ==========================  =====================

A wait for a lost reply is never shorter than its first, since the server may still be at the request. What was
not received costs the server nothing, and a connection that fails is never the request's fault; so a normal job
tries every two seconds until the breaker opens, and is back within two seconds of the end of an outage too small
to open it. A high job has ten attempts and spreads them.

Source: OneSignal's REST overview (2 s doubling to 60 s, at most 10 attempts, 15 minutes, always the same key).
"""

from typing import Final, TypeAlias, assert_never

from msgspec import Struct

from sendengine.core.answers import AnswerWindow

MOST_FAILURES: Final = 10  # that count, after which a job is given up
HIGH_LIMIT_S: Final = 900.0  # from its first attempt on, a high job is tried no longer

_LONGEST_S: Final = 60.0
_NOT_SENT_S: Final = 0.5
_NOT_SENT_LONGEST_S: Final = 2.0  # normal jobs
LOST_HIGH_S: Final = 2.0
_FAULT_S: Final = 2.0


class NotSent(Struct, frozen=True, gc=False):
    """Certainly not received: NotSentError. ``had_connection`` where that went away in the instant of writing.

    Then nothing is known of the server but that it ended a connection, as it may at any time.
    """

    had_connection: bool = False


class ReplyLost(Struct, frozen=True, gc=False):
    """Maybe received, and maybe still being worked on: ReplyLostError, a timeout, a crash while it was on the wire."""


class ServerFaulted(Struct, frozen=True, gc=False):
    """Maybe received, and answered by a server at fault: `sendengine.core.verdicts.ServerFault`."""

    retry_after_s: float | None = None


Failure: TypeAlias = NotSent | ReplyLost | ServerFaulted


class Attempt(Struct, frozen=True, gc=False):
    """An attempt that ended without an answer, begun at ``sent_at_s``. A probe is the breaker's, not the job's."""

    failure: Failure
    sent_at_s: float
    was_probe: bool = False


class Tries(Struct, frozen=True, gc=False):
    """What has failed of one request so far.

    ``failures`` leaves out probes and throttled attempts; ``counted`` are those of them that count towards giving
    up a normal job; ``maybe_sent`` says that one of all its attempts may have been received. ``last_attempt_at_s`` is
    when the last one that failed began, None where none has.
    """

    first_attempt_at_s: float
    failures: int = 0
    counted: int = 0
    maybe_sent: bool = False
    last_attempt_at_s: float | None = None


class Again(Struct, frozen=True, gc=False):
    """The next attempt is due at ``at_s``, or at ``not_before_s`` where the lane's breaker closes until then."""

    at_s: float
    not_before_s: float


class RetryPolicy(Struct, frozen=True, gc=False):
    """``lost_reply_wait_s`` is how long a normal job whose reply was lost waits, from its send on."""

    lost_reply_wait_s: float

    def tally(self, tries: Tries | None, attempt: Attempt, *, lane: AnswerWindow) -> Tries:
        """Add an attempt that failed to what has failed before; None where nothing has.

        ``lane`` has noted the attempt already. A failure counts while the rest of its lane is being answered; one that
        was not received, only where the lane has answered since the attempt before it began, so that even a lone job
        outlives an outage.
        """
        tries = tries or Tries(attempt.sent_at_s)
        return Tries(
            tries.first_attempt_at_s,
            tries.failures + (not attempt.was_probe),
            tries.counted + (not attempt.was_probe and _counts(tries, attempt, lane=lane)),
            tries.maybe_sent or not isinstance(attempt.failure, NotSent),
            attempt.sent_at_s,
        )

    def again(
        self, tries: Tries, attempt: Attempt, *, now_s: float, high: bool, deadline_s: float | None, chance: float
    ) -> Again | None:
        """Say when the request goes again, or None: give it up now.

        ``tries`` includes ``attempt``. A normal job is given up after its tenth failure that counts, a high one after
        its tenth, and either where the next attempt would come at its deadline or later, or, for a high job, 15 minutes
        after its first one or later.
        """
        if (tries.failures if high else tries.counted) >= MOST_FAILURES:
            return None
        again = self._wait(attempt, doublings=max(0, tries.failures - 1), now_s=now_s, high=high, chance=chance)
        ends_s = [] if deadline_s is None else [deadline_s]
        if high:
            ends_s.append(tries.first_attempt_at_s + HIGH_LIMIT_S)
        return None if any(again.at_s >= end_s for end_s in ends_s) else again

    def _wait(self, attempt: Attempt, *, doublings: int, now_s: float, high: bool, chance: float) -> Again:
        match attempt.failure:
            case NotSent():
                longest_s = _LONGEST_S if high else _NOT_SENT_LONGEST_S
                return Again(now_s + _doubled(_NOT_SENT_S, doublings, chance, longest_s=longest_s), now_s)
            case ReplyLost():
                least_s = LOST_HIGH_S if high else self.lost_reply_wait_s
                wait_s = max(least_s, _doubled(least_s, doublings, chance))
                # A loop that was away may notice the loss after the wait is over.
                return Again(max(now_s, attempt.sent_at_s + wait_s), max(now_s, attempt.sent_at_s + least_s))
            case ServerFaulted(retry_after_s):
                least_s = retry_after_s or 0.0
                return Again(now_s + max(least_s, _doubled(_FAULT_S, doublings, chance)), now_s + least_s)
            case _:
                assert_never(attempt.failure)


def apart_s(throttled: int, *, chance: float) -> float:
    """What is added to the wait of a user who was throttled so often in a row; nothing the first time.

    Somebody else may be changing the same user, under another alias or from another process. Where refused requests
    count, two who wait for the same time would throttle each other for ever.
    """
    return chance * min(_LONGEST_S, 2.0 ** min(throttled - 1, 60) - 1)


def _counts(tries: Tries, attempt: Attempt, *, lane: AnswerWindow) -> bool:
    if isinstance(attempt.failure, NotSent):
        before_s = tries.last_attempt_at_s
        if not lane.has_answered_since(attempt.sent_at_s if before_s is None else before_s):
            return False
    return lane.is_answering_others(failures=tries.failures + 1)


def _doubled(first_s: float, doublings: int, chance: float, *, longest_s: float = _LONGEST_S) -> float:
    """``first_s`` doubled so often, at most ``longest_s``, somewhere in its upper half."""
    # Beyond 60 doublings any wait has met its cap, and a float would one day overflow.
    return min(longest_s, first_s * 2.0 ** min(doublings, 60)) * (0.5 + chance / 2)
