"""The bound on what is under way at once: shared among the lanes, and wider where a connection has streams."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine import Accepted, Expired, UpdateUser, external_id
from sendengine.engine.connections import WHOLE, ConnectionBudget
from sendengine.settings import TransportSettings
from tests.support.engines import CREATE, assert_nothing_leaked, make_engine, note, now_s, pass_turns, settled, within
from tests.support.fake_transport import FakeTransport
from tests.support.virtual_loop import run_virtually


class Workers:
    """One lane's, as the budget sees them."""

    def __init__(self, budget: ConnectionBudget) -> None:
        self.budget = budget
        self.cost = WHOLE
        self.held = 0
        self.idle = 0
        self.invited = 0
        budget.join(self)

    def __len__(self) -> int:
        return self.held

    def take(self, count: int = 1) -> int:
        """Start so many, as far as there may be, and say how many."""
        took = 0
        while took < count and self.budget.may_hold(self) and self.budget.try_hold(self):
            self.held += 1
            took += 1
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
        self.budget.release(self)

    def when_room(self) -> None:
        self.invited += 1

    def carry(self, max_exchanges: int) -> None:
        """All connections together are found to carry so many."""
        self.cost = self.budget.cost_of(max_exchanges)
        self.budget.recount()


def two_lanes(total: int) -> tuple[Workers, Workers]:
    budget = ConnectionBudget(total)
    return Workers(budget), Workers(budget)


def test_a_lane_has_what_the_others_leave() -> None:
    one, other = two_lanes(8)
    assert one.take(9) == 8
    assert other.take() == 0


def test_where_all_are_busy_there_is_nothing_to_ask_for() -> None:
    one, other = two_lanes(8)
    one.take(8)
    assert not one.budget.may_hold(one), "it has more than its quarter, and nobody is idle"
    assert other.budget.may_hold(other), "it lacks its quarter, and must say so once"
    other.take()
    assert not other.budget.may_hold(other), "it has said so"
    assert one.budget.asks_back(one)
    assert not one.budget.asks_back(other)


def test_an_idle_one_of_another_lane_is_given_to_whoever_wants_more() -> None:
    one, other = two_lanes(8)
    one.take(8)
    one.rest(1)
    assert not other.take()
    assert one.idle == 0, "it was told to go"
    one.end()
    assert other.invited == 1
    assert other.take()


@pytest.mark.parametrize("streams", [2, 100])
def test_there_is_room_for_more_when_connections_turn_out_to_take_several_at_once(streams: int) -> None:
    one, other = two_lanes(8)
    one.take(8)
    assert not other.take()
    one.carry(8 * streams)
    assert other.invited == 1, "who waited for room is asked again"
    assert one.take(10_000) == 8 * streams - 8
    assert one.budget.asks_back(one) is False
    assert other.take() == 0


def test_what_one_server_takes_at_once_gives_another_no_more_connections() -> None:
    wide, narrow = two_lanes(10)
    wide.take(1)
    wide.carry(10 * 100)
    assert wide.take(199) == 199, "two connections"
    assert narrow.take(100) == 8, "the others"


def test_a_server_that_takes_fewer_at_once_than_before_is_left_by_as_many_workers() -> None:
    one, _ = two_lanes(8)
    one.take(1)
    one.carry(800)
    one.take(799)
    one.carry(8)
    assert one.budget.asks_back(one)
    while one.budget.asks_back(one):
        one.end()
    assert one.held == 8


def test_where_lanes_are_more_than_connections_each_has_its_turn() -> None:
    one, other = two_lanes(1)
    one.take()
    assert not other.take()
    assert one.budget.asks_back(one), "when it has finished"
    one.end()
    assert other.invited == 1
    assert other.take()
    other.rest(1)
    assert not one.take()
    assert other.idle == 0, "it was told to go"
    other.end()
    assert one.take()
    assert not one.budget.asks_back(one), "nobody else wants it"


@given(st.lists(st.tuples(st.sampled_from("tec"), st.integers(0, 3), st.integers(1, 500)), max_size=60))
def test_there_are_never_more_than_the_connections_carry(steps: list[tuple[str, int, int]]) -> None:
    budget = ConnectionBudget(10)
    lanes = [Workers(budget) for _ in range(4)]
    for what, number, amount in steps:
        lane = lanes[number]
        if what == "t":
            before = sum(len(each) * each.cost for each in lanes)
            if lane.take(amount):
                assert before < sum(len(each) * each.cost for each in lanes) <= 10 * WHOLE
        elif what == "e" and lane.held:
            lane.end()
        elif what == "c":
            lane.carry(10 * amount)
    for lane in lanes:
        while lane.held:
            lane.end()
    assert lanes[0].take(20) == min(20, 10 * WHOLE // lanes[0].cost), "nothing was lost"


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


def test_all_lanes_of_all_apps_send_over_one_connection(tmp_path: Path) -> None:
    transport = FakeTransport()
    news = {"app_id": "0f6b0aa6-3b3a-4b5a-9b0a-0d4f3f1f7a11"}

    async def main() -> None:
        wire = TransportSettings(max_connections=1)
        async with make_engine(tmp_path, transport, wire=wire, others={"news": news}) as engine:
            receipts = []
            for number in range(5):
                for app in ("shop", "news"):
                    receipts.append(await engine.submit(note("a", text=str(number), app=app)))
                    receipts.append(await engine.submit(UpdateUser(external_id(f"u{number}"), {"a": "1"}, app=app)))
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.most_under_way == 1


def test_whoever_finds_nothing_to_do_gives_its_connection_to_a_lane_that_has_none(tmp_path: Path) -> None:
    transport = FakeTransport(connect_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, wire=TransportSettings(max_connections=4)) as engine:
            await pass_turns()  # the application limit is known then
            jobs = [note("a", text=str(number), urgency="high", expires_in_s=0.7) for number in range(8)]
            late = [await engine.submit(job) for job in jobs]
            await asyncio.sleep(0.5)  # four are connecting for them
            begin_s = now_s()
            assert isinstance(await within(engine.send(UpdateUser(external_id("u"), {"a": "1"}))), Accepted)
            assert now_s() - begin_s < 3
            assert [type(await settled(receipt)) for receipt in late] == [Expired] * 8
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
