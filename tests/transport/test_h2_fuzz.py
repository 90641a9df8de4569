"""HTTP/2 changed by chance: every exchange ends, nothing is left over, and no reply is taken for another's.

Each reply is an echo: it names the request that it answers, with a checksum, so that what chance made of it is not
mistaken for an echo of another request. Chance may change all that is said to one request, but it may not make it an
answer to another one that is under way, since whoever names another stream answers that.

``H2_FUZZ_ROUNDS`` (of four exchanges) and ``H2_FUZZ_EXAMPLES`` make it longer.
"""

import asyncio
import os
import random
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as at_most
from hypothesis import strategies as st

from sendengine.ports import Reply, Transport
from sendengine.settings import TransportSettings
from sendengine.transport import DirectTransport
from tests.transport.conftest import KEY, TransportMaker, h2_only, on_asyncio
from tests.transport.h2_asking import LOST, NOT_SENT, End, asking
from tests.transport.h2_frames import (
    Code,
    Kind,
    Setting,
    block,
    data,
    frame,
    goaway,
    head,
    headers,
    parsed,
    ping,
    rst_stream,
    settings,
    table_size,
    window_update,
)
from tests.transport.h2_serving import H2Peer, Script, h2_serving
from tests.transport.h2_session import Asked
from tests.transport.scripted import JumpLoop, at_once, jump, outcome, turns

WANTED: Final = int(os.environ.get("H2_FUZZ_ROUNDS", "120"))
ROUNDS: Final = min(WANTED, 1_000)  # of one seed: more of them make it longer
EXAMPLES: Final = int(os.environ.get("H2_FUZZ_EXAMPLES", "60"))
SEEDS: Final = range(max(3, WANTED // ROUNDS))
AT_ONCE: Final = 4
STREAMS: Final = 2  # so that they need two connections


def echo(number: int) -> bytes:
    return b'{"echo":"%d","sum":%d}' % (number, zlib.crc32(b"%d" % number))


# What is said


def plain(chance: random.Random, stream: int, body: bytes) -> list[bytes]:
    status = chance.choice([200, 202, 400, 429, 503])
    return [headers(stream, head(status, ("content-length", str(len(body))))), data(stream, body, end=True)]


def in_pieces(chance: random.Random, stream: int, body: bytes) -> list[bytes]:
    cuts = [0, *sorted(chance.sample(range(1, len(body)), 3)), len(body)]
    pieces = [data(stream, body[start:end], padding=chance.choice([None, 0, 9])) for start, end in pairwise(cuts)]
    return [headers(stream, head(200), pieces=chance.randint(1, 4)), *pieces, data(stream, end=True)]


def with_trailers(chance: random.Random, stream: int, body: bytes) -> list[bytes]:
    hints = [headers(stream, head(103, ("link", "</x>")))] * chance.randint(0, 3)
    end = headers(stream, block(("x-sum", "1")), end=True, padding=chance.choice([None, 3]))
    return [*hints, headers(stream, table_size(0) + b"\x88", priority=(0, 9)), data(stream, body), end]


def wordy(chance: random.Random, stream: int, body: bytes) -> list[bytes]:
    between = [
        ping(), settings({Setting.MAX_CONCURRENT_STREAMS: STREAMS}), window_update(0, 9), frame(0xBE, stream, b"x"),
        frame(Kind.PRIORITY, stream, bytes(5)), settings({Setting.INITIAL_WINDOW_SIZE: chance.choice([0, 9, 70_000])}),
        settings({Setting.INITIAL_WINDOW_SIZE: 65_535}),
    ]  # fmt: skip
    said = plain(chance, stream, body)
    return [*chance.sample(between, 3), said[0], *chance.sample(between, 2), said[1]]


SHAPES: Final = (plain, plain, in_pieces, with_trailers, wordy)
SPLICES: Final = (
    ping(), settings(), settings([(4, 2**31)]), settings([(5, 1)]), settings([(3, 0)]), frame(Kind.SETTINGS, flags=1),
    goaway(0), goaway(1), goaway(2**31 - 1), goaway(3, Code.INTERNAL_ERROR), window_update(0, 0),
    window_update(0, 2**31 - 1), data(0, b"x"), headers(0, head(200)), rst_stream(0), rst_stream(2),
    frame(Kind.CONTINUATION, 1), frame(Kind.PUSH_PROMISE, 1, bytes(5)), frame(0xFF, 0, b"?"), b"\0", b"\xff" * 9,
    headers(2, b"\x88"), bytes(9), b"HTTP/1.1 200 OK\r\n\r\n", frame(Kind.DATA, 4001, length=2**24 - 1),
    headers(4001, head(200), end=True),
)  # fmt: skip


# What chance does to it


def unchanged(_: random.Random, said: list[bytes]) -> list[bytes]:
    return said


def bits_flipped(chance: random.Random, said: list[bytes]) -> list[bytes]:
    raw = bytearray(b"".join(said))
    for _ in range(chance.randint(1, 3)):
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return [bytes(raw)]


def heads_changed(chance: random.Random, said: list[bytes]) -> list[bytes]:
    """Change a frame's length, kind or flags."""
    at = chance.randrange(len(said))
    changed = bytearray(said[at])
    where = chance.choice([2, 3, 3, 4, 4])
    changed[where] = chance.choice([0, 1, 4, 5, 8, 9, 0x20, 0x2D, 0xFF, changed[where] ^ 1])
    return [*said[:at], bytes(changed), *said[at + 1 :]]


def truncated(chance: random.Random, said: list[bytes]) -> list[bytes]:
    raw = b"".join(said)
    return [raw[: chance.randrange(len(raw))]]


def frame_lost(chance: random.Random, said: list[bytes]) -> list[bytes]:
    at = chance.randrange(len(said))
    return [*said[:at], *said[at + 1 :]]


def frame_doubled(chance: random.Random, said: list[bytes]) -> list[bytes]:
    at = chance.randrange(len(said))
    return [*said[: at + 1], *said[at:]]


def frames_shuffled(chance: random.Random, said: list[bytes]) -> list[bytes]:
    return chance.sample(said, len(said))


def frame_spliced(chance: random.Random, said: list[bytes]) -> list[bytes]:
    at = chance.randint(0, len(said))
    return [*said[:at], chance.choice(SPLICES), *said[at:]]


def bytes_spliced(chance: random.Random, said: list[bytes]) -> list[bytes]:
    raw = b"".join(said)
    at = chance.randrange(len(raw))
    return [raw[:at], chance.choice(SPLICES), raw[at + chance.choice([0, 1, 9]) :]]


CHANGES: Final[tuple[Callable[[random.Random, list[bytes]], list[bytes]], ...]] = (
    unchanged,
    unchanged,
    unchanged,
    bits_flipped,
    heads_changed,
    truncated,
    frame_lost,
    frame_doubled,
    frames_shuffled,
    frame_spliced,
    bytes_spliced,
)
ENDINGS: Final = ("keep",) * 8 + ("close", "half close", "reset", "goaway", "refuse", "silent")


class Chances:
    """A server that answers every request with its echo, as chance has changed it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.speaking = 0

    async def script(self, peer: H2Peer) -> None:
        peer.session.strict = False  # what a client says to nonsense may be nonsense
        for count in range(1, 1_000_000):
            asked = (await peer.requests(count))[-1]
            self.speaking += 1
            try:
                await self.answer(peer, asked)
            finally:
                self.speaking -= 1

    async def answer(self, peer: H2Peer, asked: Asked) -> None:
        chance = self.chance
        others = {one.stream for one in peer.session.asked.values() if one.is_open} - {asked.stream}
        raw = self.said(asked)
        while others & {came.stream for came in parsed(raw)[0] if came.kind in {Kind.DATA, Kind.HEADERS}}:
            raw = self.said(asked)
        size = chance.choice([1_000_000, 1_000_000, 40, 7])
        for at in range(0, len(raw), size):
            peer.raw(raw[at : at + size])
            await turns()
        asked.is_answered = True
        match chance.choice(ENDINGS):
            case "close":
                peer.close()
            case "half close":
                peer.half_close()
            case "reset":
                peer.reset()
            case "goaway":
                peer.raw(goaway(asked.stream, chance.choice([0, 2])))
            case "refuse":
                peer.raw(rst_stream(asked.stream + 2, Code.REFUSED_STREAM))

    def said(self, asked: Asked) -> bytes:
        chance = self.chance
        shape = chance.choice(SHAPES)(chance, asked.stream, echo(int(asked.body or b"0")))
        return b"".join(chance.choice(CHANGES)(chance, shape))


async def ends(transport: Transport, numbers: range) -> list[End]:
    """Make exchanges at once, and put the time forward until they are over."""
    tasks = [asyncio.create_task(outcome(transport.exchange(asking(number), at_once))) for number in numbers]
    for _ in range(100):
        for _ in range(20):
            await turns()
            if all(task.done() for task in tasks):
                return [task.result() for task in tasks]
        jump(61)
    raise AssertionError(f"exchanges that do not end: {tasks}")


@h2_only
@on_asyncio
@pytest.mark.parametrize("seed", SEEDS)
async def test_no_reply_whatever_its_frames_hangs_or_is_taken_for_another_s(
    open_transport: TransportMaker, seed: int
) -> None:
    chances = Chances(seed)
    replies = lost = echoes = 0
    async with h2_serving(chances.script, first_settings={Setting.MAX_CONCURRENT_STREAMS: STREAMS}) as server:
        transport = open_transport(server.url, max_connections=AT_ONCE, max_reply_bytes=5_000)
        for number in range(0, ROUNDS * AT_ONCE, AT_ONCE):
            numbers = range(number, number + AT_ONCE)
            for asked, end in zip(numbers, await ends(transport, numbers), strict=True):
                if isinstance(end, Reply):
                    others = [other for other in numbers if other != asked and end.body == echo(other)]
                    assert not others, f"request {asked} of seed {seed} got the reply of {others}"
                    assert len(end.body) <= 5_000
                    assert all(isinstance(value, str) for value in dict(end.headers).values())
                    echoes += end.body == echo(asked)
                    replies += 1
                else:
                    assert isinstance(end, LOST | NOT_SENT)
                    lost += 1
            while chances.speaking:
                await turns()
            assert transport.open_connections <= AT_ONCE
        await transport.aclose()
        await server.all_gone()
    assert min(replies, lost) > ROUNDS / 2, "chance has made some of each"
    assert echoes > ROUNDS / 2, "and left enough as they are"


# Frames made of nothing but chance

_STREAM: Final = st.sampled_from([0, 1, 1, 3, 3, 5, 5, 2, 7, 4001])
_BLOCK: Final = st.sampled_from([b"\x88", head(200), head(103), head("20"), b"\x80", b"", head(200, ("X", "y"))])
_PAYLOAD: Final = st.one_of(
    _BLOCK, st.binary(max_size=20), st.sampled_from([bytes(4), bytes(5), bytes(8), b"\0\0\0\1"])
)
_FLAGS: Final = st.sampled_from([0, 1, 4, 5, 8, 0xD, 0x20, 0x2D, 0xFF])


def _of_stream(stream: int, end: bool, count: int) -> bytes:
    return data(stream, b"<%d>" % stream * count, end=end)


def _head_of(stream: int, raw: bytes, end: bool) -> bytes:
    return headers(stream, raw, end=end)


_FRAMES: Final = st.one_of(
    st.builds(_of_stream, st.sampled_from([1, 3, 5]), st.booleans(), st.integers(0, 3)),
    st.builds(
        lambda stream, raw, end: headers(stream, raw, end=end), st.sampled_from([1, 3, 5]), _BLOCK, st.booleans()
    ),
    st.builds(
        lambda kind, stream, payload, flags: frame(kind, stream, payload, flags=flags),
        st.sampled_from([kind for kind in Kind if kind != Kind.DATA]),
        _STREAM,
        _PAYLOAD,
        _FLAGS,
    ),
    st.builds(rst_stream, st.sampled_from([1, 3, 5]), st.integers(0, 15)),
    st.builds(goaway, st.sampled_from([0, 1, 3, 5, 99]), st.sampled_from([0, 0, 2, 7])),
)


@at_most(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_FRAMES, max_size=12), st.integers(1, 60))
def test_any_frames_in_any_order_let_every_exchange_end_with_its_own(frames: list[bytes], size: int) -> None:
    raw = b"".join(frames)

    async def script(peer: H2Peer) -> None:
        peer.session.strict = False
        await peer.requests(3)
        for at in range(0, len(raw), size):
            peer.raw(raw[at : at + size])
            await asyncio.sleep(0)
        await turns()

    with asyncio.Runner(loop_factory=JumpLoop) as runner:
        runner.run(_play(script))


async def _play(script: Script) -> None:
    async with h2_serving(script) as server:
        transport = DirectTransport(
            base_url=server.url, api_key=KEY, settings=TransportSettings(protocol="h2"), max_connections=1
        )
        try:
            for stream, end in zip((1, 3, 5), await ends(transport, range(3)), strict=True):
                if isinstance(end, Reply):
                    assert end.body.replace(b"<%d>" % stream, b"") == b"", f"stream {stream} got {end.body!r}"
                else:
                    assert isinstance(end, LOST | NOT_SENT)
        finally:
            await transport.aclose()
        assert transport.open_connections == 0
        await server.all_gone()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in left if "sendengine" in repr(task.get_coro())]
