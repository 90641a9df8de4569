"""What a lane knows of its messages, for how long, and of how many."""

from sendengine.core.drafts import PackKey
from sendengine.core.requests import NotificationRequest
from sendengine.core.targets import external_id
from sendengine.core.verdicts import Refused
from sendengine.engine.messages import Messages, Subject, subject_of, subject_of_group

REFUSED = Refused(400, ("contents: bad",))


def subject(number: int) -> Subject:
    return b"%d" % number, "push", "alias", "external_id"


def test_nothing_is_known_at_first() -> None:
    messages = Messages()
    assert (messages.has_faulty, messages.is_good(subject(1)), messages.fault(subject(1), now_s=0.0)) == (
        False,
        False,
        None,
    )


def test_a_message_that_was_accepted_is_good_and_another_is_not() -> None:
    messages = Messages()
    messages.accept(subject(1))
    assert [messages.is_good(subject(number)) for number in (1, 2)] == [True, False]


def test_a_message_at_fault_is_refused_for_a_minute_from_when_it_was_refused_last() -> None:
    messages = Messages()
    messages.blame(subject(1), REFUSED, now_s=100.0)
    assert messages.has_faulty
    for at_s, found in [(100.0, REFUSED), (159.9, REFUSED), (160.0, None)]:
        assert messages.fault(subject(1), now_s=at_s) == found, f"at {at_s} s"
    messages.blame(subject(1), Refused(422), now_s=160.0)
    assert messages.fault(subject(1), now_s=219.0) == Refused(422)
    assert messages.fault(subject(2), now_s=160.0) is None


def test_of_each_kind_the_thousand_that_were_met_last_are_remembered() -> None:
    messages = Messages()
    for number in range(1000):
        messages.accept(subject(number))
        messages.blame(subject(number), REFUSED, now_s=0.0)
    messages.accept(subject(0))
    messages.blame(subject(0), REFUSED, now_s=0.0)
    messages.accept(subject(1000))
    messages.blame(subject(1000), REFUSED, now_s=0.0)
    asked = (0, 1, 2, 1000)
    assert [messages.is_good(subject(number)) for number in asked] == [True, False, True, True]
    faults = [messages.fault(subject(number), now_s=1.0) for number in asked]
    assert faults == [REFUSED, None, REFUSED, REFUSED]


def test_a_request_and_the_jobs_that_it_was_packed_of_have_the_same_message() -> None:
    request = NotificationRequest("app", "key", b"{}", external_id("a", "b"), "push", None)
    assert subject_of(request) == subject_of_group(PackKey(b"{}", "push", "alias", "external_id"))
    assert subject_of(request) != subject_of_group(PackKey(b"{}", "email", "alias", "external_id"))
