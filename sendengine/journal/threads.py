"""Blocking work beside the event loop, on a thread that ends with it.

The loop's own threads, and anyio's, would outlive the engine in its host.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


async def on_a_thread(work: Callable[[], _Result]) -> _Result:
    """Run ``work`` and return what it returns. Cancelling it lets the thread end by itself."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="sendengine")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)
