"""What an outbox keeps of what has ended: dead letters, and requests that may have been received and were given up.

Units: instants are seconds since the epoch.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from sendengine.core.outcomes import Accepted, Outcome, may_have_been_sent
from sendengine.journal.database import ArchivedRow
from sendengine.journal.group import ArchiveName
from sendengine.journal.records import JobEntry, UnreadableRecordError, read_dead, read_request
from sendengine.ports import Portion, Seal

KEY: Final = 1
DEAD: Final = 2
KEPT: Final = 3
SETTLED: Final = 4
"""Kinds of what an outbox archives: callers' keys, dead letters, requests kept for a retry, settled jobs."""


class DeadLetter(Struct, frozen=True):
    """A job that ended without being accepted, and when.

    ``requests`` name those requests of it (`KeptRequest`) that may have been received: to repeat what may have been
    sent, they go again whole, under their keys. What they do not carry was certainly not sent.
    """

    name: str
    entry: JobEntry
    outcome: Outcome
    at_s: float
    requests: tuple[str, ...]


class KeptRequest(Struct, frozen=True):
    """A request that may have been received and was given up, as it was sealed."""

    name: str
    seal: Seal
    sealed_at_s: float


def dead_letter(row: ArchivedRow) -> DeadLetter | None:
    """Read one; None where it is damaged."""
    try:
        found = read_dead(row.payload or b"")
    except UnreadableRecordError:
        return None
    return DeadLetter(row.name, found.entry, found.outcome, row.at, found.requests)


def names_of(letters: Iterable[DeadLetter]) -> Sequence[ArchiveName]:
    """Name what is archived of dead letters: themselves, and the requests that were kept for them."""
    return [name for letter in letters for name in ((DEAD, letter.name), *((KEPT, each) for each in letter.requests))]


def kept_request(row: ArchivedRow) -> KeptRequest | None:
    """Read one; None where it is damaged."""
    try:
        found = read_request(row.payload or b"")
    except UnreadableRecordError:
        return None
    return KeptRequest(row.name, found.seal, found.sealed_at_s)


def is_to_be_kept(portions: Sequence[Portion]) -> bool:
    """Whether any of them was given up after an attempt that may have been received."""
    for portion in portions:
        outcome = portion.outcome
        if not isinstance(outcome, Accepted) and may_have_been_sent(outcome):
            return True
    return False
