"""What a 429 does to a lane: gate, epoch, cause, cut, climb."""

import math

import msgspec
import pytest

from sendengine.core.backoff import BackoffController, Climb, Learned, RateChange

CEILING = 6000.0


def make(
    *, ceiling: float = CEILING, now_s: float = 0.0, missing_s: float = 60.0, learned: Learned | None = None
) -> BackoffController:
    return BackoffController(ceiling=ceiling, missing_retry_after_s=missing_s, now_s=now_s, learned=learned)


def feed(controller: BackoffController, *, rate: float, start_s: float, end_s: float) -> None:
    """Requests leave every 10 ms, and the lane looks at its pace every 50."""
    for step in range(round((end_s - start_s) * 100)):
        now_s = start_s + step / 100
        controller.sent(now_s=now_s, count=round(rate / 100))
        if step % 5 == 0:
            controller.pace(now_s=now_s)


def refuse(controller: BackoffController, at_s: float, *, retry_after_s: float | None = 1.0) -> RateChange | None:
    return controller.throttled(sent_at_s=at_s - 0.1, received_at_s=at_s, retry_after_s=retry_after_s)


def climb(controller: BackoffController, *, start_s: float, seconds: float) -> float:
    """Look at the pace every 100 ms, and return the last."""
    return [controller.pace(now_s=start_s + step / 10) for step in range(round(seconds * 10) + 1)][-1]


def test_it_starts_at_the_ceiling_and_stays_there() -> None:
    controller = make()
    assert controller.pace(now_s=0) == CEILING
    assert controller.pace(now_s=1000) == CEILING
    assert controller.is_settled
    assert controller.learned == Learned()


def test_the_gate_is_closed_until_received_plus_retry_after() -> None:
    controller = make()
    feed(controller, rate=4000, start_s=0, end_s=2)
    change = refuse(controller, 2.0, retry_after_s=5)
    assert change is not None
    assert change.hold_s == 5
    assert controller.gate_until_s == 7.0
    for now_s, is_silent in [(2.0, True), (6.999, True), (7.0, False)]:
        assert (controller.pace(now_s=now_s) == 0) is is_silent, now_s


@pytest.mark.parametrize("unreadable", [None, math.nan, math.inf, -1.0])
def test_without_a_readable_retry_after_it_waits_as_configured(unreadable: float | None) -> None:
    controller = make(missing_s=60)
    refuse(controller, 2.0, retry_after_s=unreadable)
    assert controller.gate_until_s == 62.0


def test_a_retry_after_of_nothing_still_waits_for_the_second_that_is_counted() -> None:
    controller = make()
    refuse(controller, 2.0, retry_after_s=0)
    assert controller.gate_until_s == 3.0


def test_two_hundred_refusals_at_once_are_one_event() -> None:
    controller = make()
    feed(controller, rate=4000, start_s=0, end_s=2)
    changes = [refuse(controller, 2.0 + number / 10_000) for number in range(200)]
    assert [change is not None for change in changes] == [True] + [False] * 199
    assert controller.epochs == 1
    assert controller.gate_until_s == pytest.approx(3.0199)  # the latest counts


def test_a_refusal_of_what_was_sent_before_the_gate_opened_only_keeps_it_closed_for_longer() -> None:
    controller = make()
    feed(controller, rate=4000, start_s=0, end_s=2)
    refuse(controller, 2.0)
    before = climb(controller, start_s=3.0, seconds=1.5)
    assert controller.throttled(sent_at_s=1.99, received_at_s=4.5, retry_after_s=2) is None
    assert controller.gate_until_s == 6.5
    assert controller.pace(now_s=6.4) == 0
    assert controller.pace(now_s=6.5) == pytest.approx(before * 0.7, rel=0.03)  # gently again, where it was
    assert controller.epochs == 1


def test_a_shorter_retry_after_does_not_open_the_gate_sooner() -> None:
    controller = make()
    refuse(controller, 2.0, retry_after_s=10)
    controller.throttled(sent_at_s=1.9, received_at_s=2.1, retry_after_s=1)
    assert controller.gate_until_s == 12.0


def test_where_others_share_the_limit_it_goes_on_well_below_what_was_accepted() -> None:
    controller = make()
    feed(controller, rate=4000, start_s=0, end_s=2)
    change = refuse(controller, 2.0)
    assert change is not None
    assert (change.cause, change.scope, change.old_rate) == ("contended", "app", CEILING)
    # 14 % and 16 % × 4000 / 6000 of what was accepted are left to others: 4000 × (1 − 0.2467)
    assert change.new_rate == pytest.approx(3013, rel=0.01)


def test_the_larger_share_shrinks_more() -> None:
    kept = []
    for rate in (600, 3000, 5400):
        controller = make()
        feed(controller, rate=rate, start_s=0, end_s=2)
        change = refuse(controller, 2.0)
        assert change is not None
        kept.append(change.new_rate / rate)
    assert kept == pytest.approx([0.844, 0.78, 0.716], rel=0.01)


def test_with_almost_the_whole_ceiling_accepted_it_trims_half_a_hundredth_and_remembers() -> None:
    controller = make()
    feed(controller, rate=5940, start_s=0, end_s=12)
    change = refuse(controller, 12.0)
    assert change is not None
    assert change.cause == "misaligned"
    assert change.new_rate == pytest.approx(5940 * 0.995, rel=0.003)
    assert climb(controller, start_s=13.0, seconds=5) == pytest.approx(change.new_rate)
    assert controller.is_settled
    assert controller.learned.trim == pytest.approx(1 - change.new_rate / CEILING)
    assert make(learned=controller.learned).pace(now_s=0) == pytest.approx(change.new_rate)


def test_where_one_came_within_the_last_minute_it_trims_a_hundredth() -> None:
    controller = make()
    feed(controller, rate=5940, start_s=0, end_s=12)
    first = refuse(controller, 12.0)
    assert first is not None
    feed(controller, rate=first.new_rate, start_s=13, end_s=30)
    second = refuse(controller, 30.0)
    assert second is not None
    assert second.cause == "misaligned"
    assert second.new_rate == pytest.approx(first.new_rate * 0.99, rel=0.003)
    feed(controller, rate=second.new_rate, start_s=31, end_s=100)
    third = refuse(controller, 100.0)
    assert third is not None
    assert third.new_rate == pytest.approx(second.new_rate * 0.995, rel=0.003)


def test_accepted_is_what_was_sent_before_the_refused_request_was_however_late_the_replies_are() -> None:
    for takes_s in (0.01, 0.3, 2.0, 5.0):  # of which the lane sent on, not knowing better
        controller = make()
        feed(controller, rate=4000, start_s=0, end_s=3)
        feed(controller, rate=2000, start_s=3, end_s=3 + takes_s)
        change = controller.throttled(sent_at_s=3.0, received_at_s=3 + takes_s, retry_after_s=1)
        assert change is not None
        assert change.cause == "contended"
        assert controller.learned.rate == pytest.approx(4000, rel=0.01), takes_s


def misaligned(*, takes_s: float = 2.0, at_s: float = 12.0) -> BackoffController:
    """A lane whose first 429 of an epoch met it at the ceiling; ``takes_s`` is what it took."""
    controller = make()
    feed(controller, rate=5940, start_s=0, end_s=at_s + takes_s)
    change = controller.throttled(sent_at_s=at_s, received_at_s=at_s + takes_s, retry_after_s=1)
    assert change is not None
    assert change.cause == "misaligned"
    return controller


def test_a_moments_sends_refused_at_the_ceiling_are_bad_timing() -> None:
    controller = misaligned()
    before = controller.learned
    for number in range(1, 360):  # 60 ms of them
        sent_at_s = 12.0 + number / 6000
        assert controller.throttled(sent_at_s=sent_at_s, received_at_s=sent_at_s + 2, retry_after_s=1) is None
    assert controller.learned == before
    assert controller.milestone(now_s=14.1) is None


def test_more_than_a_moments_sends_refused_at_the_ceiling_revise_the_cause_once() -> None:
    controller = misaligned()
    trimmed = controller.learned
    for number in range(1, 2000):
        sent_at_s = 12.0 + number / 6000
        assert controller.throttled(sent_at_s=sent_at_s, received_at_s=sent_at_s + 2, retry_after_s=1) is None
    change = controller.milestone(now_s=14.4)
    assert change is not None
    assert (change.cause, change.scope, change.hold_s) == ("contended", "app", 0)
    assert change.old_rate == pytest.approx((1 - trimmed.trim) * CEILING)
    assert change.new_rate == pytest.approx(5940 * (1 - 0.14 - 0.16 * 0.99), rel=0.01)
    assert controller.learned.rate == pytest.approx(5940, rel=0.01)
    assert controller.learned.trim == 0  # it was not the timing
    assert controller.milestone(now_s=14.4) is None
    assert controller.epochs == 1
    assert controller.pace(now_s=controller.gate_until_s) == pytest.approx(0.7 * change.new_rate)


def test_refused_within_the_first_second_a_limit_is_what_was_sent_in_it() -> None:
    controller = make()
    feed(controller, rate=5940, start_s=0, end_s=0.77)
    first = controller.throttled(sent_at_s=0.67, received_at_s=0.77, retry_after_s=1)
    assert first is not None
    assert first.cause == "misaligned"  # as far as one refusal says
    for number in range(500):
        controller.throttled(sent_at_s=0.67 + number / 6000, received_at_s=0.78 + number / 6000, retry_after_s=1)
    assert controller.learned.rate == pytest.approx(5940 * 0.67, rel=0.03)


def test_where_a_burst_may_have_been_used_up_its_count_is_no_limit() -> None:
    controller = make()
    feed(controller, rate=5940, start_s=0, end_s=0.3)
    controller.throttled(sent_at_s=0.2, received_at_s=0.3, retry_after_s=1)
    for number in range(500):
        controller.throttled(sent_at_s=0.2 + number / 6000, received_at_s=0.31 + number / 6000, retry_after_s=1)
    assert controller.learned.rate == pytest.approx(5940 * 0.7, rel=0.03)


def test_late_refusals_of_an_earlier_epoch_are_none_of_this_one() -> None:
    controller = misaligned(takes_s=0.1)
    feed(controller, rate=5900, start_s=13.1, end_s=20)
    change = refuse(controller, 20.0)
    assert change is not None
    assert change.cause == "misaligned"
    for number in range(1000):
        controller.throttled(sent_at_s=12.05, received_at_s=20 + number / 10_000, retry_after_s=1)
    assert controller.milestone(now_s=20.2) is None


def test_soon_after_the_gate_opened_almost_the_whole_ceiling_proves_nothing() -> None:
    controller = make()
    feed(controller, rate=5940, start_s=0, end_s=5)
    first = refuse(controller, 5.0)
    assert first is not None
    assert first.cause == "misaligned"
    causes = []
    for start_s in (6.0, 10.0):
        feed(controller, rate=5940, start_s=start_s, end_s=start_s + 3)
        change = refuse(controller, start_s + 3)
        assert change is not None
        causes.append(change.cause)
    assert causes == ["misaligned", "contended"]  # one trim may have been too small
    assert controller.learned.trim == 0  # both are taken back


def test_the_first_refusal_of_a_run_may_be_misaligned_and_one_soon_after_it_not() -> None:
    controller = make()
    causes = []
    for start_s in (0.0, 4.0):
        feed(controller, rate=5940, start_s=start_s, end_s=start_s + 3)
        change = refuse(controller, start_s + 3)
        assert change is not None
        causes.append(change.cause)
    assert causes == ["misaligned", "contended"]  # nothing had ever spoken for a lower limit
    learned = make(learned=Learned(trim=0.0, rate=4000.0, calm=1.0))
    feed(learned, rate=5940, start_s=0, end_s=3)
    change = refuse(learned, 3.0)
    assert change is not None
    assert change.cause == "contended"


def test_a_second_refusal_within_ten_seconds_of_a_misaligned_one_may_be_misaligned_too() -> None:
    controller = misaligned(takes_s=0.1)
    for at_s in (18.0, 24.0):
        feed(controller, rate=5940, start_s=controller.gate_until_s, end_s=at_s)
        change = refuse(controller, at_s)
        assert change is not None
        assert change.cause == "misaligned"


def test_with_nothing_left_to_trim_only_a_longer_rest_speaks_for_bad_timing() -> None:
    for rest_s, cause in ((6.0, "contended"), (11.0, "misaligned")):
        controller = misaligned(takes_s=0.1)
        for _ in range(4):
            at_s = controller.gate_until_s + 6
            feed(controller, rate=5940, start_s=controller.gate_until_s, end_s=at_s)
            change = refuse(controller, at_s)
            if controller.learned.trim > 0.0299:
                break
        at_s = controller.gate_until_s + rest_s
        feed(controller, rate=5820, start_s=controller.gate_until_s, end_s=at_s)
        change = refuse(controller, at_s)
        assert change is not None
        assert change.cause == cause


def test_a_trim_that_did_not_help_is_taken_back() -> None:
    controller = make()
    feed(controller, rate=5940, start_s=0, end_s=12)
    refuse(controller, 12.0)
    feed(controller, rate=3000, start_s=13, end_s=14)
    change = refuse(controller, 14.0)
    assert change is not None
    assert change.cause == "contended"
    assert controller.learned.trim == 0


def test_it_never_trims_more_than_three_hundredths() -> None:
    controller = make()
    for number in range(6):
        start_s = 20.0 * number
        feed(
            controller,
            rate=min(5940, climb(controller, start_s=start_s, seconds=5)),
            start_s=start_s + 5,
            end_s=start_s + 18,
        )
        refuse(controller, start_s + 18.0)
    assert 0 <= controller.learned.trim <= 0.03 + 1e-12


def test_the_way_up_is_quick_then_flat_where_it_was_refused_then_steep() -> None:
    way = Climb(base=100, gain=40, settle_s=10, reach=1000, beyond_s=5)
    for climbed_s, rate in [(0, 100), (5, 135), (9, 139.96), (10, 140), (12.5, 265), (15, 1140)]:
        assert way.rate(climbed_s) == pytest.approx(rate), climbed_s


def test_it_reopens_gently() -> None:
    controller = make()
    feed(controller, rate=4000, start_s=0, end_s=2)
    change = refuse(controller, 2.0)
    assert change is not None
    assert controller.pace(now_s=3.0) == pytest.approx(0.7 * change.new_rate)
    later = climb(controller, start_s=3.0, seconds=0.35)
    assert 0.84 * change.new_rate < later < 0.92 * change.new_rate  # half of the gap, and a little climb


def test_it_climbs_back_to_the_ceiling_when_nobody_refuses_any_more() -> None:
    controller = make()
    feed(controller, rate=3000, start_s=0, end_s=2)
    refuse(controller, 2.0)
    assert climb(controller, start_s=3.0, seconds=5) < 3000
    assert climb(controller, start_s=8.0, seconds=20) == CEILING
    assert controller.is_settled
    assert controller.learned.rate is None


def test_a_lane_that_is_idle_does_not_climb() -> None:
    controller = make()
    feed(controller, rate=3000, start_s=0, end_s=2)
    refuse(controller, 2.0)
    before = climb(controller, start_s=3.0, seconds=6)
    for minute in range(60):
        controller.pace(now_s=10 + 60.0 * minute, is_busy=False)
    assert controller.pace(now_s=3611, is_busy=True) == pytest.approx(before, rel=0.05)


def test_an_hour_without_a_look_counts_for_a_second() -> None:
    controller = make()
    feed(controller, rate=3000, start_s=0, end_s=2)
    refuse(controller, 2.0)
    before = climb(controller, start_s=3.0, seconds=6)
    assert controller.pace(now_s=3609) < 1.1 * before


def test_with_nothing_accepted_it_goes_on_at_a_trickle_and_never_stops() -> None:
    controller = make()
    for number in range(30):
        at_s = 1.0 + 1.2 * number
        controller.pace(now_s=at_s - 0.1)
        refuse(controller, at_s)
    assert controller.epochs == 30
    reopened = controller.pace(now_s=controller.gate_until_s)
    assert 0 < reopened < 100


def test_refused_where_it_was_before_it_settles_with_shallower_cuts_and_longer_climbs() -> None:
    controller = make()
    lengths, kept = [], []
    at_s = 2.0
    feed(controller, rate=4000, start_s=0, end_s=2)
    for _ in range(14):
        change = refuse(controller, at_s)
        assert change is not None
        kept.append(change.new_rate / 4000)
        start_s = at_s = controller.gate_until_s
        while controller.pace(now_s=at_s) < 4040:
            controller.sent(now_s=at_s, count=round(min(4000, controller.pace(now_s=at_s)) / 20))
            at_s += 0.05
        feed(controller, rate=4000, start_s=at_s, end_s=at_s + 0.1)
        at_s += 0.1
        lengths.append(at_s - start_s)
    assert kept[-1] > kept[0] + 0.1
    assert kept[0] == pytest.approx(0.753, abs=0.01)
    assert lengths[-1] > 3 * lengths[0]
    assert controller.learned.calm > 5


def test_what_it_learned_is_where_the_next_one_begins() -> None:
    known = Learned(trim=0.01, rate=4000.0, calm=4.0)
    controller = make(learned=known)
    assert 3600 < controller.pace(now_s=10) < 3990
    assert controller.learned.rate == known.rate
    assert controller.learned.calm == known.calm
    assert controller.learned.trim == pytest.approx(0.01)
    assert not controller.is_settled


@pytest.mark.parametrize(
    "nonsense", [Learned(trim=0.5), Learned(trim=-1), Learned(rate=0), Learned(rate=9000), Learned(rate=100, calm=1e9)]
)
def test_what_cannot_have_been_learned_keeps_the_rate_within_bounds(nonsense: Learned) -> None:
    pace = climb(make(learned=nonsense), start_s=0, seconds=1)
    assert 0 < pace <= CEILING


def test_what_it_learned_survives_a_file() -> None:
    known = Learned(trim=0.0125, rate=3987.5, calm=3.2)
    assert msgspec.json.decode(msgspec.json.encode(known), type=Learned) == known


def test_each_step_of_the_way_back_is_told_once() -> None:
    controller = make()
    feed(controller, rate=3000, start_s=0, end_s=2)
    refuse(controller, 2.0)
    told = []
    for step in range(400):
        now_s = 2.0 + step / 10
        controller.pace(now_s=now_s)
        change = controller.milestone(now_s=now_s)
        if change is not None:
            told.append((change.cause, now_s, change.old_rate))
    assert [cause for cause, _, _ in told] == ["reopened", "probing", "recovered"]
    assert told[0][1:] == (3.0, 0.0)
    assert told[1][2] == pytest.approx(3000, rel=0.01)


@pytest.mark.parametrize("ceiling", [0.5, 1.0, 10.0, 37.5, 150.0, 10_000.0])
def test_small_ceilings_work_alike(ceiling: float) -> None:
    controller = make(ceiling=ceiling)
    at_s, owed = 0.0, 0.0
    while at_s < 60:
        owed += 0.5 * ceiling * 0.05
        controller.sent(now_s=at_s, count=int(owed))
        owed -= int(owed)
        controller.pace(now_s=at_s)
        at_s += 0.05
    change = refuse(controller, 60.0)
    assert change is not None
    assert change.cause == "contended"
    # 0.78 of what was accepted, but always a request a second where the ceiling allows twice that
    expected = max(0.78 * 0.5 * ceiling, min(1.0, ceiling / 2))
    assert change.new_rate == pytest.approx(expected, rel=0.12)  # twenty requests are a coarse count
