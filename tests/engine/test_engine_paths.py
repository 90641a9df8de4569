"""What each kind of answer does to a job, on a virtual clock."""

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from sendengine import (
    Abandoned,
    Accepted,
    Ambiguous,
    AppHeldError,
    CreateNotification,
    Expired,
    GaveUp,
    NotSentError,
    Rejected,
    ReplyLostError,
    Unreachable,
    UpdateUser,
    external_id,
    segments,
)
from tests.support.engines import CREATE, MOMENT_S, SOON, UPDATE, change, make_engine, note
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, first, json_reply, throttle
from tests.support.virtual_loop import run_virtually


def test_jobs_of_one_message_share_a_request(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(f"u{n}")) for n in range(50)]
            assert {await receipt for receipt in receipts} == {Accepted(("message-1",), shared_with=49)}

    run_virtually(main())
    assert [len(arrival.ids) for arrival in transport.arrivals] == [50]


def test_a_lone_high_job_goes_at_once(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            now_s = asyncio.get_running_loop().time()
            await engine.send(note("u1", urgency="high"))
            assert transport.arrivals[0].at_s == now_s

    run_virtually(main())


def test_the_ids_that_the_reply_names_are_unsubscribed(tmp_path: Path) -> None:
    transport = first([json_reply(200, {"id": "m", "errors": {"invalid_aliases": {"external_id": ["b", "b"]}}})])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            outcome = await (await engine.submit(note("a", "b", "c")))
            assert outcome == Accepted(("m",), unsubscribed=("b",))

    run_virtually(main())


def test_an_empty_id_is_unreachable(tmp_path: Path) -> None:
    transport = first([json_reply(200, {"id": "", "errors": ["All included players are not subscribed"]})])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            outcome = await (await engine.submit(note("a")))
            assert outcome == Unreachable(("All included players are not subscribed",), not_sent=("a",))

    run_virtually(main())


def test_a_throttled_request_goes_again_under_its_key_and_uses_up_no_attempt(tmp_path: Path) -> None:
    transport = first([throttle("3")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            assert await (await engine.submit(note("a"))) == Accepted(("message-2",))

    run_virtually(main())
    refused, again = transport.arrivals
    assert refused.key == again.key
    assert again.at_s >= refused.at_s + transport.latency_s + 3 - MOMENT_S


def test_nothing_is_sent_inside_a_hold(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: throttle("2") if arrival.number == 500 else accept(arrival))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(f"u{n}", text=str(n))) for n in range(3000)]
            for receipt in receipts:
                assert isinstance(await receipt, Accepted)
            assert engine.stats().lanes[CREATE].epochs == 1

    run_virtually(main())
    told_s = transport.arrivals[499].at_s + transport.latency_s
    assert not [arrival for arrival in transport.arrivals if told_s < arrival.at_s < told_s + 2 - MOMENT_S]
    assert Counter(transport.deliveries.values()) == {1: 2999, 2: 1}


@pytest.mark.parametrize(
    "answer",
    [
        ReplyLostError("reset"),
        json_reply(503, {"errors": ["busy"]}),
        NotSentError("refused"),
        json_reply(200, "<html>"),
    ],
)
def test_a_failed_attempt_is_repeated_under_its_key(tmp_path: Path, answer: Answer) -> None:
    transport = first([answer])

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            assert await (await engine.submit(note("a"))) == Accepted(("message-2",), attempts=2)

    run_virtually(main())
    assert transport.arrivals[0].key == transport.arrivals[1].key


def test_a_refused_message_costs_five_requests_and_the_next_ones_nothing(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: json_reply(400, {"errors": ["no"]}))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            ids = tuple(f"u{n}" for n in range(2000))
            outcome = await (await engine.submit(note(*ids)))
            assert isinstance(outcome, Rejected)
            assert set(outcome.not_sent) == set(ids)
            assert isinstance(await (await engine.submit(note("more"))), Rejected)

    run_virtually(main())
    assert len(transport.arrivals) == 5


def test_poisoned_recipients_are_isolated_and_all_others_sent(tmp_path: Path) -> None:
    poison = {"u7", "u1234"}

    def behave(arrival: Arrival) -> Answer:
        return json_reply(400, {"errors": ["no"]}) if poison.intersection(arrival.ids) else accept(arrival)

    transport = FakeTransport(behave)
    ids = tuple(f"u{n}" for n in range(2000))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note(*ids))
            outcome = await receipt
            assert isinstance(outcome, Rejected)
            assert set(outcome.not_sent) == poison
            assert sorted(item for part in receipt.parts for item in part.recipients) == sorted(ids)

    run_virtually(main())
    sent = Counter(item for one in transport.arrivals if not poison.intersection(one.ids) for item in one.ids)
    assert sent == Counter(set(ids) - poison)


def test_a_wrong_key_costs_one_request_and_holds_the_app_until_it_is_resumed(tmp_path: Path) -> None:
    transport = first([json_reply(403, {"errors": ["Access denied.  Please include an 'Authorization: ...' header"]})])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(1)
            assert len(transport.arrivals) == 1
            with pytest.raises(AppHeldError, match="key"):
                await engine.submit(note("b"))
            engine.resume_app("shop")
            assert isinstance(await receipt, Accepted)

    run_virtually(main())


def test_updates_of_one_user_arrive_in_order_a_second_apart(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = []
            for level in range(300):
                receipts.append(await engine.submit(change("u", level=level)))
                await asyncio.sleep(0.01)
            for receipt in receipts:
                assert isinstance(await receipt, Accepted)

    run_virtually(main())
    times = [arrival.at_s for arrival in transport.arrivals]
    assert all(after - before >= 1.0 for before, after in pairwise(times))
    levels = [int(arrival.body["properties"]["tags"]["level"]) for arrival in transport.arrivals]
    assert levels == sorted(levels)
    assert levels[-1] == 299
    assert len(times) <= 5


def test_a_users_429_slows_that_user_only(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        if arrival.number == 1:
            return throttle("5", limit="Subscription/User Update Per Device")
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            slow = await engine.submit(change("slow", a=1))
            await asyncio.sleep(0.5)
            await engine.send(change("quick", a=1))
            assert not slow.is_settled
            assert isinstance(await slow, Accepted)
            assert engine.stats().lanes[UPDATE].epochs == 0

    run_virtually(main())
    assert [arrival.path.rpartition("/")[2] for arrival in transport.arrivals] == ["slow", "quick", "slow"]
    assert transport.arrivals[2].at_s >= transport.arrivals[0].at_s + 5 - MOMENT_S


def test_a_refused_merge_is_taken_apart(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        bad = arrival.body["properties"]["tags"].get("bad")
        return json_reply(400, {"errors": ["bad tag"]}) if bad else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(change("u", first=1))
            jobs = [change("u", a=1), change("u", bad=1), change("u", b=2)]
            outcomes = [await receipt for receipt in [await engine.submit(job) for job in jobs]]
            assert [type(outcome) for outcome in outcomes] == [Accepted, Rejected, Accepted]

    run_virtually(main())


def test_deltas_that_may_have_been_counted_are_ambiguous_and_tags_go_again(tmp_path: Path) -> None:
    transport = first([ReplyLostError("reset")])

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            job = UpdateUser(external_id("u"), tags={"a": 1}, deltas={"session_count": 1})
            assert isinstance(await (await engine.submit(job)), Ambiguous)

    run_virtually(main())
    once, again = transport.arrivals
    assert once.body == {"properties": {"tags": {"a": "1"}}, "deltas": {"session_count": 1}}
    assert again.body == {"properties": {"tags": {"a": "1"}}}


def test_a_deadline_that_passes_in_a_hold_is_expired(tmp_path: Path) -> None:
    transport = first([throttle("60")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            blocking = await engine.submit(note("a", urgency="high"))
            await asyncio.sleep(1)
            late = await engine.submit(note("b", expires_in_s=5))
            assert await late == Expired(("b",))
            assert isinstance(await blocking, Accepted)

    run_virtually(main())


def test_an_outage_is_probed_and_sending_resumes(tmp_path: Path) -> None:
    loop_start = 1_000.0

    def behave(arrival: Arrival) -> Answer:
        return NotSentError("refused") if arrival.at_s < loop_start + 30 else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            async for _, outcome in engine.map(note(f"u{n}", text=str(n)) for n in range(3000)):
                assert isinstance(outcome, Accepted)

    run_virtually(main())
    during = [arrival for arrival in transport.arrivals if arrival.at_s < loop_start + 30]
    after = [arrival.at_s for arrival in transport.arrivals if arrival.at_s >= loop_start + 30]
    assert len(during) < 1500  # what was on the wire, and the moment that it takes to tell an outage from a goodbye
    assert after[0] < loop_start + 32


def test_high_jobs_give_up_after_ten_attempts(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: json_reply(503, {}))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            outcome = await (await engine.submit(note("a", urgency="high")))
            assert isinstance(outcome, GaveUp)
            assert outcome.maybe_sent
            assert outcome.not_sent == ("a",)

    run_virtually(main())
    assert len(transport.arrivals) <= 10


def test_drain_sends_what_waits(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(f"u{n}", text=str(n))) for n in range(1000)]
        assert all(isinstance(receipt.outcome, Accepted) for receipt in receipts)

    run_virtually(main())
    assert transport.under_way == 0


def test_abort_abandons_what_waits_and_lets_the_wire_finish(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(f"u{n}", text=str(n))) for n in range(6000)]
            await asyncio.sleep(0.5)
            on_the_wire = len(transport.arrivals)
            await engine.abort()
            kinds = Counter(type(receipt.outcome) for receipt in receipts)
            assert kinds == {Accepted: on_the_wire, Abandoned: 6000 - on_the_wire}

    run_virtually(main())
    assert transport.under_way == 0
    assert transport.is_closed


def test_a_segment_goes_alone(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            job = CreateNotification(to=segments("All"), channel="push", message={"contents": {"en": "x"}})
            assert await (await engine.submit(job)) == Accepted(("message-1",))

    run_virtually(main())
    assert transport.arrivals[0].body["included_segments"] == ["All"]
