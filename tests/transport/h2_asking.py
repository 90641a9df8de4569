"""Requests that a test can tell apart, what may come of each, and what HTTP/2's tests have in common.

A request's body is its number, and a reply's body names it (`tests.transport.h2_serving.marker`), so that a reply that
is taken for another's shows.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from sendengine.errors import NotSentError, ReplyLostError, TransportError
from sendengine.ports import Permit, Reply, Transport, WireRequest
from tests.transport.scripted import at_once, outcome

End = Reply | TransportError
LOST: Final = ReplyLostError
NOT_SENT: Final = NotSentError


def asking(number: int) -> WireRequest:
    return WireRequest("POST", "/notifications", b"%d" % number)


async def ask(transport: Transport, number: int, permit: Permit = at_once) -> End:
    """Send a request and return what came of it; a reply must be its own."""
    got = await outcome(transport.exchange(asking(number), permit))
    if isinstance(got, Reply):
        assert is_own(got, number), f"request {number} got {got}"
    return got


def is_own(got: Reply, number: int) -> bool:
    """Whether a reply names no other request than this one."""
    return got.body == b'{"of":%d}' % number or not got.body.startswith(b'{"of":')


async def answered(transport: Transport, number: int) -> bool:
    """Whether a request is answered with its own reply."""
    got = await ask(transport, number)
    return isinstance(got, Reply) and (got.status, got.body) == (200, b'{"of":%d}' % number)


def asking_all(transport: Transport, numbers: Iterable[int], permit: Permit = at_once) -> list[asyncio.Task[End]]:
    """Send requests at the same time, in tasks; they get their streams in this order."""
    return [asyncio.create_task(ask(transport, number, permit)) for number in numbers]


async def ask_all(transport: Transport, numbers: Iterable[int]) -> list[End]:
    """Send requests at the same time and return what came of each."""
    return await asyncio.gather(*asking_all(transport, numbers))


def kinds(ends: Iterable[End]) -> list[type]:
    """Say what came of each: `Reply`, `NotSentError` or `ReplyLostError`."""
    return [type(end) for end in ends]
