"""Offering jobs by the clock: latencies from the intended start, whatever the engine or the loop does."""

import asyncio
from itertools import repeat
from typing import ClassVar

import pytest

from sendengine.bench.feeding import Feeder
from sendengine.bench.streams import Flood, Kind, Stream
from sendengine.core.jobs import Job, UpdateUser
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.outcomes import Abandoned, Accepted, Outcome
from sendengine.core.targets import external_id
from sendengine.engine import Receipt
from sendengine.errors import AppHeldError, IntakeFullError
from sendengine.ports import Part
from tests.support.virtual_loop import VirtualLoop, run_virtually

KIND: Kind = (EndpointGroup.UPDATE_USER, "normal")
JOB = UpdateUser(external_id("u"), {"level": 1})


class Sink:
    """Takes at most ``room`` jobs at a time, and lets each end after ``latency_s``; None: never."""

    def __init__(self, *, latency_s: float | None = 0.1, room: int = 10**9) -> None:
        self.latency_s = latency_s
        self.room = room
        self.taken_at_s: list[float] = []
        self.inside: list[Receipt] = []
        self.held = False

    def submit(self, job: Job) -> Receipt:
        if self.held:
            raise AppHeldError("held")
        if len(self.inside) >= self.room:
            raise IntakeFullError("full")
        loop = asyncio.get_running_loop()
        self.taken_at_s.append(loop.time())
        receipt = Receipt(job, deadline_s=None, size_bytes=1)
        self.inside.append(receipt)
        if self.latency_s is not None:
            loop.call_later(self.latency_s, self.end, receipt, Accepted())
        return receipt

    def end(self, receipt: Receipt, outcome: Outcome) -> None:
        self.inside.remove(receipt)
        receipt.book(Part(("u",), outcome))
        receipt.settle()


def stream(*, rate: float, seconds: float) -> Stream:
    return Stream(repeat(JOB), kind=KIND, rate=rate, seconds=seconds)


def test_jobs_go_at_their_rate_and_latency_is_the_servers() -> None:
    async def main() -> None:
        sink = Sink()
        feeder = Feeder(sink.submit, [stream(rate=100, seconds=2)])
        await feeder.offer(2)
        await feeder.settle(5)
        assert len(sink.taken_at_s) == 200
        gaps = [after - before for before, after in zip(sink.taken_at_s, sink.taken_at_s[1:], strict=False)]
        assert gaps == pytest.approx([0.01] * 199, abs=1e-6)
        tally = feeder.tallies[KIND]
        assert (tally.accepted, feeder.under_way) == (200, 0)
        assert tally.latency.percentile_ms(50) == pytest.approx(100, rel=0.02)
        assert tally.latency.max_ms == pytest.approx(100, abs=1)
        assert feeder.late.max_ms == pytest.approx(0, abs=1)

    run_virtually(main())


def test_the_engine_has_its_turn_after_a_millisecond_however_much_is_due() -> None:
    class Slow(Sink):
        """A submit takes a tenth of a millisecond; ``turns`` counts the submits of each turn of the loop."""

        turns: ClassVar[list[int]] = [0]

        def submit(self, job: Job) -> Receipt:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.now_s += 0.0001
            if not self.turns[-1]:
                loop.call_soon(self.turns.append, 0)
            self.turns[-1] += 1
            return super().submit(job)

    async def main() -> None:
        sink = Slow(latency_s=None)
        feeder = Feeder(sink.submit, [stream(rate=1_000_000, seconds=0.1), stream(rate=1_000_000, seconds=0.1)])
        await feeder.offer(0.1)
        assert max(sink.turns) in range(10, 13)  # five of each stream, and what float seconds lose

    run_virtually(main())


def test_at_a_high_rate_they_go_in_batches_and_none_is_left_out() -> None:
    async def main() -> None:
        sink = Sink()
        feeder = Feeder(sink.submit, [stream(rate=7000, seconds=1)])
        await feeder.offer(1)
        await feeder.settle(1)
        assert feeder.tallies[KIND].accepted == 7000
        assert len({round(at_s, 4) for at_s in sink.taken_at_s}) <= 501  # a tick is two milliseconds
        assert feeder.late.max_ms <= 2.1

    run_virtually(main())


def test_a_loop_that_stalls_makes_latency_and_no_gap() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        sink = Sink(latency_s=0.0)
        feeder = Feeder(sink.submit, [stream(rate=100, seconds=2)])

        def stall() -> None:
            loop.now_s += 1.0  # a host's slow callback

        loop.call_later(0.5, stall)
        await feeder.offer(2)
        await feeder.settle(5)
        tally = feeder.tallies[KIND]
        assert tally.accepted == 200
        # 100 of 200 jobs were meant to start while it stood still, and waited from a second down to nothing
        assert tally.latency.percentile_ms(75) == pytest.approx(500, rel=0.05)
        assert tally.latency.max_ms == pytest.approx(1000, rel=0.05)
        assert feeder.late.max_ms == pytest.approx(1000, rel=0.05)

    run_virtually(main())


def test_what_finds_no_room_waits_in_the_schedule() -> None:
    async def main() -> None:
        sink = Sink(latency_s=1.0, room=10)  # ten a second at most, of 20 that are offered
        feeder = Feeder(sink.submit, [stream(rate=20, seconds=5)])
        await feeder.offer(5)
        assert feeder.offered() == {KIND: 100}
        await feeder.settle(60)
        tally = feeder.tallies[KIND]
        assert tally.accepted == 100
        assert tally.latency.max_ms == pytest.approx(5_600, rel=0.1)  # the last was meant for 4.95 s, and ended at 10 s

    run_virtually(main())


def test_what_never_finds_room_counts_for_as_long_as_it_has_waited() -> None:
    async def main() -> None:
        sink = Sink(latency_s=None, room=3)
        feeder = Feeder(sink.submit, [stream(rate=10, seconds=2)])
        await feeder.offer(2)
        await feeder.settle(8)
        assert (feeder.offered(), feeder.under_way) == ({KIND: 20}, 3)
        waited = feeder.waited()[KIND]
        assert waited.count == 17
        assert waited.max_ms == pytest.approx(9_700, rel=0.01)  # meant for 0.3 s, at the end of ten
        for receipt in [*sink.inside]:
            sink.end(receipt, Abandoned())
        await asyncio.sleep(0)  # callbacks come in a step of their own
        assert feeder.tallies[KIND].waited.count == 3

    run_virtually(main())


def test_a_full_stream_does_not_hold_another_up() -> None:
    async def main() -> None:
        stuck, free = Sink(latency_s=None, room=1), Sink()
        other: Kind = (EndpointGroup.UPDATE_USER, "high")
        urgent = UpdateUser(external_id("u"), {"level": 1}, urgency="high")

        def submit(job: Job) -> Receipt:
            return (free if job.urgency == "high" else stuck).submit(job)

        streams = [
            stream(rate=100, seconds=1),
            Stream(repeat(urgent), kind=other, rate=100, seconds=1),
        ]
        feeder = Feeder(submit, streams)
        await feeder.offer(1)
        await feeder.settle(1)
        assert feeder.tallies[other].accepted == 100
        assert feeder.tallies[other].latency.max_ms == pytest.approx(100, abs=5)
        assert feeder.offered() == {KIND: 100, other: 100}

    run_virtually(main())


def test_as_fast_as_it_goes_keeps_its_depth_under_way() -> None:
    async def main() -> None:
        sink = Sink(latency_s=0.1)
        feeder = Feeder(sink.submit, [Flood(repeat(JOB), depth=50)])
        await feeder.offer(2)
        await feeder.settle(5)
        tally = feeder.tallies[KIND]
        assert tally.accepted == pytest.approx(1000, rel=0.05)  # 50 each tenth of a second
        assert tally.latency.percentile_ms(50) == pytest.approx(100, rel=0.03)

    run_virtually(main())


def test_a_stop_ends_it_soon_and_owes_nothing_of_what_was_meant_for_later() -> None:
    async def main() -> None:
        sink = Sink(latency_s=None)
        feeder = Feeder(sink.submit, [stream(rate=10, seconds=60)])
        asyncio.get_running_loop().call_later(2.05, feeder.stop)
        await feeder.offer(60)
        await feeder.settle(60)
        assert feeder.at_s == pytest.approx(2.1, abs=0.11)
        assert feeder.offered()[KIND] in {21, 22}

    run_virtually(main())


def test_a_held_app_ends_it() -> None:
    async def main() -> None:
        sink = Sink()
        feeder = Feeder(sink.submit, [stream(rate=10, seconds=60)])

        def hold() -> None:
            sink.held = True

        asyncio.get_running_loop().call_later(1, hold)
        with pytest.raises(AppHeldError):
            await feeder.offer(60)
        assert feeder.offered()[KIND] <= 12

    run_virtually(main())
