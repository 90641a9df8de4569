"""Answers a lane's 429s: how long to be silent, and how fast to go afterwards.

Units: ``_s`` is seconds on a monotonic clock, handed in; rates are requests a second.

Scope: what is counted for the app. A 429 that concerns one user never comes here.

Method: a *gate*, an *epoch*, two *causes* and a *climb*.

- The gate is closed until the latest ``received + Retry-After``. Nothing is sent meanwhile.
- An epoch is one event, however many 429s it brings: those for requests sent before the gate opened change no
  rate, they can only keep it closed for longer.
- The cause is read off what the server had accepted in the second before it refused: what was sent, since the first
  refusal begins the epoch. Replies are not waited for; they take seconds where a 429 takes none. (Almost) all that
  the lane may send: *misaligned*, so trim the top a little and remember it. Less: *contended*, go on well below it
  and climb. As the rest of the epoch's 429s come in, more of them than a moment's sends show that the limit is lower
  all the same, and the cause is revised.
- The climb is a function of the time since the gate opened and of the ceiling, never of the lane's own rate: every
  engine on the app gains as much as the others between two epochs, and loses in proportion to its own share and
  more, so that shares come together. It rises quickly to where it was refused, flattens there, and beyond goes
  slowly at first (a cubic, as CUBIC's, RFC 9438). How much to gain on the way is learned from the last climb.
- As long as epochs keep coming where they were expected, cuts get shallower and climbs longer: the lane settles
  just below the true limit. A surprise (refused much too early, or far above) starts over.

Constants were chosen by simulation over four kinds of server; docs/decisions/0012-after-a-429.md has the tables.
"""

from math import exp2, isfinite, sqrt
from typing import Final, Literal

from msgspec import Struct

from sendengine.core.sends import SentMeter

MISALIGNED_SHARE: Final = 0.97  # of the top, accepted: nobody shares it, so only our timing was off
RESTED_S: Final = 4.0  # since the gate opened: sooner a fixed window makes 4,000 accepted look like 6,000;
LONG_RESTED_S: Final = 10.0  # with nothing left to trim, a slightly lower limit looks like bad timing
MISALIGNED_S: Final = 0.065  # a lane that was only misaligned has not been refused more than so long's sends,
FEW_REFUSED: Final = 4  # or so many
TRIM_STEP: Final = 0.01
FIRST_TRIM_STEP: Final = 0.005  # where there was no epoch for a while: what happens once a minute need not be avoided
RARE_S: Final = 60.0
MAX_TRIM: Final = 0.03
BURST_PART: Final = 0.4  # of the second: refused sooner, a burst was used up, and its count says little,
BURST_SHARE: Final = 0.7  # so believe this much of the rate

LEAST_HOLD_S: Final = 1.0  # the window that is counted; "Retry-After: 0" would only be refused again
REOPEN_SHARE: Final = 0.7
REOPEN_HALVING_S: Final = 0.35  # half of what is missing comes back in this time
REOPENED_S: Final = 4.0  # and all of it after this

CUT: Final = 0.14  # of what was accepted, at the least,
CUT_BY_SHARE: Final = 0.16  # and this for a lane that had the whole ceiling: big shares shrink faster
SHALLOWEST: Final = 0.25  # a settled lane cuts a quarter as deep

GAIN: Final = 0.07  # of the ceiling, in a climb that has learned nothing yet
MAX_GAIN: Final = 0.5
MEMORY: Final = 0.4  # how much of the last gain the next one keeps, as an exponent
CLIMB_S: Final = 9.0  # until the climb is flat, where it was refused
BEYOND_S: Final = 8.0  # from there until it has gained the whole ceiling
MAX_STRETCH: Final = 8.0

CALMER: Final = 1.15  # each epoch that came where it was expected makes the next climb this much longer
SHALLOWER_FROM: Final = 1.75  # times as long: cuts begin to get shallower,
SETTLED_AT: Final = 3.5  # and are as shallow as they get
MAX_CALM: Final = 40.0
TOO_EARLY: Final = 0.12  # of the climb
TOO_FAR: Final = 3.0  # times the gain expected, and a first gain more

LONGEST_LOOK_S: Final = 1.0  # nobody knows what a lane did that was not looked at for longer
FEWEST_COUNTED: Final = 20  # the second before is this many requests long where the ceiling is lower

Cause = Literal["contended", "misaligned", "reopened", "probing", "recovered"]


class Learned(Struct, frozen=True, gc=False):
    """What is worth keeping across restarts; as JSON, three numbers.

    ``trim`` is the part of the ceiling that is left alone, ``rate`` what was accepted when the lane was last
    refused (None once the ceiling was reached again), ``calm`` how settled the lane is, 1 to 40.
    """

    trim: float = 0.0
    rate: float | None = None
    calm: float = 1.0


class RateChange(Struct, frozen=True, gc=False):
    """One change of rate, for one line in the log.

    ``contended`` and ``misaligned`` close the gate for ``hold_s``; ``new_rate`` is what follows. ``reopened``:
    the hold is over. ``probing``: beyond where it was refused last. ``recovered``: at the top again. ``contended``
    with a ``hold_s`` of 0 revises a ``misaligned`` of the same epoch: ``old_rate`` is what would have followed.
    """

    cause: Cause
    scope: str
    old_rate: float
    new_rate: float
    hold_s: float


class Climb(Struct, frozen=True, gc=False):
    """The way up from ``base``: ``gain`` within ``settle_s``, flattening, then up to ``reach`` in ``beyond_s`` more."""

    base: float
    gain: float
    settle_s: float
    reach: float
    beyond_s: float

    def rate(self, climbed_s: float) -> float:
        """Return the rate after ``climbed_s``; never falls."""
        missing = max(0.0, 1 - climbed_s / self.settle_s)
        beyond = max(0.0, climbed_s - self.settle_s) / self.beyond_s
        return self.base + self.gain * (1 - missing**3) + self.reach * beyond**3


class Epoch(Struct, gc=False):
    """One event: what was sent since ``since_s`` and before the gate opened again, and was refused."""

    since_s: float
    first_s: float  # when the first that was refused was sent, as far as is known
    cost_s: float  # how long it keeps the lane from sending
    refused: int = 1
    is_provisional: bool = False  # misaligned, unless too many were refused

    @property
    def rested_s(self) -> float:
        """How long the gate had been open."""
        return self.first_s - self.since_s


class BackoffController:
    """One lane's. Starts at the ceiling, or where ``learned`` left off; its rate is above 0 and at most ``ceiling``.

    ``ceiling`` is what no second may exceed; the limiter keeps the safety margin below it, this only ever goes
    lower. ``missing_retry_after_s`` is the hold where a 429 does not say.
    """

    __slots__ = (
        "_calm",
        "_ceiling",
        "_climb",
        "_climbed_s",
        "_depth",
        "_epoch",
        "_epoch_s",
        "_floor",
        "_is_gentle",
        "_limit",
        "_may_trim_again",
        "_meter",
        "_missing_retry_after_s",
        "_pace",
        "_reported",
        "_revision",
        "_seen_s",
        "_top",
        "_untrimmed_top",
        "epochs",
        "gate_until_s",
    )

    def __init__(
        self, *, ceiling: float, missing_retry_after_s: float, now_s: float, learned: Learned | None = None
    ) -> None:
        known = learned or Learned()
        self._ceiling = ceiling
        self._missing_retry_after_s = missing_retry_after_s
        self._floor = max(ceiling / 500, min(1.0, ceiling / 2))
        self._top = ceiling * (1 - min(max(known.trim, 0.0), MAX_TRIM))
        self._untrimmed_top = self._top
        self._meter = SentMeter(window_s=max(1.0, FEWEST_COUNTED / ceiling))
        self._limit = known.rate if known.rate is not None and 0 < known.rate < self._top else None
        self._calm = min(max(known.calm, 1.0), MAX_CALM) if self._limit else 1.0
        self._depth = _depth(self._calm)
        self._climb = self._first_climb()
        self._climbed_s = 0.0
        self._is_gentle = self._limit is not None
        self._pace = self._climb.base
        self._reported: Cause = "recovered" if self._limit is None else "reopened"
        self._seen_s = now_s
        self._epoch_s = now_s
        self._epoch = Epoch(since_s=now_s, first_s=now_s, cost_s=0.0)
        self._may_trim_again = False
        self._revision: RateChange | None = None
        self.gate_until_s = now_s
        self.epochs = 0

    def sent(self, *, now_s: float, count: int = 1) -> None:
        """Count requests as they are sent."""
        self._meter.add(count, now_s=now_s)

    def throttled(self, *, sent_at_s: float, received_at_s: float, retry_after_s: float | None) -> RateChange | None:
        """Take note of a 429: the gate is closed until `gate_until_s`, which may be later than before.

        Returns the change if it began an epoch, and None if it belongs to the last one: its request was sent
        before the gate last opened. Such a one may revise the change; then that is the next `milestone`.
        """
        until_s = received_at_s + self._hold_s(retry_after_s)
        if sent_at_s < self.gate_until_s:
            self.gate_until_s = max(self.gate_until_s, until_s)
            self._count_in(sent_at_s)
            return None
        self._epoch = Epoch(since_s=self.gate_until_s, first_s=sent_at_s, cost_s=until_s - sent_at_s)
        accepted = min(self._accepted()[0], self._pace)
        was_at_top = self._target() >= self._top
        if self._has_rested(RESTED_S):
            self._untrimmed_top = self._top
        cause: Cause = "contended"
        old_rate = self._pace
        if was_at_top and self._is_misaligned(accepted):
            cause, old_rate = "misaligned", self._top
            self._epoch.is_provisional = True
            self._may_trim_again = self._epoch.rested_s >= RESTED_S
            self._trim(accepted, is_rare=not self.epochs or received_at_s - self._epoch_s >= RARE_S)
        else:
            self._yield(accepted, was_at_top=was_at_top)
        change = RateChange(cause, "app", old_rate, self._climb.base, until_s - received_at_s)
        self._close(until_s, now_s=received_at_s)
        return change

    def pace(self, *, now_s: float, is_busy: bool = True) -> float:
        """Return the rate to go at now; 0 while the gate is closed. To be asked some ten times a second.

        The time since it was asked last, up to a second, counts for the climb if the lane was busy in it: one
        that did not want to go faster has not tried whether it could.
        """
        if now_s < self.gate_until_s:
            return 0.0
        if is_busy:
            self._climbed_s += min(LONGEST_LOOK_S, max(0.0, now_s - max(self._seen_s, self.gate_until_s)))
        self._seen_s = now_s
        if self._target() >= self._top:
            self._limit = None
        self._pace = max(self._floor, self._target() * self._reopened_share(now_s))
        return self._pace

    def milestone(self, *, now_s: float) -> RateChange | None:
        """Return what there is to log since the last epoch, each once: contended after all, or where `pace` is."""
        if self._revision is not None:
            revision, self._revision = self._revision, None
            return revision
        reached = self._stage(now_s)
        if reached is None or reached == self._reported:
            return None
        old_rate = 0.0 if reached == "reopened" else self._limit or self._climb.base
        self._reported = reached
        return RateChange(reached, "app", old_rate, self._pace, 0.0)

    @property
    def is_settled(self) -> bool:
        """Whether `pace` stays as it was last returned until another 429."""
        return self._pace == self._top

    @property
    def learned(self) -> Learned:
        """What to hand in after a restart."""
        return Learned(trim=1 - self._top / self._ceiling, rate=self._limit, calm=self._calm)

    def _hold_s(self, retry_after_s: float | None) -> float:
        if retry_after_s is None or not isfinite(retry_after_s) or retry_after_s < 0:
            return self._missing_retry_after_s
        return max(LEAST_HOLD_S, retry_after_s)

    def _accepted(self) -> tuple[float, float]:
        """Return the rate at which the server accepted before the epoch, and over which part of the second."""
        sent, spell_s = self._meter.before(self._epoch.first_s, since_s=self._epoch.since_s)
        return sent / spell_s, spell_s / self._meter.window_s

    def _has_rested(self, needed_s: float) -> bool:
        """Whether the gate had been open for long enough for every kind of window to have filled."""
        is_first = not self.epochs and self._limit is None
        return is_first or self._epoch.rested_s >= needed_s

    def _is_misaligned(self, accepted: float) -> bool:
        if accepted < MISALIGNED_SHARE * self._top:
            return False
        if self._top <= (1 - MAX_TRIM) * self._ceiling:
            return self._has_rested(LONG_RESTED_S)
        return self._has_rested(RESTED_S) or self._may_trim_again  # one trim may have been too small

    def _count_in(self, sent_at_s: float) -> None:
        """One more was refused: too many for what bad timing does, and the limit is lower after all."""
        epoch = self._epoch
        if sent_at_s < epoch.since_s:
            return
        epoch.refused += 1
        epoch.first_s = min(epoch.first_s, sent_at_s)
        if epoch.is_provisional and epoch.refused > max(FEW_REFUSED, MISALIGNED_S * self._ceiling):
            epoch.is_provisional = False
            self._revise()

    def _revise(self) -> None:
        old_rate = self._climb.base
        accepted, part = self._accepted()
        self._yield(min(accepted, self._untrimmed_top) * _part_to_believe(part), was_at_top=True)
        self._begin_climb()
        self._revision = RateChange("contended", "app", old_rate, self._climb.base, 0.0)

    def _trim(self, accepted: float, *, is_rare: bool) -> None:
        least = (1 - MAX_TRIM) * self._ceiling
        reached = max(least, min(self._pace, max(accepted, (1 - TRIM_STEP) * self._top)))
        step = FIRST_TRIM_STEP if is_rare else TRIM_STEP
        self._top = max((1 - step) * reached, least)
        self._limit, self._calm, self._depth = None, 1.0, 1.0
        self._climb = self._first_climb()

    def _yield(self, accepted: float, *, was_at_top: bool) -> None:
        """Go on well below what was accepted; trims of a moment ago, if there were any, have not helped."""
        self._top, self._may_trim_again = self._untrimmed_top, False
        gained = max(self._target() - self._climb.base, self._ceiling / 10_000)
        gain = GAIN
        if was_at_top:
            self._calm = 1.0
        else:
            # The last gain tells how many share the limit. Most of it is forgotten each time: engines that missed
            # different epochs must come to the same gain again, for their shares follow it.
            gain = min(MAX_GAIN, GAIN * (gained / self._ceiling / self._depth / GAIN) ** MEMORY)
            is_surprise = (
                self._climbed_s < TOO_EARLY * self._climb.settle_s
                or gained > TOO_FAR * self._climb.gain + GAIN * self._ceiling
            )
            self._calm = 1.0 if is_surprise else min(MAX_CALM, self._calm * CALMER)
        self._depth = _depth(self._calm)
        self._limit = max(accepted, self._floor)
        self._climb = self._climb_from(self._limit, gain=gain, cost_s=self._epoch.cost_s)

    def _first_climb(self) -> Climb:
        if self._limit is None:
            return Climb(self._top, 0.0, CLIMB_S, 0.0, BEYOND_S)
        return self._climb_from(self._limit, gain=GAIN, cost_s=LEAST_HOLD_S)

    def _climb_from(self, limit: float, *, gain: float, cost_s: float) -> Climb:
        cut = self._depth * (CUT + CUT_BY_SHARE * limit / self._ceiling)
        stretch = min(MAX_STRETCH, sqrt(max(1.0, cost_s)))  # dear epochs had better be rarer
        return Climb(
            base=max(self._floor, limit * (1 - cut)),
            gain=gain * self._depth * self._ceiling,
            settle_s=CLIMB_S * self._calm * stretch,
            reach=self._ceiling,
            beyond_s=BEYOND_S * stretch,
        )

    def _close(self, until_s: float, *, now_s: float) -> None:
        self.epochs += 1
        self.gate_until_s = until_s
        self._epoch_s = now_s
        self._is_gentle = True
        self._reported = "contended"
        self._revision = None
        self._begin_climb()

    def _begin_climb(self) -> None:
        self._climbed_s = 0.0
        self._pace = max(self._floor, self._climb.base * REOPEN_SHARE)

    def _target(self) -> float:
        return min(self._top, self._climb.rate(self._climbed_s))

    def _reopened_share(self, now_s: float) -> float:
        opened_for_s = now_s - self.gate_until_s
        if not self._is_gentle or opened_for_s >= REOPENED_S:
            return 1.0
        return 1 - (1 - REOPEN_SHARE) * exp2(-opened_for_s / REOPEN_HALVING_S)

    def _stage(self, now_s: float) -> Cause | None:
        if now_s < self.gate_until_s:
            return None
        if self._reported == "contended":
            return "reopened"
        if self._pace >= self._top:
            return "recovered"
        return "probing" if self._climbed_s > self._climb.settle_s else None


def _part_to_believe(part: float) -> float:
    """Return how much of the rate was the limit's, where it proved lower ``part`` of a second after sending began.

    A window counts whole seconds, and was empty before: what it let in is what it lets in a second.
    """
    return min(1.0, part) if part >= BURST_PART else BURST_SHARE


def _depth(calm: float) -> float:
    """Return how deep to cut: 1 at first, `SHALLOWEST` once settled."""
    settled = min(1.0, max(0.0, (calm - SHALLOWER_FROM) / (SETTLED_AT - SHALLOWER_FROM)))
    return 1 - (1 - SHALLOWEST) * settled
