"""Sees that a server has stalled: for a while nothing is answered, although answers are due.

Units: ``_s`` is seconds on a monotonic clock, handed in as ``now_s``.

Method: what is sent into a stall (of the server, or of the way there) arrives in one instant at its end, on top of what
is sent in the second after it. There is room for 9 ms of sends (`sendengine.core.bound`: S + J), so nothing more is
sent from 8 to 10 ms of silence on, and nothing is made up for. Silence counts only from when the earliest request after
the last one that was answered should have been answered too: a gap between sends makes a gap between replies, one
latency later. And it counts only up to the look before the last one, 4 ms ago: what had come by then has been read
since, and handled, however long the loop was away. It takes a silence in which DUE replies were to be expected, so that
chance has no part in it. Where that is longer, what went out in the rest of it is held back after the stall.

A server that answers by fits and starts all the time looks as if it stalled, so stalls have a credit: when it is used
up, nothing is called a stall for a while, longer each time.
"""

from collections import deque
from math import inf
from typing import Final

SILENCE_S: Final = 0.0015  # less than a look of 2 ms, by more than instants are rounded
DUE: Final = 20  # replies: that none of so many comes by chance has a probability of 2e-9
LONGEST_SILENCE_S: Final = 0.1  # so fewer than 200 replies a second say nothing
CREDIT_S: Final = 1.0  # of stalls in a row,
EARNED: Final = 0.05  # and this part of all other time
REST_S: Final = 10.0  # without stalls, when the credit is used up; twice as long the next time
LONGEST_REST_S: Final = 600.0
_LOOKS_S: Final = 0.004  # two looks: a silence begins between them
_COUNTED_S: Final = 0.25  # so long are replies counted to know their rate
_BREAK_S: Final = 0.5  # nobody looked: what was sent and answered meanwhile says nothing


class Replies:
    """How many there have been, whatever they say: lanes of one server count together, so that each hears it sooner."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class StallWatch:
    """One lane's: told what it sends and gets answered, and looked at each 2 ms or so while somebody waits to send."""

    __slots__ = (
        "_counted",
        "_counted_s",
        "_credit_s",
        "_heard_s",
        "_is_stall",
        "_known_s",
        "_latency_s",
        "_looked_s",
        "_owed_s",
        "_replies",
        "_replies_heard",
        "_rest_s",
        "_rests_until_s",
        "_sent_s",
        "_silence_s",
        "_unanswered",
    )

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._replies_heard = 0  # at the last look,
        self._looked_s = -inf  # which was then,
        self._known_s = -inf  # and the one before, by which all that had come then is known
        self._heard_s = -inf  # the last look that found new ones
        self._sent_s = -inf  # when the latest request was sent of those that have been answered,
        self._latency_s = inf  # how long its answer took,
        self._unanswered: deque[float] = deque()  # and when others were sent after it
        self._silence_s = inf  # from so long a silence on it is a stall
        self._is_stall = False
        self._counted = 0
        self._counted_s = 0.0
        self._owed_s = 0.0  # for so long nothing is to be sent after a stall
        self._credit_s = CREDIT_S
        self._rest_s = REST_S
        self._rests_until_s = -inf

    def __repr__(self) -> str:
        state = "stalled" if self._is_stall else "no stall"
        return f"<StallWatch {state}, silence is one from {self._silence_s * 1e3:.0f} ms on>"

    def sent(self, *, now_s: float) -> None:
        """Take note that requests go out now; of those that go together once is enough."""
        self._unanswered.append(now_s)

    def answered(self, sent_at_s: float, *, now_s: float) -> None:
        """Take note of a reply to this lane, whatever it says."""
        self._replies.count += 1
        if sent_at_s > self._sent_s:
            self._sent_s = sent_at_s
            self._latency_s = now_s - sent_at_s

    def lost(self) -> None:
        """Expect no reply to what has been sent: connections have ended."""
        self._unanswered.clear()

    def has_stalled(self, *, now_s: float) -> bool:
        """Look: return whether nothing should be sent now. Between three looks the loop has to have read what came."""
        known_s, self._known_s, self._looked_s = self._known_s, self._looked_s, now_s
        since_s = now_s - self._known_s
        if since_s > _BREAK_S:
            self._unanswered.clear()  # a gate has closed, perhaps, in front of some that had their permits
            since_s = 0.0
        replies, self._replies_heard = self._replies.count - self._replies_heard, self._replies.count
        if replies:
            self._hear(now_s)
            self._counted += replies if since_s else 0
        is_silent = known_s - self._silent_from_s() >= self._silence_s
        self._is_stall = is_silent and now_s >= self._rests_until_s
        if self._is_stall or self._owed_s > 0:
            self._owed_s -= 0.0 if self._is_stall else since_s
            self._spend(since_s, now_s=now_s)
            return True
        self._earn(since_s)
        return False

    def _silent_from_s(self) -> float:
        """From when on there has been silence where there should be none; inf where nothing is due."""
        return max(self._heard_s, self._unanswered[0] + self._latency_s) if self._unanswered else inf

    def _hear(self, now_s: float) -> None:
        """There are replies again, or still."""
        unanswered = self._unanswered
        if self._is_stall:
            began_s = self._heard_s - _LOOKS_S
            while unanswered and unanswered[-1] > began_s:
                unanswered.pop()
            unanswered.append(now_s)  # when all that was sent into the stall arrived
            self._owed_s = self._silence_s - SILENCE_S
        while unanswered and unanswered[0] <= self._sent_s:
            unanswered.popleft()
        self._heard_s = now_s

    def _spend(self, seconds: float, *, now_s: float) -> None:
        self._credit_s -= seconds
        if self._credit_s <= 0:
            self._credit_s, self._owed_s = CREDIT_S, 0.0
            self._rests_until_s = now_s + self._rest_s
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)

    def _earn(self, seconds: float) -> None:
        self._credit_s = min(CREDIT_S, self._credit_s + EARNED * seconds)
        self._counted_s += seconds
        if self._counted_s >= _COUNTED_S:
            silence_s = DUE * self._counted_s / self._counted if self._counted else inf
            self._silence_s = max(SILENCE_S, silence_s) if silence_s <= LONGEST_SILENCE_S else inf
            self._counted, self._counted_s = 0, 0.0
