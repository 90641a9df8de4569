"""The tables of the settings, frozen and checked when they are made, whether from a file or in code.

Making one raises SettingsError (a FieldError) that names the field, what is wrong and how to mend it. No table shows
a key or a password in its ``repr``.

Units: ``_s`` seconds, ``_ms`` milliseconds, ``_bytes`` bytes; ceilings are requests a second.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import force_setattr

from sendengine.core.bucket import SLOWEST_RATE
from sendengine.core.onesignal import (
    BASE_URL,
    CREATE_CEILING,
    MAX_MODIFICATIONS,
    RECIPIENT_CAP,
    SERVER_LIMIT_S,
    UPDATE_CEILING,
    EndpointGroup,
    Plan,
)
from sendengine.core.volume import delivery_limit
from sendengine.settings.kinds import (
    KEY_START,
    Age,
    AppId,
    BenchAddress,
    Command,
    Connections,
    Count,
    Factor,
    FieldError,
    FileName,
    Milliseconds,
    Modifications,
    Rate,
    Recipient,
    Recipients,
    RequestBytes,
    Share,
    Text,
    Timeout,
    Wait,
    check_fields,
)
from sendengine.settings.urls import check_proxy, checked_base_url, is_onesignal

KEY_SOURCES: Final = ("api_key", "api_key_file", "api_key_command")
STATE_DIR: Final = Path(".sendengine")
MASK: Final = "••••"
DEFAULT_KIND: Final = "direct"

_APP_NAME: Final = re.compile(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*")
_VARIABLE: Final = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


class CeilingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Ceilings that OneSignal has granted in place of the documented ones; None keeps the documented one."""

    create_notification: Rate | None = None
    update_user: Rate | None = None

    def __post_init__(self) -> None:
        check_fields(self)


class AppSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One OneSignal app. Where the key comes from is kept; `read_key` reads it.

    Exactly one of ``api_key``, ``api_key_file`` and ``api_key_command`` is given. ``base_url`` is kept without a
    slash at its end, ``app_id`` in small letters.
    """

    app_id: AppId
    api_key: Text | None = None
    api_key_file: FileName | None = None
    api_key_command: Command | None = None
    plan: Plan = "free"
    base_url: Text = BASE_URL
    allow_insecure: bool = False
    share: Share = 1.0
    subscribed_users: Count | Literal["auto"] = "auto"
    deliveries_per_recipient: Factor = 1.0
    application_limit_share: Share = 0.7
    application_limit_window: Literal["rolling", "static"] = "rolling"
    application_limit_policy: Literal["hold", "reject"] = "hold"
    only_to: tuple[Recipient, ...] = ()
    ceilings: CeilingSettings = field(default_factory=CeilingSettings)

    def __post_init__(self) -> None:
        check_fields(self)
        force_setattr(self, "app_id", self.app_id.lower())  # keys, ledgers and what was begun go by its text
        _check_key_source(self)
        _check_ceilings(self)
        force_setattr(self, "base_url", checked_base_url(self.base_url, is_insecure_allowed=self.allow_insecure))

    def granted(self, group: EndpointGroup) -> float:
        """The most requests a second that OneSignal takes from the app: the documented ceiling, or its own."""
        own: float | None = getattr(self.ceilings, group.value)
        if own is not None:
            return own
        return CREATE_CEILING[self.plan] if group is EndpointGroup.CREATE_NOTIFICATION else UPDATE_CEILING

    def ceiling(self, group: EndpointGroup) -> float:
        """The most requests a second that one engine makes: its share of them."""
        return self.granted(group) * self.share

    def delivery_limit(self, *, users: int) -> int:
        """How many deliveries one engine allows itself in fifteen minutes where so many users are subscribed."""
        return delivery_limit(subscribed_users=users, share=self.application_limit_share * self.share)

    def __repr__(self) -> str:
        return _masked_repr(self)

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return _masked_fields(self)


class BatchingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How jobs become requests."""

    max_recipients_per_request: Recipients = RECIPIENT_CAP
    max_request_bytes: RequestBytes = 1_000_000
    linger_ms: Milliseconds = 10
    max_modifications_per_request: Modifications = MAX_MODIFICATIONS

    def __post_init__(self) -> None:
        check_fields(self)


class IntakeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How much may wait; a quarter of each is kept for high jobs."""

    max_jobs: Count = 200_000
    max_bytes: Count = 268_435_456

    def __post_init__(self) -> None:
        check_fields(self)


class TransportSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How requests travel.

    ``protocol`` "auto" is HTTP/2 where the server offers it within TLS, and HTTP/1.1 elsewhere; "h2" without TLS is
    HTTP/2 that nobody has offered. A ``kind`` that is not given, or None, becomes `DEFAULT_KIND`; with a ``proxy`` it
    becomes ``"aiohttp"``, which is the only one that has proxies, and knows no HTTP/2.
    """

    kind: Literal["aiohttp", "direct"] | None = None
    protocol: Literal["auto", "h2", "http/1.1"] = "auto"
    max_connections: Connections = 4000
    timeout_s: Timeout = 60
    connect_timeout_s: Timeout = 10
    max_reply_bytes: Count = 1_048_576
    ca_file: FileName | None = None
    proxy: Text | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.proxy is not None:
            check_proxy(self.proxy)
        if self.kind is None:
            force_setattr(self, "kind", DEFAULT_KIND if self.proxy is None else "aiohttp")
        elif self.kind == "direct" and self.proxy is not None:
            raise FieldError("TransportSettings", "kind", 'must be "aiohttp" where there is a proxy')
        if self.protocol == "h2" and self.kind != "direct":
            raise FieldError(
                "TransportSettings",
                "protocol",
                '"h2" needs kind = "direct" and no proxy; "auto" and "http/1.1" go with "aiohttp", over HTTP/1.1',
            )

    def __repr__(self) -> str:
        return _masked_repr(self)

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return _masked_fields(self)


class RetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What happens after a failure."""

    lost_reply_wait_s: Wait = SERVER_LIMIT_S
    missing_retry_after_s: Wait = 60
    max_outage_s: Wait = 21_600

    def __post_init__(self) -> None:
        check_fields(self)


class StoppingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How an engine ends."""

    drain_timeout_s: Wait = 20
    grace_s: Wait = 5

    def __post_init__(self) -> None:
        check_fields(self)


class JournalSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What survives a crash; without this table an embedded engine keeps its jobs in memory.

    ``max_age_high_s`` and ``max_age_normal_s`` say how old a notification may be that an earlier process left, by its
    urgency: an older one expires. ``keep_settled_s`` keeps settled jobs for so long, ``keep_dead_s`` dead letters.
    """

    durability: Literal["durable", "relaxed", "memory"] = "durable"
    max_age_high_s: Age = 900
    max_age_normal_s: Age = 86_400
    keep_settled_s: Age = 0
    keep_dead_s: Age = 2_592_000

    def __post_init__(self) -> None:
        check_fields(self)


class BenchSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where `sendengine bench` may offer load beside this machine: hosts, or hosts with a port. Never OneSignal's."""

    addresses: tuple[BenchAddress, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for address in self.addresses:
            if is_onesignal(address.partition(":")[0]):
                problem = f"a benchmark never goes to OneSignal; take {address!r} out"
                raise FieldError("BenchSettings", "addresses", problem)


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it; at least one app. ``journal`` None: what the table's absence means is its reader's to say."""

    apps: Mapping[str, AppSettings]
    state_dir: Path = STATE_DIR
    batching: BatchingSettings = field(default_factory=BatchingSettings)
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    transport: TransportSettings = field(default_factory=TransportSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
    journal: JournalSettings | None = None
    bench: BenchSettings = field(default_factory=BenchSettings)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.apps:
            raise FieldError("Settings", "apps", "no app is configured; give one a table [apps.NAME] with its app_id")
        for name in self.apps:
            if not _APP_NAME.fullmatch(name):
                raise FieldError(
                    "Settings", "apps", f"an app's name has letters, digits and single - or _ between, got {name!r}"
                )


def masked(name: str, value: object) -> object:
    """Return a field's value as it may be shown: names of variables and files stay, keys and passwords do not."""
    if not isinstance(value, str):
        return value
    match name:
        case "api_key":
            return unkeyed(value) if _VARIABLE.fullmatch(value) else MASK
        case "api_key_file":
            return unkeyed(value)
        case "api_key_command":
            program, *rest = value.split()
            return f"{unkeyed(program)} {MASK}" if rest else unkeyed(program)
        case "proxy":
            url = urlsplit(value)
            return (
                url._replace(netloc=f"{MASK}@{url.netloc.rpartition('@')[2]}").geturl() if "@" in url.netloc else value
            )
    return value


def unkeyed(name: str) -> str:
    """Return the name of where a key is, as it may be shown: not where the key itself was written in its place."""
    return f"{MASK} (which looks like a key)" if KEY_START in name else name


def key_variable(app: AppSettings) -> str | None:
    """Return the environment variable that holds the app's key, or None where it comes from elsewhere."""
    return app.api_key[1:] if app.api_key is not None and app.api_key.startswith("$") else None


def _masked_fields(table: Struct) -> list[tuple[str, object]]:
    return [(name, masked(name, getattr(table, name))) for name in table.__struct_fields__]


def _masked_repr(table: Struct) -> str:
    fields = ", ".join(f"{name}={value!r}" for name, value in _masked_fields(table))
    return f"{type(table).__name__}({fields})"


def _check_ceilings(app: AppSettings) -> None:
    """Refuse what would wait for hours with nothing to show for it: no rate is below that of the limiter."""
    for group in EndpointGroup:
        if app.ceiling(group) < SLOWEST_RATE:
            culprit = "ceilings" if app.granted(group) < SLOWEST_RATE else "share"
            rate = f"{app.ceiling(group):.2g} requests a second"
            raise FieldError("AppSettings", culprit, f"leaves {group.value} {rate}; let it have one a minute at least")


def _check_key_source(app: AppSettings) -> None:
    given = [name for name in KEY_SOURCES if getattr(app, name) is not None]
    if not given:
        raise FieldError(
            "AppSettings",
            "api_key",
            'missing; write api_key = "$ONESIGNAL_API_KEY", or api_key_file, or api_key_command',
        )
    if len(given) > 1:
        raise FieldError("AppSettings", given[1], f"stands beside {given[0]}; keep one of {', '.join(KEY_SOURCES)}")
    if app.api_key is not None and app.api_key.startswith("$") and not _VARIABLE.fullmatch(app.api_key):
        raise FieldError("AppSettings", "api_key", 'is no name of an environment variable; write it as "$NAME"')
