"""One HTTP/2 connection from the server's side, without a socket: it reads the client strictly, and says what it likes.

What a client may not do is noted in ``faults``, so that each test also sees whether the client kept to the rules:
windows, frame sizes, stream limits and ids, field names, lengths, settings. What is sent by `Session.send` is
accounted for; what is sent by `Session.raw` is not, and may be anything.

Source: RFC 9113; the fields are decoded by the ``hpack`` library.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import hpack

from tests.transport.h2_frames import (
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    MOST_STREAM,
    PREFACE,
    Code,
    Flag,
    Frame,
    Kind,
    Setting,
    data,
    head,
    headers,
    parsed,
    ping,
    settings_ack,
    window_update,
)

PSEUDO: Final = (":method", ":scheme", ":authority", ":path")
OF_A_CONNECTION: Final = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host", "te"}
THEIR_DEFAULTS: Final[Mapping[int, int]] = {
    Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW,
    Setting.MAX_FRAME_SIZE: DEFAULT_FRAME,
}
logging.getLogger("hpack").setLevel(logging.WARNING)  # below that it logs what it decodes, and so the key
Fields = Iterable[tuple[str, str]]


@dataclass(eq=False)
class Asked:
    """A request, as far as it has come, and what became of it."""

    stream: int
    fields: dict[str, str]
    room: int  # that the client may still send
    credit: int  # that may still be sent to it
    body: bytearray = field(default_factory=bytearray)
    is_whole: bool = False
    is_answered: bool = False  # to its end
    reset_by_us: int | None = None
    reset_by_client: int | None = None
    outbox: bytes | None = None  # of a reply that waits for the client's windows

    @property
    def is_open(self) -> bool:
        is_reset = self.reset_by_us is not None or self.reset_by_client is not None
        return not is_reset and not (self.is_whole and self.is_answered)


class Session:
    """The server's end. ``whole`` are the requests that have come to their end, in that order."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.pongs = True  # answer pings
        self.acks = True  # acknowledge settings
        self.refills = True  # open the windows again for what has come
        self.strict = True
        self.on_head: Callable[[Asked], None] = _ignore
        self.on_whole: Callable[[Asked], None] = _ignore
        self.frames: list[Frame] = []
        self.faults: list[str] = []
        self.asked: dict[int, Asked] = {}
        self.whole: list[Asked] = []
        self.theirs: dict[int, int] = {
            Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW,
            Setting.MAX_FRAME_SIZE: DEFAULT_FRAME,
        }
        self.room = self.credit = DEFAULT_WINDOW
        self.has_preface = False
        self.most_open = 0
        self._live: dict[int, Asked] = {}
        self._highest = 0
        self._write = write
        self._rest = b""
        self._announced: list[dict[int, int]] = []  # and not acknowledged
        self._in_force: dict[int, int] = {**THEIR_DEFAULTS, Setting.MAX_CONCURRENT_STREAMS: MOST_STREAM}
        self._decoder = hpack.Decoder()
        self._block: tuple[int, int, bytearray] | None = None

    # What the server says

    def send(self, *frames: bytes) -> None:
        """Say this, and take account of it."""
        said = b"".join(frames)
        self.note(said)
        self._write(said)

    def note(self, said: bytes) -> None:
        """Take account of whole frames that go out in another way."""
        for sent in parsed(said)[0]:
            self._account(sent)

    def raw(self, said: bytes) -> None:
        """Say any bytes."""
        self._write(said)

    def reply(self, asked: Asked, body: bytes = b'{"id":"m-1"}', *, status: int = 200, fields: Fields = ()) -> None:
        """Answer within the client's windows, later where they are too small."""
        if not body:
            self.send(headers(asked.stream, head(status, *fields), end=True))
            return
        block = head(status, ("content-length", str(len(body))), ("content-type", "application/json"), *fields)
        asked.outbox = body
        self.send(headers(asked.stream, block))
        self._flush(asked)

    @property
    def open_now(self) -> int:
        self._live = {stream: asked for stream, asked in self._live.items() if asked.is_open}
        return len(self._live)

    # What the client says

    def feed(self, said: bytes) -> None:
        self._rest += said
        if not self.has_preface:
            if len(self._rest) < len(PREFACE):
                return
            if not self._rest.startswith(PREFACE):
                self._fault(f"another preface: {self._rest[:24]!r}")
            self.has_preface, self._rest = True, self._rest[len(PREFACE) :]
        frames, self._rest = parsed(self._rest)
        for came in frames:
            self._take(came)

    def _take(self, came: Frame) -> None:
        if not self.frames and (came.kind != Kind.SETTINGS or came.flags):
            self._fault(f"its first frame is {came}")
        self.frames.append(came)
        if len(came.payload) > self._most(Setting.MAX_FRAME_SIZE):
            self._fault(f"a frame of {len(came.payload)} bytes")
        if self._block is not None and came.kind != Kind.CONTINUATION:
            self._fault(f"{came.kind} within a field block")
        take = self._TAKES.get(came.kind)
        if take is None:
            self._fault(f"a frame of kind {came.kind}")
        else:
            take(self, came)

    def _data(self, came: Frame) -> None:
        asked = self.asked.get(came.stream)
        size = len(came.payload)
        if asked is None or asked.is_whole or asked.reset_by_client is not None:
            self._fault(f"DATA on a stream that is not open: {came.stream}")
            return
        self.room -= size
        asked.room -= size
        slack = self._most(Setting.INITIAL_WINDOW_SIZE) - self._in_force[Setting.INITIAL_WINDOW_SIZE]
        if size and min(self.room, asked.room + slack) < 0 and asked.reset_by_us is None:
            self._fault(f"DATA beyond the window: {self.room}, {asked.room} on {came.stream}")
        asked.body += _unpadded(came)
        if came.flags & Flag.END_STREAM:
            self._end(asked)
        if size and self.refills:
            self.send(window_update(0, size))
            if asked.is_open and not asked.is_whole:
                self.send(window_update(asked.stream, size))

    def _headers(self, came: Frame) -> None:
        if not came.stream % 2 or came.stream <= self._highest:
            self._fault(f"HEADERS on stream {came.stream}")
            return
        fragment = _unpadded(came)[5 if came.flags & Flag.PRIORITY else 0 :]
        self._block = (came.stream, came.flags, bytearray(fragment))
        if came.flags & Flag.END_HEADERS:
            self._end_headers()

    def _continuation(self, came: Frame) -> None:
        if self._block is None or self._block[0] != came.stream:
            self._fault(f"CONTINUATION on stream {came.stream}")
            return
        self._block[2].extend(came.payload)
        if came.flags & Flag.END_HEADERS:
            self._end_headers()

    def _end_headers(self) -> None:
        assert self._block is not None
        (stream, flags, raw), self._block = self._block, None
        try:
            fields = list(self._decoder.decode(bytes(raw), raw=True))
        except hpack.HPACKError as error:
            self._fault(f"a field block that cannot be decoded: {error!r}")
            return
        for named_field in fields:
            self._look_at(named_field)
        named = {bytes(name).decode(): bytes(value).decode("latin-1") for name, value in fields}
        if len(named) != len(fields) or tuple(sorted(named)[: len(PSEUDO)]) != tuple(sorted(PSEUDO)):
            self._fault(f"fields {sorted(named)}")
        if [bytes(name).startswith(b":") for name, _ in fields] != [True] * 4 + [False] * (len(fields) - 4):
            self._fault("pseudo-fields after others")
        window = self._in_force[Setting.INITIAL_WINDOW_SIZE]
        asked = Asked(stream, named, window, self.theirs[Setting.INITIAL_WINDOW_SIZE])
        self.asked[stream] = self._live[stream] = asked
        self._highest = stream
        self.most_open = max(self.most_open, self.open_now)
        if self.open_now > self._most(Setting.MAX_CONCURRENT_STREAMS):
            self._fault(f"{self.open_now} streams at once are too many")
        self.on_head(asked)
        if flags & Flag.END_STREAM:
            self._end(asked)

    def _look_at(self, named: tuple[bytes, bytes]) -> None:
        name = bytes(named[0])
        if name != name.lower() or name.decode() in OF_A_CONNECTION:
            self._fault(f"a field named {name!r}")
        if name == b"authorization" and not isinstance(named, hpack.NeverIndexedHeaderTuple):
            self._fault("the key may enter a table")

    def _end(self, asked: Asked) -> None:
        asked.is_whole = True
        length = asked.fields.get("content-length")
        if length is not None and int(length) != len(asked.body):
            self._fault(f"a length of {length}, and {len(asked.body)} bytes")
        self.whole.append(asked)
        self.on_whole(asked)

    def _rst_stream(self, came: Frame) -> None:
        asked = self.asked.get(came.stream)
        if asked is None or asked.reset_by_client is not None or len(came.payload) != 4:
            self._fault(f"RST_STREAM of stream {came.stream}")
            return
        asked.reset_by_client = came.code
        asked.outbox = None

    def _settings(self, came: Frame) -> None:
        if came.stream:
            self._fault("SETTINGS on a stream")
        if came.flags & Flag.ACK:
            if not self._announced or came.payload:
                self._fault("settings acknowledged that nobody sent")
            else:
                self._acknowledged(self._announced.pop(0))
            return
        window = came.settings.get(Setting.INITIAL_WINDOW_SIZE, self.theirs[Setting.INITIAL_WINDOW_SIZE])
        for asked in self.asked.values():
            asked.credit += window - self.theirs[Setting.INITIAL_WINDOW_SIZE]
        self.theirs |= came.settings
        if self.acks:
            self.send(settings_ack())
        self._flush_all()

    def _push_promise(self, came: Frame) -> None:
        self._fault(f"a push of {came.stream}")

    def _priority(self, came: Frame) -> None:
        """Pass it over."""

    def _ping(self, came: Frame) -> None:
        if came.stream or len(came.payload) != 8:
            self._fault("a malformed PING")
        if self.pongs and not came.flags & Flag.ACK:
            self.send(ping(came.payload, ack=True))

    def _goaway(self, came: Frame) -> None:
        if came.stream or came.last:
            self._fault(f"GOAWAY on stream {came.stream} up to {came.last}, and the server opened none")

    def _window_update(self, came: Frame) -> None:
        asked = self.asked.get(came.stream)
        if not came.increment or (came.stream and asked is None):
            self._fault(f"WINDOW_UPDATE by {came.increment} on {came.stream}")
        elif asked is None:
            self.credit += came.increment
        else:
            asked.credit += came.increment
        if max(self.credit, asked.credit if asked else 0) > MOST_STREAM:
            self._fault("a window that is too large")
        self._flush_all()

    _TAKES: Final[Mapping[int, Callable[["Session", Frame], None]]] = {
        Kind.DATA: _data,
        Kind.HEADERS: _headers,
        Kind.PRIORITY: _priority,
        Kind.RST_STREAM: _rst_stream,
        Kind.SETTINGS: _settings,
        Kind.PUSH_PROMISE: _push_promise,
        Kind.PING: _ping,
        Kind.GOAWAY: _goaway,
        Kind.WINDOW_UPDATE: _window_update,
        Kind.CONTINUATION: _continuation,
    }

    # Accounts

    def _account(self, sent: Frame) -> None:
        """Take note of what the server says; settings are in force when they are acknowledged."""
        asked = self.asked.get(sent.stream)
        if sent.kind == Kind.SETTINGS and not sent.flags & Flag.ACK:
            self._announced.append(sent.settings)
        elif sent.kind == Kind.WINDOW_UPDATE and asked is None:
            self.room += sent.increment
        elif asked is None:
            return
        elif sent.kind == Kind.WINDOW_UPDATE:
            asked.room += sent.increment
        elif sent.kind == Kind.RST_STREAM:
            asked.reset_by_us = sent.code
        elif sent.kind == Kind.DATA:
            self.credit -= len(sent.payload)
            asked.credit -= len(sent.payload)
        if asked is not None and sent.kind in {Kind.DATA, Kind.HEADERS} and sent.flags & Flag.END_STREAM:
            asked.is_answered = True

    def _acknowledged(self, values: dict[int, int]) -> None:
        """Hold the client to these from now on."""
        before = self._in_force[Setting.INITIAL_WINDOW_SIZE]
        self._in_force |= values
        for asked in self.asked.values():
            asked.room += self._in_force[Setting.INITIAL_WINDOW_SIZE] - before
        if Setting.HEADER_TABLE_SIZE in values:
            self._decoder.max_allowed_table_size = values[Setting.HEADER_TABLE_SIZE]

    def _most(self, name: Setting) -> int:
        """Return the most that the client may go by: what is in force, or what it may just be reading."""
        return max(self._in_force[name], *[values.get(name, 0) for values in self._announced], 0)

    def _flush_all(self) -> None:
        for asked in list(self.asked.values()):
            if asked.outbox:
                self._flush(asked)

    def _flush(self, asked: Asked) -> None:
        while asked.outbox and asked.is_open:
            size = min(len(asked.outbox), asked.credit, self.credit, self.theirs[Setting.MAX_FRAME_SIZE])
            if size <= 0:
                return
            piece, asked.outbox = asked.outbox[:size], asked.outbox[size:]
            self.send(data(asked.stream, piece, end=not asked.outbox))

    def _fault(self, text: str) -> None:
        if self.strict:
            self.faults.append(text)


def _ignore(_: Asked) -> None:
    """Do nothing."""


def _unpadded(came: Frame) -> bytes:
    if not came.flags & Flag.PADDED:
        return came.payload
    return came.payload[1 : len(came.payload) - came.payload[0]]


def ended(frames: Iterable[Frame]) -> int | None:
    """Return the code of the GOAWAY among what a client said, None where it said none."""
    codes = [came.code for came in frames if came.kind == Kind.GOAWAY]
    return Code(codes[-1]) if codes else None
