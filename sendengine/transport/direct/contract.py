"""What the pool, and an exchange, need of a connection, whatever protocol it speaks.

Units: exchanges.
"""

import asyncio
from typing import Protocol

from sendengine.ports import Reply, WireRequest


class Connection(Protocol):
    """One connection: its room, which is claimed before it is used, and its end."""

    @property
    def room(self) -> int:
        """How many exchanges it carries at once, as things are now."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether it would take one more exchange beside those that have claimed their room."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether `send` would take a request from whoever has claimed the room for it."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether it is closed, or being closed."""
        ...

    def enter(self) -> None:
        """Be offered from now on; called once, when it is open."""
        ...

    def claim(self) -> bool:
        """Take the room for one exchange; False where there is none, or it is not to be used any more."""
        ...

    def give_back(self) -> None:
        """Return the room that was claimed and not used."""
        ...

    def send(self, request: WireRequest) -> asyncio.Future[Reply]:
        """Use the room that was claimed.

        Raises NotSentError where nothing was written, and ReplyLostError where that is not certain; the future ends
        in ReplyLostError. The caller abandons it where it stops to wait for it.
        """
        ...

    def abandon(self, reply: asyncio.Future[Reply]) -> None:
        """Nobody waits for this reply any more, if it is not there yet."""
        ...

    def cut(self) -> None:
        """Close at once, since the transport does."""
        ...
