"""Decides what a definite refusal of a notification request means for its recipients: whom to give up, whom to try.

A refusal that names recipients gives those up and tries the others again; one that blames the message gives up all.
Any other is looked into. Where the message has been accepted before, the request is halved until the bad recipients
stand alone: k of n cost at most 2·k·⌈log₂ n⌉ requests. Where it has not, a *trial* asks four recipients, each in a
request of its own. All four refused: the message is at fault, and has cost five requests. Otherwise the message is
good and the others go on: whole, where the trial has found a bad one that may have been the only one, else halved.

Method: the four stand at random places of the four quarters, so that neighbours who share a fault meet few of them,
and no regular pattern meets all. A trial errs only where all four are bad although the message is good: (b/n)⁴ for b
bad ones of n wherever they stand evenly, 10⁻¹² for 2 of 2,000 and 10⁻⁴ for 200; and never once the message has been
accepted in another request.

Units: ``chance`` is a random number in [0, 1), handed in.
"""

from collections.abc import Sequence
from itertools import chain, groupby
from typing import Final, Generic, TypeVar

from msgspec import Struct

from sendengine.core.drafts import Share
from sendengine.core.verdicts import Fault, Refused

M = TypeVar("M")

_ASKED: Final = 4  # recipients of a trial
_DIGIT: Final = 2**13  # four places are drawn from the 53 bits of one random number
_GOLDEN: Final = 0.6180339887498949  # turns one random number into another


class Piece(Struct, Generic[M], frozen=True):
    """Recipients that go, or went, in one request: a share a member, in order.

    ``is_message_good`` says that its message was accepted before; ``trial`` is what its answer decides about.
    """

    shares: tuple[Share[M], ...]
    is_message_good: bool = False
    trial: "Trial[M] | None" = None

    @property
    def ids(self) -> tuple[str, ...]:
        """All its recipients, in order."""
        return tuple(chain.from_iterable([share.ids for share in self.shares]))


class Dissection(Struct, Generic[M], frozen=True):
    """What to do next: settle ``rejected`` as refused, send ``pieces``, each under a key of its own.

    ``is_message_at_fault``: the refusal says so, or a trial concludes it.
    """

    rejected: tuple[Share[M], ...] = ()
    pieces: tuple[Piece[M], ...] = ()
    is_message_at_fault: bool = False


def dissect(piece: Piece[M], refused: Refused, *, message_accepted: bool, chance: float) -> Dissection[M]:
    """Decide about a request that was definitely refused.

    ``message_accepted``: a request with this message has been accepted in this run. A piece of a trial settles it.
    """
    named = frozenset(refused.named) if refused.fault is Fault.RECIPIENTS else frozenset()
    named = named.intersection(piece.ids)
    is_good = message_accepted or piece.is_message_good
    if piece.trial is not None:
        verdict = piece.trial.settle(was_refused=None if named else True, message_accepted=is_good)
        return Dissection((*piece.shares, *verdict.rejected), verdict.pieces, verdict.is_message_at_fault)
    if refused.fault is Fault.MESSAGE:
        return Dissection(piece.shares, is_message_at_fault=True)
    if named:
        rest = _only(piece.shares, names=named, inside=False)
        return Dissection(_only(piece.shares, names=named, inside=True), _pieces(rest, is_good=is_good))
    if _size(piece.shares) <= 1:  # none: segments and filters
        return Dissection(piece.shares)
    return Dissection(pieces=_halves(piece.shares) if is_good else _ask(piece.shares, chance))


class Trial(Generic[M]):
    """Four recipients, each in a request of its own, whose answers decide about the rest."""

    __slots__ = ("_accepted", "_chance", "_out", "_refused", "_rest")

    def __init__(self, rest: tuple[Share[M], ...], *, chance: float) -> None:
        self._rest = rest
        self._chance = chance
        self._out = _ASKED
        self._accepted = 0
        self._refused = 0

    @property
    def is_decided(self) -> bool:
        """Whether all four have ended."""
        return not self._out

    @property
    def rest(self) -> tuple[Share[M], ...]:
        """Those who wait for the decision: nobody once it has been made."""
        return self._rest if self._out else ()

    def settle(self, *, was_refused: bool | None, message_accepted: bool) -> Dissection[M]:
        """Take the end of one of the four, and decide once none is out; until then there is nothing to do.

        ``was_refused`` is None where it ended without an answer, so that it says nothing about the message; so is
        a refusal that names the recipient. ``message_accepted`` as in `dissect`: it can have come meanwhile.
        """
        self._out -= 1
        self._refused += was_refused is True
        self._accepted += was_refused is False
        return Dissection() if self._out else self._decide(is_good=message_accepted or self._accepted > 0)

    def _decide(self, *, is_good: bool) -> Dissection[M]:
        if is_good and self._accepted == _ASKED:  # the fault lies in the rest
            return Dissection(pieces=_halves(self._rest))
        if is_good:
            return Dissection(pieces=_pieces(self._rest, is_good=True))
        if self._refused == _ASKED:
            return Dissection(self._rest, is_message_at_fault=True)
        return Dissection(pieces=_ask(self._rest, (self._chance + _GOLDEN) % 1.0))


def _ask(shares: tuple[Share[M], ...], chance: float) -> tuple[Piece[M], ...]:
    """Make a trial's requests; few recipients are asked one by one, and each answers for itself."""
    size = _size(shares)
    places = [_place(quarter, size, chance) for quarter in range(_ASKED)] if size > _ASKED else range(size)
    asked: list[Share[M]] = []
    rest: list[Share[M]] = []
    begin = 0
    for place in places:
        before, shares = _cut(shares, place - begin)
        single, shares = _cut(shares, 1)
        rest += before
        asked += single
        begin = place + 1
    rest += shares
    trial = Trial(_joined(rest), chance=chance) if rest else None
    return tuple([Piece((single,), trial=trial) for single in asked])


def _place(quarter: int, size: int, chance: float) -> int:
    """Draw a place of one quarter."""
    first, end = size * quarter // _ASKED, size * (quarter + 1) // _ASKED
    digit = int(chance * _DIGIT ** (quarter + 1)) % _DIGIT
    return first + digit * (end - first) // _DIGIT


def _halves(shares: tuple[Share[M], ...]) -> tuple[Piece[M], ...]:
    """Cut in two; a single recipient stays whole."""
    return tuple([piece for half in _cut(shares, -(-_size(shares) // 2)) for piece in _pieces(half, is_good=True)])


def _pieces(shares: tuple[Share[M], ...], *, is_good: bool) -> tuple[Piece[M], ...]:
    return (Piece(shares, is_good),) if shares else ()


def _cut(shares: Sequence[Share[M]], count: int) -> tuple[tuple[Share[M], ...], tuple[Share[M], ...]]:
    """Part the first ``count`` recipients from the others."""
    for index, share in enumerate(shares):
        if count < len(share.ids):
            first = (Share(share.member, share.ids[:count]),) if count else ()
            return (*shares[:index], *first), (Share(share.member, share.ids[count:]), *shares[index + 1 :])
        count -= len(share.ids)
    return tuple(shares), ()


def _only(shares: tuple[Share[M], ...], *, names: frozenset[str], inside: bool) -> tuple[Share[M], ...]:
    """Keep the recipients that are among the names, or those that are not."""
    kept = [Share(share.member, tuple([name for name in share.ids if (name in names) is inside])) for share in shares]
    return tuple([share for share in kept if share.ids])


def _joined(shares: list[Share[M]]) -> tuple[Share[M], ...]:
    """Make neighbours of one member one share."""
    runs = [list(run) for _, run in groupby(shares, key=lambda share: id(share.member))]
    return tuple([Share(run[0].member, tuple(chain.from_iterable([share.ids for share in run]))) for run in runs])


def _size(shares: tuple[Share[M], ...]) -> int:
    return sum([len(share.ids) for share in shares])
