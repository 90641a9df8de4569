"""Pools that share one bound on connections: never more in all, each has what the others leave, nobody starves."""

import asyncio
from random import Random

import msgspec
import pytest

from sendengine.errors import NotSentError
from sendengine.ports import Transport
from sendengine.settings import AppSettings, TransportSettings
from sendengine.transport import transport_opener
from sendengine.transport.direct.bound import AGAIN_S, ConnectionBound
from tests.transport.conftest import on_asyncio
from tests.transport.h2_frames import Setting
from tests.transport.h2_serving import H2Peer, h2_serving
from tests.transport.h2_serving import answering as answering_h2
from tests.transport.pool_host import Host, opened
from tests.transport.scripted import POST, answering, at_once, jump, serving, turns, until

pytestmark = on_asyncio


def hosts(*, total: int = 4, count: int = 2) -> list[Host]:
    bound = ConnectionBound(total)
    return [Host(bound=bound) for _ in range(count)]


async def answer_all(*several: Host) -> None:
    while any(host.dials for host in several):
        for host in several:
            for dial in host.dials:
                if not dial.done():
                    dial.set_result(True)
        await turns()


async def pass_time() -> None:
    jump(AGAIN_S)
    await asyncio.sleep(0.0001)  # the loop's timers
    await turns()


async def test_one_pool_may_have_all_and_gives_up_what_is_idle() -> None:
    one, other = hosts()
    held = await opened(one, 4)
    waiting = [asyncio.create_task(other.pool.obtain()) for _ in range(2)]
    await turns()
    assert (len(one.pool), len(other.dials)) == (4, 0), "all are in use"
    for connection in held[:3]:
        connection.give_back()
    await pass_time()
    await answer_all(one, other)
    await asyncio.gather(*waiting)
    assert (len(one.pool), len(other.pool)) == (2, 2), "as many as were needed, and no more"
    assert [connection.is_gone for connection in held] == [True, True, False, False], "the oldest of those idle"


async def test_what_is_idle_is_given_up_at_once() -> None:
    one, other = hosts()
    for connection in await opened(one, 4):
        connection.give_back()
    waiting = asyncio.create_task(other.pool.obtain())
    await turns()
    await answer_all(other)
    await waiting
    assert (len(one.pool), len(other.pool)) == (3, 1)


async def test_those_being_opened_count_and_one_that_fails_leaves_its_place() -> None:
    one, other = hosts()
    first = [asyncio.create_task(one.pool.obtain()) for _ in range(4)]
    await turns()
    second = asyncio.create_task(other.pool.obtain())
    await turns()
    assert (len(one.dials), len(other.dials)) == (4, 0)
    one.answer(with_=False)
    await turns()
    assert len(other.dials) == 1
    with pytest.raises(NotSentError):
        await first[0]
    await answer_all(one, other)
    await second
    assert len(one.pool) + len(other.pool) == 4


async def test_one_who_gives_a_dial_up_leaves_its_place() -> None:
    one, other = hosts()
    first = [asyncio.create_task(one.pool.obtain()) for _ in range(4)]
    await turns()
    second = asyncio.create_task(other.pool.obtain())
    await turns()
    first[0].cancel()
    await turns()
    assert (len(one.dials), len(other.dials)) == (3, 1)
    await answer_all(one, other)
    await second


async def test_a_pool_that_is_closed_leaves_its_places() -> None:
    one, other = hosts()
    await opened(one, 4)
    waiting = asyncio.create_task(other.pool.obtain())
    await turns()
    await one.pool.aclose()
    await one.pool.aclose()
    await turns()
    await answer_all(other)
    await waiting
    assert (len(one.pool), len(other.pool)) == (0, 1)


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_waits_is_served_and_there_are_never_too_many(seed: int) -> None:
    chance = Random(seed)
    total = chance.randint(1, 6)
    several = hosts(total=total, count=3)
    held: list[asyncio.Task[object]] = []

    async def use(host: Host) -> None:
        connection = await host.pool.obtain()
        for _ in range(chance.randrange(10)):
            await asyncio.sleep(0)
        connection.give_back()

    for _ in range(60):
        held += [asyncio.create_task(use(chance.choice(several))) for _ in range(chance.randrange(6))]
        await asyncio.sleep(0)
        assert sum(len(host.pool) + len(host.dials) for host in several) <= total
        for host in several:
            if host.dials and chance.random() < 0.7 and not host.dials[0].done():
                host.answer()
        if chance.random() < 0.3:
            jump(AGAIN_S)
            await asyncio.sleep(0.0001)
    while not all(task.done() for task in held):
        await answer_all(*several)
        await pass_time()
        assert sum(len(host.pool) + len(host.dials) for host in several) <= total
    await asyncio.gather(*held)


def two_apps(url: str, **settings: object) -> list[Transport]:
    make = transport_opener(msgspec.convert({"max_connections": 3, **settings}, TransportSettings))
    ids = [f"8250eaf6-1a58-489e-b136-7c74a864b43{number}" for number in range(2)]
    return [make(AppSettings(app_id=one, api_key="k", base_url=url), "k") for one in ids]


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_an_app_that_has_them_all_leaves_them_to_another_when_it_is_idle(protocol: str) -> None:
    async with h2_serving() if protocol == "h2" else serving(answering()) as server:
        one, other = two_apps(server.url, protocol=protocol)
        await one.warm(300 if protocol == "h2" else 3)
        assert one.open_connections == 3
        for first, second in ((other, one), (one, other)):
            replies = await asyncio.gather(*[first.exchange(POST, at_once) for _ in range(10)])
            assert {reply.status for reply in replies} == {200}
            assert first.open_connections + second.open_connections <= 3
        for transport in (one, other):
            await transport.aclose()


async def test_a_connection_in_use_is_left_by_its_last_reply() -> None:
    go = asyncio.Event()

    async def script(peer: H2Peer) -> None:
        asked = await peer.requests(1)
        await go.wait()
        peer.reply(asked[0])
        await answering_h2(peer)

    async with h2_serving(script, first_settings={Setting.MAX_CONCURRENT_STREAMS: 2}) as server:
        one, other = two_apps(server.url, protocol="h2")
        await one.warm(6)
        busy = [asyncio.create_task(one.exchange(POST, at_once)) for _ in range(3)]
        await until(lambda: len(server.whole) == 3)
        asking = asyncio.create_task(other.exchange(POST, at_once))
        await turns()
        assert (one.open_connections, other.open_connections, one.capacity) == (3, 0, 4)
        go.set()
        assert {reply.status for reply in await asyncio.gather(*busy, asking)} == {200}
        assert (one.open_connections, other.open_connections) == (2, 1)
        for transport in (one, other):
            await transport.aclose()
