"""The two steps of stopping: the first signal drains, the second aborts.

Only the command line listens to signals; the library never does.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sendengine.cli.output import note

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Which step has been asked for; ``on_drain`` and ``on_abort`` are called once each, on the loop."""

    __slots__ = ("_on_abort", "_on_drain", "is_aborting", "is_draining")

    def __init__(self, *, on_drain: Callable[[], None], on_abort: Callable[[], None]) -> None:
        self.is_draining = False
        self.is_aborting = False
        self._on_drain = on_drain
        self._on_abort = on_abort

    def signalled(self) -> None:
        """Take the next step; a third signal changes nothing."""
        if not self.is_draining:
            self.is_draining = True
            note("\nStopping: nothing more is sent, and what is on the wire finishes. Once more to abort.")
            self._on_drain()
        elif not self.is_aborting:
            self.is_aborting = True
            note("\nAborting: what is on the wire is given up after a few seconds, and may have been sent.")
            self._on_abort()


@contextmanager
def listening(stop: Stop) -> Iterator[Stop]:
    """Let SIGINT and SIGTERM take the steps of ``stop`` for as long as the block runs, on the running loop."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.signalled)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
