"""The ledger's own audit, by tables with a handed-in clock; and doubled effects, counted another way."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.mockserver import messages
from sendengine.mockserver.ledger import LaneLedger, Ledger
from sendengine.mockserver.messages import Message, MessageLog, pack, recipients


def lane(grace_s: float = 0.05) -> LaneLedger:
    return LaneLedger(grace_s=grace_s)


def test_the_peak_is_the_most_in_any_one_second() -> None:
    ledger = lane()
    for now_s, status in [(0.0, 200), (0.6, 429), (0.9, 200), (1.0, 200), (1.5, 200), (1.8, 503), (3.0, 200)]:
        ledger.arrived(now_s)
        ledger.judged(status, now_s)
    assert (ledger.peak_1s, ledger.accepted_peak_1s) == (4, 3)  # 0.9 to 1.8; of them 0.9, 1.0, 1.5
    assert ledger.count(200) == 5
    assert ledger.timeline() == [(2, 1), (2, 0), (0, 0), (1, 0)]
    assert ledger.timeline(width_s=2.0) == [(4, 1), (1, 0)]


def test_what_comes_between_a_429_and_its_retry_after_was_sent_inside_the_hold() -> None:
    ledger = lane()
    ledger.hold_announced(1.0, now_s=10.0)
    ledger.hold_announced(2.0, now_s=10.5)  # until 12.5
    for now_s in (10.5, 10.52, 11.5, 12.49, 12.5, 13.0):
        ledger.arrived(now_s)
    assert list(ledger.inside_hold_raw) == [10.5, 10.52, 11.5, 12.49]
    assert list(ledger.inside_hold) == [10.5, 10.52, 11.5, 12.49]  # the first hold covers the first two


def test_what_was_under_way_when_the_429_was_written_is_in_the_raw_count_alone() -> None:
    ledger = lane(grace_s=0.05)
    ledger.hold_announced(1.0, now_s=10.0)
    for now_s in (10.0, 10.04, 10.06):
        ledger.arrived(now_s)
    ledger.hold_announced(1.0, now_s=10.98)  # so late that whoever came at 11.01 cannot know of it
    ledger.arrived(11.01)
    ledger.arrived(11.04)
    assert list(ledger.inside_hold_raw) == [10.0, 10.04, 10.06, 11.01, 11.04]
    assert list(ledger.inside_hold) == [10.06, 11.04]
    assert ledger.holds == [(10.0, 11.0), (10.98, 11.98)]


def test_a_users_hold_concerns_that_user_only() -> None:
    ledger = lane()
    ledger.user_hold_announced("a", 1.0, now_s=5.0)
    for user, now_s in [("b", 5.5), ("a", 5.01), ("a", 5.5), ("a", 6.0)]:
        ledger.user_arrived(user, now_s)
    assert list(ledger.user_inside_hold) == [5.5]


def test_holds_of_users_are_forgotten_when_they_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sendengine.mockserver.ledger._USER_HOLDS", 10)
    ledger = lane()
    for number in range(100):
        ledger.user_hold_announced(f"u{number}", 1.0, now_s=float(number))
    ledger.user_arrived("u99", 99.5)
    assert len(ledger._user_holds) <= 12  # what the bound is for cannot be seen from outside
    assert list(ledger.user_inside_hold) == [99.5]


def message(content: int, *ids: str, kind: str = "external_id") -> Message:
    return Message("app", "push", kind, None, content, len(ids), pack(ids), 0.0)


deliveries = st.lists(
    st.tuples(st.integers(1, 3), st.lists(st.sampled_from(["a", "b\nc", "ü", "", "d" * 200]), unique=True, min_size=1)),
    max_size=12,
)


@given(deliveries, st.sampled_from([1, 2, 1_000_000]))
def test_doubled_effects_are_deliveries_of_one_content_to_one_recipient_beyond_the_first(
    sent: list[tuple[int, list[str]]], at_once: int
) -> None:
    log = MessageLog(generation=1)
    for content, ids in sent:
        log.add(message(content, *ids))
    counts = Counter((content, name) for content, ids in sent for name in ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "_PASS", at_once)
        assert log.doubled().effects == sum(count - 1 for count in counts.values())
    assert log.deliveries() == Counter(f"external_id:{name}" for _, ids in sent for name in ids)


def test_the_audit_names_some_of_the_doubled() -> None:
    log = MessageLog(generation=1)
    for ids in (("a", "b"), ("b", "c"), ("c", "b")):
        log.add(message(7, *ids))
    doubled = log.doubled()
    assert (doubled.effects, doubled.sample) == (3, ("external_id:b", "external_id:c"))


@given(st.lists(st.text(), min_size=1))
def test_packed_recipients_come_back_as_they_were(ids: list[str]) -> None:
    assert list(recipients(message(0, *ids))) == ids


def test_a_message_is_found_by_its_id() -> None:
    log = MessageLog(generation=3)
    places = [log.add(message(0, name)) for name in "ab"]
    assert [log.find(log.message_id(place)) for place in places] == [log[0], log[1]]
    assert log.find("5e4de491-0003-4000-8000-000000000002") is None
    assert log.find("5e4de491-0002-4000-8000-000000000000") is None  # from before a reset
    assert log.find("nonsense") is None
    assert log.find("5e4de491-0003-4000-8000-nonsense") is None


def test_recipients_of_messages_can_be_added_up() -> None:
    ledger = Ledger(grace_s=0.05, generation=1)
    places = [ledger.messages.add(message(0, *ids)) for ids in ("abc", "de")]
    ids = [ledger.messages.message_id(place) for place in places]
    assert ledger.recipients_of([*ids, "unknown"]) == 5
