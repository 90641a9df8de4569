"""Draining and aborting: nothing lost, nothing settled twice, nothing left behind, whoever is cancelled meanwhile."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sendengine import (
    Abandoned,
    Accepted,
    AppSettings,
    EngineClosedError,
    Receipt,
    SendEngine,
    SettingsError,
    StorageError,
)
from sendengine.ports import Permit, Recovered, Reply, WireRequest
from sendengine.settings import BatchingSettings, CeilingSettings, StoppingSettings
from tests.support.engines import (
    APP_ID,
    CREATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_engine,
    make_settings,
    note,
    now_s,
    pass_turns,
    settled,
    until,
    within,
)
from tests.support.events import listening
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport, first, refuse, throttle
from tests.support.journalled import durable
from tests.support.virtual_loop import run_virtually

SLOW = {"ceilings": CeilingSettings(create_notification=10)}


class SlowJournal(FakeJournal):
    """One that is not opened while it is slow, and not closed before it may be."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.is_opening, self.may_close = asyncio.Event(), asyncio.Event()
        self.is_slow, self.is_closed = True, False

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        self.is_opening.set()
        if self.is_slow:
            await asyncio.Event().wait()
        return await super().recover(when_failed=when_failed)

    async def aclose(self) -> None:
        await self.may_close.wait()
        await super().aclose()
        self.is_closed = True


def test_an_engine_that_was_not_entered_takes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        engine = make_engine(tmp_path, FakeTransport())
        with pytest.raises(EngineClosedError, match="async with"):
            await engine.submit(note("a"))
        with pytest.raises(EngineClosedError):
            engine.submit_nowait(note("a"))
        assert not engine.health().is_accepting

    run_virtually(main())


def test_an_engine_is_entered_once(tmp_path: Path) -> None:
    async def main() -> None:
        engine = make_engine(tmp_path, FakeTransport())
        async with engine:
            with pytest.raises(EngineClosedError):
                await engine.__aenter__()
        with pytest.raises(EngineClosedError, match="once"):
            await engine.__aenter__()

    run_virtually(main())


def test_after_a_drain_nothing_is_taken_and_draining_again_does_no_harm(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note("a")), await engine.submit(change("u", a=1))]
            await engine.drain()
            assert all(isinstance(receipt.outcome, Accepted) for receipt in receipts)
            for _ in range(2):
                with pytest.raises(EngineClosedError, match="draining"):
                    await engine.submit(note("b"))
                with pytest.raises(EngineClosedError):
                    engine.submit_nowait(note("b"))
                await engine.drain()
            await engine.abort()
        await engine.abort()
        assert engine.health().problems == ()

    run_virtually(main())
    assert transport.is_closed


def test_begin_drain_takes_no_more_and_goes_on_sending(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(20)]
            assert engine.health().is_accepting
            engine.begin_drain()
            health = engine.health()
            assert (health.is_alive, health.is_accepting) == (True, False)
            with pytest.raises(EngineClosedError):
                await engine.submit(note("b"))
            assert [type(await settled(receipt)) for receipt in receipts] == [Accepted] * 20
            engine.begin_drain()

    with listening() as events:
        run_virtually(main())
    assert events.names.count("draining") == 1
    assert events.names.count("stopped") == 1


def test_a_drain_that_takes_too_long_abandons_the_rest(tmp_path: Path) -> None:
    transport = first([throttle("1000")])

    async def main() -> None:
        stopping = StoppingSettings(drain_timeout_s=7, grace_s=2)
        receipts: list[Receipt] = []
        async with make_engine(tmp_path, transport, stopping=stopping) as engine:
            receipts += [await engine.submit(note("a", text=str(number))) for number in range(10)]
            await asyncio.sleep(0.5)
            begin_s = now_s()
        assert now_s() == pytest.approx(begin_s + 7)
        # All of the pull's first requests went before the 429 came back.
        assert Counter(type(receipt.outcome) for receipt in receipts) == {Accepted: 9, Abandoned: 1}

    with listening() as events:
        run_virtually(main())
    assert "drain_timeout" in events.names


def test_an_abort_waits_for_nothing_that_waits_for_a_connection(tmp_path: Path) -> None:
    """It is not on the wire, and never will be: the lane has stopped."""

    class Unreachable(FakeTransport):
        async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
            await asyncio.Event().wait()
            return await super().exchange(request, permit)

    async def main() -> None:
        async with make_engine(tmp_path, Unreachable()) as engine:
            receipt = await engine.submit(note("a"))
            await until(lambda: lane_of(engine).approaching == 1)
            begin_s = now_s()
            await engine.abort(grace_s=50)
            assert now_s() == begin_s
        assert receipt.outcome == Abandoned(maybe_sent=False, not_sent=("a",))

    with listening() as events:
        run_virtually(main())
    assert "grace_over" not in events.names


def test_an_abort_gives_what_is_on_the_wire_its_grace_and_no_more(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=100.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(40)]
            await asyncio.sleep(1)
            sent = len(transport.arrivals)
            begin_s = now_s()
            await engine.abort(grace_s=3)
            assert now_s() == pytest.approx(begin_s + 3)
            ended = Counter(
                (type(receipt.outcome), getattr(receipt.outcome, "maybe_sent", None)) for receipt in receipts
            )
            assert ended == {(Abandoned, True): sent, (Abandoned, False): 40 - sent}
            assert_nothing_leaked(engine, transport)

    with listening() as events:
        run_virtually(main())
    assert "grace_over" in events.names


def test_what_is_refused_after_an_abort_began_is_not_sent_in_pieces(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: refuse(), latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(*[f"u{number}" for number in range(50)]))]
            receipts += [await engine.submit(change("u", **{f"t{number}": 1})) for number in range(5)]
            await until(lambda: len(transport.arrivals) == 2)
            await engine.abort()
            assert [type(await settled(receipt)) for receipt in receipts] == [Abandoned] * 6
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert len(transport.arrivals) == 2


def test_leaving_the_block_by_an_exception_drains_too(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> Receipt:
        receipts: list[Receipt] = []

        async def break_down() -> None:
            async with make_engine(tmp_path, transport) as engine:
                receipts.append(await engine.submit(note("a")))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await break_down()
        return receipts[0]

    assert isinstance(run_virtually(main()).outcome, Accepted)


@pytest.mark.parametrize("times", [1, 3])
def test_leaving_the_block_is_shielded_from_cancellation(tmp_path: Path, times: int) -> None:
    transport = FakeTransport(latency_s=2.0)

    async def main() -> None:
        receipts: list[Receipt] = []

        async def serve() -> None:
            async with make_engine(tmp_path, transport, app=SLOW) as engine:
                receipts.extend([await engine.submit(note("a", text=str(number))) for number in range(20)])
                await asyncio.Event().wait()

        serving = asyncio.create_task(serve())
        await asyncio.sleep(0.1)
        for _ in range(times):
            serving.cancel()
            await asyncio.sleep(0.3)
        (ended,) = await asyncio.gather(serving, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
        assert [type(receipt.outcome) for receipt in receipts] == [Accepted] * 20

    run_virtually(main())
    assert transport.is_closed


def test_no_task_timer_or_thread_is_left_behind(tmp_path: Path) -> None:
    transport = FakeTransport()
    threads = set(threading.enumerate())

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            for number in range(50):
                await engine.submit(note("a", text=str(number), expires_in_s=3600))
                await engine.submit(change(f"u{number}", a=1))
        assert_nothing_leaked(engine, transport)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        loop = asyncio.get_running_loop()
        await pass_turns()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]

    run_virtually(main())
    left = [thread for thread in threading.enumerate() if thread not in threads]
    for thread in left:
        thread.join(5)
    assert not any(thread.is_alive() for thread in left)


def test_cancelling_an_abort_and_calling_it_again_closes_all_the_same(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=100.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(1)
            aborting = asyncio.create_task(engine.abort(grace_s=50))
            await asyncio.sleep(1)
            aborting.cancel()
            await asyncio.gather(aborting, return_exceptions=True)
            await engine.abort(grace_s=1)
            assert isinstance(receipt.outcome, Abandoned)

    run_virtually(main())
    assert transport.is_closed


def test_two_drains_at_once_both_end(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW) as engine:
            for number in range(10):
                await engine.submit(note("a", text=str(number)))
            await within(asyncio.gather(engine.drain(), engine.drain(), engine.drain()))

    run_virtually(main())
    assert len(transport.arrivals) == 10


def test_a_drain_sends_what_lingers_and_what_waits_for_its_users_second(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note("a"))]
            for number in range(4):
                receipts.append(await engine.submit(change("u", a=number)))
                await asyncio.sleep(0.2)
        assert [type(receipt.outcome) for receipt in receipts] == [Accepted] * 5

    run_virtually(main())


def test_a_drain_waits_for_no_company_which_cannot_come_any_more(tmp_path: Path) -> None:
    """A linger longer than the drain may take would abandon what waits, and a shorter one would only cost time."""
    transport = FakeTransport()

    async def main() -> None:
        batching = BatchingSettings(linger_ms=60_000)
        async with make_engine(tmp_path, transport, batching=batching) as engine:
            receipts = [await engine.submit(note(f"u{n}")) for n in range(3)]
            begin_s = now_s()
        assert [type(await settled(receipt)) for receipt in receipts] == [Accepted] * 3
        assert now_s() - begin_s < 1

    run_virtually(main())
    assert len(transport.arrivals) == 1  # and they still share a request


def test_a_transport_that_cannot_be_made_leaves_those_of_other_apps_closed(tmp_path: Path) -> None:
    transport = FakeTransport()

    def open_transport(app: AppSettings, _: str) -> FakeTransport:
        if app.app_id == APP_ID:
            return transport
        raise SettingsError("transport.ca_file: cannot be read")

    async def main() -> None:
        others = {"news": {"app_id": "0f6b0aa6-3b3a-4b5a-9b0a-0d4f3f1f7a11"}}
        engine = SendEngine(make_settings(tmp_path, others=others), open_transport=open_transport)
        with pytest.raises(SettingsError, match="ca_file"):
            async with engine:
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(EngineClosedError, match="once"):
            await engine.__aenter__()  # parts of it are closed

    run_virtually(main())
    assert transport.is_closed


def test_of_two_who_enter_an_engine_at_once_one_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        engine = make_engine(tmp_path, FakeTransport())
        first, second = await asyncio.gather(engine.__aenter__(), engine.__aenter__(), return_exceptions=True)
        assert first is engine
        assert isinstance(second, EngineClosedError)
        await engine.abort()

    run_virtually(main())


def test_an_entering_that_is_cancelled_twice_closes_all_the_same(tmp_path: Path) -> None:
    journal = SlowJournal(Disk())
    transport = FakeTransport()

    async def main() -> None:
        entering = asyncio.ensure_future(durable(tmp_path, transport, journal).__aenter__())
        await within(journal.is_opening.wait())
        for _ in range(2):
            entering.cancel()
            await pass_turns(3)
        journal.may_close.set()
        with pytest.raises(asyncio.CancelledError):
            await within(entering)
        await pass_turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(main())
    assert journal.is_closed
    assert transport.is_closed


def test_a_transport_that_raises_when_it_is_closed_keeps_no_journal_open(tmp_path: Path) -> None:
    class Raising(FakeTransport):
        async def aclose(self) -> None:
            await super().aclose()
            raise ConnectionError("it was closed before")

    journal = SlowJournal(Disk())
    journal.is_slow = False
    journal.may_close.set()

    async def main() -> None:
        with pytest.raises(ConnectionError):
            async with durable(tmp_path, Raising(), journal) as engine:
                assert isinstance(await settled(await engine.submit(note("a"))), Accepted)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(main())
    assert journal.is_closed


def test_a_key_that_cannot_be_read_is_found_when_the_engine_is_entered(tmp_path: Path) -> None:
    async def main() -> None:
        app = {"api_key": None, "api_key_file": str(tmp_path / "not there")}
        with pytest.raises(SettingsError, match="api_key_file"):
            async with make_engine(tmp_path, FakeTransport(), app=app):
                pass

    run_virtually(main())


def test_jobs_that_come_back_while_stopping_settle_once(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: throttle("1"), latency_s=0.5)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note("a", text=str(number))) for number in range(20)]
            await until(lambda: len(transport.arrivals) == 20)
            await engine.abort()
            assert {receipt.outcome for receipt in receipts} == {Abandoned(maybe_sent=False, not_sent=("a",))}
            assert lane_of(engine).books.outcomes == {"abandoned": 20}
            assert engine.counters()[CREATE].requests == 20

    run_virtually(main())


def test_a_state_directory_that_cannot_be_used_costs_warnings_and_no_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    transport = first([throttle("1")])

    async def main() -> None:
        async with make_engine(tmp_path / "file", transport) as engine:
            assert isinstance(await settled(await engine.submit(note("a"))), Accepted)

    with listening() as events:
        run_virtually(main())
    text = "\n".join(events.lines)
    assert "counted for this process alone" in text
    assert "what was learned about rates is not kept" in text
