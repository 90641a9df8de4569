"""What the pool does where connections come to nothing as soon as they are there."""

import asyncio

from sendengine.errors import NotSentError
from sendengine.transport.direct.pacing import SCOUTS
from sendengine.transport.warming import AT_ONCE
from tests.transport.conftest import on_asyncio
from tests.transport.pool_host import FakeConnection, Host, opened
from tests.transport.scripted import jump, turns


@on_asyncio
async def test_where_others_are_dismissed_what_works_is_used_and_few_are_dialed() -> None:
    host = Host(max_connections=500)
    (working,) = await opened(host, 1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(200)]
    await turns()
    while host.dials:
        host.answer()
        await turns()
        host.opened[-1].dismiss()
        await turns()
    tried = len(host.opened) - 1
    assert AT_ONCE <= tried <= AT_ONCE + 1, "what was under way before the first of them was seen, and no more"
    done = sum(task.done() for task in waiting)
    assert done == tried
    for _ in range(5):
        working.give_back()
        await turns()
    assert sum(task.done() for task in waiting) == done + 5
    jump(1.1)
    await asyncio.sleep(0.001)
    await turns()
    assert len(host.dials) == SCOUTS
    await host.pool.aclose()
    await asyncio.gather(*waiting, return_exceptions=True)


@on_asyncio
async def test_where_nothing_works_those_who_wait_are_told_of_the_second_that_is_dismissed() -> None:
    host = Host()
    for number in range(2):
        first, *others = [asyncio.create_task(host.pool.obtain()) for _ in range(3)]
        await turns()
        while host.dials:
            host.answer()
            await turns()
            host.opened[-1].dismiss()
            await turns()
            if number == 0:
                break
        if number == 0:
            for task in (first, *others):
                task.cancel()
            await asyncio.gather(first, *others, return_exceptions=True)
    ends = await asyncio.gather(first, *others, return_exceptions=True)
    assert {type(end) for end in ends} <= {FakeConnection, NotSentError}
    late = asyncio.create_task(host.pool.obtain())
    await turns()
    assert (late.done(), host.dials) == (False, []), "there is a pause"
    jump(1.1)
    await asyncio.sleep(0.001)
    await turns()
    host.answer()
    assert await late is host.opened[-1]


@on_asyncio
async def test_dials_that_fail_while_another_connection_works_are_made_every_two_seconds() -> None:
    host = Host()
    (working,) = await opened(host, 1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(40)]
    tries = []
    for _ in range(5):
        await turns()
        tries.append(len(host.dials))
        while host.dials:
            host.answer(with_=False)
            await turns()
        jump(2.1)
        await asyncio.sleep(0.001)
    assert tries[1:] == [SCOUTS] * 4
    assert sum(task.done() for task in waiting) == sum(tries), "each is told to one"
    working.give_back()
    await host.pool.aclose()
    await asyncio.gather(*waiting, return_exceptions=True)
