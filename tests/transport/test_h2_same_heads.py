"""A reply's head means the same whether or not others like it came before: what a client remembers of heads is no rule.

A head as servers send it is changed by chance; one connection has it first, and another one after some that were
whole. Both must come to the same end: the same reply, or the same error.

``H2_FUZZ_ROUNDS`` makes it longer.
"""

import os
import random
from collections.abc import Callable
from typing import Final

import pytest

from sendengine.ports import Reply, Transport
from sendengine.transport.direct.http2.tables import refers_to_table
from tests.transport.conftest import TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, answered, ask
from tests.transport.h2_frames import Kind, block, data, head, headers, indexed, literal, remembered
from tests.transport.h2_serving import H2Peer, Script, answering, first, h2_serving

pytestmark = [h2_only, on_asyncio]

WANTED: Final = int(os.environ.get("H2_FUZZ_ROUNDS", "120"))
ROUNDS: Final = min(WANTED, 60)  # of one seed: more of them make it longer
SEEDS: Final = range(max(2, WANTED // ROUNDS))
WARM: Final = 4
BODY: Final = b'{"id":"m"}'


def typical(number: int, *, length: int = len(BODY)) -> bytes:
    """Write a head as an edge does, with values that vary from one to the next."""
    return (
        b"\x88"
        + literal(33, b"Sun, 22 Nov 2026 07:%02d:%02d GMT" % (number // 60 % 60, number % 60))
        + literal(31, b"application/json")
        + literal(28, b"%d" % length)
        + remembered(b"cf-ray", b"8a%06x-AMS" % number)
        + block(("x-request-id", f"{number:032x}"), ("strict-transport-security", "max-age=1"))
        + indexed(24)
        + literal(b"alt-svc", b'h3=":443"')
    )


def changed(chance: random.Random, raw: bytes) -> bytes:
    """Change a head by chance, and mostly where a length stands."""
    at = chance.randrange(len(raw))
    match chance.randrange(6):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]
        case 2:
            return raw[:at] + raw[at + 1 :]
        case 3:
            return raw[:at] + bytes([chance.randrange(256)]) + raw[at:]
        case 4:
            small = [index for index, byte in enumerate(raw) if byte < 0x30]  # lengths, for the most part
            at = chance.choice(small)
            return raw[:at] + bytes([raw[at] + chance.choice([-1, 1, 2, 40]) & 0xFF]) + raw[at + 1 :]
        case _:
            return raw + chance.choice([b"\x80", b"\x00", b"\x00\x01A\x01b", b"\x88", b"\x0f\x0d\x0211", b"\x20"])


def saying(raw: bytes, *, before: int) -> Script:
    """Answer so many requests well, and the next one with this head."""

    async def script(peer: H2Peer) -> None:
        for count in range(1, before + 1):
            asked = (await peer.requests(count))[-1]
            peer.send(headers(asked.stream, typical(count)), data(asked.stream, BODY, end=True))
        asked = (await peer.requests(before + 1))[-1]
        peer.session.strict = False
        peer.raw(headers(asked.stream, raw) + data(asked.stream, BODY, end=True))
        await peer.left()

    return script


async def end_of(open_transport: TransportMaker, raw: bytes, *, before: int) -> tuple[object, ...]:
    """Say what a head comes to, after so many others."""
    async with h2_serving(first(saying(raw, before=before))) as server:
        transport = open_transport(server.url, max_connections=1)
        for number in range(before):
            assert isinstance(await ask(transport, number), Reply)
        got = await ask(transport, before)
        peer = server.peers[0]
        resets = [came.code for came in peer.session.frames if came.kind == Kind.RST_STREAM]
        code = peer.code
        await transport.aclose()
    if isinstance(got, Reply):
        return (got.status, got.body, sorted(_read(got)))
    assert isinstance(got, LOST)
    return ("lost", resets, code)


def _read(got: Reply) -> list[tuple[str, str]]:
    return [(name, got.headers[name]) for name in got.headers]


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_head_means_the_same_after_others_like_it(open_transport: TransportMaker, seed: int) -> None:
    chance = random.Random(seed)
    kinds = set()
    for _ in range(ROUNDS):
        raw = changed(chance, typical(WARM + 1))
        if refers_to_table(raw):
            continue  # what a server has added to a table that we do not want is there only where it has done so
        at_first = await end_of(open_transport, raw, before=0)
        assert await end_of(open_transport, raw, before=WARM) == at_first, raw
        kinds.add(at_first[0])
    assert {"lost", 200} <= kinds


async def test_a_head_that_is_cut_anywhere_means_the_same_after_others_like_it(
    open_transport: TransportMaker,
) -> None:
    raw = typical(9)
    for at in range(len(raw) - 45, len(raw)):  # the last fields: what was compared before is the same for all
        assert await end_of(open_transport, raw[:at], before=WARM) == await end_of(open_transport, raw[:at], before=0)


def short(number: int) -> bytes:
    return head(200, ("x", str(number)))


def named(number: int) -> bytes:
    return head(200 + number % 3, ("x" * (number % 7 + 1), "y"))


async def test_heads_of_many_shapes_take_turns(open_transport: TransportMaker) -> None:
    shapes: list[Callable[[int], bytes]] = [
        typical,
        lambda n: head(200, ("x", str(n))),
        lambda n: head(200 + n % 3, ("x" * (n % 7 + 1), "y")),
    ]

    async def script(peer: H2Peer) -> None:
        for count in range(1, 200):
            asked = (await peer.requests(count))[-1]
            shape = shapes[count % 7 % 3]
            body = BODY if shape is typical else b"%d" % count
            peer.send(headers(asked.stream, shape(count)), data(asked.stream, body, end=True))
        await answering(peer)

    async with h2_serving(script) as server:
        transport: Transport = open_transport(server.url)
        for count in range(1, 200):
            got = await ask(transport, count)
            assert isinstance(got, Reply)
            if count % 7 % 3 == 0:
                assert got.headers["x-request-id"] == f"{count:032x}"
                assert got.headers["cf-ray"] == f"8a{count:06x}-AMS"
            else:
                assert got.body == b"%d" % count
                assert got.status == (200 if count % 7 % 3 == 1 else 200 + count % 3)
        assert await answered(transport, 500)
