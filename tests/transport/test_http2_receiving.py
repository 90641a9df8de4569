"""What comes in on a connection, frame by frame: replies, answers, and faults with the right code; no socket."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.ports import Reply
from sendengine.transport.direct.http2 import frames
from sendengine.transport.direct.http2.control import Control
from sendengine.transport.direct.http2.faults import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFaultError,
    name_of,
)
from sendengine.transport.direct.http2.frames import frame
from sendengine.transport.direct.http2.guard import ALLOWED, Guard
from sendengine.transport.direct.http2.receiving import CONNECTION_WINDOW, Receiver
from sendengine.transport.direct.http2.sending import Sender

OK = b"\x88"
GREETING = frames.settings({frames.MAX_CONCURRENT_STREAMS: 50})
MAX_BYTES = 100_000


class Side:
    """A client's side of a connection, over which a server's bytes come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, greeting: bytes = GREETING) -> None:
        self.loop = loop
        self.sender = Sender()
        self.control = Control(self.sender)
        self.receiver = Receiver(self.sender, self.control, max_reply_bytes=MAX_BYTES)
        self.now_s = 0.0
        self.feed(greeting)
        self.sender.take()

    def feed(self, *data: bytes) -> None:
        self.receiver.feed(b"".join(data), now_s=self.now_s)

    def ask(self, body: bytes = b"{}") -> "asyncio.Future[Reply]":
        reply: asyncio.Future[Reply] = self.loop.create_future()
        self.sender.open(b"\x83", body, reply=reply, due_s=60.0)
        self.sender.take()
        return reply

    def answers(self) -> bytes:
        return self.sender.take()


@pytest.fixture
def side() -> Iterator[Side]:
    loop = asyncio.new_event_loop()
    yield Side(loop)
    loop.close()


def headers(stream: int, block: bytes = OK, *, flags: int = frames.END_HEADERS) -> bytes:
    return frame(frames.HEADERS, flags=flags, stream=stream, payload=block)


def data(stream: int, payload: bytes = b"{}", *, flags: int = frames.END_STREAM) -> bytes:
    return frame(frames.DATA, flags=flags, stream=stream, payload=payload)


def code_of(side: Side, *sent: bytes) -> int:
    with pytest.raises(ConnectionFaultError) as caught:
        side.feed(*sent)
    return caught.value.code


def body_of(reply: "asyncio.Future[Reply]") -> bytes:
    return reply.result().body


WHOLE = frames.END_HEADERS | frames.END_STREAM


def test_replies_come_in_any_order_and_each_to_its_own(side: Side) -> None:
    first, second = side.ask(), side.ask()
    side.feed(headers(3), headers(1, b"\x8d"), data(3, b"[3]"), data(1, b"[1]"))
    assert (first.result().status, body_of(first)) == (404, b"[1]")
    assert (second.result().status, body_of(second)) == (200, b"[3]")
    assert (side.sender.streams, side.answers()) == ({}, b"")


REPLIES = [
    headers(1) + data(1, b"[1]"),
    headers(1) + data(1, b"[", flags=0) + data(1, b"1", flags=0) + data(1, b"]", flags=0) + data(1, b""),
    headers(1, b"\x02" + OK + b"\x00\x00", flags=frames.END_HEADERS | frames.PADDED) + data(1, b"[1]"),
    headers(1, b"\x80\x00\x00\x01\x10" + OK, flags=frames.END_HEADERS | frames.HAS_PRIORITY) + data(1, b"[1]"),
    headers(1) + data(1, b"\x03[1]\x00\x00\x00", flags=frames.END_STREAM | frames.PADDED),
    headers(1) + data(1, b"\x00[1]", flags=frames.END_STREAM | frames.PADDED),
    headers(1, b"\x08\x03100") + headers(1, b"\x08\x03103") + headers(1) + data(1, b"[1]"),
    headers(1) + data(1, b"[1]", flags=0) + headers(1, b"\x00\x01x\x01y", flags=WHOLE),
    headers(1, OK, flags=0) + frame(frames.CONTINUATION, flags=frames.END_HEADERS, stream=1) + data(1, b"[1]"),
    headers(1, b"", flags=0) + frame(frames.CONTINUATION, flags=4, stream=1, payload=OK) + data(1, b"[1]"),
    frame(0xB1, flags=0xFF, stream=9, payload=b"?") + headers(1) + frame(0xFE) + data(1, b"[1]"),
    frame(frames.PRIORITY, stream=99, payload=b"12345") + headers(1) + data(1, b"[1]"),
    frame(frames.HEADERS, flags=4 | 0xD2 & ~0x28, stream=1 | 1 << 31, payload=OK) + data(1 | 1 << 31, b"[1]"),
]


@pytest.mark.parametrize("sent", REPLIES, ids=range(len(REPLIES)))
@pytest.mark.parametrize("step", [1, 2, 5, 1000])
def test_a_reply_is_read_however_it_is_cut_up(side: Side, sent: bytes, step: int) -> None:
    reply = side.ask()
    for at in range(0, len(sent), step):
        side.feed(sent[at : at + step])
    assert body_of(reply) == b"[1]"
    assert side.sender.streams == {}


def test_a_reply_without_a_body_may_end_with_its_head(side: Side) -> None:
    reply = side.ask()
    side.feed(headers(1, b"\x89", flags=WHOLE))
    assert (reply.result().status, body_of(reply)) == (204, b"")


def test_a_body_beyond_the_bound_is_cut_and_the_rest_of_it_passed_over(side: Side) -> None:
    reply = side.ask()
    piece = data(1, b"x" * 16_384, flags=0)
    side.feed(headers(1), piece * 7)
    assert len(body_of(reply)) == MAX_BYTES
    assert side.answers() == frames.rst_stream(1, 8)
    side.feed(piece * 7, data(1, b"x"))
    assert side.answers() == b""


def test_the_rest_of_a_request_is_not_sent_when_its_reply_is_there(side: Side) -> None:
    reply = side.ask(b"x" * 100_000)
    side.feed(headers(1, b"\x8c"), data(1, b"[1]"))
    assert reply.result().status == 400
    assert side.answers() == frames.rst_stream(1, 8)
    assert not side.sender.is_blocked


def test_the_connection_s_window_is_widened_before_half_of_it_is_used_up_also_by_what_is_passed_over(
    side: Side,
) -> None:
    side.ask()
    side.sender.end(side.sender.streams[1])
    piece = data(1, b"x" * 16_384, flags=0)
    for _ in range(CONNECTION_WINDOW // 2 // 16_384):
        side.feed(piece)
    assert side.answers() == b""
    side.feed(piece)
    assert side.answers() == frames.window_update(0, CONNECTION_WINDOW // 2 + 16_384)


def test_padding_is_given_back_to_the_stream_s_window(side: Side) -> None:
    side.ask()
    side.feed(headers(1), data(1, b"\x05[1]" + b"\x00" * 5, flags=frames.PADDED))
    assert side.answers() == frames.window_update(1, 6)


# Faults of one stream


@pytest.mark.parametrize(
    "sent",
    [
        data(1),
        headers(1, b""),
        headers(1, b"\x08\x03101"),
        headers(1, b"\x08\x03100", flags=WHOLE),
        headers(1, b"\x00\x01X\x01y"),
        headers(1) + headers(1),
        headers(1) + data(1, b"{}", flags=0) + headers(1, OK, flags=WHOLE),
        headers(1, OK + b"\x0f\x0d\x013") + data(1, b"{}"),
        headers(1, OK + b"\x0f\x0d\x013", flags=WHOLE),
        headers(1, OK + b"\x0f\x0d\x013") + data(1, b"{}", flags=0) + headers(1, b"", flags=WHOLE),
        frames.window_update(1, 0),
        frames.window_update(1, frames.MOST_WINDOW),
        frame(frames.PRIORITY, stream=1, payload=b"1234"),
    ],
)
def test_a_fault_of_one_stream_ends_only_that(side: Side, sent: bytes) -> None:
    first, second = side.ask(), side.ask()
    side.feed(sent)
    assert isinstance(first.exception(), ReplyLostError)
    assert side.answers()[3:9] == bytes([frames.RST_STREAM]) + b"\x00\x00\x00\x00\x01"
    side.feed(headers(1), data(1), headers(3), data(3, b"[3]"))
    assert body_of(second) == b"[3]"


def test_a_304_may_say_how_long_it_would_have_been(side: Side) -> None:
    reply = side.ask()
    side.feed(headers(1, b"\x8b\x0f\x0d\x013", flags=WHOLE))
    assert reply.result().status == 304


@pytest.mark.parametrize(
    ("before", "code", "kind"),
    [
        (b"", REFUSED_STREAM, NotSentError),
        (headers(1), REFUSED_STREAM, ReplyLostError),
        (b"", 0, ReplyLostError),
        (b"", 8, ReplyLostError),
        (headers(1) + data(1, flags=0), 0, ReplyLostError),
        (b"", 77, ReplyLostError),
    ],
)
def test_what_a_reset_means(side: Side, before: bytes, code: int, kind: type[Exception]) -> None:
    reply = side.ask()
    side.feed(before, frames.rst_stream(1, code))
    assert type(reply.exception()) is kind
    assert side.answers() == b""


def test_a_reset_after_a_reply_is_nothing(side: Side) -> None:
    reply = side.ask()
    side.feed(headers(1), data(1, b"[1]"), frames.rst_stream(1, 0))
    assert body_of(reply) == b"[1]"


def test_goaway_refuses_what_is_above_and_leaves_what_is_not(side: Side) -> None:
    replies = [side.ask() for _ in range(3)]
    begun = side.ask()
    side.feed(headers(7))
    side.feed(frame(frames.GOAWAY, payload=(2**31 - 1).to_bytes(4, "big") + bytes(4)))
    assert not any(reply.done() for reply in replies)
    side.feed(frame(frames.GOAWAY, payload=(3).to_bytes(4, "big") + b"\x00\x00\x00\x02why"))
    assert [reply.done() for reply in replies] == [False, False, True]
    assert isinstance(replies[2].exception(), NotSentError)
    assert isinstance(begun.exception(), ReplyLostError), "it had begun to answer"
    assert side.control.farewell is not None
    assert "INTERNAL_ERROR" in side.control.farewell
    side.feed(headers(1), data(1), headers(3), data(3), headers(5))
    assert all(reply.result().status == 200 for reply in replies[:2])
    assert code_of(side, frame(frames.GOAWAY, payload=(5).to_bytes(4, "big") + bytes(4))) == PROTOCOL_ERROR


# What concerns the connection


def test_settings_are_applied_and_acknowledged(side: Side) -> None:
    assert side.control.stream_limit == 50
    side.control.is_changed = False
    new = {
        frames.MAX_CONCURRENT_STREAMS: 7,
        frames.MAX_FRAME_SIZE: 20_000,
        frames.ENABLE_PUSH: 0,
        frames.HEADER_TABLE_SIZE: 0,
        0x99: 5,
    }
    side.feed(frames.settings(new))
    assert (side.control.stream_limit, side.sender.max_frame, side.control.is_changed) == (7, 20_000, True)
    assert side.answers() == frames.SETTINGS_ACK
    reply: asyncio.Future[Reply] = side.loop.create_future()
    side.sender.open(b"\x83", b"", reply=reply, due_s=60.0)
    assert side.answers().endswith(b"\x20\x83")


def test_a_server_that_names_no_limit_has_none() -> None:
    loop = asyncio.new_event_loop()
    side = Side(loop, greeting=frames.settings({}))
    assert side.control.stream_limit is not None
    assert side.control.stream_limit >= 2**31
    loop.close()


def test_a_ping_is_answered_and_an_answer_to_ours_is_noted(side: Side) -> None:
    side.feed(frame(frames.PING, payload=b"12345678"))
    assert side.answers() == frame(frames.PING, flags=frames.ACK, payload=b"12345678")
    side.control.awaited_pong = b"abcdefgh"
    side.feed(frame(frames.PING, flags=frames.ACK, payload=b"another!"))
    assert side.control.awaited_pong is not None
    side.feed(frame(frames.PING, flags=frames.ACK, payload=b"abcdefgh"))
    assert side.control.awaited_pong is None


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (headers(0), PROTOCOL_ERROR),
        (headers(2), PROTOCOL_ERROR),
        (headers(5), PROTOCOL_ERROR),
        (data(0), PROTOCOL_ERROR),
        (data(5), PROTOCOL_ERROR),
        (data(2), PROTOCOL_ERROR),
        (headers(3) + data(3) + data(3), STREAM_CLOSED),
        (headers(3) + data(3) + headers(3, flags=WHOLE), STREAM_CLOSED),
        (frame(frames.HEADERS, flags=frames.PADDED | 4, stream=1), FRAME_SIZE_ERROR),
        (headers(1, b"\x01" + OK[:0], flags=frames.PADDED | 4), PROTOCOL_ERROR),
        (headers(1, b"\x05" + OK, flags=frames.PADDED | 4), PROTOCOL_ERROR),
        (headers(1, b"1234", flags=frames.HAS_PRIORITY | 4), FRAME_SIZE_ERROR),
        (data(1, b"", flags=frames.PADDED), FRAME_SIZE_ERROR),
        (data(1, b"\x02{}", flags=frames.PADDED), 0),
        (data(1, b"\x03{}", flags=frames.PADDED), PROTOCOL_ERROR),
        (headers(1, OK + b"\xbe"), COMPRESSION_ERROR),
        (headers(1, flags=0) + data(1), PROTOCOL_ERROR),
        (headers(1, flags=0) + headers(3), PROTOCOL_ERROR),
        (headers(1, flags=0) + frame(frames.CONTINUATION, flags=4, stream=3), PROTOCOL_ERROR),
        (headers(1, flags=0) + frame(frames.PING, payload=bytes(8)), PROTOCOL_ERROR),
        (headers(1, flags=0) + frame(0xEE), PROTOCOL_ERROR),
        (frame(frames.CONTINUATION, flags=4, stream=1), PROTOCOL_ERROR),
        (headers(1) + frame(frames.CONTINUATION, flags=4, stream=1), PROTOCOL_ERROR),
        (headers(1, flags=0) + frame(frames.CONTINUATION, stream=1) * 65, ENHANCE_YOUR_CALM),
        (headers(1, flags=0) + frame(frames.CONTINUATION, stream=1, payload=bytes(16_384)) * 4, ENHANCE_YOUR_CALM),
        (frame(frames.PRIORITY, payload=bytes(5)), PROTOCOL_ERROR),
        (frame(frames.RST_STREAM, stream=1, payload=bytes(3)), FRAME_SIZE_ERROR),
        (frames.rst_stream(0, 0), PROTOCOL_ERROR),
        (frames.rst_stream(7, 0), PROTOCOL_ERROR),
        (frame(frames.SETTINGS, stream=1), PROTOCOL_ERROR),
        (frame(frames.SETTINGS, payload=bytes(5)), FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, flags=frames.ACK, payload=bytes(6)), FRAME_SIZE_ERROR),
        (frames.settings({frames.ENABLE_PUSH: 1}), PROTOCOL_ERROR),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}), FLOW_CONTROL_ERROR),
        (frames.settings({frames.MAX_FRAME_SIZE: 16_383}), PROTOCOL_ERROR),
        (frames.settings({frames.MAX_FRAME_SIZE: 2**24}), PROTOCOL_ERROR),
        (frame(frames.PUSH_PROMISE, flags=4, stream=1, payload=b"\x00\x00\x00\x02" + OK), PROTOCOL_ERROR),
        (frame(frames.PING, stream=1, payload=bytes(8)), PROTOCOL_ERROR),
        (frame(frames.PING, payload=bytes(7)), FRAME_SIZE_ERROR),
        (frame(frames.GOAWAY, stream=1, payload=bytes(8)), PROTOCOL_ERROR),
        (frame(frames.GOAWAY, payload=bytes(7)), FRAME_SIZE_ERROR),
        (frames.window_update(0, 0), PROTOCOL_ERROR),
        (frames.window_update(7, 1), PROTOCOL_ERROR),
        (frames.window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
        (frame(frames.WINDOW_UPDATE, payload=bytes(5)), FRAME_SIZE_ERROR),
        (frame(0xEE, payload=bytes(16_385)), FRAME_SIZE_ERROR),
        ((16_385).to_bytes(3, "big") + b"\x00\x00\x00\x00\x00\x01", FRAME_SIZE_ERROR),
    ],
)
def test_a_fault_of_the_connection_has_its_code(side: Side, sent: bytes, code: int) -> None:
    side.ask()
    side.ask()
    if code == 0:
        side.feed(sent)
    else:
        assert code_of(side, sent) == code


@pytest.mark.parametrize(
    "sent",
    [frame(frames.PING, payload=bytes(8)), frames.SETTINGS_ACK, frame(0xEE), frames.window_update(0, 5)],
)
def test_settings_come_first(sent: bytes) -> None:
    loop = asyncio.new_event_loop()
    side = Side(loop, greeting=b"")
    assert code_of(side, sent) == PROTOCOL_ERROR
    loop.close()


def test_a_server_that_speaks_another_protocol_is_told_apart() -> None:
    loop = asyncio.new_event_loop()
    side = Side(loop, greeting=b"")
    with pytest.raises(ConnectionFaultError, match=r"HTTP/1\.1"):
        side.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    loop.close()


# Floods


@pytest.mark.parametrize(
    "sent",
    [
        frame(frames.PING, payload=bytes(8)),
        frames.settings({}),
        frames.SETTINGS_ACK,
        frame(0xEE),
        frame(frames.PRIORITY, stream=1, payload=bytes(5)),
        data(1, b"", flags=0),
        data(1, b"\x00", flags=frames.PADDED),
        frames.rst_stream(3, 8),
    ],
)
def test_a_flood_of_frames_that_carry_nothing_ends_the_connection(side: Side, sent: bytes) -> None:
    reply = side.ask()
    side.ask()
    side.feed(headers(1), headers(3), data(3))
    side.feed(sent * 900)
    side.now_s = 1.0
    side.feed(sent * 900)
    assert not reply.done(), "so many in a second are no flood"
    assert code_of(side, sent * 1200) == ENHANCE_YOUR_CALM


def test_a_flood_of_interim_heads_ends_the_connection(side: Side) -> None:
    side.ask()
    assert code_of(side, headers(1, b"\x08\x03103") * 1200) == ENHANCE_YOUR_CALM


def test_a_busy_connection_may_say_more() -> None:
    guard = Guard()
    for streams in range(1, 5000):
        for _ in range(3):
            guard.count(streams=streams, now_s=0.5)
    for _ in range(ALLOWED + 4 * 4999 - 3 * 4999):
        guard.count(streams=5000, now_s=0.5)
    with pytest.raises(ConnectionFaultError):
        guard.count(streams=5000, now_s=0.5)


def test_codes_have_names() -> None:
    assert [name_of(0), name_of(0xD), name_of(0xE)] == ["NO_ERROR", "HTTP_1_1_REQUIRED", "code 14"]


# Anything


@given(
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([*REPLIES, GREETING])), max_size=12), st.integers(1, 30)
)
def test_no_bytes_hang_or_raise_anything_else_and_no_reply_goes_to_two(pieces: list[bytes], step: int) -> None:
    loop = asyncio.new_event_loop()
    side = Side(loop)
    replies = [side.ask() for _ in range(3)]
    sent = b"".join(pieces)
    try:
        for at in range(0, len(sent), step):
            side.feed(sent[at : at + step])
    except ConnectionFaultError:
        pass
    done = [reply for reply in replies if reply.done()]
    assert len(side.sender.streams) == 3 - len(done)
    for reply in done:
        reply.exception()
    loop.close()
