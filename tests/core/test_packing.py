"""Which jobs share a request, and when it may be sealed. Times are seconds, linger is 10 s, a pack holds three."""

import pytest

from sendengine.core.drafts import PackKey
from sendengine.core.packing import Packer
from tests.core.packing_lane import EVERYONE, HI, HO, Lane, shares


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


def test_a_pack_tells_its_shares_and_its_deadline() -> None:
    lane = Lane()
    lane.now_s = 5
    lane.add("a b", deadline_s=100)
    lane.now_s = 6
    lane.add("c", deadline_s=90)
    pack = lane.packer.take(now_s=6)
    assert pack is not None
    assert shares(pack) == [("job 0", ("a", "b")), ("job 1", ("c",))]
    assert (pack.deadline_s, pack.is_high) == (90, False)


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
        assert (lane.packer.recipients, lane.packer.members) == (recipients, members)
        lane.now_s = 10
        lane.take()
    assert (lane.packer.recipients, lane.packer.members) == (0, 0)


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
    assert (lane.packer.members, lane.packer.recipients) == (1, 0)
    pack = lane.packer.take(now_s=0)
    assert pack is not None
    assert (shares(pack), pack.ids) == ([("job 0", ())], ())
    assert lane.packer.members == 0


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


def test_a_messages_first_job_keeps_its_place_and_its_linger_when_others_join_it() -> None:
    lane = Lane()
    for now_s, ids, group in ((0, "a", HI), (1, "b", HO), (2, "c", HI)):
        lane.now_s = now_s
        lane.add(ids, group=group)
    assert lane.packer.next_due_s() == 10
    assert lane.packer.oldest_s() == 0
    lane.now_s = 11
    assert lane.take_all() == ["a c", "b"]


def test_when_a_messages_first_job_left_the_next_one_is_first() -> None:
    lane = Lane()
    lane.add("a", deadline_s=300)
    assert lane.expire(300) == ["a"]
    lane.add("b")
    lane.now_s = 310
    assert lane.take_all() == ["b"]


@pytest.mark.parametrize(("leaving", "left"), [("a", "b"), ("b", "a")])
def test_the_first_two_of_a_message_leave_alone(leaving: str, left: str) -> None:
    lane = Lane()
    for ids in ("a", "b"):
        lane.add(ids, deadline_s=300 if ids == leaving else None)
    assert lane.expire(300) == [leaving]
    assert lane.take_all() == [left]
    assert lane.packer.members == lane.packer.recipients == 0


def test_the_deadline_of_a_messages_first_job_counts_for_the_pack_that_others_join() -> None:
    lane = Lane()
    lane.add("a", deadline_s=20)
    lane.add("b")
    pack = lane.packer.take(now_s=10)
    assert pack is not None
    assert (pack.ids, pack.deadline_s) == (("a", "b"), 20)


def test_a_first_job_and_another_to_the_same_recipient_go_in_two_packs() -> None:
    lane = Lane()
    for ids in ("a", "a", "b"):
        lane.add(ids)
    lane.now_s = 10
    assert lane.take_all() == ["a b", "a"]


@pytest.mark.parametrize("text_bytes", [0, 4, 1000], ids=["nobody counted", "exactly", "a bound that is too high"])
def test_what_is_known_of_the_size_of_ids_cuts_nothing_that_fits(text_bytes: int) -> None:
    packer: Packer[str] = Packer(max_recipients=3, max_bytes=24 + 2 * 5, linger_s=10)
    packer.add(
        "job", group=HI, ids=("aa", "bb"), alone=True, high=False, deadline_s=None, now_s=0, text_bytes=text_bytes
    )
    assert [pack.ids for pack in iter(lambda: packer.take(now_s=0), None)] == [("aa", "bb")]


def test_ids_that_become_too_large_in_json_are_cut() -> None:
    packer: Packer[str] = Packer(max_recipients=3, max_bytes=24 + 20, linger_s=10)
    ids = ("\x01\x01", "\x02\x02")  # 15 bytes each in JSON, with quotes and comma
    packer.add("job", group=HI, ids=ids, alone=True, high=False, deadline_s=None, now_s=0, text_bytes=4)
    assert [pack.ids for pack in iter(lambda: packer.take(now_s=0), None)] == [ids[:1], ids[1:]]
