"""Workers that want permits as fast as they come, on a virtual clock."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

from sendengine.limiter import GateClosedError, Limiter
from tests.support.virtual_loop import VirtualLoop


def virtual_loop() -> VirtualLoop:
    return cast("VirtualLoop", asyncio.get_running_loop())


@contextlib.asynccontextmanager
async def contended(
    limiter: Limiter, *, workers: int = 60, send: Callable[[], object] = lambda: None
) -> AsyncIterator[list[float]]:
    """Let workers take permits without a pause between, each of which they ``send``; yields the permits' instants."""
    loop = virtual_loop()
    instants: list[float] = []

    async def work() -> None:
        while True:
            try:
                await limiter.permit()
            except GateClosedError:
                await asyncio.sleep(0.001)
            else:
                instants.append(loop.time())
                send()

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        yield instants
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await limiter.aclose()


def most_in_one_second(instants: Sequence[float]) -> int:
    """The most instants in any closed second: starts at each of them, counts to the end of its second."""
    inside: deque[float] = deque()
    most = 0
    for instant in instants:
        inside.append(instant)
        while inside[0] < instant - 1.0:
            inside.popleft()
        most = max(most, len(inside))
    return most


def stall(seconds: float) -> None:
    """The loop does nothing else for a while: a collection, a neighbour, a long callback."""
    virtual_loop().now_s += seconds
