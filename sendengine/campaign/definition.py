"""A campaign file: TOML, one message or one kind of user change, and a file of recipients.

Whatever is wrong in it is an InputError that says what, where (the key) and how to mend it; nothing in it is
ignored. Paths in it are relative to the file.

Units: ``expires_in_s`` is seconds from the start of the run; ``expires_at`` is an aware datetime.
"""

import tomllib
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Final, Literal, get_args

from msgspec import Struct, ValidationError, convert, field
from msgspec.structs import fields, replace

from sendengine.core.jobs import CreateNotification, Json, OnAmbiguous, OnMissing, UpdateUser, Urgency
from sendengine.core.onesignal import ALIAS_CAP, CHANNELS
from sendengine.core.spelling import TARGET_SLIPS, mend
from sendengine.core.targets import Target, TargetKind
from sendengine.errors import InputError, InvalidJobError
from sendengine.settings.kinds import NO_HOME

Kind = Literal["create_notification", "update_user"]
LISTED_KINDS: Final[tuple[TargetKind, ...]] = ("subscription_id", "email", "phone_number")

NUMBER_PROPERTIES: Final[Mapping[str, type[int] | type[float]]] = {
    "lat": float,
    "long": float,
    "first_active": int,
    "last_active": int,
}
"""Properties of a user that OneSignal documents as numbers; a cell of a CSV file is made one."""

_TIME: Final = "a time with its zone, such as 2026-11-27T08:00:00Z"
_LONGEST_S: Final = 100 * 366 * 86_400  # what is added to a time has to stay within the calendar
_FOR_NOTIFICATIONS: Final = ("channel", "message", "custom_data", "pack_custom_data", "dedupe")
_FOR_UPDATES: Final = ("tags", "properties", "on_missing")


class RecipientsFile(Struct, frozen=True):
    """Where the recipients stand: a column of ids, and what kind of ids they are.

    ``target`` is an alias label, ``subscription_id``, ``email`` or ``phone_number``; OneSignal creates subscriptions
    for unknown addresses and numbers, and ``create_subscriptions`` says that this is meant.
    """

    file: Path
    column: str
    target: str
    create_subscriptions: bool = False


class ExcludeFile(Struct, frozen=True):
    """Ids that are never sent to, of the same kind as the recipients'."""

    file: Path
    column: str


class Campaign(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checked campaign file.

    ``custom_data``, ``tags`` and ``properties`` name a column for each field. ``app`` is None where the settings'
    only app is meant.
    """

    name: str
    recipients: RecipientsFile
    kind: Kind = "create_notification"
    app: str | None = None
    channel: str | None = None
    message: Mapping[str, Json] = field(default_factory=dict)
    exclude: ExcludeFile | None = None
    custom_data: Mapping[str, str] = field(default_factory=dict)
    pack_custom_data: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    dedupe: bool = True
    urgency: Urgency = "normal"
    expires_at: datetime | None = None
    expires_in_s: float | None = None
    on_ambiguous: OnAmbiguous = "report"
    on_missing: OnMissing = "fail"

    @property
    def is_notification(self) -> bool:
        """Whether it sends messages, rather than changing users."""
        return self.kind == "create_notification"

    @property
    def has_one_message(self) -> bool:
        """Whether the message of all its requests is the same."""
        return self.is_notification and not self.custom_data

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads beside the ids, each once."""
        return tuple(dict.fromkeys((*self.custom_data.values(), *self.tags.values(), *self.properties.values())))

    def target(self, ids: tuple[str, ...]) -> Target:
        """Name these recipients as OneSignal takes them; the ids are trusted, and all different."""
        kind = self.recipients.target
        for listed in LISTED_KINDS:
            if kind == listed:
                return Target(listed, ids, are_distinct=True)
        return Target("alias", ids, kind, are_distinct=True)


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "kind": get_args(Kind),
    "channel": CHANNELS,
    "urgency": get_args(Urgency),
    "on_ambiguous": get_args(OnAmbiguous),
    "on_missing": get_args(OnMissing),
}
_SUBTABLES: Final[Mapping[str, type[Struct]]] = {"recipients": RecipientsFile, "exclude": ExcludeFile}
_EXAMPLE_IDS: Final = {
    "subscription_id": "8250eaf6-1a58-489e-b136-7c74a864b434",
    "email": "ann@example.com",
    "phone_number": "+14155550123",
}


def load_campaign(path: Path) -> Campaign:
    """Read and check a campaign file; raises InputError. The files that it names are not opened yet."""
    table = _read_table(path)
    try:
        _check_names(table)
        _check_choices(table)
        campaign = _checked(_converted(table), given=frozenset(table))
    except _KeyError as error:
        raise InputError(f"{path}: {error}") from None
    return replace(
        campaign,
        recipients=replace(campaign.recipients, file=_beside(path, campaign.recipients.file)),
        exclude=campaign.exclude and replace(campaign.exclude, file=_beside(path, campaign.exclude.file)),
    )


class _KeyError(Exception):
    """A key of the file is wrong; the text names it and says how to mend it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"campaign{'.' if key else ''}{key}: {problem}")


def _read_table(path: Path) -> Mapping[str, object]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is not TOML: {error}; texts stand in quotes, tables in [brackets]") from None
    unknown = [name for name in document if name != "campaign"]
    if unknown:
        raise InputError(
            f"{path}: {unknown[0]}: there is no such table; a campaign file holds [campaign] and tables below it, "
            f"such as [campaign.{unknown[0]}]"
        )
    table = document.get("campaign")
    if not isinstance(table, dict):
        raise InputError(f"{path}: has no table [campaign]; it holds name, message and [campaign.recipients]")
    return table


def _check_names(table: Mapping[str, object]) -> None:
    """Refuse keys that do not exist, naming the nearest that does."""
    _check_keys(table, Campaign, prefix="")
    for name, kind in _SUBTABLES.items():
        if isinstance(entries := table.get(name), dict):
            _check_keys(entries, kind, prefix=f"{name}.")


def _check_keys(entries: Mapping[str, object], kind: type[Struct], *, prefix: str) -> None:
    known = [entry.name for entry in fields(kind)]
    for name in entries:
        if name not in known:
            raise _KeyError(f"{prefix}{name}", f"there is no such key; {mend(name, known)}")


def _check_choices(table: Mapping[str, object]) -> None:
    """Refuse texts that are none of those that a key may have, naming the nearest that is."""
    for key, known in _CHOICES.items():
        value = table.get(key)
        if isinstance(value, str) and value not in known:
            raise _KeyError(key, f"got {value!r}; {mend(value, known, what='it is one of')}")


def _converted(table: Mapping[str, object]) -> Campaign:
    try:
        return convert(table, Campaign, dec_hook=_as_path)
    except ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        key = where.rstrip("`").lstrip(".")
        if what.startswith("Object missing required field"):
            missing = what.split("`")[1]
            raise _KeyError(f"{key}{'.' if key else ''}{missing}", "is missing, and there is no default") from None
        raise _KeyError(key, _TIME if what.startswith("Invalid RFC3339") else f"{what[0].lower()}{what[1:]}") from None


def _as_path(_kind: type, value: object) -> object:
    """Convert what msgspec leaves to us: paths."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a file's path")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"{NO_HOME}, got {value!r}") from None


def _beside(path: Path, named: Path) -> Path:
    return path.parent / named


def _checked(campaign: Campaign, *, given: frozenset[str]) -> Campaign:
    if not campaign.name or campaign.name.isspace() or not campaign.name.isprintable():
        raise _KeyError("name", f"a printable text that is not empty, got {campaign.name!r}")
    _check_recipients(campaign.recipients)
    campaign = replace(
        campaign,
        message={name: _as_json(value, f"message.{name}") for name, value in campaign.message.items()},
        dedupe=campaign.dedupe and campaign.is_notification,
    )
    _check_expiry(campaign)
    for unfit in _FOR_UPDATES if campaign.is_notification else _FOR_NOTIFICATIONS:
        if unfit in given:
            raise _KeyError(
                unfit, f'does not belong to a campaign of kind = "{campaign.kind}"; take it out, or change kind'
            )
    if campaign.is_notification:
        _check_notification(campaign)
    else:
        _check_update(campaign)
    return campaign


def _check_recipients(recipients: RecipientsFile) -> None:
    target = recipients.target
    if target in {"segments", "filters"}:
        raise _KeyError("recipients.target", f"{target} have no file of recipients; send them from a jobs file")
    if target in TARGET_SLIPS:
        raise _KeyError("recipients.target", f"got {target!r}; did you mean {TARGET_SLIPS[target]!r}?")
    if not 0 < len(target) <= ALIAS_CAP:
        raise _KeyError(
            "recipients.target", f"an alias label of 1 to {ALIAS_CAP} characters, or {', '.join(LISTED_KINDS)}"
        )
    if target in {"email", "phone_number"} and not recipients.create_subscriptions:
        raise _KeyError(
            "recipients.create_subscriptions",
            f'is missing: OneSignal creates a subscription for each unknown recipient of target = "{target}"; '
            "say with create_subscriptions = true that this is meant, or use external_id or subscription_id",
        )


def _check_expiry(campaign: Campaign) -> None:
    within = campaign.expires_in_s
    if campaign.expires_at is not None:
        if within is not None:
            raise _KeyError("expires_in_s", "give expires_at or expires_in_s, not both")
        if campaign.expires_at.tzinfo is None:
            raise _KeyError("expires_at", _TIME)
    if within is not None and not 1 <= within <= _LONGEST_S:
        raise _KeyError("expires_in_s", f"seconds from 1 up to {_LONGEST_S:,} (100 years), got {within}")


def _check_notification(campaign: Campaign) -> None:
    target = campaign.recipients.target
    try:
        CreateNotification(
            to=campaign.target((_EXAMPLE_IDS.get(target, "u-17"),)), message=campaign.message, channel=campaign.channel
        )
    except InvalidJobError as error:
        raise _KeyError(error.field, error.problem) from None
    if campaign.custom_data and "template_id" not in campaign.message:
        raise _KeyError("custom_data", "goes with a template; give message.template_id")
    if not campaign.pack_custom_data:
        return
    if not campaign.custom_data:
        raise _KeyError("pack_custom_data", "there is nothing to pack; give [campaign.custom_data], or take it out")
    if target != "external_id":
        raise _KeyError("pack_custom_data", 'a template finds packed data by external_id; needs target = "external_id"')
    if "users" in campaign.custom_data:
        raise _KeyError("custom_data.users", "packed data stands under this name; choose another")


def _check_update(campaign: Campaign) -> None:
    if campaign.recipients.target in LISTED_KINDS:
        raise _KeyError(
            "recipients.target", "a user is named by an alias, such as external_id or onesignal_id, or a label of yours"
        )
    if not campaign.tags and not campaign.properties:
        raise _KeyError("tags", "the campaign changes nothing; give [campaign.tags] or [campaign.properties]")
    if "tags" in campaign.properties:
        raise _KeyError("properties.tags", "tags stand in [campaign.tags]")
    try:
        UpdateUser(
            campaign.target(("u-17",)), dict.fromkeys(campaign.tags, "x"), dict.fromkeys(campaign.properties, "x")
        )
    except InvalidJobError as error:
        raise _KeyError(error.field, error.problem) from None


def _as_json(value: object, key: str) -> Json:
    """Bring a value of the message into JSON; times become the texts that OneSignal takes."""
    match value:
        case bool() | int() | str():
            return value
        case float() if isfinite(value):
            return value
        case datetime() if value.tzinfo is not None:
            return value.isoformat()
        case list():
            return [_as_json(item, f"{key}[{index}]") for index, item in enumerate(value)]
        case dict():
            return {name: _as_json(item, f"{key}.{name}") for name, item in value.items()}
    raise _KeyError(key, f"has no JSON form: {value!s}; a time needs its zone, such as 2026-11-27T08:00:00Z")
