"""The parts of the aiohttp transport by themselves: slots, warming, descriptors, settings that cannot be used."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest
from aiohttp import TCPConnector
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.errors import NotSentError, ReplyLostError
from sendengine.settings import AppSettings, TransportSettings
from sendengine.transport import AiohttpTransport, bounded_connections, descriptors, open_transport
from sendengine.transport.attempts import Slots
from sendengine.transport.failures import failure
from sendengine.transport.warming import AT_ONCE, Warming
from tests.transport.conftest import on_asyncio
from tests.transport.scripted import POST, answering, at_once, serving, turns

# Slots


@on_asyncio
async def test_slots_are_handed_over_in_the_order_of_asking() -> None:
    slots = Slots(1)
    assert slots.try_take()
    assert not slots.try_take()
    order: list[int] = []

    async def take(number: int) -> None:
        await slots.take()
        order.append(number)

    takers = [asyncio.create_task(take(number)) for number in range(3)]
    await turns()
    takers[1].cancel()
    for _ in range(2):
        slots.give_back()
        assert not slots.try_take(), "nobody overtakes"
        await turns()
    assert order == [0, 2]
    slots.give_back()
    assert slots.try_take()


@on_asyncio
async def test_a_slot_given_to_somebody_who_is_cancelled_in_that_moment_goes_to_the_next() -> None:
    slots = Slots(1)
    assert slots.try_take()
    takers = [asyncio.create_task(slots.take()) for _ in range(2)]
    await turns()
    slots.give_back()
    takers[0].cancel()
    await turns()
    assert takers[0].cancelled()
    assert takers[1].done()
    assert not slots.try_take()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["take", "cancel", "give back"]), max_size=40), st.integers(1, 3))
def test_no_slot_is_lost_or_doubled(steps: list[str], count: int) -> None:
    async def play() -> None:
        slots = Slots(count)
        held = 0
        waiting: list[asyncio.Task[None]] = []
        for step in steps:
            if step == "take":
                if slots.try_take():
                    held += 1
                else:
                    waiting.append(asyncio.create_task(slots.take()))
                    await asyncio.sleep(0)
            elif step == "cancel" and waiting:
                waiting[len(waiting) // 2].cancel()  # perhaps in the very step in which it is given one
            elif step == "give back" and held:
                held -= 1
                slots.give_back()
            if len(steps) % 2:
                await turns()
        await turns()
        got = [task for task in waiting if task.done() and not task.cancelled()]
        held += len(got)
        still = [task for task in waiting if not task.done()]
        assert held <= count
        assert held == count or not still, "nobody waits for a slot that is free"
        for task in still:
            task.cancel()
        await turns()
        free = 0
        while slots.try_take():
            free += 1
        assert held + free == count

    asyncio.run(play())


# Warming


class Host:
    """Opens connections when it is told to."""

    def __init__(self, *, works: Callable[[int], bool] = lambda _: True) -> None:
        self.open = 0
        self.at_once = 0
        self.most_at_once = 0
        self.works = works
        self.go = asyncio.Event()

    async def open_one(self) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
        if not self.works(self.open):
            return False
        self.open += 1
        return True


@on_asyncio
async def test_at_most_64_connections_are_opened_at_the_same_time() -> None:
    host = Host()
    warming = Warming(host.open_one, open_count=lambda: host.open)
    caller = asyncio.create_task(warming.reach(1000))
    await turns()
    assert host.at_once == AT_ONCE == 64
    host.go.set()
    await caller
    assert (host.open, host.most_at_once) == (1000, 64)


@on_asyncio
async def test_each_caller_is_answered_when_its_own_number_is_open() -> None:
    host = Host()
    host.go.set()
    warming = Warming(host.open_one, open_count=lambda: host.open)
    answered: list[int] = []

    async def reach(goal: int) -> None:
        await warming.reach(goal)
        assert host.open >= goal
        answered.append(goal)

    await asyncio.gather(*[reach(goal) for goal in (300, 100, 200)])
    assert (answered, host.open) == ([100, 200, 300], 300)


@on_asyncio
async def test_when_opening_fails_everybody_is_answered_and_the_next_call_tries_again() -> None:
    host = Host(works=lambda count: count < 10)
    host.go.set()
    warming = Warming(host.open_one, open_count=lambda: host.open)
    await asyncio.gather(warming.reach(50), warming.reach(90))
    assert host.open == 10
    host.works = lambda _: True
    await warming.reach(20)
    assert host.open == 20


@on_asyncio
async def test_a_caller_that_leaves_does_not_stop_the_others() -> None:
    host = Host()
    warming = Warming(host.open_one, open_count=lambda: host.open)
    callers = [asyncio.create_task(warming.reach(goal)) for goal in (3, 5)]
    await turns()
    callers[0].cancel()
    await turns()
    host.go.set()
    await callers[1]
    assert host.open == 5


@on_asyncio
async def test_warming_counts_what_an_exchange_is_just_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside aiohttp, since nothing outside can make one handshake slower than another."""
    slow, connect = asyncio.Event(), TCPConnector._create_connection
    started: list[object] = []

    async def first_is_slow(self: TCPConnector, *arguments: Any) -> Any:
        started.append(arguments)
        if len(started) == 1:
            await slow.wait()
        return await connect(self, *arguments)

    monkeypatch.setattr(TCPConnector, "_create_connection", first_is_slow)
    async with serving(answering()) as server:
        transport = AiohttpTransport(base_url=server.url, api_key="k", settings=TransportSettings(), max_connections=2)
        connecting = asyncio.create_task(transport.exchange(POST, at_once))
        await turns()
        await transport.exchange(POST, at_once)
        assert await transport.warm(2) == 1
        slow.set()
        await connecting
        assert (transport.open_connections, server.most_open) == (2, 2)
        await transport.aclose()


# Descriptors


@pytest.mark.parametrize(
    ("limit", "wanted", "bound"),
    [(1024, 4000, 924), (1024, 500, 500), (50, 10, 1), (100_000, 4000, 4000), (None, 9, 9)],
)
def test_connections_are_bounded_by_what_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, wanted: int, bound: int
) -> None:
    monkeypatch.setattr(descriptors, "_raised_limit", lambda: limit)
    assert bounded_connections(wanted) == bound


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        bound = bounded_connections(10**9)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
        assert bound > 156
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Failures and settings


def test_before_the_first_byte_it_was_not_sent_and_after_it_nobody_knows() -> None:
    for error in (OSError("x"), ValueError("x"), TimeoutError("x"), RuntimeError("x")):
        assert isinstance(failure(error, is_written=False), NotSentError)
        assert isinstance(failure(error, is_written=True), ReplyLostError)


def test_a_failure_s_words_are_short_and_hold_no_password() -> None:
    text = str(failure(OSError("via http://user:canary@proxy:3128 " + "x" * 1000), is_written=True))
    assert "canary" not in text
    assert len(text) < 400
    assert str(failure(TimeoutError(), is_written=False)) == "no connection: TimeoutError: no details"


@on_asyncio
@pytest.mark.parametrize(
    ("kind", "name"), [("aiohttp", "AiohttpTransport"), ("direct", "DirectTransport"), (None, "DirectTransport")]
)
async def test_the_settings_decide_which_transport_is_opened(
    kind: Literal["aiohttp", "direct"] | None, name: str
) -> None:
    app = AppSettings(app_id="8250eaf6-1a58-489e-b136-7c74a864b434", api_key="k", base_url="http://127.0.0.1:9/api/v1")
    transport = open_transport(app, "k", TransportSettings(kind=kind, max_connections=3))
    assert repr(transport) == f"<{name} http://127.0.0.1:9/api/v1, 0 open>"
    await transport.aclose()
