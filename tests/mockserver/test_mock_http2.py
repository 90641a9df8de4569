"""HTTP/2 on one connection: how it begins, requests and replies, windows and settings."""

import asyncio
import ssl as tls
from pathlib import Path
from struct import pack

import pytest

from tests.mockserver.h2_client import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectH2,
    GoneError,
    StreamResetError,
    frame,
    settings,
)
from tests.mockserver.raw_client import APP, Connect, Start, happened

CERTIFICATE = Path(__file__).with_name("loopback.pem")
VIEW = f"/apps/{APP}"
USER = f"{VIEW}/users/by/external_id/u1"


# How a connection begins


async def test_a_connection_that_begins_with_the_preface_is_http2_and_is_told_the_settings(
    start: Start, connect_h2: ConnectH2
) -> None:
    server = await start(max_concurrent_streams=7, window_bytes=100_000)
    client = await (await connect_h2(server)).greeted()
    assert client.server[HEADER_TABLE_SIZE] == 0
    assert (client.server[MAX_CONCURRENT_STREAMS], client.server[INITIAL_WINDOW_SIZE]) == (7, 100_000)
    assert (await client.answer("GET", VIEW)).status == 200
    found = server.summary()
    assert (found.connections, found.http2_connections, found.lanes[0].http2) == (1, 1, 1)


async def test_both_protocols_are_spoken_on_one_port(start: Start, connect: Connect, connect_h2: ConnectH2) -> None:
    server = await start()
    old, new = await connect(server), await (await connect_h2(server)).greeted()
    assert (await old.ask("GET", VIEW)).json() == (await new.answer("GET", VIEW)).json()
    found = server.summary()
    assert (found.connections, found.http2_connections, found.most_connections) == (2, 1, 2)
    assert (found.lanes[0].requests, found.lanes[0].http2) == (2, 1)
    server.reset()
    assert (server.summary().connections, server.summary().most_connections) == (0, 2)


async def test_everything_may_come_byte_by_byte(start: Start, connect_h2: ConnectH2) -> None:
    client = await connect_h2(await start())
    data = PREFACE + settings({}) + frame(HEADERS, END_HEADERS | END_STREAM, 1, client.block("GET", VIEW))
    for byte in data:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.reply(1)).status == 200


async def test_over_tls_alpn_decides(start: Start, connect: Connect, connect_h2: ConnectH2) -> None:
    context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    server = await start(ssl=context)
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (None, None)):
        trust = tls.create_default_context(cafile=str(CERTIFICATE))
        if offered is not None:
            trust.set_alpn_protocols(offered)
        if chosen == "h2":
            client = await (await connect_h2(server, ssl=trust)).greeted()
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            assert (await client.answer("GET", VIEW)).status == 200
        else:
            old = await connect(server, ssl=trust)
            assert old.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
            assert (await old.ask("GET", VIEW)).status == 200
    server.configure(http2=False)
    trust = tls.create_default_context(cafile=str(CERTIFICATE))
    trust.set_alpn_protocols(["h2", "http/1.1"])
    old = await connect(server, ssl=trust)
    assert old.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_who_chose_h2_by_alpn_must_speak_it(start: Start, connect_h2: ConnectH2) -> None:
    context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    trust = tls.create_default_context(cafile=str(CERTIFICATE))
    trust.set_alpn_protocols(["h2"])
    client = await connect_h2(await start(ssl=context), ssl=trust)
    client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await client.end()).code == PROTOCOL_ERROR


async def test_without_http2_the_preface_is_nonsense(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(http2=False)
    client = await connect_h2(server)
    client.greet()
    assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")
    assert server.summary().unparsable == 1


async def test_the_preface_is_followed_by_settings(start: Start, connect_h2: ConnectH2) -> None:
    server = await start()
    client = await connect_h2(server)
    client.writer.write(PREFACE + frame(PING, 0, 0, bytes(8)))
    assert (await client.end()).code == PROTOCOL_ERROR
    assert server.summary().unparsable == 1


# Requests and replies


async def test_replies_come_as_they_are_ready(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(faults=[{"kind": "stall", "count": 1, "delay_s": 0.02}])
    client = await (await connect_h2(server)).greeted()
    first, second = client.ask("GET", "/apps/a"), client.ask("GET", "/apps/b")
    assert (await client.reply(second)).status == 200
    assert not [kept for kept in client.kept if kept.number == first]
    assert (await client.reply(first)).status == 200


async def test_a_reply_has_the_same_head_as_over_http1(start: Start, connect: Connect, connect_h2: ConnectH2) -> None:
    server = await start(faults=[{"kind": "429", "retry_after": "7"}])
    old, client = await connect(server), await (await connect_h2(server)).greeted()
    reply = await client.reply(client.notify("a"))
    expected = await old.notify("a")
    del reply.headers["cf-ray"], expected.headers["cf-ray"]
    assert (reply.status, reply.body) == (expected.status, expected.body)
    assert reply.headers == {name.lower(): value for name, value in expected.headers.items()}


@pytest.mark.parametrize("throttle_body", ["empty", "plain"])
async def test_a_head_that_is_larger_than_a_frame_is_continued(
    start: Start, connect_h2: ConnectH2, throttle_body: str
) -> None:
    server = await start(faults=[{"kind": "429", "retry_after": "x" * 40_000}], throttle_body=throttle_body)
    client = await (await connect_h2(server)).greeted()
    reply = await client.reply(client.notify("a"))
    assert (reply.status, reply.headers["retry-after"]) == (429, "x" * 40_000)
    assert bool(reply.body) == (throttle_body == "plain")


async def test_blocks_with_a_dynamic_table_are_read_until_the_client_knows(start: Start, connect_h2: ConnectH2) -> None:
    client = await connect_h2(await start())
    client.greet()
    first, second = client.ask("GET", VIEW), client.ask("GET", VIEW)
    assert client.encoder.header_table.maxsize == 4096  # the second block refers to what the first has left
    assert [(await client.reply(number)).status for number in (first, second)] == [200, 200]
    assert (await client.answer("GET", VIEW)).status == 200  # and this one says that the table has no room now


async def test_a_client_that_knows_must_say_so_before_anything_else(start: Start, connect_h2: ConnectH2) -> None:
    client = await connect_h2(await start())
    block = client.block("GET", VIEW)
    await client.greeted()
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, block)
    assert (await client.end()).code == COMPRESSION_ERROR


async def test_a_body_may_come_in_pieces_with_padding_and_trailers(start: Start, connect_h2: ConnectH2) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    number = client.open("PATCH", USER, headers={"content-length": "38"})
    body = b'{"properties":{"tags":{"colour":"r"}}}'
    client.send(DATA, PADDED, number, b"\x03" + body[:5] + bytes(3))
    client.send(DATA, 0, number)
    client.send(DATA, 0, number, body[5:])
    client.send(HEADERS, END_HEADERS | END_STREAM, number, client.encoder.encode([("x-sum", "1")]))
    assert (await client.reply(number)).status == 202
    user = server.world.apps[APP].profiles.find("external_id", "u1")
    assert user is not None
    assert user.tags == {"colour": "r"}


async def test_a_head_may_be_padded_have_a_priority_and_be_continued(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start())).greeted()
    block = client.block("GET", VIEW)
    client.send(HEADERS, END_STREAM | PADDED | 0x20, 1, b"\x02" + bytes(5) + block[:4] + bytes(2))
    client.send(CONTINUATION, 0, 1, block[4:9])
    client.send(CONTINUATION, END_HEADERS, 1, block[9:])
    assert (await client.reply(1)).status == 200


async def test_a_large_body_gets_its_windows_as_it_comes(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(window_bytes=20_000)
    client = await (await connect_h2(server)).greeted()
    number = client.open("PATCH", USER)
    sent, window = 0, 20_000
    body = b'{"properties":{}}' + b" " * 100_000
    while sent < len(body):
        while not window:
            window += int.from_bytes((await client.until(WINDOW_UPDATE, number=number)).payload)
        piece = body[sent : sent + min(window, 16_384)]
        sent, window = sent + len(piece), window - len(piece)
        client.send(DATA, END_STREAM if sent == len(body) else 0, number, piece)
    assert (await client.reply(number)).status == 202


async def test_the_window_of_the_connection_is_opened_again_when_half_of_it_is_used(
    start: Start, connect_h2: ConnectH2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sendengine.mockserver.http2.session._HALF_WINDOW", 100)
    client = await (await connect_h2(await start())).greeted()
    client.ask("PATCH", USER, b"{}" + b" " * 99)
    assert (await client.until(WINDOW_UPDATE)).payload == pack(">L", 101)


async def test_a_body_over_the_bound_is_refused_and_the_connection_goes_on(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start(max_body_bytes=10))).greeted()
    number = client.open("POST", "/notifications")
    client.send(DATA, 0, number, b"x" * 11)
    assert (await client.reply(number)).status == 413
    assert int.from_bytes((await client.until(RST_STREAM, number=number)).payload) == NO_ERROR
    client.send(DATA, END_STREAM, number, b"x")  # it was on its way
    assert (await client.answer("GET", VIEW)).status == 200


async def test_a_client_that_asks_whether_to_go_on_is_told_to(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start())).greeted()
    number = client.open("PATCH", USER, headers={"expect": "100-continue"})
    head = await client.until(HEADERS, number=number)
    assert [f"{name!s} {value!s}" for name, value in client.decoder.decode(head.payload)] == [":status 100"]
    client.send(DATA, END_STREAM, number, b"{}")
    assert (await client.reply(number)).status == 202


async def test_a_client_that_cancels_is_counted_and_its_request_carried_out(
    start: Start, connect_h2: ConnectH2
) -> None:
    server = await start(latency_ms=20)
    client = await (await connect_h2(server)).greeted()
    number = client.ask("PATCH", USER, {})
    client.send(RST_STREAM, 0, number, pack(">L", CANCEL))
    await happened(lambda: server.ledger.unread_replies == 1)
    assert server.ledger.updates == 1
    assert (await client.answer("GET", VIEW)).status == 200


async def test_the_admin_endpoints_are_there_too(start: Start, connect_h2: ConnectH2) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    assert (await client.answer("POST", "/__mock__/config", {"max_concurrent_streams": 3})).status == 200
    assert (await client.until(SETTINGS)).payload == pack(">HL", MAX_CONCURRENT_STREAMS, 3)


# The client's windows and settings


async def test_replies_keep_to_the_windows_of_the_client(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start())).greeted({INITIAL_WINDOW_SIZE: 10})
    number = client.ask("GET", VIEW)
    await client.until(HEADERS, number=number)
    body = (await client.until(DATA, number=number)).payload
    assert len(body) == 10
    client.send(SETTINGS, 0, 0, pack(">HL", INITIAL_WINDOW_SIZE, 15))
    body += (await client.until(DATA, number=number)).payload
    assert len(body) == 15
    client.send(SETTINGS, 0, 0, pack(">HL", INITIAL_WINDOW_SIZE, 0))  # 15 less than nothing are left
    client.send(WINDOW_UPDATE, 0, number, pack(">L", 15))
    client.send(PING, 0, 0, bytes(8))
    assert (await client.until(PING)).flags == ACK
    assert not [kept for kept in client.kept if kept.kind == DATA]
    client.send(WINDOW_UPDATE, 0, number, pack(">L", 1000))
    last = await client.until(DATA, number=number)
    assert (body + last.payload).startswith(b'{"id":"')
    assert last.flags == END_STREAM


async def test_replies_share_the_window_of_the_connection(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start())).greeted({INITIAL_WINDOW_SIZE: 2**31 - 1})
    size = len((await client.answer("PATCH", USER, {"properties": {"tags": {"t": "x" * 40_000}}})).body)
    number = client.ask("GET", "/__mock__/users?updates=1")
    while size < 65_535:
        size += len((await client.until(DATA, number=number)).payload)
    assert size == 65_535
    client.send(WINDOW_UPDATE, 0, 0, pack(">L", 1_000_000))
    assert len((await client.reply(number)).body) > 40_000


async def test_pings_and_frames_that_nobody_knows_are_no_trouble(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start())).greeted({0xF0: 1, MAX_FRAME_SIZE: 20_000, ENABLE_PUSH: 0})
    client.send(0xBE, 0xFF, 7, b"?")
    client.send(PRIORITY, 0, 9, bytes(5))
    client.send(PING, ACK, 0, b"unasked!")
    client.send(PING, 0, 0, b"12345678")
    pong = await client.until(PING)
    assert (pong.flags, pong.payload) == (ACK, b"12345678")
    client.send(GOAWAY, 0, 0, bytes(8))
    assert (await client.answer("GET", VIEW)).status == 200


async def test_more_streams_than_allowed_are_refused_unseen(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(max_concurrent_streams=2, latency_ms=10)
    client = await (await connect_h2(server)).greeted()
    numbers = [client.notify(user) for user in "abc"]
    with pytest.raises(StreamResetError) as refused:
        await client.reply(numbers[2])
    assert refused.value.code == REFUSED_STREAM
    assert [(await client.reply(number)).status for number in numbers[:2]] == [200, 200]
    assert (await client.reply(client.notify("c"))).status == 200
    assert server.summary().refused_streams == 1
    assert server.ledger.messages.deliveries() == {"external_id:a": 1, "external_id:b": 1, "external_id:c": 1}


async def test_a_lower_limit_holds_from_when_the_client_has_acknowledged_it(
    start: Start, connect_h2: ConnectH2
) -> None:
    server = await start(latency_ms=10)
    client = await (await connect_h2(server)).greeted()
    server.configure(max_concurrent_streams=1)
    crossing = [client.notify("a"), client.notify("b")]
    assert [(await client.reply(number)).status for number in crossing] == [200, 200]
    await client.until(SETTINGS)
    assert client.server[MAX_CONCURRENT_STREAMS] == 1  # and acknowledged by now
    after = [client.notify("c"), client.notify("d")]
    with pytest.raises(StreamResetError):
        await client.reply(after[1])
    assert (await client.reply(after[0])).status == 200
    server.configure(max_concurrent_streams=200)
    await client.until(SETTINGS)
    assert client.server[MAX_CONCURRENT_STREAMS] == 200


async def test_a_server_that_ends_resets_its_connections(start: Start, connect_h2: ConnectH2) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    await server.__aexit__(None, None, None)
    with pytest.raises(GoneError) as gone:
        await client.frame()
    assert gone.value.code == -1
