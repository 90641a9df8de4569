"""How fast a lane may go so that no second holds more than its ceiling, and the count that proves it.

Units: rates are permits a second; ``_s`` is seconds on a monotonic clock, handed in. One permit is one request.

Method: a bucket of depth 1 + r·S that fills at r = N / (W + S + J) lets any N + 1 permits span at least W + J,
so that no window of W = 1 s holds more than N of them, wherever it starts, and none does at the server as long
as the way there delays by J at most. S is the pause of the event loop that costs no permit. J is a little more:
what a pause of the loop holds back between a permit and its write is at most one bucketful, and that r·J covers,
however long the pause (from 2,000 permits a second on; below, a pause may push one permit too many into a second).
While connections are opened delays differ by more than J, so a lane begins with a part of r.
"""

from collections import deque
from math import floor
from typing import Final

WINDOW_S: Final = 1.0
# S, and J beside it. The first leaves 99.1 % of the ceiling; the last, 96.0 %, is for a loop that is often away.
ALLOWANCES: Final = ((0.004, 0.005), (0.006, 0.007), (0.009, 0.010), (0.012, 0.013), (0.020, 0.021))
LONE_JITTER_S: Final = 0.05  # J where N is 1: with few permits in a second nothing averages out
FITTING_S: Final = 1.1  # longer than W + J, see `Allowance.rate_level`
WARM_UP_S: Final = 0.3
COLD_SHARE: Final = 0.8  # of the safe rate
COOLED_S: Final = 5.0  # there are servers that close what has been idle for that long


def safe_rate(ceiling: float, *, level: int = 0) -> float:
    """Return the highest rate that never puts more than ``ceiling`` permits into one second.

    A ceiling of 37.5 lets 37 into any second; one below 1 lets one into any ``1 / ceiling`` seconds. ``level``
    is the place in ALLOWANCES. Raises ValueError where ``ceiling`` is not above 0.
    """
    if not ceiling > 0:
        raise ValueError(f"a ceiling must be above 0 permits/s, got {ceiling}")
    whole = max(1, floor(ceiling + 1e-9))  # 0.29 * 100 is 28.999999999999996
    pause_s, jitter_s = ALLOWANCES[level]
    return whole / (max(WINDOW_S, 1 / ceiling) + pause_s + max(jitter_s, LONE_JITTER_S / whole))


def warm_share(since_s: float) -> float:
    """Return which part of the safe rate a lane may use ``since_s`` after it began, with connections yet to be opened.

    What goes out while hundreds are opened arrives later than what follows, so that the first second at the server
    holds more than any that we sent. From COLD_SHARE the share rises to 1 within WARM_UP_S. That leaves room for 30 ms
    of sends in the second from the beginning on, for 21 in the one that begins 50 ms after, and takes 30 ms once.
    """
    return 1 - (1 - COLD_SHARE) * max(0.0, 1 - since_s / WARM_UP_S)


class Allowance:
    """Fits S to the loop: a longer one costs rate, a shorter one loses permits whenever the loop is away.

    Each level's price is what its S and J take from the rate and what would have overflowed under it. About
    once a second, while somebody waits, the level moves one step towards the cheapest.
    """

    __slots__ = ("_away_s", "_fitted_s", "_lag", "_level", "_overflow_s")

    def __init__(self) -> None:
        self._level = 0
        self._lag = 0  # the level before this one, while it still counts for the rate
        self._fitted_s: float | None = None
        self._away_s = 0.0
        self._overflow_s = [0.0] * len(ALLOWANCES)

    @property
    def pause_s(self) -> float:
        """S, which decides the depth of the bucket."""
        return ALLOWANCES[self._level][0]

    @property
    def rate_level(self) -> int:
        """The level that decides the rate: after a step down the old one, until its bucketful is a window old."""
        return max(self._level, self._lag)

    def was_refitted(self, away_s: float, *, spare_s: float, now_s: float) -> bool:
        """Note that the loop was away for ``away_s``, ``spare_s`` of which made the permit waited for.

        True where S or the rate is another one from now on.
        """
        self._away_s += away_s
        if away_s > spare_s + ALLOWANCES[0][0]:
            for level, (pause_s, _) in enumerate(ALLOWANCES):
                self._overflow_s[level] += max(0.0, away_s - spare_s - pause_s)
        if self._fitted_s is None:
            self._fitted_s = now_s
        if now_s - self._fitted_s < FITTING_S:
            return False
        self._fitted_s = now_s
        return self._step()

    def _step(self) -> bool:
        before = (self._level, self.rate_level)
        prices = [
            sum(allowance) + lost_s / self._away_s
            for allowance, lost_s in zip(ALLOWANCES, self._overflow_s, strict=True)
        ]
        self._lag = self._level
        best = prices.index(min(prices))
        self._level += (best > self._level) - (best < self._level)
        self._away_s /= 2  # what happened fades by half a step
        self._overflow_s = [lost_s / 2 for lost_s in self._overflow_s]
        return before != (self._level, self.rate_level)


class Audit:
    """The most permits in any one second, counted by the millisecond: no rate, no bucket, no arithmetic of theirs."""

    __slots__ = ("_by_ms", "_last_ms", "_total", "most")

    def __init__(self) -> None:
        self._by_ms: deque[list[int]] = deque()  # a millisecond and its count
        self._last_ms: int | None = None
        self._total = 0
        self.most = 0

    def record(self, count: int, *, now_s: float) -> None:
        """Count permits that go out now; ``now_s`` never goes back."""
        now_ms = round(now_s * 1000)
        self._total += count
        if now_ms == self._last_ms:
            self._by_ms[-1][1] += count
        else:
            self._last_ms = now_ms
            self._by_ms.append([now_ms, count])
            while self._by_ms[0][0] < now_ms - 1000:
                self._total -= self._by_ms.popleft()[1]
        if self._total > self.most:  # noqa: PLR1730 - runs for each permit: max() would cost as much as the rest
            self.most = self._total
