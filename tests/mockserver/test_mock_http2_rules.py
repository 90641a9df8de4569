"""Clients that break the rules of HTTP/2, and what it costs them."""

from struct import pack

import pytest

from tests.mockserver.h2_client import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    ConnectH2,
    H2Client,
    StreamResetError,
    frame,
    settings,
)
from tests.mockserver.raw_client import APP, Start, happened

VIEW = f"/apps/{APP}"
USER = f"{VIEW}/users/by/external_id/u1"
GET = b"\x20\x82\x86\x84\x01\x04mock"  # the table has no room; GET, http, /, mock


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(HEADERS, END_HEADERS, 2, GET), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0, GET), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x20" + GET), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1), FRAME_SIZE_ERROR),
        (frame(HEADERS, END_HEADERS | 0x20, 1, b"abc"), FRAME_SIZE_ERROR),
        (frame(HEADERS, 0, 1, GET) + frame(PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, GET) + frame(CONTINUATION, 0, 3), PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, GET) + frame(CONTINUATION, 0, 1) * 70, ENHANCE_YOUR_CALM),
        (frame(HEADERS, 0, 1, GET) + frame(CONTINUATION, 0, 1, bytes(16_384)) * 5, ENHANCE_YOUR_CALM),
        (frame(CONTINUATION, END_HEADERS, 1, GET), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x20\xc0"), COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x20\x80"), COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x20\x00\x05a"), COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x3f\xe1\x1f"), COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, GET) + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, GET) * 2, STREAM_CLOSED),
        (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
        (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, GET) + frame(DATA, PADDED, 1, b"\x01"), PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, pack(">L", 2**31 - 1)), FLOW_CONTROL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, b"x"), FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 1, pack(">L", 1)), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, bytes(4)), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, b"x"), FRAME_SIZE_ERROR),
        (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
        (frame(PING, 0, 0, b"x"), FRAME_SIZE_ERROR),
        (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 0, b"x"), FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"x"), FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK), PROTOCOL_ERROR),
        (frame(SETTINGS, ACK, 0, b"x"), FRAME_SIZE_ERROR),
        (settings({ENABLE_PUSH: 2}), PROTOCOL_ERROR),
        (settings({INITIAL_WINDOW_SIZE: 2**31}), FLOW_CONTROL_ERROR),
        (settings({MAX_FRAME_SIZE: 16_383}), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, GET) + frame(WINDOW_UPDATE, 0, 1, pack(">L", 2**31 - 65_536))
         + settings({INITIAL_WINDOW_SIZE: 65_536}), FLOW_CONTROL_ERROR),
        (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + GET), PROTOCOL_ERROR),
        (frame(0xBE, 0, 0, bytes(16_385)), FRAME_SIZE_ERROR),
    ],
)  # fmt: skip
async def test_a_client_that_breaks_the_rules_loses_its_connection(
    start: Start, connect_h2: ConnectH2, sent: bytes, code: int
) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    client.writer.write(sent)
    assert (await client.end()).code == code
    await happened(lambda: not server.open_connections)
    assert server.summary().unparsable == 1


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ({":path": None}, 0),
        ({":scheme": None}, 0),
        ({":method": None}, 0),
        ({":status": "200"}, 0),
        ({"connection": "close"}, 0),
        ({"te": "gzip"}, 0),
        ({"X-Upper": "1"}, 0),
        ({"x-odd": "1\n2"}, 0),
        ({"x-odd": " 1"}, 0),
        ({"content-length": "x"}, 0),
        ({"content-length": "1"}, 0),
        ({"content-length": "1"}, 2),
    ],
)
async def test_a_malformed_request_costs_its_stream_alone(
    start: Start, connect_h2: ConnectH2, headers: dict[str, str | None], length: int
) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    with pytest.raises(StreamResetError) as reset:
        await client.answer("GET", VIEW, b"x" * length, headers=headers)
    assert reset.value.code == PROTOCOL_ERROR
    assert (await client.answer("GET", VIEW, headers={"te": "trailers", "content-length": "0"})).status == 200
    assert server.summary().unparsable == 1
    assert server.summary().lanes[0].requests == 1


async def test_pseudo_headers_come_first_and_once(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start())).greeted()
    good = [(":method", "GET"), (":scheme", "http"), (":path", VIEW)]
    for number, fields in ((1, [("a", "b"), *good]), (3, [*good, good[0]]), (5, [])):
        client.send(HEADERS, END_HEADERS | END_STREAM, number, client.encoder.encode(fields))
        with pytest.raises(StreamResetError):
            await client.reply(number)


async def data_after_the_end(client: H2Client, number: int) -> None:
    client.send(DATA, END_STREAM, number, b"x")


async def head_after_the_end(client: H2Client, number: int) -> None:
    client.send(HEADERS, END_HEADERS | END_STREAM, number, client.encoder.encode([("a", "b")]))


async def no_window(client: H2Client, number: int) -> None:
    client.send(WINDOW_UPDATE, 0, number, bytes(4))


async def too_much_window(client: H2Client, number: int) -> None:
    client.send(WINDOW_UPDATE, 0, number, pack(">L", 2**31 - 1))


async def wrong_priority(client: H2Client, number: int) -> None:
    client.send(PRIORITY, 0, number, b"x")


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (data_after_the_end, STREAM_CLOSED),
        (head_after_the_end, STREAM_CLOSED),
        (no_window, PROTOCOL_ERROR),
        (too_much_window, FLOW_CONTROL_ERROR),
        (wrong_priority, FRAME_SIZE_ERROR),
    ],
)
async def test_what_is_wrong_about_one_stream_costs_that_stream(
    start: Start, connect_h2: ConnectH2, break_it: object, code: int
) -> None:
    client = await (await connect_h2(await start(faults=[{"kind": "hang", "count": 1}]))).greeted()
    number = client.ask("GET", VIEW)
    assert callable(break_it)
    await break_it(client, number)
    with pytest.raises(StreamResetError) as reset:
        await client.reply(number)
    assert reset.value.code == code
    assert (await client.answer("GET", VIEW)).status == 200


async def test_a_head_that_is_no_trailer_costs_its_stream(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start())).greeted()
    number = client.open("PATCH", USER)
    client.send(HEADERS, END_HEADERS, number, client.encoder.encode([("a", "b")]))
    with pytest.raises(StreamResetError):
        await client.reply(number)


async def test_more_than_a_window_costs_the_stream(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start(window_bytes=100))).greeted()
    number = client.open("PATCH", USER)
    client.send(DATA, 0, number, bytes(101))
    with pytest.raises(StreamResetError) as reset:
        await client.reply(number)
    assert reset.value.code == FLOW_CONTROL_ERROR
