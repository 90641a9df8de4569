"""What a process finds that an earlier one left: what goes again, as what, when, and what does not."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from sendengine import (
    Accepted,
    Ambiguous,
    AppHeldError,
    CreateNotification,
    Expired,
    GaveUp,
    Job,
    Outcome,
    Receipt,
    Rejected,
    UpdateUser,
    external_id,
    segments,
)
from sendengine.ports import Part, RecoveredJob, RecoveredRequest, Seal
from sendengine.settings import IntakeSettings, JournalSettings, RetrySettings
from tests.support.engines import CREATE, UPDATE, assert_nothing_leaked, change, note, settled
from tests.support.events import listening
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport, first, json_reply, refuse
from tests.support.journalled import KEY, FakeSlots, Watcher, assert_nothing_left, durable, kill, seal_of
from tests.support.virtual_loop import run_virtually

WAIT_S = 100.0
HIGH_WAIT_S = 2.0
DELTA = UpdateUser(external_id("u"), tags={"a": 1}, deltas={"session_count": 1})


def left(disk: Disk, *jobs: Job, age_s: float = 0.0, **options: object) -> list[int]:
    """Put jobs on a disk, as an earlier process would have left them; returns their ids."""
    ids = []
    for job in jobs:
        disk.last_id += 1
        ids.append(disk.last_id)
        disk.jobs[disk.last_id] = RecoveredJob(disk.last_id, job, "shop", time.time() - age_s, **options)  # type: ignore[arg-type]
    return ids


def left_sealed(disk: Disk, seal: Seal, *, age_s: float = 0.0) -> int:
    disk.last_id += 1
    disk.requests[disk.last_id] = RecoveredRequest(disk.last_id, seal, time.time() - age_s)
    return disk.last_id


def recover(folder: Path, disk: Disk, transport: FakeTransport, **options: object) -> tuple[list[Outcome], Watcher]:
    """Let a process recover a disk and settle everything; returns the outcomes in the order of acceptance."""
    watcher = Watcher()

    async def main() -> list[Outcome]:
        journal = FakeJournal(disk)
        async with durable(folder, transport, journal, observer=watcher, **options) as engine:  # type: ignore[arg-type]
            assert not watcher.jobs, "whoever opened the engine can attach itself first"
            outcomes = [await settled(one.receipt) for one in engine.recovered]
        assert_nothing_left(engine, transport, disk)
        return outcomes

    return run_virtually(main()), watcher


@pytest.mark.parametrize(("urgency", "wait_s"), [("normal", WAIT_S), ("high", HIGH_WAIT_S)])
def test_a_sealed_request_goes_again_byte_for_byte_after_its_wait_and_the_others_at_once(
    tmp_path: Path, urgency: str, wait_s: float
) -> None:
    disk, transport = Disk(), FakeTransport()
    whole, cut = left(disk, note("a", urgency=urgency), note("b", "c", "d", urgency=urgency))
    left(disk, note("e"), note("f"))
    seal = seal_of((whole, ("a",)), (cut, ("b", "d")))
    left_sealed(disk, seal)
    outcomes, watcher = recover(tmp_path, disk, transport)
    assert [type(outcome) for outcome in outcomes] == [Accepted] * 4
    times = {arrival.key: arrival.at_s - 1000 for arrival in transport.arrivals}
    assert times.pop(KEY) == pytest.approx(wait_s, abs=0.05)
    assert max(times.values()) < 0.2
    again = next(arrival for arrival in transport.arrivals if arrival.key == KEY)
    assert orjson.dumps(again.body) == seal.wire.body
    assert transport.deliveries == dict.fromkeys("abcdef", 1)
    assert sum(record.recipients for record in watcher.records) == 6


@pytest.mark.parametrize("was_sealed", [True, False])
def test_what_was_accepted_before_a_fence_was_set_up_stays_on_disk(tmp_path: Path, *, was_sealed: bool) -> None:
    disk, transport = Disk(), FakeTransport()
    inside, outside = left(disk, note("qa-1"), note("customer"))
    if was_sealed:
        left_sealed(disk, seal_of((inside, ("qa-1",)), (outside, ("customer",))))

    async def main() -> None:
        fence = {"only_to": ["external_id:qa-1"]}
        async with durable(tmp_path, transport, FakeJournal(disk), app=fence) as engine:
            await asyncio.sleep(2 * WAIT_S)
            with pytest.raises(AppHeldError, match=r"'external_id:customer'.* outside of its only_to"):
                await engine.submit(note("qa-1"))
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            for one in engine.recovered:
                assert isinstance(await settled(one.receipt), Accepted)

    run_virtually(main())
    assert transport.deliveries == {"qa-1": 1, "customer": 1}
    assert min(arrival.at_s for arrival in transport.arrivals) > 1000 + 2 * WAIT_S
    assert not disk.jobs


def test_what_ends_at_once_holds_nothing_though_it_is_outside_of_the_fence(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    left(disk, note("customer", expires_in_s=5), age_s=10)

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk), app={"only_to": ["external_id:qa-1"]}) as engine:
            assert isinstance(await engine.send(note("qa-1")), Accepted)
            assert [one.receipt.outcome for one in engine.recovered] == [Expired(("customer",))]

    run_virtually(main())


def test_a_refusal_of_a_request_that_may_have_been_received_is_not_believed_at_once(tmp_path: Path) -> None:
    disk, transport = Disk(), first([refuse("Incorrect"), refuse("Incorrect")])
    (job,) = left(disk, note("a", urgency="high"))
    left_sealed(disk, seal_of((job, ("a",))))
    (outcome,), _ = recover(tmp_path, disk, transport)
    assert isinstance(outcome, Rejected)
    assert [arrival.at_s - 1000 for arrival in transport.arrivals] == pytest.approx([2, 100], abs=0.05)
    assert {arrival.key for arrival in transport.arrivals} == {KEY}


def test_users_go_in_the_order_of_acceptance_and_one_whose_update_was_on_the_wire_waits(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    one, _, two = left(
        disk,
        UpdateUser(external_id("u"), tags={"a": 1}, coalesce=False),
        UpdateUser(external_id("v"), tags={"a": 1}),
        UpdateUser(external_id("u"), tags={"a": 2}, coalesce=False),
    )
    assert two > one
    left_sealed(disk, seal_of((one, ("u",)), key=None, lane=UPDATE))
    outcomes, _ = recover(tmp_path, disk, transport)
    assert [type(outcome) for outcome in outcomes] == [Accepted] * 3
    assert [(arrival.user, arrival.tags["a"]) for arrival in transport.arrivals] == [("v", "1"), ("u", "1"), ("u", "2")]
    times = [arrival.at_s - 1000 for arrival in transport.arrivals]
    assert times == pytest.approx([0, 100, 101.05], abs=0.05)


@pytest.mark.parametrize(("job", "sent", "is_ambiguous"), [
    (DELTA, [{"properties"}], True),
    (replace(DELTA, tags={}), [], True),
    (replace(DELTA, on_ambiguous="retry"), [{"properties", "deltas"}], False),
    (replace(DELTA, deltas={}), [{"properties"}], False),
])  # fmt: skip
@pytest.mark.parametrize("was_unsealed", [False, True])
def test_a_delta_that_was_on_the_wire_is_not_counted_again_unless_its_job_says_so(
    tmp_path: Path, job: Job, sent: Sequence[set[str]], is_ambiguous: bool, was_unsealed: bool
) -> None:
    disk, transport = Disk(), FakeTransport()
    (number,) = left(disk, job, was_begun=was_unsealed)
    if not was_unsealed:
        left_sealed(disk, seal_of((number, ("u",)), key=None, lane=UPDATE))
    (outcome,), _ = recover(tmp_path, disk, transport)
    assert [set(arrival.body) for arrival in transport.arrivals] == sent
    assert isinstance(outcome, Ambiguous if is_ambiguous else Accepted)
    if isinstance(outcome, Ambiguous):
        assert "process died" in outcome.evidence
        assert outcome.not_sent[0] == "u"
    for arrival in transport.arrivals:
        assert arrival.at_s - 1000 == pytest.approx(100, abs=0.05)


def test_what_had_settled_does_not_go_again_and_counts(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    accepted = Accepted(("m1",), attempts=2)
    refused = Rejected(400, ("no",), 1, ("b",))
    left(disk, note("a", "b", "c"), parts=(Part(("a",), accepted), Part(("b",), refused)))
    left(disk, note("x", "y"), parts=(Part(("x",), accepted),))
    outcomes, watcher = recover(tmp_path, disk, transport)
    assert outcomes[0] == Rejected(400, ("no",), 4, ("b",))
    assert isinstance(outcomes[1], Accepted)
    assert outcomes[1].message_ids[0] == "m1"
    assert transport.deliveries == {"c": 1, "y": 1}
    assert sum(record.recipients for record in watcher.records) == 2


def test_a_part_of_an_update_that_was_accepted_makes_its_deltas_uncertain(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    left(disk, DELTA, parts=(Part(("u",), Accepted()),))
    (outcome,), _ = recover(tmp_path, disk, transport)
    assert isinstance(outcome, Ambiguous)
    assert outcome.evidence == "an earlier process sent a part of it, and which is not known"  # none need have died
    assert [set(arrival.body) for arrival in transport.arrivals] == [{"properties"}]


@pytest.mark.parametrize(("deaths", "key", "is_given_up"), [
    (5, None, False), (4, None, False), (6, None, True), (5, "k", False), (9, "k", False),
])  # fmt: skip
def test_an_update_is_given_up_when_more_than_five_processes_died_of_it_but_never_one_with_a_key(
    tmp_path: Path, deaths: int, key: str | None, is_given_up: bool
) -> None:
    disk, transport = Disk(), FakeTransport()
    left(disk, UpdateUser(external_id("u"), tags={"a": 1}, idempotency_key=key), deaths=deaths, was_begun=True)
    (outcome,), _ = recover(tmp_path, disk, transport)
    if is_given_up:
        assert isinstance(outcome, GaveUp)
        assert (outcome.maybe_sent, outcome.not_sent) == (True, ("u",))
        assert not transport.arrivals
    else:
        assert isinstance(outcome, Accepted)


def test_a_process_that_dies_of_an_update_is_counted_once_a_time(tmp_path: Path) -> None:
    disk = Disk()
    transport = FakeTransport(latency_s=1000)

    async def die() -> None:
        journal = FakeJournal(disk)
        engine = durable(tmp_path, transport, journal, retry=RetrySettings(lost_reply_wait_s=1))
        await engine.__aenter__()
        if not disk.accepted:
            await engine.submit(change("u", a=1))
        await asyncio.sleep(3)
        await kill(engine, journal)

    for deaths in range(6):
        run_virtually(die())
        assert disk.jobs[1].deaths == deaths
        assert len(disk.requests) == 1
    (outcome,), _ = recover(tmp_path, disk, transport)
    assert isinstance(outcome, GaveUp)
    assert "6 processes died" in outcome.last
    assert len(transport.arrivals) == 6


@pytest.mark.parametrize(("urgency", "age_s", "is_over"), [
    ("high", 890, False), ("high", 901, True), ("normal", 901, False), ("normal", 86_390, False),
    ("normal", 86_401, True),
])  # fmt: skip
def test_a_notification_that_has_grown_too_old_expires_or_is_given_up_where_it_may_have_gone(
    tmp_path: Path, urgency: str, age_s: float, is_over: bool
) -> None:
    disk, transport = Disk(), FakeTransport()
    sealed, partly, _ = left(
        disk, note("a", urgency=urgency), note("b", "c", urgency=urgency), note("d", urgency=urgency), age_s=age_s
    )
    left(disk, change("u", a=1), age_s=10 * age_s)
    left_sealed(disk, seal_of((sealed, ("a",)), (partly, ("b",))), age_s=age_s)
    outcomes, watcher = recover(tmp_path, disk, transport)
    if not is_over:
        assert [type(outcome) for outcome in outcomes] == [Accepted] * 4
        return
    assert [type(outcome) for outcome in outcomes] == [GaveUp, GaveUp, Expired, Accepted]
    for outcome, missed in zip(outcomes[:3], [("a",), ("b", "c"), ("d",)], strict=True):
        assert not isinstance(outcome, Accepted)
        assert set(outcome.not_sent) == set(missed)
        assert getattr(outcome, "maybe_sent", True)
    assert not transport.deliveries
    assert len(disk.kept) == 1
    assert len(watcher.jobs) == 4


def test_the_ages_are_those_of_the_settings(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    left(disk, note("a", urgency="high"), note("b"), age_s=60)
    outcomes, _ = recover(tmp_path, disk, transport, ages=JournalSettings(max_age_high_s=30, max_age_normal_s=90))
    assert [type(outcome) for outcome in outcomes] == [Expired, Accepted]


def test_a_request_whose_key_may_be_forgotten_is_not_repeated_however_old_it_may_grow(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    days = 86_400
    old, young = left(disk, note("a"), note("b"), age_s=30 * days)
    left_sealed(disk, seal_of((old, ("a",))), age_s=29.5 * days)
    left_sealed(disk, seal_of((young, ("b",)), key=KEY.replace("6", "7")), age_s=28 * days)
    outcomes, _ = recover(tmp_path, disk, transport, ages=JournalSettings(max_age_normal_s=90 * days))
    assert [type(outcome) for outcome in outcomes] == [GaveUp, Accepted]
    assert [arrival.ids for arrival in transport.arrivals] == [["b"]]


def test_a_job_for_a_segment_is_sealed_whole_or_waits_whole(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    job = CreateNotification(to=segments("All"), message={"contents": {"en": "Hi"}})
    sealed, _ = left(disk, job, replace(job, message={"contents": {"en": "Ho"}}))
    left(disk, replace(job, urgency="high"), age_s=1000)
    left_sealed(disk, seal_of((sealed, ())))
    outcomes, _ = recover(tmp_path, disk, transport)
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted, Expired]
    assert len(transport.arrivals) == 2


@pytest.mark.parametrize(("expires_in_s", "kinds"), [
    (50.0, [Expired, GaveUp, Expired, GaveUp, Ambiguous]),
    (100.0, [Accepted, GaveUp, Accepted, GaveUp, Ambiguous]),
    (300.0, [Accepted, Accepted, Accepted, Accepted, Ambiguous]),
])  # fmt: skip
def test_deadlines_are_counted_from_acceptance(tmp_path: Path, expires_in_s: float, kinds: Sequence[type]) -> None:
    disk, transport = Disk(), FakeTransport()
    hasty = {"age_s": 60.0}
    left(disk, note("a", expires_in_s=expires_in_s), **hasty)
    (sealed,) = left(disk, note("b", expires_in_s=expires_in_s), **hasty)
    left_sealed(disk, seal_of((sealed, ("b",))))
    left(disk, UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=expires_in_s), **hasty)
    begun = UpdateUser(external_id("v"), tags={"a": 1}, expires_in_s=expires_in_s)
    left(disk, begun, replace(begun, user=external_id("w"), deltas={"session_count": 1}), age_s=60.0, was_begun=True)
    outcomes, _ = recover(tmp_path, disk, transport)
    assert [type(outcome) for outcome in outcomes] == kinds
    for outcome in outcomes:
        assert getattr(outcome, "maybe_sent", True)
    if expires_in_s == 300:
        (ttl,) = [arrival.body["ttl"] for arrival in transport.arrivals if arrival.body.get("ttl")]
        assert ttl == pytest.approx(240, abs=2)


def test_a_clock_that_was_set_back_makes_no_deadline_later(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    left(disk, note("a", expires_in_s=50), age_s=-10_000)
    recover(tmp_path, disk, transport)
    assert transport.arrivals[0].body["ttl"] <= 50


def test_jobs_of_an_app_that_is_gone_stay_where_they_are(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    (number,) = left(disk, note("a"))
    disk.jobs[number] = replace(disk.jobs[number], app="gone")
    left_sealed(disk, seal_of((number, ("a",)), lane="gone/create_notification"))

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            assert engine.recovered == ()
            await engine.send(note("b"))
        assert_nothing_leaked(engine, transport)

    with listening() as events:
        run_virtually(main())
    assert list(disk.jobs) == [number]
    assert len(disk.requests) == 1
    (found,) = events.fields("recovered")
    assert (found["jobs"], found["unknown"], found["requests"]) == (0, 1, 0)


def test_the_start_up_line_counts_what_was_found(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    (sealed,) = left(disk, note("a"))
    (stale,) = left(disk, note("z", urgency="high"), age_s=1000)
    left(disk, note("b", "c"), change("u", a=1))
    left(disk, note("old"), age_s=90_000)
    left(disk, DELTA, replace(DELTA, tags={}), was_begun=True)
    left(disk, change("killer", a=1), deaths=6, was_begun=True)
    left_sealed(disk, seal_of((sealed, ("a",))))
    left_sealed(disk, seal_of((stale, ("z",)), key=KEY.replace("6", "7")), age_s=1000)
    with listening() as events:
        recover(tmp_path, disk, transport)
    (found,) = events.fields("recovered")
    assert found == {
        "jobs": 8, "requests": 1, "waiting": 3, "unknown": 0, "damaged": 0,
        "expired": 1, "ambiguous": 2, "gave_up": 2,
    }  # fmt: skip
    line = next(line for line in events.lines if "recovered" in line)
    assert "recovered 8 jobs of an earlier process: 1 sealed requests go again, 3 jobs wait" in line
    assert "2 ambiguous, 1 expired, 2 gave up" in line


def test_a_journal_with_nothing_in_it_says_nothing(tmp_path: Path) -> None:
    with listening() as events:
        recover(tmp_path, Disk(), FakeTransport())
    assert "recovered" not in events.names


def test_what_is_recovered_needs_no_room_and_takes_it(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    left(disk, *[note(f"n{number}") for number in range(30)])

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk), intake=IntakeSettings(max_jobs=10)) as engine:
            assert engine.stats().lanes[CREATE].depth == 30
            await engine.send(note("new"))
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len(transport.deliveries) == 31


def test_a_foreign_journals_jobs_share_no_request_of_a_key_and_go_in_the_order_of_acceptance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, foreign, transport = Disk(), Disk(), FakeTransport()
    left(own, note("a"), note("b"), age_s=30)
    left(foreign, note("c"), note("d"), age_s=20)
    left(own, change("u", level=3, own=1), age_s=10)
    left(foreign, change("u", level=1), change("u", level=2), age_s=15)
    left(own, change("u", level=4), age_s=5)
    slots = FakeSlots(FakeJournal(own), [FakeJournal(foreign)])
    slots.become_the_slots(monkeypatch)

    async def main() -> list[Receipt]:
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            await engine.submit(note("e"))
            receipts = [one.receipt for one in engine.recovered]
        for disk in (own, foreign):
            assert_nothing_left(engine, transport, disk)
        return receipts

    receipts = run_virtually(main())
    assert [type(receipt.outcome) for receipt in receipts] == [Accepted] * 8
    packs = sorted(arrival.ids for arrival in transport.arrivals if arrival.method == "POST")
    assert packs == [["a", "b", "e"], ["c"], ["d"]]
    levels = [arrival.tags["level"] for arrival in transport.arrivals if arrival.method == "PATCH"]
    assert levels == ["1", "2", "4"]  # 3 and 4 are of one journal, and merge
    assert slots.is_closed


def test_after_a_crash_between_reply_and_settlement_the_repeat_is_answered_from_the_key(tmp_path: Path) -> None:
    disk = Disk()
    transport = first([json_reply(200, {"id": "m"}), json_reply(200, {"id": "m"}, idempotent_replayed="true")])

    async def main() -> Outcome:
        journal = FakeJournal(disk)
        engine = durable(tmp_path, transport, journal)
        await engine.__aenter__()
        await settled(await engine.submit(note("a")))
        await kill(engine, journal)
        async with durable(tmp_path, transport, FakeJournal(disk), retry=RetrySettings(lost_reply_wait_s=1)) as engine:
            outcome = await settled(engine.recovered[0].receipt)
        assert_nothing_left(engine, transport, disk)
        return outcome

    outcome = run_virtually(main())
    assert isinstance(outcome, Accepted)
    assert outcome.replayed
    assert transport.arrivals[0].body == transport.arrivals[1].body


@pytest.mark.parametrize("was", ["accepted", "sealed"])
def test_a_job_that_names_somebody_twice_goes_on_with_the_second_time(tmp_path: Path, was: str) -> None:
    disk = Disk()
    parts = (Part(("a",), Accepted(("first",))),) if was == "accepted" else ()
    (job,) = left(disk, note("a", "b", "a"), parts=parts)
    if was == "sealed":
        left_sealed(disk, seal_of((job, ("a",))))
    transport = FakeTransport()
    (outcome,), _ = recover(tmp_path, disk, transport)
    assert isinstance(outcome, Accepted)
    assert transport.deliveries == ({"a": 1, "b": 1} if was == "accepted" else {"a": 2, "b": 1})
