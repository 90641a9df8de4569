"""Callers' keys with a journal: remembered across processes, joined only once the first is on disk."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from sendengine import Accepted, EngineClosedError, Job, KeyReusedError, Rejected, StorageError, UpdateUser, external_id
from sendengine.engine.keys import fingerprint, wire_key
from sendengine.ports import KeyRecall
from sendengine.settings import JournalSettings
from tests.support.engines import APP_ID, assert_nothing_leaked, note, settled, within
from tests.support.events import listening
from tests.support.fake_journal import URGENT_S, Disk, FakeJournal
from tests.support.fake_transport import FakeTransport, first, refuse
from tests.support.journalled import FakeSlots, assert_nothing_left, durable, kill
from tests.support.virtual_loop import run_virtually

KEYED = note("a", idempotency_key="k")
OTHER = note("b", idempotency_key="k")
ON_THE_WIRE = wire_key(APP_ID, "k")


class CountingJournal(FakeJournal):
    """It counts how often it is asked for a key."""

    recalls = 0

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        self.recalls += 1
        return await super().recall(key, app=app)


@pytest.mark.parametrize(("transport", "kind"), [(FakeTransport(), Accepted), (first([refuse("no")]), Rejected)])
def test_a_key_of_an_earlier_process_is_answered_with_its_outcome(
    tmp_path: Path, transport: FakeTransport, kind: type
) -> None:
    disk = Disk()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            outcome = await settled(await engine.submit(KEYED))
            assert isinstance(outcome, kind)
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            receipt = await engine.submit(KEYED)
            assert (receipt.is_settled, receipt.outcome) == (True, outcome)
            with pytest.raises(KeyReusedError, match="'k'"):
                await engine.submit(OTHER)
            assert_nothing_leaked(engine, transport)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert len(transport.arrivals) == len(disk.accepted) == 1


def test_submits_of_one_key_at_once_ask_the_disk_once_and_make_one_job(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = CountingJournal(disk)
        async with durable(tmp_path, transport, journal) as engine:
            receipts = await asyncio.gather(*[engine.submit(KEYED) for _ in range(5)])
            assert len(set(receipts)) == 1
            assert journal.recalls == 1
            with pytest.raises(KeyReusedError):
                await engine.submit(OTHER)
            await settled(receipts[0])
            again = await engine.submit(KEYED)
            assert again.outcome == receipts[0].outcome
            assert journal.recalls == 1
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert [arrival.key for arrival in transport.arrivals] == [ON_THE_WIRE]


def test_whoever_joins_a_key_is_told_so_when_the_first_is_on_disk(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk, fsync_s=0.1)) as engine:
            first_one = engine.submit_nowait(KEYED)
            joining = asyncio.ensure_future(engine.submit(KEYED))
            await asyncio.sleep(0.1)
            assert not joining.done()
            assert await within(joining) is first_one
            assert list(disk.accepted.values()) == [KEYED]
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())


@pytest.mark.parametrize("is_nowait", [False, True])
def test_when_the_first_with_a_key_is_turned_back_the_next_takes_its_place(tmp_path: Path, is_nowait: bool) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal) as engine:
            first_one = asyncio.ensure_future(engine.submit(KEYED))
            while not engine._admissions.writing:  # noqa: ASYNC110 - the key is looked up first
                await asyncio.sleep(URGENT_S / 10)
            behind = asyncio.ensure_future(engine.submit(KEYED))
            joined = engine.submit_nowait(KEYED) if is_nowait else None
            await asyncio.sleep(0)
            first_one.cancel()
            receipt = await within(behind)
            assert isinstance(await settled(receipt), Accepted)
            assert joined is None or (joined.is_settled and joined is not receipt)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == {"a": 1}
    assert len(disk.accepted) == 1


def test_when_the_disk_fails_whoever_waits_for_a_key_is_told(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        async with durable(tmp_path, transport, journal) as engine:
            submitting = [asyncio.ensure_future(engine.submit(KEYED)) for _ in range(3)]
            while not engine._admissions.writing:  # noqa: ASYNC110 - the key is looked up first
                await asyncio.sleep(URGENT_S / 10)
            journal.fail_with = StorageError("EIO")
            results = await within(asyncio.gather(*submitting, return_exceptions=True))
            assert all(isinstance(result, (StorageError, EngineClosedError)) for result in results)
            assert_nothing_leaked(engine, transport)

    with listening():
        run_virtually(main())


def test_a_key_whose_job_is_under_way_elsewhere_takes_no_other_body(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()
    disk.keys["shop", ON_THE_WIRE] = (fingerprint(KEYED), 99, None)

    async def main() -> None:
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            with pytest.raises(KeyReusedError):
                await engine.submit(OTHER)
            assert_nothing_leaked(engine, transport)
            await engine.send(KEYED)  # the same body is safe: OneSignal keeps the first
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())


def test_a_recovered_job_is_joined_by_its_key(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        engine = durable(tmp_path, transport, journal)
        await engine.__aenter__()
        engine.pause()
        await engine.submit(KEYED)
        await kill(engine, journal)
        async with durable(tmp_path, transport, FakeJournal(disk)) as engine:
            (recovered,) = engine.recovered
            assert await engine.submit(KEYED) is recovered.receipt
            with pytest.raises(KeyReusedError):
                await engine.submit(OTHER)
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert transport.deliveries == {"a": 1}


def test_two_processes_that_took_jobs_under_one_key_leave_both_to_a_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks, transport = [Disk(), Disk()], FakeTransport()
    jobs: list[Job] = [KEYED, UpdateUser(external_id("u"), tags={"a": 1}, idempotency_key="u")]

    async def main() -> None:
        for disk in disks:
            journal = FakeJournal(disk)
            engine = durable(tmp_path, transport, journal)
            await engine.__aenter__()
            engine.pause()
            for job in jobs:
                await engine.submit(job)
            await kill(engine, journal)
        own, foreign = (FakeJournal(disk) for disk in disks)
        slots = FakeSlots(own, [foreign])
        slots.become_the_slots(monkeypatch)
        async with durable(tmp_path, transport, None, ages=JournalSettings()) as engine:
            assert len(engine.recovered) == 4
            assert await engine.submit(KEYED) is engine.recovered[0].receipt
            for one in engine.recovered:
                await settled(one.receipt)
        assert slots.is_closed
        assert engine.health().is_alive
        for disk in disks:
            assert_nothing_left(engine, transport, disk)

    run_virtually(main())
    assert {arrival.key for arrival in transport.arrivals if arrival.method == "POST"} == {ON_THE_WIRE}


def test_a_recovered_job_that_named_no_app_settles_although_there_are_several_now(tmp_path: Path) -> None:
    disk, transport = Disk(), FakeTransport()

    async def main() -> None:
        journal = FakeJournal(disk)
        engine = durable(tmp_path, transport, journal)
        await engine.__aenter__()
        engine.pause()
        await engine.submit(KEYED)
        await kill(engine, journal)
        async with durable(tmp_path, transport, FakeJournal(disk), others={"blog": {}}) as engine:
            (recovered,) = engine.recovered
            assert isinstance(await settled(recovered.receipt), Accepted)
            again = await engine.submit(replace(KEYED, app="shop"))
            assert again.outcome == recovered.receipt.outcome
            assert engine.health().is_alive
        assert_nothing_left(engine, transport, disk)

    run_virtually(main())
