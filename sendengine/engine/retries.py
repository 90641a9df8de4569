"""A lane's policy, budget, breaker and window of answers, asked together.

Units: seconds on the running loop's clock.
"""

import logging
from collections.abc import Callable
from typing import Final

from sendengine.core.answers import AnswerWindow
from sendengine.core.breaker import OPENS_AFTER, Breaker
from sendengine.core.budget import RetryBudget
from sendengine.core.retry import LOST_HIGH_S, Again, Attempt, Failure, NotSent, RetryPolicy, Tries, apart_s
from sendengine.engine.events import announce
from sendengine.engine.sealed import Sealed

_GOODBYE_S: Final = 0.1  # all that hold a place on a connection have their permits by then, and none comes again before


class Retries:
    """When a lane may send at all, and when a request that failed goes again. ``chance`` gives numbers in [0, 1)."""

    def __init__(self, *, lane: str, lost_reply_wait_s: float, chance: Callable[[], float], now_s: float) -> None:
        self._lane = lane
        self._lost_reply_wait_s = lost_reply_wait_s
        self._chance = chance
        self._policy = RetryPolicy(lost_reply_wait_s)
        self._window = AnswerWindow()
        self.breaker = Breaker()
        self.budget = RetryBudget(now_s=now_s)
        self._failing_since_s: float | None = None  # since when nothing has been answered,
        self.failure = ""  # and what the latest attempt met instead, in words

    @property
    def is_outage(self) -> bool:
        """Whether the breaker is open: nothing is answered, and only probes go out."""
        return self.breaker.opened_at_s is not None

    @property
    def next_probe_at_s(self) -> float | None:
        """When the next probe may go; None where everything may."""
        return self.breaker.next_probe_at_s

    def may_try(self, *, now_s: float) -> bool:
        """Whether a request may be taken: the breaker is closed, or a probe is due."""
        probe_at_s = self.breaker.next_probe_at_s
        return probe_at_s is None or probe_at_s <= now_s

    def take_probe(self, sealed: Sealed, *, now_s: float) -> None:
        """A request is taken; while the breaker is open it is the probe, and once it is closed no more."""
        sealed.is_probe = self.breaker.take_probe(now_s=now_s)

    def may_repeat(self, *, now_s: float) -> float:
        """0 where a repeat may go now, and it is paid for; else how long the budget must earn first."""
        if self.budget.take(is_answering=self._window.is_answering, now_s=now_s):
            return 0.0
        return max(0.001, self.budget.again_in_s(now_s=now_s))

    def answered(self, *, now_s: float) -> bool:
        """There was an answer; True where it ends an outage, and what waits may go earlier."""
        self._failing_since_s = None
        self.failure = ""
        self._window.note(answered=True, now_s=now_s)
        if not self.breaker.failures or not self.breaker.answer(now_s=now_s):
            return False
        announce("outage_over", f"{self._lane}: answers again", lane=self._lane)
        return True

    def failed(self, sealed: Sealed, failure: Failure, *, why: str, now_s: float) -> Again | None:
        """An attempt ended without an answer: when to go again, or None: give it up. ``why`` is what it met."""
        self.failure = why
        sent_at_s = sealed.sent_at_s if sealed.attempts else now_s
        self._window.note(answered=False, now_s=now_s)
        if not self._is_goodbye(failure, now_s=now_s) and self.breaker.fail(sent_at_s=sent_at_s, now_s=now_s):
            announce(
                "outage",
                f"{self._lane}: {OPENS_AFTER} attempts in a row without an answer; "
                f"until one comes only probes are sent: {why}",
                level=logging.WARNING,
                lane=self._lane,
                failure=why,
            )
        attempt = Attempt(failure, sent_at_s, was_probe=sealed.is_probe)
        sealed.tries = self._policy.tally(sealed.tries, attempt, lane=self._window)
        return self._again(sealed.tries, sealed, attempt, high=sealed.is_high, now_s=now_s)

    def as_normal(self, sealed: Sealed, failure: Failure, *, now_s: float) -> Again | None:
        """When a high request that `failed` gives up would go again for a normal job in it; None: not at all."""
        if not sealed.is_high or sealed.tries is None:
            return None
        return self._again(sealed.tries, sealed, Attempt(failure, sealed.sent_at_s), high=False, now_s=now_s)

    def _again(self, tries: Tries, sealed: Sealed, attempt: Attempt, *, high: bool, now_s: float) -> Again | None:
        deadline_s = sealed.last_deadline_s
        return self._policy.again(tries, attempt, now_s=now_s, high=high, deadline_s=deadline_s, chance=self._chance())

    def _is_goodbye(self, failure: Failure, *, now_s: float) -> bool:
        """Whether it may be one of hundreds that failed together, because a server that is well ended connections."""
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        had_connection = isinstance(failure, NotSent) and failure.had_connection
        return had_connection and now_s - self._failing_since_s < _GOODBYE_S

    def apart_s(self, sealed: Sealed) -> float:
        """What a user's wait is lengthened by, after one more request was throttled for that user alone."""
        sealed.throttled += 1
        return apart_s(sealed.throttled, chance=self._chance())

    def wait_after_restart_s(self, *, high: bool) -> float:
        """How long what was on the wire when a process died may still be at work: as after a lost reply."""
        return LOST_HIGH_S if high else self._lost_reply_wait_s

    def definite_at_s(self, sealed: Sealed) -> float:
        """From when on a refusal of a keyed request is definite.

        OneSignal answers a repeat with the first success, once it has one; before the first attempt may have been
        carried out, a refusal of the repeat says nothing about it.
        """
        if sealed.maybe_received_at_s is None or not sealed.has_key:
            return 0.0
        return sealed.maybe_received_at_s + self._lost_reply_wait_s
