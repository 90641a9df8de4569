"""What is looked at before a job enters its lane: whom it is for, its room, and its deadline."""

from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from sendengine.core.jobs import CreateNotification, Job, target_of
from sendengine.core.targets import IMPLIED_CHANNEL
from sendengine.core.wire import canonical
from sendengine.errors import InvalidJobError

_OVERHEAD_BYTES = 64  # quotes, commas, and the fields that every request has


def check_fence(job: Job, only_to: Sequence[str]) -> None:
    """Raise InvalidJobError where a job is for anybody whom a staging app may not reach.

    ``only_to`` names them as ``"external_id:qa-1"``. Segments and filters reach whom they like, and are refused.
    """
    who = first_outside(job, only_to)
    if who is not None:
        fence = ", ".join(only_to)
        raise InvalidJobError(
            "to", f"{who!r} is outside of the app's only_to, which lets through {fence} alone; change only_to"
        )


def first_outside(job: Job, only_to: Sequence[str]) -> str | None:
    """Name the first whom a job is for and ``only_to`` does not let through; None where there is nobody."""
    target = target_of(job)
    if not target.is_listed:
        return target.kind
    named = (f"{target.name}:{item}" for item in target.ids)
    return next((who for who in named if who not in only_to), None)


def channel_of(job: Job) -> str | None:
    """The channel that a notification goes by, push where nothing says another; None for a user's change."""
    if not isinstance(job, CreateNotification):
        return None
    return job.channel or IMPLIED_CHANNEL.get(job.to.kind, "push")


def render(job: Job) -> bytes:
    """What of a job is rendered once, when it comes: a notification's canonical message; of an update nothing."""
    return canonical(job.message) if isinstance(job, CreateNotification) else b""


def weigh(job: Job, *, content: bytes) -> int:
    """Roughly the bytes that a job puts on the wire, for the intake's bound."""
    if isinstance(job, CreateNotification):
        ids = job.to.ids
        if len(ids) == 1 and ids[0].isascii():
            return _OVERHEAD_BYTES + 3 + len(ids[0]) + len(content)
        return _OVERHEAD_BYTES + (job.to.text_bytes or _bytes_of(ids)) + 3 * len(ids) + len(content)
    ids = job.user.ids
    size_bytes = _OVERHEAD_BYTES + (len(ids[0]) if len(ids) == 1 and ids[0].isascii() else _bytes_of(ids))
    for name, value in job.tags.items():
        size_bytes += len(name) + (len(value) if isinstance(value, str) else 0)
    if job.properties or job.deltas:
        size_bytes += sum(len(orjson.dumps(changes)) for changes in (job.properties, job.deltas) if changes)
    return size_bytes


def _bytes_of(ids: Sequence[str]) -> int:
    """Their bytes; raises InvalidJobError where one is no text, as a `Target` made by hand may hold."""
    text = ids[0] if len(ids) == 1 else "".join(ids)
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidJobError("to", "an id holds half a surrogate pair, which is no text") from None


def deadline_of(job: Job, *, now_s: float) -> float | None:
    """The job's deadline on the loop's clock, which shows ``now_s``."""
    if job.expires_in_s is not None:
        return now_s + job.expires_in_s
    if job.expires_at is None:
        return None
    return now_s + (job.expires_at - datetime.now(UTC)).total_seconds()
