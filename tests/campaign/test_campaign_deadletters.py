"""Dead letters are put back: what may have been sent under its old key, what was not as a new job, and nobody twice."""

import asyncio
import fcntl
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sendengine import Ambiguous, CreateNotification, GaveUp, Rejected, UpdateUser, external_id
from sendengine.campaign.deadletters import Requeued, Slot, _batches, open_slot, requeue
from sendengine.core.jobs import Job, target_of
from sendengine.core.outcomes import Accepted, Outcome
from sendengine.journal.letters import DeadLetter
from sendengine.journal.outbox import Outbox
from sendengine.journal.records import JobEntry
from sendengine.journal.schema import WRITE
from sendengine.journal.slots import slot_paths
from sendengine.ports import Portion, Recovered
from sendengine.settings import JournalSettings
from tests.support.stores import KEY, Disk, Told, a_seal, copied

SETTINGS = JournalSettings()


def hello(*ids: str, key: str | None = None) -> CreateNotification:
    return CreateNotification(
        to=external_id(*ids), channel="push", message={"contents": {"en": "Hi"}}, idempotency_key=key
    )


async def put(outbox: Outbox, job: Job) -> int:
    told = Told()
    record = outbox.accept(job, app="shop", done=told)
    await told.wait()
    return record


async def ended(path: Path, job: Job, *portions: tuple[tuple[str, ...], Outcome, bool], outcome: Outcome) -> None:
    """Leave a job that came to these portions; those that are sealed had a request of their own, under `KEY`."""
    outbox = await Outbox.open(path)
    await outbox.recover(when_failed=lambda _: None)
    record = await put(outbox, job)
    for index, (ids, each, is_sealed) in enumerate(portions, 1):
        request = await outbox.seal(a_seal((record, ids))) if is_sealed else None
        is_last = index == len(portions)
        outbox.settle([Portion(record, ids, outcome if is_last else each, is_last)], request=request)
    await outbox.aclose()


async def put_back(path: Path, *, repeat_deltas: bool = False) -> Requeued:
    async with open_slot(path, SETTINGS) as slot:
        assert slot.outbox is not None
        return await requeue(slot, await slot.outbox.dead_letters(), repeat_deltas=repeat_deltas)


async def found(path: Path) -> tuple[Recovered, int]:
    """What the next engine finds, and how many dead letters are left."""
    outbox = await Outbox.open(path)
    recovered = await outbox.recover(when_failed=lambda _: None)
    letters = await outbox.dead_letters()
    await outbox.aclose()
    return recovered, len(letters)


async def test_what_was_refused_goes_as_a_new_job_under_a_key_that_follows_from_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    refused = Rejected(400, ("no",), not_sent=("u2",))
    await ended(path, hello("u1", "u2"), (("u1",), Accepted(), False), (("u2",), refused, False), outcome=refused)
    assert slot_paths(tmp_path) == [path]
    assert await put_back(path) == Requeued(back=1)
    recovered, letters = await found(path)
    (job,) = (each.job for each in recovered.jobs)
    assert isinstance(job, CreateNotification)
    assert (job.to.ids, letters, recovered.requests) == (("u2",), 0, ())
    assert job.idempotency_key is not None


async def test_what_may_have_been_sent_goes_whole_under_its_old_key(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    lost = GaveUp("reset", maybe_sent=True, not_sent=("u1", "u2"))
    await ended(path, hello("u1", "u2"), (("u1", "u2"), lost, True), outcome=lost)
    assert await put_back(path) == Requeued(back=1)
    recovered, letters = await found(path)
    (job,) = recovered.jobs
    (request,) = recovered.requests
    assert (request.seal.key, request.seal.members, letters) == (KEY, ((job.id, ("u1", "u2")),), 0)
    assert request.seal.wire == a_seal((1, ())).wire


async def given_up_together(path: Path, *, now_s: float) -> None:
    """Leave two jobs that were given up in one request, long ago perhaps."""
    outbox = await Outbox.open(path, now_s=lambda: now_s)
    await outbox.recover(when_failed=lambda _: None)
    jobs = [await put(outbox, hello(each)) for each in ("u1", "u2")]
    request = await outbox.seal(a_seal(*((job, (f"u{n}",)) for n, job in enumerate(jobs, 1))))
    lost = [GaveUp("reset", maybe_sent=True, not_sent=(f"u{n}",)) for n in (1, 2)]
    portions = [Portion(job, (f"u{n}",), lost[n - 1], is_last=True) for n, job in enumerate(jobs, 1)]
    outbox.settle(portions, request=request)
    await outbox.aclose()


async def test_letters_of_one_request_are_put_back_one_after_the_other_under_its_key(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    await given_up_together(path, now_s=time.time())
    for left in (1, 0):
        async with open_slot(path, SETTINGS) as slot:
            assert slot.outbox is not None
            letter, *_ = await slot.outbox.dead_letters()
            assert await requeue(slot, [letter], repeat_deltas=False) == Requeued(back=1)
        recovered, letters = await found(path)
        assert letters == left
        assert {request.seal.key for request in recovered.requests} == {KEY}
        assert [each.job.idempotency_key for each in recovered.jobs] == [None] * (2 - left)  # nothing goes anew


async def test_what_is_put_back_again_and_again_is_as_old_as_its_first_attempt(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    first_s = time.time() - 20 * 86_400
    await given_up_together(path, now_s=first_s)
    for _ in range(2):
        assert await put_back(path) == Requeued(back=2)
        outbox = await Outbox.open(path)
        recovered = await outbox.recover(when_failed=lambda _: None)
        (request,) = recovered.requests
        assert request.sealed_at_s == first_s
        assert all(job.accepted_at_s > first_s + 86_400 for job in recovered.jobs)  # they wait from now on
        lost = GaveUp("reset", maybe_sent=True)
        portions = [Portion(job, ids, lost, is_last=True) for job, ids in request.seal.members]
        outbox.settle(portions, request=request.id)
        await outbox.aclose()
    outbox = await Outbox.open(path)
    assert {kept.sealed_at_s for kept in await outbox.kept_requests()} == {first_s}
    await outbox.aclose()


async def test_whenever_a_requeue_is_killed_a_letter_is_there_or_what_is_put_back_of_it(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    changes = [UpdateUser(external_id(f"c{n}"), tags={"n": n, "long": "x" * 5000}) for n in range(450)]
    await given_up_together(path, now_s=time.time())
    outbox = await Outbox.open(path)
    await outbox.recover(when_failed=lambda _: None)
    records = [outbox.accept(change, app="shop", done=lambda _: None) for change in changes]
    refused = [
        Portion(each, change.user.ids, Rejected(400, ("no",)), is_last=True)
        for each, change in zip(records, changes, strict=True)
    ]
    outbox.settle(refused, request=None)
    await outbox.aclose()
    copies: list[Path] = []

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
            cursor = super().execute(sql, parameters)
            if sql == WRITE:
                copies.append(copied(path, into=tmp_path / f"copy-{len(copies)}"))
            return cursor

    outbox = await Outbox.open(
        path, connect=lambda where: sqlite3.connect(where, timeout=0, isolation_level=None, factory=Watched)
    )
    assert (await requeue(Slot(path, outbox), await outbox.dead_letters(), repeat_deltas=False)).back == 452
    await outbox.aclose()
    assert len(copies) >= 3
    for copy in copies:
        recovered, letters = await found(copy)
        assert len(recovered.jobs) + letters == 452
        whom = [target_of(each.job) for each in recovered.jobs]
        assert len({target.ids for target in whom}) == len(whom)
        assert sum(len(request.seal.members) for request in recovered.requests) in {0, 2}


async def test_a_requeue_that_meets_a_full_disk_waits_for_room_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    refused = Rejected(400, ("no",), not_sent=("u1",))
    await ended(path, hello("u1"), (("u1",), refused, False), outcome=refused)
    disk = Disk()
    outbox = await Outbox.open(path, connect=disk.connect)
    letters = await outbox.dead_letters()
    troubled = asyncio.Event()
    outbox.store.when_trouble = troubled.set
    await outbox.recover(when_failed=lambda _: None)
    outbox.store.when_trouble = troubled.set
    disk.is_full = True
    requeueing = asyncio.get_running_loop().create_task(
        outbox.put_back([JobEntry(hello("u1"), "shop", 0.0)], requests=(), letters=letters)
    )
    async with asyncio.timeout(30):
        await troubled.wait()
        recovered, left = await found(copied(path, into=tmp_path / "copy"))
        assert (recovered.jobs, left) == ((), 1)
        disk.is_full = False
        await requeueing
    await outbox.aclose()
    recovered, left = await found(path)
    assert (len(recovered.jobs), left) == (1, 0)


async def test_what_may_have_been_sent_too_long_ago_is_not_put_back(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    await given_up_together(path, now_s=time.time() - 29.5 * 86_400)
    assert await put_back(path) == Requeued(lost=2)
    assert await found(path) == (Recovered(), 2)


async def test_what_may_have_been_sent_in_a_request_that_is_gone_is_not_sent_anew(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    lost = GaveUp("reset", maybe_sent=True, not_sent=("u1",))
    await ended(path, hello("u1"), (("u1",), lost, False), outcome=lost)
    assert await put_back(path) == Requeued(lost=1)
    assert await found(path) == (Recovered(), 1)


async def test_deltas_that_may_have_been_counted_stay_unless_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    unsure = Ambiguous("reset", not_sent=("u1",))
    job = UpdateUser(external_id("u1"), deltas={"session_count": 1})
    await ended(path, job, (("u1",), unsure, False), outcome=unsure)
    assert await put_back(path) == Requeued(left=1)
    assert (await found(path))[1] == 1
    assert await put_back(path, repeat_deltas=True) == Requeued(back=1)
    recovered, letters = await found(path)
    assert ([each.job for each in recovered.jobs], letters) == ([job], 0)


def test_letters_that_share_requests_are_put_back_together_whatever_comes_between() -> None:
    entry = JobEntry(hello("u"), "shop", 0.0)

    def letter(name: str, *requests: str) -> DeadLetter:
        return DeadLetter(name, entry, Rejected(400), 0.0, requests)

    letters = [
        letter("1", "a"),
        letter("2"),
        letter("3", "b"),
        letter("4", "a", "b"),
        letter("5", "c"),
        letter("6", "c"),
    ]
    (batch,) = _batches(letters)
    assert [each.name for each in batch] == ["1", "3", "4", "2", "5", "6"]
    many = [letter(f"{n}", "all") if n % 2 else letter(f"{n}") for n in range(1000)]
    batches = [{each.name for each in batch} for batch in _batches(many)]
    assert sum(map(len, batches)) == 1000
    assert sum(bool(batch & {"1"}) for batch in batches) == 1
    assert {f"{n}" for n in range(1, 1000, 2)} <= next(batch for batch in batches if "1" in batch)


async def test_the_journal_of_a_live_engine_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "engine-1.db"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with open_slot(path, SETTINGS) as slot:
            assert slot.outbox is None
