"""What arrives at the server: the head to the byte, the body, and the key that is in use."""

import asyncio
from typing import Final

import pytest

from sendengine.errors import SettingsError
from sendengine.ports import WireRequest
from tests.transport.conftest import KEY, TransportMaker, http1_only, on_asyncio
from tests.transport.scripted import GET, LARGE, POST, Gate, answering, at_once, listening, reply, serving

PATHS: Final = (
    "/apps/a/users/by/external_id/a%2Fb%20%C3%A9%2E%2e+~",
    "/apps/a/users/by/external_id/%2E%2E",
    "/apps/a/users/by/external_id/%3Fx=1&y%23z",
    "/apps/a/users/by/external_id/%25%32%35%00%7F%FF",
    "/apps/a/users/by/external_id/a:b@c;d,e=f!g$h'i(j)k*l",
)


@http1_only("these are HTTP/1.1's bytes; test_h2_requests has HTTP/2's fields")
async def test_the_head_is_exact(open_transport: TransportMaker) -> None:
    """In any order and with names in any case, but each header once, and none beside these."""
    with listening() as server:
        transport = open_transport(server.url)
        body = '{"a":"é\\r\\n"}'.encode()
        under_way = asyncio.create_task(transport.exchange(WireRequest("PATCH", "/apps/x%2Fy", body), at_once))
        peer = await server.accept()
        raw = await peer.request()
        peer.send(reply())
        await under_way
        head, _, arrived = raw.partition(b"\r\n\r\n")
        assert arrived == body
        line, *fields = head.decode("ascii").split("\r\n")
        assert line == "PATCH /apps/x%2Fy HTTP/1.1"
        named = sorted((name.lower(), value) for name, value in (field.split(": ") for field in fields))
        agent = named.pop()
        assert named == [
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("authorization", f"Key {KEY}"),
            ("content-length", str(len(body))),
            ("content-type", "application/json"),
            ("host", server.url.removeprefix("http://")),
        ]
        assert agent[0] == "user-agent"
        assert agent[1].startswith("sendengine/")


@on_asyncio
@pytest.mark.parametrize("prefix", ["", "/", "/prefix", "/api/v1/"])
async def test_the_path_is_below_the_base_url_and_arrives_to_the_letter(
    open_transport: TransportMaker, prefix: str
) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url + prefix)
        for path in PATHS:
            await transport.exchange(WireRequest("PATCH", path, b"{}"), at_once)
        assert [request.line for request in server.requests] == [
            f"PATCH {prefix.rstrip('/')}{path} HTTP/1.1" for path in PATHS
        ]


@on_asyncio
@pytest.mark.parametrize(("method", "length"), [("GET", None), ("POST", "0"), ("PATCH", "0")])
async def test_a_request_without_a_body_says_so_where_one_is_expected(
    open_transport: TransportMaker, method: str, length: str | None
) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        for _ in range(2):
            await transport.exchange(WireRequest(method, "/apps/a"), at_once)
        assert [request.headers.get("Content-Length") for request in server.requests] == [length] * 2


@pytest.mark.parametrize("size", [1, 999, 65_535, 65_536, 2**20, 2**20 + 1])
async def test_a_body_of_any_size_arrives_whole(open_transport: TransportMaker, size: int) -> None:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        for _ in range(2):
            await transport.exchange(WireRequest("POST", "/notifications", body), at_once)
        assert [request.body == body for request in server.requests] == [True, True]
        assert len(server.peers) == 1


async def test_a_get_has_no_body(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        assert (await open_transport(server.url).exchange(GET, at_once)).status == 200
        assert (server.requests[0].line, server.requests[0].body) == ("GET /apps/a HTTP/1.1", b"")


async def test_a_large_body_arrives_whole(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        assert (await open_transport(server.url).exchange(LARGE, at_once)).status == 200
        assert server.requests[0].body == LARGE.body


async def test_cookies_are_not_kept(open_transport: TransportMaker) -> None:
    async with serving(answering(reply(headers="Set-Cookie: __cf_bm=1; Path=/\r\n"))) as server:
        transport = open_transport(server.url.replace("127.0.0.1", "localhost"))  # an address has no cookies anyway
        for _ in range(2):
            await transport.exchange(POST, at_once)
        assert not any("ookie" in name for request in server.requests for name in request.headers)


async def test_another_key_is_used_from_the_next_request_on(open_transport: TransportMaker) -> None:
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        await transport.exchange(POST, at_once)
        transport.replace_key("another")
        await transport.exchange(POST, at_once)
        assert [request.headers["Authorization"] for request in server.requests] == [f"Key {KEY}", "Key another"]


async def test_another_key_is_used_by_whoever_begins_after_it_came(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(answering()) as server:
        transport = open_transport(server.url, max_connections=1)
        await transport.exchange(POST, at_once)
        for number in range(5):
            transport.replace_key(f"key-{number}")
            await transport.exchange(POST if number % 2 else GET, at_once)
        transport.replace_key("key-5")
        waiting = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        gate.opened.set()
        await waiting
        keys = [request.headers["Authorization"] for request in server.requests]
        assert keys == [f"Key {KEY}", *[f"Key key-{number}" for number in range(6)]]
        assert len(server.peers) == 1


@on_asyncio
@pytest.mark.parametrize("key", ["", "line\nend", "carriage\rreturn", "ключ", "tab\t", "nul\0", "caf\xe9"])
async def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_shown(
    open_transport: TransportMaker, key: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        open_transport("http://127.0.0.1:9", api_key=key)
    assert not key or key not in str(caught.value)
    async with serving(answering()) as server:
        transport = open_transport(server.url)
        with pytest.raises(SettingsError) as caught:
            transport.replace_key(key)
        assert not key or key not in str(caught.value)
        await transport.exchange(POST, at_once)
        assert server.requests[0].headers["Authorization"] == f"Key {KEY}", "the one in use stays"
