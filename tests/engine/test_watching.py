"""What an operator sees: stats, health, counters, and one log line for each hold, change of rate and stop."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from sendengine import (
    Abandoned,
    Accepted,
    EngineStats,
    Expired,
    Job,
    LaneStats,
    Outcome,
    Rejected,
    ReplyLostError,
    RequestRecord,
    SendEngine,
    UpdateUser,
    external_id,
)
from sendengine.ports import Part
from sendengine.settings import CeilingSettings
from tests.support.engines import (
    CREATE,
    SOON,
    UPDATE,
    assert_nothing_leaked,
    change,
    make_engine,
    make_settings,
    note,
    pass_turns,
    settled,
    until,
)
from tests.support.events import listening
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, first, json_reply, refuse, throttle
from tests.support.journalled import Watcher
from tests.support.virtual_loop import run_virtually

SLOW = {"ceilings": CeilingSettings(create_notification=10)}


def test_stats_are_a_frozen_snapshot_of_every_lane(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=1.0)

    async def main() -> tuple[EngineStats, EngineStats]:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            idle = engine.stats()
            for number in range(30):
                await engine.submit(note("a", text=str(number)))
            await asyncio.sleep(0.55)
            busy = engine.stats()
            await engine.abort()
            return idle, busy

    idle, busy = run_virtually(main())
    lane = idle.lanes[CREATE]
    assert (lane.depth, lane.in_flight, lane.requests, lane.hold, lane.epochs) == (0, 0, 0, None, 0)
    assert (lane.ceiling, lane.oldest_age_s, lane.hold_until_s) == (10, 0.0, None)
    lane = busy.lanes[CREATE]
    assert lane.requests == lane.in_flight == lane.most_in_one_second
    assert 4 <= lane.requests <= 6
    assert 20 <= lane.depth <= 26
    assert lane.oldest_age_s == pytest.approx(0.55, abs=0.02)
    assert lane.connections >= lane.in_flight
    assert 0 < lane.rate <= lane.ceiling
    assert abs(busy.taken_at_s - time.time()) < 60
    with pytest.raises(AttributeError):
        busy.longest_pause_s = 1.0  # type: ignore[misc]
    assert msgspec.json.decode(msgspec.json.encode(busy), type=EngineStats) == busy


def test_stats_tell_a_hold_its_reason_and_its_end(tmp_path: Path) -> None:
    transport = first([throttle("30")])

    async def main() -> LaneStats:
        async with make_engine(tmp_path, transport) as engine:
            await engine.submit(note("a"))
            await asyncio.sleep(10)
            stats = engine.stats()
            lane = stats.lanes[CREATE]
            assert lane.hold is not None
            assert "429" in lane.hold
            assert lane.hold_until_s is not None
            assert lane.hold_until_s - stats.taken_at_s == pytest.approx(20.1, abs=0.2)
            assert (lane.rate, lane.throttled, lane.epochs) == (0.0, 1, 1)
            assert stats.lanes[UPDATE].hold is None
            await asyncio.sleep(25)
            return engine.stats().lanes[CREATE]

    after = run_virtually(main())
    assert (after.hold, after.hold_until_s) == (None, None)
    assert after.replies == {200: 1, 429: 1}


def test_a_lane_with_nothing_but_repeats_left_says_when_the_first_goes(tmp_path: Path) -> None:
    transport = first([ReplyLostError("gone")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(10)
            stats = engine.stats()
            lane = stats.lanes[CREATE]
            assert lane.hold == "what waits was tried before: gone"
            assert engine.counters()[CREATE].failure == "gone"
            assert lane.hold_until_s is not None
            assert lane.hold_until_s - stats.taken_at_s == pytest.approx(90.1, abs=0.2)
            await engine.submit(note("b"))  # the lane itself is open
            await asyncio.sleep(0.5)
            assert transport.arrivals[-1].number == 2
            await settled(receipt)
            assert engine.counters()[CREATE].bound_by["hold"] > 0.9
            assert engine.stats().lanes[CREATE].hold is None
            assert not engine.counters()[CREATE].failure

    run_virtually(main())


def test_counters_name_what_bounded_a_lane(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            assert engine.counters() == {}
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(100)]
            for receipt in receipts:
                await settled(receipt)
            counters = engine.counters()
            assert set(counters) == {CREATE}
            entry = counters[CREATE].entry(ceiling=10)
            assert entry["requests"] == 100
            assert entry["replies"] == {"200": 100}
            assert entry["bound_by"]["rate"] > 0.9
            assert sum(entry["bound_by"].values()) == pytest.approx(1, abs=0.001)

    run_virtually(main())


def test_a_lane_of_one_user_is_bound_by_that_users_second_and_one_that_is_held_by_the_hold(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: throttle("30") if arrival.number == 1 else accept(arrival))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await settled(await engine.submit(note("a")))
            for number in range(5):
                await engine.submit(UpdateUser(external_id("u"), tags={"a": number}, coalesce=False))
            await until(lambda: not engine.stats().lanes[UPDATE].depth)
            counters = engine.counters()
            assert counters[CREATE].bound_by["hold"] > 0.9
            assert counters[CREATE].held_s == pytest.approx(30, abs=0.1)
            assert counters[UPDATE].bound_by["user"] > 0.8

    run_virtually(main())


def test_health_is_alive_until_a_worker_breaks(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        if arrival.number == 1:
            raise ZeroDivisionError  # a bug: no transport may raise this
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            assert engine.health().is_alive
            receipt = await engine.submit(note("a"))
            await settled(receipt)
            await pass_turns()
            health = engine.health()
            assert (health.is_alive, health.is_accepting) == (False, True)
            assert health.problems == ("a worker broke: ZeroDivisionError",)
            assert isinstance(await engine.send(note("b")), Accepted)  # the others go on

    with listening() as events:
        run_virtually(main())
    assert any(line.startswith("CRITICAL") for line in events.lines)


def test_an_observer_that_raises_is_reported_once_and_keeps_nothing_from_its_end(tmp_path: Path) -> None:
    class Broken:
        def request_settled(self, record: RequestRecord) -> None:
            raise ZeroDivisionError(record.outcome)

        def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:
            raise ZeroDivisionError(job, outcome, parts)

    transport = FakeTransport(lambda arrival: refuse("Incorrect: [bad]") if "bad" in arrival.ids else accept(arrival))

    async def main() -> None:
        settings = make_settings(tmp_path)
        async with SendEngine(settings, observer=Broken(), open_transport=lambda *_: transport) as engine:
            jobs: list[Job] = [note("a"), note("bad"), note("b"), change("u", a=1), change("u", b=1)]
            receipts = [await engine.submit(job) for job in jobs]
            kinds = [type(await settled(receipt)) for receipt in receipts]
            assert kinds == [Accepted, Rejected, Accepted, Accepted, Accepted]
            assert engine.health().problems == ("the observer broke: ZeroDivisionError",)
            engine.pause()
            assert isinstance(await settled(await engine.submit(note("late", expires_in_s=1))), Expired)
            left = [await engine.submit(change("u", a=number)) for number in range(3)]
        assert {type(receipt.outcome) for receipt in left} == {Abandoned}
        assert_nothing_leaked(engine, transport)
        assert transport.is_closed

    with listening() as events:
        run_virtually(main())
    assert [record.getMessage() for record in events.records if record.levelname == "CRITICAL"] == [
        "the observer broke; restart the engine"
    ]


def test_each_hold_and_change_of_rate_is_one_line_with_its_fields(tmp_path: Path) -> None:
    transport = first([throttle("2")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            for number in range(200):
                await engine.submit(note("a", text=str(number)))
            await until(lambda: len(transport.arrivals) > 200)

    with listening() as events:
        run_virtually(main())
    changes = events.fields("rate_change")
    assert {field for change in changes for field in change} == {
        "lane", "cause", "scope", "old_rate", "new_rate", "hold_s",
    }  # fmt: skip
    assert [change["lane"] for change in changes] == [CREATE] * len(changes)
    assert len([change for change in changes if change["hold_s"]]) == 1
    assert events.names.count("stopped") == 1
    assert all("\n" not in line for line in events.lines)


def test_the_observer_sees_every_request_that_settles_with_its_parts(tmp_path: Path) -> None:
    watcher = Watcher()
    poisoned = {"bad"}

    def behave(arrival: Arrival) -> Answer:
        if arrival.number == 1:
            return json_reply(503, {})
        if poisoned.intersection(arrival.ids):
            return refuse("Incorrect: [bad]")
        return json_reply(200, {"id": f"m{arrival.number}"}, cf_ray="8f0-FRA")

    transport = FakeTransport(behave)

    async def main() -> None:
        settings = make_settings(tmp_path, retry=SOON)
        async with SendEngine(settings, observer=watcher, open_transport=lambda *_: transport) as engine:
            receipts = [await engine.submit(note(name)) for name in ("a", "bad", "b")]
            for receipt in receipts:
                await settled(receipt)
            await settled(await engine.submit(change("u", a=1)))

    run_virtually(main())
    split, whole, update = watcher.records
    assert (split.outcome, split.status, split.recipients, split.attempts) == ("split", 400, 3, 2)
    assert [(job.to.ids, part.recipients, type(part.outcome)) for job, part in split.parts] == [  # type: ignore[union-attr]
        (("bad",), ("bad",), Rejected)
    ]
    assert (whole.outcome, whole.status, whole.recipients, whole.message_id) == ("accepted", 200, 2, "m3")
    assert (whole.cf_ray, whole.replayed, whole.attempts, whole.lane) == ("8f0-FRA", False, 1, CREATE)
    assert whole.key is not None
    assert whole.key != split.key
    assert whole.first_sent_at_s is not None
    assert split.sealed_at_s <= whole.sealed_at_s <= whole.first_sent_at_s <= whole.settled_at_s
    assert abs(whole.settled_at_s - time.time()) < 3600
    assert (update.lane, update.key, update.outcome, update.recipients) == (UPDATE, None, "accepted", 1)
    assert [(job.to.ids, type(outcome)) for job, outcome in watcher.jobs[:3]] == [  # type: ignore[union-attr]
        (("bad",), Rejected),
        (("a",), Accepted),
        (("b",), Accepted),
    ]
    assert [[part.recipients for part in parts] for parts in watcher.parts] == [
        [("bad",)],
        [("a",)],
        [("b",)],
        [("u",)],
    ]


def test_a_request_whose_only_deltas_became_ambiguous_is_shown_as_that(tmp_path: Path) -> None:
    watcher = Watcher()
    transport = first([json_reply(503, {})])

    async def main() -> None:
        settings = make_settings(tmp_path, retry=SOON)
        async with SendEngine(settings, observer=watcher, open_transport=lambda *_: transport) as engine:
            await settled(await engine.submit(UpdateUser(external_id("u"), deltas={"session_count": 1})))

    run_virtually(main())
    (record,) = watcher.records
    assert (record.outcome, record.recipients, record.status) == ("ambiguous", 1, 503)


def test_what_was_learned_of_a_rate_is_there_in_the_next_engine(tmp_path: Path) -> None:
    async def main() -> float:
        def behave(arrival: Arrival) -> Answer:
            recent = [one for one in transport.arrivals[-60:] if one.at_s > arrival.at_s - 1]
            return throttle("1") if len(recent) > 50 else accept(arrival)

        transport = FakeTransport(behave)
        async with make_engine(tmp_path, transport, app={"plan": "free"}) as engine:
            first_rate = engine.stats().lanes[CREATE].rate
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(600)]
            for receipt in receipts:
                await settled(receipt)
            return first_rate

    fresh = run_virtually(main())
    assert fresh > 140
    learned = run_virtually(main())
    assert learned < 120
    assert (tmp_path / "learned.json").exists()
