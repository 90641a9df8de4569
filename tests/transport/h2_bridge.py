"""Lets the scripts that say replies in HTTP/1.1's words say them in HTTP/2, so that one suite holds for both.

A connection allows one stream at a time, which gives it HTTP/1.1's shape: one exchange a connection. What a script
sends is parsed as HTTP/1.1 and said as frames; "Connection: close" becomes GOAWAY, a body without a length ends where
the script does, and what is no HTTP goes out as it is. The body of a request is let in when the script reads it.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.transport.h2_frames import (
    DEFAULT_WINDOW,
    PREFACE,
    Setting,
    data,
    goaway,
    head,
    headers,
    settings,
    window_update,
)
from tests.transport.h2_session import Asked, Session
from tests.transport.scripted import GONE, Peer, Received

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})\b[^\r\n]*\Z")
_INTERIM: Final = 200
_HEAD_END: Final = b"\r\n\r\n"
_PIECE: Final = 16_384
_NEVER_SENT: Final = {"connection", "keep-alive"}


class BridgedPeer(Peer):
    """One accepted connection, on which a script's HTTP/1.1 travels as HTTP/2."""

    def begin(self) -> None:
        self.session = Session(self._write)
        self.session.refills = False
        self._changed = asyncio.Event()
        self._reading = asyncio.get_running_loop().create_task(self._read())
        self._heads = 0
        self._said = b""
        self._missing: int | None = 0  # of the body that is being said; None where it has no length
        self._is_saying = False

    async def finish(self) -> None:
        if self._is_saying and self._missing is None and self._asked is not None and self._asked.is_open:
            self.session.send(data(self._asked.stream, end=True))

    def stop(self) -> None:
        self._reading.cancel()

    @property
    def faults(self) -> list[str]:
        return self.session.faults

    async def head(self) -> Received:
        await self._until(lambda: len(self.session.asked) > self._heads)
        self._heads += 1
        asked = self._asked
        assert asked is not None
        named = {_titled(name): value for name, value in asked.fields.items() if not name.startswith(":")}
        named["Host"] = asked.fields[":authority"]
        return Received(f"{asked.fields[':method']} {asked.fields[':path']} HTTP/1.1", named, b"")

    async def request(self) -> Received:
        received = await self.head()
        asked = self._asked
        assert asked is not None
        self.session.refills = True
        for stream, room in ((0, self.session.room), (asked.stream, asked.room)):
            if room < DEFAULT_WINDOW and (stream == 0 or not asked.is_whole):
                self.session.send(window_update(stream, DEFAULT_WINDOW - room))
        await self._until(lambda: asked.is_whole or not asked.is_open)
        self.session.refills = False
        if not asked.is_whole:
            return await self.request()  # nobody waits for it any more
        whole = Received(received.line, received.headers, bytes(asked.body))
        self.server.requests.append(whole)
        self.server.got_request.set()
        return whole

    async def send(self, said: bytes) -> None:
        self._said += said
        while self._said:
            if self._is_saying:
                await self._say_body()
                continue
            text, end, rest = self._said.partition(_HEAD_END)
            line, *fields = text.split(b"\r\n")
            status = _STATUS_LINE.match(line)
            if end and status:
                self._said = rest
                self._say_head(int(status[1]), fields)
            elif b"HTTP/1.1 200 OK".startswith(line[:15]) or status:
                break  # more of it may come
            else:
                self._write(self._said)
                self._said = b""
        await self.writer.drain()

    async def left(self) -> None:
        """Return when the client has closed its side."""
        with suppress(*GONE, asyncio.CancelledError):
            await asyncio.shield(self._reading)

    @property
    def _asked(self) -> Asked | None:
        """The request whose head was read last."""
        return list(self.session.asked.values())[self._heads - 1] if self._heads else None

    @property
    def _stream(self) -> int:
        return self._asked.stream if self._asked else 1

    def _say_head(self, status: int, lines: list[bytes]) -> None:
        named = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        if any(name == b"connection" and b"close" in value.lower() for name, value in named):
            self.session.send(goaway(self._stream))
        length = dict(named).get(b"content-length")
        self._missing = 0 if status in {204, 304} else int(length) if length and length.isdigit() else None
        is_interim = status < _INTERIM and status != 101
        fields = head(status, *[(name, value) for name, value in named if name.decode() not in _NEVER_SENT])
        self._is_saying = not is_interim and self._missing != 0
        self.session.send(headers(self._stream, fields, end=not is_interim and self._missing == 0))

    async def _say_body(self) -> None:
        asked = self._asked
        size = min(len(self._said), _PIECE, self._missing or _PIECE)
        if asked is not None:
            await self._until(lambda: not asked.is_open or min(asked.credit, self.session.credit) > 0)
            size = min(size, asked.credit, self.session.credit) if asked.is_open else size
        piece, self._said = self._said[:size], self._said[size:]
        if self._missing is not None:
            self._missing -= size
        self._is_saying = self._missing != 0
        if asked is None or asked.reset_by_client is None:
            self.session.send(data(self._stream, piece, end=self._missing == 0))

    async def _read(self) -> None:
        with suppress(*GONE):
            while said := await self.reader.read(65_536):
                if not self.session.has_preface and not PREFACE.startswith(said[: len(PREFACE)]):
                    continue  # TLS, to which a script falls silent
                if not self.session.frames:
                    self.session.send(settings({Setting.MAX_CONCURRENT_STREAMS: 1}))
                self.session.feed(said)
                self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._reading.done():
                raise ConnectionResetError("the client has closed")
            self._changed.clear()
            waiting = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait([waiting, self._reading], return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()

    def _write(self, said: bytes) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(said)


def _titled(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
