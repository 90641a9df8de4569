"""What a lane of user updates draws from: who may go, in which order, and what is remembered of whom."""

from collections.abc import Sequence
from typing import Literal

import pytest

from sendengine import Accepted, Ambiguous, Expired, Receipt, Rejected, UpdateUser, alias, external_id
from sendengine.core.requests import UserRequest
from sendengine.core.verdicts import Fault, Refused, Took
from sendengine.engine.receipts import Receipt as ReceiptType
from sendengine.engine.sealed import Sealed
from sendengine.engine.source import Resolution
from sendengine.engine.users import UserSource
from sendengine.ports import Part
from tests.support.engines import APP_ID, change, remembered

TOOK = Took()


class Users:
    """A source with a clock of its own; it books what settles, as a lane would."""

    def __init__(self) -> None:
        self.source = UserSource(app_id=APP_ID, max_modifications=100)
        self.now_s = 1000.0

    def add(self, job: UpdateUser) -> Receipt:
        deadline_s = None if job.expires_in_s is None else self.now_s + job.expires_in_s
        receipt = ReceiptType(job, deadline_s=deadline_s, size_bytes=1)
        self.source.add(receipt, content=b"", now_s=self.now_s)
        return receipt

    def pull(self, *, prefer_normal: bool = False) -> Sealed | None:
        sealed = self.source.pull(now_s=self.now_s, prefer_normal=prefer_normal)
        if sealed is not None:
            sealed.launch(now_s=self.now_s)
        return sealed

    def must_pull(self) -> Sealed:
        sealed = self.pull()
        assert sealed is not None
        return sealed

    def pull_users(self, *, prefer_normal: bool = False) -> list[str]:
        """The users of all requests that may go now; they stay on the wire."""
        users = []
        while (sealed := self.pull(prefer_normal=prefer_normal)) is not None:
            users.append(request_of(sealed).user_id)
        return users

    def book(self, resolution: Resolution) -> Resolution:
        for receipt, ids, outcome in resolution.settled:
            if receipt.book(Part(ids, outcome)):
                receipt.settle()
        return resolution

    def took(self, sealed: Sealed) -> Resolution:
        return self.book(self.source.took(sealed, TOOK, now_s=self.now_s))

    def refused(self, sealed: Sealed, *, status: int = 400, fault: Fault = Fault.UNNAMED) -> Resolution:
        return self.book(self.source.refused(sealed, Refused(status, ("no",), fault), now_s=self.now_s))

    def run(self, bad: Sequence[str] = ()) -> list[UserRequest]:
        """Send everything, refusing requests with a bad tag; returns the requests in order."""
        requests: list[UserRequest] = []
        for _ in range(1000):
            sealed = self.pull()
            if sealed is None:
                due_s = self.source.next_due_s(now_s=self.now_s)
                if due_s is None:
                    return requests
                self.now_s = max(self.now_s, due_s)
                continue
            request = request_of(sealed)
            requests.append(request)
            self.now_s += 0.1
            if any(tag in request.tags for tag in bad):
                self.refused(sealed)
            else:
                self.took(sealed)
        raise AssertionError("it never ends")


def request_of(sealed: Sealed) -> UserRequest:
    assert isinstance(sealed.request, UserRequest)
    return sealed.request


def kinds(receipts: Sequence[Receipt]) -> list[type]:
    return [type(receipt.outcome) for receipt in receipts]


def test_what_waits_for_a_user_is_one_request() -> None:
    users = Users()
    for tags in ({"a": 1}, {"b": 2}, {"a": 3}):
        users.add(change("u", **tags))
    assert users.source.waiting == 3
    request = request_of(users.must_pull())
    assert request.tags == {"a": "3", "b": "2"}
    assert users.source.waiting == 0


async def test_a_user_has_one_request_in_flight_and_its_next_a_second_after_it_was_sent() -> None:
    users = Users()
    users.add(change("u", a=1))
    sealed = users.must_pull()
    users.add(change("u", a=2))
    users.now_s += 5
    assert users.pull() is None
    assert users.source.next_due_s(now_s=users.now_s) is None  # only its reply can free it
    users.took(sealed)
    assert users.must_pull().sent_at_s == users.now_s  # its second had passed while it was on the wire

    users.add(change("v", a=1))
    sealed = users.must_pull()
    users.add(change("v", a=2))
    users.now_s += 0.2
    users.took(sealed)
    assert users.pull() is None
    due_s = users.source.next_due_s(now_s=users.now_s)
    assert due_s is not None
    assert abs(due_s - (sealed.sent_at_s + 1.05)) < 1e-9
    users.now_s = due_s
    assert request_of(users.must_pull()).tags == {"a": "2"}


def test_users_go_in_the_order_in_which_they_came() -> None:
    users = Users()
    for user in "abcab":
        users.add(change(user, x=1))
    assert users.pull_users() == ["a", "b", "c"]


def test_urgency_orders_users_and_never_one_users_own_updates() -> None:
    users = Users()
    users.add(change("a", x=1))
    users.add(change("b", x=1))
    users.add(UpdateUser(external_id("c"), tags={"x": 1}, urgency="high"))
    users.add(UpdateUser(external_id("b"), tags={"x": 2}, urgency="high"))
    assert users.source.has_high
    sealed = [users.must_pull() for _ in range(3)]
    assert [request_of(one).user_id for one in sealed] == ["c", "b", "a"]
    assert request_of(sealed[1]).tags == {"x": "2"}  # both of b's, in their order
    assert [one.is_high for one in sealed] == [True, True, False]
    assert not users.source.has_high


def test_normal_users_get_their_turn_where_the_lane_says_so() -> None:
    users = Users()
    users.add(change("normal", x=1))
    users.add(UpdateUser(external_id("high"), tags={"x": 1}, urgency="high"))
    assert users.pull_users(prefer_normal=True) == ["normal", "high"]


async def test_a_user_who_becomes_high_while_busy_goes_first_when_free() -> None:
    users = Users()
    users.add(change("u", x=1))
    sealed = users.must_pull()
    users.add(UpdateUser(external_id("u"), tags={"x": 2}, urgency="high"))
    users.add(change("v", x=1))
    assert not users.source.has_high
    users.now_s += 2
    users.took(sealed)
    assert users.source.has_high
    assert users.pull_users() == ["u", "v"]


async def test_only_users_with_pending_changes_or_within_their_second_are_remembered() -> None:
    users = Users()
    for number in range(100):
        users.add(change(f"u{number}", x=1))
    while (sealed := users.pull()) is not None:
        users.took(sealed)
    assert remembered(users.source) == 100  # within their second
    users.now_s += 1.06
    assert users.source.next_due_s(now_s=users.now_s) is None
    assert remembered(users.source) == 0


async def test_a_user_whose_changes_all_expired_before_the_wire_is_forgotten() -> None:
    users = Users()
    receipt = users.add(UpdateUser(external_id("u"), tags={"x": 1}, expires_in_s=1))
    sealed = users.source.pull(now_s=users.now_s, prefer_normal=False)
    assert sealed is not None
    users.now_s += 2
    users.book(users.source.unseal(sealed, now_s=users.now_s))
    assert receipt.outcome == Expired(("u",))
    assert remembered(users.source) == 0


async def test_without_coalescing_a_job_stays_alone_and_in_its_place() -> None:
    users = Users()
    jobs = [change("u", a=1), UpdateUser(external_id("u"), tags={"b": 1}, coalesce=False), change("u", c=1)]
    receipts = [users.add(job) for job in jobs]
    assert [request.tags for request in users.run()] == [{"a": "1"}, {"b": "1"}, {"c": "1"}]
    assert kinds(receipts) == [Accepted] * 3


async def test_more_than_a_hundred_modifications_are_several_requests_and_one_outcome() -> None:
    users = Users()
    receipt = users.add(change("u", **{f"t{number}": number for number in range(250)}))
    requests = users.run()
    assert [len(request.tags) for request in requests] == [100, 100, 50]
    assert receipt.outcome == Accepted(attempts=3)
    assert users.source.waiting == 0


async def test_a_refused_merge_is_taken_apart_in_order_before_anything_newer() -> None:
    users = Users()
    receipts = [users.add(job) for job in (change("u", a=1), change("u", bad=1), change("u", a=2))]
    sealed = users.must_pull()
    newer = users.add(change("u", a=3))
    resolution = users.refused(sealed)
    assert (resolution.settled, resolution.is_replaced) == ([], True)
    assert users.source.waiting == 4
    assert [request.tags for request in users.run(bad=["bad"])] == [
        {"a": "1"},
        {"bad": "1"},
        {"a": "2"},
        {"a": "3"},
    ]
    assert kinds([*receipts, newer]) == [Accepted, Rejected, Accepted, Accepted]
    assert users.source.waiting == 0


async def test_a_high_job_stays_high_where_the_merge_that_it_was_in_is_taken_apart() -> None:
    users = Users()
    users.add(UpdateUser(external_id("u"), tags={"a": 1}, urgency="high"))
    users.add(change("u", bad=1))
    users.refused(users.must_pull())
    for number in range(3):
        users.add(change(f"v{number}", a=1))
    users.now_s += 2
    sealed = users.must_pull()
    assert (request_of(sealed).tags, sealed.is_high) == ({"a": "1"}, True)
    users.took(sealed)
    users.now_s += 2
    assert users.pull_users() == ["v0", "v1", "v2", "u"], "what is left is normal"


def test_a_user_is_high_for_as_long_as_a_high_job_of_theirs_waits() -> None:
    users = Users()
    users.add(change("u", a=1))
    users.add(UpdateUser(external_id("u"), tags={"b": 1}, urgency="high", expires_in_s=5))
    users.now_s += 5
    assert len(users.source.expire(now_s=users.now_s)) == 1
    assert not users.must_pull().is_high
    users.add(change("w", **{f"t{number}": 1 for number in range(150)}))
    users.add(UpdateUser(external_id("w"), tags={"b": 1}, urgency="high"))
    behind = users.must_pull()
    assert behind.is_high, "it goes before what is high"
    users.took(behind)
    users.add(change("w", **{f"t{number}": 2 for number in range(150)}))
    users.now_s += 2
    in_it = users.must_pull()
    assert in_it.is_high
    users.took(in_it)
    users.now_s += 2
    assert not users.must_pull().is_high


async def test_a_status_that_no_value_explains_is_not_taken_apart() -> None:
    users = Users()
    receipts = [users.add(change("u", a=1)), users.add(change("u", b=1))]
    assert len(users.refused(users.must_pull(), status=404).settled) == 2
    assert kinds(receipts) == [Rejected] * 2


async def test_a_job_that_spans_two_requests_settles_although_the_first_was_taken_apart() -> None:
    users = Users()
    one = users.add(change("u", **{f"a{number}": 1 for number in range(60)}))
    two = users.add(change("u", **{f"b{number}": 1 for number in range(60)}))
    users.refused(users.must_pull())
    requests = users.run()
    assert [len(request.tags) for request in requests] == [60, 40, 20]
    assert one.outcome == Accepted()
    assert two.outcome == Accepted(attempts=2)
    assert users.source.waiting == 0


async def test_at_the_tag_cap_deletions_go_first_and_every_job_settles_once() -> None:
    users = Users()
    receipts = [users.add(change("u", **{f"new{number}": 1, f"old{number}": None})) for number in range(5)]
    users.refused(users.must_pull(), status=409, fault=Fault.TAG_CAP)
    assert users.source.waiting > 0
    first, second = users.run()
    assert first.tags == {f"old{number}": "" for number in range(5)}
    assert second.tags == {f"new{number}": "1" for number in range(5)}
    assert kinds(receipts) == [Accepted] * 5
    assert users.source.waiting == 0


async def test_a_job_that_spans_two_requests_settles_although_the_tag_cap_parted_its_first() -> None:
    users = Users()
    changes = {f"new{number}": 1 for number in range(60)} | {f"old{number}": None for number in range(60)}
    receipt = users.add(change("u", **changes))
    users.refused(users.must_pull(), status=409, fault=Fault.TAG_CAP)
    users.run()
    assert isinstance(receipt.outcome, Accepted)
    assert users.source.waiting == 0


async def test_unsealing_leaves_the_others_in_their_place_and_every_job_settles() -> None:
    users = Users()
    late = users.add(UpdateUser(external_id("u"), tags={"x": 1}, expires_in_s=1))
    spanning = users.add(change("u", **{f"t{number}": 1 for number in range(120)}))
    sealed = users.source.pull(now_s=users.now_s, prefer_normal=False)
    assert sealed is not None
    users.now_s += 2
    users.book(users.source.unseal(sealed, now_s=users.now_s))
    assert late.outcome == Expired(("u",))
    requests = users.run()
    assert [len(request.tags) for request in requests] == [99, 21]
    assert isinstance(spanning.outcome, Accepted)
    assert users.source.waiting == 0


async def test_deltas_of_a_job_that_spans_requests_become_ambiguous_and_it_settles_with_its_last() -> None:
    users = Users()
    purchases = [{"sku": str(number), "amount": "1", "iso": "EUR"} for number in range(150)]
    receipt = users.add(UpdateUser(external_id("u"), deltas={"purchases": purchases}))
    sealed = users.must_pull()
    assert users.source.uncertain(sealed, evidence="lost") == []
    users.now_s += 2
    users.book(users.source.ended(sealed, now_s=users.now_s))
    assert not receipt.is_settled
    users.run()
    assert isinstance(receipt.outcome, Ambiguous)
    assert users.source.waiting == 0


async def test_tags_go_again_without_the_deltas_that_may_have_been_counted() -> None:
    users = Users()
    both = users.add(UpdateUser(external_id("u"), tags={"a": 1}, deltas={"session_count": 1}))
    plain = users.add(change("u", b=1))
    only = users.add(UpdateUser(external_id("u"), deltas={"session_time": 5}))
    again = users.add(UpdateUser(external_id("u"), deltas={"session_count": 2}, on_ambiguous="retry"))
    sealed = users.must_pull()
    assert request_of(sealed).deltas == {"session_count": 3, "session_time": 5}
    assert users.source.uncertain(sealed, evidence="lost") is None
    assert request_of(sealed).tags == {"a": "1", "b": "1"}
    assert request_of(sealed).deltas == {"session_count": 2}
    assert users.source.uncertain(sealed, evidence="lost again") is None  # nothing more becomes ambiguous
    users.took(sealed)
    assert kinds([both, plain, only, again]) == [Ambiguous, Accepted, Ambiguous, Accepted]
    assert both.outcome == Ambiguous("lost", attempts=2, not_sent=("u",))


async def test_a_deadline_that_passes_while_it_waits_takes_the_job_out_and_leaves_the_others() -> None:
    users = Users()
    late = users.add(UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=5))
    users.add(change("u", b=1))
    alone = users.add(UpdateUser(external_id("v"), tags={"a": 1}, expires_in_s=7))
    assert users.source.next_expiry_s() == 1005.0
    assert users.source.expire(now_s=1004.9) == []
    assert users.source.expire(now_s=1005.0) == [(late, ("u",))]
    assert users.source.expire(now_s=1007.0) == [(alone, ("v",))]
    assert users.source.next_expiry_s() is None
    assert remembered(users.source) == 1
    assert users.source.waiting == 1
    assert request_of(users.must_pull()).tags == {"b": "1"}


def test_what_is_begun_does_not_expire_while_it_waits() -> None:
    users = Users()
    users.add(UpdateUser(external_id("u"), tags={f"t{number}": 1 for number in range(120)}, expires_in_s=5))
    users.must_pull()
    assert users.source.next_expiry_s() is None
    assert users.source.expire(now_s=2000.0) == []


def test_everything_that_waits_can_be_withdrawn_each_job_once() -> None:
    users = Users()
    spanning = users.add(change("u", **{f"t{number}": 1 for number in range(250)}))
    other = users.add(change("v", a=1))
    assert sorted(receipt is spanning for receipt, _ in users.source.withdraw_all()) == [False, True]
    assert users.source.waiting == 0
    assert users.pull() is None
    assert not other.is_settled


def test_the_oldest_is_the_one_that_waits_longest() -> None:
    users = Users()
    assert users.source.oldest_s is None
    users.add(change("u", a=1))
    users.now_s += 3
    users.add(change("v", a=1))
    assert users.source.oldest_s == 1000.0
    users.must_pull()
    assert users.source.oldest_s == 1003.0


@pytest.mark.parametrize("urgency", ["high", "normal"])
def test_a_high_user_and_one_within_its_second_wait_too(urgency: Literal["high", "normal"]) -> None:
    users = Users()
    users.add(change("v", a=1))
    users.took(users.must_pull())
    users.add(UpdateUser(external_id("v" if urgency == "normal" else "u"), {"a": "1"}, urgency=urgency))
    users.now_s += 0.5
    users.add(change("w", a=1))
    assert users.source.oldest_s == 1000.0


def test_the_same_id_under_another_label_is_another_user() -> None:
    users = Users()
    users.add(change("1", a=1))
    users.add(UpdateUser(alias("crm_id", "1"), tags={"a": 2}))
    assert len(users.pull_users()) == 2


async def test_a_job_of_which_a_part_took_effect_goes_on_although_its_deadline_passes() -> None:
    users = Users()
    receipt = users.add(UpdateUser(external_id("u"), tags={f"t{number}": 1 for number in range(120)}, expires_in_s=5))
    users.took(users.must_pull())
    users.now_s += 10
    sealed = users.must_pull()
    assert sealed.deadline_s is None
    users.took(sealed)
    assert receipt.outcome == Accepted(attempts=2)


async def test_deadlines_of_jobs_that_have_settled_are_not_kept_until_they_pass() -> None:
    users = Users()
    for number in range(5000):
        users.add(UpdateUser(external_id(f"u{number}"), tags={"a": 1}, expires_in_s=86_400))
        users.took(users.must_pull())
    assert len(users.source._deadlines) < 3000


async def test_deadlines_of_jobs_that_are_on_the_wire_are_not_looked_at_for_each_that_comes() -> None:
    users = Users()
    for number in range(5000):
        users.add(UpdateUser(external_id(f"u{number}"), tags={"a": 1}, expires_in_s=86_400))
        users.must_pull()
    assert len(users.source._deadlines) < 1000, "all would be gone through with each job"
    waiting = users.add(UpdateUser(external_id("late"), tags={"a": 1}, expires_in_s=10))
    assert [receipt for receipt, _ in users.source.expire(now_s=users.now_s + 10)] == [waiting]


def test_a_user_is_held_until_the_last_of_its_holds_is_over() -> None:
    users = Users()
    users.add(change("u", a=1))
    users.took(users.must_pull())
    begin_s = users.now_s  # the user's second runs
    left = change("u", b=2)
    receipt = ReceiptType(left, deadline_s=None, size_bytes=1)
    users.source.restore(
        receipt, left, content=b"", now_s=begin_s, not_before_s=begin_s + 100, is_foreign=True
    )  # another engine died with it on the wire
    for after_s, may_go in [(1.5, False), (99, False), (100, True)]:
        users.now_s = begin_s + after_s
        assert (users.pull() is not None) is may_go, after_s


def test_a_shorter_hold_does_not_end_a_longer_one() -> None:
    users = Users()
    for name, until_s in [("a", 100.0), ("b", 50.0)]:
        left = change("u", **{name: 1})
        receipt = ReceiptType(left, deadline_s=None, size_bytes=1)
        users.source.restore(
            receipt, left, content=b"", now_s=users.now_s, not_before_s=1000 + until_s, is_foreign=True
        )
    users.now_s = 1060
    assert users.pull() is None
    users.now_s = 1100
    assert users.pull() is not None
