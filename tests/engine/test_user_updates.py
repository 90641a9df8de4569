"""Updates of users through an engine: order, pace, urgency, deadlines, and what each kind of answer does to them."""

import asyncio
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from sendengine import (
    Accepted,
    Ambiguous,
    Expired,
    GaveUp,
    InvalidJobError,
    Outcome,
    Rejected,
    ReplyLostError,
    UpdateUser,
    alias,
    external_id,
)
from sendengine.engine.users import UserSource
from sendengine.settings import RetrySettings
from tests.support.engines import (
    MOMENT_S,
    SOON,
    UPDATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_engine,
    now_s,
    outcomes_of,
    remembered,
    settled,
)
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, first, json_reply, refuse, throttle
from tests.support.virtual_loop import START_S, run_virtually

PER_USER = "Subscription/User Update Per Device"


def test_no_user_is_in_flight_twice_or_asked_twice_in_a_second_however_many_there_are(tmp_path: Path) -> None:
    chance = Random(7)

    def behave(arrival: Arrival) -> Answer:
        choice = chance.random()
        if choice < 0.05:
            return throttle("1", limit=PER_USER)
        if choice < 0.1:
            return json_reply(503, {})
        return accept(arrival)

    transport = FakeTransport(behave, latency_s=0.4)

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            receipts = []
            for step in range(1500):
                receipts.append(await engine.submit(change(f"u{chance.randrange(40)}", step=step)))
                await asyncio.sleep(0.005)
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)
            await asyncio.sleep(2)
            assert lane_of(engine, UPDATE).source.waiting == 0
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    times: dict[str, list[float]] = defaultdict(list)
    for arrival in transport.arrivals:
        times[arrival.user].append(arrival.at_s)
    assert all(after - before >= 1.05 - MOMENT_S for each in times.values() for before, after in pairwise(each))


def test_a_users_updates_take_effect_in_order_retries_included(tmp_path: Path) -> None:
    chance = Random(11)
    state: dict[str, str] = {}

    def behave(arrival: Arrival) -> Answer:
        choice = chance.random()
        if choice < 0.2:
            return json_reply(503, {})
        state.update(arrival.tags)
        return ReplyLostError("reset") if choice < 0.4 else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            receipts = []
            for level in range(200):
                receipts.append(await engine.submit(change("u", level=level, **{f"t{level % 7}": level})))
                await asyncio.sleep(0.1)
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())
    assert state == {
        "level": "199",
        **{f"t{left}": str(max(n for n in range(200) if n % 7 == left)) for left in range(7)},
    }
    levels = [int(arrival.tags["level"]) for arrival in transport.arrivals]
    assert levels == sorted(levels)


def test_an_idle_lane_remembers_no_user(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            source = lane_of(engine, UPDATE).source
            assert isinstance(source, UserSource)
            await outcomes_of(engine, [change(f"u{number}", a=1) for number in range(500)])
            assert remembered(source) > 400
            await asyncio.sleep(2)
            assert remembered(source) == 0

    run_virtually(main())


def test_a_high_user_passes_those_who_wait(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(change(f"u{number}", a=1)) for number in range(3000)]
            await asyncio.sleep(0.5)
            begin_s = now_s()
            await engine.send(UpdateUser(external_id("vip"), tags={"a": 1}, urgency="high"))
            vip = next(arrival for arrival in transport.arrivals if arrival.user == "vip")
            assert vip.at_s - begin_s <= 0.02
            for receipt in receipts:
                await settled(receipt)

    run_virtually(main())


@pytest.mark.parametrize("before", [1, pytest.param(150, marks=pytest.mark.slow)])
def test_a_normal_update_outlives_an_outage_that_the_high_one_it_was_merged_with_does_not(
    tmp_path: Path, before: int
) -> None:
    def behave(arrival: Arrival) -> Answer:
        is_down = arrival.at_s < START_S + 1800
        return json_reply(503, {"errors": ["down"]}) if is_down else accept(arrival)

    transport = FakeTransport(behave)
    options: dict[str, object] = {"expires_in_s": 1000} if before > 1 else {}
    vip = UpdateUser(external_id("u"), tags={"a": 2, "vip": 1}, urgency="high", **options)  # type: ignore[arg-type]
    normal = change("u", **{"a": 1, **{f"t{number}": 1 for number in range(1, before)}})

    async def main() -> list[Outcome]:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(job) for job in (normal, vip)]
            high = await settled(receipts[1])
            assert now_s() < START_S + 1001, "long before the outage ends"
            outcomes = [await settled(receipts[0]), high]
            assert_nothing_leaked(engine, transport)
            return outcomes

    accepted, high = run_virtually(main())
    assert isinstance(accepted, Accepted)
    if before == 1:
        assert isinstance(high, GaveUp)
        assert (high.attempts, high.maybe_sent, high.not_sent) == (10, True, ("u",))
        assert transport.arrivals[-1].tags == {"a": "2"}, "the newer value may be there by now"
    else:
        assert high == Expired(("u",)), "it never came to its turn"


def test_a_normal_update_that_the_lane_alone_cannot_carry_ends_with_the_high_one(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        return json_reply(500, {"errors": ["broken"]}) if arrival.user == "u" else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> list[Outcome]:
        async with make_engine(tmp_path, transport) as engine:
            jobs = [change("u", a=1), UpdateUser(external_id("u"), tags={"b": 1}, urgency="high")]
            receipts = [await engine.submit(job) for job in jobs]
            while not receipts[1].is_settled:
                await engine.send(change("v", a=1))  # the rest of the lane is answered
            return [await settled(receipt) for receipt in receipts]

    for outcome in run_virtually(main()):
        assert isinstance(outcome, GaveUp)
        assert outcome.attempts == 10


def test_a_backlog_coalesces_and_every_job_has_its_own_outcome(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(change("u", first=1))
            ended = await outcomes_of(engine, [change("u", **{f"t{number}": 1}) for number in range(50)])
            assert ended == [Accepted(shared_with=49)] * 50

    run_virtually(main())
    assert [len(arrival.tags) for arrival in transport.arrivals] == [1, 50]


def test_thousands_of_the_largest_deltas_of_one_user_are_one_number_that_json_has(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            largest = UpdateUser(external_id("u"), deltas={"session_time": 2**40})
            ended = await outcomes_of(engine, [largest] * 3000)
            assert all(isinstance(outcome, Accepted) for outcome in ended)
        assert sum(arrival.body["deltas"]["session_time"] for arrival in transport.arrivals) == 3000 * 2**40
        with pytest.raises(InvalidJobError, match="session_time"):
            UpdateUser(external_id("u"), deltas={"session_time": 2**40 + 1})

    run_virtually(main())


def test_jobs_that_want_to_be_alone_are(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            jobs = [UpdateUser(external_id("u"), tags={"a": number}, coalesce=False) for number in range(4)]
            assert await outcomes_of(engine, list(jobs)) == [Accepted()] * 4

    run_virtually(main())
    assert [arrival.tags for arrival in transport.arrivals] == [{"a": str(number)} for number in range(4)]


def test_more_than_a_hundred_modifications_go_in_several_requests_a_second_apart(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            job = change("u", **{f"t{number}": number for number in range(205)})
            assert await settled(await engine.submit(job)) == Accepted(attempts=3)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert [len(arrival.tags) for arrival in transport.arrivals] == [100, 100, 5]


def test_a_refused_part_of_a_long_job_is_its_outcome_and_the_rest_is_still_sent(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: refuse() if "t0" in arrival.tags else accept(arrival))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            job = change("u", **{f"t{number}": number for number in range(150)})
            outcome = await settled(await engine.submit(job))
            assert isinstance(outcome, Rejected)
            assert outcome.status == 400
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert [len(arrival.tags) for arrival in transport.arrivals] == [100, 50]


def test_at_the_tag_cap_deletions_go_in_a_request_of_their_own_first(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        values = arrival.tags.values()
        if "" in values and any(values):
            return json_reply(409, {"errors": [{"code": "entitlements-tag-limit", "title": "tags exceed the limit"}]})
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(change("u", first=1))
            ended = await outcomes_of(engine, [change("u", **{f"new{n}": 1, f"old{n}": None}) for n in range(5)])
            assert {type(outcome) for outcome in ended} == {Accepted}
            assert isinstance(await engine.send(change("v", a=1)), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert transport.arrivals[2].tags == {f"old{n}": "" for n in range(5)}
    assert transport.arrivals[3].tags == {f"new{n}": "1" for n in range(5)}


@pytest.mark.parametrize("status", [400, 409, 422])
def test_one_bad_value_spoils_one_job(tmp_path: Path, status: int) -> None:
    def behave(arrival: Arrival) -> Answer:
        return json_reply(status, {"errors": ["no"]}) if "bad" in arrival.tags else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(change("u", first=1))
            jobs = [change("u", a=1), change("u", bad=1), change("u", a=2), change("u", b=1)]
            ended = await outcomes_of(engine, list(jobs))
            assert [type(outcome) for outcome in ended] == [Accepted, Rejected, Accepted, Accepted]

    run_virtually(main())
    good = [arrival.tags for arrival in transport.arrivals if "bad" not in arrival.tags]
    assert good == [{"first": "1"}, {"a": "1"}, {"a": "2"}, {"b": "1"}]


def test_deadlines_take_jobs_out_of_what_waits_and_of_what_waits_for_its_permit(tmp_path: Path) -> None:
    transport = first([throttle("10")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(change("u", a=1))]
            await asyncio.sleep(0.5)
            jobs = [
                UpdateUser(external_id("u"), tags={"a": 2}, expires_in_s=3),
                UpdateUser(external_id("v"), tags={"a": 1}, expires_in_s=3),
                UpdateUser(external_id("u"), tags={"b": 1}, expires_in_s=300),
            ]
            receipts += [await engine.submit(job) for job in jobs]
            ended = [await settled(receipt) for receipt in receipts]
            assert [type(outcome) for outcome in ended] == [Accepted, Expired, Expired, Accepted]
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert [(arrival.user, arrival.tags) for arrival in transport.arrivals] == [
        ("u", {"a": "1"}),
        ("u", {"a": "1"}),
        ("u", {"b": "1"}),
    ]


def test_a_user_created_a_moment_ago_is_asked_again_for_a_minute_where_the_job_says_so(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: json_reply(404, {"errors": [{"code": "user-1", "title": "User not found"}]}))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            begin_s = now_s()
            assert isinstance(await settled(await engine.submit(change("u", a=1))), Rejected)
            assert len(transport.arrivals) == 1
            job = UpdateUser(external_id("v"), tags={"a": 1}, on_missing="retry")
            outcome = await settled(await engine.submit(job))
            assert isinstance(outcome, Rejected)
            assert outcome.status == 404
            assert 50 <= now_s() - begin_s <= 65

    run_virtually(main())


def test_a_user_who_turns_up_within_the_minute_is_updated(tmp_path: Path) -> None:
    transport = first([json_reply(404, {})] * 3)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            job = UpdateUser(external_id("u"), tags={"a": 1}, on_missing="retry")
            assert isinstance(await settled(await engine.submit(job)), Accepted)

    run_virtually(main())


def test_deltas_are_repeated_where_they_certainly_were_not_counted(tmp_path: Path) -> None:
    transport = first([throttle("1"), throttle("1", limit=PER_USER)])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            job = UpdateUser(external_id("u"), deltas={"session_count": 1})
            assert isinstance(await settled(await engine.submit(job)), Accepted)

    run_virtually(main())
    assert [arrival.body["deltas"] for arrival in transport.arrivals] == [{"session_count": 1}] * 3


@pytest.mark.parametrize("answer", [ReplyLostError("reset"), json_reply(503, {}), json_reply(408, {})])
def test_deltas_alone_that_may_have_been_counted_are_not_repeated(tmp_path: Path, answer: Answer) -> None:
    transport = first([answer])

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            receipt = await engine.submit(UpdateUser(external_id("u"), deltas={"session_count": 1}))
            assert isinstance(await settled(receipt), Ambiguous)
            assert isinstance(await engine.send(change("u", a=1)), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert len(transport.arrivals) == 2


@pytest.mark.parametrize("retry_after", ["0", "1"])
def test_a_429_for_the_lane_does_not_bring_a_users_requests_closer_together(tmp_path: Path, retry_after: str) -> None:
    transport = first([throttle(retry_after)], latency_s=0.01)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(change("u", a=1))

    run_virtually(main())
    one, other = transport.arrivals
    assert other.at_s - one.at_s >= 1.0 - MOMENT_S


def test_two_who_change_one_user_do_not_throttle_each_other_for_ever(tmp_path: Path) -> None:
    asked_s, accepted = [0.0], 0

    def behave(arrival: Arrival) -> Answer:
        nonlocal accepted
        asked_s.append(arrival.at_s)  # refused requests count
        if asked_s[-1] - asked_s[-2] < 1:
            return throttle("1", limit=PER_USER)
        accepted += 1
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            first = await engine.submit(change("u", a=1))
            await asyncio.sleep(0.5)
            other = await engine.submit(UpdateUser(alias("crm", "the same"), tags={"b": 1}))
            second = await engine.submit(change("u", a=2))
            for receipt in (first, other, second):
                assert isinstance(await settled(receipt), Accepted)
            assert now_s() < START_S + 300

    run_virtually(main())
    assert accepted == 3
    assert len(transport.arrivals) < 50


def test_alias_ids_go_into_the_path_whole(tmp_path: Path) -> None:
    transport = FakeTransport()
    names = ["a/b", "a b", "Müller?x=1&y#z", "..", "%2F", "日本", "a+b;c"]

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await outcomes_of(engine, [change(name, a=1) for name in names])

    run_virtually(main())
    assert sorted(transport.users) == sorted(names)
    assert all(arrival.path.count("/") == 6 for arrival in transport.arrivals)


def test_a_request_that_expired_while_it_waited_does_not_stop_the_others(tmp_path: Path) -> None:
    transport = first([throttle("5", limit=PER_USER)])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            late = await engine.submit(UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=2))
            assert isinstance(await settled(late), Expired)
            assert now_s() == pytest.approx(START_S + 2, abs=0.1)
            await asyncio.sleep(10)
            receipts = [await engine.submit(change("v", a=1))]
            await asyncio.sleep(0.2)
            receipts.append(await engine.submit(change("v", a=2)))
            begin_s = now_s()
            assert [type(await settled(receipt)) for receipt in receipts] == [Accepted] * 2
            assert now_s() - begin_s < 2

    run_virtually(main())


def test_a_users_hold_outlives_the_job_that_met_it(tmp_path: Path) -> None:
    transport = first([throttle("5", limit=PER_USER)])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            late = await engine.submit(UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=2))
            await asyncio.sleep(0.5)
            other = await engine.submit(change("u", b=1))
            assert isinstance(await settled(late), Expired)
            assert isinstance(await settled(other), Accepted)
            assert transport.arrivals[1].at_s - transport.arrivals[0].at_s >= 5

    run_virtually(main())


def test_a_deadline_ends_its_own_job_and_not_those_that_were_merged_with_it(tmp_path: Path) -> None:
    transport = first([ReplyLostError("reset")])

    async def main() -> list[Outcome]:
        async with make_engine(tmp_path, transport, retry=RetrySettings(lost_reply_wait_s=20)) as engine:
            engine.pause()
            short = await engine.submit(UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=5))
            patient = await engine.submit(UpdateUser(external_id("u"), tags={"b": 2}))
            engine.unpause()
            return [await settled(short), await settled(patient)]

    gave_up, accepted = run_virtually(main())
    assert isinstance(gave_up, GaveUp)
    assert gave_up.maybe_sent
    assert isinstance(accepted, Accepted)
    lost, repeat = transport.arrivals
    assert (lost.tags, repeat.tags) == ({"a": "1", "b": "2"}, {"b": "2"})
    assert repeat.at_s - lost.at_s >= 20


def test_what_may_have_taken_effect_is_not_turned_back_by_the_repeat_of_what_came_before_it(tmp_path: Path) -> None:
    transport = first([ReplyLostError("reset")])

    async def main() -> list[Outcome]:
        async with make_engine(tmp_path, transport, retry=RetrySettings(lost_reply_wait_s=20)) as engine:
            engine.pause()
            patient = await engine.submit(UpdateUser(external_id("u"), tags={"a": 1, "b": 1}))
            short = await engine.submit(UpdateUser(external_id("u"), tags={"b": 2, "c": 2}, expires_in_s=5))
            engine.unpause()
            return [await settled(patient), await settled(short)]

    accepted, gave_up = run_virtually(main())
    assert isinstance(accepted, Accepted)
    assert isinstance(gave_up, GaveUp)
    assert gave_up.maybe_sent
    lost, repeat = transport.arrivals
    assert (lost.tags, repeat.tags) == ({"a": "1", "b": "2", "c": "2"}, {"a": "1", "b": "2"})


def test_what_may_have_been_received_never_ends_as_expired_however_it_was_taken_apart(tmp_path: Path) -> None:
    transport = first([ReplyLostError("reset")])

    async def main() -> list[Outcome]:
        async with make_engine(tmp_path, transport, retry=RetrySettings(lost_reply_wait_s=20)) as engine:
            engine.pause()
            updates = [UpdateUser(external_id("u"), tags={"a": n}, expires_in_s=n) for n in (5, 8, 30)]
            receipts = [await engine.submit(update) for update in updates]
            engine.unpause()
            return [await settled(receipt) for receipt in receipts]

    first_over, second_over, accepted = run_virtually(main())
    for outcome in (first_over, second_over):
        assert isinstance(outcome, GaveUp)
        assert outcome.maybe_sent
    assert isinstance(accepted, Accepted)
    assert [arrival.tags for arrival in transport.arrivals] == [{"a": "30"}] * 2
