"""Jobs that go alone: nothing is written of their requests, and after a crash they go again as they were."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from sendengine import Abandoned, Accepted, CreateNotification, Expired, GaveUp, Job, segments
from sendengine.core.jobs import target_of
from sendengine.errors import ReplyLostError, StorageError
from sendengine.journal.outbox import Outbox
from sendengine.ports import RecoveredJob
from sendengine.settings import CeilingSettings, JournalSettings, RetrySettings
from tests.support.engines import assert_nothing_leaked, change, note, now_s, settled, until
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, refuse
from tests.support.journalled import durable
from tests.support.stores import Disk, copied
from tests.support.virtual_loop import run_virtually

WAIT_S = 100.0
HIGH_WAIT_S = 2.0


def alone(name: str, **options: object) -> CreateNotification:
    return note(name, text=name, pack=False, **options)


async def opened(path: Path, **options: object) -> Outbox:
    return await Outbox.open(path, **options)  # type: ignore[arg-type]


async def left_in(path: Path, into: Path) -> tuple[RecoveredJob, ...]:
    """What a process would find that opened the files as they are now; nothing that was sealed."""
    outbox = await opened(copied(path, into=into))
    found = await outbox.recover(when_failed=_refuse)
    await outbox.aclose()
    assert (found.requests, found.damaged) == ((), ())
    return found.jobs


def _refuse(error: Exception) -> None:
    raise AssertionError(error)


class Crash:
    """Copies the files at the instant at which a request arrives: what a process would leave that died then."""

    def __init__(self, path: Path, into: Path) -> None:
        self.copies: list[tuple[Arrival, Path]] = []
        self._path = path
        self._into = into
        into.mkdir()

    def __call__(self, arrival: Arrival) -> Answer:
        self.copies.append((arrival, copied(self._path, into=self._into / f"{arrival.number}")))
        return accept(arrival)


def test_a_job_that_goes_alone_may_have_been_sent_by_the_time_it_is_and_no_request_of_it_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    crash = Crash(path, tmp_path / "crashes")
    transport = FakeTransport(crash)

    async def main() -> None:
        async with durable(tmp_path, transport, await opened(path)) as engine:
            for burst in range(4):
                jobs: list[Job] = [alone(f"{burst}-{number}") for number in range(10)]
                jobs += [note(f"high-{burst}", urgency="high"), note(f"key-{burst}", idempotency_key=f"k{burst}")]
                for receipt in [await engine.submit(job) for job in jobs]:
                    assert isinstance(await settled(receipt), Accepted)
        assert_nothing_leaked(engine, transport)
        for arrival, copy in crash.copies:
            outbox = await opened(copy)
            found = await outbox.recover(when_failed=_refuse)
            (job,) = [each for each in found.jobs if target_of(each.job).ids == tuple(arrival.ids)]
            assert (job.was_begun, job.request_key) == (True, arrival.key)
            assert found.requests == ()
            await outbox.aclose()

    run_virtually(main())
    assert len(crash.copies) == 48


def test_after_a_crash_what_was_sent_goes_again_under_its_key_with_its_body_and_the_others_at_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    crash = Crash(path, tmp_path / "crashes")
    slow = {"ceilings": CeilingSettings(create_notification=1)}
    before, after = FakeTransport(crash, latency_s=50), FakeTransport()
    names = [f"n{number}" for number in range(30)]

    async def main() -> None:
        engine = durable(tmp_path, before, await opened(path), app=slow)
        async with engine:
            for name in names:
                await engine.submit(alone(name))
            await engine.submit(note("vip", urgency="high"))
            await until(lambda: len(before.arrivals) == 3)
            await engine.abort(grace_s=0)
        began_s = now_s()
        _, copy = crash.copies[-1]
        async with durable(tmp_path, after, await opened(copy), retry=RetrySettings(lost_reply_wait_s=WAIT_S)):
            await until(lambda: len(after.arrivals) == 31)
        late = {arrival.ids[0]: arrival for arrival in after.arrivals if arrival.at_s - began_s > 1.9}
        for arrival in before.arrivals:
            assert late[arrival.ids[0]].body == arrival.body
            assert late[arrival.ids[0]].at_s - began_s > (HIGH_WAIT_S if arrival.ids == ["vip"] else WAIT_S) - 0.001
        assert len(late) <= 8  # of those that had not been sent but a few lay before the frontier

    run_virtually(main())
    assert set(after.deliveries) == {*names, "vip"}
    assert set(after.deliveries.values()) == {1}


@pytest.mark.parametrize("grace_s", [0, 1])
def test_an_engine_that_ends_in_good_order_knows_what_it_has_sent(tmp_path: Path, grace_s: float) -> None:
    path = tmp_path / "a.db"
    transport = FakeTransport(latency_s=10)

    async def main() -> None:
        slow = {"ceilings": CeilingSettings(create_notification=2)}
        async with durable(tmp_path, transport, await opened(path), app=slow) as engine:
            receipts = [await engine.submit(alone(f"n{number}")) for number in range(10)]
            await until(lambda: len(transport.arrivals) == 4)
            await engine.abort(grace_s=grace_s)
            abandoned = [await settled(receipt) for receipt in receipts]
        sent = {arrival.ids[0]: arrival.key for arrival in transport.arrivals}
        assert [isinstance(each, Abandoned) and each.maybe_sent for each in abandoned] == [
            receipt.job.to.ids[0] in sent for receipt in receipts if isinstance(receipt.job, CreateNotification)
        ]
        for number in range(2):  # and still knows it when nothing was done meanwhile
            jobs = await left_in(path, tmp_path / f"copy{number}")
            assert {job.job.to.ids[0]: job.request_key for job in jobs if job.was_begun} == sent  # type: ignore[union-attr]
            await (await opened(path)).aclose()
        assert len(jobs) == 10

    run_virtually(main())


def test_what_may_have_been_sent_and_was_given_up_is_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    transport = FakeTransport(lambda _: ReplyLostError("gone"))

    async def main() -> None:
        outbox = await opened(path)
        async with durable(tmp_path, transport, outbox) as engine:
            outcome = await settled(await engine.submit(note("u", urgency="high")))
            assert isinstance(outcome, GaveUp)
            assert outcome.maybe_sent
            (letter,) = await outbox.dead_letters()
            (kept,) = await outbox.kept_requests()
        assert letter.requests == (kept.name,)
        assert (kept.seal.lane, kept.seal.key) == ("shop/create_notification", transport.arrivals[0].key)
        assert b'"idempotency_key"' in kept.seal.wire.body
        assert await left_in(path, tmp_path / "copy") == ()

    run_virtually(main())


@pytest.mark.parametrize("was_sent", [True, False])
def test_what_has_grown_too_old_is_given_up_where_it_may_have_been_sent_and_expires_where_not(
    tmp_path: Path, *, was_sent: bool
) -> None:
    path = tmp_path / "a.db"
    crash = Crash(path, tmp_path / "crashes")
    after = FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, FakeTransport(crash), await opened(path)) as engine:
            if not was_sent:
                engine.pause()
            await engine.submit(alone("u"))
            if was_sent:
                await until(lambda: bool(crash.copies))
            copy = copied(path, into=tmp_path / "copy")
            await engine.abort(grace_s=0)
        outbox = await opened(copy)
        ages = JournalSettings(max_age_normal_s=1e-9)
        async with durable(tmp_path, after, outbox, ages=ages) as engine:
            (receipt,) = engine.recovered
            outcome = await settled(receipt.receipt)
            assert isinstance(outcome, GaveUp if was_sent else Expired)
            assert len(await outbox.kept_requests()) == was_sent

    run_virtually(main())
    assert after.arrivals == []


@pytest.mark.parametrize(
    "job",
    [
        note("a"),
        note("a", "b", pack=False),
        note("a", pack=False, expires_in_s=60.0),
        note("a", pack=True, urgency="high"),
        CreateNotification(to=segments("All"), channel="push", message={"contents": {"en": "Hi"}}),
        change("u", a=1),
    ],
)
def test_every_other_request_is_written_before_it_is_sent(tmp_path: Path, job: Job) -> None:
    path = tmp_path / "a.db"
    is_update = not isinstance(job, CreateNotification)
    crash = Crash(path, tmp_path / "crashes")

    async def main() -> None:
        async with durable(tmp_path, FakeTransport(crash), await opened(path)) as engine:
            await settled(await engine.submit(job))
        ((arrival, copy),) = crash.copies
        outbox = await opened(copy)
        found = await outbox.recover(when_failed=_refuse)
        await outbox.aclose()
        assert [each.seal.key for each in found.requests] == ([] if is_update else [arrival.key])
        assert [(each.request_key, each.was_begun) for each in found.jobs] == [(None, is_update)]

    run_virtually(main())


def test_a_refused_job_that_went_alone_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    transport = FakeTransport(lambda arrival: refuse("Incorrect") if arrival.ids == ["bad"] else accept(arrival))

    async def main() -> None:
        outbox = await opened(path)
        async with durable(tmp_path, transport, outbox) as engine:
            for name in ("good", "bad", "fine"):
                await settled(await engine.submit(alone(name)))
            await outbox.flush()
            assert outbox.is_empty
        assert await left_in(path, tmp_path / "copy") == ()

    run_virtually(main())


def test_nothing_goes_before_the_disk_has_it_that_it_may_have_gone(tmp_path: Path) -> None:
    path, disk = tmp_path / "a.db", Disk()
    transport = FakeTransport()

    async def main() -> None:
        outbox = await opened(path, connect=disk.connect)
        async with durable(tmp_path, transport, outbox) as engine:
            receipt = await engine.submit(alone("u"))  # on disk; how far requests may have gone is not
            disk.shut()
            await asyncio.sleep(0.005)
            await disk.until_arrived()
            assert transport.arrivals == []
            disk.gate.set()
            assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())


def test_where_the_disk_fails_a_job_that_waits_for_it_is_abandoned_unsent(tmp_path: Path) -> None:
    path, disk = tmp_path / "a.db", Disk()
    transport = FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, await opened(path, connect=disk.connect)) as engine:
            receipt = await engine.submit(alone("u"))
            disk.is_broken = True
            assert await settled(receipt) == Abandoned(maybe_sent=False, not_sent=("u",))

    run_virtually(main())
    assert transport.arrivals == []


async def when_free(path: Path) -> Outbox:
    """Open a slot that is being given back: the thread that closes it may take a moment of real time more."""
    for _ in range(100):
        with contextlib.suppress(StorageError):
            return await opened(path)
        await asyncio.sleep(0.1)
    return await opened(path)


def test_a_slot_whose_jobs_have_settled_is_given_back_although_it_knows_how_far_they_went(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        left = tmp_path / "engine-2.db"
        outbox = await opened(left)
        told: list[object] = []
        outbox.accept(alone("u"), app="shop", done=told.append, request_key="8250eaf6-1a58-489e-b136-7c74a864b434")
        await outbox.flush()
        await outbox.aclose()
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            assert isinstance(await settled(engine.recovered[0].receipt), Accepted)
            await asyncio.sleep(31)
            reopened = await when_free(left)  # it would be in use
            assert reopened.is_empty
            await reopened.aclose()

    run_virtually(main())
