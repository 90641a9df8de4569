"""What arrives at the server over HTTP/2: the client's first words, its fields to the letter, bodies, and the key."""

import asyncio
from typing import Final

import pytest

from sendengine.ports import Reply, WireRequest
from tests.transport.conftest import KEY, TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import answered, ask_all, asking, kinds
from tests.transport.h2_frames import Flag, Kind, Setting, settings
from tests.transport.h2_serving import H2Peer, answering, h2_serving, h2_tls
from tests.transport.scripted import AUTHORITY, GET, at_once, turns

pytestmark = h2_only

PATHS: Final = (
    "/apps/a/users/by/external_id/a%2Fb%20%C3%A9%2E%2e+~",
    "/apps/a/users/by/external_id/%2E%2E",
    "/apps/a/users/by/external_id/%3Fx=1&y%23z",
    "/apps/a/users/by/external_id/" + "x" * 1_000,
)


@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "TLS"])
async def test_the_fields_are_exact(open_transport: TransportMaker, *, has_tls: bool) -> None:
    async with h2_serving(answering, tls=h2_tls() if has_tls else None) as server:
        transport = open_transport(server.url + "/api/v1", **({"ca_file": AUTHORITY} if has_tls else {}))
        body = '{"a":"é\\r\\n"}'.encode()
        for _ in range(2):
            await transport.exchange(WireRequest("PATCH", "/apps/x%2Fy", body), at_once)
        for asked in server.whole:
            agent = asked.fields.pop("user-agent")
            assert agent.startswith("sendengine/")
            assert asked.fields == {
                ":method": "PATCH",
                ":scheme": "https" if has_tls else "http",
                ":authority": server.url.partition("://")[2],
                ":path": "/api/v1/apps/x%2Fy",
                "accept": "application/json",
                "accept-encoding": "identity",
                "authorization": f"Key {KEY}",
                "content-length": str(len(body)),
                "content-type": "application/json",
            }
            assert bytes(asked.body) == body
        assert len(server.peers) == 1


@on_asyncio
async def test_the_client_s_first_settings_want_no_table_and_no_push(open_transport: TransportMaker) -> None:
    async with h2_serving() as server:
        assert await answered(open_transport(server.url), 0)
        session = server.peers[0].session
        own = session.frames[0]
        assert (own.kind, own.flags) == (Kind.SETTINGS, 0)
        assert own.settings[Setting.HEADER_TABLE_SIZE] == 0
        assert own.settings[Setting.ENABLE_PUSH] == 0
        assert any(came.kind == Kind.SETTINGS and came.flags == Flag.ACK for came in session.frames)


@on_asyncio
async def test_paths_arrive_to_the_letter(open_transport: TransportMaker) -> None:
    async with h2_serving() as server:
        transport = open_transport(server.url)
        for path in PATHS * 2:
            assert (await transport.exchange(WireRequest("PATCH", path, b"{}"), at_once)).status == 200
        assert [asked.fields[":path"] for asked in server.whole] == list(PATHS * 2)


@on_asyncio
@pytest.mark.parametrize(("method", "length"), [("GET", None), ("POST", "0"), ("PATCH", "0")])
async def test_a_request_without_a_body_ends_with_its_head(
    open_transport: TransportMaker, method: str, length: str | None
) -> None:
    async with h2_serving() as server:
        await open_transport(server.url).exchange(WireRequest(method, "/apps/a"), at_once)
        assert server.whole[0].fields.get("content-length") == length
        assert [came for came in server.peers[0].session.frames if came.kind == Kind.DATA] == []


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 65_535, 65_536, 2**20 + 1])
async def test_a_body_of_any_size_arrives_whole(open_transport: TransportMaker, size: int) -> None:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    async with h2_serving(tls=h2_tls()) as server:
        transport = open_transport(server.url, ca_file=AUTHORITY, max_reply_bytes=2 * size + 10)
        for _ in range(2):
            got = await transport.exchange(WireRequest("POST", "/notifications", body), at_once)
            assert got.body == b'{"of":' + body + b"}"
        assert [asked.body == body for asked in server.whole] == [True, True]


@on_asyncio
async def test_large_bodies_hold_up_nobody(open_transport: TransportMaker) -> None:
    async with h2_serving() as server:
        transport = open_transport(server.url, max_reply_bytes=30_000_000)
        large = asyncio.create_task(
            transport.exchange(WireRequest("POST", "/notifications", b"x" * 4_000_000), at_once)
        )
        await turns()
        assert kinds(await ask_all(transport, range(20))) == [Reply] * 20
        assert not large.done()
        assert len((await large).body) == 4_000_007


@on_asyncio
@pytest.mark.parametrize("size", [0, 1, 100, 4_096, 100_000])
async def test_a_server_s_table_of_any_size_is_respected(open_transport: TransportMaker, size: int) -> None:
    """Where it is smaller than at first, the client says so in front of its next field block (RFC 7541, 4.2)."""

    async def script(peer: H2Peer) -> None:
        peer.reply((await peer.requests(1))[0])
        for count, later in ((2, 4_096), (3, 0), (4, size)):
            peer.send(settings({Setting.HEADER_TABLE_SIZE: later}))
            peer.reply((await peer.requests(count))[-1])
        await answering(peer)

    async with h2_serving(script, first_settings={Setting.HEADER_TABLE_SIZE: size}) as server:
        transport = open_transport(server.url)
        for number in range(8):
            assert await answered(transport, number)
        assert len(server.peers) == 1


@on_asyncio
async def test_another_key_is_used_from_the_next_request_on(open_transport: TransportMaker) -> None:
    async with h2_serving() as server:
        transport = open_transport(server.url)
        await transport.exchange(asking(0), at_once)
        for number in range(4):
            transport.replace_key(f"key-{number}" + "x" * 40 * number)
            await transport.exchange(asking(number) if number % 2 else GET, at_once)
        keys = [asked.fields["authorization"] for asked in server.whole]
        assert keys == [f"Key {KEY}", *[f"Key key-{number}" + "x" * 40 * number for number in range(4)]]
        assert len(server.peers) == 1
