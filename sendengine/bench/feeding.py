"""Offers jobs to an engine by the clock, whatever becomes of them, and counts what did.

Units: seconds on the running loop's clock; ``at_s`` are seconds since the beginning.

Method: an open model. A job's latency counts from its intended start, even where the loop was late or the engine had
no room: what could not be submitted stays in its stream's schedule, and waits. Jobs that are due are submitted
together, at most every two milliseconds, which costs little at any rate. Where more are due than can be submitted at
once, the engine gets its turn after every millisecond of submitting: a loop that is away for longer costs it permits.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sendengine.bench.streams import Flood, Kind, Stream, Tally
from sendengine.core.jobs import Job
from sendengine.core.outcomes import OUTCOME_NAMES
from sendengine.engine import Receipt
from sendengine.engine.admissions import group_of
from sendengine.errors import IntakeFullError
from sendengine.telemetry.histogram import Histogram

_TICK_S: Final = 0.002  # a turn of an idle loop costs 40 µs, which is 2 % of a core so
_LONGEST_PAUSE_S: Final = 0.1  # so soon does it see that it is to stop
_TURN_S: Final = 0.001  # of submitting between two turns of the loop, shared by the streams as they need it
_BATCH: Final = 128  # submits of a stream between two turns, however quick they are

Submit = Callable[[Job], Receipt]
"""`SendEngine.submit_nowait`."""


class Feeder:
    """Offers the jobs of streams for a while, once. Make it on a running loop.

    ``late`` counts how long after its intended start each job was submitted.
    """

    def __init__(self, submit: Submit, streams: Sequence[Stream | Flood]) -> None:
        self._submit = submit
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self._quiet = asyncio.Event()
        self._begun_s = self._loop.time()
        self.under_way = 0
        self.is_stopped = False
        self.late = Histogram()
        self.tallies: dict[Kind, Tally] = {}

    @property
    def at_s(self) -> float:
        """Seconds since the beginning."""
        return self._loop.time() - self._begun_s

    def stop(self) -> None:
        """Offer nothing more, and wait for nothing; may be called at any time."""
        self.is_stopped = True
        self._quiet.set()

    def offered(self) -> dict[Kind, int]:
        """How many of each kind were meant to start by now, submitted or not."""
        found = {kind: tally.submitted for kind, tally in self.tallies.items()}
        for stream in self._streams:
            if stream.kind is not None:
                found[stream.kind] = found.get(stream.kind, 0) + stream.left(at_s=self.at_s)
        return found

    async def offer(self, seconds: float) -> None:
        """Offer for so long, or until `stop`. Raises what `SendEngine.submit_nowait` does, a full intake apart."""
        self._begun_s = self._loop.time()
        try:
            while not self.is_stopped and (at_s := self.at_s) < seconds:
                is_behind = self._submit_due(at_s)
                await asyncio.sleep(0 if is_behind else self._pause_s(seconds))
        finally:
            for stream in self._streams:
                stream.end(at_s=min(seconds, self.at_s))

    async def settle(self, seconds: float) -> None:
        """Submit what is left, and wait until everything has settled, for so long or until `stop`.

        Raises as `offer` does.
        """
        until_s = self.at_s + seconds
        while not self.is_stopped and self.at_s < until_s and self._left():
            is_behind = self._submit_due(self.at_s)
            await asyncio.sleep(0 if is_behind else _TICK_S)
        try:
            async with asyncio.timeout_at(self._begun_s + until_s):
                while self.under_way and not self.is_stopped:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            return

    def waited(self) -> dict[Kind, Histogram]:
        """How long the jobs of each kind that the engine never had room for have waited by now."""
        return {stream.kind: stream.waited(at_s=self.at_s) for stream in self._streams if stream.kind is not None}

    def _left(self) -> int:
        return sum(stream.left(at_s=self.at_s) for stream in self._streams)

    def _submit_due(self, at_s: float) -> bool:
        """Submit what is due, up to a batch of each stream; True where more could go at once."""
        due = [max(0, stream.due(at_s=at_s, under_way=self.under_way)) for stream in self._streams]
        turn_s = _TURN_S / max(1, sum(due))
        behind = [
            self._submit_batch(stream, count, at_s, turn_s=count * turn_s)
            for stream, count in zip(self._streams, due, strict=True)
        ]
        return any(behind)

    def _submit_batch(self, stream: Stream | Flood, due: int, at_s: float, *, turn_s: float) -> bool:
        until_s = self.at_s + turn_s
        for number in range(1, due + 1):
            job = stream.take()
            try:
                receipt = self._submit(job)
            except IntakeFullError:
                return False
            now_s, meant_s = self.at_s, stream.meant_at_s(at_s=at_s)
            stream.took()
            self.under_way += 1
            self.late.record(max(0.0, now_s - meant_s))
            tally = self._tally((group_of(job), job.urgency))
            tally.submitted += 1
            receipt.add_done_callback(partial(self._settle, tally, meant_s))
            if number == _BATCH or now_s >= until_s:
                return due > number
        return False

    def _tally(self, kind: Kind) -> Tally:
        found = self.tallies.get(kind)
        if found is None:
            found = self.tallies[kind] = Tally()
        return found

    def _settle(self, tally: Tally, meant_s: float, receipt: Receipt) -> None:
        tally.settle(OUTCOME_NAMES[type(receipt.outcome)], after_s=max(0.0, self.at_s - meant_s))
        self.under_way -= 1
        if not self.under_way:
            self._quiet.set()

    def _pause_s(self, seconds: float) -> float:
        """How long until something is due, a tick at least, and not beyond the end."""
        at_s = self.at_s
        next_s = min(stream.next_at_s() for stream in self._streams)
        return max(0.0, min(max(next_s - at_s, _TICK_S), _LONGEST_PAUSE_S, seconds - at_s))
