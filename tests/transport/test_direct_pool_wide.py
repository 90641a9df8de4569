"""Connections that carry many exchanges: how many are opened, when, and over which a request goes."""

import asyncio

import pytest

from sendengine.errors import NotSentError
from sendengine.ports import Reply, WireRequest
from sendengine.transport.direct.contract import Connection
from sendengine.transport.direct.pacing import SCOUTS
from sendengine.transport.direct.pool import Pool
from tests.transport.conftest import on_asyncio
from tests.transport.scripted import jump, turns


class WideConnection:
    """Keeps what `Connection` promises, for ``room`` exchanges at a time, without a socket."""

    def __init__(self, host: "WideHost", number: int, room: int) -> None:
        self.host = host
        self.number = number
        self.room = room
        self.claimed = 0
        self.is_gone = False

    @property
    def has_room(self) -> bool:
        return self.claimed < self.room

    def enter(self) -> None:
        if self.has_room:
            self.host.pool.offer(self)

    def claim(self) -> int:
        if not self.has_room:
            return 0
        self.claimed += 1
        self.host.pool.busy += 1
        return self.room - self.claimed + 1

    def give_back(self) -> None:
        was_full = not self.has_room
        self.claimed -= 1
        self.host.pool.busy -= 1
        if was_full and self.has_room:
            self.host.pool.offer(self)

    def send(self, request: WireRequest) -> asyncio.Future[Reply]:
        raise NotImplementedError

    def abandon(self, reply: asyncio.Future[Reply]) -> None:
        raise NotImplementedError

    def retire(self) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        self.resize(0)
        self.is_gone = True
        self.host.pool.withdraw(self)
        asyncio.get_running_loop().call_soon(self.host.pool.lost, self)

    def resize(self, room: int) -> None:
        self.room = room
        self.host.pool.resized(self)
        if self.has_room:
            self.host.pool.offer(self)
        else:
            self.host.pool.withdraw(self)


class WideHost:
    """Is dialed, and answers at once or when it is told to."""

    def __init__(self, *, room: int = 100, width: int | None = None, max_connections: int = 50) -> None:
        self.pool = Pool(self.dial, max_connections=max_connections, width=width)
        self.room = room
        self.is_up = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.dials = 0
        self.most_dials = 0
        self.tries = 0
        self.opened: list[WideConnection] = []

    async def dial(self) -> Connection:
        self.tries += 1
        self.dials += 1
        self.most_dials = max(self.most_dials, self.dials)
        try:
            await self.answers.wait()
        finally:
            self.dials -= 1
        if not self.is_up:
            raise NotSentError("no connection: nobody there")
        self.opened.append(WideConnection(self, len(self.opened), self.room))
        return self.opened[-1]


async def claimed(host: WideHost, count: int) -> list[Connection]:
    """Claim room for so many exchanges that come at once."""
    found = await asyncio.gather(*(host.pool.obtain() for _ in range(count)))
    await turns()
    return list(found)


@on_asyncio
async def test_only_a_few_are_opened_while_nobody_knows_what_one_carries() -> None:
    host = WideHost()
    host.answers.clear()
    waiting = asyncio.gather(*(host.pool.obtain() for _ in range(700)))
    await turns()
    assert host.dials == SCOUTS
    host.answers.set()
    assert len(await waiting) == 700
    await turns()
    assert len(host.opened) == 8, "700 of 800, and a quarter of one and 2 % are free"
    assert host.pool.capacity == 800


@on_asyncio
async def test_where_one_carries_one_as_many_are_opened_as_are_waited_for() -> None:
    host = WideHost(room=1)
    await claimed(host, 30)
    assert len(host.opened) == 30


@on_asyncio
async def test_what_is_known_to_carry_many_is_opened_as_needed_from_the_beginning() -> None:
    host = WideHost(width=100)
    host.answers.clear()
    waiting = asyncio.gather(*(host.pool.obtain() for _ in range(250)))
    await turns()
    assert host.dials == 3
    host.answers.set()
    await waiting


@on_asyncio
async def test_another_is_opened_before_all_room_is_used() -> None:
    host = WideHost(width=100)
    for count, opened in [(1, 1), (72, 1), (1, 2), (97, 2), (1, 3), (98, 4)]:
        await claimed(host, count)
        assert len(host.opened) == opened, f"with {host.pool.busy} under way"


@on_asyncio
async def test_with_many_connections_a_fiftieth_is_enough_to_spare() -> None:
    host = WideHost(width=100, max_connections=1000)
    await claimed(host, 14_000)
    assert len(host.opened) == 144


@on_asyncio
async def test_what_one_turn_of_the_loop_sends_goes_over_one_connection_and_the_next_turn_s_over_another() -> None:
    host = WideHost()
    for connection in await claimed(host, 150):
        connection.give_back()
    pool = host.pool
    found = []
    for _ in range(4):
        for _ in range(3):
            taken = pool.take()
            assert isinstance(taken, WideConnection)
            found.append(taken.number)
        pool.rotate(host.opened[found[-1]])
    assert len(host.opened) >= 2
    assert [len({*found[at : at + 3]}) for at in (0, 3, 6, 9)] == [1] * 4
    assert len({*found}) == min(4, len(host.opened))


@on_asyncio
async def test_room_that_comes_free_goes_to_those_who_wait_in_their_order_and_nobody_overtakes() -> None:
    host = WideHost(room=2, max_connections=1)
    (one, two) = await claimed(host, 2)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(3)]
    await turns()
    one.give_back()
    assert host.pool.take() is None
    await turns()
    assert [task.done() for task in waiting] == [True, False, False]
    waiting[1].cancel()
    two.give_back()
    await turns()
    assert waiting[2].done()
    assert host.opened[0].claimed == 2
    assert host.pool.busy == 2


@on_asyncio
async def test_a_raised_limit_is_used_at_once_and_a_lowered_one_is_kept() -> None:
    host = WideHost(room=2, max_connections=1)
    held = await claimed(host, 2)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(5)]
    await turns()
    host.opened[0].resize(4)
    await turns()
    assert sum(task.done() for task in waiting) == 2
    host.opened[0].resize(1)
    for connection in held:
        connection.give_back()
    await turns()
    assert sum(task.done() for task in waiting) == 2, "4 claimed before, 2 by now"
    assert host.pool.capacity == 1
    for task in [task for task in waiting if task.done()]:
        task.result().give_back()
    await turns()
    assert sum(task.done() for task in waiting) == 3
    await host.pool.aclose()
    await asyncio.gather(*waiting, return_exceptions=True)


async def pass_time(seconds: float) -> None:
    jump(seconds)
    await asyncio.sleep(0.001)
    await turns()


@on_asyncio
async def test_after_one_that_takes_nothing_others_are_opened_every_two_seconds() -> None:
    host = WideHost(room=0)
    waiting = asyncio.create_task(host.pool.obtain())
    await turns()
    tries = []
    for _ in range(15):
        await host.pool.warm(10)
        tries.append(host.tries)
        await pass_time(1.01)
    assert tries == [1, *(tries for tries in range(2, 9) for _ in range(2))], "a pause of 1 s, then 2"
    host.opened[0].resize(5)
    assert await waiting is host.opened[0]
    await host.pool.aclose()


@on_asyncio
async def test_one_that_takes_nothing_by_now_holds_up_no_other() -> None:
    host = WideHost(room=10)
    await claimed(host, 5)
    host.opened[0].resize(0)
    assert host.opened[0] not in await claimed(host, 3)


@on_asyncio
async def test_those_who_wait_are_told_of_one_that_takes_nothing_after_all_and_the_next_has_another_opened() -> None:
    host = WideHost(room=0, max_connections=1)
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(3)]
    await turns()
    host.opened[0].resize(0)
    host.pool.refuse("no room at all")
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(end) for end in ends] == ["no room at all"] * 3
    host.opened[0].cut()
    await turns()
    assert host.tries == 1, "nobody waits"
    host.room = 1
    assert await host.pool.obtain() is host.opened[1]


@on_asyncio
async def test_where_others_may_come_free_nobody_is_told_of_one_that_takes_nothing() -> None:
    host = WideHost(room=1, max_connections=2)
    (held,) = await claimed(host, 1)
    host.room = 0
    waiting = [asyncio.create_task(host.pool.obtain()) for _ in range(2)]
    await turns()
    host.pool.refuse("no room at all")
    for _ in range(2):
        held.give_back()
        await turns()
    assert [await task for task in waiting] == [held, held]


@on_asyncio
async def test_when_limits_are_cut_few_others_are_opened_at_a_time_and_more_as_they_come() -> None:
    host = WideHost(room=100, max_connections=1000)
    await claimed(host, 190)
    host.room = 1
    for opened in host.opened:
        opened.resize(1)
    host.answers.clear()
    before = len(host.opened)
    tasks = [asyncio.create_task(host.pool.obtain()) for _ in range(500)]
    tasks.append(asyncio.create_task(host.pool.warm(700)))  # type: ignore[arg-type]
    steps = []
    for _ in range(4):
        await turns()
        steps.append(host.dials)
        host.answers.set()
        await asyncio.sleep(0)
        host.answers.clear()
    assert steps[0] <= 2 * SCOUTS, "for those who wait, and for warming"
    assert sorted(steps) == steps
    host.answers.set()
    await asyncio.gather(*tasks)
    assert len(host.opened) >= before + 500


@on_asyncio
async def test_how_much_one_carries_is_the_most_that_an_open_one_does() -> None:
    host = WideHost(room=100)
    pool = host.pool
    await claimed(host, 190)
    first, second, *_ = host.opened
    for opened, room, width in [(first, 30, 100), (second, 70, 70), (second, 0, 30), (first, 60, 60)]:
        for other in host.opened[2:]:
            other.resize(0)
        opened.resize(room)
        assert pool.width == width
    for opened in host.opened:
        opened.cut()
    await turns()
    assert (len(pool), pool.width) == (0, 60), "what was known last"


@on_asyncio
async def test_where_servers_go_over_to_http1_an_old_one_over_http2_holds_up_nobody() -> None:
    """One that is open carries a hundred, and each that is opened by now one: a hundredth of them would be dialed."""
    host = WideHost(room=100, width=100, max_connections=1000)
    await claimed(host, 50)
    (old,) = host.opened
    host.room = 1
    host.answers.clear()
    tasks = [asyncio.create_task(host.pool.obtain()) for _ in range(350)]
    rounds = 0
    while not all(task.done() for task in tasks):
        await turns()
        host.answers.set()
        await asyncio.sleep(0)
        host.answers.clear()
        rounds += 1
    assert rounds <= 12, "as many are dialed as wait, few at first, and more as they come"
    assert (old.room, host.pool.width, host.pool.capacity) == (100, 100, 400)


@on_asyncio
async def test_a_first_connection_that_carries_less_than_was_assumed_is_no_cut() -> None:
    host = WideHost(room=1, width=100, max_connections=40)
    await claimed(host, 30)
    assert len(host.opened) == 30


@on_asyncio
async def test_a_dial_ahead_of_need_that_fails_is_not_repeated_at_once() -> None:
    host = WideHost(width=100)
    await claimed(host, 72)
    host.is_up = False
    await claimed(host, 20)
    assert host.tries == 2
    host.is_up = True
    jump(1.1)
    await claimed(host, 1)
    assert len(host.opened) == 2


@on_asyncio
async def test_nobody_waits_for_a_dial_ahead_of_need() -> None:
    host = WideHost(width=100)
    await claimed(host, 72)
    host.answers.clear()
    assert len(await claimed(host, 28)) == 28
    assert host.dials == 1
    await host.pool.aclose()
    assert (host.dials, len(host.pool)) == (0, 0)


@on_asyncio
async def test_warming_counts_exchanges() -> None:
    host = WideHost()
    await asyncio.gather(*(host.pool.warm(count) for count in range(1, 451)))
    assert (len(host.pool), host.pool.capacity) == (5, 500)
    await host.pool.warm(500)
    assert len(host.pool) == 5
    await host.pool.warm(10**6)
    assert len(host.pool) == 50, "and no more than there may be"


@on_asyncio
async def test_warming_does_not_count_connections_that_take_nothing_new() -> None:
    host = WideHost()
    for connection in await claimed(host, 190):
        connection.give_back()
    for opened in host.opened:
        opened.resize(0)
    await host.pool.warm(1)
    assert host.pool.capacity == 100


@on_asyncio
@pytest.mark.parametrize(("room", "opened"), [(0, 1), (1, 7)])
async def test_warming_ends_where_connections_have_little_or_no_room(room: int, opened: int) -> None:
    host = WideHost(room=room, max_connections=10)
    await host.pool.warm(7)
    assert (len(host.pool), host.pool.capacity) == (opened, 7 * room)


@on_asyncio
async def test_room_of_a_lost_connection_is_no_capacity_and_is_replaced_for_those_who_need_it() -> None:
    host = WideHost(width=100)
    await claimed(host, 190)
    before = len(host.opened)
    host.opened[0].cut()
    await turns()
    assert host.pool.capacity == 100 * (before - 1)
    await claimed(host, 30)
    assert len(host.pool) >= 3
