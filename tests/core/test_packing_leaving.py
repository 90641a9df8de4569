"""Who leaves a pack that is not full: near a deadline, past it, or drained. Times are seconds."""

from weakref import ref

import pytest

from sendengine.core.drafts import Line, PackKey
from sendengine.core.packing import Packer
from tests.core.packing_lane import EVERYONE, HI, HO, Lane


def test_a_pack_near_a_deadline_does_not_linger_on() -> None:
    lane = Lane()
    lane.add("a", deadline_s=9, group=HI)
    lane.add("b", deadline_s=300, group=HO)
    for now_s, taken in [(7.9, ""), (8, "a"), (9.9, ""), (10, "b")]:
        lane.now_s = now_s
        assert lane.take() == taken, f"at {now_s} s"


def test_a_job_whose_deadline_is_near_goes_at_once() -> None:
    lane = Lane()
    lane.add("a", deadline_s=0.5)
    assert lane.take() == "a"


def test_next_due_tells_when_the_next_pack_is_ripe() -> None:
    lane = Lane()
    assert lane.packer.next_due_s() is None
    lane.add("a", deadline_s=300)
    assert lane.packer.next_due_s() == 10
    lane.add("b", deadline_s=7, group=HO)
    assert lane.packer.next_due_s() == 6
    lane.now_s = 2
    lane.add("c", alone=True)
    assert lane.packer.next_due_s() == 2
    lane.take()
    lane.add("d e f")
    assert lane.packer.next_due_s() == 0, "the pack of a is full"
    lane.now_s = 6
    assert lane.take_all() == ["a d e", "b"]
    assert lane.packer.next_due_s() == 12
    lane.add("g", high=True)
    assert lane.packer.next_due_s() == 6
    lane.now_s = 12
    lane.take_all()
    assert lane.packer.next_due_s() is None


def test_nothing_waits_for_company_that_does_not_come_any_more() -> None:
    lane = Lane()
    lane.add("a")
    lane.add("b", deadline_s=7, group=HO)
    assert lane.take() == ""
    lane.packer.stop_lingering()
    assert lane.packer.next_due_s() == 0
    assert lane.take_all() == ["a", "b"]
    lane.add("c")
    assert lane.take() == "c"


def test_a_member_whose_deadline_has_passed_is_not_sealed() -> None:
    lane = Lane()
    lane.add("a", deadline_s=12)
    lane.add("b", deadline_s=40)
    lane.add("c", deadline_s=12, group=HO)
    lane.now_s = 12
    pack = lane.packer.take(now_s=12)
    assert pack is not None
    assert (pack.ids, pack.deadline_s) == (("b",), 40)
    assert lane.take() == ""
    assert lane.packer.next_expiry_s() == float("-inf")
    assert [(share.member, share.ids) for share in lane.packer.expire(12)] == [("job 0", ("a",)), ("job 2", ("c",))]
    assert lane.packer.expire(12) == []
    assert lane.packer.next_expiry_s() is None


def test_a_job_that_expires_half_taken_tells_what_was_left() -> None:
    lane = Lane()
    lane.add("a b c d e f g", deadline_s=100)
    assert lane.take() == "a b c"
    assert [(share.member, share.ids) for share in lane.packer.expire(100)] == [("job 0", ("d", "e", "f", "g"))]
    assert (lane.packer.recipients, lane.packer.members, lane.packer.next_due_s()) == (0, 0, None)


def test_what_is_taken_does_not_expire() -> None:
    lane = Lane()
    lane.add("a b c", deadline_s=100.5)
    lane.add("d", deadline_s=100.7)
    assert lane.packer.expire(100.2) == [], "the second of the deadline has begun"
    assert lane.take() == "a b c"
    assert [share.ids for share in lane.packer.expire(200)] == [("d",)]
    assert lane.packer.next_expiry_s() is None


def test_those_who_expire_come_earliest_first() -> None:
    lane = Lane()
    for deadline_s in (9.5, 3.25, 9.25, 3.75):
        lane.add(f"u{deadline_s}", deadline_s=deadline_s)
    assert [share.ids for share in lane.packer.expire(3.25)] == [("u3.25",)]
    assert [share.ids for share in lane.packer.expire(60)] == [("u3.75",), ("u9.25",), ("u9.5",)]


def test_a_member_leaves_with_what_was_not_taken() -> None:
    lane = Lane()
    lane.add("a b", deadline_s=100)
    lane.add("c d e f g", deadline_s=100)
    lane.add("h")
    assert lane.take() == "a b c"
    assert lane.expire(100) == ["d e f g"], "what was taken does not expire"
    assert lane.expire(200) == []
    assert (lane.packer.recipients, lane.packer.members) == (1, 1)
    assert lane.take_all() == ["h"]
    assert lane.expire(300) == []


def test_a_recipient_whose_job_left_has_room_again_and_its_bytes_are_free() -> None:
    lane = Lane(max_bytes=24 + 8)
    lane.add("a")
    lane.add("b", deadline_s=100)
    assert lane.expire(100) == ["b"]
    lane.add("b")
    pack = lane.packer.take(now_s=100)
    assert pack is not None
    assert pack.ids == ("a", "b")


def test_a_pack_that_everyone_left_is_gone() -> None:
    lane = Lane()
    for ids, high in [("a", False), ("a", False), ("a", True), ("b c d", False)]:
        lane.add(ids, high=high, deadline_s=100)
    assert len(lane.expire(100)) == 4
    assert (lane.packer.members, lane.packer.has_high, lane.packer.next_due_s()) == (0, False, None)
    lane.now_s = 107
    lane.add("e")
    lane.now_s = 116.9
    assert lane.take() == "", "it lingers from its own arrival"
    lane.now_s = 117
    assert lane.take() == "e"


def test_the_next_pack_is_open_when_everyone_has_left_the_first() -> None:
    lane = Lane()
    lane.add("a", deadline_s=100)
    lane.add("a")
    assert lane.expire(100) == ["a"]
    lane.add("b")
    assert lane.take_all() == ["a b"]


def test_drain_all_gives_back_everything() -> None:
    lane = Lane()
    lane.add("a b c d")
    lane.add("e", group=HO, deadline_s=50)
    lane.add("f", high=True)
    lane.add("", group=EVERYONE, alone=True)
    lane.add("g", deadline_s=70)
    for taken in ("f", "a b c", ""):  # the last is the segment
        assert lane.take() == taken
    assert lane.packer.take(now_s=5) is None
    left = {share.member: share.ids for share in lane.packer.drain_all()}
    assert left == {"job 0": ("d",), "job 1": ("e",), "job 4": ("g",)}
    assert (lane.packer.members, lane.packer.recipients, lane.packer.next_due_s()) == (0, 0, None)
    assert list(lane.packer.drain_all()) == []
    assert lane.packer.next_expiry_s() is None


def test_who_leaves_while_everything_is_drained_is_not_given_back_again() -> None:
    lane = Lane()
    for ids in ("a", "b", "c", "d"):
        lane.add(ids, group=HO if ids == "d" else HI, deadline_s=100 if ids in "bd" else None)
    draining = lane.packer.drain_all()
    assert next(draining).ids == ("a",)
    assert lane.expire(100) == ["b", "d"]
    assert [share.ids for share in draining] == [("c",)]
    assert lane.packer.members == 0


@pytest.mark.parametrize("between", ["taken", "joined"])
def test_whoever_is_taken_or_comes_while_everything_is_drained_is_given_back_once(between: str) -> None:
    lane = Lane()
    for ids in ("a", "b", "c d e f"):  # the last is cut, and the second pack of it is not full
        lane.add(ids)
    draining = lane.packer.drain_all()
    given = [next(draining).ids]
    lane.now_s = 10
    if between == "taken":
        assert lane.take() == "b c"
    else:
        lane.add("g")
    given += [share.ids for share in draining]
    left = [("d", "e", "f")] if between == "taken" else [("b",), ("c", "d", "e", "f"), ("g",)]
    assert given == [("a",), *left]
    assert (lane.packer.members, lane.packer.recipients, lane.take()) == (0, 0, "")


def test_drain_all_gives_back_who_expired_unnoticed_too() -> None:
    lane = Lane()
    lane.add("a", deadline_s=50)
    assert lane.packer.take(now_s=50) is None
    assert [(share.member, share.ids) for share in lane.packer.drain_all()] == [("job 0", ("a",))]
    assert lane.packer.expire(60) == []


def test_oldest_tells_when_the_pack_that_waits_longest_was_opened() -> None:
    lane = Lane()
    assert lane.packer.oldest_s() is None
    for now_s in (1.0, 2.0, 3.0):
        lane.now_s = now_s
        lane.add("a", alone=now_s == 2, high=now_s == 3)
    for oldest_s, taken_s in [(1, 3), (1, 3), (1, 11), (None, 11)]:
        assert lane.packer.oldest_s() == oldest_s
        lane.packer.take(now_s=taken_s)


def test_recipients_of_full_packs_are_forgotten_while_their_message_waits_on() -> None:
    lane = Lane()
    for index in range(30):
        lane.add(f"a{index}")
    (line,) = [shard[HI] for shard in lane.packer._lines[0] if shard]  # looks inside: it shows nowhere else
    assert isinstance(line, Line)
    assert not line.holders


def test_packs_that_were_sealed_are_forgotten_while_one_of_their_recipients_is_named_again_and_again() -> None:
    lane = Lane()
    lane.add("a")
    lane.add("a b")
    for seconds in range(10, 10_000, 10):  # somebody always waits in a later pack
        lane.now_s = float(seconds)
        lane.add("a b")
        assert lane.take() == "a b"
    (line,) = [shard[HI] for shard in lane.packer._lines[0] if shard]  # looks inside: it shows nowhere else
    assert isinstance(line, Line)
    assert sum(map(len, line.earlier.values())) < 20


def test_the_queues_forget_those_who_expired_behind_one_who_stays() -> None:
    lane = Lane()
    lane.add("stays", alone=True)
    for index in range(5000):
        lane.now_s = float(index)
        lane.add("a", alone=True, deadline_s=index + 0.5)
        assert len(lane.packer.expire(index + 0.5)) == 1
    assert len(lane.packer._queues._alone) < 1100  # looks inside: what is forgotten shows nowhere else
    assert lane.take_all() == ["stays"]


def test_a_recipient_whose_second_job_expired_still_stands_in_a_request_once() -> None:
    packer: Packer[str] = Packer(max_recipients=10, max_bytes=10_000, linger_s=1.0)
    group = PackKey(b"{}", "push", "alias", "external_id")
    for member, deadline_s in (("first", None), ("second", 0.5), ("third", None)):
        if member == "third":
            assert [share.member for share in packer.expire(2.0)] == ["second"]
        packer.add(member, group=group, ids=("a",), alone=False, high=False, deadline_s=deadline_s, now_s=0.0)
    packs = [packer.take(now_s=5.0), packer.take(now_s=5.0)]
    assert [pack.ids for pack in packs if pack is not None] == [("a",), ("a",)]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("high", [True, False])
def test_who_was_taken_is_kept_by_nothing(alone: bool, high: bool) -> None:
    class Member:
        """Its fate can be watched."""

    packer: Packer[Member] = Packer(max_recipients=10, max_bytes=10_000, linger_s=1.0)
    member = Member()
    group = PackKey(b"{}", "push", "alias", "external_id")
    packer.add(member, group=group, ids=("a",), alone=alone, high=high, deadline_s=None, now_s=0)
    assert packer.take(now_s=5) is not None
    fate = ref(member)
    del member
    assert fate() is None
