"""Which groups of a log may go: only the oldest, and nothing that was removed comes back."""

from hypothesis import given
from hypothesis import strategies as st

from sendengine.journal.liveness import MOVED_BYTES, SLACK_BYTES, Liveness


def test_the_oldest_group_in_which_something_counts_is_kept_and_all_behind_it() -> None:
    live = Liveness()
    live.appended(1, [1, 2], size_bytes=200)
    live.appended(2, [3], size_bytes=100)
    live.appended(3, [], size_bytes=40)
    assert (live.first_needed(), len(live), live.log_bytes) == (1, 3, 340)
    live.removed([1, 3])
    assert live.first_needed() == 1
    live.removed([2, 2, 99])
    assert (live.first_needed(), len(live)) == (None, 0)
    live.dropped_before(3)
    assert live.log_bytes == 40


def test_a_log_that_little_keeps_long_is_moved_from_its_oldest_groups_on() -> None:
    live = Liveness()
    size = MOVED_BYTES // 4
    groups = 2 * SLACK_BYTES // size
    for group in range(groups):
        live.appended(group, [2 * group, 2 * group + 1], size_bytes=size)
    assert live.last_to_move() is None  # all of it counts
    live.removed(range(1, 2 * groups))
    assert live.last_to_move() == 3  # four groups make the amount that is read at once
    live.removed([0])
    live.appended(groups, [0], size_bytes=100)
    live.dropped_before(groups)
    assert live.last_to_move() is None
    assert live.first_needed() == groups


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=60))
def test_what_counts_is_never_before_the_first_group_that_is_needed(steps: list[tuple[int, int]]) -> None:
    live, standing = Liveness(), dict[int, int]()
    for group, (count, gone) in enumerate(steps):
        ids = list(range(group * 10, group * 10 + count))
        live.appended(group, ids, size_bytes=10 * count)
        standing.update(dict.fromkeys(ids, group))
        victims = sorted(standing)[:gone:2]
        live.removed(victims)
        for each in victims:
            del standing[each]
        assert live.first_needed() == min(standing.values(), default=None)
        assert dict(live.places) == standing
