"""Work that is done to its end although the task that waits for it is cancelled."""

import asyncio
from collections.abc import Coroutine


async def shielded(work: Coroutine[object, object, None]) -> None:
    """Run ``work`` to its end; a cancellation that came meanwhile goes on afterwards."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
