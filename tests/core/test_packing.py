"""Which jobs share a request, and when it may be sealed. Times are seconds, linger is 10 s, a pack holds three."""

from collections.abc import Sequence

import pytest

from sendengine.core.drafts import Pack, PackKey
from sendengine.core.packing import Packer

HI = PackKey(b'{"contents":{"en":"Hi"}}', "push", "alias", "external_id")  # 24 bytes
HO = PackKey(b'{"contents":{"en":"Ho"}}', "push", "alias", "external_id")
EVERYONE = PackKey(b'{"contents":{"en":"Hi"}}', "push", "segments")


class Lane:
    """A packer and a clock; members are names, kept as they were given so that each is one object."""

    def __init__(self, *, max_recipients: int = 3, max_bytes: int = 10_000, linger_s: float = 10) -> None:
        self.packer: Packer[str] = Packer(max_recipients=max_recipients, max_bytes=max_bytes, linger_s=linger_s)
        self.members: list[str] = []
        self.now_s = 0.0

    def add(
        self,
        ids: str,
        *,
        group: PackKey = HI,
        alone: bool = False,
        high: bool = False,
        deadline_s: float | None = None,
        named: str = "",
    ) -> str:
        member = named or f"job {len(self.members)}"
        self.members.append(member)
        self.packer.add(
            member,
            group=group,
            ids=tuple(ids.split()),
            alone=alone,
            high=high,
            deadline_s=deadline_s,
            now_s=self.now_s,
        )
        return member

    def take(self, *, prefer_normal: bool = False) -> str:
        return shown(self.packer.take(now_s=self.now_s, prefer_normal=prefer_normal))

    def take_all(self, *, prefer_normal: bool = False) -> list[str]:
        return list(iter(lambda: self.take(prefer_normal=prefer_normal), ""))


def shown(pack: Pack[str] | None) -> str:
    return "" if pack is None else " ".join(pack.ids)


def shares(pack: Pack[str] | None) -> Sequence[tuple[str, tuple[str, ...]]]:
    assert pack is not None
    return [(share.member, share.ids) for share in pack.shares]


def test_jobs_with_the_same_message_share_a_pack_that_goes_when_it_has_lingered() -> None:
    lane = Lane()
    for now_s, ids, taken in [
        (0, "a", ""),
        (4, "b", ""),
        (9.9, "", ""),
        (10, "", "a b"),
        (10, "", ""),
        (11, "c", ""),  # the next pack lingers anew
        (20.9, "", ""),
        (21, "", "c"),
    ]:
        lane.now_s = now_s
        if ids:
            lane.add(ids)
        assert lane.take() == taken, f"at {now_s} s"


def test_a_pack_that_nobody_takes_stays_open_after_its_linger() -> None:
    lane = Lane()
    lane.add("a")
    lane.now_s = 50
    lane.add("b")
    assert lane.take() == "a b"


def test_a_full_pack_goes_at_once() -> None:
    lane = Lane()
    lane.add("a b")
    assert lane.take() == ""
    lane.add("c")
    assert lane.take() == "a b c"


@pytest.mark.parametrize(
    "other",
    [
        PackKey(b'{"contents":{"en":"Ho"}}', "push", "alias", "external_id"),
        PackKey(b'{"contents":{"en":"Hi"}}', "email", "alias", "external_id"),
        PackKey(b'{"contents":{"en":"Hi"}}', "push", "subscription_id"),
        PackKey(b'{"contents":{"en":"Hi"}}', "push", "alias", "crm_id"),
        PackKey(b'{"contents":{"en":"Hi"}}', "push", "alias", "external_id", 7),
    ],
    ids=["message", "channel", "kind", "label", "deadline minute"],
)
def test_jobs_that_differ_do_not_share(other: PackKey) -> None:
    lane = Lane()
    lane.add("a")
    lane.add("b", group=other)
    lane.now_s = 10
    assert lane.take_all() == ["a", "b"]


def test_equal_keys_share_and_one_of_them_is_kept() -> None:
    lane = Lane()
    first = PackKey(b"".join([b"{", b"}"]), "push", "alias", "external_id")
    second = PackKey(b"".join([b"{", b"}"]), "push", "alias", "external_id")
    lane.add("a", group=first)
    lane.add("b", group=second)
    lane.now_s = 10
    pack = lane.packer.take(now_s=10)
    assert pack is not None
    assert pack.group is first
    assert pack.ids == ("a", "b")


def test_lone_jobs_of_one_message_keep_one_copy_of_it() -> None:
    lane = Lane()
    first = PackKey(b"".join([b"{", b"}"]), "push", "alias", "external_id")
    second = PackKey(b"".join([b"{", b"}"]), "push", "alias", "external_id")
    lane.add("a", group=first, alone=True)
    lane.add("b", group=second, alone=True)
    packs = [lane.packer.take(now_s=0), lane.packer.take(now_s=0)]
    assert [pack is not None and pack.group is first for pack in packs] == [True, True]


def test_a_pack_tells_its_shares_its_age_its_deadline_and_its_size() -> None:
    lane = Lane()
    lane.now_s = 5
    lane.add("a b", deadline_s=100)
    lane.now_s = 6
    lane.add("c", deadline_s=90)
    pack = lane.packer.take(now_s=6)
    assert pack is not None
    assert shares(pack) == [("job 0", ("a", "b")), ("job 1", ("c",))]
    assert (pack.opened_at_s, pack.deadline_s) == (5, 90)
    assert (pack.is_full, pack.is_high) == (True, False)
    assert pack.size_bytes == 24 + 3 * 4  # each of the three is '"a",'


def test_a_job_is_cut_where_the_room_ends() -> None:
    lane = Lane()
    lane.add("a b")
    lane.add("c d e f g")
    assert lane.take_all() == ["a b c", "d e f"]
    lane.now_s = 10
    assert shares(lane.packer.take(now_s=10)) == [("job 1", ("g",))]


def test_a_job_waits_until_its_last_recipient_is_taken() -> None:
    lane = Lane()
    lane.add("a b c d e f g")
    for recipients, members in [(7, 1), (4, 1), (1, 1)]:
        assert (lane.packer.recipients, len(lane.packer)) == (recipients, members)
        lane.now_s = 10
        lane.take()
    assert (lane.packer.recipients, len(lane.packer)) == (0, 0)


def test_a_recipient_is_never_twice_in_one_request_and_keeps_its_order() -> None:
    lane = Lane()
    lane.add("a")
    lane.add("b a")
    lane.add("a c")
    lane.now_s = 10
    packs = [lane.packer.take(now_s=10) for _ in range(3)]
    assert [shares(pack) for pack in packs] == [
        [("job 0", ("a",)), ("job 1", ("b",)), ("job 2", ("c",))],
        [("job 1", ("a",))],
        [("job 2", ("a",))],
    ]


def test_a_job_that_names_a_recipient_twice_sends_twice() -> None:
    lane = Lane()
    lane.add("a b a", alone=True)
    assert lane.take_all() == ["a b", "a"]
    lane.add("a b a")
    lane.now_s = 10
    assert lane.take_all() == ["a b", "a"]


def test_a_repeat_that_is_ripe_first_does_not_overtake() -> None:
    lane = Lane(linger_s=60)
    lane.add("a", deadline_s=59)
    lane.add("a", deadline_s=31)  # the same minute
    lane.now_s = 30  # one second before the second's deadline
    packs = [lane.packer.take(now_s=30) for _ in range(2)]
    assert [shares(pack) for pack in packs] == [[("job 0", ("a",))], [("job 1", ("a",))]]


def test_the_bytes_of_message_and_recipients_are_capped() -> None:
    lane = Lane(max_bytes=24 + 10, max_recipients=100)
    lane.add("aa")  # '"aa",' is five bytes
    lane.add("bb")
    lane.add("cc")
    assert lane.take() == "aa bb"
    lane.add("dd eee f")  # five, six and four
    assert lane.take() == "cc dd"
    lane.now_s = 10
    assert lane.take_all() == ["eee f"]


def test_bytes_are_those_of_the_json_and_not_of_the_characters() -> None:
    lane = Lane(max_bytes=24 + 10, max_recipients=100)
    lane.add('ä"')  # '"ä\\"",' is seven bytes
    lane.add("b")
    lane.now_s = 10
    assert lane.take_all() == ['ä"', "b"]


def test_a_recipient_too_large_for_any_pack_goes_alone() -> None:
    lane = Lane(max_bytes=20, max_recipients=100)
    lane.add("aa bb")
    lane.add("cc")
    lane.now_s = 10
    assert lane.take_all() == ["aa", "bb", "cc"]


def test_lone_jobs_go_at_once_in_requests_of_their_own() -> None:
    lane = Lane()
    lane.add("a")
    lane.add("b c d e", alone=True)
    lane.add("f", alone=True)
    assert lane.take_all() == ["b c d", "e", "f"]
    lane.now_s = 10
    assert lane.take_all() == ["a"]


def test_a_job_without_recipients_of_its_own_is_a_request() -> None:
    lane = Lane()
    lane.add("", group=EVERYONE, alone=True)
    assert (len(lane.packer), lane.packer.recipients) == (1, 0)
    pack = lane.packer.take(now_s=0)
    assert pack is not None
    assert (shares(pack), pack.ids, pack.size_bytes) == ([("job 0", ())], (), 24)
    assert len(lane.packer) == 0


def test_high_jobs_go_first_and_without_linger() -> None:
    lane = Lane()
    lane.add("a b c")
    lane.add("d", alone=True)
    assert not lane.packer.has_high
    lane.add("e", high=True, alone=True)
    lane.add("f", high=True)
    lane.add("g", high=True, alone=True)
    lane.add("h", high=True)
    assert lane.packer.has_high
    assert [lane.take() for _ in range(5)] == ["e", "f h", "g", "a b c", "d"]
    assert not lane.packer.has_high


def test_high_and_normal_jobs_of_one_message_do_not_share() -> None:
    lane = Lane()
    lane.add("a")
    lane.add("b", high=True)
    high = lane.packer.take(now_s=0)
    assert high is not None
    assert (high.ids, high.is_high) == (("b",), True)
    lane.now_s = 10
    assert lane.take() == "a"


def test_normal_jobs_go_first_where_the_lane_prefers_them() -> None:
    lane = Lane()
    lane.add("a", high=True)
    lane.add("b", high=True, group=HO)
    lane.add("c", alone=True)
    assert lane.take(prefer_normal=True) == "c"
    assert lane.take(prefer_normal=True) == "a", "no normal one is ripe"
    assert lane.take() == "b"


def test_of_the_ripe_normal_packs_the_one_opened_first_goes_first() -> None:
    lane = Lane()
    lane.add("a")  # lingers
    lane.add("b", alone=True)
    lane.add("c d e", group=HO)  # full
    lane.add("f", alone=True)
    lane.now_s = 10
    assert lane.take_all() == ["a", "b", "c d e", "f"]


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
    assert (lane.packer.recipients, len(lane.packer), lane.packer.next_due_s()) == (0, 0, None)


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


def test_a_member_withdraws_with_what_was_not_taken() -> None:
    lane = Lane()
    first = lane.add("a b")
    cut = lane.add("c d e f g")
    last = lane.add("h")
    assert lane.take() == "a b c"
    assert lane.packer.withdraw(first) is None, "taken"
    assert lane.packer.withdraw(cut) == ("d", "e", "f", "g")
    assert lane.packer.withdraw(cut) is None
    assert (lane.packer.recipients, len(lane.packer)) == (1, 1)
    lane.now_s = 10
    assert lane.take_all() == ["h"]
    assert lane.packer.withdraw(last) is None


def test_a_recipient_whose_job_withdrew_has_room_again_and_its_bytes_are_free() -> None:
    lane = Lane(max_bytes=24 + 8)
    lane.add("a")
    gone = lane.add("b")
    lane.packer.withdraw(gone)
    lane.add("b")
    lane.now_s = 10
    pack = lane.packer.take(now_s=10)
    assert pack is not None
    assert (pack.ids, pack.size_bytes) == (("a", "b"), 32)


def test_a_pack_that_everyone_left_is_gone() -> None:
    lane = Lane()
    for member in [lane.add("a"), lane.add("a"), lane.add("a", high=True), lane.add("b c d")]:
        lane.packer.withdraw(member)
    assert (len(lane.packer), lane.packer.has_high, lane.packer.next_due_s()) == (0, False, None)
    lane.now_s = 7
    lane.add("e")
    lane.now_s = 16.9
    assert lane.take() == "", "it lingers from its own arrival"
    lane.now_s = 17
    assert lane.take() == "e"


def test_the_next_pack_is_open_when_everyone_has_left_the_first() -> None:
    lane = Lane()
    first = lane.add("a")
    lane.add("a")
    lane.packer.withdraw(first)
    lane.add("b")
    lane.now_s = 10
    assert lane.take_all() == ["a b"]


def test_drain_all_gives_back_everything_pack_by_pack() -> None:
    lane = Lane()
    lane.add("a b c d")
    lane.add("e", group=HO, deadline_s=50)
    lane.add("f", high=True)
    lane.add("", group=EVERYONE, alone=True)
    lane.add("g", deadline_s=70)
    for taken in ("f", "a b c", ""):  # the last is the segment
        assert lane.take() == taken
    assert lane.packer.take(now_s=5) is None
    left = [(share.member, share.ids) for share in lane.packer.drain_all()]
    assert left == [("job 0", ("d",)), ("job 4", ("g",)), ("job 1", ("e",))]
    assert (len(lane.packer), lane.packer.recipients, lane.packer.next_due_s()) == (0, 0, None)
    assert lane.packer.drain_all() == []
    assert lane.packer.next_expiry_s() is None


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
    assert not line.holders


def test_the_queues_forget_those_who_expired_behind_one_who_stays() -> None:
    lane = Lane()
    lane.add("stays", alone=True)
    for index in range(5000):
        lane.now_s = float(index)
        lane.add("a", alone=True, deadline_s=index + 0.5)
        assert len(lane.packer.expire(index + 0.5)) == 1
    assert len(lane.packer._alone) < 1100  # looks inside: what is forgotten shows nowhere else
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
