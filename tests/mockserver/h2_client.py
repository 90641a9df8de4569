"""A tiny raw HTTP/2 client: frames as they are on the wire, header blocks by the hpack library."""

import asyncio
import ssl as tls
from collections.abc import Awaitable, Callable, Mapping
from struct import pack, unpack

import orjson
from hpack import Decoder, Encoder
from msgspec import Struct

from sendengine.mockserver import MockServer
from tests.mockserver.raw_client import APP, Answered

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
(
    NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
    REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM,
) = range(12)  # fmt: skip


class Frame(Struct):
    kind: int
    flags: int
    number: int
    payload: bytes


class StreamResetError(Exception):
    """The server reset the stream."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class GoneError(Exception):
    """The server said GOAWAY, or closed without a word (last and code are -1)."""

    def __init__(self, last: int, code: int) -> None:
        super().__init__(last, code)
        self.last = last
        self.code = code


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    return pack(">L", len(payload))[1:] + bytes([kind, flags]) + pack(">L", number) + payload


def settings(values: Mapping[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(pack(">HL", *pair) for pair in values.items()))


class H2Client:
    """One connection. What comes for other streams than the one that is asked for is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.server: dict[int, int] = {}  # its settings
        self.gone: GoneError | None = None
        self.kept: list[Frame] = []
        self.next = 1

    def greet(self, values: Mapping[int, int] | None = None) -> None:
        self.writer.write(PREFACE + settings(values or {}))

    async def greeted(self, values: Mapping[int, int] | None = None) -> "H2Client":
        """Greet, and return when the settings of both sides are known to both."""
        self.greet(values)
        while not self.server or not any((kept.kind, kept.flags) == (SETTINGS, ACK) for kept in self.kept):
            self.kept.append(await self.frame())
        self.kept = []
        return self

    def send(self, kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> None:
        self.writer.write(frame(kind, flags, number, payload))

    def block(self, method: str, path: str, headers: Mapping[str, str | None] | None = None) -> bytes:
        """Make a header block; a header of None is left out."""
        given = {":method": method, ":scheme": "http", ":path": path, ":authority": "mock"}
        given |= {"authorization": "Key k", "content-type": "application/json"}
        return self.encoder.encode([(name, value) for name, value in (given | dict(headers or {})).items() if value])

    def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str | None] | None = None
    ) -> int:
        """Send a whole request, and return its stream."""
        content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        number = self.open(method, path, headers=headers, is_last=not content)
        for start in range(0, len(content), 16_384):
            is_last = start + 16_384 >= len(content)
            self.send(DATA, END_STREAM if is_last else 0, number, content[start : start + 16_384])
        return number

    def open(
        self, method: str, path: str, *, headers: Mapping[str, str | None] | None = None, is_last: bool = False
    ) -> int:
        """Send a head, and return its stream."""
        number, self.next = self.next, self.next + 2
        self.send(HEADERS, END_HEADERS | (END_STREAM if is_last else 0), number, self.block(method, path, headers))
        return number

    def notify(self, *ids: str) -> int:
        body = {"app_id": APP, "contents": {"en": "Hi"}, "target_channel": "push"}
        return self.ask("POST", "/notifications", body | {"include_aliases": {"external_id": list(ids)}})

    async def frame(self) -> Frame:
        """Read a frame; settings are acknowledged. Raises GoneError at the end of the connection."""
        try:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3]))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            raise self.gone or GoneError(-1, -1) from None
        found = Frame(head[3], head[4], int.from_bytes(head[5:9]), payload)
        if found.kind == GOAWAY:
            self.gone = GoneError(*unpack(">LL", payload[:8]))
        elif found.kind == SETTINGS and not found.flags & ACK:
            self.server |= dict(unpack(">HL", pair) for pair in _pairs(payload))
            self.send(SETTINGS, ACK)
            if self.server.get(HEADER_TABLE_SIZE) == 0:
                self.encoder.header_table_size = 0
        return found

    async def until(self, kind: int, *, number: int = 0) -> Frame:
        """Read on until such a frame comes, and return it."""
        while True:
            found = self._keep(kind, number) or await self.frame()
            if found.kind == kind and found.number == number:
                return found
            self.kept.append(found)

    async def reply(self, number: int) -> Answered:
        """Read the reply to one stream. Raises StreamResetError, and GoneError where the connection ends without it."""
        status, headers, body, block, is_last = 0, dict[str, str](), b"", b"", False
        while True:
            found = next((kept for kept in self.kept if kept.number == number), None)
            if found is not None:
                self.kept.remove(found)
            else:
                found = await self.frame()
            if found.number != number:
                self.kept.append(found)
                continue
            if found.kind == RST_STREAM:
                raise StreamResetError(int.from_bytes(found.payload))
            if found.kind in {HEADERS, CONTINUATION}:
                block += found.payload
                if found.flags & END_HEADERS:
                    headers = {str(name): str(value) for name, value in self.decoder.decode(block)}
                    status = int(headers.pop(":status"))
            elif found.kind == DATA:
                body += found.payload
            is_last |= found.kind != CONTINUATION and bool(found.flags & END_STREAM)
            if is_last and status:
                return Answered(status, headers, body)

    async def answer(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str | None] | None = None
    ) -> Answered:
        return await self.reply(self.ask(method, path, body, headers=headers))

    async def end(self) -> GoneError:
        """Read to the end of the connection, and return how it ended."""
        try:
            while True:
                self.kept.append(await self.frame())
        except GoneError as gone:
            return gone

    def _keep(self, kind: int, number: int) -> Frame | None:
        found = next((kept for kept in self.kept if (kept.kind, kept.number) == (kind, number)), None)
        if found is not None:
            self.kept.remove(found)
        return found


def _pairs(payload: bytes) -> list[bytes]:
    return [payload[start : start + 6] for start in range(0, len(payload), 6)]


ConnectH2 = Callable[..., Awaitable[H2Client]]


async def opened(server: MockServer, *, ssl: tls.SSLContext | None = None, name: str | None = None) -> H2Client:
    """Open a connection; ``name`` is whom the certificate is to be for, where that is not the address."""
    return H2Client(*await asyncio.open_connection("127.0.0.1", server.port, ssl=ssl, server_hostname=name))
