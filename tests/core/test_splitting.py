"""What a refusal costs and whom: against a server that refuses every request with a bad recipient, or a bad message."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from functools import cache
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.drafts import Share
from sendengine.core.splitting import Dissection, Piece, Trial, dissect
from sendengine.core.verdicts import Fault, Refused

UNNAMED = Refused(400, ("bad",))
AT_FAULT = Refused(400, ("bad contents",), Fault.MESSAGE)


@cache
def people(count: int) -> tuple[str, ...]:
    return tuple(f"u{index}" for index in range(count))


def jobs(ids: Collection[str], *sizes: int) -> tuple[Share[str], ...]:
    """Shares of the given sizes, and a last one of the rest."""
    names = list(ids)
    shares = []
    for number, size in enumerate((*sizes, len(names))):
        part, names = names[:size], names[size:]
        if part:
            shares.append(Share(f"job {number}", tuple(part)))
    return tuple(shares)


class Server:
    """Refuses what holds a bad recipient, or everything; may name up to ``names`` of the bad."""

    def __init__(self, bad: Iterable[str] = (), *, refuses_all: bool = False, names: int = 0) -> None:
        self.bad = frozenset(bad)
        self.refuses_all = refuses_all
        self.names = names
        self.requests = 0
        self.received: Counter[str] = Counter()

    def answer(self, ids: tuple[str, ...]) -> Refused | None:
        self.requests += 1
        guilty = [name for name in ids if name in self.bad]
        if guilty and self.names:
            return Refused(400, ("bad",), Fault.RECIPIENTS, tuple(guilty[: self.names]))
        if guilty or self.refuses_all:
            return UNNAMED
        self.received.update(ids)
        return None


class Sender:
    """Sends a pack and what is made of it, as an engine would; the answers come in any order."""

    def __init__(self, server: Server, *, accepted: bool, chance: Callable[[], float], order: Random) -> None:
        self.server = server
        self.accepted = accepted
        self.chance = chance
        self.order = order
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.queue: list[Piece[str]] = []
        self.verdicts: list[bool] = []

    def send(self, shares: tuple[Share[str], ...]) -> None:
        self.queue.append(Piece(shares))
        while self.queue:
            piece = self.queue.pop(self.order.randrange(len(self.queue)))
            assert piece.ids, "an empty request is never sent"
            members = [share.member for share in piece.shares]
            assert len(set(members)) == len(members), "a member has one share"
            refused = self.server.answer(piece.ids)
            if refused is not None:
                self.follow(dissect(piece, refused, message_accepted=self.accepted, chance=self.chance()))
            else:
                self.accepted = True
                if piece.trial is not None:
                    self.follow(piece.trial.settle(was_refused=False, message_accepted=True))

    def follow(self, dissection: Dissection[str]) -> None:
        self.verdicts.append(dissection.is_message_at_fault)
        self.rejected.update((share.member, name) for share in dissection.rejected for name in share.ids)
        self.queue += dissection.pieces


def sent(
    shares: tuple[Share[str], ...], server: Server, *, accepted: bool, chance: float = 0.5, seed: int = 0
) -> Sender:
    sender = Sender(server, accepted=accepted, chance=lambda: chance, order=Random(seed))
    sender.send(shares)
    return sender


def check_all_but_the_bad_are_sent(shares: tuple[Share[str], ...], server: Server, sender: Sender) -> None:
    everybody = [(share.member, name) for share in shares for name in share.ids]
    assert server.received == Counter(name for _, name in everybody if name not in server.bad)
    assert sender.rejected == Counter(pair for pair in everybody if pair[1] in server.bad)


def cost_of_halving(bad: int, *, of: int) -> int:
    return 2 * bad * ceil(log2(of))


packs = st.integers(1, 60).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(1, 20), max_size=5).map(lambda sizes: jobs(people(count), *sizes)),
        st.sets(st.sampled_from(people(count))),
    )
)


@given(packs, st.randoms(use_true_random=False))
def test_halving_sends_every_good_recipient_once_within_its_bound(
    pack: tuple[tuple[Share[str], ...], set[str]], order: Random
) -> None:
    shares, bad = pack
    server = Server(bad)
    sender = Sender(server, accepted=True, chance=lambda: 0.5, order=order)
    sender.send(shares)
    check_all_but_the_bad_are_sent(shares, server, sender)
    size = sum(len(share.ids) for share in shares)
    assert server.requests - 1 <= cost_of_halving(len(bad), of=size)


@given(packs, st.floats(0, 1, exclude_max=True), st.randoms(use_true_random=False))
def test_a_trial_sends_every_good_recipient_once_unless_all_four_are_bad(
    pack: tuple[tuple[Share[str], ...], set[str]], chance: float, order: Random
) -> None:
    shares, bad = pack
    server = Server(bad)
    sender = Sender(server, accepted=False, chance=lambda: chance, order=order)
    sender.send(shares)
    size = sum(len(share.ids) for share in shares)
    if any(sender.verdicts):
        assert server.requests == 5
        assert len(bad) >= 4
        assert sum(sender.rejected.values()) == size
    else:
        check_all_but_the_bad_are_sent(shares, server, sender)
        assert server.requests - 1 <= 4 + 1 + cost_of_halving(len(bad), of=size)


@given(packs, st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_recipients_that_the_server_names_are_left_out_and_the_rest_goes_again(
    pack: tuple[tuple[Share[str], ...], set[str]],
    names: int,
    accepted: bool,
    order: Random,
) -> None:
    shares, bad = pack
    server = Server(bad, names=names)
    sender = Sender(server, accepted=accepted, chance=lambda: 0.5, order=order)
    sender.send(shares)
    check_all_but_the_bad_are_sent(shares, server, sender)
    assert server.requests - 1 <= ceil(len(bad) / names)


@given(st.integers(1, 3000), st.floats(0, 1, exclude_max=True), st.integers(0, 9))
def test_a_message_at_fault_costs_five_requests(count: int, chance: float, seed: int) -> None:
    server = Server(refuses_all=True)
    sender = sent(jobs(people(count), 700), server, accepted=False, chance=chance, seed=seed)
    assert server.requests <= 5
    assert sum(sender.rejected.values()) == count
    assert max(sender.rejected.values()) == 1
    assert any(sender.verdicts) == (count > 4), "of four or fewer, each answers for itself"


@given(st.integers(0, 1999), st.floats(0, 1, exclude_max=True), st.booleans())
def test_one_bad_of_two_thousand_is_isolated_in_thirty_further_requests(
    bad: int,
    chance: float,
    accepted: bool,
) -> None:
    shares = jobs(people(2000))
    server = Server([f"u{bad}"])
    sender = sent(shares, server, accepted=accepted, chance=chance)
    check_all_but_the_bad_are_sent(shares, server, sender)
    assert server.requests - 1 <= 26  # four asked, and two a level of eleven


def bad_ones(names: tuple[str, ...], count: int, layout: str) -> Collection[str]:
    match layout:
        case "anywhere":
            return Random(count).sample(names, count)
        case "neighbours":
            return names[4900 : 4900 + count]
        case "every n-th":
            return names[:: len(names) // count]
        case "the first":
            return names[:count]
        case _:
            return names[-count:]


@pytest.mark.parametrize("count", [2, 20, 200])
@pytest.mark.parametrize("layout", ["anywhere", "neighbours", "every n-th", "the first", "the last"])
def test_a_file_of_two_hundred_thousand_with_bad_ones_sends_every_good_one(count: int, layout: str) -> None:
    names = people(200_000)
    bad = bad_ones(names, count, layout)
    server = Server(bad)
    order = Random(1)
    sender = Sender(server, accepted=False, chance=order.random, order=order)
    for begin in range(0, 200_000, 2000):
        sender.send(jobs(names[begin : begin + 2000]))
    assert len(server.received) == 200_000 - count
    assert max(server.received.values()) == 1
    assert set(server.received).isdisjoint(bad)
    assert {name for _, name in sender.rejected} == set(bad)
    assert server.requests - 100 <= 4 + 1 + cost_of_halving(count, of=2000)


def test_one_bad_in_the_whole_file_costs_at_most_thirty_wherever_it_stands() -> None:
    for bad in (0, 1, 499, 500, 999, 1000, 1001, 1500, 1999):
        server = Server([f"u{bad}"])
        for begin in (0, 2000):
            sent(jobs([f"u{index}" for index in range(begin, begin + 2000)]), server, accepted=begin > 0)
        assert server.requests - 2 <= 30


def places_asked(count: int, *, chance: float) -> list[int]:
    dissection = dissect(Piece(jobs(people(count))), UNNAMED, message_accepted=False, chance=chance)
    return [int(piece.ids[0][1:]) for piece in dissection.pieces]


@given(st.integers(5, 20_000), st.floats(0, 1, exclude_max=True))
def test_the_four_stand_in_the_four_quarters(count: int, chance: float) -> None:
    for quarter, place in enumerate(places_asked(count, chance=chance)):
        assert count * quarter // 4 <= place < count * (quarter + 1) // 4


def test_the_four_are_drawn_independently_and_evenly() -> None:
    chance = Random(5).random
    draws = [[place % 500 for place in places_asked(2000, chance=chance())] for _ in range(2000)]
    for quarter in range(4):
        inside = [draw[quarter] for draw in draws]
        assert 240 < sum(inside) / len(inside) < 260
        assert (min(inside), max(inside)) < (10, 500)
        assert max(inside) > 490
    bad_half = sum(all(place % 2 for place in draw) for draw in draws)
    assert 90 < bad_half < 160, "every second recipient bad: all four are in one of sixteen trials, 125 of 2,000"


def test_the_residual_of_200_bad_of_2000_is_one_trial_in_ten_thousand() -> None:
    names, chance = people(2000), Random(3)
    bad = frozenset(chance.sample(names, 200))
    asked = [places_asked(2000, chance=chance.random()) for _ in range(1000)]
    all_bad = sum(all(names[place] in bad for place in four) for four in asked)
    assert all_bad <= 2  # 0.1 expected


def trial_of(count: int) -> tuple[Trial[str], tuple[Piece[str], ...]]:
    pieces = dissect(Piece(jobs(people(count), 3)), UNNAMED, message_accepted=False, chance=0.0).pieces
    trial = pieces[0].trial
    assert trial is not None
    return trial, pieces


def test_the_others_wait_until_all_four_have_answered() -> None:
    trial, pieces = trial_of(8)
    assert [piece.ids for piece in pieces] == [("u0",), ("u2",), ("u4",), ("u6",)]
    assert list(trial.rest) == [Share("job 0", ("u1",)), Share("job 1", ("u3", "u5", "u7"))]
    for _ in range(3):
        assert trial.settle(was_refused=False, message_accepted=True) == Dissection()
        assert not trial.is_decided
    last = trial.settle(was_refused=False, message_accepted=True)
    assert [piece.ids for piece in last.pieces] == [("u1", "u3"), ("u5", "u7")], "the bad one is among them"
    assert trial.is_decided
    assert not trial.rest


def test_the_others_go_whole_where_the_trial_found_a_bad_one() -> None:
    trial, pieces = trial_of(8)
    for piece in pieces[:3]:
        assert piece.trial is trial
        trial.settle(was_refused=False, message_accepted=True)
    found = dissect(pieces[3], UNNAMED, message_accepted=True, chance=0.0)
    assert found.rejected == (Share("job 1", ("u6",)),)
    assert [(piece.ids, piece.is_message_good) for piece in found.pieces] == [(("u1", "u3", "u5", "u7"), True)]


def test_a_message_that_was_accepted_meanwhile_is_not_at_fault() -> None:
    trial, _ = trial_of(8)
    for _ in range(3):
        trial.settle(was_refused=True, message_accepted=False)
    last = trial.settle(was_refused=True, message_accepted=True)
    assert (last.rejected, last.is_message_at_fault) == ((), False)
    assert [piece.ids for piece in last.pieces] == [("u1", "u3", "u5", "u7")]


def test_without_an_answer_that_tells_four_others_are_asked() -> None:
    trial, _ = trial_of(12)
    ends = deque([True, True, None, True])
    dissection = Dissection[str]()
    while ends:
        dissection = trial.settle(was_refused=ends.popleft(), message_accepted=False)
    assert dissection.rejected == ()
    assert [len(piece.ids) for piece in dissection.pieces] == [1, 1, 1, 1]
    again = dissection.pieces[0].trial
    assert again is not None
    assert sum(len(share.ids) for share in again.rest) == 4


def test_a_recipient_of_a_trial_that_is_named_says_nothing_about_the_message() -> None:
    _, pieces = trial_of(8)
    for piece in pieces:
        named = Refused(400, (), Fault.RECIPIENTS, piece.ids)
        last = dissect(piece, named, message_accepted=False, chance=0.0)
        assert last.rejected[0].ids == piece.ids
        assert not last.is_message_at_fault
    assert [piece.ids for piece in last.pieces] == [("u1",), ("u3",), ("u5",), ("u7",)]


def test_a_refusal_that_blames_the_message_gives_up_all_at_once() -> None:
    shares = jobs(people(10), 4)
    dissection = dissect(Piece(shares), AT_FAULT, message_accepted=True, chance=0.0)
    assert dissection == Dissection(shares, (), is_message_at_fault=True)


def test_a_refusal_that_names_nobody_of_the_pack_counts_as_unnamed() -> None:
    stranger = Refused(400, (), Fault.RECIPIENTS, ("somebody else",))
    dissection = dissect(Piece(jobs(people(4))), stranger, message_accepted=True, chance=0.0)
    assert [piece.ids for piece in dissection.pieces] == [("u0", "u1"), ("u2", "u3")]


def test_a_refusal_that_names_everybody_leaves_nobody_to_send_to() -> None:
    shares = jobs(people(4), 1)
    dissection = dissect(
        Piece(shares), Refused(400, (), Fault.RECIPIENTS, people(4)), message_accepted=False, chance=0.0
    )
    assert dissection == Dissection(shares)


def test_a_segment_that_is_refused_is_rejected() -> None:
    shares = (Share("job", ()),)
    for fault in Fault:
        dissection = dissect(Piece(shares), Refused(400, (), fault), message_accepted=False, chance=0.0)
        assert (dissection.rejected, dissection.pieces) == (shares, ())


def test_a_share_that_is_cut_keeps_its_member() -> None:
    shares = jobs(people(6), 1, 4)
    dissection = dissect(Piece(shares), UNNAMED, message_accepted=True, chance=0.0)
    assert [piece.shares for piece in dissection.pieces] == [
        (Share("job 0", ("u0",)), Share("job 1", ("u1", "u2"))),
        (Share("job 1", ("u3", "u4")), Share("job 2", ("u5",))),
    ]
