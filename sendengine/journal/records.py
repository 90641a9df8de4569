"""What a journal's records say: jobs, requests, parts, keys and dead letters as bytes, and back.

A job is written by its fields, not as a line of a jobs file: a line cannot tell an alias that is called ``email`` from
an e-mail address, and costs three times as much to write. Reading a job checks it as making it does.

Units: instants are seconds since the epoch.

Format: a JSON list a record; a request is such a list, a line feed, and its body as it goes on the wire.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import astuple

from sendengine.core.jobs import CreateNotification, Job, Json, OnAmbiguous, OnMissing, TagValue, UpdateUser, Urgency
from sendengine.core.outcomes import OUTCOME_NAMES, Outcome
from sendengine.core.targets import Rule, Target, TargetKind
from sendengine.core.wire import WireRequest
from sendengine.ports import KeyRecall, Part, Seal

if TYPE_CHECKING:
    _Tag: TypeAlias = TagValue
    _Rule: TypeAlias = Rule
else:
    _Tag = object  # the job's own checks find what is wrong
    _Rule = dict[str, object]

JOB: Final = 1
REQUEST: Final = 2
PART: Final = 3
"""Kinds of records."""

_Read = TypeVar("_Read")
_KINDS: Final[Mapping[str, type[Outcome]]] = {name: kind for kind, name in OUTCOME_NAMES.items()}


class UnreadableRecordError(Exception):
    """A record that is whole and says nothing that this version understands."""


class JobEntry(Struct, frozen=True, gc=False):
    """A job as it was accepted.

    ``key`` is the wire form of its caller's key, ``fingerprint`` what that was used for. ``deaths`` counts processes
    that died while a request of it without a key was on the wire; ``is_begun`` says that one may have been received.
    A job with a ``request_key`` goes alone, under that key, and ``is_begun`` says that it may have been received so.
    ``message`` is a notification's as it was then, since its caller may change that afterwards; empty where nobody may.
    """

    job: Job
    app: str
    accepted_at_s: float
    row: int | None = None
    key: str | None = None
    fingerprint: bytes = b""
    deaths: int = 0
    is_begun: bool = False
    request_key: str | None = None
    message: bytes = b""


class RequestEntry(Struct, frozen=True, gc=False):
    """A request as it was sealed."""

    seal: Seal
    sealed_at_s: float


class DeadEntry(Struct, frozen=True):
    """A job that has ended; ``requests`` name those that were kept for it, to be repeated whole."""

    entry: JobEntry
    outcome: Outcome
    requests: tuple[str, ...] = ()


def write_job(entry: JobEntry) -> bytes:
    """Render a job."""
    job = entry.job
    own: tuple[object, ...]
    if isinstance(job, CreateNotification):
        message = orjson.Fragment(entry.message) if entry.message else job.message
        target, own = job.to, ("n", message, job.channel, job.pack, job.expected_recipients)
    else:
        target, own = job.user, ("u", job.tags, job.properties, job.deltas, job.coalesce, job.on_missing)
    until = None if job.expires_at is None else job.expires_at.isoformat()
    return orjson.dumps((
        entry.app,
        entry.accepted_at_s,
        entry.row,
        entry.key,
        entry.fingerprint.hex(),
        entry.deaths,
        entry.is_begun,
        (target.kind, target.ids, target.label, target.excluded, target.rules),
        (job.app, job.urgency, until, job.expires_in_s, job.idempotency_key, job.on_ambiguous),
        own,
        entry.request_key,
    ))  # fmt: skip


def read_job(payload: bytes) -> JobEntry:
    """Read a job. Raises UnreadableRecordError."""
    row = _decoded(_JOB_ROW, payload)
    try:
        job = _job(row)
    except (ValueError, TypeError) as error:  # InvalidJobError among them
        raise UnreadableRecordError(str(error)) from None
    fingerprint = _bytes(row.fingerprint)
    return JobEntry(
        job, row.app, row.accepted_at_s, row.row, row.key, fingerprint, row.deaths, row.is_begun, row.request_key
    )


def write_request(entry: RequestEntry) -> bytes:
    """Render a sealed request."""
    seal = entry.seal
    wire = seal.wire
    head = orjson.dumps((seal.lane, seal.key, seal.ttl_s, wire.method, wire.path, entry.sealed_at_s, seal.members))
    return b"%b\n%b" % (head, wire.body)


def read_request(payload: bytes) -> RequestEntry:
    """Read a sealed request. Raises UnreadableRecordError."""
    head, _, body = payload.partition(b"\n")
    row = _decoded(_REQUEST_ROW, head)
    wire = WireRequest(row.method, row.path, body)
    return RequestEntry(Seal(row.lane, row.key, row.ttl_s, wire, row.members), row.sealed_at_s)


def write_part(job: int, part: Part) -> bytes:
    """Render what came of some of a job's recipients."""
    return orjson.dumps((job, part.recipients, _fields(part.outcome)))


def read_part(payload: bytes) -> tuple[int, Part]:
    """Read a part, with the id of its job. Raises UnreadableRecordError."""
    row = _decoded(_PART_ROW, payload)
    return row.job, Part(row.recipients, _outcome(row.outcome))


def write_key(recall: KeyRecall) -> bytes:
    """Render what a caller's key was used for."""
    return orjson.dumps((recall.fingerprint.hex(), recall.outcome and _fields(recall.outcome)))


def read_key(payload: bytes) -> KeyRecall:
    """Read what a caller's key was used for. Raises UnreadableRecordError."""
    row = _decoded(_KEY_ROW, payload)
    return KeyRecall(_bytes(row.fingerprint), None if row.outcome is None else _outcome(row.outcome))


def write_dead(entry: DeadEntry) -> bytes:
    """Render a dead letter."""
    return orjson.dumps((orjson.Fragment(write_job(entry.entry)), _fields(entry.outcome), entry.requests))


def read_dead(payload: bytes) -> DeadEntry:
    """Read a dead letter. Raises UnreadableRecordError."""
    row = _decoded(_DEAD_ROW, payload)
    return DeadEntry(read_job(bytes(row.job)), _outcome(row.outcome), row.requests)


class _TargetRow(Struct, array_like=True):
    kind: TargetKind
    ids: tuple[str, ...]
    label: str
    excluded: tuple[str, ...]
    rules: tuple[_Rule, ...]


class _OptionsRow(Struct, array_like=True):
    app: str | None
    urgency: Urgency
    expires_at: datetime | None
    expires_in_s: float | None
    idempotency_key: str | None
    on_ambiguous: OnAmbiguous


class _NotificationRow(Struct, array_like=True, tag="n"):
    message: dict[str, Json]
    channel: str | None
    pack: bool | None
    expected_recipients: int | None


class _ChangeRow(Struct, array_like=True, tag="u"):
    tags: dict[str, _Tag]
    properties: dict[str, Json]
    deltas: dict[str, Json]
    coalesce: bool
    on_missing: OnMissing


class _JobRow(Struct, array_like=True):
    app: str
    accepted_at_s: float
    row: int | None
    key: str | None
    fingerprint: str
    deaths: int
    is_begun: bool
    target: _TargetRow
    options: _OptionsRow
    own: _NotificationRow | _ChangeRow
    request_key: str | None = None  # files of version 1 have none


class _RequestRow(Struct, array_like=True):
    lane: str
    key: str | None
    ttl_s: int | None
    method: str
    path: str
    sealed_at_s: float
    members: tuple[tuple[int, tuple[str, ...]], ...]


class _PartRow(Struct, array_like=True):
    job: int
    recipients: tuple[str, ...]
    outcome: list[object]


class _KeyRow(Struct, array_like=True):
    fingerprint: str
    outcome: list[object] | None


class _DeadRow(Struct, array_like=True):
    job: msgspec.Raw
    outcome: list[object]
    requests: tuple[str, ...]


_JOB_ROW: Final = msgspec.json.Decoder(_JobRow)
_REQUEST_ROW: Final = msgspec.json.Decoder(_RequestRow)
_PART_ROW: Final = msgspec.json.Decoder(_PartRow)
_KEY_ROW: Final = msgspec.json.Decoder(_KeyRow)
_DEAD_ROW: Final = msgspec.json.Decoder(_DeadRow)


def _decoded(decoder: msgspec.json.Decoder[_Read], data: bytes) -> _Read:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableRecordError(str(error)) from None


def _bytes(hexadecimal: str) -> bytes:
    try:
        return bytes.fromhex(hexadecimal)
    except ValueError as error:
        raise UnreadableRecordError(str(error)) from None


def _job(row: _JobRow) -> Job:
    target = Target(row.target.kind, row.target.ids, row.target.label, row.target.excluded, row.target.rules)
    own, options = row.own, row.options
    if isinstance(own, _NotificationRow):
        return CreateNotification(
            to=target,
            message=own.message,
            channel=own.channel,
            pack=own.pack,
            expected_recipients=own.expected_recipients,
            app=options.app,
            urgency=options.urgency,
            expires_at=options.expires_at,
            expires_in_s=options.expires_in_s,
            idempotency_key=options.idempotency_key,
            on_ambiguous=options.on_ambiguous,
        )
    return UpdateUser(
        target,
        own.tags,
        own.properties,
        own.deltas,
        own.coalesce,
        own.on_missing,
        app=options.app,
        urgency=options.urgency,
        expires_at=options.expires_at,
        expires_in_s=options.expires_in_s,
        idempotency_key=options.idempotency_key,
        on_ambiguous=options.on_ambiguous,
    )


def _fields(outcome: Outcome) -> tuple[object, ...]:
    return (OUTCOME_NAMES[type(outcome)], *astuple(outcome))


def _outcome(fields: list[object]) -> Outcome:
    if not fields or not isinstance(name := fields[0], str) or (kind := _KINDS.get(name)) is None:
        raise UnreadableRecordError(f"there is no such outcome: {fields[:1]}")
    try:
        return msgspec.convert(dict(zip(kind.__struct_fields__, fields[1:], strict=False)), kind)
    except msgspec.ValidationError as error:
        raise UnreadableRecordError(str(error)) from None
