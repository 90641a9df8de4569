"""What makes a process a good mock server: many connections, and a collector that does not stop it.

The library leaves a host's collector alone; a process that does nothing but serve calls `tune_process`.
"""

import asyncio

from sendengine.telemetry.collector import tune_collector


def tune_process() -> None:
    """Allow as many connections as the system lets us, and keep the collector's pauses short; called on the loop.

    A server that stands still for 30 ms counts what arrived meanwhile as one burst, and refuses who kept to its limit.
    """
    _raise_descriptor_limit()
    tune_collector()


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
