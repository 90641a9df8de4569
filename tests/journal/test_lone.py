"""Jobs that go alone: what is on disk before they may go, and what a later process is told of them."""

import asyncio
import sqlite3
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine import CreateNotification, StorageError, external_id
from sendengine.core.jobs import Json
from sendengine.core.outcomes import Accepted
from sendengine.core.wire import canonical
from sendengine.journal.outbox import Outbox
from sendengine.journal.records import JOB, JobEntry, read_job, write_job
from sendengine.journal.store import Store
from sendengine.ports import LoneJournal, Portion, Recovered
from tests.support.stores import KEY, Disk, Told, a_job, a_seal, copied, opened
from tests.support.virtual_loop import run_virtually

TOOK = Accepted(("m1",))


async def after_a_crash(outbox: Outbox, into: Path) -> Recovered:
    copy, found = await opened(copied(outbox.store.path, into=into))
    await copy.aclose()
    return found


async def accepted(outbox: Outbox, count: int, *, text: str = "Hi", **options: object) -> list[int]:
    told = [Told() for _ in range(count)]
    records = [
        outbox.accept(a_job(number, text=text), app="shop", done=done, request_key=KEY, **options)  # type: ignore[arg-type]
        for number, done in enumerate(told)
    ]
    for done in told:
        await done.wait()
    return records


async def gone(outbox: Outbox, *jobs: int) -> None:
    for job in jobs:
        if not outbox.may_go(job):
            await outbox.until_it_may_go(job)


async def test_a_job_has_begun_from_when_it_may_go_and_those_far_behind_it_have_not(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    assert isinstance(outbox, LoneJournal)
    jobs = await accepted(outbox, 10)
    found = await after_a_crash(outbox, tmp_path / "unsent")
    assert [(job.id, job.was_begun, job.request_key) for job in found.jobs] == [(job, False, KEY) for job in jobs]
    assert not outbox.may_go(jobs[0])
    await outbox.until_it_may_go(jobs[0])
    found = await after_a_crash(outbox, tmp_path / "one")
    assert [job.was_begun for job in found.jobs] == [True, True] + 8 * [False]  # it runs ahead as far as it has come
    await gone(outbox, *jobs)
    found = await after_a_crash(outbox, tmp_path / "all")
    assert all(job.was_begun for job in found.jobs)
    assert found.requests == ()
    await outbox.aclose()


async def test_while_many_go_none_waits_for_the_disk(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    jobs = await accepted(outbox, 400)
    await gone(outbox, *jobs[:300])
    await outbox.flush()
    assert all(map(outbox.may_go, jobs[300:]))
    await outbox.aclose()


def test_the_frontier_runs_ahead_by_a_quarter_second(tmp_path: Path) -> None:
    async def main() -> None:
        outbox, _ = await opened(tmp_path / "a.db")
        jobs = await accepted(outbox, 1500)
        waited = []
        for number, job in enumerate(jobs[:1000]):  # one each millisecond
            if not outbox.may_go(job):
                await outbox.until_it_may_go(job)
                waited.append(number)
            await asyncio.sleep(0.001)
        assert all(number < 100 for number in waited)
        found = await after_a_crash(outbox, tmp_path / "copy")
        assert 1000 + 100 < sum(job.was_begun for job in found.jobs) <= 1000 + 251
        await outbox.aclose()

    run_virtually(main())


async def test_apps_and_urgencies_have_frontiers_of_their_own(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    normal = await accepted(outbox, 3)
    told = [Told(), Told()]
    high = CreateNotification(to=external_id("v"), channel="push", message={"contents": {"en": "Hi"}}, urgency="high")
    others = [
        outbox.accept(high, app="shop", done=told[0], request_key=KEY),
        outbox.accept(a_job(9), app="other", done=told[1], request_key=KEY),
    ]
    for done in told:
        await done.wait()
    for number, job in enumerate(others):
        await gone(outbox, job)
        found = await after_a_crash(outbox, tmp_path / f"{number}")
        assert [each.id for each in found.jobs if each.was_begun] == others[: number + 1]
    assert normal[0] < others[0]
    await outbox.aclose()


async def test_a_file_that_was_closed_names_those_that_have_gone_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    outbox, _ = await opened(path)
    jobs = await accepted(outbox, 5)
    await gone(outbox, *jobs)
    outbox.settle([Portion(jobs[0], ("u0",), TOOK, is_last=True)], request=None)
    outbox.spare(jobs[3])
    await outbox.aclose()
    for _ in range(2):
        outbox, found = await opened(path)
        assert [(job.id, job.was_begun) for job in found.jobs] == list(
            zip(jobs[1:], (True, True, False, True), strict=True)
        )
        await outbox.aclose()
        await outbox.aclose()


async def test_what_may_have_been_sent_before_a_crash_is_known_after_an_orderly_end_too(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    await gone(outbox, *await accepted(outbox, 3))
    crashed = copied(outbox.store.path, into=tmp_path / "crash")
    for _ in range(3):
        copy, found = await opened(crashed)
        assert [job.was_begun for job in found.jobs] == 3 * [True]
        await copy.aclose()
    await outbox.aclose()


@pytest.mark.parametrize("count", [500, 900, 1000, 1200])
async def test_an_orderly_end_marks_more_jobs_than_one_group_holds(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.db"
    outbox, _ = await opened(path)
    await gone(outbox, *await accepted(outbox, count, text=1000 * "x"))
    await outbox.aclose()
    outbox, found = await opened(path)
    assert [job.was_begun for job in found.jobs] == count * [True]
    await outbox.aclose()


def test_a_frontier_never_goes_back_while_jobs_go(tmp_path: Path) -> None:
    async def main() -> None:
        outbox, _ = await opened(tmp_path / "a.db")
        await gone(outbox, *[(await accepted(outbox, 1))[0] for _ in range(100)])
        for turn in range(20):  # slow after a burst: it runs less far ahead than it did
            await asyncio.sleep(5)
            job = (await accepted(outbox, 1))[0]
            await gone(outbox, job)
            found = await after_a_crash(outbox, tmp_path / str(turn))
            assert {one.id: one.was_begun for one in found.jobs}[job]
        await outbox.aclose()

    run_virtually(main())


async def test_a_file_that_was_only_looked_into_stays_as_it_is(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    (job,) = await accepted(outbox, 1)
    await gone(outbox, job)
    path = copied(outbox.store.path, into=tmp_path / "copy")
    await outbox.aclose()
    await (await Outbox.open(path)).aclose()
    outbox, found = await opened(path)
    assert [each.was_begun for each in found.jobs] == [True]
    await outbox.aclose()


async def test_what_an_earlier_process_may_have_sent_stays_so_until_it_has_settled(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    (job,) = await accepted(outbox, 1)
    await gone(outbox, job)
    path = copied(outbox.store.path, into=tmp_path / "copy")
    await outbox.aclose()
    outbox, found = await opened(path)
    assert found.jobs[0].was_begun
    assert outbox.may_go(job)  # its frontier is on disk
    found = await after_a_crash(outbox, tmp_path / "again")
    assert found.jobs[0].was_begun
    outbox.settle([Portion(job, ("u0",), TOOK, is_last=True)], request=None)
    await outbox.flush()
    assert outbox.is_empty
    await outbox.aclose()


async def test_a_frontier_that_ran_ahead_says_nothing_of_the_jobs_of_the_next_process(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    sent = await accepted(outbox, 20)
    await gone(outbox, *sent)
    await outbox.flush()
    path = copied(outbox.store.path, into=tmp_path / "copy")
    await outbox.aclose()
    outbox, _ = await opened(path)
    later = await accepted(outbox, 5)
    found = await after_a_crash(outbox, tmp_path / "again")
    assert [job.id for job in found.jobs if not job.was_begun] == later
    assert not outbox.may_go(later[0])
    await outbox.aclose()


async def test_a_job_that_is_sealed_with_others_after_all_goes_alone_no_more(tmp_path: Path) -> None:
    outbox, _ = await opened(tmp_path / "a.db")
    jobs = await accepted(outbox, 2)
    await gone(outbox, *jobs)
    seal = a_seal(*((job, (f"u{number}",)) for number, job in enumerate(jobs)), key=f"9{KEY[1:]}")
    await outbox.seal(seal)
    found = await after_a_crash(outbox, tmp_path / "copy")
    assert [each.seal for each in found.requests] == [seal]
    assert [(job.request_key, job.was_begun) for job in found.jobs] == [(None, False)] * 2
    await outbox.aclose()


@pytest.mark.parametrize("value", [b"", b"x", b"-5"])
async def test_where_a_frontier_cannot_be_read_every_job_may_have_gone(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "a.db"
    outbox, _ = await opened(path)
    jobs = await accepted(outbox, 3)
    outbox.store.set_value("lone/normal/shop", value)
    await outbox.flush()
    found = await after_a_crash(outbox, tmp_path / "copy")
    assert [(job.id, job.was_begun) for job in found.jobs] == [(job, True) for job in jobs]
    await outbox.aclose()


async def test_where_records_were_lost_every_job_may_have_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    outbox, _ = await opened(path)
    await accepted(outbox, 2)
    await outbox.aclose()
    connection = sqlite3.connect(path)
    ((seq, data),) = connection.execute("SELECT seq, records FROM log").fetchall()
    connection.execute("UPDATE log SET records = ? WHERE seq = ?", (data[:-1] + bytes([data[-1] ^ 1]), seq))
    connection.commit()
    connection.close()
    outbox, found = await opened(path)
    assert found.damaged
    assert [job.was_begun for job in found.jobs] == [True]
    again = await after_a_crash(outbox, tmp_path / "copy")  # the damage is set aside, what it means is not
    assert (again.damaged, [job.was_begun for job in again.jobs]) == ((), [True])
    await outbox.aclose()


async def test_whoever_waits_for_a_frontier_is_told_that_the_disk_has_failed(tmp_path: Path) -> None:
    disk = Disk()
    outbox = await Outbox.open(tmp_path / "a.db", connect=disk.connect)
    await outbox.recover(when_failed=lambda _: None)
    jobs = await accepted(outbox, 2)
    disk.is_broken = True
    for job in jobs:
        assert not outbox.may_go(job)
    waiting = [asyncio.ensure_future(outbox.until_it_may_go(job)) for job in (*jobs, jobs[1])]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    for each in waiting:
        with pytest.raises(StorageError):
            await each
    with pytest.raises(StorageError):
        await outbox.until_it_may_go(jobs[0])
    await outbox.aclose()


async def test_a_file_of_version_1_keeps_its_jobs_and_its_requests(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await Store.open(path)
    told = Told()
    row = orjson.loads(write_job(JobEntry(a_job(), "shop", 5.0)))
    assert row.pop() is None  # version 1 has no key of a request
    store.put(JOB, orjson.dumps(row), done=told)
    await told.wait()
    await store.aclose()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    outbox, found = await opened(path)
    assert [(job.job, job.request_key, job.was_begun) for job in found.jobs] == [(a_job(), None, False)]
    await outbox.aclose()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FLAT = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(NAMES, SCALARS, max_size=3)
JSON = FLAT | st.lists(FLAT, max_size=3) | st.dictionaries(NAMES, FLAT, max_size=3)


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_a_job_that_was_read_again_has_the_same_body(data: dict[str, Json]) -> None:
    job = CreateNotification(
        to=external_id("u"), channel="push", message={"contents": {"en": "Hi"}, "data": data}, pack=False
    )
    again = read_job(write_job(JobEntry(job, "shop", 1.0, request_key=KEY))).job
    assert isinstance(again, CreateNotification)
    assert canonical(again.message) == canonical(job.message)
    assert again.to == job.to
