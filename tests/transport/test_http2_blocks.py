"""A reply's header block: what is read in it, what is wrong with it, and what is found when somebody asks."""

from collections.abc import Callable

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from sendengine.transport.direct.http2 import outlines
from sendengine.transport.direct.http2.blocks import check_trailers, read_head
from sendengine.transport.direct.http2.faults import COMPRESSION_ERROR, ConnectionFaultError, StreamFaultError
from sendengine.transport.direct.http2.fields import BlockFields
from sendengine.transport.direct.http2.literals import integer, packed, text
from sendengine.transport.direct.http2.outlines import HeadReader
from sendengine.transport.direct.http2.tables import refers_to_table

Spelling = Callable[[bytes], bytes]
OPENERS = {"without indexing": (0x00, 4), "never indexed": (0x10, 4), "to be indexed": (0x40, 6)}


def spelled(*fields: tuple[str, str], form: Spelling = text, opener: int = 0x00) -> bytes:
    """Render fields with their names in full."""
    return b"".join(bytes([opener]) + form(name.encode()) + form(value.encode()) for name, value in fields)


def indexed(index: int, value: str, *, opener: int = 0x00, prefix: int = 4, form: Spelling = text) -> bytes:
    """Render a field whose name is in the static table."""
    return integer(index, prefix=prefix, flags=opener) + form(value.encode())


def fields_of(block: bytes) -> BlockFields:
    return BlockFields(block, read_head(block)[3])


OK = b"\x88"


# The status


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"\x88", 200),
        (b"\x89", 204),
        (b"\x8a", 206),
        (b"\x8b", 304),
        (b"\x8c", 400),
        (b"\x8d", 404),
        (b"\x8e", 500),
        (indexed(8, "429"), 429),
        (indexed(14, "202", form=packed), 202),
        (indexed(8, "202", opener=0x40, prefix=6), 202),
        (indexed(13, "503", opener=0x10), 503),
        (spelled((":status", "100")), 100),
        (spelled((":status", "299"), form=packed, opener=0x40), 299),
        (b"\x20\x20\x88", 200),
        (b"\x20" + indexed(8, "999"), 999),
    ],
)
def test_a_status_is_read_however_it_is_written(block: bytes, status: int) -> None:
    assert read_head(block)[0] == status
    assert read_head(block + spelled(("x-a", "b")))[0] == status


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x20",
        spelled(("x-a", "b"), (":status", "200")),
        b"\x5f\x01a",
        b"\x0f\x0d\x011",  # Content-Length
        b"\x90",
        b"\x82",  # :method GET
        indexed(8, "20"),
        indexed(8, "2000"),
        indexed(8, "099"),
        indexed(8, "+20"),
        indexed(8, "²00"),
        indexed(1, "200"),
        spelled((":statu", "200")),
        spelled((":Status", "200")),
    ],
)
def test_a_head_without_a_status_at_its_beginning_is_no_reply(block: bytes) -> None:
    with pytest.raises(StreamFaultError):
        read_head(block)


# What may not be there


@pytest.mark.parametrize(
    "field",
    [
        b"\x88",
        b"\x8e",
        indexed(8, "200"),
        indexed(8, "200", opener=0x40, prefix=6),
        spelled((":status", "200")),
        b"\x82",
        b"\x84",
        indexed(4, "/"),
        indexed(1, "host", opener=0x10),
        spelled((":path", "/")),
        spelled((":unknown", "x")),
        spelled(("X-Upper", "x")),
        spelled(("X-Upper", "x"), form=packed),
        spelled(("", "x")),
        spelled(("with space", "x")),
        spelled(("x\x00", "x")),
        spelled(("x:y", "x")),
        spelled(("connection", "close")),
        spelled(("connection", "close"), form=packed, opener=0x40),
        spelled(("proxy-connection", "close")),
        spelled(("keep-alive", "5")),
        spelled(("upgrade", "h2c")),
        spelled(("transfer-encoding", "chunked")),
        indexed(57, "chunked"),
        indexed(57, "chunked", opener=0x40, prefix=6),
        b"\xb9",  # transfer-encoding from the static table
    ],
)
def test_a_field_that_may_not_be_there_ends_the_reply_and_not_the_connection(field: bytes) -> None:
    for block in (OK + field, OK + spelled(("x-a", "b")) + field + spelled(("x-a", "b"))):
        with pytest.raises(StreamFaultError):
            read_head(block)
    with pytest.raises(StreamFaultError):
        check_trailers(field)


@pytest.mark.parametrize(
    "rest",
    [
        b"\x80",  # entry 0
        b"\xbe",  # the first of a dynamic table
        b"\xff\x00",
        b"\xff\x80\x80\x80\x80\x80\x01",
        b"\x7e\x01a",
        b"\x7f\x00\x01a",
        b"\x0f\x2f\x01a",  # 15 + 47: entry 62
        b"\x0f\x80\x01\x01a",
        b"\x1f\xff\xff\xff\xff\x7f\x01a",
        b"\x21",
        b"\x3f\x00",
        b"\x20",  # not at the beginning
        b"\x00",
        b"\x00\x03ab",
        b"\x00\x01a",
        b"\x00\x01a\x02b",
        b"\x0f",
        b"\x0f\x0d",
        b"\x00\x7f",
        b"\x00\x01a\x7f",
        b"\x00\x01a\x7f\xff\xff\xff\xff\xff\x01",
        b"\x00\x81\xff",  # no such code
        b"\x00\x81\x00",  # padded with zeros
    ],
)
def test_what_is_no_hpack_ends_the_connection(rest: bytes) -> None:
    for check in (lambda: read_head(OK + rest), lambda: check_trailers(b"\x00\x01a\x01b" + rest)):
        with pytest.raises(ConnectionFaultError) as caught:
            check()
        assert caught.value.code == COMPRESSION_ERROR


@pytest.mark.parametrize("block", [b"\x21\x88", b"\x3f\xe1\x1f\x88", b"\xbe", b"\xff\x00", b"\x80"])
def test_what_is_no_hpack_at_the_beginning_ends_the_connection(block: bytes) -> None:
    with pytest.raises(ConnectionFaultError):
        read_head(block)


# The length of the body, and its encoding


@pytest.mark.parametrize("form", [text, packed], ids=["plain", "packed"])
def test_content_length_is_found_however_it_is_written(form: Spelling) -> None:
    forms = [indexed(28, "1234", opener=opener, prefix=prefix, form=form) for opener, prefix in OPENERS.values()]
    forms += [spelled(("content-length", "1234"), form=form, opener=opener) for opener, _ in OPENERS.values()]
    for one in forms:
        assert read_head(OK + one)[1:3] == (1234, False)
        assert read_head(OK + spelled(("a", "b")) + one + one)[1] == 1234
    assert read_head(OK)[1] == -1


@pytest.mark.parametrize("value", ["", "-1", "+1", "1_0", "1.0", " 1", "²", "9" * 19])
def test_a_content_length_that_is_no_number_ends_the_reply(value: str) -> None:
    with pytest.raises(StreamFaultError):
        read_head(OK + indexed(28, value))


def test_two_content_lengths_must_be_the_same() -> None:
    with pytest.raises(StreamFaultError):
        read_head(OK + indexed(28, "1") + indexed(28, "2"))


def test_an_encoding_is_noted() -> None:
    assert read_head(OK + indexed(26, "gzip"))[2]
    assert read_head(OK + spelled(("content-encoding", "gzip"), form=packed))[2]
    assert not read_head(OK + b"\x90")[2], "Accept-Encoding is none"


# What is found when somebody asks


REPLY = [
    (":status", "200"),
    ("date", "Sun, 22 Nov 2026 06:00:00 GMT"),
    ("content-type", "application/json"),
    ("cf-ray", "8c1d2e3f4a5b6c7d-FRA"),
    ("retry-after", "7"),
    ("x-empty", ""),
    ("x-long", "y" * 500),
    ("x-twice", "1"),
    ("x-twice", "2"),
    ("x-odd", "\x80\xff"),
]


def encoded(fields: list[tuple[str, str]], *, huffman: bool) -> bytes:
    encoder = Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode([(name, value.encode("latin-1")) for name, value in fields], huffman=huffman))


@pytest.mark.parametrize("huffman", [True, False])
def test_a_header_is_found_when_somebody_asks(huffman: bool) -> None:
    block = encoded(REPLY, huffman=huffman)
    for name, value in dict(REPLY[1:-1]).items():
        assert fields_of(block).get(name) == value
        assert fields_of(block)[name] == value
    fields = fields_of(block)
    assert fields.get("x-odd", "").encode("utf-8", "surrogateescape") == b"\x80\xff"
    assert (fields.get("x-none"), fields.get("x-none", "-"), fields.get("location")) == (None, "-", None)
    assert "cf-ray" in fields
    assert list(fields) == [*dict(REPLY[1:])]
    assert len(fields) == len(dict(REPLY[1:]))
    assert ":status" not in fields
    with pytest.raises(KeyError):
        fields["x-none"]


def test_a_name_within_a_value_is_no_header() -> None:
    block = OK + spelled(("x-a", "cf-ray"), ("x-b", "\x06cf-ray\x01z"))
    assert fields_of(block).get("cf-ray") is None


def test_a_value_that_cannot_be_read_is_not_there_and_the_others_are() -> None:
    block = OK + spelled(("x-a", "1")) + b"\x00\x03x-b\x81\x00" + spelled(("x-c", "3"))
    assert dict(fields_of(block)) == {"x-a": "1", "x-c": "3"}
    assert fields_of(block).get("x-b") is None
    assert fields_of(block).get("x-c") == "3"


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=150).filter(
    lambda name: (
        name not in {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
        and name != "content-length"
    )
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300).map(str.strip)


@given(st.lists(st.tuples(names, values), max_size=8), st.booleans())
def test_every_head_of_another_encoder_is_read(fields: list[tuple[str, str]], huffman: bool) -> None:
    found = fields_of(encoded([(":status", "202"), *fields], huffman=huffman))
    for name, value in dict(fields).items():
        assert found.get(name) == value
    assert dict(found) == dict(fields)


@given(st.binary(max_size=60))
def test_no_bytes_hang_or_raise_anything_else(block: bytes) -> None:
    try:
        head = read_head(block)
    except (ConnectionFaultError, StreamFaultError):
        return
    assert 100 <= head[0] <= 999
    dict(fields_of(block))
    fields_of(block).get("cf-ray")


@given(st.binary(max_size=40))
def test_what_is_taken_another_decoder_takes_too_but_for_values(rest: bytes) -> None:
    block = OK + rest
    try:
        read_head(block)
    except (ConnectionFaultError, StreamFaultError):
        return
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    decoder.header_table_size = 0
    try:
        found = decoder.decode(block, raw=True)
    except HPACKError:
        return  # Huffman's code within a value
    assert {bytes(name).decode("utf-8", "surrogateescape") for name, _ in [*found][1:]} == set(fields_of(block))


# Heads that are like those before them


def end_of(read: Callable[[bytes], tuple[int, int, bool, int]], block: bytes) -> object:
    try:
        return read(block)
    except (ConnectionFaultError, StreamFaultError) as fault:
        return type(fault), fault.code, str(fault)


def test_heads_with_other_values_are_read_without_walking_them(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = HeadReader()
    walked: list[bytes] = []

    def noting(block: bytes) -> tuple[int, int, bool, int]:
        walked.append(block)
        return read_head(block)

    monkeypatch.setattr(outlines, "read_head", noting)
    for number in range(100):
        named = [("date", "today"), ("content-length", str(number)), ("location", "y" * 2 * number), ("server", "s")]
        status = "202" if number % 2 else "200"
        block = encoded([(":status", status), *named], huffman=True).removeprefix(b"\x20")
        assert heads.read(block) == read_head(block)
    assert len(walked) <= 6, "once for each status, and when a value varied for the first time"


def test_heads_that_are_never_alike_are_walked() -> None:
    heads = HeadReader()
    for number in range(300):
        block = OK + spelled((f"x-{number}", "1"))
        assert heads.read(block) == read_head(block)


TEMPLATES = st.sampled_from(
    [
        OK + indexed(28, "12") + spelled(("x-a", "b")) + indexed(54, "nginx"),
        OK + indexed(28, "7") + spelled(("x-a", "longer")) + indexed(54, "nginx"),
        OK + indexed(28, "7") + indexed(28, "7"),
        OK + indexed(28, "8") + indexed(28, "8"),
        OK + spelled(("content-length", "3")) + b"\x90",
        OK + spelled(("content-length", "44")) + b"\x90",
        OK + spelled(("x-a", "y" * 200)),
        OK + spelled(("x-a", "z" * 300)),
        OK + spelled(("content-encoding", "gzip")),
        indexed(8, "202") + indexed(28, "12"),
        indexed(8, "404") + indexed(28, "13"),
        OK,
    ]
)


@given(st.lists(st.tuples(TEMPLATES, st.integers(0, 60), st.binary(max_size=2)), max_size=12))
def test_whatever_came_before_a_head_is_read_as_if_it_stood_alone(sent: list[tuple[bytes, int, bytes]]) -> None:
    heads = HeadReader()
    for block, at, other in sent:
        changed = block[:at] + other + block[at + len(other) :]
        if refers_to_table(changed):
            return  # from here on that is for test_http2_tables.py
        assert end_of(heads.read, changed) == end_of(read_head, changed)


def test_a_head_like_those_before_whose_last_value_is_longer_than_the_block_is_a_fault() -> None:
    heads = HeadReader()
    for value in (b"x", b"y", b"z"):
        assert heads.read(b"\x88\x00\x01a\x01" + value)[0] == 200
    for cut in (b"\x88\x00\x01a\x02x", b"\x88\x00\x01a\x7e"):
        with pytest.raises(ConnectionFaultError):
            heads.read(cut)
