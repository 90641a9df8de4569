"""What leaves a connection: bodies within both windows, frames as large as they may be, whole and in order."""

import asyncio
import struct
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Reply
from sendengine.transport.direct.http2 import frames
from sendengine.transport.direct.http2.faults import CANCEL, FLOW_CONTROL_ERROR, ConnectionFaultError, StreamFaultError
from sendengine.transport.direct.http2.sending import PIECE_BYTES, Sender

WINDOW: Final = 65_535
FRAME: Final = 16_384


class Frame(Struct):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frames_in(data: bytes) -> Iterator[Frame]:
    """Read frames as RFC 9113, section 4.1, draws them."""
    while data:
        size = int.from_bytes(data[:3], "big")
        stream: int = struct.unpack(">I", data[5:9])[0]
        assert len(data) >= 9 + size, "frames are whole"
        yield Frame(data[3], data[4], stream, data[9 : 9 + size])
        data = data[9 + size :]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def begin(sender: Sender, loop: asyncio.AbstractEventLoop, body: bytes, *, block: bytes = b"\x83") -> int:
    """Begin an exchange, and return its number."""
    reply: asyncio.Future[Reply] = loop.create_future()
    number = sender.next_number
    sender.open(block, body, reply=reply, due_s=60.0)
    return number


def taken(sender: Sender) -> list[Frame]:
    return list(frames_in(sender.take()))


def pumped(sender: Sender) -> list[Frame]:
    """Return what goes out when the loop's turn ends, and goes on until nothing more may."""
    found = []
    has_more = True
    while has_more:
        has_more = sender.pump()
        found += taken(sender)
    return found


def sizes(found: list[Frame], stream: int) -> list[int]:
    return [len(each.payload) for each in found if each.kind == frames.DATA and each.stream == stream]


def test_a_small_request_is_two_frames_and_several_leave_together(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    assert [begin(sender, loop, b"abc", block=b"head"), begin(sender, loop, b"", block=b"other")] == [1, 3]
    assert taken(sender) == [
        Frame(frames.HEADERS, frames.END_HEADERS, 1, b"head"),
        Frame(frames.DATA, frames.END_STREAM, 1, b"abc"),
        Frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 3, b"other"),
    ]
    assert (sender.take(), sender.taken, sender.is_blocked) == (b"", 3, False)


def test_a_body_goes_as_far_as_the_windows_allow(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    number = begin(sender, loop, b"x" * 100_000)
    first = pumped(sender)
    assert sizes(first, number) == [FRAME, FRAME, FRAME, WINDOW - 3 * FRAME]
    sender.widen(10)
    assert pumped(sender) == [], "its own window is closed"
    sender.widen_stream(sender.streams[number], 30)
    assert sizes(pumped(sender), number) == [10], "and now the connection's"
    sender.widen(100_000)
    sender.widen_stream(sender.streams[number], 100_000)
    (*_, last) = pumped(sender)
    assert (last.flags, sender.is_blocked) == (frames.END_STREAM, False)


def test_settings_change_the_windows_of_streams_that_are_open(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    sender.widen(10**6)
    number = begin(sender, loop, b"x" * 200_000)
    sent = 0
    for window, more in [
        (WINDOW, WINDOW),
        (WINDOW + 5, 5),
        (0, 0),  # by now it is 65,540 below
        (WINDOW, 0),  # still 5 below
        (WINDOW + 6, 1),
    ]:
        sender.set_first_window(window)
        assert sum(sizes(pumped(sender), number)) == more, f"at {window}"
        sent += more
    assert sender.streams[number].window == WINDOW + 6 - sent == 0


def test_bodies_take_turns_at_the_connection_s_window(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    numbers = [begin(sender, loop, b"x" * 40_000) for _ in range(3)]
    found = pumped(sender)
    assert [sum(sizes(found, number)) for number in numbers] == [2 * FRAME - 1, FRAME, FRAME]
    sender.widen(10**6)
    rest = pumped(sender)
    assert [sum(sizes(found + rest, number)) for number in numbers] == [40_000] * 3


def test_a_small_body_does_not_overtake_those_that_wait(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    begin(sender, loop, b"x" * 70_000)
    pumped(sender)
    small = begin(sender, loop, b"abc")
    sender.widen(2)
    assert sizes(pumped(sender), small) == [2], "the first waits for its own window"


def test_between_pieces_somebody_may_look_whether_the_connection_takes_more(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    sender.widen(10**7)
    sender.set_first_window(10**7)
    sender.max_frame = 2**20
    begin(sender, loop, b"x" * 3_000_000)
    assert sender.pump()
    assert PIECE_BYTES <= len(sender.take()) < 2 * 2**20


def test_a_head_that_is_longer_than_a_frame_is_continued(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    begin(sender, loop, b"abc", block=b"h" * (2 * FRAME + 1))
    begin(sender, loop, b"", block=b"h" * (FRAME + 1))
    found = pumped(sender)
    assert [(each.kind, each.flags, each.stream, len(each.payload)) for each in found] == [
        (frames.HEADERS, 0, 1, FRAME),
        (frames.CONTINUATION, 0, 1, FRAME),
        (frames.CONTINUATION, frames.END_HEADERS, 1, 1),
        (frames.HEADERS, frames.END_STREAM, 3, FRAME),
        (frames.CONTINUATION, frames.END_HEADERS, 3, 1),
        (frames.DATA, frames.END_STREAM, 1, 3),
    ]


def test_a_smaller_table_is_acknowledged_in_the_next_head_and_only_there(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    sender.shrink_table()
    for body in (b"a", b"b"):
        begin(sender, loop, body)
    heads = [each.payload for each in pumped(sender) if each.kind == frames.HEADERS]
    assert heads == [b"\x20\x83", b"\x83"]


def test_an_exchange_that_is_reset_sends_no_more_of_its_body(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    number = begin(sender, loop, b"x" * 100_000)
    pumped(sender)
    sender.reset(sender.streams[number], CANCEL)
    sender.widen(10**6)
    assert pumped(sender) == [Frame(frames.RST_STREAM, 0, number, b"\x00\x00\x00\x08")]
    assert (sender.streams, sender.has_ended(number), sender.has_ended(number + 2)) == ({}, True, False)


def test_what_was_not_handed_out_is_not_lost_but_not_sent(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    replies: list[asyncio.Future[Reply]] = [loop.create_future() for _ in range(3)]
    for reply in replies:
        sender.open(b"\x83", b"x" * 30_000, reply=reply, due_s=60.0)
        if reply is replies[1]:
            sender.take()  # which hands out heads, and not the bodies behind them
    assert sender.lose_all("gone") == 3
    assert [type(reply.exception()) for reply in replies] == [ReplyLostError, ReplyLostError, NotSentError]
    assert (sender.streams, sender.is_blocked) == ({}, False)


def test_what_was_told_that_it_was_not_sent_does_not_leave_any_more(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    sender.widen(10**6)
    begin(sender, loop, b"first")
    before = pumped(sender)
    for body in (b"", b"small", b"x" * 200_000):
        begin(sender, loop, body)
    sender.reset(sender.streams[5], CANCEL)  # its caller has left: the server need not know of it
    sender.put(frames.window_update(0, 7))
    sender.put(frames.rst_stream(1, CANCEL))
    assert sender.take_back("gone") == 2
    assert sender.size == 26
    rest = pumped(sender)
    assert [(each.kind, each.stream) for each in before + rest] == [
        (frames.HEADERS, 1),
        (frames.DATA, 1),
        (frames.WINDOW_UPDATE, 0),
        (frames.RST_STREAM, 1),
    ]
    assert (list(sender.streams), sender.is_blocked) == ([1], False)
    assert begin(sender, loop, b"x" * 3) == 9
    assert [each.stream for each in pumped(sender)] == [9, 9]


def test_what_is_taken_back_leaves_the_window_and_the_table_as_they_were(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    sender.set_first_window(10**6)
    sender.shrink_table()
    begin(sender, loop, b"x" * 100)
    begin(sender, loop, b"y" * 10_000)
    assert sender.take_back("gone") == 2
    number = begin(sender, loop, b"z" * 100_000)
    found = pumped(sender)
    assert found[0].payload == b"\x20\x83"
    assert sum(sizes(found, number)) == WINDOW


@pytest.mark.parametrize("is_handed_out", [False, True])
def test_an_overdue_exchange_that_was_never_written_is_taken_back(
    loop: asyncio.AbstractEventLoop, *, is_handed_out: bool
) -> None:
    sender = Sender()
    replies: list[asyncio.Future[Reply]] = [loop.create_future() for _ in range(3)]
    for due_s, reply in zip((60.0, 60.0, 61.0), replies, strict=True):
        sender.open(b"\x83", b"{}", reply=reply, due_s=due_s)
        if reply is replies[0] or is_handed_out:
            sender.take()
    assert sender.lose_overdue(59.9, "no reply") == 0
    if is_handed_out:
        assert sender.lose_overdue(60.0, "no reply") == 2
        assert [type(reply.exception()) for reply in replies[:2]] == [ReplyLostError] * 2
        assert not replies[2].done()
    else:
        assert sender.lose_overdue(60.0, "no reply") == 3
        assert [type(reply.exception()) for reply in replies] == [ReplyLostError, NotSentError, NotSentError]
    assert {each.kind for each in taken(sender)} == {frames.RST_STREAM}


def test_only_the_last_thousand_ends_are_remembered(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    for _ in range(1100):
        number = begin(sender, loop, b"")
        sender.end(sender.streams[number])
    assert [sender.has_ended(1), sender.has_ended(151), sender.has_ended(153), sender.has_ended(number)] == [
        False,
        False,
        True,
        True,
    ]


def test_windows_above_the_highest_are_faults(loop: asyncio.AbstractEventLoop) -> None:
    sender = Sender()
    number = begin(sender, loop, b"")
    sender.widen(frames.MOST_WINDOW - WINDOW)
    with pytest.raises(ConnectionFaultError) as caught:
        sender.widen(1)
    assert caught.value.code == FLOW_CONTROL_ERROR
    with pytest.raises(StreamFaultError) as of_stream:
        sender.widen_stream(sender.streams[number], frames.MOST_WINDOW)
    assert of_stream.value.code == FLOW_CONTROL_ERROR
    sender = Sender()
    number = begin(sender, loop, b"")
    sender.widen_stream(sender.streams[number], 1)
    with pytest.raises(ConnectionFaultError):
        sender.set_first_window(frames.MOST_WINDOW)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 60_000)),
        st.tuples(st.just("widen"), st.integers(1, 50_000)),
        st.tuples(st.just("widen stream"), st.integers(1, 50_000)),
        st.tuples(st.just("set window"), st.integers(0, 50_000)),
        st.tuples(st.just("set frame"), st.integers(FRAME, 40_000)),
        st.tuples(st.just("write"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_window_is_ever_overrun_and_every_body_arrives_whole_in_the_end(steps: list[tuple[str, int]]) -> None:
    loop = asyncio.new_event_loop()
    sender, server = Sender(), Windows()
    bodies: dict[int, bytes] = {}
    for step, value in steps:
        if step == "open":
            body = bytes([len(bodies) % 256]) * value
            bodies[begin(sender, loop, body)] = body
        elif step == "write":
            server.read(pumped(sender))
        else:
            server.read(taken(sender))  # what was put out before
            server.allow(step, value, sender)
    sender.widen(10**7)
    server.connection += 10**7
    for stream in list(sender.streams.values()):
        if stream.window < 10**6:
            sender.widen_stream(stream, 10**6)
            server.widened[stream.number] = server.widened.get(stream.number, 0) + 10**6
    server.read(pumped(sender))
    assert {number: bytes(server.bodies.get(number, b"")) for number in bodies} == bodies
    assert server.ended == set(bodies)
    loop.close()


class Windows:
    """What a server has allowed, and what came."""

    def __init__(self) -> None:
        self.connection = WINDOW
        self.first = WINDOW
        self.most_first = WINDOW
        self.frame = FRAME
        self.widened: dict[int, int] = {}
        self.bodies: dict[int, bytearray] = {}
        self.ended: set[int] = set()

    def allow(self, step: str, value: int, sender: Sender) -> None:
        match step:
            case "widen":
                sender.widen(value)
                self.connection += value
            case "widen stream" if sender.streams:
                stream = sender.streams[max(sender.streams)]
                sender.widen_stream(stream, value)
                self.widened[stream.number] = self.widened.get(stream.number, 0) + value
            case "set window":
                sender.set_first_window(value)
                self.first = value
            case "set frame":
                self.frame = max(self.frame, value)
                sender.max_frame = value

    def read(self, found: list[Frame]) -> None:
        self.most_first = max(self.most_first, self.first)
        for each in found:
            assert len(each.payload) <= self.frame
            assert each.stream not in self.ended
            if each.kind == frames.DATA:
                body = self.bodies.setdefault(each.stream, bytearray())
                body += each.payload
                self.connection -= len(each.payload)
                assert self.connection >= 0
                assert len(body) <= self.most_first + self.widened.get(each.stream, 0)
            if each.flags & frames.END_STREAM:
                self.ended.add(each.stream)
