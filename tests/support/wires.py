"""What a loop has put on its connections and not read yet: while bytes are on their way, a virtual clock stands still.

Method: all ends of all connections are in this process, so what was sent and not received is a matter of counting.
Connections that begin or end are not counted but waited for, which loopback makes short.
"""

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

ARRIVAL_S: Final = 0.02
"""Of real time: how long bytes are waited for that were sent and have not come; some never do."""
STIR_S: Final = 0.001
"""The same, of a connection that was opened or closed, of which the other end hears."""


class Wires:
    """Counts the bytes of all connections of one loop."""

    __slots__ = ("_lost", "is_stirred", "under_way")

    def __init__(self) -> None:
        self.is_stirred = False
        self.under_way = 0
        self._lost = 0

    @property
    def patience_s(self) -> float:
        """How long, of real time, something may take that is on its way; 0.0 where nothing can be."""
        if self.under_way != self._lost:
            return ARRIVAL_S
        return STIR_S if self.is_stirred else 0.0

    def settled(self) -> None:
        """Take what did not come for something that never does: its reader has stopped reading, or is gone."""
        self.is_stirred = False
        self._lost = self.under_way


class CountedSocket(socket.socket):
    """One end of a connection. Takes the descriptor away from the socket that it is made of."""

    __slots__ = ("_wires",)

    def __init__(self, wires: Wires, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.settimeout(0)
        self._wires = wires

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        count = super().send(data, flags)
        self._wires.under_way += count
        return count

    def sendmsg(self, buffers: "Iterable[ReadableBuffer]", *rest: Any) -> int:
        count = super().sendmsg(buffers, *rest)
        self._wires.under_way += count
        return count

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(size, flags)
        self._wires.under_way -= len(data)
        return data

    def recv_into(self, buffer: "WriteableBuffer", size: int = 0, flags: int = 0, /) -> int:
        count = super().recv_into(buffer, size, flags)
        self._wires.under_way -= count
        return count
