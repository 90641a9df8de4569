"""How long the event loop was kept from its work: a collection, a host's slow callback, a starved machine.

Units: seconds on the loop's clock.

Method: a timer every ten milliseconds, and how much later than asked it runs. A pause that begins between two of
them shows less the time to the next, so what is reported is low by up to ten milliseconds and never high.
"""

from collections.abc import Callable
from typing import Final, Protocol

INTERVAL_S: Final = 0.01  # a hundred timers a second are a tenth of a percent of a core


class Timer(Protocol):
    """What `Loop.call_later` returns."""

    def cancel(self) -> None:
        """Keep it from running."""
        ...


class Loop(Protocol):
    """What is used of a running `asyncio` loop."""

    def time(self) -> float:
        """Return the loop's clock."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Run ``callback`` after ``delay`` seconds."""
        ...


class LoopLag:
    """Watches a loop between `start` and `stop`, which the engine calls when it gets busy and idle."""

    __slots__ = ("_due_at_s", "_longest_s", "_loop", "_timer")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._timer: Timer | None = None
        self._due_at_s = 0.0
        self._longest_s = 0.0

    def __repr__(self) -> str:
        return f"<LoopLag {'stopped' if self._timer is None else 'watching'}, longest {self._longest_s:.3f} s>"

    @property
    def longest_s(self) -> float:
        """The longest pause so far, one that is still going on not counted."""
        return self._longest_s

    def start(self) -> None:
        """Watch from now on; does nothing where it watches already."""
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Watch no longer and leave no timer behind; what was seen stays. Does nothing where it does not watch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._due_at_s = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_later(INTERVAL_S, self._look)

    def _look(self) -> None:
        self._longest_s = max(self._longest_s, self._loop.time() - self._due_at_s)
        self._wait()
