"""What the pool, and an exchange, need of a connection, whatever protocol it speaks.

Units: exchanges.
"""

import asyncio
from typing import Protocol

from sendengine.errors import NotSentError
from sendengine.ports import Reply, WireRequest


class DismissedError(NotSentError):
    """A server took a connection and ended it at once; internal, never leaves the transport."""


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
    def is_gone(self) -> bool:
        """Whether it is closed, or being closed."""
        ...

    def enter(self) -> None:
        """Be offered from now on; called once, when it is open."""
        ...

    def claim(self) -> int:
        """Take the room for one exchange, and return for how many there was any.

        0 where there is none, or the connection is not to be used any more; 1 where this was the last.
        """
        ...

    def give_back(self) -> None:
        """Return the room that was claimed and not used."""
        ...

    def send(self, request: WireRequest) -> asyncio.Future[Reply] | None:
        """Use the room that was claimed; None, and nothing is written, where that is not possible any more.

        Raises NotSentError where the request cannot be written at all, and ReplyLostError where it is not certain
        what was written; the future ends in ReplyLostError. The caller abandons it where it stops to wait for it.
        """
        ...

    def abandon(self, reply: asyncio.Future[Reply]) -> None:
        """Nobody waits for this reply any more, if it is not there yet."""
        ...

    def retire(self) -> None:
        """Take nothing new; close after the last reply, or now where none is awaited."""
        ...

    def cut(self) -> None:
        """Close at once, since the transport does."""
        ...
