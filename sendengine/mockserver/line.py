"""One client's connection: its socket, and what turns out to be spoken on it.

Units: bytes.

Method: over TLS the protocol is named by ALPN. Where it is not, the first bytes tell: HTTP/2 begins with a preface
that is no request of HTTP/1.1 (RFC 9113, section 3.4).
"""

import asyncio
import socket
import ssl as tls
import struct
from typing import Final, cast

from sendengine.mockserver.http1 import Http1
from sendengine.mockserver.http2.frames import PREFACE
from sendengine.mockserver.http2.session import Session
from sendengine.mockserver.protocol import Front, Speaker

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time, so that closing sends RST
_UNWRITTEN_BYTES: Final = 1024 * 1024  # replies that a client does not read; beyond it nothing more is read of it
_BUFFER_BYTES: Final = 262_144  # as much as uvloop reads at a time


class Line:
    """A connection, without the way in which the loop hands over what was read."""

    __slots__ = ("_first", "_front", "_is_clogged", "_is_stopped", "_loop", "_speaker", "_transport")

    def __init__(self, front: Front, *, loop: asyncio.AbstractEventLoop) -> None:
        self._front = front
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._speaker: Speaker | None = None
        self._first = b""
        self._is_stopped = False
        self._is_clogged = False

    @property
    def is_open(self) -> bool:
        """Whether the connection is still there."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a client."""
        self._transport = there = cast("asyncio.Transport", transport)  # uvloop's do not say that they are
        there.set_write_buffer_limits(high=_UNWRITTEN_BYTES)
        self._front.opened(self)
        if there.is_closing():
            return
        session: tls.SSLObject | None = there.get_extra_info("ssl_object")
        named = session.selected_alpn_protocol() if session is not None else None
        if named == "h2":
            self._speak(is_http2=True)
        elif named is not None or not self._front.config.http2:
            self._speak(is_http2=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Forget what was not answered yet."""
        self._transport = None
        if self._speaker is not None:
            self._speaker.lost()
        self._front.closed(self)

    def received(self, data: bytes) -> None:
        """Read what came."""
        speaker = self._speaker
        if speaker is None:
            data = self._first = self._first + data
            is_http2 = data.startswith(PREFACE)
            if not is_http2 and PREFACE.startswith(data):
                return  # it may become either
            speaker = self._speak(is_http2=is_http2)
        speaker.feed(data)

    def pause_writing(self) -> None:
        """Read no more of a client that does not read."""
        self._is_clogged = True
        self._look()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_clogged = False
        self._look()

    def write(self, data: bytes) -> None:
        """Write, where the client is still there."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close, after what is written already."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Send RST at once."""
        if self._transport is None:
            return
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def configured(self) -> None:
        """Take note of new settings."""
        if self._speaker is not None:
            self._speaker.configured()

    def go_away(self, *, hard: bool) -> None:
        """Take no more requests; answer those under way and close, or where it is ``hard``, close at once."""
        if self._speaker is not None:
            self._speaker.go_away(hard=hard)
        else:
            self.close()

    def stop_reading(self) -> None:
        """Read nothing more until `read_on`; replies go on."""
        self._is_stopped = True
        self._look()

    def read_on(self) -> None:
        """Read again."""
        self._is_stopped = False
        self._look()

    def _speak(self, *, is_http2: bool) -> Speaker:
        kind = Session if is_http2 else Http1
        self._front.spoken(is_http2=is_http2)
        self._speaker = speaker = kind(self._front, self, loop=self._loop)
        return speaker

    def _look(self) -> None:
        """Read, or do not."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_stopped or self._is_clogged:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


class PlainLine(Line, asyncio.Protocol):
    """A connection in clear text."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        self.received(data)


class TlsLine(Line, asyncio.BufferedProtocol):
    """A connection over TLS: where the loops make a buffer of their own, each TLS record costs 256 KB."""

    __slots__ = ("_buffer",)

    def __init__(self, front: Front, *, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        """``buffer`` may be shared: nothing is kept in it between two steps of the loop."""
        super().__init__(front, loop=loop)
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Have the loop read into a buffer that is there."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what came."""
        self.received(bytes(self._buffer[:nbytes]))


def buffer() -> memoryview:
    """Make the buffer that the TLS connections of one loop share."""
    return memoryview(bytearray(_BUFFER_BYTES))
