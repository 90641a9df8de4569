"""How a run and its journal work together: where it goes on, which items are done, and what an earlier process did.

Units: rows are counted from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sendengine.campaign.books import Books
from sendengine.campaign.recorder import Recorder
from sendengine.campaign.work import Item
from sendengine.engine.past import Past, RecoveredReceipt
from sendengine.ports import Part
from sendengine.telemetry.counters import LaneCounters, LaneRecord


class Keeping(Protocol):
    """A run's journal as the run uses it, beside the engine."""

    @property
    def first_row(self) -> int:
        """Where reading goes on."""
        ...

    @property
    def earlier(self) -> Books | None:
        """The books of earlier processes, None where this is the first."""
        ...

    @property
    def earlier_lanes(self) -> Mapping[str, LaneRecord]:
        """What the lanes of earlier processes have counted."""
        ...

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at the moment; None where all is well."""
        ...

    @property
    def damage(self) -> str | None:
        """Why the run cannot be brought to its end, although what its journal still holds is sent; None usually."""
        ...

    @property
    def is_anew(self) -> bool:
        """Whether what was done is lost: all of it is done again in the same order, and comes to the same requests."""
        ...

    def open(self, recorder: Recorder, lanes: Callable[[], Mapping[str, LaneCounters]]) -> None:
        """From now on, write the books with whatever else is written; before the engine is entered."""
        ...

    def is_done(self, item: Item) -> bool:
        """Whether an earlier process has done with an item, or has left it to the journal."""
        ...

    def past_of(self, item: Item) -> Past | None:
        """What an earlier process did of an item that is about to be handed over; None where nothing."""
        ...

    def failed_before(self, item: Item) -> Sequence[tuple[Part, str | None]]:
        """Return what parts of an item came to in earlier processes, each with the key that may have carried it."""
        ...

    def taken(self, item: Item) -> None:
        """The engine has taken an item."""
        ...

    def refused(self, item: Item) -> None:
        """The engine has refused an item, and the recorder has counted it."""
        ...

    def end(self) -> None:
        """The run is about to end: whatever is written from now on may be the last."""
        ...

    async def flush(self) -> None:
        """Return when everything is on disk. Raises StorageError."""
        ...


def item_of(recovered: RecoveredReceipt) -> Item:
    """The item of a job that the journal gave back."""
    row = recovered.row or 0
    return Item(recovered.receipt.job, 1, row, row + 1)
