"""An engine's journals: a run's, or the slots of an embedded engine, its own first.

Other slots are those whose owner died and left something; their jobs stay where they are until they settle. They are
looked for when the engine starts, and then every `LOOK_S`, because a worker may die while its siblings live on. One
whose jobs cannot be read is given back, and tried again at the next look.

Units: ``_s`` is seconds.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeAlias

from sendengine.errors import StorageError
from sendengine.journal.outbox import Outbox
from sendengine.journal.slots import Slots, open_slots
from sendengine.ports import Journal, KeyRecall, Recovered
from sendengine.settings import JournalSettings, Settings

LOOK_S: Final = 30.0

_Failed: TypeAlias = Callable[[StorageError], None]
_log = logging.getLogger("sendengine")


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

    async def open(self, *, when_failed: _Failed) -> AsyncIterator[tuple[Journal, Recovered]]:
        """Open them, and give each with what it holds. Raises StorageError where the own one cannot be read."""
        if self._has_slots:
            self._slots = await open_slots(self._state_dir, self.settings)
            self.own = self._slots.own
            self._all = [self._slots.own]
        if self.own is not None:
            yield self.own, await self.own.recover(when_failed=when_failed)
        if self._slots is not None:
            async for pair in self._recover(self._slots, self._slots.adopted, when_failed=when_failed):
                yield pair

    async def look_around(self, *, when_failed: _Failed) -> AsyncIterator[tuple[Journal, Recovered]]:
        """Give the slots back in which nothing is left, and adopt those whose engine has died since; as `open` does."""
        slots = self._slots
        if slots is None:
            return
        for outbox in [outbox for outbox in slots.adopted if outbox.is_empty]:
            self._all.remove(outbox)
            await slots.give_back(outbox)
        async for pair in self._recover(slots, await slots.adopt(), when_failed=when_failed):
            yield pair

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        """Look a caller's key up, in the own journal and in those that were adopted. Raises StorageError."""
        for journal in tuple(self._all):
            if (found := await self._asked(journal, key, app=app)) is not None:
                return found
        return None

    async def aclose(self) -> None:
        """Write what waits, and close; never raises StorageError."""
        for journal in self._all:
            await journal.aclose()
        if self._slots is not None:
            await self._slots.aclose()

    async def _recover(
        self, slots: Slots, adopted: Sequence[Outbox], *, when_failed: _Failed
    ) -> AsyncIterator[tuple[Journal, Recovered]]:
        """Give adopted slots with what they hold; those that cannot be read are given back."""
        for outbox in tuple(adopted):
            watch = _Watch(when_failed)
            try:
                recovered = await outbox.recover(when_failed=watch)
            except StorageError as error:
                _log.warning("what an earlier process left in %s is left alone: %s", outbox.store.path, error)
                await slots.give_back(outbox)
                continue
            watch.is_ours = True
            self._all.append(outbox)
            yield outbox, recovered

    async def _asked(self, journal: Journal, key: str, *, app: str) -> KeyRecall | None:
        """Ask one of them, which may be given back meanwhile."""
        try:
            return await journal.recall(key, app=app) if journal in self._all else None
        except StorageError:
            if journal in self._all:
                raise
            return None


class _Watch:
    """Hears of a slot's failure; it is the engine's only once the engine has jobs in it."""

    def __init__(self, when_failed: _Failed) -> None:
        self.is_ours = False
        self._when_failed = when_failed

    def __call__(self, error: StorageError) -> None:
        if self.is_ours:
            self._when_failed(error)
