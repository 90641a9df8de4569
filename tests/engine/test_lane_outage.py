"""A lane whose requests fail: probes, order, gates, and a worker that is cancelled wherever it stands."""

import asyncio
from pathlib import Path

import pytest

from sendengine import Abandoned, Accepted, GaveUp, NotSentError, ReplyLostError
from sendengine.engine.lane import Lane
from sendengine.settings import CeilingSettings, RetrySettings, StoppingSettings, TransportSettings
from tests.support.engines import (
    CREATE,
    MOMENT_S,
    SOON,
    UPDATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_engine,
    note,
    now_s,
    pass_turns,
    settled,
    until,
)
from tests.support.events import listening
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, first, json_reply, throttle
from tests.support.virtual_loop import START_S, run_virtually

PATIENT = StoppingSettings(drain_timeout_s=10_000)
SLOW = {"ceilings": CeilingSettings(create_notification=10)}


def workers_of(lane: Lane) -> "list[asyncio.Task[None]]":
    return [task for task in asyncio.all_tasks() if task.get_name().endswith(lane.name)]


# Outages


@pytest.mark.parametrize(
    ("failure", "lost_reply_wait_s"),
    [
        (NotSentError("refused"), 100),
        (ReplyLostError("reset"), 100),
        (ReplyLostError("reset"), 1),
        (json_reply(503, {}), 100),
        (json_reply(503, {}, retry_after="20"), 100),
    ],
)
@pytest.mark.parametrize("jobs", [1, 25, 300])
def test_after_an_outage_everything_is_sent_however_it_failed(
    tmp_path: Path, failure: Answer, lost_reply_wait_s: float, jobs: int
) -> None:
    transport = FakeTransport(lambda arrival: failure if arrival.at_s < START_S + 30 else accept(arrival))

    async def main() -> None:
        retry = RetrySettings(lost_reply_wait_s=lost_reply_wait_s)
        async with make_engine(tmp_path, transport, retry=retry, stopping=PATIENT) as engine:
            receipts = [await engine.submit(note(f"u{n}", text=str(n))) for n in range(jobs)]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_an_outage_of_updates_ends_too_although_only_users_in_their_second_wait(tmp_path: Path) -> None:
    transport = FakeTransport(
        lambda arrival: NotSentError("refused") if arrival.at_s < START_S + 30 else accept(arrival), latency_s=0.01
    )

    async def main() -> None:
        async with make_engine(tmp_path, transport, stopping=PATIENT) as engine:
            receipts = [await engine.submit(change(f"u{n}", a=1)) for n in range(40)]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_in_an_outage_a_second_brings_one_probe_and_after_a_minute_fewer(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: NotSentError("refused"))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            for number in range(300):
                await engine.submit(note(f"u{number}", text=str(number)))
            await until(lambda: lane_of(engine).retries.is_outage)
            await asyncio.sleep(1)
            times = []
            for seconds in (10, 50, 400):
                before = len(transport.arrivals)
                await asyncio.sleep(seconds)
                times.append(len(transport.arrivals) - before)
            assert 9 <= times[0] <= 11
            assert 45 <= times[1] <= 51
            assert 400 / 15 <= times[2] <= 200
            lane = engine.stats().lanes[CREATE]
            assert lane.hold == "nothing is answered: refused"
            assert lane.hold_until_s is not None
            await engine.abort()

    with listening() as events:
        run_virtually(main())
    assert events.names.count("outage") == 1
    assert events.fields("outage") == [{"lane": CREATE, "failure": "refused"}]


def test_a_probe_is_a_fresh_request_so_that_one_at_fault_is_not_the_probe_for_ever(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        if arrival.at_s < START_S + 5 or arrival.text == "0":
            return json_reply(503, {})
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport, stopping=PATIENT) as engine:
            receipts = [await engine.submit(note("a", text="0", urgency="high"))]  # it fails whenever it is sent
            receipts += [await engine.submit(note("a", text=str(number))) for number in range(1, 200)]
            for receipt in receipts[1:]:
                assert isinstance(await settled(receipt), Accepted)
            assert now_s() < START_S + 60
            assert isinstance(await settled(receipts[0]), GaveUp)

    run_virtually(main())


def test_requests_that_were_probes_and_are_at_fault_themselves_are_given_up_later(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        is_out = arrival.at_s < START_S + 30
        return json_reply(503, {}) if is_out or arrival.text.startswith("bad") else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport, stopping=PATIENT) as engine:
            bad = [await engine.submit(note("a", text=f"bad {number}")) for number in range(20)]
            await asyncio.sleep(30)
            assert lane_of(engine).retries.is_outage
            assert len(transport.arrivals) > 40  # each of them has been a probe
            while not all(receipt.is_settled for receipt in bad):
                await engine.send(note("b", text="good"))
                await asyncio.sleep(1)
                assert now_s() < START_S + 1500
            assert {type(receipt.outcome) for receipt in bad} == {GaveUp}

    run_virtually(main())


def test_what_fails_before_it_is_sent_is_no_request_and_what_is_lost_is_one(tmp_path: Path) -> None:
    transport = first([NotSentError("refused"), ReplyLostError("reset")])

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            await engine.send(note("a"))
            counters = engine.counters()[CREATE]
            assert (counters.not_sent, counters.lost, counters.retries) == (1, 1, 2)
            assert counters.replies == {200: 1}

    run_virtually(main())


# Order, and the gate


def test_throttled_requests_return_in_their_old_order_before_anything_newer(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        return throttle("3") if arrival.at_s < START_S + 1 else accept(arrival)

    transport = FakeTransport(behave, latency_s=0.2)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(400)]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            assert engine.stats().lanes[CREATE].epochs == 1

    run_virtually(main())
    refused = [arrival.text for arrival in transport.arrivals if arrival.at_s < START_S + 1]
    after = [arrival.text for arrival in transport.arrivals if arrival.at_s >= START_S + 1]
    assert len(refused) > 50
    assert after[: len(refused)] == refused
    assert sorted(after, key=int) == [str(number) for number in range(400)]


def test_high_jobs_go_before_what_returned(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: throttle("3") if arrival.at_s < START_S + 1 else accept(arrival))

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(20)]
            await asyncio.sleep(2)
            receipts.append(await engine.submit(note("a", text="high", urgency="high")))
            for receipt in receipts:
                await settled(receipt)

    run_virtually(main())
    after = [arrival.text for arrival in transport.arrivals if arrival.at_s >= START_S + 1]
    assert "high" in after[:3]


def test_normal_jobs_keep_a_tenth_while_high_ones_keep_coming(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            for number in range(300):
                await engine.submit(note("a", text=f"high {number}", urgency="high"))
            normal = [await engine.submit(note("a", text=str(number))) for number in range(10)]
            for receipt in normal:
                await settled(receipt)
            assert len(transport.arrivals) <= 150
            await engine.abort()

    run_virtually(main())


def test_a_gate_that_closes_between_permit_and_write_lets_nothing_out(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            lane = lane_of(engine)
            launch = lane.launch
            closed_s: list[float] = []

            def close_first(sealed: object) -> None:
                if not closed_s:
                    closed_s.append(now_s())
                    lane.pace.throttled(sent_at_s=now_s(), retry_after_s=5)
                launch(sealed)  # type: ignore[arg-type]

            lane.launch = close_first  # type: ignore[method-assign]
            outcome = await settled(await engine.submit(note("a")))
            assert outcome == Accepted(("message-1",))
            assert transport.arrivals[0].at_s >= closed_s[0] + 5 - MOMENT_S
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_a_closed_gate_takes_back_what_waits_for_permits(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: throttle("5") if arrival.number == 1 else accept(arrival))

    async def main() -> None:
        async with make_engine(
            tmp_path, transport, app={"ceilings": CeilingSettings(create_notification=100)}
        ) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(100)]
            await asyncio.sleep(1)  # within the hold
            assert transport.under_way == 0  # no connection is held
            assert lane_of(engine).limiter.waiting == 0
            for receipt in receipts:
                await settled(receipt)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_two_hundred_refusals_at_once_are_one_event(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        return throttle("2") if 100 < arrival.number <= 300 else accept(arrival)

    transport = FakeTransport(behave, latency_s=0.5)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(1000)]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            stats = engine.stats().lanes[CREATE]
            assert (stats.epochs, stats.throttled) == (1, 200)

    with listening() as events:
        run_virtually(main())
    cuts = [fields for fields in events.fields("rate_change") if fields["hold_s"]]
    assert len(cuts) == 1
    assert cuts[0]["scope"] == "app"
    assert cuts[0]["hold_s"] == pytest.approx(2, abs=0.1)
    assert cuts[0]["new_rate"] < cuts[0]["old_rate"]


@pytest.mark.parametrize("retry_after", [None, "soon", "-1", "", "1e9999"])
def test_without_a_readable_retry_after_nothing_goes_for_the_configured_wait(
    tmp_path: Path, retry_after: str | None
) -> None:
    transport = first([throttle(retry_after)])

    async def main() -> None:
        retry = RetrySettings(missing_retry_after_s=7)
        async with make_engine(tmp_path, transport, retry=retry) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(50)]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())
    told_s = transport.arrivals[0].at_s + transport.latency_s
    assert not [arrival for arrival in transport.arrivals if told_s < arrival.at_s < told_s + 7 - MOMENT_S]


# Workers that are cancelled


@pytest.mark.parametrize("where", ["connecting", "waiting for a permit", "on the wire", "idle"])
def test_a_worker_that_is_cancelled_loses_no_job_and_leaks_nothing(tmp_path: Path, where: str) -> None:
    transport = FakeTransport(latency_s=1.0, connect_s=1.0 if where == "connecting" else 0.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            lane = lane_of(engine)
            count = 3 if where in {"connecting", "on the wire"} else 30
            if where == "idle":
                await engine.send(note("before"))
                count = 0
            receipts = [await engine.submit(note("a", text=str(number), urgency="high")) for number in range(count)]
            await asyncio.sleep(0.05)
            cancelled = workers_of(lane)
            assert cancelled
            for worker in cancelled:
                worker.cancel()
            await pass_turns()
            assert transport.under_way == 0 or where == "waiting for a permit"
            for receipt in receipts:
                assert isinstance(await settled(receipt), (Accepted, Abandoned))
            assert engine.health().is_alive
            assert isinstance(await engine.send(note("later")), Accepted)
            assert_nothing_leaked(engine, transport)
            assert lane.pool.waking == 0

    run_virtually(main())


def test_a_cancelled_workers_job_says_whether_it_may_have_been_sent(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            await until(lambda: transport.under_way == 1 and len(transport.arrivals) == 1)
            for worker in workers_of(lane_of(engine)):
                worker.cancel()
            assert await settled(receipt) == Abandoned(maybe_sent=True, not_sent=("a",))

    run_virtually(main())


@pytest.mark.parametrize("count", [25, 200])
def test_connections_that_go_away_under_many_requests_at_once_are_no_outage(tmp_path: Path, count: int) -> None:
    goodbyes = [NotSentError("the connection was closed before the request was written") for _ in range(count)]
    transport = first(goodbyes, latency_s=0.02)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            begin_s = now_s()
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(count + 50)]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            assert now_s() - begin_s < 1.5
            assert_nothing_leaked(engine, transport)

    with listening() as events:
        run_virtually(main())
    assert not [line for line in events.lines if "without an answer" in line]


def test_connections_that_go_away_while_many_requests_wait_for_their_permits_are_no_outage(tmp_path: Path) -> None:
    """Where the disk is slow, requests hold their places on connections for longer than the permits are taken ahead."""

    def behave(arrival: Arrival) -> Answer:
        if arrival.at_s < begin_s + 0.08:
            return NotSentError("the connection was closed before the request was written")
        return accept(arrival)

    transport = FakeTransport(behave, latency_s=0.0)
    begin_s = START_S

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(300)]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            assert now_s() - begin_s < 1.5

    with listening() as events:
        run_virtually(main())
    assert not [line for line in events.lines if "without an answer" in line]


def test_workers_are_never_more_than_there_may_be_connections_and_each_lane_has_a_part(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=5.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, wire=TransportSettings(max_connections=8)) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(100)]
            await asyncio.sleep(1)
            begin_s = now_s()
            updates = [await engine.submit(change(f"u{number}", a=1)) for number in range(4)]
            for update in updates:
                assert isinstance(await settled(update), Accepted)
            assert now_s() - begin_s <= 4 + 3 * 5.1  # the others' replies come first; it grows with each of its own
            for receipt in receipts:
                await settled(receipt)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.most_under_way <= 8


def test_a_lane_that_needs_no_connections_any_more_leaves_them_to_the_other(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, wire=TransportSettings(max_connections=8)) as engine:
            for lane, jobs in [
                (CREATE, [note("a", text=str(number)) for number in range(40)]),
                (UPDATE, [change(f"u{number}", a=1) for number in range(40)]),
                (CREATE, [note("b", text=str(number)) for number in range(40)]),
            ]:
                most = 0
                receipts = [await engine.submit(job) for job in jobs]  # type: ignore[attr-defined]
                while not all(receipt.is_settled for receipt in receipts):
                    most = max(most, engine.stats().lanes[lane].in_flight)
                    await asyncio.sleep(0.1)
                assert most >= 6, lane  # what the other does not need
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.most_under_way <= 8
