"""The outbox of a run: the journal of the jobs that it has read from its file and that have not settled.

Units: rows are counted from 0.
"""

from collections.abc import Callable

from sendengine.core.jobs import Job
from sendengine.errors import StorageError
from sendengine.journal.outbox import Outbox
from sendengine.journal.store import Contents, Store
from sendengine.ports import Recovered
from sendengine.settings import JournalSettings


class RunOutbox(Outbox):
    """An outbox that tells a run what it gives back, and which rows are on disk."""

    def __init__(
        self,
        store: Store,
        contents: Contents,
        settings: JournalSettings,
        *,
        when_recovered: Callable[[Recovered], None],
        when_accepted: Callable[[int], None],
    ) -> None:
        super().__init__(store, contents, settings=settings)
        self.accepting: set[int] = set()
        self._when_recovered = when_recovered
        self._when_accepted = when_accepted

    async def recover(self, *, when_failed: Callable[[StorageError], None]) -> Recovered:
        """Say what an earlier process left, to the run first."""
        found = await super().recover(when_failed=when_failed)
        self._when_recovered(found)
        return found

    def accept(
        self,
        job: Job,
        *,
        app: str,
        row: int | None = None,
        key: str | None = None,
        fingerprint: bytes = b"",
        done: Callable[[StorageError | None], None],
        request_key: str | None = None,
    ) -> int:
        """Put a job on disk, and tell the run when it is there."""

        def written(error: StorageError | None) -> None:
            if row is not None:
                self.accepting.discard(row)
                if error is None:
                    self._when_accepted(row)
            done(error)

        if row is not None:
            self.accepting.add(row)
        return super().accept(
            job, app=app, row=row, key=key, fingerprint=fingerprint, done=written, request_key=request_key
        )
