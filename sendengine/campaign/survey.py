"""The first pass over a campaign's files: counts and checks every row, and decides which are left out.

So that nothing is sent to half of a file before a fault in the other half is found, and total and duration are true
before the first request.

Method: the recipients are read once, checked a chunk at a time, and fingerprinted (`fingerprints`). Where some id
occurs twice, or is among those never to send, the files are read again and the strings decide. As long as the ids
ascend (`ascent`), and none is barred, none can occur twice, and they are not fingerprinted: where they cease to, those
before are read again.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import compress
from typing import Final

from msgspec import Struct

from sendengine.campaign.ascent import Ascent
from sendengine.campaign.blocks import Digest, Stamp, file_stamp
from sendengine.campaign.cells import cell_faults, unchanged_rows
from sendengine.campaign.definition import Campaign
from sendengine.campaign.fingerprints import Fingerprints, HashOf
from sendengine.campaign.idchecks import IdCheck, same_recipient_key
from sendengine.campaign.recipients import read_recipients
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.tables import Chunk, Fault, Mark, Reading
from sendengine.errors import InputError

FAULTS_KEPT: Final = 10_000
"""Faults that are listed; further ones are counted."""

MARK_ROWS: Final = 16_384

BILLING_WARNING: Final = (
    "last_active, session_count and session_time can make a user count as active, and be billed for"
)


class Survey(Struct, frozen=True):
    """What the first pass found. ``rows`` is the sum of the counts behind it.

    ``unusable`` of the excluded are rows that an export of OneSignal's calls so, or of users without an id;
    ``unchanged`` are rows without a value to set. ``faults`` lists the first `FAULTS_KEPT` invalid rows. ``marks`` are
    places at which reading the recipients can begin, at least `MARK_ROWS` apart; ``sha256`` is of that file.
    """

    rows: int
    to_send: int
    invalid: int
    duplicates: int
    excluded: int
    unusable: int
    unchanged: int
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    selection: Selection
    stamp: Stamp
    sha256: str
    marks: tuple[Mark, ...]


def survey_campaign(
    campaign: Campaign,
    *,
    only_to: Sequence[str] = (),
    hash_of: HashOf = hash,
    when_read: Callable[[int], None] | None = None,
) -> Survey:
    """Read, count and check a campaign's recipients; raises InputError where a file as a whole cannot be used.

    ``only_to`` is the app's fence. ``when_read`` is told how many rows have been read so far, now and then.
    """
    recipients = campaign.recipients
    stamp = file_stamp(recipients.file)
    first_pass = _FirstPass(campaign, only_to=only_to, hash_of=hash_of)
    digest = Digest()
    for chunk in read_recipients(Reading(recipients.file, recipients.column, campaign.columns, digest=digest)):
        first_pass.take(chunk)
        if when_read is not None:
            when_read(first_pass.rows)
    first_pass.compare()
    return first_pass.result(stamp, digest.hex)


class _FirstPass:
    """Gathers what the first pass finds, chunk by chunk."""

    def __init__(self, campaign: Campaign, *, only_to: Sequence[str], hash_of: HashOf) -> None:
        self.rows = 0
        self._campaign = campaign
        self._hash_of = hash_of
        self._ids = IdCheck(campaign.recipients.target, only_to=only_to)
        self._key_of = same_recipient_key(campaign.recipients.target)
        self._marks = Fingerprints(hash_of) if campaign.is_notification or campaign.exclude else None
        self._exclude_stamp = None if campaign.exclude is None else file_stamp(campaign.exclude.file)
        self._ascent = Ascent() if campaign.exclude is None else None
        self._selection = Selection()
        self._faults: list[Fault] = []
        self._unusable = 0
        self._unchanged = 0
        self._marks_of_chunks: list[Mark] = []

    def take(self, chunk: Chunk) -> None:
        """Check the rows of a chunk, and fingerprint those that may be sent to."""
        size = len(chunk.ids)
        if not self._marks_of_chunks or chunk.first_row >= self._marks_of_chunks[-1].row + MARK_ROWS:
            self._marks_of_chunks.append(chunk.start)
        excluded = set(chunk.unusable)
        faults = dict(chunk.faults)
        for index, problem in self._ids.faults(chunk.ids).items():
            if index not in faults and index not in excluded:
                faults[index] = chunk.fault(index, self._campaign.recipients.column, problem)
        for fault_index, fault in cell_faults(self._campaign, chunk):
            if fault_index not in excluded:
                faults.setdefault(fault_index, fault)
        unchanged = [index for index in unchanged_rows(self._campaign, chunk) if index not in faults]
        self._unusable += len(excluded)
        self._unchanged += len(set(unchanged) - excluded)
        self._leave_out(chunk, faults, excluded.union(unchanged))
        if self._marks is not None:
            self._note(self._keys_of(chunk), self._marks)
        self.rows += size

    def _note(self, keys: Sequence[str], marks: Fingerprints) -> None:
        """Fingerprint recipients, unless all so far ascend."""
        if self._ascent is not None:
            if self._ascent.takes(keys):
                return
            self._ascent = None
            self._catch_up(marks)
        marks.add(keys)

    def _catch_up(self, marks: Fingerprints) -> None:
        """Fingerprint the rows that were read so far: they ascended, and those behind them do not."""
        recipients = self._campaign.recipients
        for chunk in read_recipients(Reading(recipients.file, recipients.column)) if self.rows else ():
            if chunk.first_row >= self.rows:
                return
            marks.add(self._keys_of(chunk))

    def _keys_of(self, chunk: Chunk) -> Sequence[str]:
        """Return who is meant by the rows of a chunk that are not left out."""
        kept = self._selection.kept(chunk.first_row, len(chunk.ids))
        return self._key_of(chunk.ids if kept is None else compress(chunk.ids, kept))

    def _leave_out(self, chunk: Chunk, faults: dict[int, Fault], excluded: AbstractSet[int]) -> None:
        for index in sorted(faults):
            self._selection.invalid.add(chunk.first_row + index)
            if len(self._faults) < FAULTS_KEPT:
                self._faults.append(faults[index])
        for index in excluded:
            self._selection.excluded.add(chunk.first_row + index)

    def compare(self) -> None:
        """Find the rows whose recipient occurred before, or is never to be sent to."""
        if self._marks is None:
            return
        marks, self._marks = self._marks, None
        barred = None
        if self._campaign.exclude is not None:
            barred = Fingerprints(self._hash_of)
            for keys in self._excluded_keys():
                barred.add(keys)
        for nominated in marks.rounds(barred, is_repeat_wanted=self._campaign.is_notification):
            self._decide(nominated)

    def _excluded_keys(self) -> Iterator[Sequence[str]]:
        """Read the ids that are never sent to. A malformed one matches nobody; a row that cannot be read might."""
        exclude = self._campaign.exclude
        if exclude is None:
            return
        for chunk in read_recipients(Reading(exclude.file, exclude.column, stamp=self._exclude_stamp)):
            if chunk.faults:
                faults = [str(fault) for fault in chunk.faults.values()]
                raise InputError(
                    f"{exclude.file}: has rows that cannot be read, and whom they name would be sent to; mend them",
                    faults=faults,
                )
            yield self._key_of(chunk.ids)

    def _decide(self, nominated: AbstractSet[int]) -> None:
        """Read the files again, and compare the ids whose hash was nominated."""
        hash_of, recipients = self._hash_of, self._campaign.recipients
        barred = {key for keys in self._excluded_keys() for key in keys if hash_of(key) in nominated}
        seen: set[str] = set()
        for chunk in read_recipients(Reading(recipients.file, recipients.column)):
            keys = self._key_of(chunk.ids)
            hits = [index for index, mark in enumerate(map(hash_of, keys)) if mark in nominated]
            if hits:
                self._judge(chunk, keys, hits, barred, seen)

    def _judge(
        self, chunk: Chunk, keys: Sequence[str], hits: Sequence[int], barred: AbstractSet[str], seen: set[str]
    ) -> None:
        """Leave nominated rows out, or remember their recipients."""
        first_row, selection = chunk.first_row, self._selection
        is_out = selection.left_out(first_row, len(keys))
        for index in hits:
            key = keys[index]
            if is_out and is_out >> index & 1:
                continue
            if key in barred:
                selection.excluded.add(first_row + index)
            elif not self._campaign.dedupe:
                selection.repeats.add(first_row + index)
            elif key in seen:
                selection.duplicates.add(first_row + index)
            else:
                seen.add(key)

    def result(self, stamp: Stamp, sha256: str) -> Survey:
        """Sum up."""
        selection = self._selection
        left_out = len(selection.invalid) + len(selection.duplicates) + len(selection.excluded)
        return Survey(
            rows=self.rows,
            to_send=self.rows - left_out,
            invalid=len(selection.invalid),
            duplicates=len(selection.duplicates),
            excluded=len(selection.excluded),
            unusable=self._unusable,
            unchanged=self._unchanged,
            faults=tuple(self._faults),
            warnings=(BILLING_WARNING,) if "last_active" in self._campaign.properties else (),
            selection=selection,
            stamp=stamp,
            sha256=sha256,
            marks=tuple(self._marks_of_chunks),
        )
