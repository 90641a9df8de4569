"""Jobs as JSON, a job a line: read with every fault named, and written back.

A line of ``failures.jsonl`` is a job too, as long as it was certainly not sent.

Units: ``expires_at`` is a time as ISO 8601 has it, ``expires_in_s`` seconds from when the job is submitted.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import Struct, field
from msgspec.structs import fields

from sendengine.core.jobs import CreateNotification, Job, Json, OnAmbiguous, OnMissing, TagValue, UpdateUser, Urgency
from sendengine.core.spelling import TARGET_SLIPS, mend
from sendengine.core.targets import Target, alias, email, filters, phone_number, segments, subscription_id
from sendengine.errors import InvalidJobError

if TYPE_CHECKING:
    _TagValue: TypeAlias = TagValue
else:
    _TagValue = object  # a wrong tag is named by the job, with its name


class _Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    app: str | None = None
    urgency: Urgency = "normal"
    expires_at: datetime | None = None
    expires_in_s: float | None = None
    idempotency_key: str | None = None
    on_ambiguous: OnAmbiguous = "report"


class _Notification(_Options, frozen=True, kw_only=True, tag_field="kind", tag="create_notification"):
    to: dict[str, Json]
    message: dict[str, Json]
    channel: str | None = None
    pack: bool | None = None
    expected_recipients: int | None = None


class _Change(_Options, frozen=True, kw_only=True, tag_field="kind", tag="update_user"):
    user: dict[str, str]
    tags: dict[str, _TagValue] = field(default_factory=dict)
    properties: dict[str, Json] = field(default_factory=dict)
    deltas: dict[str, Json] = field(default_factory=dict)
    coalesce: bool = True
    on_missing: OnMissing = "fail"


class _Failure(Struct, frozen=True):
    """A line of ``failures.jsonl``; what else it says is for people."""

    job: msgspec.Raw
    maybe_sent: bool


TOO_DEEP: Final = "is nested too deeply"
"""What is wrong with JSON that no reader follows to its bottom."""

_JOBS: Final = msgspec.json.Decoder(_Notification | _Change)
_FAILURES: Final = msgspec.json.Decoder(_Failure)
_ACCEPTED: Final[Mapping[str, str]] = {
    "urgency": "'high' or 'normal'",
    "on_ambiguous": "'report' or 'retry'",
    "on_missing": "'fail' or 'retry'",
    "expires_at": "a time with its zone, such as 2026-11-27T08:00:00Z",
}
_NO_KIND: Final = "Object missing required field `kind`"
_LISTED: Final[Mapping[str, Callable[..., Target]]] = {
    "subscription_id": subscription_id,
    "email": email,
    "phone_number": phone_number,
}


def read_job(line: bytes) -> Job:
    """Read one line; raises InvalidJobError, whose ``field`` is the key at fault, or empty where it is no JSON.

    A line of ``failures.jsonl`` gives its job; one that may have been sent is refused, because a new request could
    reach people twice.
    """
    try:
        return _read_line(line)
    except RecursionError:
        raise InvalidJobError("", TOO_DEEP) from None


def _read_line(line: bytes) -> Job:
    try:
        row = _JOBS.decode(line)
    except msgspec.ValidationError as error:
        if str(error) == _NO_KIND and (failure := _failure(line)) is not None:
            return _unsent(failure)
        raise _explained(error, line) from None
    except msgspec.DecodeError as error:
        raise InvalidJobError("", f"is no JSON: {error}") from None
    except UnicodeDecodeError:
        raise InvalidJobError("", "holds bytes that are not UTF-8; save the file as UTF-8") from None
    return _notification(row) if isinstance(row, _Notification) else _change(row)


def job_fields(job: Job, *, only: tuple[str, ...] | None = None) -> dict[str, Json]:
    """Return a job as a line has it, without what is the default.

    With ``only``, the notification is for these of its recipients; where others are left out, its key is left out
    too, because OneSignal would drop another body under it.
    """
    if isinstance(job, UpdateUser):
        shown: dict[str, Json] = {"kind": "update_user", "user": {job.user.label: job.user.ids[0]}}
        own: tuple[str, ...] = ("tags", "properties", "deltas", "coalesce", "on_missing")
    else:
        shown = {"kind": "create_notification", "message": job.message, "to": _target_fields(job.to, only)}
        own = ("channel", "pack", "expected_recipients")
    defaults = {entry.name: entry.default for entry in fields(job)}
    for name in (*own, "app", "urgency", "expires_at", "expires_in_s", "idempotency_key", "on_ambiguous"):
        value = getattr(job, name)
        if value not in (defaults[name], {}):
            shown[name] = value.isoformat() if isinstance(value, datetime) else value
    if only is not None and isinstance(job, CreateNotification) and job.to.is_listed and only != job.to.ids:
        shown.pop("idempotency_key", None)
    return shown


def _target_fields(target: Target, only: tuple[str, ...] | None) -> dict[str, Json]:
    if target.kind == "filters":
        return {"filters": [dict(rule) for rule in target.rules]}
    ids = target.ids if only is None or not target.is_listed else only
    shown: dict[str, Json] = {target.name: list(ids)}
    if target.excluded:
        shown["excluded_segments"] = list(target.excluded)
    return shown


def _failure(line: bytes) -> _Failure | None:
    try:
        return _FAILURES.decode(line)
    except msgspec.ValidationError:
        return None


def _unsent(failure: _Failure) -> Job:
    if failure.maybe_sent:
        raise InvalidJobError(
            "maybe_sent",
            "this job may have been sent, and sending it anew could reach people twice; `sendengine retry RUN` "
            "repeats it under its old key. To send the others, take this line out",
        )
    return read_job(bytes(failure.job))


def _explained(error: msgspec.ValidationError, line: bytes) -> InvalidJobError:
    """Say what msgspec says in the words of the other faults, and name the nearest key for an unknown one."""
    what, _, where = str(error).partition(" - at `$")
    key = where.rstrip("`").lstrip(".").replace("[...]", "")
    if what.startswith("Object contains unknown field"):
        unknown = what.split("`")[1]
        kind = _Change if b'"update_user"' in line else _Notification
        known = [entry.name for entry in fields(kind)]
        return InvalidJobError(unknown, f"there is no such key; {mend(unknown, known, what='such a job has')}")
    if what.startswith("Object missing required field"):
        return InvalidJobError(what.split("`")[1], "is missing")
    if key == "kind":
        return InvalidJobError("kind", "is one of create_notification and update_user")
    if key in _ACCEPTED and what.startswith("Invalid"):
        got = what.partition(" value ")[2]
        return InvalidJobError(key, f"{_ACCEPTED[key]}, got {got}" if got else _ACCEPTED[key])
    return InvalidJobError(key, what[0].lower() + what[1:])


def _notification(row: _Notification) -> CreateNotification:
    return CreateNotification(
        to=_target(row.to),
        message=row.message,
        channel=row.channel,
        app=row.app,
        urgency=row.urgency,
        pack=row.pack,
        expires_at=row.expires_at,
        expires_in_s=row.expires_in_s,
        idempotency_key=row.idempotency_key,
        on_ambiguous=row.on_ambiguous,
        expected_recipients=row.expected_recipients,
    )


def _change(row: _Change) -> UpdateUser:
    return UpdateUser(
        _user(row.user),
        tags=row.tags,
        properties=row.properties,
        deltas=row.deltas,
        coalesce=row.coalesce,
        on_missing=row.on_missing,
        app=row.app,
        urgency=row.urgency,
        expires_at=row.expires_at,
        expires_in_s=row.expires_in_s,
        idempotency_key=row.idempotency_key,
        on_ambiguous=row.on_ambiguous,
    )


def _user(user: Mapping[str, str]) -> Target:
    if len(user) != 1:
        raise InvalidJobError("user", 'names one user by one alias, such as {"external_id": "u-17"}')
    ((label, user_id),) = user.items()
    try:
        return alias(label, user_id)
    except InvalidJobError as error:
        raise InvalidJobError(f"user.{label}", error.problem) from None


def _target(to: Mapping[str, Json]) -> Target:
    names = [name for name in to if name != "excluded_segments"]
    if len(names) != 1:
        got = f", got {' and '.join(names)}" if names else ""
        raise InvalidJobError(
            "to",
            "holds exactly one of an alias label, subscription_id, email, phone_number, segments (with "
            f"excluded_segments) and filters{got}",
        )
    name = names[0]
    if name in TARGET_SLIPS:
        raise InvalidJobError(f"to.{name}", f"there is no such target; did you mean {TARGET_SLIPS[name]!r}?")
    if "excluded_segments" in to and name != "segments":
        raise InvalidJobError("to.excluded_segments", f"goes with segments, not with {name}")
    ids = to[name]
    if not isinstance(ids, list):
        raise InvalidJobError(f"to.{name}", f'is a list, such as ["…"], got {type(ids).__name__}')
    if name == "filters":
        return filters(ids)
    if name == "segments":
        return segments(*ids, excluded=_excluded(to))
    return _LISTED[name](*ids) if name in _LISTED else alias(name, *ids)


def _excluded(to: Mapping[str, Json]) -> Sequence[str]:
    excluded = to.get("excluded_segments", [])
    if not isinstance(excluded, list):
        raise InvalidJobError("to.excluded_segments", "is a list of segment names")
    return excluded
