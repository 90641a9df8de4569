"""Replies changed by chance: every exchange ends, nothing is left over, and no reply is taken for another's.

Each reply is an echo: it names the request that it answers, with a checksum, so that what chance made of it is not
mistaken for an echo of another request. A server sends all that it has to say to one request before the next one is
written, since whatever comes after that is the next one's reply as far as HTTP/1.1 can tell.
"""

import asyncio
import random
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest

from sendengine.errors import NotSentError, ReplyLostError, TransportError
from sendengine.ports import Reply, Transport, WireRequest
from tests.transport.conftest import TransportMaker, http1_only, on_asyncio
from tests.transport.scripted import Peer, at_once, jump, outcome, serving, turns

pytestmark = [
    on_asyncio,  # time is put forward where a server falls silent
    http1_only("what is changed here is HTTP/1.1's text; test_h2_fuzz changes frames"),
]

ROUNDS: Final = 200
AT_ONCE: Final = 4
SEEDS: Final = range(3)
SPLICES: Final = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\xff", b"0", b"-1", b"ffffffffffffffff",
    b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n",
    b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length: 99999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n", b"Content-Encoding: gzip\r\n", b"0\r\n\r\n", b"x" * 9000,
)  # fmt: skip
_ECHO: Final = re.compile(rb'\{"echo":"(\d+)","sum":(\d+)\}')


def echo(number: int) -> bytes:
    return b'{"echo":"%d","sum":%d}' % (number, zlib.crc32(b"%d" % number))


def echoed(body: bytes) -> int | None:
    """Return the number of the request that a body names, or None where it is no echo."""
    found = _ECHO.fullmatch(body)
    if found is None or int(found[2]) != zlib.crc32(found[1]):
        return None
    return int(found[1])


# What is sent


def plain(chance: random.Random, body: bytes) -> bytes:
    status = chance.choice([b"200 OK", b"202 Accepted", b"400 Bad Request", b"429 Too Many Requests", b"503 No"])
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def chunked(chance: random.Random, body: bytes) -> bytes:
    pieces = cut(chance, body, at_most=4)
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), chance.choice([b"", b";a=b"]), piece) for piece in pieces)
    trailer = chance.choice([b"", b"X-Trailer: y\r\n"])
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


def hinted(chance: random.Random, body: bytes) -> bytes:
    return b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * chance.randint(1, 3) + plain(chance, body)


def unframed(_: random.Random, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + body


def old(_: random.Random, body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


SHAPES: Final = (plain, plain, chunked, chunked, hinted, unframed, old)


def cut(chance: random.Random, data: bytes, *, at_most: int) -> list[bytes]:
    """Cut data into pieces, none of them empty."""
    cuts = sorted({chance.randrange(1, len(data)) for _ in range(chance.randrange(at_most))}) if len(data) > 1 else []
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# What chance does to it


def unchanged(_: random.Random, raw: bytes) -> bytes:
    return raw


def bits_flipped(chance: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncated(chance: random.Random, raw: bytes) -> bytes:
    return raw[: chance.randrange(len(raw))]


def spliced(chance: random.Random, raw: bytes) -> bytes:
    at = chance.randrange(len(raw))
    return raw[:at] + chance.choice(SPLICES) + raw[at + chance.choice([0, 0, 1, 5]) :]


def line_spliced(chance: random.Random, raw: bytes) -> bytes:
    """Put something where a line begins, which is where a parser listens."""
    starts = [found.end() for found in re.finditer(rb"\r\n", raw)]
    at = chance.choice(starts) if starts else 0
    return raw[:at] + chance.choice(SPLICES) + raw[at:]


def piece_removed(chance: random.Random, raw: bytes) -> bytes:
    at = chance.randrange(len(raw))
    return raw[:at] + raw[at + chance.randint(1, 12) :]


def piece_doubled(chance: random.Random, raw: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(raw) + 1) for _ in range(2))
    return raw[:end] + raw[start:]


CHANGES: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    unchanged,
    unchanged,
    bits_flipped,
    truncated,
    spliced,
    line_spliced,
    piece_removed,
    piece_doubled,
)
ENDINGS: Final = ("keep", "keep", "keep", "close", "half close", "reset")


class Chances:
    """A server that answers every request with its echo, as chance has changed it, and at times with two."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.speaking = 0

    async def script(self, peer: Peer) -> None:
        while True:
            received = await peer.request()
            self.speaking += 1
            try:
                await self.answer(peer, int(received.body))
            finally:
                self.speaking -= 1

    async def answer(self, peer: Peer, number: int) -> None:
        chance = self.chance
        raw = chance.choice(CHANGES)(chance, chance.choice(SHAPES)(chance, echo(number)))
        if chance.random() < 0.2:
            raw += chance.choice(SHAPES)(chance, echo(number))
        for piece in cut(chance, raw, at_most=chance.choice([1, 2, 5])) if raw else ():
            await peer.send(piece)
            if chance.random() < 0.7:
                await turns()
        match chance.choice(ENDINGS):
            case "close":
                peer.writer.close()
            case "half close":
                with suppress(OSError):  # the client may have gone first
                    peer.writer.write_eof()
            case "reset":
                peer.reset()


async def ends(transport: Transport, numbers: range) -> list[Reply | TransportError]:
    """Make exchanges at once, and put the time forward until they are over."""
    tasks = [
        asyncio.create_task(outcome(transport.exchange(WireRequest("POST", "/notifications", b"%d" % number), at_once)))
        for number in numbers
    ]
    while not all(task.done() for task in tasks):
        for _ in range(20):
            await turns()
            if all(task.done() for task in tasks):
                break
        else:
            jump(61)
    return [task.result() for task in tasks]


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_reply_whatever_its_bytes_hangs_or_is_taken_for_another_s(
    open_transport: TransportMaker, seed: int
) -> None:
    chances = Chances(seed)
    replies = lost = echoes = 0
    async with serving(chances.script) as server:
        transport = open_transport(server.url, max_connections=AT_ONCE, max_reply_bytes=5_000)
        for number in range(0, ROUNDS * AT_ONCE, AT_ONCE):
            assert await transport.warm(AT_ONCE) == AT_ONCE, "so that nobody follows another within a round"
            numbers = range(number, number + AT_ONCE)
            for asked, end in zip(numbers, await ends(transport, numbers), strict=True):
                if isinstance(end, Reply):
                    answered = echoed(end.body)
                    assert answered in {asked, None}, f"request {asked} of seed {seed} got the reply of {answered}"
                    assert len(end.body) <= 5_000
                    echoes += answered is not None
                    replies += 1
                else:
                    assert isinstance(end, ReplyLostError | NotSentError)
                    lost += 1
            while chances.speaking:
                await turns()
            await turns()
            assert transport.open_connections <= AT_ONCE
        assert server.most_open <= 2 * AT_ONCE
        await transport.aclose()
        await server.all_gone()
    assert min(replies, lost) > ROUNDS / 2, "chance has made some of each"
    assert echoes > ROUNDS, "and left enough as they are"
