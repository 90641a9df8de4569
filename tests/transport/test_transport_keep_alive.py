"""A server that says for how long it keeps a connection is believed."""

import pytest

from sendengine.transport.lifetimes import IDLE_S, idle_s
from tests.transport.conftest import TransportMaker, http1_only, on_asyncio
from tests.transport.scripted import POST, answering, at_once, jump, reply, serving


@pytest.mark.parametrize(
    ("said", "kept_s"),
    [
        (None, IDLE_S),
        ("", IDLE_S),
        ("max=100", IDLE_S),
        ("timeout=abc", IDLE_S),
        ("timeout=-5", IDLE_S),
        ("timeout=5", 4.0),
        ("timeout=5, max=1000", 4.0),
        ('max=100, Timeout = "30"', 29.0),
        ("timeout=2", 1.0),
        ("timeout=1", 0.5),
        ("timeout=0", 0.0),
        ("timeout=75", IDLE_S),
        ("timeout=999999999", IDLE_S),
        ("x-timeout2=5", IDLE_S),
    ],
)
def test_it_is_left_before_the_server_leaves_it(said: str | None, kept_s: float) -> None:
    assert idle_s(said) == kept_s


@http1_only("HTTP/2 has no such field")
@on_asyncio
async def test_an_idle_connection_is_replaced_before_the_server_closes_it(open_transport: TransportMaker) -> None:
    async with serving(answering(reply(headers="Keep-Alive: timeout=5\r\n"))) as server:
        transport = open_transport(server.url, protocol="http/1.1")
        for _ in range(3):
            await transport.exchange(POST, at_once)
            jump(3.5)
        assert len(server.peers) == 1
        jump(1)
        await transport.exchange(POST, at_once)
        assert len(server.peers) == 2
