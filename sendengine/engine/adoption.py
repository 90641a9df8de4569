"""Takes on what other processes have left: those before this one when it starts, those beside it when they die.

Units: ``_s`` is seconds.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from sendengine.core.jobs import Job
from sendengine.engine.admissions import group_of
from sendengine.engine.journals import LOOK_S, Journals
from sendengine.engine.lane import Lane
from sendengine.engine.past import Ages, RecoveredReceipts
from sendengine.engine.receipts import Receipt
from sendengine.engine.recovery import Recovery
from sendengine.errors import StorageError
from sendengine.ports import Journal, Recovered

_log = logging.getLogger("sendengine")


class Adoption:
    """``readmit`` gives a job its room and its key; ``when_found`` is called each time jobs were put back.

    Nothing more is taken on once a journal has failed for good.
    """

    def __init__(
        self,
        journals: Journals,
        *,
        lanes: Mapping[str, Lane],
        readmit: Callable[[Job, Receipt, Lane], None],
        when_found: Callable[[], None],
        when_failed: Callable[[StorageError], None],
    ) -> None:
        self.receipts = RecoveredReceipts()
        self._journals = journals
        self._lanes = lanes
        self._readmit = readmit
        self._when_found = when_found
        self._when_failed = when_failed
        self._looking: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def take_on(self) -> None:
        """Open the journals, and put back what they hold. Raises StorageError."""
        await self._put_back([pair async for pair in self._journals.open(when_failed=self._failed)])

    def go_on(self) -> None:
        """Look now and then whether an engine beside this one has died, until `stop`."""
        if not self._is_stopped:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def stop(self) -> None:
        """Take nothing more on: what is not back in its lane yet is abandoned, and stays on disk."""
        if self._looking is not None and not self._is_stopped:
            self._looking.cancel()  # once: it may be giving a slot back
        self._is_stopped = True

    async def aclose(self) -> None:
        """Stop, and wait until that is done."""
        self.stop()
        if self._looking is not None:
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        while not self._is_stopped:
            await asyncio.sleep(LOOK_S)
            try:
                await self._put_back([pair async for pair in self._journals.look_around(when_failed=self._failed)])
            except StorageError as error:  # of another engine's files: this one goes on without them
                _log.warning("what another engine left cannot be taken on: %s", error)

    def _failed(self, error: StorageError) -> None:
        self.stop()
        self._when_failed(error)

    async def _put_back(self, found: Sequence[tuple[Journal, Recovered]]) -> None:
        ages = self._journals.settings
        recovery = Recovery(
            lanes=self._lanes,
            lane_of=lambda job, app: self._lanes.get(f"{app}/{group_of(job).value}"),
            readmit=self._readmit,
            ages=Ages(ages.max_age_high_s, ages.max_age_normal_s),
        )
        try:
            await recovery.put_back(found, own=self._journals.own)
        finally:
            self.receipts.add(recovery.receipts)
            if recovery.receipts:
                self._when_found()
            recovery.announce()
