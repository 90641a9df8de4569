"""What holds for every lane and every sequence of replies."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.core.backoff import BackoffController, Climb, Learned

ceilings = st.floats(0.5, 10_000)
rates = st.floats(0, 1)


@dataclass(frozen=True)
class Look:
    """The lane looks at its pace after a while."""

    after_s: float
    is_busy: bool


@dataclass(frozen=True)
class Sent:
    """Requests are sent, as part of what the pace allows in a tenth of a second."""

    part: float


@dataclass(frozen=True)
class Refused:
    """429s arrive together for requests that were sent a while ago."""

    sent_ago_s: float
    retry_after_s: float | None
    count: int


steps = st.lists(
    st.one_of(
        st.builds(Look, after_s=st.floats(0, 30), is_busy=st.booleans()),
        st.builds(Sent, part=st.floats(0, 1.5)),
        st.builds(
            Refused,
            sent_ago_s=st.floats(0, 5),
            retry_after_s=st.none() | st.floats(-1, 100) | st.sampled_from([float("nan"), float("inf")]),
            count=st.integers(1, 20) | st.just(1000),
        ),
    ),
    max_size=60,
)
known = st.none() | st.builds(
    Learned, trim=st.floats(-1, 1), rate=st.none() | st.floats(-1, 20_000), calm=st.floats(-1, 100)
)


@settings(max_examples=150)
@given(ceilings, known, steps)
def test_whatever_comes_the_rate_is_above_nothing_and_at_most_the_ceiling_and_falls_with_each_epoch(
    ceiling: float, learned: Learned | None, steps: list[Look | Sent | Refused]
) -> None:
    now_s = 100.0
    controller = BackoffController(ceiling=ceiling, missing_retry_after_s=60, now_s=now_s, learned=learned)
    lowest = max(ceiling / 500, min(1.0, ceiling / 2))
    for step in steps:
        gate_s, epochs = controller.gate_until_s, controller.epochs
        match step:
            case Look(after_s=after_s, is_busy=is_busy):
                now_s += after_s
                pace = controller.pace(now_s=now_s, is_busy=is_busy)
                assert (pace == 0) == (now_s < gate_s)
                assert pace == 0 or lowest * 0.999 <= pace <= ceiling
            case Sent(part=part):
                controller.sent(now_s=now_s, count=round(part * ceiling / 10))
            case Refused(sent_ago_s=ago_s, retry_after_s=retry_after_s, count=count):
                before, at_s = controller.learned, now_s - ago_s
                change = controller.throttled(sent_at_s=at_s, received_at_s=now_s, retry_after_s=retry_after_s)
                assert controller.gate_until_s >= max(gate_s, now_s + 1)
                assert (change is None) == (at_s < gate_s)
                assert controller.epochs == epochs + (change is not None)
                if change is not None:
                    lowest_top = 0.97 * ceiling if change.cause == "misaligned" else lowest
                    assert change.new_rate < change.old_rate or change.new_rate == pytest.approx(lowest_top)
                    assert change.hold_s == pytest.approx(controller.gate_until_s - now_s)
                    assert controller.pace(now_s=controller.gate_until_s) <= change.new_rate * 1.000001
                    before = controller.learned
                for _ in range(count - 1):
                    assert controller.throttled(sent_at_s=at_s, received_at_s=now_s, retry_after_s=0) is None
                revision = controller.milestone(now_s=now_s)
                if revision is None:
                    assert controller.learned == before
                else:
                    assert revision.cause == "contended"
                    assert revision.new_rate < revision.old_rate
                    assert controller.pace(now_s=controller.gate_until_s) <= revision.new_rate * 1.000001
                assert controller.epochs == epochs + (change is not None)
        assert 0 <= controller.learned.trim <= 0.03 + 1e-9


@given(
    st.floats(0.1, 5000),
    st.floats(0, 3000),
    st.floats(1, 300),
    st.floats(1, 100),
    st.lists(st.floats(0, 400), min_size=2),
)
def test_a_climb_never_falls_and_starts_at_its_base(
    base: float, gain: float, settle_s: float, beyond_s: float, times: list[float]
) -> None:
    way = Climb(base, gain, settle_s, 6000.0, beyond_s)
    assert way.rate(0) == base
    climbed = [way.rate(each) for each in sorted(times)]
    assert all(later >= earlier * (1 - 1e-12) for earlier, later in pairwise(climbed))


@given(st.floats(10, 5000), st.floats(10, 5000), st.integers(0, 100))
def test_between_two_epochs_every_engine_gains_the_same_whatever_its_share(
    one_rate: float, other_rate: float, tenths: int
) -> None:
    """Two engines whose last epochs were alike but for what was accepted."""
    gains = []
    for rate in (one_rate, other_rate):
        controller = BackoffController(ceiling=6000, missing_retry_after_s=60, now_s=0)
        for slot in range(100):
            controller.sent(now_s=slot / 100, count=round(rate / 100 * (slot + 1)) - round(rate / 100 * slot))
        change = controller.throttled(sent_at_s=0.9, received_at_s=1.0, retry_after_s=1.0)
        assert change is not None
        later = [controller.pace(now_s=7.0 + tenth / 10) for tenth in range(tenths + 1)]  # once it has reopened
        gains.append(later[-1] - later[0])
    assert gains[0] == pytest.approx(gains[1], abs=1e-6)
