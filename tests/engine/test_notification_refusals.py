"""Notifications that are refused, lost or parted: what becomes of each recipient, and of each job."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sendengine import (
    Accepted,
    GaveUp,
    Receipt,
    Rejected,
    ReplyLostError,
    SendEngine,
    Unreachable,
)
from sendengine.engine.source import AT_ONCE
from sendengine.settings import BatchingSettings, CeilingSettings
from tests.support.engines import (
    CREATE,
    SOON,
    assert_nothing_leaked,
    lane_of,
    make_engine,
    make_settings,
    note,
    now_s,
    settled,
    until,
)
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, first, json_reply, refuse, throttle
from tests.support.journalled import Watcher
from tests.support.virtual_loop import run_virtually


def behave_with(bad: set[str], *, says: str = "no") -> Any:
    def behave(arrival: Arrival) -> Answer:
        return refuse(says) if bad.intersection(arrival.ids) else accept(arrival)

    return behave


def test_recipients_that_a_refusal_names_are_left_out_and_the_others_go_again(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        if "bad" in arrival.ids:
            return json_reply(400, {"errors": ["Incorrect id: [bad]"]})
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(name)) for name in ("a", "bad", "b")]
            assert [type(await settled(receipt)) for receipt in receipts] == [Accepted, Rejected, Accepted]

    run_virtually(main())
    assert [arrival.ids for arrival in transport.arrivals] == [["a", "bad", "b"], ["a", "b"]]
    assert transport.arrivals[0].key != transport.arrivals[1].key


@pytest.mark.parametrize("bad_ones", [1, 2, 20])
def test_poisoned_recipients_cost_2_k_log_n_requests_and_no_good_one(tmp_path: Path, bad_ones: int) -> None:
    bad = {f"u{997 * number % 2000}" for number in range(bad_ones)}
    transport = FakeTransport(behave_with(bad))
    ids = [f"u{number}" for number in range(2000)]

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            assert isinstance(await engine.send(note("somebody else")), Accepted)  # the message is good
            receipt = await engine.submit(note(*ids))
            outcome = await settled(receipt)
            assert isinstance(outcome, Rejected)
            assert set(outcome.not_sent) == bad
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert len(transport.arrivals) - 2 <= 2 * bad_ones * 11
    sent = Counter(name for one in transport.arrivals[1:] if not bad.intersection(one.ids) for name in one.ids)
    assert sent == dict.fromkeys(set(ids) - bad, 1)


def test_a_message_at_fault_is_said_once_for_all_and_tried_again_after_a_minute(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: refuse("Message Notifications must have English language content"))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(f"u{number}")) for number in range(500)]
            for receipt in receipts:
                outcome = await settled(receipt)
                assert isinstance(outcome, Rejected)
                assert outcome.errors == ("Message Notifications must have English language content",)
            assert len(transport.arrivals) == 1
            assert isinstance(await settled(await engine.submit(note("more"))), Rejected)
            assert len(transport.arrivals) == 1
            transport.behaviour = accept  # somebody has mended the template
            await asyncio.sleep(61)
            assert isinstance(await engine.send(note("more")), Accepted)

    run_virtually(main())


def test_what_waits_with_a_message_at_fault_is_refused_a_part_in_each_turn(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: refuse("contents: bad") if arrival.text == "bad" else accept(arrival))
    slow = {"ceilings": CeilingSettings(create_notification=20)}
    refused: list[int] = []  # by each look for what may go

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=slow) as engine:
            lane = lane_of(engine)
            pull = lane.source.pull

            def counted(*, now_s: float, prefer_normal: bool) -> Any:
                before = lane.books.unsettled
                sealed = pull(now_s=now_s, prefer_normal=prefer_normal)
                refused.append(before - lane.books.unsettled)
                return sealed

            lane.source.pull = counted  # type: ignore[method-assign]
            jobs = [note(f"u{number}", text="bad", pack=False) for number in range(2000)]
            receipts = [engine.submit_nowait(job) for job in jobs]
            good = engine.submit_nowait(note("after them", text="good", pack=False))
            assert {type(await settled(receipt)) for receipt in receipts} == {Rejected}
            assert isinstance(await settled(good), Accepted)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert max(refused) == AT_ONCE
    assert len(transport.arrivals) + sum(refused) == 2001


def test_other_messages_go_while_one_is_at_fault(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: refuse() if arrival.text == "bad" else accept(arrival))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            bad = await engine.submit(note(*[f"u{number}" for number in range(100)], text="bad"))
            good = await engine.submit(note(*[f"u{number}" for number in range(100)], text="good"))
            assert isinstance(await settled(bad), Rejected)
            assert isinstance(await settled(good), Accepted)

    run_virtually(main())
    assert sum(arrival.text == "bad" for arrival in transport.arrivals) == 5


def test_a_trial_that_ends_with_a_refusal_shows_that_and_no_split(tmp_path: Path) -> None:
    watcher = Watcher()
    transport = FakeTransport()

    def behave(arrival: Arrival) -> Answer:
        if arrival.number == 2:
            return json_reply(503, {})  # so that it is the last of the four
        return refuse() if arrival.number == 1 or arrival.ids == transport.arrivals[1].ids else accept(arrival)

    transport.behaviour = behave

    async def main() -> None:
        settings = make_settings(tmp_path)
        async with SendEngine(settings, observer=watcher, open_transport=lambda *_: transport) as engine:
            receipt = await engine.submit(note(*[f"u{number}" for number in range(100)]))
            assert isinstance(await settled(receipt), Rejected)

    run_virtually(main())
    shown = [(record.outcome, record.recipients) for record in watcher.records]
    assert shown == [("split", 100), *[("accepted", 1)] * 3, ("rejected", 1), ("accepted", 96)]
    ((_, part),) = watcher.records[4].parts
    assert list(part.recipients) == transport.arrivals[1].ids


def test_those_who_are_given_up_with_a_trial_are_not_said_to_have_been_in_its_request(tmp_path: Path) -> None:
    watcher = Watcher()
    transport = FakeTransport(lambda _: refuse())

    async def main() -> None:
        settings = make_settings(tmp_path)
        async with SendEngine(settings, observer=watcher, open_transport=lambda *_: transport) as engine:
            receipt = await engine.submit(note(*[f"u{number}" for number in range(100)]))
            outcome = await settled(receipt)
            assert isinstance(outcome, Rejected)
            assert len(outcome.not_sent) == 100
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert [record.recipients for record in watcher.records] == [100, 1, 1, 1, 1]
    for record in watcher.records[1:]:
        ((_, part),) = record.parts
        assert len(part.recipients) == 1
    assert sum(len(part.recipients) for part in watcher.parts[0]) == 100


def test_nothing_of_a_trial_is_lost_when_the_engine_stops(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: refuse(), latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note(*[f"u{number}" for number in range(100)]))
            await until(lambda: len(transport.arrivals) == 5)
            await engine.abort(grace_s=0)
            outcome = await settled(receipt)
            assert len(outcome.not_sent) == 100  # type: ignore[union-attr]
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_a_refusal_soon_after_an_attempt_that_may_have_been_received_is_not_believed(tmp_path: Path) -> None:
    transport = first([ReplyLostError("reset"), refuse(), refuse()])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            begin_s = now_s()
            receipt = await engine.submit(note("a", urgency="high"))  # goes again after two seconds
            outcome = await settled(receipt)
            assert isinstance(outcome, Rejected)
            assert now_s() - begin_s >= 100  # by then the first attempt is over, and the refusal definite

    run_virtually(main())
    assert len({arrival.key for arrival in transport.arrivals}) == 1


# Jobs of several requests


def test_a_job_of_several_requests_settles_with_the_worst_and_names_who_was_not_reached(tmp_path: Path) -> None:
    caps = BatchingSettings(max_recipients_per_request=2)

    def behave(arrival: Arrival) -> Answer:
        if "c" in arrival.ids:
            return json_reply(200, {"id": "", "errors": ["All included players are not subscribed"]})
        if "e" in arrival.ids:
            return refuse("Incorrect: [e]")
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> Receipt:
        async with make_engine(tmp_path, transport, batching=caps) as engine:
            receipt = await engine.submit(note("a", "b", "c", "d", "e", "f"))
            outcome = await settled(receipt)
            assert isinstance(outcome, Rejected)
            assert sorted(outcome.not_sent) == ["c", "d", "e"]
            assert_nothing_leaked(engine, transport)
            return receipt

    receipt = run_virtually(main())
    parts = {part.recipients: type(part.outcome) for part in receipt.parts}
    assert parts == {("a", "b"): Accepted, ("c", "d"): Unreachable, ("e",): Rejected, ("f",): Accepted}


def test_accepted_in_several_requests_has_all_message_ids_and_all_unsubscribed(tmp_path: Path) -> None:
    caps = BatchingSettings(max_recipients_per_request=2)

    def behave(arrival: Arrival) -> Answer:
        errors = {"invalid_aliases": {"external_id": [arrival.ids[0], "a stranger"]}}
        return json_reply(200, {"id": f"message-{arrival.number}", "errors": errors})

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport, batching=caps) as engine:
            outcome = await engine.send(note("a", "b", "c"))
            assert sorted(outcome.message_ids) == ["message-1", "message-2"]
            assert sorted(outcome.unsubscribed) == ["a", "c"]
            assert (outcome.attempts, outcome.shared_with) == (2, 0)

    run_virtually(main())


def test_a_replay_is_told(tmp_path: Path) -> None:
    transport = first([ReplyLostError("reset"), json_reply(200, {"id": "m"}, idempotent_replayed="true")])

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            assert await engine.send(note("a")) == Accepted(("m",), replayed=True, attempts=2)

    run_virtually(main())


def test_a_normal_job_gives_up_after_ten_failures_while_the_rest_of_its_lane_is_answered(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        return json_reply(503, {}) if arrival.ids == ["bad"] else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(note("good"))
            bad = await engine.submit(note("bad", text="bad"))
            while not bad.is_settled:
                await engine.send(note("good"))
                await asyncio.sleep(1)
            outcome = await settled(bad)
            assert isinstance(outcome, GaveUp)
            assert (outcome.attempts, outcome.maybe_sent, outcome.not_sent) == (10, True, ("bad",))
            assert "503" in outcome.last

    run_virtually(main())


def test_the_oldest_that_waits_is_in_the_stats(tmp_path: Path) -> None:
    transport = first([throttle("30")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.submit(note("a", urgency="high"))
            await asyncio.sleep(1)
            await engine.submit(note("b"))
            await asyncio.sleep(7)
            lane = engine.stats().lanes[CREATE]
            assert lane.depth == 2
            assert lane.oldest_age_s == pytest.approx(8)  # the one that was refused
            await engine.abort()

    run_virtually(main())


def test_a_deadline_that_passes_before_a_lost_request_could_be_repeated_gives_up(tmp_path: Path) -> None:
    transport = first([ReplyLostError("reset"), throttle("60")])

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            begin_s = now_s()
            outcome = await settled(await engine.submit(note("a", expires_in_s=20)))
            assert isinstance(outcome, GaveUp)
            assert (outcome.maybe_sent, outcome.not_sent) == (True, ("a",))
            assert now_s() - begin_s <= 21
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_a_refused_channel_is_not_believed_while_a_first_attempt_may_be_at_work(tmp_path: Path) -> None:
    no_plan = json_reply(403, {"errors": ["This API is not available for applications on your plan."]})
    transport = first([ReplyLostError("reset"), no_plan, no_plan])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            begin_s = now_s()
            outcome = await settled(await engine.submit(note("a", urgency="high")))
            assert isinstance(outcome, Rejected)
            assert now_s() - begin_s >= 100

    run_virtually(main())


def test_a_known_good_message_is_halved_and_a_doubtful_one_asked_about(tmp_path: Path) -> None:
    transport = FakeTransport(behave_with({"u3"}))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(note("known", text="good"))
            await settled(await engine.submit(note(*[f"u{n}" for n in range(8)], text="good")))
            await settled(await engine.submit(note(*[f"u{n}" for n in range(8)], text="doubtful")))

    run_virtually(main())
    sizes = [(arrival.text, len(arrival.ids)) for arrival in transport.arrivals]
    assert sizes[1:4] == [("good", 8), ("good", 4), ("good", 4)]
    doubtful = [size for text, size in sizes if text == "doubtful"]
    assert doubtful[:5] == [8, 1, 1, 1, 1]
