"""The retry budget of a lane: how many repeats a struggling server gets beside the first attempts.

Units: ``_s`` is seconds on a monotonic clock, handed in; the balance is in retries.

Method: every request earns a fifth of a retry and every second earns ten. What was earned more than a minute ago
is forgotten, so the balance never exceeds what the last minute earned. Source: Finagle's ``RetryBudget``, which
expires its deposits in the same way.
"""

from typing import Final

PER_REQUEST: Final = 0.2  # retries
PER_SECOND: Final = 10.0  # retries
_MINUTE: Final = 60  # seconds, and slots of the ring


class RetryBudget:
    """Starts with a minute's worth of quiet seconds: 600 retries.

    It binds only while the lane answers fewer than half of its attempts
    (`sendengine.core.answers.AnswerWindow.is_answering`): until then a retry costs nothing. What a server refused
    before it looked at it is repeated without it.
    """

    __slots__ = ("_balance", "_requests", "_second", "_settled_at_s")

    def __init__(self, *, now_s: float) -> None:
        self._requests = [0] * _MINUTE  # first attempts in each of the last sixty seconds
        self._second = int(now_s)
        self._settled_at_s = now_s
        self._balance = PER_SECOND * _MINUTE

    def __repr__(self) -> str:
        return f"<RetryBudget {self._balance:.1f} retries>"

    def earn(self, *, now_s: float) -> None:
        """Note the first attempt of a request; retries and probes earn nothing."""
        if int(now_s) != self._second:
            self._settle(now_s)
        self._requests[self._second % _MINUTE] += 1
        self._balance += PER_REQUEST

    def take(self, *, is_answering: bool, now_s: float) -> bool:
        """Take one retry; False means that it must wait, for `again_in_s` at least."""
        if is_answering:
            return True
        self._settle(now_s)
        if self._balance < 1:
            return False
        self._balance -= 1
        return True

    def again_in_s(self, *, now_s: float) -> float:
        """How long until the budget holds a retry, if nothing else earns one; 0 where it does."""
        self._settle(now_s)
        return max(0.0, (1 - self._balance) / PER_SECOND)

    def _settle(self, now_s: float) -> None:
        passed_s = now_s - self._settled_at_s
        if passed_s <= 0:
            return
        self._settled_at_s = now_s
        second = int(now_s)
        for stale in range(self._second + 1, min(second, self._second + _MINUTE) + 1):
            self._requests[stale % _MINUTE] = 0
        self._second = second
        worth = PER_SECOND * _MINUTE + PER_REQUEST * sum(self._requests)
        self._balance = min(self._balance + PER_SECOND * passed_s, worth)
