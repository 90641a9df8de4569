"""HTTP on one connection: keep-alive, pipelining, pieces, limits, nonsense, TLS."""

import asyncio
import ssl as tls
from pathlib import Path

import pytest

from sendengine.mockserver import MockServer
from tests.mockserver.raw_client import APP, Client, Connect, Start, happened

CERTIFICATE = Path(__file__).with_name("loopback.pem")
VIEW = f"/apps/{APP}"


async def test_a_connection_is_kept_and_several_requests_may_be_under_way(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    for app in "abc":
        client.send("GET", f"/apps/{app}")
    found = [(await client.read()).json() for _ in range(3)]
    assert [view["id"] for view in found if isinstance(view, dict)] == ["a", "b", "c"]
    assert (server.ledger.connections, server.open_connections) == (1, 1)


async def test_replies_keep_the_order_of_requests_whatever_their_latency(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "stall", "count": 1, "delay_s": 0.02}])
    client = await connect(server)
    for app in "abc":
        client.send("GET", f"/apps/{app}")
    found = [(await client.read()).json() for _ in range(3)]
    assert [view["id"] for view in found if isinstance(view, dict)] == ["a", "b", "c"]


async def test_a_request_may_come_byte_by_byte(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    body = b'{"properties":{"tags":{"a":"1"}}}'
    head = (
        f"PATCH {VIEW}/users/by/external_id/u1 HTTP/1.1\r\nauthorization: Key k\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for byte in head.encode() + body:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.read()).status == 202


async def test_a_chunked_body_is_read(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    client.writer.write(
        f"PATCH {VIEW}/users/by/external_id/u1 HTTP/1.1\r\nAuthorization: Key k\r\n".encode()
        + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"pro\r\nc\r\nperties":{}}\r\n0\r\n\r\n'
    )
    assert (await client.read()).status == 202


@pytest.mark.parametrize("version", ["1.1\r\nConnection: close", "1.0"])
async def test_a_connection_is_closed_where_the_client_wants_it(start: Start, connect: Connect, version: str) -> None:
    client = await connect(await start())
    client.writer.write(f"GET {VIEW} HTTP/{version}\r\nAuthorization: Key k\r\n\r\n".encode())
    assert (await client.read()).headers["Connection"] == "close"
    assert await client.reader.read() == b""


async def test_a_connection_may_end_unannounced_after_so_many_replies(start: Start, connect: Connect) -> None:
    client = await connect(await start(requests_per_connection=2))
    for _ in range(2):
        assert "Connection" not in (await client.ask("GET", VIEW)).headers
    assert await client.reader.read() == b""


async def test_nonsense_is_answered_with_400_and_counted(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    client.writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    assert (await client.read()).status == 400
    assert await client.reader.read() == b""
    assert server.summary().unparsable == 1


async def test_a_body_over_the_bound_is_refused(start: Start, connect: Connect) -> None:
    client = await connect(await start(max_body_bytes=10))
    client.send("POST", "/notifications", b"x" * 11)
    assert (await client.read()).status == 413
    assert await client.reader.read() == b""


async def test_a_client_that_asks_whether_to_go_on_is_told_to(start: Start, connect: Connect) -> None:
    client = await connect(await start())
    client.writer.write(
        f"PATCH {VIEW}/users/by/external_id/u1 HTTP/1.1\r\nAuthorization: Key k\r\n".encode()
        + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.writer.write(b"{}")
    assert (await client.read()).status == 202


async def test_a_client_that_left_before_its_reply_is_counted_and_its_request_carried_out(
    start: Start, connect: Connect
) -> None:
    server = await start(latency_ms=20)
    client = await connect(server)
    client.send("PATCH", f"{VIEW}/users/by/external_id/u1", {})
    await happened(lambda: server.ledger.updates == 1)
    client.writer.transport.abort()
    await happened(lambda: server.ledger.unread_replies == 1)


async def test_leaving_the_server_closes_everything() -> None:
    async with MockServer() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        client = Client(reader, writer)
        await client.ask("GET", VIEW)
        client.send("GET", VIEW)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await read_all(client)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    assert server.summary().connections == 1  # still readable


async def read_all(client: Client) -> None:
    while True:
        await client.read()


async def test_it_speaks_tls(start: Start, connect: Connect) -> None:
    context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    server = await start(ssl=context, faults=[{"kind": "reset_after", "skip": 1}])
    client = await connect(server, ssl=tls.create_default_context(cafile=str(CERTIFICATE)))
    assert server.base_url == f"https://127.0.0.1:{server.port}"
    assert (await client.notify("a")).status == 200
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.notify("a")


def test_a_server_must_be_entered_first() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = MockServer().ledger
