"""Open-model load: jobs come at their own instants, whatever became of the earlier ones.

Latency is counted from the instant at which a job was meant to come, so that a client or an engine that falls behind
cannot hide it. Instants are a Poisson process's, with a seed; a loop that is late starts what is due at once.

Units: seconds on ``perf_counter``; rates are a second.
"""

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from time import perf_counter
from typing import Final

_TICK_S: Final = 0.001

Start = Callable[[int, float], None]
"""Starts a job: its number, and the instant at which it was meant to."""


def instants(rate: float, *, seconds: float, seed: int = 1) -> Iterator[float]:
    """Draw the instants of one stretch, counted from its begin."""
    chance = Random(seed)
    at_s = chance.expovariate(rate)
    while at_s < seconds:
        yield at_s
        at_s += chance.expovariate(rate)


async def arrive(start: Start, *, rate: float, seconds: float, seed: int = 1) -> int:
    """Start jobs as they come, and return how many there were; what ``start`` raises ends it."""
    begun_s, number = perf_counter(), 0
    for at_s in instants(rate, seconds=seconds, seed=seed):
        while perf_counter() - begun_s < at_s:  # noqa: ASYNC110 - what is waited for is the time
            await asyncio.sleep(_TICK_S)
        start(number, begun_s + at_s)
        number += 1
    return number


def percentiles_ms(times_s: list[float]) -> dict[str, float]:
    """Sum up times as p50, p99, p99.9 and their maximum, in milliseconds; all 0 where there are none."""
    ordered = sorted(times_s) or [0.0]

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3

    return {"p50 ms": at(0.5), "p99 ms": at(0.99), "p99.9 ms": at(0.999), "max ms": ordered[-1] * 1e3}
