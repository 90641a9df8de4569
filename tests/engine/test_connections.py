"""The bound on what is under way at once: shared among the lanes, and wider where a connection has streams."""

import asyncio
from pathlib import Path

import pytest

from sendengine import Accepted
from sendengine.engine.connections import ConnectionBudget
from sendengine.settings import TransportSettings
from tests.support.engines import CREATE, assert_nothing_leaked, make_engine, note, now_s, settled
from tests.support.fake_transport import FakeTransport
from tests.support.virtual_loop import run_virtually


class Workers:
    """One lane's, as the budget sees them."""

    def __init__(self, budget: ConnectionBudget) -> None:
        self.budget = budget
        self.held = 0
        self.idle = 0
        self.invited = 0
        budget.join(self)

    def __len__(self) -> int:
        return self.held

    def take(self) -> bool:
        took = self.budget.may_hold(self) and self.budget.try_hold(self)
        self.held += took
        return took

    def rest(self, count: int) -> None:
        self.idle += count
        self.budget.idle += count

    def retire_idle(self) -> bool:
        if not self.idle:
            return False
        self.idle -= 1
        self.budget.idle -= 1
        return True

    def end(self) -> None:
        self.held -= 1
        self.budget.release()

    def when_room(self) -> None:
        self.invited += 1


def two_lanes(total: int) -> tuple[Workers, Workers]:
    budget = ConnectionBudget(total)
    return Workers(budget), Workers(budget)


def test_a_lane_has_what_the_others_leave() -> None:
    one, other = two_lanes(8)
    assert [one.take() for _ in range(9)] == [True] * 8 + [False]
    assert other.take() is False


def test_where_all_are_busy_there_is_nothing_to_ask_for() -> None:
    one, other = two_lanes(8)
    for _ in range(8):
        one.take()
    assert not one.budget.may_hold(one), "it has more than its quarter, and nobody is idle"
    assert other.budget.may_hold(other), "it lacks its quarter, and must say so once"
    other.take()
    assert not other.budget.may_hold(other), "it has said so"
    assert one.budget.asks_back(one)


def test_an_idle_one_of_another_lane_is_given_to_whoever_wants_more() -> None:
    one, other = two_lanes(8)
    for _ in range(8):
        one.take()
    one.rest(1)
    assert not other.take()
    assert one.idle == 0, "it was told to go"
    one.end()
    assert other.invited == 1
    assert other.take()


@pytest.mark.parametrize("total", [16, 800])
def test_there_is_room_for_more_when_connections_turn_out_to_take_several_at_once(total: int) -> None:
    one, other = two_lanes(8)
    for _ in range(8):
        one.take()
    assert not other.take()
    one.budget.extend(total)
    assert one.budget.total == total
    assert other.invited == 1, "who waited for room is asked again"
    assert other.take()
    one.budget.extend(4)
    assert one.budget.total == total, "it never becomes less: who finds no room on a connection waits for it"


def test_over_connections_with_streams_there_is_more_under_way_than_connections(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=2.0, most_connections=2, streams=100)

    async def main() -> None:
        async with make_engine(tmp_path, transport, wire=TransportSettings(max_connections=2)) as engine:
            begin_s = now_s()
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(150)]
            await asyncio.sleep(1)
            stats = engine.stats()
            assert stats.lanes[CREATE].in_flight == 150
            app = stats.apps["shop"]
            assert (app.connections, app.streams, app.protocol) == (2, 200, "h2")
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            assert now_s() - begin_s < 3
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.most_under_way == 150
