"""How long a reply takes, and a cheap way of waiting for thousands of them.

Units: seconds; instants are the running loop's ``time()``.
"""

from collections.abc import Callable
from math import ceil, log
from random import Random
from typing import Final, Generic, Protocol, TypeVar

_P99: Final = 2.3263478740408408  # the 99th percentile of the standard normal distribution
_MS: Final = 1000

T = TypeVar("T")


class Latency:
    """Constant, or lognormal with a given median and 99th percentile; seeded."""

    __slots__ = ("_median_s", "_mu", "_random", "_sigma")

    def __init__(self, *, median_ms: float, p99_ms: float, seed: int) -> None:
        self._median_s = median_ms / _MS
        self._random = Random(seed)  # noqa: S311  # chance that must repeat, not a secret
        spread = p99_ms > median_ms > 0
        self._mu = log(self._median_s) if spread else 0.0
        self._sigma = log(p99_ms / median_ms) / _P99 if spread else 0.0

    def draw(self) -> float:
        """Seconds until the next reply."""
        if not self._sigma:
            return self._median_s
        return self._random.lognormvariate(self._mu, self._sigma)


class Timer(Protocol):
    """Something that was to happen and may be called off."""

    def cancel(self) -> None:
        """Call it off."""
        ...


class TimerWheel(Generic[T]):
    """Hands each item to ``fire`` when it is due, with one timer for all that are due in the same millisecond.

    ``call_at`` is the running loop's.
    """

    __slots__ = ("_call_at", "_due", "_fire")

    def __init__(self, fire: Callable[[T], None], *, call_at: Callable[..., Timer]) -> None:
        self._fire = fire
        self._call_at = call_at
        self._due: dict[int, tuple[Timer, list[T]]] = {}

    def add(self, item: T, *, due_s: float) -> None:
        """Fire ``item`` at ``due_s``, up to a millisecond later; items of one millisecond keep their order."""
        slot = ceil(due_s * _MS)
        waiting = self._due.get(slot)
        if waiting is None:
            timer = self._call_at(slot / _MS, self._turn, slot)
            self._due[slot] = (timer, [item])
        else:
            waiting[1].append(item)

    def stop(self) -> None:
        """Forget everything that is not yet due."""
        for timer, _ in self._due.values():
            timer.cancel()
        self._due.clear()

    def _turn(self, slot: int) -> None:
        for item in self._due.pop(slot)[1]:
            self._fire(item)
