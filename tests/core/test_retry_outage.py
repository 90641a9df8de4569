"""Policy, breaker, budget and window together, in a lane of plain lists: what an outage looks like from outside.

The lane here asks the four objects in the order in which an engine has to, sends at a fixed rate on a clock that is
a number, and knows nothing else.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random

import pytest

from sendengine.core.answers import AnswerWindow
from sendengine.core.breaker import Breaker
from sendengine.core.budget import RetryBudget
from sendengine.core.retry import Again, Attempt, Failure, NotSent, ReplyLost, RetryPolicy, ServerFaulted, Tries

STARTS_S, ENDS_S = 10.0, 40.0
TAKES_S = {NotSent: 0.001, ReplyLost: 0.03, ServerFaulted: 0.05}


@dataclass(slots=True)
class Request:
    high: bool
    tries: Tries | None = None


@dataclass
class Lane:
    """Sends ``rate`` requests a second at most; in the outage each ends in ``failure``, else in an answer."""

    failure: Failure
    lost_reply_wait_s: float = 1
    rate: int = 200
    high: bool = False
    now_s: float = 0
    answered_s: list[float] = field(default_factory=list)
    retried_s: list[float] = field(default_factory=list)
    attempts_in_outage: int = 0
    first_in_outage: int = 0
    gave_up: int = 0
    probes_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = RetryPolicy(lost_reply_wait_s=self.lost_reply_wait_s)
        self.breaker, self.window, self.budget = Breaker(), AnswerWindow(), RetryBudget(now_s=0)
        self.chance = Random(7)
        self.fresh: deque[Request] = deque()
        self.waiting: list[tuple[Again, Request]] = []
        self.wire: list[tuple[float, int, float, bool, Request]] = []
        self.order = count()

    def run(self, arrivals_s: Sequence[float], *, until_s: float) -> None:
        arrivals = deque(arrivals_s)
        for step in range(int(until_s * self.rate)):
            self.now_s = step / self.rate
            while arrivals and arrivals[0] <= self.now_s:
                arrivals.popleft()
                self.fresh.append(Request(self.high))
            while self.wire and self.wire[0][0] <= self.now_s:
                self.end(*heappop(self.wire))
            self.dispatch()

    def dispatch(self) -> None:
        probe = self.breaker.opened_at_s is not None
        request = self.next_probe() if probe else self.next_request()
        if request is None:
            return
        if request.tries is None:
            self.budget.earn(now_s=self.now_s)
        is_down = STARTS_S <= self.now_s < ENDS_S
        if is_down:
            self.attempts_in_outage += 1
            self.first_in_outage += request.tries is None
        if request.tries and not probe:
            self.retried_s.append(self.now_s)
        takes_s = TAKES_S[type(self.failure)] if is_down else 0.1
        heappush(self.wire, (self.now_s + takes_s, next(self.order), self.now_s, probe, request))

    def next_probe(self) -> Request | None:
        ready = [pair for pair in self.waiting if pair[0].not_before_s <= self.now_s]
        if not (self.fresh or ready) or not self.breaker.take_probe(now_s=self.now_s):
            return None
        self.probes_s.append(self.now_s)
        if self.fresh:
            return self.fresh.popleft()
        self.waiting.remove(ready[0])
        return ready[0][1]

    def next_request(self) -> Request | None:
        for pair in self.waiting:
            if pair[0].at_s <= self.now_s:
                if not self.budget.take(is_answering=self.window.is_answering, now_s=self.now_s):
                    break
                self.waiting.remove(pair)
                return pair[1]
        return self.fresh.popleft() if self.fresh else None

    def end(self, _now_s: float, _order: int, sent_s: float, probe: bool, request: Request) -> None:
        answered = not STARTS_S <= sent_s < ENDS_S
        self.window.note(answered=answered, now_s=self.now_s)
        if answered:
            self.answered_s.append(self.now_s)
            if self.breaker.answer(now_s=self.now_s):
                self.waiting = [(Again(due.not_before_s, due.not_before_s), each) for due, each in self.waiting]
            return
        self.breaker.fail(sent_at_s=sent_s, now_s=self.now_s)
        attempt = Attempt(self.failure, sent_s, was_probe=probe)
        request.tries = self.policy.tally(request.tries, attempt, lane=self.window)
        due = self.policy.again(
            request.tries, attempt, now_s=self.now_s, high=request.high, deadline_s=None, chance=self.chance.random()
        )
        if due is None:
            self.gave_up += 1
        else:
            self.waiting.append((due, request))


ARRIVALS = {
    "a backlog": [0.0] * 4000,
    "a hundred a second": [number / 100 for number in range(5000)],
    "five a second": [number / 5 for number in range(250)],
    "thirty at the start of the outage": [STARTS_S] * 30,
}


@pytest.mark.parametrize("failure", [NotSent(), ReplyLost(), ServerFaulted()], ids=["refused", "reset", "503"])
@pytest.mark.parametrize("arrivals_s", ARRIVALS.values(), ids=ARRIVALS)
def test_an_outage_is_answered_within_the_budget_and_over_two_seconds_after_it_ends(
    failure: Failure, arrivals_s: list[float]
) -> None:
    lane = Lane(failure)
    lane.run(arrivals_s, until_s=75)
    assert lane.gave_up == 0
    assert len(lane.answered_s) == len(arrivals_s), "each is answered, once"
    retries_s = [at_s for at_s in lane.retried_s if STARTS_S <= at_s < ENDS_S]
    assert len(retries_s) <= 600 + 10 * 30 + 0.2 * (len(arrivals_s) + lane.first_in_outage)
    assert lane.attempts_in_outage <= 30 + 20 + 100, "a probe a second, what opened the breaker, what was on the wire"
    resumed_s = min(at_s for at_s in lane.answered_s if at_s > ENDS_S)
    assert resumed_s - ENDS_S < 2


@pytest.mark.parametrize("failure", [NotSent(), ReplyLost(), ServerFaulted()], ids=["refused", "reset", "503"])
def test_after_an_outage_the_backlog_goes_at_the_full_rate_within_two_seconds(failure: Failure) -> None:
    lane = Lane(failure)
    lane.run(ARRIVALS["a backlog"] * 2, until_s=60)
    in_third_second = [at_s for at_s in lane.answered_s if ENDS_S + 2 <= at_s < ENDS_S + 3]
    assert len(in_third_second) == 200


def test_a_lone_request_that_is_refused_goes_again_within_two_seconds_of_the_end() -> None:
    for history in (0, 100):
        lane = Lane(NotSent())
        lane.run([0.0] * history + [STARTS_S + 0.5], until_s=50)
        assert lane.gave_up == 0
        assert lane.answered_s[-1] - ENDS_S < 2.2, "two seconds, a step and the answer's tenth"


@pytest.mark.parametrize("high", [False, True], ids=["normal", "high"])
@pytest.mark.parametrize("failure", [NotSent(), ReplyLost(), ServerFaulted()], ids=["refused", "reset", "503"])
def test_a_lone_request_after_a_good_run_outlives_the_outage(failure: Failure, high: bool) -> None:
    lane = Lane(failure, high=high)
    lane.run([0.0] * 100 + [STARTS_S + 0.5], until_s=110)
    assert lane.gave_up == 0
    assert len(lane.answered_s) == 101


def test_high_jobs_that_served_as_probes_are_not_used_up_by_it() -> None:
    lane = Lane(NotSent(), high=True)
    lane.run(ARRIVALS["thirty at the start of the outage"], until_s=60)
    assert len(lane.probes_s) >= 28
    assert lane.gave_up == 0
