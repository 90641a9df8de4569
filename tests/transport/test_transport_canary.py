"""The key shows nowhere but on the wire: not in an error, not in what it is chained to, not in a log."""

import asyncio
import logging
import traceback
from collections.abc import Iterator
from typing import Final

import pytest

from sendengine.errors import ReplyLostError, TransportError
from sendengine.ports import WireRequest
from tests.transport.conftest import KEY, TransportMaker, cases, on_asyncio
from tests.transport.scripted import (
    POST,
    Gate,
    Peer,
    Script,
    answering,
    at_once,
    jump,
    reply,
    serving,
    turns,
)


def links(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error, and whatever it is chained to or holds, each once."""
    seen: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen[id(link)] = link
        waiting += [link.__cause__, link.__context__, *[part for part in link.args if isinstance(part, BaseException)]]
        waiting += link.exceptions if isinstance(link, BaseExceptionGroup) else ()
    yield from seen.values()


def shown(error: BaseException) -> str:
    """Give all that somebody may print of an error."""
    texts = traceback.format_exception(error)
    for link in links(error):
        texts += [repr(link), str(link), repr(link.args), repr(vars(link)), *getattr(link, "__notes__", ())]
    return "\n".join(texts)


def saying(raw: bytes, *, reset: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        if reset:
            await turns()
            peer.reset()

    return script


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.left()


WORDY: Final = WireRequest("POST", "/notifications", b"x" * 300_000)  # written in several pieces
LOSING: Final[dict[str, Script]] = {
    "closed": saying(b""),
    "reset": saying(b"", reset=True),
    "closed within the head": saying(b"HTTP/1.1 200"),
    "closed within the body": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    "reset within the body": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", reset=True),
    "garbage": saying(b"HTTP/1.1 \x00\r\n\r\n"),
    "garbage within the body": saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "a head without end": saying(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2_000_000),
}


@cases(LOSING, http1=["garbage within the body"], reason="what is garbage there is a chunk, and HTTP/2 has none")
@pytest.mark.parametrize("request_", [POST, WORDY], ids=["small", "large"])
async def test_a_lost_reply_s_error_shows_no_key(
    open_transport: TransportMaker, caplog: pytest.LogCaptureFixture, name: str, request_: WireRequest
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(LOSING[name]) as server:
        transport = open_transport(server.url)
        with pytest.raises(ReplyLostError) as caught:
            await transport.exchange(request_, at_once)
        assert KEY not in shown(caught.value) + repr(transport) + caplog.text
        assert server.requests[0].headers["Authorization"] == f"Key {KEY}"


@on_asyncio
async def test_the_error_of_an_exchange_that_took_too_long_shows_no_key(open_transport: TransportMaker) -> None:
    async with serving(silent) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, at_once))
        await server.next_request()
        jump(61)
        with pytest.raises(ReplyLostError) as caught:
            await under_way
        assert KEY not in shown(caught.value) + repr(under_way)


async def test_the_error_of_an_exchange_that_was_closed_shows_no_key(open_transport: TransportMaker) -> None:
    gate = Gate()
    async with serving(silent) as server:
        transport = open_transport(server.url, max_connections=2)
        tasks = [asyncio.create_task(transport.exchange(POST, permit)) for permit in (at_once, gate, at_once)]
        await server.next_request()
        await gate.asked.wait()
        await transport.aclose()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(end, TransportError)
            assert KEY not in shown(end)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9"])
async def test_the_error_of_a_failed_connect_shows_no_key(open_transport: TransportMaker, url: str) -> None:
    with pytest.raises(TransportError) as caught:
        await open_transport(url).exchange(POST, at_once)
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize("moment", ["before the permit", "after the permit"])
async def test_a_cancelled_exchange_shows_no_key(open_transport: TransportMaker, moment: str) -> None:
    gate = Gate()
    async with serving(silent) as server:
        transport = open_transport(server.url)
        under_way = asyncio.create_task(transport.exchange(POST, gate))
        await gate.asked.wait()
        if moment == "after the permit":
            gate.opened.set()
            await server.next_request()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await under_way
        assert KEY not in shown(caught.value)


async def test_what_a_permit_raises_shows_no_key(open_transport: TransportMaker) -> None:
    async def refusing() -> None:
        raise OSError("no")

    async with serving(answering()) as server:
        transport = open_transport(server.url)
        for _ in range(2):
            with pytest.raises(OSError, match="no") as caught:
                await transport.exchange(POST, refusing)
            assert KEY not in shown(caught.value)


async def test_a_reply_shows_no_key(open_transport: TransportMaker) -> None:
    async with serving(answering(reply(headers="Content-Encoding: gzip\r\n"))) as server:
        transport = open_transport(server.url)
        assert KEY not in repr(await transport.exchange(POST, at_once)) + repr(transport)
