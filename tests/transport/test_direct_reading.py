"""Replies from bytes, however they are cut into pieces."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.ports import Reply
from sendengine.transport.direct.http1.reading import MAX_HEAD_BYTES, ReplyReader, UnreadableError

BODY = b'{"id":"m-1"}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y\r\n\r\n" + BODY
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5\r\n"
    + BODY[:5]
    + b"\r\n7;a=b\r\n"
    + BODY[5:]
    + b"\r\n0\r\nTrailer: t\r\n\r\n"
)
HINTED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: hint\r\nLink: <a>\r\n\r\n" + PLAIN
TRICKY = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 21\r\n\r\nHTTP/1.1 100 No\r\n\r\n{}"
WHOLE = {"plain": PLAIN, "chunked": CHUNKED, "hinted": HINTED}


def fed(reader: ReplyReader, *pieces: bytes) -> Reply | None:
    """Feed the pieces; the reply where the last of them, and none before, made it whole."""
    reply = None
    for piece in pieces:
        assert reply is None, "it was whole before its last byte"
        reply = reader.feed(piece)
    return reply


def seen(reply: Reply | None) -> tuple[int, bytes, str | None] | None:
    return None if reply is None else (reply.status, reply.body, reply.headers.get("x"))


@pytest.mark.parametrize("name", WHOLE)
def test_a_reply_is_the_same_wherever_it_is_cut(name: str) -> None:
    raw, reader = WHOLE[name], ReplyReader(max_bytes=1000)
    for at in range(1, len(raw)):
        assert seen(fed(reader, raw[:at], raw[at:])) == (200, BODY, "y")
        assert not reader.is_spent
    assert seen(fed(reader, *[raw[at : at + 1] for at in range(len(raw))])) == (200, BODY, "y")


@given(st.lists(st.sampled_from([PLAIN, CHUNKED, HINTED, TRICKY]), min_size=1, max_size=4), st.data())
def test_replies_that_follow_one_another_are_kept_apart(replies: list[bytes], data: st.DataObject) -> None:
    reader = ReplyReader(max_bytes=1000)
    for raw in replies:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=5)))
        pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        expected = b"HTTP/1.1 100 No\r\n\r\n{}" if raw is TRICKY else BODY
        assert seen(fed(reader, *pieces)) == (200, expected, "y")
        assert not reader.is_spent


@given(st.binary(max_size=200), st.integers(0, len(CHUNKED)), st.sampled_from(list(WHOLE.values())))
def test_whatever_bytes_come_it_ends_in_a_reply_or_says_that_there_is_none(junk: bytes, at: int, raw: bytes) -> None:
    reader = ReplyReader(max_bytes=50)
    try:
        reply = reader.feed(raw[:at] + junk + raw[at:]) or reader.finish()
    except UnreadableError:
        return
    if reply is not None:
        assert len(reply.body) <= 50
        assert all(isinstance(value, str) for value in dict(reply.headers).values())


@pytest.mark.parametrize("extra", [PLAIN, b"HTTP/1.1 4", b"x", b"\x00", b"{}", b"\r\nx"])
@pytest.mark.parametrize("name", WHOLE)
def test_bytes_after_a_reply_spend_the_connection_and_change_nothing(name: str, extra: bytes) -> None:
    reader = ReplyReader(max_bytes=1000)
    assert seen(fed(reader, WHOLE[name] + extra)) == (200, BODY, "y")
    assert reader.is_spent


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nother bytes",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
def test_after_some_replies_there_is_none(raw: bytes) -> None:
    reader = ReplyReader(max_bytes=1000)
    reply = fed(reader, raw)
    assert reply is not None
    assert reply.status in {200, 101}
    assert (reply.body, reader.is_spent) == (b"", True)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 abc\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
def test_what_is_not_quite_http_is_no_reply(raw: bytes) -> None:
    with pytest.raises(UnreadableError):
        ReplyReader(max_bytes=1000).feed(raw)


@pytest.mark.parametrize(
    ("head", "is_whole"),
    [
        (b"", True),
        (b"X: y\r\n", True),
        (b"Transfer-Encoding: gzip\r\n", True),
        (b"Transfer-Encoding: chunked, gzip\r\n", True),
        (b"Content-Length: 99\r\n", False),
        (b"Transfer-Encoding: chunked\r\n", False),
        (b"Transfer-Encoding: gzip, Chunked\r\n", False),
    ],
)
def test_the_end_of_the_connection_ends_a_body_that_nothing_else_does(head: bytes, *, is_whole: bool) -> None:
    reader = ReplyReader(max_bytes=1000)
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n5;")
    assert not reader.feed(b"abc")
    reply = reader.finish()
    assert (reply is not None) is is_whole
    if reply is not None:
        assert (reply.status, reply.body, reader.is_spent) == (200, b"5;abc", True)


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_the_end_of_the_connection_ends_no_head(raw: bytes) -> None:
    reader = ReplyReader(max_bytes=1000)
    assert not reader.feed(raw)
    assert not reader.finish()


def test_a_body_beyond_the_bound_is_cut_at_once() -> None:
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 9\r\nContent-Length: 1000000\r\n\r\n"
    for pieces in ([head + b"x" * 11], [head, b"x" * 11], [head, *[b"x"] * 11]):
        reader = ReplyReader(max_bytes=10)
        reply = fed(reader, *pieces)
        assert reply is not None
        assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "9", b"x" * 10)
        assert reader.is_spent
    assert fed(ReplyReader(max_bytes=10), head + b"x" * 10) is None, "the bound itself is within it"


@pytest.mark.parametrize("status", [b"000", b"099"])
def test_a_status_below_100_is_no_reply_and_nothing_of_it_is_kept(status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b" None\r\nContent-Length: "
    for pieces in ([head + b"0\r\n\r\n"], [head + b"1\r\n\r\nH" + PLAIN], [head + b"99\r\n\r\n", b"x" * 11]):
        with pytest.raises(UnreadableError, match="status"):
            fed(ReplyReader(max_bytes=10), *pieces)
    reader = ReplyReader(max_bytes=10)
    assert not reader.feed(b"HTTP/1.1 " + status + b" None\r\n\r\n")
    assert not reader.finish()


def test_a_head_beyond_the_bound_is_no_reply_in_whatever_pieces() -> None:
    start, end = b"HTTP/1.1 200 OK\r\nX: ", b"\r\nContent-Length: 0\r\n\r\n"
    for length, is_reply in ((MAX_HEAD_BYTES - len(start) - len(end) + 4, True), (MAX_HEAD_BYTES, False)):
        raw = start + b"x" * length + end
        for size in (len(raw), 1000):
            reader = ReplyReader(max_bytes=10)
            pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
            if is_reply:
                assert fed(reader, *pieces) is not None
            else:
                with pytest.raises(UnreadableError, match="head"):
                    fed(reader, *pieces)


@pytest.mark.parametrize(
    "again", [b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 50, b"\r\n"]
)
def test_what_never_becomes_a_reply_is_given_up(again: bytes) -> None:
    reader, times = ReplyReader(max_bytes=10), MAX_HEAD_BYTES // len(again) + 2
    with pytest.raises(UnreadableError):
        fed(reader, *[again] * times)


def test_what_is_kept_of_a_long_body_is_the_body_alone() -> None:
    reader = ReplyReader(max_bytes=10**6)
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n")
    for _ in range(49):
        assert not reader.feed(b"x" * 10_000)
    assert len(reader._raw) < 20_000, "and not a second copy of it, with the head"
    reply = reader.feed(b"x" * 10_000)
    assert reply is not None
    assert reply.body == b"x" * 500_000


def test_an_encoding_that_was_not_asked_for_is_undone_up_to_the_bound() -> None:
    packed = gzip.compress(b"0" * 10_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: GZIP\r\nContent-Length: %d\r\n\r\n" % len(packed)
    for most, expected in ((20_000, 10_000), (5_000, 5_000)):
        reader = ReplyReader(max_bytes=most)
        assert fed(reader, head + packed) == Reply(200, reader_headers(head), b"0" * expected)


def reader_headers(head: bytes) -> dict[str, str]:
    lines = head.decode().strip().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ") for line in lines)}


def test_a_body_that_looks_like_the_end_of_a_head_is_a_body() -> None:
    for body in (b"\r\n\r\n", b"a\r\n\r\nb", b"\r\n\r\n\r\n\r\n"):
        for extra in (b"", b"\r\n\r\n", body):
            reader = ReplyReader(max_bytes=100)
            raw = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: %d\r\n\r\n" % len(body) + body + extra
            assert seen(fed(reader, raw)) == (200, body, "y")
    chunked = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"
    reply = fed(ReplyReader(max_bytes=100), chunked)
    assert reply is not None
    assert (reply.body, dict(reply.headers)) == (b"\r\n\r\n", {"x": "y", "transfer-encoding": "chunked"})
    empty = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    reply = fed(ReplyReader(max_bytes=100), empty)
    assert reply is not None
    assert (reply.body, dict(reply.headers)) == (b"", {"x": "y", "transfer-encoding": "chunked"})
