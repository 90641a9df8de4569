"""Many jobs through an engine with a bound on how many are under way, outcomes as they come."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from sendengine.core.jobs import Job
from sendengine.core.outcomes import Outcome
from sendengine.engine.receipts import Receipt


async def map_jobs(
    submit: Callable[[Job], Awaitable[Receipt]], jobs: Iterable[Job] | AsyncIterable[Job], *, in_flight: int
) -> AsyncIterator[tuple[Job, Outcome]]:
    """See `SendEngine.map`."""
    if in_flight < 1:
        raise ValueError(f"in_flight must be at least 1 job, got {in_flight}")
    settled: deque[Receipt] = deque()
    arrived = asyncio.Event()
    room = asyncio.Semaphore(in_flight)
    admitted = 0

    def settle(receipt: Receipt) -> None:
        settled.append(receipt)
        arrived.set()

    async def feed() -> None:
        nonlocal admitted
        try:
            async for job in _each(jobs):
                await room.acquire()
                receipt = await submit(job)
                admitted += 1
                receipt.add_done_callback(settle)
        finally:
            arrived.set()

    feeder = asyncio.get_running_loop().create_task(feed())
    try:
        while not (feeder.done() and not admitted):
            await arrived.wait()
            arrived.clear()
            while settled:
                receipt = settled.popleft()
                admitted -= 1
                room.release()
                if receipt.outcome is not None:
                    yield receipt.job, receipt.outcome
        feeder.result()
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def _each(jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
    if isinstance(jobs, AsyncIterable):
        async for job in jobs:
            yield job
        return
    for job in jobs:
        yield job
