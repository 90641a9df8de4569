"""What is on disk while a request is on the wire, and what is left of it there when its attempt is over."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from sendengine import (
    Accepted,
    Ambiguous,
    CreateNotification,
    Expired,
    Job,
    NotSentError,
    Outcome,
    Rejected,
    ReplyLostError,
    RequestRecord,
    StorageError,
    UpdateUser,
    external_id,
)
from sendengine.journal.outbox import Outbox
from sendengine.ports import Part, Portion, RecoveredRequest, Seal
from sendengine.settings import BatchingSettings, JournalSettings
from tests.support.engines import (
    CREATE,
    SOON,
    UPDATE,
    change,
    note,
    now_s,
    settled,
    until,
)
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, first, json_reply, refuse, throttle
from tests.support.journalled import FakeSlots, assert_nothing_left, durable
from tests.support.model import PER_USER
from tests.support.stores import copied
from tests.support.virtual_loop import run_virtually

DELTA = UpdateUser(external_id("u"), deltas={"session_count": 1})


def sealed_by(disk: Disk, arrival: Arrival) -> RecoveredRequest:
    """The one record on disk that holds this request, byte for byte."""
    (record,) = [
        one
        for one in disk.requests.values()
        if one.seal.wire.path == arrival.path and orjson.loads(one.seal.wire.body) == arrival.body
    ]
    return record


def test_every_request_is_on_disk_with_its_members_when_it_arrives(tmp_path: Path) -> None:
    disk = Disk()
    faults: list[Answer] = [json_reply(503, {}), throttle("1"), NotSentError("no"), ReplyLostError("lost")]
    seen: list[tuple[str | None, int]] = []

    def behave(arrival: Arrival) -> Answer:
        seal = sealed_by(disk, arrival).seal
        assert seal.key == arrival.body.get("idempotency_key")
        assert seal.lane == (CREATE if arrival.method == "POST" else UPDATE)
        riding = [item for _, ids in seal.members for item in ids]
        assert riding == (arrival.ids if arrival.method == "POST" else [arrival.user] * len(seal.members))
        assert all(job in disk.jobs for job, _ in seal.members)
        seen.append((seal.key, len(seal.members)))
        if arrival.number % 3 == 0 and faults:
            return faults.pop()
        return refuse("Incorrect") if "bad" in arrival.ids else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        options: dict[str, Any] = {"retry": SOON, "batching": BatchingSettings(max_recipients_per_request=8)}
        async with durable(tmp_path, transport, FakeJournal(disk), **options) as engine:
            jobs: list[Job] = [note(*[f"{number}-{item}" for item in range(5)]) for number in range(5)]
            jobs += [note("x", "bad", "y"), note("segment", idempotency_key="k"), DELTA]
            jobs += [change("u", a=number) for number in range(5)]
            receipts = await asyncio.gather(*[engine.submit(job) for job in jobs])
            kinds = [type(await settled(receipt)) for receipt in receipts]
            assert kinds.count(Accepted) >= 11
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len(seen) == len(transport.arrivals)
    assert max(members for key, members in seen if key is None) == 6
    assert not faults


@pytest.mark.parametrize(
    ("answer", "was_maybe_received"),
    [
        (throttle("1"), False),
        (throttle("1", limit=PER_USER), False),
        (NotSentError("refused"), False),
        (json_reply(503, {}), True),
        (ReplyLostError("reset"), True),
    ],
)
def test_a_users_update_is_on_disk_only_while_it_may_be_on_the_wire(
    tmp_path: Path, answer: Answer, was_maybe_received: bool
) -> None:
    disk, transport = Disk(), first([answer])

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal, retry=SOON) as engine:
            receipt = await engine.submit(change("u", a=1))
            await until(lambda: len(transport.arrivals) == 1)
            (record,) = disk.requests
            await until(lambda: not disk.requests, step_s=0.05)
            assert len(transport.arrivals) == 1
            assert journal.unsealed == [(record, was_maybe_received)]
            (job,) = disk.jobs.values()
            assert (job.was_begun, job.deaths) == (was_maybe_received, 0)
            assert isinstance(await settled(receipt), Accepted)
            assert len(journal.seals) == 2
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())


@pytest.mark.parametrize("answer", [throttle("1"), NotSentError("refused"), json_reply(503, {}), ReplyLostError("x")])
def test_a_notification_is_sealed_once_and_stays_on_disk_through_its_repeats(tmp_path: Path, answer: Answer) -> None:
    disk, transport = Disk(), first([answer, answer])

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal, retry=SOON) as engine:
            await settled(await engine.submit(note("a")))
            assert len(journal.seals) == 1
            assert journal.unsealed == []
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len({arrival.key for arrival in transport.arrivals}) == 1
    assert len(transport.arrivals) == 3


def test_a_delta_that_became_ambiguous_is_settled_as_that_while_its_tags_go_again(tmp_path: Path) -> None:
    disk, transport = Disk(), first([json_reply(503, {})])

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal, retry=SOON) as engine:
            job = UpdateUser(external_id("u"), tags={"a": 1}, deltas={"session_count": 1})
            outcome = await settled(await engine.submit(job))
            assert isinstance(outcome, Ambiguous)
            assert isinstance(await settled(await engine.submit(change("u", b=1))), Accepted)
        assert_nothing_left(engine, transport, disk)
        assert next(iter(disk.settled.values())) == outcome

    run_virtually(main())
    assert [arrival.body.keys() for arrival in transport.arrivals] == [
        {"properties", "deltas"}, {"properties"}, {"properties"},
    ]  # fmt: skip


class Log:
    """What an observer and a journal are told, in one list, with a line where a step of the loop is over."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    def request_settled(self, record: RequestRecord) -> None:
        self.write(f"request {record.recipients}")

    def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:  # noqa: ARG002 - the port's
        self.write(f"job {type(outcome).__name__}")


class LoggedJournal(FakeJournal):
    """It says when it is told of a settlement."""

    log = Log()

    def settle(self, portions: Sequence[Portion], *, request: int | None) -> None:
        asyncio.get_running_loop().call_soon(self.log.write, "over")
        self.log.write(f"journal {[portion.is_last for portion in portions]}")
        super().settle(portions, request=request)


def test_the_journal_and_the_observer_learn_of_a_settlement_in_one_step(tmp_path: Path) -> None:
    disk, transport = Disk(), first([json_reply(200, {"id": "m"}), refuse("template_id is unknown")])
    journal = LoggedJournal(disk)
    log = journal.log = Log()

    async def main() -> None:
        small = BatchingSettings(max_recipients_per_request=2)
        async with durable(tmp_path, transport, journal, observer=log, batching=small) as engine:
            for receipt in (engine.submit_nowait(note("a")), engine.submit_nowait(note("b", "c"))):
                await settled(receipt)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert log.lines == [
        "journal [True, False]", "request 2", "job Accepted", "over",
        "journal [True]", "request 1", "job Rejected", "over",
    ]  # fmt: skip


def test_what_expires_while_it_waits_is_settled_in_the_journal(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            engine.pause()
            jobs: list[Job] = [note("a", expires_in_s=3), UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=4)]
            receipts = [await engine.submit(job) for job in jobs]
            assert [await settled(receipt) for receipt in receipts] == [Expired(("a",)), Expired(("u",))]
        assert_nothing_left(engine, transport, disk)
        assert list(disk.settled.values()) == [Expired(("a",)), Expired(("u",))]

    run_virtually(main())
    assert not transport.arrivals


def test_a_request_that_expires_between_its_seal_and_its_permit_leaves_nothing_on_disk(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=2.0)) as engine:
            jobs: list[Job] = [
                note("a", expires_in_s=10),
                note("b", expires_in_s=2.5),
                UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=2.5),
                UpdateUser(external_id("u"), tags={"b": 1}),
            ]
            receipts = [await engine.submit_row(job, row=0) for job in jobs]
            kinds = [type(await settled(receipt)) for receipt in receipts]
            assert kinds == [Accepted, Expired, Expired, Accepted]
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == {"a": 1}
    assert [arrival.tags for arrival in transport.arrivals if arrival.method == "PATCH"] == [{"b": "1"}]


def test_the_pieces_of_a_split_are_sealed_and_the_request_they_replace_is_not_any_more(tmp_path: Path) -> None:
    disk = Disk()

    def behave(arrival: Arrival) -> Answer:
        on_disk = [record.seal for record in disk.requests.values()]
        riding = [item for seal in on_disk for _, ids in seal.members for item in ids]
        assert len(riding) == len(set(riding)), "nobody rides twice"
        return refuse("Incorrect") if "bad" in arrival.ids else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            receipt = await engine.submit(note(*[f"n{number}" for number in range(20)], "bad"))
            outcome = await settled(receipt)
            assert isinstance(outcome, Rejected)
            assert (outcome.errors, outcome.not_sent) == (("Incorrect",), ("bad",))
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len({arrival.key for arrival in transport.arrivals}) == len(transport.arrivals) > 5


@pytest.mark.parametrize("cap", [2000, 4])
def test_a_crash_at_any_request_leaves_nobody_in_two_requests_nor_without_the_one_that_reached_them(
    tmp_path: Path, cap: int
) -> None:
    """The files are looked at as they are at each arrival: what nobody waits for may not be there yet."""
    reached: list[str] = []
    found: list[tuple[list[str], list[str], list[str]]] = []
    pictures: list[tuple[Path, list[str]]] = []

    def behave(arrival: Arrival) -> Answer:
        pictures.append((copied(tmp_path / "a.db", into=tmp_path / f"{len(pictures)}"), list(reached)))
        if named := [item for item in arrival.ids if item.startswith("bad")]:
            return json_reply(400, {"errors": [f'Invalid aliases: ["{named[0]}"]']})
        reached.extend(arrival.ids)
        return accept(arrival)

    async def main() -> None:
        outbox = await Outbox.open(tmp_path / "a.db")
        batching = BatchingSettings(max_recipients_per_request=cap)
        async with durable(tmp_path, FakeTransport(behave), outbox, batching=batching) as engine:
            jobs = [note(f"bad-{name}", *[f"{name}{n}" for n in range(6)]) for name in "abcdefgh"]
            await asyncio.gather(*[settled(await engine.submit(job)) for job in jobs[:4]])
            for job in jobs[4:]:
                await settled(await engine.submit(job))

    async def look(path: Path, before: list[str]) -> None:
        outbox = await Outbox.open(path)
        left = await outbox.recover(when_failed=print)
        riding = [item for one in left.requests for _, ids in one.seal.members for item in ids]
        ended = [item for job in left.jobs for part in job.parts for item in part.recipients]
        ids = [item for job in left.jobs if isinstance(job.job, CreateNotification) for item in job.job.to.ids]
        found.append((riding, [item for item in ids if item not in {*riding, *ended}], before))
        await outbox.aclose()

    run_virtually(main())
    for path, before in pictures:
        run_virtually(look(path, before))
    assert len(found) > 6
    for riding, waiting, before in found:
        assert len(riding) == len(set(riding)), "nobody rides twice"
        assert not set(waiting) & set(before), "nobody who was reached goes under another key"


def test_an_update_of_jobs_from_two_disks_is_on_both_and_settles_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = [Disk(), Disk()]

    def behave(arrival: Arrival) -> Answer:
        for disk in disks:
            for record in disk.requests.values():
                assert [disk.jobs[job].job.user for job, _ in record.seal.members]  # type: ignore[union-attr]
        return accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> None:
        foreign = FakeJournal(disks[1])
        async with durable(tmp_path, transport, foreign) as engine:
            engine.pause()
            for number in range(3):
                await engine.submit(change("u", a=number))
            await engine.abort()
        own = FakeJournal(disks[0])
        FakeSlots(own, [FakeJournal(disks[1])]).become_the_slots(monkeypatch)
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            await engine.submit(change("u", a=3))
        for disk in disks:
            assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert [int(arrival.tags["a"]) for arrival in transport.arrivals][-1] == 3


class FreeJournal(FakeJournal):
    """A campaign's: what can be made again need not be on disk, and its jobs are in at once."""

    def must_seal(self, seal: Seal) -> bool:  # noqa: ARG002 - the port's
        return False

    def accept(self, job: Job, *, done: Callable[[StorageError | None], None], **options: object) -> int:
        number = super().accept(job, done=lambda _: None, **options)  # type: ignore[arg-type]
        done(None)
        return number


def test_a_journal_may_take_jobs_at_once_and_ask_for_no_seals(tmp_path: Path) -> None:
    disk, transport = Disk(), first([json_reply(503, {}), refuse("template_id is unknown")])

    async def main() -> None:
        journal = FreeJournal(disk, fsync_s=10)
        async with durable(tmp_path, transport, journal, retry=SOON) as engine:
            began_s = now_s()
            receipt = await engine.submit(note("a", idempotency_key="k"))
            rows = [await engine.submit_row(note("b", idempotency_key="l"), row=3)]
            rows.append(await engine.submit_row(change("u", a=1), row=4))
            assert now_s() - began_s <= 10  # looking up the key
            for one in (receipt, *rows):
                await settled(one)
            assert journal.seals == []
            assert journal.unsealed == []
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
