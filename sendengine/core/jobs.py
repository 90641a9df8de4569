"""What a caller asks for: one notification to some recipients, or one change of one user.

A job is checked when it is made, so that a fault is found where it was written. It raises InvalidJobError, which
names the field, what is wrong and how to mend it. A job is a value: sending it does not change it.

Units: ``expires_in_s`` is seconds from `submit`; ``expires_at`` is an aware datetime.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from sys import float_info
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import orjson
from msgspec import Struct
from msgspec.structs import force_setattr

from sendengine.core.onesignal import (
    CHANNELS,
    COLLAPSE_ID_CAP,
    CUSTOM_DATA_CAP_BYTES,
    DATA_CAP_BYTES,
    LIST_CAPS,
    MAX_MODIFICATIONS,
    NAME_CAP,
    PUSH_PAYLOAD_CAP_BYTES,
    TTL_MAX_S,
)
from sendengine.core.rendering import rendered
from sendengine.core.targets import IMPLIED_CHANNEL, Target
from sendengine.errors import InvalidJobError

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
else:
    Json = Any  # msgspec cannot read an alias that names itself
Urgency = Literal["high", "normal"]
OnAmbiguous = Literal["report", "retry"]
OnMissing = Literal["fail", "retry"]
TagValue = str | int | float | bool | None

_TARGETING: Final = frozenset(
    {
        "include_aliases", "include_subscription_ids", "email_to", "include_email_tokens", "include_phone_numbers",
        "included_segments", "excluded_segments", "filters", "include_player_ids", "include_external_user_ids",
        "include_ios_tokens", "include_wp_wns_uris", "include_amazon_reg_ids", "include_chrome_reg_ids",
        "include_chrome_web_reg_ids", "include_android_reg_ids", "to",
    },
)  # fmt: skip
_OWNED: Final = {
    "app_id": "name the app of the settings in the job's 'app'",
    "idempotency_key": "use the job's 'idempotency_key'",
    "external_id": "it is the old name of the idempotency key; use the job's 'idempotency_key'",
    "target_channel": "use the job's 'channel'",
}
_TEXT_CAPS: Final = {"name": NAME_CAP, "collapse_id": COLLAPSE_ID_CAP}
_SPECIAL: Final = frozenset({*_TARGETING, *_OWNED, *_TEXT_CAPS, *LIST_CAPS, "ttl"})
_DELTAS: Final = ("session_time", "session_count", "purchases")
_COUNT_MAX: Final = 2**40  # more of them than ever wait for one user, or app, still add up to less than JSON's 64 bits
_MINUTE: Final = timedelta(minutes=1)


# gc=False: what a job holds is JSON, which never holds the job; a million that wait need not be walked.
class CreateNotification(Struct, frozen=True, kw_only=True, gc=False):
    """One message to the recipients of one target.

    ``message`` holds OneSignal's own body fields (``contents``, ``headings``, ``template_id``, …), passed through
    as they are and read only for the documented caps. ``channel`` is needed with alias targets. ``urgency="high"``
    goes first, without linger, and is packed with others only where ``pack`` is True. ``idempotency_key`` is a UUID
    or any text; such a job goes alone. ``expected_recipients`` is how many a segment or filter job may reach.
    """

    to: Target
    message: Mapping[str, Json]
    channel: str | None = None
    app: str | None = None
    urgency: Urgency = "normal"
    pack: bool | None = None
    expires_at: datetime | None = None
    expires_in_s: float | None = None
    idempotency_key: str | None = None
    on_ambiguous: OnAmbiguous = "report"
    expected_recipients: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.to, Target):
            raise InvalidJobError("to", f"use a target such as external_id('u1'), got {type(self.to).__name__}")
        _check_options(self)
        if self.pack is not None and not isinstance(self.pack, bool):
            raise InvalidJobError("pack", f"True, False or None, got {self.pack!r}")
        _check_channel(self.to, self.channel)
        _check_message(self.message, self.channel)
        expected = self.expected_recipients
        if expected is not None and (self.to.is_listed or not _is_count(expected)):
            raise InvalidJobError(
                "expected_recipients", f"a whole number from 0 up to {_COUNT_MAX}, only for segments or filters"
            )


class UpdateUser(Struct, frozen=True, gc=False):
    """One change of one user: tags, properties and deltas.

    ``user`` is a target of one alias id. Tags take strings, numbers and booleans and are kept as the strings that
    OneSignal documents; None or ``""`` deletes a tag. ``properties`` are set, ``deltas`` (``session_time``,
    ``session_count``, ``purchases``) add up. ``coalesce=False`` keeps the change in a request of its own.
    ``on_missing="retry"`` repeats a 404 for a minute, for a user who was created a moment ago.
    ``on_ambiguous="retry"`` repeats deltas although they may have been counted.
    """

    user: Target
    tags: Mapping[str, TagValue] = {}
    properties: Mapping[str, Json] = {}
    deltas: Mapping[str, Json] = {}
    coalesce: bool = True
    on_missing: OnMissing = "fail"
    app: str | None = None
    urgency: Urgency = "normal"
    expires_at: datetime | None = None
    expires_in_s: float | None = None
    idempotency_key: str | None = None
    on_ambiguous: OnAmbiguous = "report"

    def __post_init__(self) -> None:
        user = self.user
        if not isinstance(user, Target) or user.kind != "alias" or len(user.ids) != 1:
            raise InvalidJobError("user", "a user is an alias target of one id, such as external_id('u-17')")
        _check_options(self)
        if self.on_missing not in {"fail", "retry"}:
            raise InvalidJobError("on_missing", f"'fail' or 'retry', got {self.on_missing!r}")
        if not isinstance(self.coalesce, bool):
            raise InvalidJobError("coalesce", f"True or False, got {self.coalesce!r}")
        for name in ("tags", "properties", "deltas"):
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidJobError(name, f"an object, got {type(getattr(self, name)).__name__}")
        force_setattr(self, "tags", {key: _tag(key, value) for key, value in self.tags.items()})
        if "tags" in self.properties:
            raise InvalidJobError("properties.tags", "tags stand in the job's own 'tags'")
        rendered("tags", self.tags)
        for name in ("properties", "deltas"):  # copies: they are rendered when their user's turn comes
            value = getattr(self, name)
            force_setattr(self, name, orjson.loads(rendered(name, value)) if value else {})
        _check_deltas(self.deltas)
        count = modifications(self)
        if not count:
            raise InvalidJobError("tags", "the job changes nothing; give tags, properties or deltas")
        if not self.coalesce and count > MAX_MODIFICATIONS:
            raise InvalidJobError(
                "coalesce",
                f"{count} modifications do not fit one request, which holds {MAX_MODIFICATIONS}; "
                "split the job, or let it be split with coalesce=True",
            )


Job = CreateNotification | UpdateUser


def target_of(job: Job) -> Target:
    """Whom a job is for, whatever it is."""
    return job.to if isinstance(job, CreateNotification) else job.user


class Modifications(Protocol):
    """What a request changes, or a part of it."""

    @property
    def tags(self) -> Mapping[str, TagValue]:
        """The tags to set; an empty value deletes."""
        ...

    @property
    def properties(self) -> Mapping[str, Json]:
        """The properties to set."""
        ...

    @property
    def deltas(self) -> Mapping[str, Json]:
        """The increments."""
        ...


def modifications(whole: Modifications) -> int:
    """How many modifications OneSignal counts: each tag, property, delta count and purchase is one."""
    size = len(whole.tags) + len(whole.properties)
    if not whole.deltas:
        return size
    purchases = whole.deltas.get("purchases")
    return size + len(whole.deltas) + (len(purchases) - 1 if isinstance(purchases, Sequence) else 0)


def _check_options(job: Job) -> None:
    if job.urgency not in {"high", "normal"}:
        raise InvalidJobError("urgency", f"'high' or 'normal', got {job.urgency!r}")
    if job.on_ambiguous not in {"report", "retry"}:
        raise InvalidJobError("on_ambiguous", f"'report' or 'retry', got {job.on_ambiguous!r}")
    key = job.idempotency_key
    if key is not None and (not isinstance(key, str) or not key or not key.isprintable()):
        raise InvalidJobError("idempotency_key", "a UUID or any non-empty printable text")
    if job.expires_at is not None:
        if job.expires_in_s is not None:
            raise InvalidJobError("expires_in_s", "give expires_at or expires_in_s, not both")
        offset = job.expires_at.utcoffset() if isinstance(job.expires_at, datetime) else None
        if offset is None or offset % _MINUTE:  # such as no file holds
            raise InvalidJobError("expires_at", "a time with its zone, such as 2026-11-27T08:00:00Z")
    within = job.expires_in_s
    if within is not None:
        if isinstance(within, bool) or not (_is_number(within) and within > 0):
            raise InvalidJobError("expires_in_s", f"seconds above 0, got {within!r}")
        force_setattr(job, "expires_in_s", float(within))  # no subclass of it, which JSON has none of


def _is_number(value: object) -> bool:
    """Whether a value is a finite number, and no larger than a float may be."""
    return isinstance(value, (int, float)) and abs(value) <= float_info.max


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _COUNT_MAX


def _check_channel(to: Target, channel: str | None) -> None:
    if channel is not None and channel not in CHANNELS:
        raise InvalidJobError("channel", f"one of {', '.join(CHANNELS)}, got {channel!r}")
    if to.kind == "alias" and channel is None:
        raise InvalidJobError("channel", f"missing; an alias target needs one of {', '.join(CHANNELS)}")
    implied = IMPLIED_CHANNEL.get(to.kind)
    if implied and channel not in {None, implied}:
        raise InvalidJobError("channel", f"a target of kind {to.kind} goes by {implied}, not {channel!r}")


def _check_message(message: Mapping[str, Json], channel: str | None) -> None:
    if not isinstance(message, (dict, Mapping)) or not message:  # what is a dict is told at once
        raise InvalidJobError("message", "an object of OneSignal's fields, such as {'contents': {'en': '…'}}")
    if not _SPECIAL.isdisjoint(message):
        _check_special(message)
    _check_sizes(message, channel, len(rendered("message", message)))


def _check_special(message: Mapping[str, Json]) -> None:
    """Check the fields that have rules of their own."""
    if clash := _TARGETING.intersection(message):
        raise InvalidJobError(f"message.{min(clash)}", "a job has one target, and it stands in 'to'")
    for field, mend in _OWNED.items():
        if field in message:
            raise InvalidJobError(f"message.{field}", mend)
    for field, cap in _TEXT_CAPS.items():
        value = message.get(field)
        if isinstance(value, str) and len(value) > cap:
            raise InvalidJobError(f"message.{field}", f"at most {cap} characters, got {len(value)}")
    for field, cap in LIST_CAPS.items():
        value = message.get(field)
        if isinstance(value, Sequence) and len(value) > cap:
            raise InvalidJobError(f"message.{field}", f"at most {cap} entries, got {len(value)}")
    ttl = message.get("ttl")
    if isinstance(ttl, (int, float)) and not 0 <= ttl <= TTL_MAX_S:
        raise InvalidJobError("message.ttl", f"0 to {TTL_MAX_S} seconds, got {ttl}")


def _check_sizes(message: Mapping[str, Json], channel: str | None, size: int) -> None:
    if size <= DATA_CAP_BYTES:
        return
    data = len(orjson.dumps(message.get("data")))
    if data > DATA_CAP_BYTES:
        raise InvalidJobError("message.data", f"at most {DATA_CAP_BYTES} bytes as JSON, got {data}")
    if "custom_data" in message:
        cap = CUSTOM_DATA_CAP_BYTES[channel or "email"]
        custom = len(orjson.dumps(message["custom_data"]))
        if custom > cap:
            raise InvalidJobError("message.custom_data", f"at most {cap} bytes as JSON, got {custom}")
    if channel == "push" and (payload := _push_payload(message, data)) > PUSH_PAYLOAD_CAP_BYTES:
        raise InvalidJobError(
            "message",
            f"a push holds at most {PUSH_PAYLOAD_CAP_BYTES} bytes, and the longest language with data has {payload}; "
            "shorten contents, headings, subtitle or data",
        )


def _push_payload(message: Mapping[str, Json], data_bytes: int) -> int:
    """Bytes of the longest language's text and the data: what one device is sent."""
    longest = 0
    for field in ("contents", "headings", "subtitle"):
        texts = message.get(field)
        if isinstance(texts, Mapping):
            longest += max((len(text.encode()) for text in texts.values() if isinstance(text, str)), default=0)
    return longest + data_bytes


def _tag(key: str, value: TagValue) -> str:
    if not isinstance(key, str) or not key:
        raise InvalidJobError("tags", f"a tag's name is a non-empty string, got {key!r}")
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() | float() if _is_number(value):
            return str(value)
    raise InvalidJobError(
        f"tags.{key}", f"a string, number or boolean, or null to delete it; OneSignal has no such tags as {value!r}"
    )


def _check_deltas(deltas: Mapping[str, Json]) -> None:
    for name, value in deltas.items():
        if name not in _DELTAS:
            raise InvalidJobError(f"deltas.{name}", f"unknown; OneSignal has {', '.join(_DELTAS)}")
        if name == "purchases":
            _check_purchases(value)
        elif not isinstance(value, int) or isinstance(value, bool) or abs(value) > _COUNT_MAX:
            raise InvalidJobError(f"deltas.{name}", f"a whole number of at most {_COUNT_MAX}, got {value!r}")


def _check_purchases(purchases: Json) -> None:
    if isinstance(purchases, str) or not isinstance(purchases, Sequence) or not purchases:
        raise InvalidJobError("deltas.purchases", "a non-empty list of purchases")
    for index, purchase in enumerate(purchases):
        missing = {"sku", "amount", "iso"}.difference(purchase if isinstance(purchase, Mapping) else ())
        if missing:
            raise InvalidJobError(f"deltas.purchases[{index}]", f"needs {', '.join(sorted(missing))}")
