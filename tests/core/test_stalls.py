"""When a silence is a stall: table by table, looked at each 2 ms, in milliseconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.stalls import CREDIT_S, EARNED, REST_S, Replies, StallWatch

LOOK_S = 0.002


class Bench:
    """A watch that is looked at each 2 ms; each look sends, and what was sent a latency before is answered."""

    def __init__(self, *, latency_s: float = 0.1, each: int = 12) -> None:
        self.watch = StallWatch(Replies())
        self.now_s = 0.0
        self.stalled_s = 0.0
        self._latency_s = latency_s
        self._each = each
        self._sent: list[float] = []

    def run(self, seconds: float, *, is_silent: bool = False, sends: bool = True) -> float:
        """Go on for so long; return for how long of it there was said to be a stall."""
        before_s = self.stalled_s
        for _ in range(round(seconds / LOOK_S)):
            self.now_s += LOOK_S
            while not is_silent and self._sent and self._sent[0] <= self.now_s - self._latency_s:
                sent_at_s = self._sent.pop(0)
                for _ in range(self._each):
                    self.watch.answered(sent_at_s, now_s=self.now_s)
            if self.watch.has_stalled(now_s=self.now_s):
                self.stalled_s += LOOK_S
            elif sends:
                self.watch.sent(now_s=self.now_s)
                self._sent.append(self.now_s)
        return self.stalled_s - before_s


def test_silence_is_a_stall_from_8_ms_on_and_the_next_reply_ends_it() -> None:
    bench = Bench(each=30)
    for seconds, is_silent, stalled_ms in [
        (1.0, False, 0),
        (0.006, True, 0),
        (0.1, False, 0),
        (0.008, True, 2),  # the fourth look; the first is when the next reply is due
        (0.1, False, 0),
        (0.05, True, 44),
        (0.1, False, 0),
        (0.1, False, 0),  # nor is what came late a stall, a latency later
    ]:
        assert bench.run(seconds, is_silent=is_silent) == pytest.approx(stalled_ms / 1e3), bench.watch


@pytest.mark.parametrize("latency_s", [0.002, 0.1, 0.5])
def test_a_gap_between_sends_is_no_stall_a_latency_later(latency_s: float) -> None:
    bench = Bench(latency_s=latency_s)
    bench.run(1.5)
    bench.run(0.04, sends=False)
    assert bench.run(1.0) == 0
    assert bench.run(0.1, is_silent=True) > 0.09


def test_fewer_replies_take_a_longer_silence_which_is_held_back_afterwards() -> None:
    bench = Bench(each=2)  # 1,000 a second: 20 ms of them
    bench.run(1.0)
    assert bench.run(0.018, is_silent=True) == 0
    bench.run(1.0)
    assert bench.run(0.05, is_silent=True) == pytest.approx(0.028, abs=0.004)
    assert bench.run(0.5) == pytest.approx(0.018, abs=0.004)


def test_fewer_than_200_a_second_say_nothing() -> None:
    watch = StallWatch(Replies())
    for number in range(500):
        now_s = number * LOOK_S
        watch.sent(now_s=now_s)
        if number % 4 == 0 and number < 400:
            watch.answered(now_s, now_s=now_s)
        assert not watch.has_stalled(now_s=now_s)


def test_nothing_is_due_where_connections_have_ended() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.watch.lost()
    assert bench.run(0.05, is_silent=True, sends=False) == 0


def test_what_another_lane_hears_breaks_a_silence_and_does_not_make_one() -> None:
    replies = Replies()
    quick, slow = StallWatch(replies), StallWatch(replies)
    for number in range(1000):  # 2 s, and nobody has answered the slow one yet
        now_s = number * LOOK_S
        slow.sent(now_s=now_s)
        if now_s < 1:
            quick.sent(now_s=now_s)
            for _ in range(12):
                quick.answered(now_s, now_s=now_s)
        assert not slow.has_stalled(now_s=now_s)
        assert not quick.has_stalled(now_s=now_s)
    for number in range(1000, 1200):
        now_s = number * LOOK_S
        quick.sent(now_s=now_s)
        slow.answered(now_s - 2, now_s=now_s)
        assert not quick.has_stalled(now_s=now_s)


def test_two_lanes_that_look_in_one_turn_after_the_loop_was_away_hear_no_silence() -> None:
    replies = Replies()
    lanes = [StallWatch(replies), StallWatch(replies)]
    now_s = 0.0
    for number in range(1000):
        now_s += LOOK_S if number % 100 else 0.04
        for lane in lanes:
            assert not lane.has_stalled(now_s=now_s)  # timers come before what is read
        for lane in lanes:
            lane.sent(now_s=now_s)
            for _ in range(6):
                lane.answered(now_s - 0.004, now_s=now_s)


def test_while_the_loop_was_away_nothing_could_be_heard() -> None:
    bench = Bench()
    bench.run(1.0)
    for _ in range(10):
        bench.now_s += 0.04
        assert not bench.watch.has_stalled(now_s=bench.now_s)
        bench.run(0.2)
    assert bench.stalled_s == 0


@given(st.lists(st.tuples(st.floats(0.002, 0.3), st.floats(0.002, 0.3)), max_size=30))
def test_however_a_server_answers_stalls_take_no_more_than_their_credit(fits: list[tuple[float, float]]) -> None:
    bench = Bench(latency_s=0.002)
    bench.run(0.5)
    for silent_s, answering_s in fits:
        bench.run(silent_s, is_silent=True)
        bench.run(answering_s)
    credits_used = 1 + bench.now_s / REST_S
    assert bench.stalled_s <= CREDIT_S * credits_used + EARNED * bench.now_s + LOOK_S
