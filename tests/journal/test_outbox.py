"""An outbox: what an earlier process left comes back, once, in its order, and nothing that has settled does."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sendengine import CreateNotification, StorageError, external_id
from sendengine.core.outcomes import (
    Accepted,
    Ambiguous,
    Expired,
    GaveUp,
    Outcome,
    Rejected,
    Unreachable,
)
from sendengine.journal.outbox import Outbox
from sendengine.journal.records import JOB, write_request
from sendengine.ports import KeyRecall, Part, Portion, Recovered
from sendengine.settings import JournalSettings
from tests.support.stores import KEY, Disk, Told, a_job, a_seal, accepted, copied, opened
from tests.support.virtual_loop import run_virtually

OTHER_KEY = "11111111-aaf6-5a58-889e-b136-7c74a864b434"
TOOK = Accepted(("m1",))


async def after_a_crash(outbox: Outbox, tmp_path: Path) -> Recovered:
    """What another process finds that opens a copy of the files as they are now."""
    copy, found = await opened(copied(outbox.store.path, into=tmp_path / "copy"))
    await copy.aclose()
    return found


def over(job: int, outcome: Outcome = TOOK, *, recipients: tuple[str, ...] = (), is_last: bool = True) -> Portion:
    return Portion(job, recipients, outcome, is_last)


# Jobs


async def test_an_accepted_job_comes_back_until_it_has_settled(tmp_path: Path) -> None:
    outbox, found = await opened(tmp_path / "a.db", now_s=lambda: 1_700_000_000.5)
    assert found == Recovered()
    ids = [await accepted(outbox, number, row=number + 10) for number in range(3)]
    found = await after_a_crash(outbox, tmp_path)
    assert [(job.id, job.job, job.app, job.row, job.accepted_at_s) for job in found.jobs] == [
        (ids[number], a_job(number), "shop", number + 10, 1_700_000_000.5) for number in range(3)
    ]
    assert not any(job.was_begun or job.deaths or job.parts for job in found.jobs)
    outbox.settle([over(ids[1])], request=None)
    await outbox.flush()
    assert [job.id for job in (await after_a_crash(outbox, tmp_path)).jobs] == [ids[0], ids[2]]
    assert not outbox.is_empty
    outbox.settle([over(ids[0]), over(ids[2], Rejected(400))], request=None)
    await outbox.flush()
    assert outbox.is_empty
    await outbox.aclose()


async def test_what_is_written_of_a_job_again_has_the_message_that_was_accepted(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    message: dict[str, Any] = {"contents": {"en": "for u1"}}
    job = CreateNotification(to=external_id("u1"), channel="push", message=message)
    ids = []
    for key in (KEY, None):
        told = Told()
        ids.append(outbox.accept(job, app="shop", done=told, request_key=key))
        await told.wait()
    out, refused = ids
    if not outbox.may_go(out):
        await outbox.until_it_may_go(out)
    message["contents"]["en"] = "for u2"  # as a caller does who has one for all
    outbox.settle([over(refused, Rejected(400))], request=None)
    await outbox.aclose()
    outbox, found = await opened(tmp_path / "a.db")
    (left,), (letter,) = found.jobs, await outbox.dead_letters()
    assert left.was_begun
    for each in (left.job, letter.entry.job):
        assert isinstance(each, CreateNotification)
        assert each.message == {"contents": {"en": "for u1"}}
    await outbox.aclose()


async def test_an_acceptance_may_be_withdrawn_with_its_key(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    told = Told()
    job = outbox.accept(a_job(), app="shop", key=KEY, fingerprint=b"f", done=told)
    assert outbox.withdraw(job)
    assert not outbox.withdraw(job)
    await outbox.flush()
    assert told.calls == []
    assert await outbox.recall(KEY, app="shop") is None
    assert not outbox.withdraw(await accepted(outbox))
    await outbox.aclose()


def test_a_settlement_is_on_disk_within_a_quarter_second(tmp_path: Path) -> None:
    async def main() -> None:
        outbox, _ = await opened(tmp_path / "a.db")
        job = await accepted(outbox)
        outbox.settle([over(job)], request=None)
        await asyncio.sleep(0.25)
        assert (await after_a_crash(outbox, tmp_path)).jobs == ()
        await outbox.aclose()

    run_virtually(main())


async def test_a_write_ahead_log_that_is_gone_is_named_once_and_what_goes_alone_may_have_been_sent(
    tmp_path: Path,
) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    job = await accepted(outbox, request_key=KEY)
    await outbox.aclose()
    killed, _ = await opened(tmp_path / "a.db")
    copied(tmp_path / "a.db", into=tmp_path / "copy")
    await killed.aclose()
    copy = tmp_path / "copy" / "a.db"
    (tmp_path / "copy" / "a.db.reserve").write_bytes(bytes(70_000))  # which goes with its process in good order only
    (tmp_path / "copy" / "a.db-wal").unlink()
    again, found = await opened(copy)
    (told,) = found.damaged
    assert told.startswith(f"{copy}-wal is gone")
    assert [(each.id, each.was_begun) for each in found.jobs] == [(job, True)]
    await again.aclose()
    whole, found = await opened(copy)
    assert found.damaged == ()
    await whole.aclose()


async def test_a_process_that_closes_in_good_order_has_lost_no_log(tmp_path: Path) -> None:
    for _ in range(3):
        outbox, found = await opened(tmp_path / "a.db")
        assert found.damaged == ()
        await accepted(outbox)
        await outbox.aclose()


# Requests


async def test_a_sealed_request_comes_back_whole_with_body_and_key(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    jobs = [await accepted(outbox, number) for number in range(3)]
    seal = a_seal((jobs[0], ("u0",)), (jobs[2], ("u2",)))
    assert outbox.must_seal(seal)
    request = await outbox.seal(seal)
    found = await after_a_crash(outbox, tmp_path)
    assert [(each.id, each.seal) for each in found.requests] == [(request, seal)]
    assert [(job.id, job.was_begun, job.deaths) for job in found.jobs] == [(job, False, 0) for job in jobs]
    outbox.settle([over(jobs[0]), over(jobs[2])], request=request)
    await outbox.flush()
    found = await after_a_crash(outbox, tmp_path)
    assert ([job.id for job in found.jobs], found.requests) == ([jobs[1]], ())
    await outbox.aclose()


async def test_an_unsealed_request_is_gone_no_later_than_the_seal_of_what_takes_its_place(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    job = await accepted(outbox)
    parent = await outbox.seal(a_seal((job, ("a", "b"))))
    outbox.unseal(parent)
    outbox.unseal(parent)
    pieces = [a_seal((job, (recipient,)), key=f"{number}{OTHER_KEY[1:]}") for number, recipient in enumerate("ab")]
    assert await asyncio.gather(*map(outbox.seal, pieces)) != [parent, parent]
    found = await after_a_crash(outbox, tmp_path)
    assert [each.seal for each in found.requests] == pieces
    await outbox.aclose()


@pytest.mark.parametrize("outcome", [TOOK, Rejected(400)])
async def test_a_request_that_has_settled_does_not_leave_its_jobs_behind(tmp_path: Path, outcome: Outcome) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    jobs = [await accepted(outbox, number) for number in range(2)]
    request = await outbox.seal(a_seal((jobs[0], ("a",)), (jobs[1], ("b",))))
    outbox.settle([over(job, outcome) for job in jobs], request=request)  # a job's is the worst of its requests'
    await outbox.seal(a_seal((await accepted(outbox, 3), ()), key=OTHER_KEY))
    found = await after_a_crash(outbox, tmp_path)
    riding = {job for each in found.requests for job, _ in each.seal.members}
    assert {job.id for job in found.jobs} <= riding
    await outbox.aclose()


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_seal_that_is_not_awaited_any_more_is_taken_back(tmp_path: Path, *, is_written: bool) -> None:
    disk = Disk()
    outbox, _ = await opened(tmp_path / "a.db", connect=disk.connect)
    job = await accepted(outbox)
    disk.shut()
    task = asyncio.get_running_loop().create_task(outbox.seal(a_seal((job, ("u",)), key=None)))
    if is_written:
        await disk.until_arrived()
    else:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    disk.gate.set()
    await outbox.flush()
    found = await after_a_crash(outbox, tmp_path)
    assert (found.requests, [each.was_begun for each in found.jobs]) == ((), [False])
    await outbox.aclose()


async def test_what_was_on_the_wire_without_a_key_has_begun_and_each_death_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    outbox, _ = await opened(path)
    jobs = [await accepted(outbox, number) for number in range(3)]
    await outbox.seal(a_seal((jobs[0], ()), (jobs[1], ()), key=None))
    for deaths in (1, 2):
        path = copied(path, into=tmp_path / f"death{deaths}")
        await outbox.aclose()
        outbox, found = await opened(path)
        assert found.requests == ()
        assert [(job.id, job.deaths, job.was_begun) for job in found.jobs] == [
            (jobs[0], deaths, True),
            (jobs[1], deaths, True),
            (jobs[2], 0, False),
        ]
        again = await after_a_crash(outbox, tmp_path)  # it is on disk already, and nothing new was on the wire
        assert [job.deaths for job in again.jobs] == [deaths, deaths, 0]
        await outbox.seal(a_seal((jobs[0], ()), (jobs[1], ()), key=None))
    await outbox.aclose()


async def test_an_update_that_may_have_been_received_is_marked_as_begun_but_nobody_died_of_it(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    jobs = [await accepted(outbox, number) for number in range(2)]
    certain = await outbox.seal(a_seal((jobs[0], ()), key=None))
    maybe = await outbox.seal(a_seal((jobs[1], ()), key=None))
    outbox.unseal(certain)
    outbox.unseal(maybe, maybe_received=True)
    await accepted(outbox, 2)
    found = await after_a_crash(outbox, tmp_path)
    assert [(job.was_begun, job.deaths) for job in found.jobs] == [(False, 0), (True, 0), (False, 0)]
    await outbox.aclose()


async def test_parts_of_a_job_come_back_until_it_has_settled(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    job = await accepted(outbox)
    first = await outbox.seal(a_seal((job, ("a",))))
    outbox.settle([over(job, recipients=("a",), is_last=False)], request=first)
    outbox.settle([over(job, Rejected(400), recipients=("b",), is_last=False)], request=None)
    await outbox.flush()
    (found,) = (await after_a_crash(outbox, tmp_path)).jobs
    assert found.parts == (Part(("a",), TOOK), Part(("b",), Rejected(400)))
    path = copied(outbox.store.path, into=tmp_path / "next")
    await outbox.aclose()
    outbox, _ = await opened(path)
    outbox.settle([over(job, recipients=("c",))], request=None)
    await outbox.flush()
    assert outbox.is_empty
    await outbox.aclose()


# Keys


def test_a_key_is_remembered_for_thirty_days_with_what_came_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        outbox, _ = await opened(tmp_path / "a.db", now_s=lambda: 1e9 + loop.time())
        job = await accepted(outbox, key=KEY, fingerprint=b"\x01")
        assert await outbox.recall(KEY, app="shop") == KeyRecall(b"\x01", None)
        assert await outbox.recall(KEY, app="news") is None
        outbox.settle([over(job)], request=None)
        assert await outbox.recall(KEY, app="shop") == KeyRecall(b"\x01", TOOK)
        await outbox.aclose()
        for days, is_remembered in ((29.9, True), (0.2, False)):
            await asyncio.sleep(days * 86_400)
            outbox, found = await opened(tmp_path / "a.db", now_s=lambda: 1e9 + loop.time())
            assert found == Recovered()
            await asyncio.sleep(0.1)
            assert await outbox.recall(KEY, app="shop") == (KeyRecall(b"\x01", TOOK) if is_remembered else None)
            await outbox.aclose()

    run_virtually(main())


async def test_the_outcome_of_a_recovered_job_goes_to_its_key(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    job = await accepted(outbox, key=KEY, fingerprint=b"\x01")
    await outbox.aclose()
    outbox, _ = await opened(tmp_path / "a.db")
    outbox.settle([over(job, Expired())], request=None)
    assert await outbox.recall(KEY, app="shop") == KeyRecall(b"\x01", Expired())
    await outbox.aclose()


# What has ended


@pytest.mark.parametrize(
    ("outcome", "is_dead", "is_kept"),
    [
        (TOOK, False, False),
        (Unreachable(), False, False),
        (Rejected(400), True, False),
        (Expired(), True, False),
        (GaveUp("status 500", maybe_sent=False), True, False),
        (GaveUp("status 500", maybe_sent=True), True, True),
        (Ambiguous("reply lost"), True, True),
    ],
)
async def test_what_was_not_accepted_is_a_dead_letter_and_what_may_have_been_sent_is_kept_whole(
    tmp_path: Path, outcome: Outcome, *, is_dead: bool, is_kept: bool
) -> None:
    outbox, _ = await opened(tmp_path / "a.db", now_s=lambda: 1_700_000_000.25)
    job = await accepted(outbox, 7, row=7)
    seal = a_seal((job, ("u7",)))
    outbox.settle([over(job, outcome, recipients=("u7",))], request=await outbox.seal(seal))
    await outbox.aclose()
    outbox, found = await opened(tmp_path / "a.db", now_s=lambda: 1_700_000_100.0)
    assert found == Recovered()
    kept = await outbox.kept_requests()
    letters = await outbox.dead_letters()
    assert [(each.seal, each.sealed_at_s) for each in kept] == [(seal, 1_700_000_000.25)] * is_kept
    assert [(each.entry.job, each.entry.row, each.outcome, each.at_s) for each in letters] == [
        (a_job(7), 7, outcome, 1_700_000_000)
    ] * is_dead
    assert [each.requests for each in letters] == [tuple(each.name for each in kept)] * is_dead
    await outbox.put_back((), requests=(), letters=letters)
    assert (await outbox.dead_letters(), await outbox.kept_requests()) == ((), ())
    await outbox.aclose()


async def test_an_update_is_never_kept_because_nothing_would_know_its_repeat(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    job = await accepted(outbox)
    request = await outbox.seal(a_seal((job, ()), key=None))
    outbox.settle([over(job, Ambiguous("reply lost"))], request=request)
    assert (len(await outbox.dead_letters()), await outbox.kept_requests()) == (1, ())
    await outbox.aclose()


async def test_a_dead_letter_names_what_was_kept_of_it_before_a_restart(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    job = await accepted(outbox)
    gave_up = GaveUp("status 500", maybe_sent=True, not_sent=("a",))
    outbox.settle(
        [over(job, gave_up, recipients=("a",), is_last=False)], request=await outbox.seal(a_seal((job, ("a",))))
    )
    await outbox.aclose()
    outbox, found = await opened(tmp_path / "a.db")
    assert (len(found.jobs), found.requests) == (1, ())
    outbox.settle([over(job, gave_up)], request=await outbox.seal(a_seal((job, ("b",)), key=OTHER_KEY)))
    (letter,) = await outbox.dead_letters()
    assert {each.seal.key for each in await outbox.kept_requests() if each.name in letter.requests} == {KEY, OTHER_KEY}
    await outbox.aclose()


def test_dead_letters_are_forgotten_in_time_and_settled_jobs_kept_if_wanted(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        settings = JournalSettings(keep_dead_s=1000, keep_settled_s=500)
        outbox, _ = await opened(tmp_path / "a.db", settings=settings, now_s=lambda: 1e9 + loop.time())
        first, second = await accepted(outbox, 1), await accepted(outbox, 2)
        outbox.settle([over(first), over(second, Rejected(400))], request=None)
        assert len(await outbox.dead_letters()) == 1
        settled = await outbox.store.archived(4, lambda row: row)
        assert len(settled) == 1
        await asyncio.sleep(3601)
        assert await outbox.dead_letters() == ()
        assert await outbox.store.archived(4, lambda row: row) == []
        await outbox.aclose()

    run_virtually(main())


# Damage and failure


async def test_a_record_that_says_nothing_is_set_aside_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    outbox, _ = await opened(path)
    job = await accepted(outbox)
    outbox.store.put(JOB, b'["from another version"]')
    outbox.store.put(77, b"no kind of ours")
    await outbox.aclose()
    outbox, found = await opened(path)
    assert [each.id for each in found.jobs] == [job]
    assert len(found.damaged) == 2
    assert all("cannot be understood and is set aside in a.db.damaged.jsonl" in each for each in found.damaged)
    await outbox.aclose()
    outbox, found = await opened(path)
    assert found.damaged == ()
    await outbox.aclose()


async def test_a_request_whose_jobs_are_lost_is_kept_for_a_retry(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    await outbox.seal(a_seal((999, ("u",))))
    await outbox.aclose()
    outbox, found = await opened(tmp_path / "a.db")
    assert (found.requests, len(found.damaged)) == ((), 1)
    assert "the jobs of a request are lost" in found.damaged[0]
    assert [each.seal.key for each in await outbox.kept_requests()] == [KEY]
    assert outbox.is_empty
    await outbox.aclose()


async def test_of_two_requests_that_carry_the_same_only_the_later_is_believed_where_records_were_lost(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    outbox, _ = await opened(path)
    job, other = await accepted(outbox), await accepted(outbox, 2)
    parent = await outbox.seal(a_seal((job, ("a", "b"))))
    beside = await outbox.seal(a_seal((other, ()), key=OTHER_KEY))
    piece = await outbox.seal(a_seal((job, ("b",)), key=f"2{OTHER_KEY[1:]}"))
    outbox.store.put(JOB, b"damaged" + write_request.__doc__.encode() if write_request.__doc__ else b"")
    await outbox.aclose()
    for is_damaged, expected in ((False, [parent, beside, piece]), (True, [beside, piece])):
        data = path.read_bytes()
        if is_damaged:
            path.write_bytes(data.replace(b"damagedRender", b"damagedReader"))
        outbox, found = await opened(path)
        assert [each.id for each in found.requests] == expected
        await outbox.aclose()
        path.write_bytes(data)


async def test_a_failed_disk_is_told_once_and_everything_later_fails(tmp_path: Path) -> None:
    disk = Disk()
    outbox = await Outbox.open(tmp_path / "a.db", connect=disk.connect)
    failures: list[StorageError] = []
    await outbox.recover(when_failed=failures.append)
    job = await accepted(outbox)
    request = await outbox.seal(a_seal((job, ("u",))))
    disk.is_broken = True
    told = Told()
    outbox.accept(a_job(2), app="shop", done=told)
    with pytest.raises(StorageError):
        await told.wait()
    assert len(failures) == 1
    late = Told()
    outbox.accept(a_job(3), app="shop", done=late)
    with pytest.raises(StorageError):
        await late.wait()
    with pytest.raises(StorageError):
        await outbox.seal(a_seal((job, ("u",))))
    with pytest.raises(StorageError):
        await outbox.recall(KEY, app="shop")
    with pytest.raises(StorageError):
        await outbox.flush()
    outbox.settle([over(job, Rejected(400))], request=request)
    outbox.unseal(request)
    assert outbox.problem is not None
    await outbox.aclose()
    assert len(failures) == 1
    outbox, found = await opened(tmp_path / "a.db")
    assert ([each.id for each in found.jobs], [each.id for each in found.requests]) == ([job], [request])
    await outbox.aclose()
