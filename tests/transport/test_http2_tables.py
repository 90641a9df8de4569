"""A server that fills a dynamic table although we announced none: its heads are read all the same.

The hpack package's encoder, which has a table of 4,096 bytes, stands for such a server.
"""

import asyncio
from collections.abc import Iterable

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from sendengine.ports import Reply
from sendengine.transport.direct.http2.faults import ConnectionFaultError, StreamFaultError
from sendengine.transport.direct.http2.fields import BlockFields
from sendengine.transport.direct.http2.outlines import HeadReader
from sendengine.transport.direct.http2.tables import DynamicTable, refers_to_table
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import answered, asking_all
from tests.transport.h2_frames import Kind, data, headers, indexed, literal, remembered, table_size
from tests.transport.h2_serving import H2Peer, h2_serving

Fields = list[tuple[str, str]]

NAMES = ["date", "server", "x-a", "x-b", "cf-ray", "content-type", "etag", "x-a-name-that-is-as-long-as-they-come"]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.text("ab1 =", max_size=6) | st.just("v" * 900)), max_size=6)
HEADS = st.lists(st.tuples(st.sampled_from([200, 201, 400, 429, 503]), FIELDS), min_size=1, max_size=30)


def read(reader: HeadReader, block: bytes) -> tuple[int, dict[str, str]]:
    status, _, _, start = reader.read(block)
    return status, dict(BlockFields(reader.block, start))


def expected(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value.strip(" \t") for name, value in fields}


@given(heads=HEADS, huffman=st.booleans())
def test_heads_are_read_whatever_the_table_is_used_for(heads: list[tuple[int, Fields]], *, huffman: bool) -> None:
    encoder, reader = Encoder(), HeadReader()
    for status, fields in heads:
        block = encoder.encode([(":status", str(status)), *fields], huffman=huffman)
        assert read(reader, block) == (status, expected(fields))


def test_a_field_that_is_asked_for_by_its_name_alone_is_found() -> None:
    encoder, reader = Encoder(), HeadReader()
    for _ in range(5):
        start = reader.read(encoder.encode([(":status", "429"), ("retry-after", "7"), ("x-own", "here")]))[3]
        fields = BlockFields(reader.block, start)
        assert (fields.get("x-own"), fields.get("retry-after"), fields.get("x-other")) == ("here", "7", None)


def test_entries_of_rfc_7541_c_5_are_evicted_as_there() -> None:
    """Three replies with a table of 256 bytes; the blocks are those of appendix C.5."""
    table = DynamicTable()
    table.expand(table_size(256))
    blocks = [
        (
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f"
            "2f7777772e6578616d706c652e636f6d"
        ),
        "4803333037c1c0bf",
        (
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b"
            "425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"
        ),
    ]
    said = []
    for block in blocks:
        plain = table.expand(bytes.fromhex(block))
        assert not refers_to_table(plain)
        said.append(read(HeadReader(), plain))
    where, day = "https://www.example.com", "Mon, 21 Oct 2013 20:13:21 GMT"
    assert said == [
        (302, {"cache-control": "private", "date": day, "location": where}),
        (307, {"cache-control": "private", "date": day, "location": where}),
        (
            200,
            {
                "cache-control": "private",
                "date": day.replace("21 GMT", "22 GMT"),
                "location": where,
                "content-encoding": "gzip",
                "set-cookie": "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            },
        ),
    ]


OK = b"\x88"
BROKEN = {
    "nothing was ever added": [OK + indexed(62)],
    "fewer were added": [OK + remembered(b"x-a", b"1"), OK + indexed(63)],
    "the name of one that was never added": [OK + remembered(b"x-a", b"1"), OK + literal(63, b"2")],
    "the table was given up": [OK + remembered(b"x-a", b"1"), table_size(0) + OK, OK + indexed(62)],
    "it was pushed out": [OK + remembered(b"x-a", b"1") + remembered(b"x-b", b"2" * 4090), OK + indexed(62)],
    "the table is larger than it may be": [OK + remembered(b"x-a", b"1"), table_size(4097) + OK + indexed(62)],
    "an index without end": [OK + remembered(b"x-a", b"1"), OK + indexed(62), OK + b"\xff\xff\xff\xff\xff\xff\x01"],
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_entry_that_is_not_there_is_a_fault_of_the_connection(name: str) -> None:
    reader = HeadReader()
    *before, last = BROKEN[name]
    for block in before:
        reader.read(block)
    with pytest.raises(ConnectionFaultError, match="header block cannot be read"):
        reader.read(last)


def test_a_head_that_is_no_reply_fills_the_table_all_the_same() -> None:
    reader = HeadReader()
    with pytest.raises(StreamFaultError):
        reader.read(OK + literal(b"connection", b"close") + remembered(b"x-a", b"1"))
    assert read(reader, OK + indexed(62)) == (200, {"x-a": "1"})
    with pytest.raises(StreamFaultError):
        reader.read(OK + literal(b"connection", b"close") + remembered(b"x-b", b"2"))
    assert read(reader, OK + indexed(62) + indexed(63)) == (200, {"x-b": "2", "x-a": "1"})


def test_heads_that_are_alike_are_remembered_as_long_as_they_may_be_needed() -> None:
    """A server that keeps to our setting may say for ever what is to be remembered, and never refer to it."""
    reader = HeadReader()
    for number in range(1000):
        assert read(reader, OK + remembered(b"cf-ray", b"%04d" % number))[1] == {"cf-ray": f"{number:04}"}
    newest = indexed(62) + indexed(62 + 96)  # an entry counts for 42 bytes: there is room for 97
    assert read(reader, OK + newest)[1] == {"cf-ray": "0903"}
    with pytest.raises(ConnectionFaultError):
        reader.read(OK + indexed(62 + 97))


async def filling(peer: H2Peer) -> None:
    """Answer with interim heads and trailers, as an encoder does that never looked at our settings."""
    encode = Encoder().encode
    for count in range(1, 41):
        asked = (await peer.requests(count))[-1]
        number, body = asked.stream, b'{"of":' + asked.body + b"}"
        fields = [(":status", "200"), ("content-length", str(len(body))), ("x-number", str(number % 3))]
        peer.send(headers(number, encode([(":status", "103"), ("link", f"<{number}>")])))
        peer.send(headers(number, encode(fields)), data(number, body))
        peer.send(headers(number, encode([("x-trailer", f"t{number}")]), end=True))


@h2_only
@on_asyncio
async def test_a_server_that_ignores_our_setting_is_understood(open_transport: TransportMaker) -> None:
    async with h2_serving(filling) as server:
        transport = open_transport(server.url)
        for number in range(40):
            assert await answered(transport, number)
        assert len(server.peers) == 1


@h2_only
@on_asyncio
async def test_a_head_that_comes_too_late_fills_the_table_too(open_transport: TransportMaker) -> None:
    async def script(peer: H2Peer) -> None:
        encode = Encoder().encode
        one, given_up, other = await peer.requests(3)
        peer.send(headers(one.stream, encode([(":status", "200"), ("x-a", "1")]), end=True))
        tasks[1].cancel()
        await peer.said(Kind.RST_STREAM, stream=given_up.stream)
        peer.send(headers(given_up.stream, encode([(":status", "200"), ("x-b", "2")]), end=True))
        peer.send(headers(other.stream, encode([(":status", "200"), ("x-b", "2"), ("x-a", "1")]), end=True))
        await peer.left()

    async with h2_serving(script) as server:
        transport = open_transport(server.url)
        tasks = asking_all(transport, range(3))
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [dict(end.headers) if isinstance(end, Reply) else type(end) for end in ends] == [
            {"x-a": "1"},
            asyncio.CancelledError,
            {"x-b": "2", "x-a": "1"},
        ]
