"""Whether a connection is used again at once after its reply, or rests first, in case the server is ending it.

Units: seconds on the running loop's clock.

Method: a server may end each connection after its reply and not say so (tinyproxy does, for targets without TLS).
A request that is written before that is seen has lost its reply, and waits long until it goes again. So one connection
that was ended within `BRIEF_S` of its first reply, and before a second, is enough: from then on each rests for
`REST_S` after its reply, and is used again if it is still there. The first that is ends that: the server keeps
connections, as nearly all do, and had another reason. Where it had, all that replied meanwhile have rested for nothing,
once.
"""

from typing import Final

BRIEF_S: Final = 1.0
REST_S: Final = 0.25


class Reuse:
    """What is known of one host. ``is_wary``: a connection is to rest after its reply."""

    __slots__ = ("is_wary",)

    def __init__(self) -> None:
        self.is_wary = False

    def ended(self, *, replied_s: float, now_s: float) -> None:
        """The server has ended a connection, unannounced, whose only reply came at ``replied_s``."""
        if now_s < replied_s + BRIEF_S:
            self.is_wary = True

    def outlived(self) -> None:
        """A connection was still there after its rest."""
        self.is_wary = False
