"""What makes a process a good mock server: many connections, and a collector that does not stop it.

The library leaves a host's collector alone; a process that does nothing but serve calls `tune_process`.
"""

import asyncio
import gc
from typing import Final

_THRESHOLDS: Final = (10_000, 50, 1000)  # the collector's defaults cost 15 % of a run and pauses of 31 ms


def tune_process() -> None:
    """Allow as many connections as the system lets us, and make the collector's pauses rare."""
    _raise_descriptor_limit()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def fast_loop() -> asyncio.AbstractEventLoop:
    """Make the fastest event loop that there is: uvloop's, or asyncio's own on Windows."""
    try:
        import uvloop  # noqa: PLC0415  # there is none on Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _raise_descriptor_limit() -> None:
    try:
        import resource  # noqa: PLC0415  # there is none on Windows
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
