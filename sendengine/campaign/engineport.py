"""What a run needs of an engine, `sendengine.SendEngine` or a test's.

Units: ``_s`` is seconds; rates are requests a second.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sendengine.core.jobs import Job
from sendengine.engine.past import Past, RecoveredReceipt
from sendengine.engine.receipts import Receipt
from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.snapshots import EngineStats


class Watched(Protocol):
    """What is looked at of an engine, and asked of it."""

    def stats(self) -> EngineStats:
        """Look at lanes and apps."""
        ...

    def counters(self) -> Mapping[str, LaneCounters]:
        """Return what each lane has done."""
        ...

    @property
    def storage_failure(self) -> str | None:
        """What the disk said when it failed for good."""
        ...

    def pause(self) -> None:
        """Put nothing new on the wire."""
        ...

    def unpause(self) -> None:
        """Go on."""
        ...

    def limit_rate(self, rate: float | None) -> None:
        """Send at most so many requests a second in each lane."""
        ...


class Engine(Watched, Protocol):
    """What a run needs of `sendengine.SendEngine`."""

    async def submit_row(self, job: Job, *, row: int, past: Past | None = None, asks_key: bool = False) -> Receipt:
        """Admit the job of a row; the journal is asked about its key if it ``asks_key``."""
        ...

    @property
    def recovered(self) -> Sequence[RecoveredReceipt]:
        """The receipts of jobs that the journal gave back."""
        ...

    def begin_drain(self) -> None:
        """Take no more jobs."""
        ...

    async def abort(self, *, grace_s: float | None = None) -> None:
        """Abandon what waits, let what is on the wire finish within ``grace_s``, and close."""
        ...
