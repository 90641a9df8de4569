"""HTTP/2 from whoever: bytes in any pieces mean the same, and bytes that make no sense end with GOAWAY."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.mockserver import MockConfig
from sendengine.mockserver.http2.session import Session
from sendengine.mockserver.protocol import Exchange, Link
from sendengine.mockserver.replies import Answer
from tests.mockserver.h2_client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.mockserver.h2_client import settings as settings_frame

_HEAD = b"\x83\x86\x44\x0e/notifications\x01\x04mock\x40\x01x\x01y"  # the path and x: y are kept in the table
_AGAIN = b"\x83\x86\xbf\x01\x04mock\xbe"


class Wire:
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_open = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_open = False

    def reset(self) -> None:
        self.is_open = False


class Echo:
    """Answers each request with its body, at once."""

    def __init__(self) -> None:
        self.config = MockConfig(max_concurrent_streams=3)
        self.unparsables = 0

    def opened(self, connection: Link) -> None: ...

    def closed(self, connection: Link) -> None: ...

    def spoken(self, *, is_http2: bool) -> None: ...

    def too_many(self) -> None: ...

    def unparsable(self) -> None:
        self.unparsables += 1

    def receive(self, exchange: Exchange) -> None:
        exchange.reply(Answer(200, exchange.body))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


CONVERSATION = (
    PREFACE,
    settings_frame({INITIAL_WINDOW_SIZE: 50}),
    frame(HEADERS, END_HEADERS | 0x20, 1, bytes(5) + _HEAD),
    frame(DATA, 0, 1, b"first"),
    frame(HEADERS, 0, 3, _AGAIN[:3]),
    frame(CONTINUATION, END_HEADERS, 3, _AGAIN[3:]),
    frame(PRIORITY, 0, 3, bytes(5)),
    frame(PING, 0, 0, b"12345678"),
    frame(DATA, END_STREAM, 1, b" second"),
    frame(0xBE, 0, 1, b"unknown"),
    frame(DATA, PADDED | END_STREAM, 3, b"\x02" + b"x" * 90 + bytes(2)),
    frame(WINDOW_UPDATE, 0, 3, b"\x00\x00\x00\x10"),
    settings_frame({INITIAL_WINDOW_SIZE: 60}),
    frame(WINDOW_UPDATE, 0, 0, b"\x00\x00\x00\x10"),
    frame(HEADERS, END_HEADERS, 5, _AGAIN),
    frame(RST_STREAM, 0, 5, b"\x00\x00\x00\x08"),
    frame(SETTINGS, 1),
    frame(HEADERS, END_HEADERS | END_STREAM, 7, b"\x20\x83\x86\x84\x01\x04mock"),
    frame(GOAWAY, 0, 0, bytes(8)),
    frame(WINDOW_UPDATE, 0, 3, b"\x00\x00\x10\x00"),
)


def spoken(loop: asyncio.AbstractEventLoop, pieces: Sequence[bytes]) -> tuple[list[bytes], Wire, Echo]:
    """Feed a session; returns the frames that it has written, but for the numbers of replies."""
    front, wire = Echo(), Wire()
    session = Session(front, wire, loop=loop)
    for piece in pieces:
        session.feed(piece)
    session.flush()
    session.lost()
    found, at = list[bytes](), 0
    while at < len(wire.written):
        end = at + 9 + int.from_bytes(wire.written[at : at + 3])
        is_head = wire.written[at + 3] == HEADERS
        found.append(wire.written[at : end if not is_head else at + 10])
        at = end
    return found, wire, front


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_the_conversation_goes_well(loop: asyncio.AbstractEventLoop) -> None:
    frames, wire, front = spoken(loop, CONVERSATION)
    data = [found for found in frames if found[3] == DATA]
    assert data[0] == frame(DATA, END_STREAM, 1, b"first second")
    assert b"".join(found[9:] for found in data[1:]) == b"x" * 90
    assert data[-1][4] == END_STREAM
    assert [int.from_bytes(found[5:9]) for found in frames if found[3] == HEADERS] == [1, 3, 7]
    assert (front.unparsables, wire.is_open) == (0, True)


@settings(max_examples=60, deadline=None)
@given(places=st.lists(st.integers(0, 10_000), max_size=40))
def test_any_pieces_mean_the_same(loop: asyncio.AbstractEventLoop, places: list[int]) -> None:
    assert spoken(loop, cut(b"".join(CONVERSATION), places))[0] == spoken(loop, CONVERSATION)[0]


@settings(max_examples=300, deadline=None)
@given(
    frames=st.lists(st.integers(1, len(CONVERSATION) - 1), max_size=20),
    changes=st.lists(st.tuples(st.integers(24, 10_000), st.integers(0, 255)), max_size=4),
    places=st.lists(st.integers(0, 10_000), max_size=4),
)
def test_nonsense_ends_with_goaway_and_nothing_worse(
    loop: asyncio.AbstractEventLoop, frames: list[int], changes: list[tuple[int, int]], places: list[int]
) -> None:
    data = bytearray(b"".join([*CONVERSATION[:2], *(CONVERSATION[number] for number in frames)]))
    for place, byte in changes:
        data[24 + place % (len(data) - 24)] = byte
    written, wire, front = spoken(loop, cut(bytes(data), places))
    kinds = [found[3] for found in written]
    assert wire.is_open == (GOAWAY not in kinds)
    assert kinds.count(GOAWAY) <= 1
    assert wire.is_open or (kinds[-1] == GOAWAY and front.unparsables)
