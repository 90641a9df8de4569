"""An engine's journals: a run's, or the slots of an embedded engine, its own first.

Other slots are those whose owner died and left something; their jobs stay where they are until they settle. They are
looked for when the engine starts, and then every `LOOK_S`, because a worker may die while its siblings live on.

Units: ``_s`` is seconds.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from sendengine.errors import StorageError
from sendengine.journal.slots import Slots, open_slots
from sendengine.ports import Journal, KeyRecall, Recovered
from sendengine.settings import JournalSettings, Settings

LOOK_S: Final = 30.0


class Journals:
    """``given`` is a run's journal; without one the settings decide whether there is any."""

    def __init__(self, settings: Settings, *, given: Journal | None) -> None:
        self.settings = settings.journal or JournalSettings()
        self.own: Journal | None = given
        self._state_dir = settings.state_dir
        self._all: list[Journal] = [] if given is None else [given]
        self._slots: Slots | None = None
        self._has_slots = given is None and settings.journal is not None and settings.journal.durability != "memory"

    @property
    def are_wanted(self) -> bool:
        """Whether jobs are put on disk at all."""
        return self._has_slots or self.own is not None

    @property
    def problems(self) -> Sequence[str]:
        """Why nothing can be written at the moment."""
        return [journal.problem for journal in self._all if journal.problem is not None]

    async def open(self, *, when_failed: Callable[[StorageError], None]) -> AsyncIterator[tuple[Journal, Recovered]]:
        """Open them, and give each with what it holds. Raises StorageError."""
        if self._has_slots:
            self._slots = await open_slots(self._state_dir, self.settings)
            self.own = self._slots.own
            self._all = [self._slots.own, *self._slots.adopted]
        for journal in self._all:
            yield journal, await journal.recover(when_failed=when_failed)

    async def look_around(
        self, *, when_failed: Callable[[StorageError], None]
    ) -> AsyncIterator[tuple[Journal, Recovered]]:
        """Give the slots back in which nothing is left, and adopt those whose engine has died since; as `open` does."""
        if self._slots is None:
            return
        for outbox in [outbox for outbox in self._slots.adopted if outbox.is_empty]:
            self._all.remove(outbox)
            await self._slots.give_back(outbox)
        for outbox in await self._slots.adopt():
            self._all.append(outbox)
            yield outbox, await outbox.recover(when_failed=when_failed)

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        """Look a caller's key up, in the own journal and in those that were adopted. Raises StorageError."""
        for journal in tuple(self._all):
            if (found := await journal.recall(key, app=app)) is not None:
                return found
        return None

    async def aclose(self) -> None:
        """Write what waits, and close; never raises StorageError."""
        for journal in self._all:
            await journal.aclose()
        if self._slots is not None:
            await self._slots.aclose()
