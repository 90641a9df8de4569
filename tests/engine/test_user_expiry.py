"""Deadlines of many jobs that wait for few users: all that passed come out at once, and the others stay."""

from sendengine import UpdateUser, external_id
from sendengine.core.requests import UserRequest
from sendengine.engine.receipts import Receipt
from sendengine.engine.users import UserSource
from tests.support.engines import APP_ID, remembered
from tests.support.lines import lines_executed


def added(source: UserSource, user: str, tag: str, *, deadline_s: float | None) -> Receipt:
    job = UpdateUser(external_id(user), {tag: 1})
    receipt = Receipt(job, deadline_s=deadline_s, size_bytes=1)
    source.add(receipt, content=b"", now_s=0.0)
    return receipt


def test_jobs_of_several_users_expire_together_in_the_order_of_their_deadlines() -> None:
    source = UserSource(app_id=APP_ID, max_modifications=100)
    late = [added(source, f"u{number % 3}", f"late-{number}", deadline_s=10.0 - number) for number in range(6)]
    stays = added(source, "u1", "stays", deadline_s=20.0)
    open_end = added(source, "u1", "open", deadline_s=None)
    assert source.waiting == 8
    assert [receipt for receipt, _ in source.expire(now_s=10.0)] == late[::-1]
    assert (source.waiting, remembered(source)) == (2, 1), "users with nothing left are forgotten"
    sealed = source.pull(now_s=10.0, prefer_normal=False)
    assert sealed is not None
    assert [receipt for receipt, _ in sealed.shares] == [stays, open_end]
    assert isinstance(sealed.request, UserRequest)
    assert sealed.request.tags == {"stays": "1", "open": "1"}
    assert sealed.deadline_s == 20.0
    assert source.waiting == 0


def test_a_user_that_is_on_the_wire_is_remembered_though_all_that_waits_for_it_expires() -> None:
    source = UserSource(app_id=APP_ID, max_modifications=100)
    added(source, "u", "first", deadline_s=None)
    assert source.pull(now_s=0.0, prefer_normal=False) is not None
    late = added(source, "u", "late", deadline_s=5.0)
    assert source.expire(now_s=5.0) == [(late, ("u",))]
    assert remembered(source) == 1
    added(source, "u", "next", deadline_s=None)
    assert source.pull(now_s=100.0, prefer_normal=False) is None, "one in flight a user"


def test_a_high_job_that_expires_leaves_its_user_in_line_for_the_others() -> None:
    source = UserSource(app_id=APP_ID, max_modifications=100)
    added(source, "u", "normal", deadline_s=None)
    high = Receipt(UpdateUser(external_id("u"), {"x": 1}, urgency="high"), deadline_s=1, size_bytes=1)
    source.add(high, content=b"", now_s=0.0)
    assert [receipt for receipt, _ in source.expire(now_s=1.0)] == [high]
    sealed = source.pull(now_s=1.0, prefer_normal=False)
    assert sealed is not None
    assert len(sealed.shares) == 1


def lines_for(jobs: int) -> int:
    """How many lines of the core it takes until all of one user's jobs have expired, each at an instant of its own."""
    source = UserSource(app_id=APP_ID, max_modifications=100)
    receipts = [added(source, "u", f"t{number}", deadline_s=1.0 + number) for number in range(jobs)]
    gone: list[Receipt] = []

    def expire_all() -> None:
        for number in range(jobs):
            gone.extend(receipt for receipt, _ in source.expire(now_s=1.0 + number))

    lines = lines_executed(expire_all)
    assert gone == receipts
    assert (source.waiting, remembered(source)) == (0, 0)
    return lines


def test_jobs_of_one_user_that_expire_one_by_one_do_not_cost_more_the_more_there_are() -> None:
    assert lines_for(2000) < 11 * lines_for(200)


def test_what_has_expired_is_not_sent_although_it_was_left_where_it_waited() -> None:
    source = UserSource(app_id=APP_ID, max_modifications=100)
    late = [added(source, "u", f"late-{number}", deadline_s=1.0) for number in range(3)]
    stay = [added(source, "u", f"stay-{number}", deadline_s=None) for number in range(4)]
    high = Receipt(UpdateUser(external_id("u"), {"x": 1}, urgency="high"), deadline_s=1, size_bytes=1)
    source.add(high, content=b"", now_s=0.0)
    assert [receipt for receipt, _ in source.expire(now_s=1.0)] == [*late, high]
    sealed = source.pull(now_s=1.0, prefer_normal=False)
    assert sealed is not None
    assert [receipt for receipt, _ in sealed.shares] == stay
    assert not sealed.is_high
    assert source.waiting == 0


def test_what_has_expired_is_not_withdrawn_once_more() -> None:
    source = UserSource(app_id=APP_ID, max_modifications=100)
    late = added(source, "u", "late", deadline_s=1.0)
    stays = [added(source, "u", f"stay-{number}", deadline_s=None) for number in range(2)]
    assert [receipt for receipt, _ in source.expire(now_s=1.0)] == [late]
    assert [receipt for receipt, _ in source.withdraw_all()] == stays
    assert source.waiting == 0
