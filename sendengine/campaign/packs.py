"""The second pass over a campaign's files: the rows that are sent, as jobs that become one request each.

Rows stay in the order of the file. A pack of a campaign that sends everybody the same message is cut when it is full,
a pack of custom data when the next row's would not fit; a recipient stands in a request once.

Units: ``_bytes`` is bytes of JSON, rows are counted from 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Final

import orjson
from msgspec import Struct
from msgspec.structs import replace

from sendengine.campaign.blocks import Stamp
from sendengine.campaign.cells import custom_data_of, is_blank, property_value, tag_value
from sendengine.campaign.plan import Keys, Plan
from sendengine.campaign.recipients import read_recipients
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.tables import START, Chunk, Mark, Reading
from sendengine.core.jobs import CreateNotification, Job, Json, TagValue, UpdateUser
from sendengine.core.onesignal import CUSTOM_DATA_CAP_BYTES
from sendengine.core.requests import NotificationRequest
from sendengine.core.targets import Target
from sendengine.core.wire import canonical, canonical_body

_KEY_BYTES: Final = 64  # what the key adds to a body: its name, a UUID, quotes and a comma
_CHANGE_BYTES: Final = 500  # a user's change, roughly


class Pack(Struct, frozen=True):
    """One job of a campaign, and the stretch of the file that it stands for.

    The stretches follow one another without a gap: the rows that were sent are those of ``size`` rows from
    ``first_row`` on that the selection keeps. ``size_bytes`` is about the size of the request's body. Packing can begin
    anew behind it where it ``is_boundary``: nothing of an earlier row is held then.
    """

    job: Job
    recipients: int
    first_row: int
    size: int
    size_bytes: int
    is_boundary: bool = True


class Rows(Struct, frozen=True):
    """Rows that are sent: their numbers, ids, and the cells of each column, all in the same order."""

    numbers: Sequence[int]
    ids: Sequence[str]
    cells: Mapping[str, Sequence[Json]]

    def values(self, columns: Mapping[str, str]) -> Iterable[dict[str, Json]]:
        """Give a row at a time what its cells say for each field, a column named for each."""
        if not columns:
            return ({} for _ in self.ids)
        rows = zip(*(self.cells[column] for column in columns.values()), strict=True)
        return (dict(zip(columns, row, strict=True)) for row in rows)


def make_packs(
    plan: Plan, selection: Selection, *, mark: Mark = START, first_row: int = 0, stamp: Stamp | None = None
) -> Iterator[Pack]:
    """Read the file again and give its jobs, in the order of its rows; raises InputError where it cannot be read.

    To go on behind a pack that is a boundary, give where it ended as ``first_row``, and a mark at or before that row.
    Only where no recipient may stand in the file twice: the keys of those depend on all rows before (`can_begin_anew`).
    With ``stamp``, it ends in InputError where the file is changed meanwhile.
    """
    rows = kept_rows(plan, selection, mark=mark, first_row=first_row, stamp=stamp)
    return packs_of(rows, Writer(plan, selection, Keys(plan), first_row=first_row))


def can_begin_anew(selection: Selection) -> bool:
    """Whether packs and keys behind a boundary follow from the rows behind it alone."""
    return not len(selection.repeats)


def packs_of(stretches: Iterable[Rows], writer: "Writer") -> Iterator[Pack]:
    """Turn rows into jobs, in the way that suits the campaign."""
    campaign = writer.plan.campaign
    if not campaign.is_notification:
        return _changes(stretches, writer)
    if not campaign.custom_data:
        return _full_packs(stretches, writer)
    return _packs_of_data(stretches, writer) if campaign.pack_custom_data else _single_rows(stretches, writer)


def kept_rows(
    plan: Plan, selection: Selection, *, mark: Mark = START, first_row: int = 0, stamp: Stamp | None = None
) -> Iterator[Rows]:
    """Read the rows that are sent, from ``first_row`` on, some thousand at a time; reading begins at ``mark``."""
    recipients = plan.campaign.recipients
    start = mark if mark.row else START
    reading = Reading(recipients.file, recipients.column, plan.campaign.columns, start=start, stamp=stamp)
    for chunk in read_recipients(reading):
        rows = _rows_from(chunk, first_row)
        if not rows.ids:
            continue
        kept = selection.kept(rows.numbers[0], len(rows.ids))
        if kept is None:
            yield rows
        elif any(kept):
            cells = {name: list(compress(column, kept)) for name, column in rows.cells.items()}
            yield Rows(list(compress(rows.numbers, kept)), list(compress(rows.ids, kept)), cells)


def _rows_from(chunk: Chunk, first_row: int) -> Rows:
    skip = max(0, first_row - chunk.first_row)
    numbers = range(chunk.first_row + skip, chunk.first_row + len(chunk.ids))
    if not skip:
        return Rows(numbers, chunk.ids, chunk.cells)
    return Rows(numbers, chunk.ids[skip:], {name: column[skip:] for name, column in chunk.cells.items()})


def rows_of(selection: Selection, *, first_row: int, size: int) -> Sequence[int]:
    """Return the rows of a stretch that are sent: those of a pack, one for each of its recipients, in order."""
    rows = range(first_row, first_row + size)
    kept = selection.kept(first_row, size)
    return rows if kept is None else list(compress(rows, kept))


class Writer:
    """Makes jobs with their keys, and keeps track of which stretch of the file each stands for."""

    __slots__ = ("_content", "_keys", "_message", "_start", "plan", "selection")

    def __init__(self, plan: Plan, selection: Selection, keys: Keys, *, first_row: int = 0) -> None:
        self.plan = plan
        self.selection = selection
        self._keys = keys
        self._start = first_row
        self._message, self._content = self._with_ttl(plan.campaign.message)

    def notification(self, ids: Sequence[str], *, end: int, is_boundary: bool = True) -> Iterator[Pack]:
        """Make the job of the rows up to ``end``; two of them, and so on, where it would exceed the cap of bytes."""
        target = self.plan.campaign.target(tuple(ids))
        body = self._body(target, self._content)
        if len(body) + _KEY_BYTES <= self.plan.max_bytes or len(ids) == 1:
            yield self._pack(target, self._message, body, end=end, is_boundary=is_boundary)
            return
        half = len(ids) // 2
        middle = rows_of(self.selection, first_row=self._start, size=end - self._start)[half]
        yield from self.notification(ids[:half], end=middle, is_boundary=False)
        yield from self.notification(ids[half:], end=end, is_boundary=is_boundary)

    def personal(self, ids: Sequence[str], custom_data: Mapping[str, Json], *, end: int) -> Pack:
        """Make the job of the rows up to ``end``, with custom data of their own."""
        target = self.plan.campaign.target(tuple(ids))
        message, content = self._with_ttl({**self.plan.campaign.message, "custom_data": custom_data})
        return self._pack(target, message, self._body(target, content), end=end)

    def change(self, user_id: str, tags: Mapping[str, TagValue], properties: Mapping[str, Json], *, end: int) -> Pack:
        """Make the job that changes one user."""
        campaign = self.plan.campaign
        job = UpdateUser(
            campaign.target((user_id,)),
            tags=tags,
            properties=properties,
            on_missing=campaign.on_missing,
            app=self.plan.app,
            urgency=campaign.urgency,
            expires_at=self.plan.deadline,
            on_ambiguous=campaign.on_ambiguous,
        )
        return self._close(job, 1, _CHANGE_BYTES, end=end)

    def _with_ttl(self, message: Mapping[str, Json]) -> tuple[Mapping[str, Json], bytes]:
        """Return a message as it is sent, and the canonical content that its keys follow from."""
        plan = self.plan
        if plan.ttl_s is None or "ttl" in message:
            return message, canonical(message)
        sent = {**message, "ttl": plan.ttl_s}
        until = plan.campaign.expires_at
        return sent, canonical(sent if until is None else {**message, "ttl": int(until.timestamp())})

    def _body(self, target: Target, content: bytes) -> bytes:
        return canonical_body(NotificationRequest(self.plan.app_id, "", content, target, self.plan.campaign.channel))

    def _pack(
        self, target: Target, message: Mapping[str, Json], body: bytes, *, end: int, is_boundary: bool = True
    ) -> Pack:
        campaign = self.plan.campaign
        may_repeat = bool(self.selection.repeats.between(self._start, end - self._start))
        job = CreateNotification(
            to=replace(target, text_bytes=len(body)),  # of which the ids are a part
            message=message,
            channel=campaign.channel,
            app=self.plan.app,
            urgency=campaign.urgency,
            expires_at=self.plan.deadline,
            idempotency_key=self._keys.key(body, may_repeat=may_repeat),
            on_ambiguous=campaign.on_ambiguous,
        )
        return self._close(job, len(target.ids), len(body), end=end, is_boundary=is_boundary)

    def _close(self, job: Job, recipients: int, size_bytes: int, *, end: int, is_boundary: bool = True) -> Pack:
        pack = Pack(job, recipients, self._start, end - self._start, size_bytes, is_boundary)
        self._start = end
        return pack


def _full_packs(stretches: Iterable[Rows], writer: Writer) -> Iterator[Pack]:
    """Everybody gets the same message: as many to a request as are allowed."""
    cap = writer.plan.max_recipients
    may_repeat = bool(len(writer.selection.repeats))
    ids: list[str] = []
    end = 0
    for rows in stretches:
        taken = 0
        while taken < len(rows.ids):
            part = rows.ids[taken : taken + cap - len(ids)]
            fit = _distinct(ids, part) if may_repeat else len(part)
            ids += part if fit == len(part) else part[:fit]
            taken += fit
            end = rows.numbers[taken - 1] + 1 if taken else end
            if len(ids) == cap or fit < len(part):
                yield from writer.notification(ids, end=end)
                ids = []
    if ids:
        yield from writer.notification(ids, end=end)


def _distinct(ids: Sequence[str], part: Sequence[str]) -> int:
    """Return how many of ``part`` can follow ``ids`` before a recipient would stand in the request twice."""
    seen = set(ids)
    for index, item in enumerate(part):
        if item in seen:
            return index
        seen.add(item)
    return len(part)


def _single_rows(stretches: Iterable[Rows], writer: Writer) -> Iterator[Pack]:
    """Each row has data of its own, and so a request of its own."""
    campaign = writer.plan.campaign
    for rows in stretches:
        for number, item, data in zip(rows.numbers, rows.ids, rows.values(campaign.custom_data), strict=True):
            yield writer.personal((item,), custom_data_of(campaign, {item: data}), end=number + 1)


def _packs_of_data(stretches: Iterable[Rows], writer: Writer) -> Iterator[Pack]:
    """Each row has data of its own; as many rows share a request as its custom data holds."""
    campaign, cap = writer.plan.campaign, writer.plan.max_recipients
    room_bytes = CUSTOM_DATA_CAP_BYTES[campaign.channel or "email"] - len(orjson.dumps(custom_data_of(campaign, {})))
    users: dict[str, Json] = {}
    size_bytes = end = 0
    for rows in stretches:
        for number, item, data in zip(rows.numbers, rows.ids, rows.values(campaign.custom_data), strict=True):
            entry_bytes = len(orjson.dumps({item: data})) - 1  # without its braces, with a comma
            if users and (size_bytes + entry_bytes - 1 > room_bytes or len(users) == cap or item in users):
                yield writer.personal(tuple(users), custom_data_of(campaign, users), end=end)
                users, size_bytes = {}, 0
            users[item] = data
            size_bytes += entry_bytes
            end = number + 1
    if users:
        yield writer.personal(tuple(users), custom_data_of(campaign, users), end=end)


def _changes(stretches: Iterable[Rows], writer: Writer) -> Iterator[Pack]:
    """A job a row; an empty cell leaves the tag or the property as it is."""
    campaign = writer.plan.campaign
    for rows in stretches:
        changes = zip(rows.values(campaign.tags), rows.values(campaign.properties), strict=True)
        for number, item, (tags, properties) in zip(rows.numbers, rows.ids, changes, strict=True):
            yield writer.change(
                item,
                {name: tag_value(cell) for name, cell in tags.items() if not is_blank(cell)},
                {name: property_value(name, cell) for name, cell in properties.items() if not is_blank(cell)},
                end=number + 1,
            )
