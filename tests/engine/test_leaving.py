"""What waits when an engine stops settles some at a time, so that whoever shares the loop has turns in between."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sendengine import Abandoned, Job, Receipt, ReplyLostError, SendEngine
from sendengine.core.outcomes import Outcome
from sendengine.engine.leaving import TURN
from sendengine.ports import Part, RequestRecord
from sendengine.settings import CeilingSettings, RetrySettings, StoppingSettings
from tests.support.engines import assert_nothing_leaked, change, make_engine, make_settings, note, settled, until
from tests.support.fake_transport import Answer, Arrival, FakeTransport, refuse, throttle
from tests.support.virtual_loop import run_virtually

MANY = 6 * TURN
SLOW = {"ceilings": CeilingSettings(create_notification=2, update_user=2)}
AT_ONCE = StoppingSettings(grace_s=0)

JOBS: dict[str, Callable[[int], Job]] = {
    "lone notifications": lambda n: note(f"u{n}", text=str(n)),
    "one message": lambda n: note(f"u{n}"),
    "updates": lambda n: change(f"u{n}", a=n),
    "updates of one user": lambda n: change("u", **{f"tag {n}": n}),
}


async def aborted_in_turns(engine: SendEngine, receipts: Sequence[Receipt]) -> None:
    """Abort, and see that no turn of the loop settles many."""
    abort = asyncio.create_task(engine.abort())
    seen, most = 0, 0
    while seen < len(receipts):
        await asyncio.sleep(0)
        settled = sum(receipt.is_settled for receipt in receipts)
        most, seen = max(most, settled - seen), settled
    assert most < 2 * TURN, "a turn has its part, and what was on the wire"
    await abort


@pytest.mark.parametrize("kind", JOBS)
def test_an_abort_settles_what_waits_a_part_in_each_turn(tmp_path: Path, kind: str) -> None:
    transport = FakeTransport(latency_s=1000)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=SLOW, stopping=AT_ONCE) as engine:
            receipts = [engine.submit_nowait(JOBS[kind](number)) for number in range(MANY)]
            await aborted_in_turns(engine, receipts)
            assert {type(receipt.outcome) for receipt in receipts} == {Abandoned}
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_requests_that_wait_for_their_repeats_are_abandoned_in_turns_too(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: ReplyLostError("timed out"), latency_s=0.1)

    async def main() -> None:
        retry = RetrySettings(lost_reply_wait_s=1000)
        async with make_engine(tmp_path, transport, retry=retry, stopping=AT_ONCE) as engine:
            receipts = [engine.submit_nowait(note(f"u{n}", text=str(n))) for n in range(MANY)]
            await asyncio.sleep(0.5)
            await aborted_in_turns(engine, receipts)
            outcomes = Counter(receipt.outcome for receipt in receipts if isinstance(receipt.outcome, Abandoned))
            assert sum(outcomes.values()) == MANY
            assert any(outcome.maybe_sent for outcome in outcomes if isinstance(outcome, Abandoned))

    run_virtually(main())


@pytest.mark.parametrize("where", ["on the wire", "in a trial that waits"])
def test_a_large_pack_that_is_refused_for_no_reason_leaves_as_a_whole(tmp_path: Path, where: str) -> None:
    def behave(arrival: Arrival) -> Answer:
        return refuse() if len(arrival.ids) > 1 else throttle("3600")

    transport = FakeTransport(behave, latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note(*[f"u{number}" for number in range(2000)]))
            await until(lambda: len(transport.arrivals) == (1 if where == "on the wire" else 5))
            if where != "on the wire":
                await asyncio.sleep(2)
            await engine.abort()
            outcome = await settled(receipt)
            assert isinstance(outcome, Abandoned)
            assert not outcome.maybe_sent, "it was refused"
            assert len(outcome.not_sent) == 2000
            assert engine.health().is_alive
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_an_abort_that_is_cancelled_on_the_way_settles_the_rest_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport(latency_s=1000), app=SLOW, stopping=AT_ONCE) as engine:
            receipts = [engine.submit_nowait(note(f"u{number}", text=str(number))) for number in range(MANY)]
            abort = asyncio.create_task(engine.abort())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            abort.cancel()
            await asyncio.gather(abort, return_exceptions=True)
            assert not all(receipt.is_settled for receipt in receipts)
            await engine.abort()
            assert all(isinstance(receipt.outcome, Abandoned) for receipt in receipts)

    run_virtually(main())


class Broken:
    """An observer that takes nothing."""

    def request_settled(self, record: RequestRecord) -> None:
        """Not used here."""

    def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:  # noqa: ARG002 - the port's
        """Raise."""
        raise RuntimeError("the observer is broken")


def test_an_observer_that_raises_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        settings = make_settings(tmp_path, app=SLOW, stopping=AT_ONCE)
        engine = SendEngine(settings, observer=Broken(), open_transport=lambda *_: FakeTransport(latency_s=1000))
        await engine.__aenter__()
        receipts = [engine.submit_nowait(note(f"u{number}", text=str(number))) for number in range(MANY)]
        await engine.abort()
        assert all(isinstance(receipt.outcome, Abandoned) for receipt in receipts)
        assert engine.health().problems == ("the observer broke: RuntimeError",)
        assert not told
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(main())
