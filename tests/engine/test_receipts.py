"""What a caller holds: one outcome for any number of waiters, and no failure that goes unseen."""

import asyncio
import gc
from pathlib import Path

from sendengine import (
    Abandoned,
    Accepted,
    CreateNotification,
    Expired,
    Outcome,
    Receipt,
    Rejected,
    SendFailedError,
    segments,
)
from sendengine.core.jobs import Job
from sendengine.engine.receipts import Receipt as ReceiptType
from sendengine.engine.unawaited import UnawaitedFailures
from sendengine.ports import Part
from tests.support.engines import (
    assert_nothing_leaked,
    change,
    make_engine,
    note,
    outcomes_of,
    pass_turns,
    settled,
    within,
)
from tests.support.events import listening
from tests.support.fake_transport import FakeTransport, accept, first, refuse
from tests.support.virtual_loop import run_virtually


def receipt_of(job: Job) -> Receipt:
    return ReceiptType(job, deadline_s=None, size_bytes=1)


async def test_any_number_of_tasks_may_await_it_any_number_of_times() -> None:
    receipt = receipt_of(note("a"))
    waiters = [asyncio.ensure_future(within(receipt)) for _ in range(3)]
    await pass_turns()
    assert receipt.book(Part(("a",), Accepted(("m",))))
    receipt.settle()
    assert await asyncio.gather(*waiters) == [Accepted(("m",))] * 3
    assert await receipt == await receipt == Accepted(("m",))


async def test_a_waiter_that_is_cancelled_disturbs_no_other() -> None:
    receipt = receipt_of(note("a"))
    one, other = (asyncio.ensure_future(within(receipt)) for _ in range(2))
    await pass_turns()
    one.cancel()
    await pass_turns()
    receipt.book(Part(("a",), Accepted()))
    receipt.settle()
    assert await other == Accepted()
    assert one.cancelled()


async def test_nothing_is_kept_of_those_who_waited_for_a_while() -> None:
    receipt = receipt_of(note("a"))
    told: list[Receipt] = []
    for _ in range(2):
        for _ in range(10):
            waiting = [asyncio.ensure_future(within(receipt)) for _ in range(3)]
            await pass_turns(2)
            for waiter in waiting:
                waiter.cancel()
            await asyncio.wait(waiting)
        assert receipt._followers in (None, [], [told.append])  # looks inside: what is kept shows nowhere else
        receipt.add_done_callback(told.append)
    receipt.book(Part(("a",), Accepted()))
    receipt.settle()
    await pass_turns()
    assert told == [receipt, receipt]


async def test_callbacks_are_called_once_each_and_at_once_where_it_has_settled() -> None:
    receipt = receipt_of(note("a"))
    called: list[str] = []
    receipt.add_done_callback(lambda _: called.append("one"))
    receipt.add_done_callback(lambda _: called.append("two"))
    receipt.add_done_callback(lambda receipt: called.append(repr(receipt)))
    receipt.book(Part(("a",), Accepted()))
    receipt.settle()
    await pass_turns()
    assert called == ["one", "two", "<Receipt CreateNotification accepted>"]
    receipt.add_done_callback(lambda _: called.append("late"))
    await pass_turns()
    assert called[3:] == ["late"]


def test_it_settles_with_the_last_of_its_recipients() -> None:
    receipt = receipt_of(note("a", "b", "c"))
    assert not receipt.book(Part(("b",), Accepted(("m1",), shared_with=1)))
    assert not receipt.is_settled
    assert receipt.book(Part(("a", "c"), Rejected(400, ("no",), 1, ("a", "c"))))
    assert receipt.settle() == Rejected(400, ("no",), attempts=2, not_sent=("a", "c"))
    assert [part.recipients for part in receipt.parts] == [("b",), ("a", "c")]


def test_recipients_that_cannot_be_counted_are_one_portion() -> None:
    receipt = receipt_of(CreateNotification(to=segments("All"), message={"contents": {"en": "x"}}))
    assert receipt.book(Part((), Accepted(("m",))))


def test_a_users_job_waits_for_as_many_portions_as_it_is_told() -> None:
    receipt = receipt_of(change("u", a=1))
    receipt.await_portion()
    assert not receipt.book(Part(("u",), Accepted()))
    assert receipt.book(Part(("u",), Accepted()))


def test_its_repr_tells_its_state_and_nobody() -> None:
    receipt = receipt_of(note("very-private"))
    assert repr(receipt) == "<Receipt CreateNotification waiting>"


def test_a_callback_that_raises_costs_no_other_job_its_outcome(tmp_path: Path) -> None:
    transport = FakeTransport()
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        async with make_engine(tmp_path, transport) as engine:
            receipts = [await engine.submit(note(f"u{n}")) for n in range(3)]  # all in one request

            def break_down(_: Receipt) -> None:
                raise ZeroDivisionError

            receipts[0].add_done_callback(break_down)
            assert [type(await settled(receipt)) for receipt in receipts] == [Accepted] * 3
            assert engine.health().is_alive
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert [type(complaint) for complaint in complaints] == [ZeroDivisionError]


# Failures that nobody awaits


def failed(*, awaited: bool = False, outcome: Outcome | None = None) -> Receipt:
    receipt = ReceiptType.settled(note("a"), outcome or Expired(("a",)))
    receipt.is_awaited = awaited
    return receipt


def test_failures_that_nobody_awaits_are_counted_and_logged_one_by_one_and_later_by_the_thousand() -> None:
    unawaited = UnawaitedFailures()
    with listening() as events:
        for _ in range(100):
            unawaited.watch(failed())  # and is dropped
        assert len(events.records) == 100
        for _ in range(900):
            unawaited.watch(failed())
        assert len(events.records) == 101
    assert unawaited.count == 1000
    assert events.fields("unawaited_failure")[-1] == {"outcome": "expired", "recipients": 1, "count": 1000}


def test_the_line_of_an_unawaited_failure_counts_its_recipients_and_names_none() -> None:
    with listening() as events:
        UnawaitedFailures().watch(failed(outcome=Rejected(400, ("no",), 1, ("ann@example.org", "bob@example.org"))))
    assert [(fields["recipients"], fields["outcome"]) for fields in events.fields("unawaited_failure")] == [
        (2, "rejected")
    ]
    assert "no" in events.lines[0]
    assert "example.org" not in events.lines[0]


def test_what_is_awaited_or_accepted_is_no_such_failure() -> None:
    unawaited = UnawaitedFailures()
    with listening() as events:
        unawaited.watch(failed(awaited=True))
        unawaited.watch(failed(outcome=Accepted()))
    assert (unawaited.count, events.records) == (0, [])


def test_an_unawaited_failure_is_logged_once_and_an_awaited_one_is_not(tmp_path: Path) -> None:
    transport = first([refuse(), refuse()], latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.submit(note("a", text="one"))
            seen = await engine.submit(note("b", text="two"))
            await asyncio.sleep(5)
            assert isinstance(await settled(seen), Rejected)  # late, but awaited

    gc.collect()  # what other tests have left
    with listening() as events:
        run_virtually(main())
    assert len(events.fields("unawaited_failure")) == 1


def test_a_failure_whose_only_waiter_went_away_is_logged(tmp_path: Path) -> None:
    transport = first([refuse()], latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            waiting = asyncio.ensure_future(settled(receipt))
            await pass_turns()
            waiting.cancel()
            await pass_turns()

    with listening() as events:
        run_virtually(main())
    assert events.fields("unawaited_failure") == [{"outcome": "rejected", "recipients": 1, "count": 1}]


def test_send_returns_what_was_accepted_and_raises_anything_else(tmp_path: Path) -> None:
    transport = first([refuse("no")])

    async def main() -> SendFailedError | None:
        async with make_engine(tmp_path, transport) as engine:
            try:
                await engine.send(note("a", text="one"))
            except SendFailedError as error:
                assert await engine.send(note("a", text="two")) == Accepted(("message-2",))
                return error
        return None

    error = run_virtually(main())
    assert error is not None
    assert error.outcome == Rejected(400, ("no",), not_sent=("a",))
    assert "400" in str(error)


def test_one_bad_recipient_of_a_pack_leaves_each_job_its_own_outcome(tmp_path: Path) -> None:
    transport = FakeTransport(lambda arrival: refuse() if "bad" in arrival.ids else accept(arrival))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            ended = await outcomes_of(engine, [note("a"), note("bad"), note("b")])
            assert [type(outcome) for outcome in ended] == [Accepted, Rejected, Accepted]
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_jobs_that_wait_when_the_engine_stops_are_abandoned_and_say_who_was_not_reached(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a", "b"))
            await engine.abort()
            assert await settled(receipt) == Abandoned(maybe_sent=False, not_sent=("a", "b"))

    run_virtually(main())
    assert not transport.arrivals
