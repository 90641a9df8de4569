"""Who expires next: exact to the instant, whatever has left before."""

from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.deadlines import Deadlines

TIMES = st.sampled_from([0.0, 0.5, 1.0, 1.25, 2.0, 2.75, 3.0, 9.5, 60.0])


def test_a_deadline_is_given_once_when_it_has_passed() -> None:
    deadlines = Deadlines()
    for key, deadline_s in [(1, 5.5), (2, 3.0), (3, 5.25), (4, 7.0)]:
        deadlines.add(key, deadline_s=deadline_s)
    for now_s, given_up in [(2.9, []), (3.0, [2]), (5.2, []), (5.4, [3]), (5.5, [1]), (60.0, [4]), (60.0, [])]:
        assert [key for _, key in deadlines.due(now_s)] == given_up, f"at {now_s} s"


def test_next_is_early_by_less_than_a_second_and_exact_once_its_second_has_begun() -> None:
    deadlines = Deadlines()
    assert deadlines.next_s() is None
    deadlines.add(1, deadline_s=5.5)
    assert deadlines.next_s() == 5
    assert list(deadlines.due(5.0)) == []
    assert deadlines.next_s() == 5.5


def test_who_has_left_is_forgotten() -> None:
    deadlines = Deadlines()
    deadlines.add(1, deadline_s=5.5)
    deadlines.add(2, deadline_s=6.5)
    deadlines.discard(1, deadline_s=5.5)
    deadlines.discard(1, deadline_s=5.5)
    assert deadlines.next_s() == 6
    deadlines.discard(2, deadline_s=6.5)
    assert deadlines.next_s() is None
    assert list(deadlines.due(100.0)) == []


def test_equal_deadlines_are_given_in_the_order_in_which_they_were_entered() -> None:
    deadlines = Deadlines()
    for key in (5, 3, 4):
        deadlines.add(key, deadline_s=7.5)
    list(deadlines.due(7.0))
    deadlines.add(1, deadline_s=7.5)
    assert [key for _, key in deadlines.due(7.5)] == [5, 3, 4, 1]


def test_a_deadline_that_has_passed_when_it_is_entered_is_due_at_once() -> None:
    deadlines = Deadlines()
    list(deadlines.due(50.0))
    deadlines.add(1, deadline_s=20.0)
    assert list(deadlines.due(50.0)) == [(20.0, 1)]


def test_nothing_is_kept_of_many_who_have_left_before_far_deadlines() -> None:
    deadlines = Deadlines()
    for key in range(5000):
        deadlines.add(key, deadline_s=1000.0 + key)
        deadlines.discard(key, deadline_s=1000.0 + key)
    assert len(deadlines._seconds) < 100  # looks inside: what is forgotten shows nowhere else


@given(st.lists(st.tuples(st.sampled_from(["add", "leave", "look"]), st.integers(0, 5), TIMES), max_size=60))
def test_it_gives_what_a_plain_dict_gives(steps: list[tuple[str, int, float]]) -> None:
    deadlines, plain, now_s = Deadlines(), dict[int, float](), 0.0
    for what, key, time_s in steps:
        if what == "add" and key not in plain:
            plain[key] = now_s + time_s
            deadlines.add(key, deadline_s=now_s + time_s)
        elif what == "leave" and key in plain:
            deadlines.discard(key, deadline_s=plain.pop(key))
        elif what == "look":
            now_s += time_s
            due = [(deadline_s, key) for deadline_s, key in deadlines.due(now_s) if plain.get(key) == deadline_s]
            assert [deadline_s for deadline_s, _ in due] == sorted(deadline_s for deadline_s, _ in due)
            assert {key for _, key in due} == {key for key, deadline_s in plain.items() if deadline_s <= now_s}
            plain = {key: deadline_s for key, deadline_s in plain.items() if deadline_s > now_s}
        next_s = deadlines.next_s()
        assert not plain or (next_s is not None and next_s <= min(plain.values()))
