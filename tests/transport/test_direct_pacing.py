"""How many connections are opened at once, and how long the pauses are after those that came to nothing."""

import asyncio
from typing import cast

import pytest

from sendengine.transport.direct.contract import Connection
from sendengine.transport.direct.pacing import SCOUTS, Pacing
from sendengine.transport.warming import AT_ONCE
from tests.transport.conftest import on_asyncio
from tests.transport.scripted import jump, turns

pytestmark = on_asyncio


class Came:
    """A connection as far as pacing looks at one."""

    def __init__(self, *, room: int = 1) -> None:
        self.room = room
        self.is_gone = False


def came(pacing: Pacing, *, room: int = 1) -> Connection:
    connection = cast("Connection", Came(room=room))
    pacing.came(connection)
    return connection


async def pauses(pacing: Pacing) -> float:
    """Return after how many seconds others may be opened again, in halves; the loop's own time is little beside it."""
    waited_s = 0.0
    while pacing.is_resting:
        jump(0.5)
        waited_s += 0.5
        await asyncio.sleep(0.001)
        await turns()
    return waited_s


def made() -> tuple[Pacing, list[str]]:
    told: list[str] = []
    return Pacing(lambda: told.append("go on")), told


@pytest.mark.parametrize(("is_alone", "longest"), [(False, [0, 1, 2, 2, 2, 2, 2]), (True, [0, 1, 1, 1, 1, 1, 1])])
async def test_the_first_that_is_dismissed_costs_no_pause_and_the_next_ones_longer_ones_where_others_work(
    is_alone: bool, longest: list[float]
) -> None:
    pacing, told = made()
    waited = []
    for _ in range(7):
        assert pacing.was_dismissed(came(pacing), is_alone=is_alone)
        waited.append(await pauses(pacing))
    assert waited == longest
    assert told == ["go on"] * 6


async def test_one_that_carries_a_reply_ends_what_came_before_and_one_that_had_is_no_news() -> None:
    pacing, _ = made()
    old = came(pacing)
    pacing.proven(old)
    for _ in range(3):
        pacing.was_dismissed(came(pacing), is_alone=False)
        pacing.proven(old)
        await pauses(pacing)
    pacing.proven(came(pacing))
    waited = []
    for _ in range(3):
        pacing.was_dismissed(came(pacing), is_alone=False)
        waited.append(await pauses(pacing))
    assert waited == [0, 1, 2]


async def test_one_that_lived_for_a_while_or_had_carried_a_reply_was_not_dismissed() -> None:
    pacing, _ = made()
    for connection in (came(pacing), came(pacing)):
        pacing.proven(connection)
        assert not pacing.was_dismissed(connection, is_alone=False)
    waiting = [came(pacing), came(pacing)]
    jump(5)
    assert [pacing.was_dismissed(each, is_alone=False) for each in waiting] == [False, False]
    gone = came(pacing)
    pacing.forget(gone)
    assert not pacing.was_dismissed(gone, is_alone=False)
    assert (pacing.is_resting, pacing.at_once) == (False, AT_ONCE)


async def test_several_that_come_to_nothing_within_a_pause_count_once() -> None:
    pacing, _ = made()
    for _ in range(50):
        pacing.came_to_nothing(is_alone=False)
    assert await pauses(pacing) == 1
    pacing.came_to_nothing(is_alone=False)
    assert await pauses(pacing) == 2


async def test_after_one_without_any_room_there_is_a_pause_at_once() -> None:
    pacing, _ = made()
    waited = []
    for _ in range(5):
        came(pacing, room=0)
        waited.append(await pauses(pacing))
    assert waited == [1, 2, 2, 2, 2]


@pytest.mark.parametrize("what", ["dismissed", "cut limits"])
async def test_few_are_opened_at_once_after_that_and_more_as_they_come(what: str) -> None:
    pacing, _ = made()
    assert (pacing.at_once, pacing.is_slow) == (AT_ONCE, False)
    if what == "dismissed":
        pacing.was_dismissed(came(pacing), is_alone=False)
    else:
        pacing.slow_down()
    assert (pacing.at_once, pacing.is_slow) == (SCOUTS, True)
    for _ in range(100):
        came(pacing)
    assert (pacing.at_once, pacing.is_slow) == (AT_ONCE, False)


async def test_nobody_goes_on_after_the_end() -> None:
    pacing, told = made()
    came(pacing, room=0)
    pacing.close()
    jump(10)
    await asyncio.sleep(0.001)
    pacing.came_to_nothing(is_alone=False)
    pacing.came_to_nothing(is_alone=False)
    jump(10)
    await asyncio.sleep(0.001)
    assert told == []
