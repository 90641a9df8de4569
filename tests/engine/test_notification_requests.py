"""Notifications through an engine: who rides with whom, under which key, and what a refusal means for each."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sendengine import (
    Accepted,
    CreateNotification,
    Expired,
    Job,
    ReplyLostError,
    alias,
    email,
    external_id,
    filters,
    onesignal_id,
    phone_number,
    segments,
    subscription_id,
)
from sendengine.core.jobs import Json
from sendengine.settings import BatchingSettings
from tests.support.engines import (
    SOON,
    assert_nothing_leaked,
    lane_of,
    make_engine,
    note,
    now_s,
    outcomes_of,
    settled,
)
from tests.support.fake_transport import Answer, FakeTransport, accept, first, json_reply, throttle
from tests.support.virtual_loop import run_virtually

TEXT = {"contents": {"en": "x"}}
UUID_ID = "3b241101-e2bb-4255-8caf-4136c566a962"


@pytest.mark.parametrize(
    ("job", "fields"),
    [
        (note("a"), {"include_aliases": {"external_id": ["a"]}, "target_channel": "push"}),
        (
            CreateNotification(to=onesignal_id(UUID_ID), channel="email", message=TEXT),
            {"include_aliases": {"onesignal_id": [UUID_ID]}, "target_channel": "email"},
        ),
        (
            CreateNotification(to=alias("crm", "1"), channel="sms", message=TEXT),
            {"include_aliases": {"crm": ["1"]}, "target_channel": "sms"},
        ),
        (CreateNotification(to=subscription_id(UUID_ID), message=TEXT), {"include_subscription_ids": [UUID_ID]}),
        (CreateNotification(to=email("a@example.org"), message=TEXT), {"email_to": ["a@example.org"]}),
        (CreateNotification(to=phone_number("+4930123"), message=TEXT), {"include_phone_numbers": ["+4930123"]}),
        (
            CreateNotification(to=segments("A", excluded=["B"]), channel="push", message=TEXT),
            {"included_segments": ["A"], "excluded_segments": ["B"], "target_channel": "push"},
        ),
        (
            CreateNotification(to=filters([{"field": "country", "value": "DE"}]), message=TEXT),
            {"filters": [{"field": "country", "value": "DE"}]},
        ),
    ],
)
def test_every_kind_of_target_goes_in_its_own_field(tmp_path: Path, job: Job, fields: dict[str, object]) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            assert isinstance(await settled(await engine.submit(job)), Accepted)

    run_virtually(main())
    body = transport.arrivals[0].body
    assert UUID(body.pop("idempotency_key"))
    del body["app_id"], body["contents"]
    assert body == fields


def test_only_what_is_alike_shares_a_request(tmp_path: Path) -> None:
    transport = FakeTransport()
    groups: list[list[Job]] = [
        [note("a"), note("b"), CreateNotification(to=external_id("c"), channel="push", message=note("c").message)],
        [note("d", text="other")],
        [CreateNotification(to=external_id("e"), channel="email", message=note("e").message)],
        [CreateNotification(to=alias("crm", "f"), channel="push", message=note("f").message)],
        [note("g", urgency="high")],
        [note("h", pack=False)],
        [note("i", idempotency_key="k")],
        [note("j", urgency="high", pack=True), note("k", urgency="high", pack=True)],
        [note("l", expires_in_s=3600), note("m", expires_in_s=3600)],
        [note("n", expires_in_s=7200)],
    ]

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(job) for jobs in groups for job in jobs]
            for receipt in receipts:
                assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())
    assert sorted(arrival.ids for arrival in transport.arrivals) == [
        [job.to.ids[0] for job in jobs if isinstance(job, CreateNotification)] for jobs in groups
    ]


def test_a_recipient_is_never_named_twice_in_a_request(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            ended = await outcomes_of(engine, [note("a", "b", "a"), note("a"), note("b", "c")])
            assert {type(outcome) for outcome in ended} == {Accepted}

    run_virtually(main())
    assert all(len(arrival.ids) == len(set(arrival.ids)) for arrival in transport.arrivals)
    assert transport.deliveries == {"a": 3, "b": 2, "c": 1}


def test_packs_keep_to_the_cap_and_lose_and_double_nobody(tmp_path: Path) -> None:
    transport = FakeTransport()
    caps = BatchingSettings(max_recipients_per_request=7, max_request_bytes=1000)

    async def main() -> None:
        async with make_engine(tmp_path, transport, batching=caps) as engine:
            jobs = [note(*[f"u{number}-{k}" for k in range(number % 12 + 1)]) for number in range(60)]
            ended = await outcomes_of(engine, list(jobs))
            assert {type(outcome) for outcome in ended} == {Accepted}
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert max(len(arrival.ids) for arrival in transport.arrivals) == 7
    assert transport.deliveries == {f"u{number}-{k}": 1 for number in range(60) for k in range(number % 12 + 1)}


def test_a_backlog_behind_a_hold_packs_better(tmp_path: Path) -> None:
    transport = first([throttle("5")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note("first", urgency="high"))]
            await asyncio.sleep(0.5)
            for number in range(200):
                receipts.append(await engine.submit(note(f"u{number}")))
                await asyncio.sleep(0.02)
            for receipt in receipts:
                await settled(receipt)

    run_virtually(main())
    assert [len(arrival.ids) for arrival in transport.arrivals] == [1, 1, 200]


def test_linger_is_waited_for_and_no_longer(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, batching=BatchingSettings(linger_ms=200)) as engine:
            begin_s = now_s()
            receipts = [await engine.submit(note("a"))]
            await asyncio.sleep(0.15)
            receipts.append(await engine.submit(note("b")))
            for receipt in receipts:
                await settled(receipt)
            (arrival,) = transport.arrivals
            assert arrival.ids == ["a", "b"]
            assert arrival.at_s - begin_s == pytest.approx(0.2, abs=0.01)

    run_virtually(main())


def test_the_ttl_is_what_is_left_until_the_deadline_where_the_message_says_nothing(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.send(note("a", expires_in_s=90))
            await engine.send(note("b", text="no deadline"))
            message: dict[str, Json] = {"contents": {"en": "own"}, "ttl": 5}
            await engine.send(CreateNotification(to=external_id("c"), channel="push", message=message, expires_in_s=90))

    run_virtually(main())
    assert [arrival.body.get("ttl") for arrival in transport.arrivals] == [89, None, 5]


@pytest.mark.parametrize("urgency", ["normal", "high"])
def test_a_deadline_may_be_a_time_of_day_and_one_that_has_passed_expires_at_once(tmp_path: Path, urgency: Any) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            soon = datetime.now(UTC) + timedelta(seconds=90)
            await engine.send(note("a", expires_at=soon, urgency=urgency))
            late = await engine.submit(note("b", expires_at=datetime.now(UTC) - timedelta(seconds=1), urgency=urgency))
            begin_s = now_s()
            assert await settled(late) == Expired(("b",))
            assert now_s() == begin_s
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    (arrival,) = transport.arrivals
    assert 85 <= arrival.body["ttl"] <= 90


def test_a_high_job_passes_a_backlog_at_the_ceiling(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            for number in range(12_000):
                await engine.submit(note("a", text=str(number)))
            await asyncio.sleep(1)
            waited = []
            for number in range(50):
                begin_s = now_s()
                await engine.submit(note("b", text=f"high {number}", urgency="high"))
                await asyncio.sleep(0.0137)
                waited += [one.at_s - begin_s for one in transport.arrivals[-300:] if one.text == f"high {number}"]
            assert len(waited) >= 48
            assert max(waited) <= 0.02
            assert lane_of(engine).waiting > 1000  # all the while
            await engine.abort()

    run_virtually(main())


def test_a_retry_is_the_same_body_byte_for_byte(tmp_path: Path) -> None:
    answers: list[Answer] = [ReplyLostError("reset"), json_reply(503, {}), throttle("7"), json_reply(500, "")]
    transport = first(answers)

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            receipts = [
                await engine.submit(note("a", expires_in_s=600)),
                await engine.submit(note("b", expires_in_s=600)),
            ]
            for receipt in receipts:
                outcome = await settled(receipt)
                assert isinstance(outcome, Accepted)
                assert outcome.attempts == 4  # a throttled attempt is none

    run_virtually(main())
    assert [arrival.body for arrival in transport.arrivals] == [transport.arrivals[0].body] * 5


def test_a_deadline_that_passes_before_the_permit_expires_its_job_alone(tmp_path: Path) -> None:
    transport = first([throttle("30")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [
                await engine.submit(note("late", expires_in_s=9)),
                await engine.submit(note("early", expires_in_s=9.5)),
                await engine.submit(note("never", text="other")),
            ]
            ended = [await settled(receipt) for receipt in receipts]
            assert [type(outcome) for outcome in ended] == [Expired, Expired, Accepted]
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_members_of_a_pack_with_a_later_deadline_go_on_without_those_that_expired(tmp_path: Path) -> None:
    transport = first([throttle("5")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            # The deadlines lie in the same minute, so that they share a request; it is refused, and waits.
            assert now_s() % 60 == pytest.approx(40)
            receipts = [await engine.submit(note("a", expires_in_s=3)), await engine.submit(note("b", expires_in_s=15))]
            ended = [await settled(receipt) for receipt in receipts]
            assert [type(outcome) for outcome in ended] == [Expired, Accepted]
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    refused, again = transport.arrivals
    assert (refused.ids, again.ids) == (["a", "b"], ["b"])
    assert refused.key != again.key


def test_hundreds_of_packs_of_which_some_expire_in_one_instant_go_on_with_the_others(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: throttle("5") if arrival.number <= 400 else accept(arrival), 0.2)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = []
            for number in range(400):  # of each message two in the same minute; they share a request, which is refused
                receipts.append(engine.submit_nowait(note("a", text=str(number), expires_in_s=3)))
                receipts.append(engine.submit_nowait(note("b", text=str(number), expires_in_s=15)))
            ended = [await settled(receipt) for receipt in receipts]
            assert [type(outcome) for outcome in ended] == [Expired, Accepted] * 400
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert [arrival.ids for arrival in transport.arrivals] == [["a", "b"]] * 400 + [["b"]] * 400
