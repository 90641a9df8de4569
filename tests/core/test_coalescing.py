"""How one user's waiting changes merge, span sets, come apart and go again. A set holds four modifications."""

from collections.abc import Mapping
from typing import Literal

import pytest

from sendengine.core.changes import Merged
from sendengine.core.coalescing import (
    ChangeSet,
    PendingChanges,
    leave_out,
    take_apart,
    without_uncertain_deltas,
)
from sendengine.core.jobs import Json, Modifications, TagValue, UpdateUser, modifications
from sendengine.core.targets import external_id

USER = external_id("u-17")
BOOK = {"sku": "book", "amount": "9.99", "iso": "EUR"}
PEN = {"sku": "pen", "amount": "1.50", "iso": "EUR"}
CUP = {"sku": "cup", "amount": "4.00", "iso": "EUR"}


def tags(**values: TagValue) -> UpdateUser:
    return UpdateUser(USER, tags=values)


def alone(**values: TagValue) -> UpdateUser:
    return UpdateUser(USER, tags=values, coalesce=False)


def properties(**values: Json) -> UpdateUser:
    return UpdateUser(USER, properties=values)


def deltas(
    on_ambiguous: Literal["report", "retry"] = "report", own_tags: Mapping[str, TagValue] | None = None, **values: Json
) -> UpdateUser:
    return UpdateUser(USER, tags=own_tags or {}, deltas=values, on_ambiguous=on_ambiguous)


def pending(*jobs: UpdateUser, cap: int = 4) -> PendingChanges[int]:
    """Members are the jobs' numbers."""
    changes: PendingChanges[int] = PendingChanges(max_modifications=cap)
    for number, job in enumerate(jobs):
        changes.add(number, job)
    return changes


def take_all(changes: PendingChanges[int]) -> list[ChangeSet[int]]:
    return list(iter(changes.take, None))


def only(changes: PendingChanges[int]) -> ChangeSet[int]:
    (change_set,) = take_all(changes)
    return change_set


def members(change_set: ChangeSet[int]) -> list[int]:
    return [change.member for change in change_set.changes]


def settling(change_set: ChangeSet[int]) -> list[int]:
    return [change.member for change in change_set.changes if change.is_last]


def body(change_set: ChangeSet[int]) -> dict[str, Mapping[str, Json]]:
    whole = change_set.whole
    parts = {"tags": whole.tags, "properties": whole.properties, "deltas": whole.deltas}
    return {name: part for name, part in parts.items() if part}


def test_nothing_waits_at_first() -> None:
    changes = pending()
    assert not changes.waits
    assert changes.take() is None


def test_something_waits_until_all_of_it_is_taken() -> None:
    changes = pending(tags(a=1), tags(b=1, c=1, d=1, e=1))
    assert changes.waits
    first = changes.take()
    assert first is not None
    assert changes.waits, "the part that did not fit"
    assert changes.take() is not None
    assert not changes.waits
    changes.put_back_front([first])
    assert changes.waits
    changes.leave_out(lambda _: True)
    assert not changes.waits
    assert not pending().waits


def test_members_are_told_with_those_that_go_on_in_another_set() -> None:
    first, second = take_all(pending(tags(a=1), tags(b=1, c=1, d=1, e=1)))
    assert (first.members, first.going_on) == ([0, 1], [1])
    assert (second.members, second.going_on) == ([1], [])


def test_a_full_set_holds_as_much_as_it_may_and_no_more() -> None:
    assert len(take_all(pending(tags(a=1, b=1), properties(language="en"), deltas(session_count=1)))) == 1
    assert len(take_all(pending(tags(a=1, b=1), properties(language="en"), deltas(purchases=[BOOK, PEN])))) == 2
    assert len(take_all(pending(tags(a=1, b=1, c=1, d=1, e=1)))) == 2


def test_the_last_write_of_a_tag_or_property_wins() -> None:
    change_set = only(
        pending(tags(level=1, trial="yes"), properties(language="en"), tags(level=2), properties(language="de"))
    )
    assert body(change_set) == {"tags": {"level": "2", "trial": "yes"}, "properties": {"language": "de"}}
    assert members(change_set) == settling(change_set) == [0, 1, 2, 3]
    assert modifications(change_set.whole) == 3


def test_a_deletion_is_a_write() -> None:
    assert body(only(pending(tags(trial="yes"), tags(trial=None)))) == {"tags": {"trial": ""}}
    assert body(only(pending(tags(trial=None), tags(trial="yes")))) == {"tags": {"trial": "yes"}}


def test_counts_add_up_and_purchases_append() -> None:
    jobs = [
        deltas(session_count=1, purchases=[BOOK]),
        deltas(session_count=2),
        deltas(session_time=30, purchases=(PEN,)),
    ]
    change_set = only(pending(*jobs, cap=100))
    assert body(change_set) == {"deltas": {"session_count": 3, "session_time": 30, "purchases": [BOOK, PEN]}}
    assert modifications(change_set.whole) == 4


def test_a_lone_update_is_not_copied_and_the_jobs_stay_as_they_were() -> None:
    first, second = deltas(purchases=[BOOK]), deltas(purchases=[PEN])
    assert only(pending(first)).whole.deltas is first.deltas
    assert only(pending(first, second)).whole.deltas == {"purchases": [BOOK, PEN]}
    assert (first.deltas, second.deltas) == ({"purchases": [BOOK]}, {"purchases": [PEN]})


def test_what_is_too_much_for_a_set_goes_into_the_next() -> None:
    first, second = take_all(pending(tags(a=1, b=1, c=1), tags(c=2, d=2, e=2, f=2), tags(e=3, g=3)))
    assert body(first) == {"tags": {"a": "1", "b": "1", "c": "2", "d": "2"}}
    assert body(second) == {"tags": {"e": "3", "f": "2", "g": "3"}}
    assert (members(first), settling(first)) == ([0, 1], [0])
    assert (members(second), settling(second)) == ([1, 2], [1, 2])


def test_writing_known_tags_again_needs_no_room() -> None:
    known = (tags(a=1, b=1), tags(c=1, d=1), tags(a=2, b=2, c=2, d=2), tags(d=3))
    change_set, _ = take_all(pending(*known, tags(e=1)))
    assert body(change_set) == {"tags": {"a": "2", "b": "2", "c": "2", "d": "3"}}
    assert (members(change_set), modifications(change_set.whole)) == ([0, 1, 2, 3], 4)


def test_each_tag_property_count_and_purchase_takes_room() -> None:
    job = UpdateUser(
        USER,
        tags={"a": 1, "b": 1},
        properties={"language": "en"},
        deltas={"session_count": 1, "purchases": [BOOK, PEN, CUP]},
    )
    first, second = take_all(pending(job))
    assert body(first) == {
        "tags": {"a": "1", "b": "1"},
        "properties": {"language": "en"},
        "deltas": {"session_count": 1},
    }
    assert body(second) == {"deltas": {"purchases": [BOOK, PEN, CUP]}}
    assert (settling(first), settling(second)) == ([], [0])


def test_purchases_are_cut_where_the_room_ends() -> None:
    first, second = take_all(pending(deltas(purchases=[BOOK, PEN]), deltas(purchases=[CUP, BOOK, PEN])))
    assert body(first) == {"deltas": {"purchases": [BOOK, PEN, CUP, BOOK]}}
    assert body(second) == {"deltas": {"purchases": [PEN]}}


def test_however_many_purchases_wait_no_more_are_joined_than_a_set_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0
    apply = Merged.apply

    def measured(merged: Merged, change: Modifications) -> None:
        nonlocal longest
        apply(merged, change)
        longest = max(longest, len(str(merged.deltas["purchases"])) // len(str(BOOK)))

    monkeypatch.setattr(Merged, "apply", measured)
    changes = pending(*[deltas(purchases=[BOOK])] * 1000)
    assert len(take_all(changes)) == 250
    assert longest <= 5, "a list is copied for each purchase that is appended"


def test_a_job_larger_than_a_set_spans_several_and_settles_with_its_last() -> None:
    job = tags(**{f"t{number}": number for number in range(10)})
    sets = take_all(pending(tags(first=1), job))
    assert [len(change_set.whole.tags) for change_set in sets] == [4, 4, 3]
    assert [settling(change_set) for change_set in sets] == [[0], [], [1]]


def test_a_job_that_asks_for_it_stays_alone() -> None:
    sets = take_all(pending(tags(a=1), alone(b=1), tags(c=1), tags(d=1)))
    assert [members(change_set) for change_set in sets] == [[0], [1], [2, 3]]


def test_a_job_that_stays_alone_is_cut_where_settings_allow_less_than_it_has() -> None:
    sets = take_all(pending(alone(a=1, b=1, c=1, d=1, e=1), tags(f=1)))
    assert [sorted(change_set.whole.tags) for change_set in sets] == [["a", "b", "c", "d"], ["e"], ["f"]]


def test_nothing_merges_into_what_was_taken_or_put_back() -> None:
    changes = pending(tags(a=1))
    taken = changes.take()
    assert taken is not None
    changes.add(1, tags(a=2))
    changes.put_back_front([taken])
    assert [body(change_set) for change_set in take_all(changes)] == [{"tags": {"a": "1"}}, {"tags": {"a": "2"}}]
    changes.put_back_front([taken])
    changes.add(2, tags(a=3))
    assert [members(change_set) for change_set in take_all(changes)] == [[0], [2]]


def test_a_refused_merge_goes_again_job_by_job_in_order() -> None:
    refused = only(pending(tags(a=1), tags(a=2), properties(language="xx")))
    parts = take_apart(refused, tag_cap=False)
    assert [(members(part), body(part)) for part in parts] == [
        ([0], {"tags": {"a": "1"}}),
        ([1], {"tags": {"a": "2"}}),
        ([2], {"properties": {"language": "xx"}}),
    ]
    assert all(part.is_closed for part in parts)


@pytest.mark.parametrize("tag_cap", [False, True])
def test_one_job_that_is_refused_cannot_be_taken_apart(tag_cap: bool) -> None:
    assert take_apart(only(pending(tags(a=1))), tag_cap=tag_cap) == []
    assert take_apart(only(pending(tags(a=None))), tag_cap=tag_cap) == []


def test_at_the_tag_cap_deletions_go_first_alone() -> None:
    refused = only(pending(tags(new=1), tags(old=None, newer=1), tags(older=None), cap=9))
    first, second = take_apart(refused, tag_cap=True)
    assert body(first) == {"tags": {"old": "", "older": ""}}
    assert body(second) == {"tags": {"new": "1", "newer": "1"}}
    assert (members(first), settling(first)) == ([1, 2], [2])
    assert (members(second), settling(second)) == ([0, 1], [0, 1])
    third, fourth = take_apart(second, tag_cap=True)
    assert (members(third), members(fourth)) == ([0], [1]), "no deletion is left: one by one"


def test_a_lone_job_at_the_tag_cap_deletes_first() -> None:
    refused = only(
        pending(UpdateUser(USER, tags={"old": None, "new": 1}, deltas={"session_count": 1}), cap=9),
    )
    first, second = take_apart(refused, tag_cap=True)
    assert (body(first), settling(first)) == ({"tags": {"old": ""}}, [])
    assert (body(second), settling(second)) == ({"tags": {"new": "1"}, "deltas": {"session_count": 1}}, [0])


def test_a_write_that_a_later_job_deletes_is_not_sent_after_the_deletion() -> None:
    refused = only(pending(tags(trial="yes"), tags(trial=None), tags(new=1)))
    first, second = take_apart(refused, tag_cap=True)
    assert (body(first), settling(first)) == ({"tags": {"trial": ""}}, [0, 1])
    assert (body(second), settling(second)) == ({"tags": {"new": "1"}}, [2])


def test_a_deletion_that_a_later_job_overwrites_is_none() -> None:
    refused = only(pending(tags(trial=None), tags(trial="yes")))
    assert [body(part) for part in take_apart(refused, tag_cap=True)] == [
        {"tags": {"trial": ""}},
        {"tags": {"trial": "yes"}},
    ]


def test_deletions_only_at_the_tag_cap_go_one_by_one() -> None:
    refused = only(pending(tags(a=None), tags(b=None)))
    assert [body(part) for part in take_apart(refused, tag_cap=True)] == [{"tags": {"a": ""}}, {"tags": {"b": ""}}]


def test_deltas_that_may_have_been_counted_do_not_go_again() -> None:
    lost = only(pending(tags(a=1), deltas(session_count=1), deltas(own_tags={"b": 2}, session_count=10)))
    again, ambiguous = without_uncertain_deltas(lost)
    assert again is not None
    assert body(again) == {"tags": {"a": "1", "b": "2"}}
    assert (members(again), settling(again)) == ([0, 2], [0, 2])
    assert [(change.member, change.is_last) for change in ambiguous] == [(1, True), (2, False)]
    assert without_uncertain_deltas(again) == (again, [])


def test_deltas_whose_job_asks_for_it_go_again() -> None:
    lost = only(pending(deltas("retry", session_count=1), deltas(session_count=10), deltas("retry", session_count=100)))
    again, ambiguous = without_uncertain_deltas(lost)
    assert again is not None
    assert body(again) == {"deltas": {"session_count": 101}}
    assert [change.member for change in ambiguous] == [1]


def test_nothing_goes_again_where_there_was_nothing_but_deltas() -> None:
    again, ambiguous = without_uncertain_deltas(only(pending(deltas(session_count=1), deltas(purchases=[BOOK]))))
    assert again is None
    assert [(change.member, change.is_last) for change in ambiguous] == [(0, True), (1, True)]


def test_a_part_of_a_job_that_became_ambiguous_does_not_settle_it() -> None:
    job = UpdateUser(USER, deltas={"purchases": [BOOK, PEN, CUP, BOOK, PEN]})
    first, second = take_all(pending(job))
    again, ambiguous = without_uncertain_deltas(first)
    assert again is None
    assert [(change.member, change.is_last) for change in ambiguous] == [(0, False)]
    assert settling(second) == [0]


def test_members_that_are_gone_are_left_out_and_the_others_merge_without_them() -> None:
    change_set = only(pending(tags(a=1, b=1), tags(a=2), tags(c=3)))
    rest, gone = leave_out(change_set, lambda member: member == 1)
    assert rest is not None
    assert body(rest) == {"tags": {"a": "1", "b": "1", "c": "3"}}
    assert [change.member for change in gone] == [1]
    assert leave_out(change_set, lambda member: member == 7) == (change_set, [])
    assert leave_out(change_set, lambda member: member < 9)[0] is None


def test_what_stays_of_a_set_that_may_have_been_received_turns_no_value_back() -> None:
    jobs = (
        UpdateUser(USER, {"a": 1, "b": 1, "c": 1}, {"language": "en"}),
        UpdateUser(USER, {"b": 2, "c": 2, "d": 2}, {"language": "de", "country": "DE"}),
        tags(c=3),
        UpdateUser(USER, {"a": 4, "c": 4}, {"country": "AT"}),
        tags(a=5),
    )
    change_set = only(pending(*jobs, cap=100))
    rest, gone = leave_out(change_set, lambda member: member in {1, 3}, was_sent=True)
    assert rest is not None
    assert [dict(change.tags) for change in rest.changes] == [
        {"a": "4", "b": "2", "c": "4"},
        {"c": "4"},
        {"a": "5"},
    ]
    assert body(rest) == {"tags": {"a": "5", "b": "2", "c": "4"}, "properties": {"language": "de"}}
    assert [change.member for change in gone] == [1, 3]
    unsent, _ = leave_out(change_set, lambda member: member in {1, 3})
    assert unsent is not None
    assert body(unsent) == {"tags": {"a": "5", "b": "1", "c": "3"}, "properties": {"language": "en"}}


def test_members_that_are_gone_leave_everything_that_waits() -> None:
    changes = pending(tags(a=1, b=1, c=1), tags(d=1, e=1), alone(f=1), tags(g=1))
    gone = changes.leave_out(lambda member: member in {1, 2})
    assert [(change.member, change.is_last) for change in gone] == [(1, False), (1, True), (2, True)]
    changes.add(4, tags(h=1))
    assert [members(change_set) for change_set in take_all(changes)] == [[0], [3, 4]]


def test_nothing_merges_into_what_is_left_of_a_set_that_was_put_back() -> None:
    changes = pending(tags(a=1), tags(b=1))
    changes.put_back_front([only(changes)])
    changes.leave_out(lambda member: member == 0)
    changes.add(2, tags(c=1))
    assert [members(change_set) for change_set in take_all(changes)] == [[1], [2]]


def test_withdrawing_gives_each_member_once_and_leaves_nothing() -> None:
    changes = pending(tags(a=1, b=1, c=1), tags(d=1, e=1), tags(f=1))
    first = changes.take()
    assert first is not None
    assert first.going_on == [1], "the second spans both requests"
    changes.add(3, tags(g=1))
    assert changes.withdraw_all() == [1, 2, 3]
    assert (changes.waits, changes.take()) == (False, None)
    assert changes.withdraw_all() == []
    changes.add(4, tags(h=1))
    assert take_all(changes)[0].whole.tags == {"h": "1"}
