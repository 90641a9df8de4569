"""The law of coalescing: however updates merge, span sets, come apart and go again, the user ends as if in turn."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from sendengine.core.coalescing import ChangeSet, PendingChanges, leave_out, take_apart, without_uncertain_deltas
from sendengine.core.jobs import TagValue, UpdateUser, modifications
from sendengine.core.targets import external_id

CAP = 5
KEYS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])
purchases = st.lists(
    st.sampled_from(["book", "pen", "cup"]).map(lambda sku: {"sku": sku, "amount": "1", "iso": "EUR"}),
    min_size=1,
    max_size=7,
)
deltas = st.fixed_dictionaries(
    {},
    optional={"session_count": st.integers(-3, 9), "session_time": st.integers(0, 90), "purchases": purchases},
)
jobs = st.builds(
    lambda tags, properties, deltas, on_ambiguous, alone: UpdateUser(
        external_id("u"),
        tags=tags or ({} if properties or deltas else {"a": "1"}),
        properties=properties,
        deltas=deltas,
        on_ambiguous=on_ambiguous,
        coalesce=not alone,
    ),
    st.dictionaries(KEYS, st.sampled_from(["1", "2", "", None]), max_size=7),
    st.dictionaries(st.sampled_from(["language", "country", "lat"]), st.sampled_from(["x", "y"]), max_size=3),
    deltas | st.just({}),
    st.sampled_from(["report", "retry"]),
    st.sampled_from([False, False, False, True]),
)


class User:
    """What OneSignal keeps of a user, and what a request with these parts makes of it."""

    def __init__(self) -> None:
        self.tags: dict[str, Any] = {}
        self.properties: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.purchases: list[Any] = []

    def apply(self, tags: Mapping[str, Any], properties: Mapping[str, Any], deltas: Mapping[str, Any]) -> None:
        self.tags.update(tags)
        self.tags = {tag: value for tag, value in self.tags.items() if value}
        self.properties.update(properties)
        self.counts.update({name: value for name, value in deltas.items() if name != "purchases"})
        self.purchases += deltas.get("purchases", ())

    @property
    def settable(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return self.tags, self.properties

    @property
    def counted(self) -> tuple[Counter[str], list[Any]]:
        return self.counts, self.purchases


def in_turn(updates: list[UpdateUser]) -> User:
    user = User()
    for job in updates:
        user.apply(job.tags, job.properties, job.deltas)
    return user


def send(user: User, change_set: ChangeSet[int]) -> None:
    whole = change_set.whole
    user.apply(whole.tags, whole.properties, whole.deltas)


@given(st.data(), st.lists(jobs, max_size=12))
def test_the_end_state_is_that_of_every_update_in_turn(data: st.DataObject, updates: list[UpdateUser]) -> None:
    pending: PendingChanges[int] = PendingChanges(max_modifications=CAP)
    user, settled, coming = User(), list[int](), list(enumerate(updates))
    while coming or pending.waits:
        match data.draw(st.sampled_from(["add", "add", "add", "send", "throttled", "refused", "tag cap"])):
            case "add" if coming:
                number, job = coming.pop(0)
                pending.add(number, job)
            case step if change_set := pending.take():
                check(change_set, updates)
                parts = take_apart(change_set, tag_cap=step == "tag cap") if step in {"refused", "tag cap"} else []
                if parts or step == "throttled":
                    pending.put_back_front(parts or [change_set])
                else:
                    send(user, change_set)
                    settled += [change.member for change in change_set.changes if change.is_last]
    expected = in_turn(updates)
    assert user.settable == expected.settable
    assert user.counted == expected.counted
    assert sorted(settled) == list(range(len(updates))), "every job settles once"


def check(change_set: ChangeSet[int], updates: list[UpdateUser]) -> None:
    members = [change.member for change in change_set.changes]
    assert members == sorted(members), "in order"
    assert len(set(members)) == len(members)
    assert len(members) == 1 or all(updates[member].coalesce for member in members)
    whole = change_set.whole
    bought = whole.deltas.get("purchases")
    extra = len(bought) - 1 if isinstance(bought, list | tuple) else 0
    assert 0 < len(whole.tags) + len(whole.properties) + len(whole.deltas) + extra <= CAP


@given(st.lists(jobs, min_size=1, max_size=12))
def test_no_more_sets_than_needed(updates: list[UpdateUser]) -> None:
    pending: PendingChanges[int] = PendingChanges(max_modifications=CAP)
    for number, job in enumerate(updates):
        pending.add(number, UpdateUser(job.user, job.tags, job.properties, job.deltas))
    sets = sum(1 for _ in iter(pending.take, None))
    assert sets <= -(-sum(map(modifications, updates)) // CAP)


@given(st.lists(jobs.filter(lambda job: job.coalesce), max_size=12), st.sets(st.integers(0, 11)))
def test_one_bad_value_spoils_one_job(updates: list[UpdateUser], bad: set[int]) -> None:
    pending: PendingChanges[int] = PendingChanges(max_modifications=1000)
    for number, job in enumerate(updates):
        pending.add(number, job)
    user, rejected = User(), set[int]()
    while change_set := pending.take():
        if not bad.intersection(change.member for change in change_set.changes):
            send(user, change_set)
        elif parts := take_apart(change_set, tag_cap=False):
            pending.put_back_front(parts)
        else:
            rejected.update(change.member for change in change_set.changes)
    expected = in_turn([job for number, job in enumerate(updates) if number not in bad])
    assert (user.settable, user.counted) == (expected.settable, expected.counted)
    assert rejected == bad & set(range(len(updates)))


@given(st.lists(jobs, min_size=1, max_size=12), st.lists(st.booleans(), max_size=60))
def test_after_a_lost_reply_nothing_is_counted_twice_unless_a_job_asks_for_it(
    updates: list[UpdateUser], losses: list[bool]
) -> None:
    pending: PendingChanges[int] = PendingChanges(max_modifications=CAP)
    for number, job in enumerate(updates):
        pending.add(number, UpdateUser(job.user, job.tags, job.properties, job.deltas, job.coalesce, job.on_missing))
    user, settled, ambiguous, effects = User(), list[int](), set[int](), iter(losses)
    while change_set := pending.take():
        again: ChangeSet[int] | None = change_set
        for had_effect in effects:  # each attempt loses its reply, with its effect or without
            if had_effect:
                send(user, change_set)
            again, uncertain = without_uncertain_deltas(change_set)
            ambiguous.update(change.member for change in uncertain)
            settled += [change.member for change in uncertain if change.is_last]
            if again is None or not had_effect:
                break
            change_set = again
        if again is not None:
            send(user, again)
            settled += [change.member for change in again.changes if change.is_last]
    expected = in_turn(updates)
    assert user.settable == expected.settable
    assert sorted(settled) == list(range(len(updates)))
    assert all(updates[number].deltas for number in ambiguous)
    assert len(user.purchases) <= len(expected.purchases)
    if not ambiguous:
        assert user.counted == expected.counted


@given(st.lists(jobs.filter(lambda job: job.coalesce), min_size=1, max_size=12))
def test_those_who_ask_for_it_repeat_their_deltas_and_the_others_do_not(updates: list[UpdateUser]) -> None:
    pending: PendingChanges[int] = PendingChanges(max_modifications=1000)
    for number, job in enumerate(updates):
        pending.add(number, job)
    lost = pending.take()
    assert lost is not None
    again, ambiguous = without_uncertain_deltas(lost)
    expected = in_turn(updates)
    repeated = in_turn([job for job in updates if job.on_ambiguous == "retry"])
    user = User()
    if again is not None:
        send(user, again)
    assert user.settable == expected.settable
    assert user.counted == repeated.counted
    assert {change.member for change in ambiguous} == {
        number for number, job in enumerate(updates) if job.deltas and job.on_ambiguous == "report"
    }


@given(st.lists(jobs, max_size=12), st.sets(st.integers(0, 11)))
def test_without_some_members_the_user_ends_as_if_they_had_never_come(
    updates: list[UpdateUser], gone: set[int]
) -> None:
    pending: PendingChanges[int] = PendingChanges(max_modifications=CAP)
    for number, job in enumerate(updates):
        pending.add(number, job)
    user = User()
    if first := pending.take():
        rest, _ = leave_out(first, gone.__contains__)
        if rest is not None:
            send(user, rest)
    pending.leave_out(gone.__contains__)
    while change_set := pending.take():
        send(user, change_set)
    expected = in_turn([job for number, job in enumerate(updates) if number not in gone])
    assert (user.settable, user.counted) == (expected.settable, expected.counted)


class CappedUser(User):
    """A user at a plan's tag cap: new tags are refused as long as the old ones are there."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.cap = len(names)
        self.tags = dict.fromkeys(names, "old")

    def takes(self, tags: Mapping[str, TagValue]) -> bool:
        return len({*self.tags, *(name for name, value in tags.items() if value)}) <= self.cap


swaps = st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from(["1", None, None]), min_size=1, max_size=4)


@given(st.lists(swaps.map(lambda tags: UpdateUser(external_id("u"), tags=tags)), min_size=2, max_size=5))
def test_what_fits_under_the_tag_cap_in_turn_fits_when_merged(updates: list[UpdateUser]) -> None:
    merged, alone = CappedUser("a", "b", "c"), CappedUser("a", "b", "c")
    for job in updates:  # each deletes first, in a request of its own
        added = {tag: str(value) for tag, value in job.tags.items() if value}
        alone.apply({tag: "" for tag in job.tags if tag not in added}, {}, {})
        assume(alone.takes(added))
        alone.apply(added, {}, {})
    pending: PendingChanges[int] = PendingChanges(max_modifications=1000)
    for number, job in enumerate(updates):
        pending.add(number, job)
    requests = 0
    while change_set := pending.take():
        requests += 1
        if merged.takes(change_set.whole.tags):
            send(merged, change_set)
        else:
            pending.put_back_front(take_apart(change_set, tag_cap=True))
    assert merged.tags.keys() == alone.tags.keys()
    assert requests <= 3, "refused, deletions, the rest"
