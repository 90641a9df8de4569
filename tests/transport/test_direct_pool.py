"""Who gets which connection, in which order, and when another one is opened."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.errors import NotSentError
from sendengine.transport.direct.contract import Connection
from sendengine.transport.warming import AT_ONCE
from tests.transport.conftest import on_asyncio
from tests.transport.pool_host import Host, numbers, opened
from tests.transport.scripted import turns


@on_asyncio
async def test_the_connection_that_came_free_last_is_taken_first() -> None:
    host = Host()
    connections = await opened(host, 3)
    assert host.pool.take() is None
    for index in (1, 0, 2):
        connections[index].give_back()
    assert numbers(host.pool.take(), host.pool.take(), host.pool.take()) == [2, 0, 1]
    assert host.pool.take() is None


@on_asyncio
async def test_one_that_is_not_to_be_used_any_more_is_passed_over() -> None:
    host = Host()
    connections = await opened(host, 3)
    for connection in connections:
        connection.give_back()
    host.opened[2].is_usable = False
    assert numbers(host.pool.take()) == [1]


@on_asyncio
async def test_whoever_waits_gets_what_comes_free_in_the_order_of_asking() -> None:
    host = Host(max_connections=2)
    connections = await opened(host, 2)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(3)]
    await turns()
    assert host.dials == [], "there is no room for more"
    waiting[1].cancel()
    connections[1].give_back()
    assert host.pool.take() is None, "nobody overtakes"
    connections[0].give_back()
    await turns()
    assert numbers(await waiting[0], await waiting[2]) == [1, 0]


@on_asyncio
async def test_what_comes_free_is_taken_before_what_is_being_opened() -> None:
    host = Host()
    (connection,) = await opened(host, 1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(2)]
    await turns()
    assert len(host.dials) == 2
    connection.give_back()
    assert numbers(await waiting[0]) == [0]
    host.answer()
    assert numbers(await waiting[1]) == [1]
    host.answer()
    await turns()
    assert numbers(host.pool.take()) == [2], "what was opened for the first is there for the next"


@on_asyncio
async def test_no_more_than_64_are_opened_at_the_same_time() -> None:
    host = Host(max_connections=500)
    await opened(host, 200)
    assert (len(host.opened), host.most_dials) == (200, AT_ONCE)


@on_asyncio
async def test_a_dial_that_fails_is_told_to_all_who_waited_when_it_began_where_nothing_is_open() -> None:
    host = Host(max_connections=500)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(300)]
    await turns()
    for _ in range(64):  # of which the n-th began when n waited
        host.answer(with_=False)
    await turns()
    assert [task.done() for task in waiting] == [True] * 64 + [False] * 236
    late = asyncio.create_task(host.pool.obtain())
    await turns()
    host.answer(with_=False)
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert {str(end) for end in ends} == {"no connection: nobody there"}
    assert len({id(end) for end in ends}) == 300, "to each its own"
    assert not late.done(), "it came after that dial began"
    host.answer()
    assert numbers(await late) == [0]
    await host.pool.aclose()


@on_asyncio
async def test_a_dial_that_fails_is_told_to_one_where_others_are_open() -> None:
    host = Host()
    (connection,) = await opened(host, 1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(3)]
    await turns()
    host.answer(with_=False)
    with pytest.raises(NotSentError):
        await waiting[0]
    assert not waiting[1].done()
    connection.give_back()
    assert numbers(await waiting[1]) == [0]
    host.answer()
    assert numbers(await waiting[2]) == [1]
    await host.pool.aclose()


@on_asyncio
async def test_a_dial_that_nobody_needs_any_more_is_given_up() -> None:
    host = Host()
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(3)]
    await turns()
    waiting[0].cancel()
    await turns()
    assert len(host.dials) == 2
    for task in waiting[1:]:
        task.cancel()
    await turns()
    assert (host.dials, host.opened) == ([], [])


@on_asyncio
async def test_a_connection_given_to_somebody_who_is_cancelled_in_that_moment_goes_to_the_next() -> None:
    host = Host(max_connections=1)
    (connection,) = await opened(host, 1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(2)]
    await turns()
    connection.give_back()
    waiting[0].cancel()
    assert numbers(await waiting[1]) == [0]
    assert waiting[0].cancelled()


@on_asyncio
async def test_a_connection_that_is_lost_on_its_way_is_replaced_and_its_taker_stays_first() -> None:
    host = Host(max_connections=1)
    (connection,) = await opened(host, 1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(2)]
    await turns()
    connection.give_back()
    host.opened[0].break_()
    await turns()
    host.answer()
    assert numbers(await waiting[0]) == [1]
    host.opened[1].give_back()
    assert numbers(await waiting[1]) == [1]


@on_asyncio
async def test_whoever_loses_three_on_their_way_gives_up() -> None:
    host = Host(max_connections=1)
    waiting = asyncio.create_task(host.pool.obtain())
    for count in (1, 2, 3):
        await turns()
        host.answer()
        while len(host.opened) < count:  # noqa: ASYNC110 - step by step, up to the moment in question
            await asyncio.sleep(0)
        host.opened[-1].break_()
    with pytest.raises(NotSentError):
        await waiting


@on_asyncio
async def test_room_that_a_lost_connection_leaves_is_used() -> None:
    host = Host(max_connections=1)
    await opened(host, 1)
    waiting = asyncio.create_task(host.pool.obtain())
    await turns()
    assert host.dials == []
    host.opened[0].break_()
    await turns()
    host.answer()
    assert numbers(await waiting) == [1]


@on_asyncio
async def test_room_that_failed_warming_leaves_is_used() -> None:
    host = Host(max_connections=1)
    warming = asyncio.create_task(host.pool.warm(1))
    await turns()
    waiting = asyncio.create_task(host.pool.obtain())
    await turns()
    assert len(host.dials) == 1
    host.answer(with_=False)
    await warming
    await turns()
    host.answer()
    assert numbers(await waiting) == [0]


@on_asyncio
async def test_what_was_warmed_is_taken_by_whoever_waits() -> None:
    host = Host(max_connections=3)
    warming = asyncio.create_task(host.pool.warm(2))
    await turns()
    waiting = asyncio.create_task(host.pool.obtain())
    await turns()
    host.answer()
    assert numbers(await waiting) == [0]
    host.answer()
    await warming
    assert len(host.pool) == 2
    await host.pool.aclose()


@on_asyncio
async def test_closing_ends_all_who_wait_all_dials_and_all_connections() -> None:
    host = Host(max_connections=3)
    await opened(host, 1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(5)]
    warming = asyncio.create_task(host.pool.warm(3))
    await turns()
    await asyncio.gather(host.pool.aclose(), host.pool.aclose())
    for task in waiting:
        with pytest.raises(NotSentError, match="closed"):
            await task
    await warming
    assert (host.dials, len(host.pool)) == ([], 0)
    with pytest.raises(NotSentError, match="closed"):
        await host.pool.obtain()
    await host.pool.warm(3)
    assert host.dials == []


@on_asyncio
async def test_what_is_opened_in_the_moment_of_closing_is_closed() -> None:
    host = Host(max_connections=3)
    warming = asyncio.create_task(host.pool.warm(1))
    await turns()
    host.answer()
    await host.pool.aclose()
    await warming
    assert all(not connection.is_usable for connection in host.opened)
    assert len(host.pool) == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["obtain", "cancel", "give back", "break", "open", "fail", "warm"]), st.integers(0, 20)),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS, st.integers(1, 4), st.booleans())
def test_nothing_is_lost_doubled_or_waited_for_in_vain(
    steps: list[tuple[str, int]], most: int, is_hurried: bool
) -> None:
    async def play() -> None:
        game = Game(most)
        for step, which in steps:
            game.play(step, which)
            if not is_hurried:
                await turns()
        await turns()
        pool, host = game.host.pool, game.host
        assert len(pool) + len(host.dials) <= most
        assert len(pool) == sum(connection.is_usable for connection in host.opened)
        waiting = [task for task in game.tasks if not task.done()]
        assert not waiting or len(pool) + len(host.dials) == most or len(host.dials) >= len(waiting)
        assert not waiting or pool.take() is None, "nobody waits beside an idle connection"
        await pool.aclose()
        await asyncio.gather(*game.tasks, *game.warmings, return_exceptions=True)
        assert (len(pool), host.dials) == (0, [])

    run(play)


class Game:
    """Exchanges that come and go, and a host that answers in any order."""

    def __init__(self, most: int) -> None:
        self.host = Host(max_connections=most)
        self.most = most
        self.tasks: list[asyncio.Task[Connection]] = []
        self.warmings: list[asyncio.Task[None]] = []

    def play(self, step: str, which: int) -> None:
        match step:
            case "obtain":
                self.tasks.append(asyncio.create_task(self.host.pool.obtain()))
            case "warm":
                self.warmings.append(asyncio.create_task(self.host.pool.warm(which % (self.most + 1))))
            case "cancel" if self.tasks:
                self.tasks[which % len(self.tasks)].cancel()
            case "give back" if held := [task for task in self.tasks if succeeded(task)]:
                task = held[which % len(held)]
                self.tasks.remove(task)
                task.result().give_back()
            case "break" if usable := [one for one in self.host.opened if one.is_usable]:
                usable[which % len(usable)].break_()
            case "open" | "fail" if dials := [dial for dial in self.host.dials if not dial.done()]:
                dials[which % len(dials)].set_result(step == "open")


def succeeded(task: asyncio.Task[Connection]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def run(play: Callable[[], object]) -> None:
    with asyncio.Runner() as runner:
        runner.run(play())  # type: ignore[arg-type]
