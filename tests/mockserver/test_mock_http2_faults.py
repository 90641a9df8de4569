"""HTTP/2: what faults make of a stream or of its connection, GOAWAY, and a server that does not read."""

import asyncio

import pytest

from sendengine.mockserver import MockServer
from tests.mockserver.h2_client import (
    CANCEL,
    DATA,
    GOAWAY,
    INTERNAL_ERROR,
    NO_ERROR,
    PING,
    REFUSED_STREAM,
    RST_STREAM,
    ConnectH2,
    GoneError,
    H2Client,
    StreamResetError,
    opened,
)
from tests.mockserver.raw_client import APP, Answered, Connect, Start, happened

VIEW = f"/apps/{APP}"


async def asked(client: H2Client) -> Answered:
    return await client.reply(client.notify("a"))


@pytest.mark.parametrize(
    ("kind", "code", "effects"),
    [
        ("reset_before", INTERNAL_ERROR, 0),
        ("reset_after", INTERNAL_ERROR, 1),
        ("close_before", CANCEL, 0),
        ("close_after", CANCEL, 1),
        ("refused_stream", REFUSED_STREAM, 0),
        ("hang", CANCEL, 1),
        ("cut", INTERNAL_ERROR, 1),
    ],
)
async def test_a_fault_without_a_reply_ends_its_stream_alone(
    start: Start, connect_h2: ConnectH2, kind: str, code: int, effects: int
) -> None:
    server = await start(faults=[{"kind": kind, "count": 1, "delay_s": 0.01}], latency_ms=1)
    client = await (await connect_h2(server)).greeted()
    number, other = client.notify("a"), client.ask("GET", VIEW)
    with pytest.raises(StreamResetError) as reset:
        await client.reply(number)
    assert reset.value.code == code
    assert (await client.reply(other)).status == 200
    found = server.summary()
    assert (found.notifications, found.faults) == (effects, {kind: 1})
    assert found.lanes[0].replies == ({"none": 1} if kind != "cut" else {"200": 1})


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "close_before", "close_after", "hang", "cut"])
async def test_a_fault_may_take_the_whole_connection_with_it(start: Start, connect_h2: ConnectH2, kind: str) -> None:
    server = await start(faults=[{"kind": kind, "skip": 1, "delay_s": 0.01}], latency_ms=1, reset_scope="connection")
    client = await (await connect_h2(server)).greeted()
    assert (await asked(client)).status == 200
    number = client.notify("b")
    gone = await client.end()
    assert gone.code == -1  # without a word
    assert not [kept for kept in client.kept if kept.kind in {GOAWAY, RST_STREAM}]
    assert bool([kept for kept in client.kept if kept.number == number]) == (kind == "cut")
    await happened(lambda: not server.open_connections)


@pytest.mark.parametrize("kind", ["503", "503_text", "503_empty", "502_html", "524", "500", "429", "wrong_type"])
async def test_replies_of_faults_are_those_of_http1(
    start: Start, connect: Connect, connect_h2: ConnectH2, kind: str
) -> None:
    server = await start(faults=[{"kind": kind}])
    old, new = await connect(server), await (await connect_h2(server)).greeted()
    found, expected = await asked(new), await old.notify("a")
    assert (found.status, found.headers["content-type"]) == (expected.status, expected.headers["Content-Type"])
    assert len(found.body) == len(expected.body) == int(found.headers["content-length"])


async def test_a_slow_body_comes_in_pieces_among_other_replies(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(faults=[{"kind": "slow", "count": 1, "delay_s": 0.02}])
    client = await (await connect_h2(server)).greeted()
    slow, quick = client.notify("a"), client.notify("b")
    assert (await client.reply(quick)).status == 200
    pieces = [await client.until(DATA, number=slow) for _ in range(3)]
    assert all(0 < len(piece.payload) < 20 for piece in pieces)
    assert (await client.reply(slow)).body  # the rest of it


async def test_a_slow_body_that_is_cancelled_or_empty_is_no_trouble(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(faults=[{"kind": "slow", "count": 1, "delay_s": 0.02}])
    client = await (await connect_h2(server)).greeted()
    number = client.notify("a")
    await client.until(DATA, number=number)
    client.send(RST_STREAM, 0, number, bytes(4))
    assert (await asked(client)).status == 200


async def test_an_outage_resets_the_connection(start: Start, connect_h2: ConnectH2) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    server.configure(faults=[{"kind": "outage_reset"}])
    assert (await client.end()).code == -1
    with pytest.raises((GoneError, ConnectionError)):
        await (await connect_h2(server)).greeted()
    server.configure(faults=[])
    assert (await asked(await (await connect_h2(server)).greeted())).status == 200


# GOAWAY


async def test_a_graceful_goaway_answers_what_it_names_and_nothing_else(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(latency_ms=10)
    client = await (await connect_h2(server)).greeted()
    numbers = [client.notify("a"), client.notify("b")]
    await happened(lambda: server.ledger.requests("create_notification") == 2)
    server.go_away()
    late = client.notify("c")
    assert [(await client.reply(number)).status for number in numbers] == [200, 200]
    gone = await client.end()
    assert (gone.last, gone.code) == (numbers[1], NO_ERROR)
    assert not [kept for kept in client.kept if kept.number == late]
    assert server.ledger.messages.deliveries() == {"external_id:a": 1, "external_id:b": 1}


async def test_a_hard_goaway_names_what_was_taken_and_answers_nothing(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(latency_ms=10)
    client = await (await connect_h2(server)).greeted()
    number = client.notify("a")
    await happened(lambda: server.ledger.requests("create_notification") == 1)
    server.go_away(hard=True)
    gone = await client.end()
    assert (gone.last, gone.code) == (number, INTERNAL_ERROR)
    await happened(lambda: server.ledger.unread_replies == 1)
    assert (server.summary().notifications, server.open_connections) == (1, 0)


async def test_connections_of_http1_and_silent_ones_go_too(start: Start, connect: Connect) -> None:
    server = await start(latency_ms=10)
    busy, idle, silent = await connect(server), await connect(server), await connect(server)
    await idle.ask("GET", VIEW)
    busy.send("GET", VIEW)
    await happened(lambda: server.ledger.requests("view") == 2 and server.open_connections == 3)
    server.go_away()
    assert [await client.reader.read() for client in (idle, silent)] == [b"", b""]
    assert (await busy.read()).headers["Connection"] == "close"
    assert await busy.reader.read() == b""


async def test_a_connection_ends_with_goaway_after_so_many_requests(start: Start, connect_h2: ConnectH2) -> None:
    client = await (await connect_h2(await start(requests_per_connection=2, latency_ms=1))).greeted()
    numbers = [client.notify(user) for user in "abc"]
    assert [(await client.reply(number)).status for number in numbers[:2]] == [200, 200]
    assert (await client.end()).last == numbers[1]


async def test_goaway_may_come_now_and_then(start: Start, connect: Connect, connect_h2: ConnectH2) -> None:
    server = await start(faults=[{"kind": "goaway", "skip": 1, "count": 2}])
    client = await (await connect_h2(server)).greeted()
    assert [(await asked(client)).status for _ in range(2)] == [200, 200]
    assert (await client.end()).last == 3
    old = await connect(server)
    assert (await old.notify("a")).headers["Connection"] == "close"
    assert server.summary().notifications == 3


async def test_another_process_may_ask_for_it(start: Start, connect_h2: ConnectH2) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    other = await (await connect_h2(server)).greeted()
    assert (await client.answer("POST", "/__mock__/goaway?hard=1")).status == 200
    assert [(await one.end()).code for one in (client, other)] == [INTERNAL_ERROR, INTERNAL_ERROR]
    client = await (await connect_h2(server)).greeted()
    assert (await client.answer("POST", "/__mock__/goaway")).status == 200
    assert (await client.end()).code == NO_ERROR


# A server that does not read


async def test_a_server_may_stop_reading_and_go_on_answering(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(latency_ms=10)
    client = await (await connect_h2(server)).greeted()
    number = client.notify("a")
    await happened(lambda: server.ledger.requests("create_notification") == 1)
    server.stop_reading()
    unread = client.notify("b")
    assert (await client.reply(number)).status == 200
    newer = await (await connect_h2(server)).greeted()
    assert (await asked(newer)).status == 200  # by then the second request has come, and has not been read
    assert server.ledger.requests("create_notification") == 2
    assert (await newer.answer("POST", "/__mock__/read_on")).status == 200
    assert (await client.reply(unread)).status == 200


async def test_it_may_read_on_by_itself(start: Start, connect_h2: ConnectH2) -> None:
    server = await start()
    client = await (await connect_h2(server)).greeted()
    assert (await client.answer("POST", "/__mock__/stop_reading?for_s=0.02")).status == 200
    began_s = server.now_s
    client.send(PING, 0, 0, bytes(8))
    await client.until(PING)
    assert server.now_s - began_s >= 0.01
    assert (await client.answer("POST", "/__mock__/stop_reading?for_s=soon")).status == 400


async def test_a_client_that_does_not_read_is_read_no_more(start: Start, connect_h2: ConnectH2) -> None:
    server = await start(user_interval_s=0)
    client = await (await connect_h2(server)).greeted({4: 2**31 - 1})
    client.send(8, 0, 0, (2**31 - 1 - 65_535).to_bytes(4))
    user = f"{VIEW}/users/by/external_id/u1"
    await client.answer("PATCH", user, {"properties": {"tags": {"t": "x" * 900_000}}})
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads too
    numbers = [client.ask("GET", "/__mock__/users") for _ in range(30)]
    await client.writer.drain()
    for _ in range(50):
        await asyncio.sleep(0)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # the same
    assert [len((await client.reply(number)).body) > 900_000 for number in numbers] == [True] * 30


async def test_a_server_that_ends_drops_what_is_under_way() -> None:
    async with MockServer() as server:
        server.configure(faults=[{"kind": "hang"}])
        client = await (await opened(server)).greeted()
        client.notify("a")
        await happened(lambda: server.ledger.requests("create_notification") == 1)
    assert (await client.end()).code == -1
    client.writer.close()
