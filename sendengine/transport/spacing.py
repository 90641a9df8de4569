"""Spaces TLS handshakes out, so that no turn of the loop has to carry many of them.

Units: seconds on the running loop's clock.

Method: there are `TURNS`. Whoever begins a handshake takes one, and has it until the handshake is over, but for at
most `HELD_S`: a server that is far away lets those that began apart end apart, and a bound on how many are under way
would tie their rate to its distance. Whoever finds none waits in its order. A connection without TLS needs none.

Source: measured (uvloop 0.23, HTTP/1.1, sessions resumed), a connection over TLS costs the loop 0.6 to 0.9 ms from its
socket to its place in the pool. Without this 40 to 60 gathered in a turn of the loop, each end letting another begin
in the same turn, and every turn took 20 to 60 ms for as long as connections were opened.
"""

import asyncio
from collections import deque
from typing import Final

TURNS: Final = 4
HELD_S: Final = 0.005  # so that 800 a second may begin, however far away the server is


class Turn:
    """Somebody's leave to make a handshake."""

    __slots__ = ("_spacing", "_timer")

    def __init__(self, spacing: "Spacing", loop: asyncio.AbstractEventLoop) -> None:
        self._spacing = spacing
        self._timer: asyncio.TimerHandle | None = loop.call_later(HELD_S, self.end)

    def end(self) -> None:
        """Leave the turn to whoever is next; harmless where that has happened."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._spacing.ended()


class Spacing:
    """Says who may begin a handshake. Make it on a running loop."""

    __slots__ = ("_free", "_loop", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = TURNS
        self._waiting: deque[asyncio.Future[Turn]] = deque()

    async def turn(self) -> Turn:
        """Return when it is the caller's turn. Cancelling it takes none."""
        if self._free:
            self._free -= 1
            return Turn(self, self._loop)
        waiter: asyncio.Future[Turn] = self._loop.create_future()
        self._waiting.append(waiter)
        return await waiter  # where it is cancelled with its turn in hand, that ends by itself

    def ended(self) -> None:
        """A turn is over."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(Turn(self, self._loop))
                return
        self._free += 1
