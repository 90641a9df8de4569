"""The breaker, and the window of answers beside it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.answers import AnswerWindow
from sendengine.core.breaker import Breaker


def opened(*, at_s: float = 100) -> Breaker:
    breaker = Breaker()
    assert [breaker.fail(sent_at_s=at_s, now_s=at_s) for _ in range(20)] == [False] * 19 + [True]
    return breaker


def test_twenty_failures_in_a_row_open_it_and_an_answer_between_them_starts_the_count_again() -> None:
    breaker = Breaker()
    for _ in range(19):
        breaker.fail(sent_at_s=1, now_s=1)
    assert not breaker.answer(now_s=1)
    for _ in range(19):
        breaker.fail(sent_at_s=1, now_s=1)
    assert breaker.opened_at_s is None
    assert breaker.fail(sent_at_s=1, now_s=2)
    assert breaker.opened_at_s is not None
    assert breaker.opened_at_s == 2
    assert not breaker.fail(sent_at_s=1, now_s=3), "it is open already"
    assert breaker.opened_at_s == 2


def test_one_probe_a_second_is_sent_for_the_first_minute() -> None:
    breaker = opened(at_s=100)
    for at_s, goes in [
        (100, False),
        (100.9, False),
        (101, True),
        (101, False),
        (101.9, False),
        (102, True),
        (105, True),
    ]:
        assert breaker.take_probe(now_s=at_s) == goes, f"at {at_s} s"
    assert breaker.next_probe_at_s == 106


def test_probes_after_the_first_minute_are_a_sixtieth_of_the_outage_apart_and_fifteen_seconds_at_most() -> None:
    for outage_s, next_s in [(60, 61), (120, 122), (600, 610), (900, 915), (20_000, 20_015)]:
        breaker = opened(at_s=0)
        assert breaker.take_probe(now_s=outage_s)
        assert breaker.next_probe_at_s == next_s


def test_the_first_answer_closes_it_and_says_so_once() -> None:
    breaker = opened()
    assert breaker.answer(now_s=130)
    assert not breaker.answer(now_s=130)
    assert breaker.opened_at_s is None
    assert breaker.opened_at_s is None
    assert breaker.next_probe_at_s is None
    assert not breaker.take_probe(now_s=200), "closed, it needs no probes"


def test_requests_that_were_sent_before_it_closed_and_time_out_later_do_not_open_it_again() -> None:
    breaker = opened(at_s=100)
    breaker.answer(now_s=130)
    assert not any(breaker.fail(sent_at_s=129, now_s=160) for _ in range(500))
    assert [breaker.fail(sent_at_s=130, now_s=161) for _ in range(20)][-1]


def test_its_repr_tells_its_state() -> None:
    assert repr(Breaker()) == "<Breaker closed, 0 failures in a row>"
    assert repr(opened()) == "<Breaker open since 100.000, 20 failures in a row>"


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=200))
def test_however_often_it_is_asked_a_probe_a_second_is_the_most(steps_s: list[float]) -> None:
    breaker = opened(at_s=0)
    now_s, probes_s = 0.0, [0.0]
    for step_s in steps_s:
        now_s += step_s
        if breaker.take_probe(now_s=now_s):
            probes_s.append(now_s)
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in pairwise(probes_s))  # what float seconds lose


def test_an_empty_window_answers_nothing() -> None:
    lane = AnswerWindow()
    assert not lane.is_answering
    assert not lane.is_answering_others(failures=0)
    assert not lane.has_answered_since(0)


def test_the_window_remembers_a_hundred_attempts() -> None:
    lane = AnswerWindow()
    for answered, times, is_answering in [
        (True, 100, True),
        (False, 50, True),  # 50 of 100
        (False, 1, False),  # 49 of 100
        (True, 1, False),  # an answer came, and an answer left: 49
        (True, 48, False),  # all that leave are answers
        (True, 1, True),  # the first failure leaves: 50
        (True, 50, True),
    ]:
        for _ in range(times):
            lane.note(answered=answered, now_s=1)
        assert lane.is_answering == is_answering, repr(lane)
    assert repr(lane) == "<AnswerWindow 100 of 100 answered>"


def test_the_window_knows_when_the_last_answer_came() -> None:
    lane = AnswerWindow()
    lane.note(answered=True, now_s=5)
    lane.note(answered=False, now_s=9)
    assert lane.has_answered_since(5)
    assert not lane.has_answered_since(5.001)


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 120))
def test_the_window_agrees_with_counting_the_last_hundred(attempts: list[bool], own: int) -> None:
    lane = AnswerWindow()
    for answered in attempts:
        lane.note(answered=answered, now_s=0)
    last = attempts[-100:]
    assert lane.is_answering == (any(last) and sum(last) >= len(last) / 2)
    assert lane.is_answering_others(failures=own) == (any(last) and sum(last) >= (len(last) - own) / 2)
