"""Requests that may have been received and were given up, as far as the jobs that ride in them are still there.

They are kept whole, in the archive, for whoever repeats those jobs; here stands only which of them are a job's.

Units: none.
"""

from collections.abc import Collection, Sequence

from msgspec import Struct

from sendengine.journal.database import ArchivedRow
from sendengine.journal.records import UnreadableRecordError, read_request
from sendengine.ports import Seal


class Share(Struct, frozen=True, gc=False):
    """Recipients of a job in a request that was kept: the request's name in the archive, and its key."""

    name: str
    key: str | None
    recipients: tuple[str, ...]


class Keepsakes:
    """Of the jobs of an outbox, those requests that were kept for them."""

    __slots__ = ("_shares",)

    def __init__(self) -> None:
        self._shares: dict[int, list[Share]] = {}

    def __bool__(self) -> bool:
        """Whether any were kept."""
        return bool(self._shares)

    def note(self, name: str, seal: Seal, *, jobs: Collection[int]) -> None:
        """A request was kept; of its jobs only those among ``jobs`` are still there."""
        for job, share in shares_of(name, seal, jobs=jobs):
            self.add(job, share)

    def add(self, job: int, share: Share) -> None:
        """A request was kept for a job."""
        self._shares.setdefault(job, []).append(share)

    def take(self, job: int) -> tuple[str, ...]:
        """Name the requests that were kept for a job, and forget it."""
        return tuple([share.name for share in self._shares.pop(job, ())]) if self._shares else ()

    def key_of(self, job: int, recipients: Collection[str]) -> str | None:
        """Return the key of the request that was kept for these of a job's recipients; None where none was."""
        wanted = set(recipients)
        return next((share.key for share in self._shares.get(job, ()) if wanted == set(share.recipients)), None)


def shares_of(name: str, seal: Seal, *, jobs: Collection[int]) -> Sequence[tuple[int, Share]]:
    """Say what a request that was kept carries of those jobs that are still there."""
    return [(job, Share(name, seal.key, recipients)) for job, recipients in seal.members if job in jobs]


def look_for_shares(row: ArchivedRow, *, jobs: Collection[int]) -> Sequence[tuple[int, Share]]:
    """Say the same of a row of the archive; nothing where that is damaged. For the store's thread: it reads the row."""
    try:
        return shares_of(row.name, read_request(row.payload or b"").seal, jobs=jobs)
    except UnreadableRecordError:
        return ()
