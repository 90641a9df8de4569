"""Requests that came back: when the next may go, as the lane's timer is told."""

from sendengine.core.budget import PER_SECOND
from sendengine.core.requests import NotificationRequest
from sendengine.core.targets import external_id
from sendengine.engine.retries import Retries
from sendengine.engine.returns import Returns
from sendengine.engine.sealed import Sealed

NOW_S = 1000.0


def make_retries() -> Retries:
    return Retries(lane="shop/create_notification", lost_reply_wait_s=100, chance=lambda: 0.5, now_s=NOW_S)


def make_sealed(number: int) -> Sealed:
    """Make a request whose connection could not be opened."""
    request = NotificationRequest("app", f"key {number}", b"{}", external_id(f"u{number}"), "push")
    sealed = Sealed.of(request, shares=(), origin=None, is_high=False, deadline_s=None, now_s=NOW_S)
    sealed.sequence = number
    return sealed


def spend(retries: Retries) -> None:
    """Use up the retry budget, which binds where nothing has been answered."""
    while not retries.may_repeat(now_s=NOW_S):
        pass


def test_repeats_that_are_due_together_wait_until_the_budget_has_earned_the_next() -> None:
    retries = make_retries()
    returns = Returns(retries)
    for number in range(3):
        returns.push_later(make_sealed(number), at_s=NOW_S, not_before_s=NOW_S)
    spend(retries)

    returns.ripen(now_s=NOW_S)
    assert returns.pop() is None
    due_s = returns.next_s()
    assert due_s is not None
    assert NOW_S < due_s <= NOW_S + 1 / PER_SECOND, "a timer for an instant that has passed is never set"
    assert not returns.is_due(now_s=NOW_S)

    sequence = []
    while (now_s := returns.next_s()) is not None:
        returns.ripen(now_s=now_s)
        sequence += [] if (sealed := returns.pop()) is None else [sealed.sequence]
        assert now_s < NOW_S + 1
    assert sequence == [0, 1, 2]


def test_a_high_repeat_does_not_wait_behind_normal_ones_for_what_the_budget_earns() -> None:
    retries = make_retries()
    returns = Returns(retries)
    spend(retries)
    for number in range(100):
        returns.push_later(make_sealed(number), at_s=NOW_S, not_before_s=NOW_S)
    for number, at_s in [(100, NOW_S + 2), (101, NOW_S + 1.99)]:
        high = make_sealed(number)
        high.is_high = True
        returns.push_later(high, at_s=at_s, not_before_s=at_s)
    sequence = []
    while (now_s := returns.next_s()) is not None:
        returns.ripen(now_s=now_s)
        while (sealed := returns.pop()) is not None:
            sequence.append(sealed.sequence)
            if sealed.is_high:
                assert now_s <= NOW_S + 2.2
    assert [number for number in sequence if number < 100] == list(range(100))
    assert abs(sequence.index(101) - sequence.index(100)) == 1
    assert returns.count == 0


def test_what_was_refused_unread_goes_again_whatever_the_budget_says() -> None:
    """It cost the server nothing, and a permit bounds its repeats; else a server that refuses six of ten is slow."""
    retries = make_retries()
    returns = Returns(retries)
    spend(retries)
    for number, may_have_effect in enumerate((False, False, True)):
        refused = make_sealed(number)
        refused.launch(now_s=NOW_S - 1)
        refused.maybe_received_at_s = NOW_S - 1 if may_have_effect else None
        returns.push_later(refused, at_s=NOW_S, not_before_s=NOW_S)
    returns.ripen(now_s=NOW_S)
    assert [returns.pop() is not None for _ in range(3)] == [True, True, False]


def test_a_budget_that_had_nothing_keeps_nobody_once_requests_are_answered() -> None:
    retries = make_retries()
    returns = Returns(retries)
    spend(retries)
    for number in range(3):
        returns.push_later(make_sealed(number), at_s=NOW_S, not_before_s=NOW_S)
    returns.ripen(now_s=NOW_S)
    retries.answered(now_s=NOW_S)
    now_s = returns.next_s()
    assert now_s is not None
    assert now_s <= NOW_S + 1 / PER_SECOND
    returns.ripen(now_s=now_s)
    assert [returns.pop() is not None for _ in range(4)] == [True, True, True, False]
