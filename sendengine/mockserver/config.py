"""How the mock server behaves: every switch, with its meaning, unit and default.

Units: ``_s`` is seconds and ``_ms`` milliseconds; rates are requests per second. The instants of faults and schedules
are seconds after the setting took effect (at the start, at `MockServer.configure`, or at a reset).

Where OneSignal's documents disagree or say nothing there is a switch, and its default is the stricter reading.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from sendengine.core.onesignal import (
    CHANNELS,
    DATA_CAP_BYTES,
    MAX_MODIFICATIONS,
    RECIPIENT_CAP,
    USER_INTERVAL_S,
    Channel,
    Plan,
)
from sendengine.errors import SettingsError

Lane = Literal["create_notification", "update_user", "view"]
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
CounterKind = Literal["sliding_second", "fixed_second", "two_windows", "bucket", "off"]
FaultKind = Literal[
    "503", "503_text", "503_empty", "502_html", "524", "500", "408", "403_html", "400", "404", "409", "429",
    "reset_before", "reset_after", "close_before", "close_after", "refused_stream", "goaway", "hang", "stall",
    "slow", "cut", "wrong_type", "garbage", "empty", "outage_reset", "outage_refuse",
]  # fmt: skip

_Count = Annotated[int, Meta(ge=0)]
_AtLeastOne = Annotated[int, Meta(ge=1)]
_Positive = Annotated[float, Meta(gt=0)]
_Second = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
Steps = tuple[tuple[_Second, _Share], ...]
"""From each second on, a share: ``((0, 0.2), (30, 0.8))``."""


class LaneLimit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one lane of one app lets through, and how it counts."""

    rate: Annotated[
        _Positive | None, Meta(description="Requests per second; unset: what OneSignal documents for the plan.")
    ] = None
    counter: Annotated[
        CounterKind,
        Meta(
            description="What counts: the exact second before each request, the clock's second, an estimate from "
            "two windows, a token bucket, or nothing."
        ),
    ] = "sliding_second"
    burst: Annotated[
        _AtLeastOne | None, Meta(description="Depth of the token bucket, in requests; unset: a second's worth.")
    ] = None
    count_refused: Annotated[bool, Meta(description="Whether a request that is refused uses up the limit too.")] = False
    schedule: Annotated[
        Steps, Meta(description="From each second on, the share of the rate that is really there.")
    ] = ()
    foreign_rate: Annotated[
        float, Meta(ge=0, description="Requests per second of another client on the same limit.")
    ] = 0.0
    foreign_schedule: Annotated[
        Steps, Meta(description="From each second on, the share of the rate that another client asks for.")
    ] = ()


class AppConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app: its key, plan, limits and people. A ``_share`` picks people by a checksum of their id."""

    name: Annotated[str, Meta(description="The name that GET /apps/{id} shows.")] = "Mock app"
    api_key: Annotated[str | None, Meta(description="The only key that is taken; unset: any key.")] = None
    organisation_key: Annotated[
        str | None, Meta(description="Where set, GET /apps/{id} takes this key and no other.")
    ] = None
    plan: Annotated[Plan, Meta(description="Decides the documented limit of notifications.")] = "paid"
    channels: Annotated[
        tuple[Channel, ...], Meta(description="What the plan allows; any other channel is answered with 403.")
    ] = CHANNELS
    subscribed_users: Annotated[
        int, Meta(ge=0, description="messageable_players, and the basis of the application limit.")
    ] = 1_000_000
    segment_recipients: Annotated[
        _Count | None, Meta(description="Whom a segment or filter send reaches; unset: all subscribed users.")
    ] = None
    tag_cap: Annotated[_Count | None, Meta(description="Tags a user may have; unset: any number.")] = None
    unsubscribed: Annotated[
        frozenset[str], Meta(description="Ids that cannot be reached, and are named in the reply.")
    ] = frozenset()
    unsubscribed_share: Annotated[float, Meta(ge=0, le=1, description="The same for a share of all ids.")] = 0.0
    unknown: Annotated[frozenset[str], Meta(description="Ids that OneSignal has never heard of.")] = frozenset()
    unknown_share: Annotated[float, Meta(ge=0, le=1, description="The same for a share of all ids.")] = 0.0
    poisoned: Annotated[
        frozenset[str], Meta(description="Ids that spoil the whole request they are in, with a 400.")
    ] = frozenset()
    poisoned_share: Annotated[float, Meta(ge=0, le=1, description="The same for a share of all ids.")] = 0.0
    missing_users: Annotated[frozenset[str], Meta(description="Users whose update is answered with 404, always.")] = (
        frozenset()
    )
    new_users: Annotated[
        frozenset[str], Meta(description="Users whose update is answered with 404 until new_user_lag_s has passed.")
    ] = frozenset()
    new_users_share: Annotated[float, Meta(ge=0, le=1, description="The same for a share of all ids.")] = 0.0
    new_user_lag_s: Annotated[
        float, Meta(ge=0, description="How long after its first request a new user stays unseen.")
    ] = 5.0
    create_notification: LaneLimit = LaneLimit()
    update_user: LaneLimit = LaneLimit()
    view: LaneLimit = LaneLimit(counter="off")


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that goes wrong on request; the first fault that applies to a request is the one it meets."""

    kind: Annotated[FaultKind, Meta(description="What goes wrong.")]
    probability: Annotated[float, Meta(ge=0, le=1, description="How often, of the requests it is about.")] = 1.0
    lane: Annotated[Lane | None, Meta(description="Only in this lane.")] = None
    app: Annotated[str | None, Meta(description="Only for this app id.")] = None
    from_s: Annotated[float, Meta(ge=0, description="Not before this second.")] = 0.0
    until_s: Annotated[_Second | None, Meta(description="Not from this second on.")] = None
    skip: Annotated[int, Meta(ge=0, description="Spare so many requests first.")] = 0
    count: Annotated[_Count | None, Meta(description="At most so many requests.")] = None
    effect: Annotated[
        bool | None, Meta(description="Whether the request takes effect all the same; unset: as the kind has it.")
    ] = None
    delay_s: Annotated[
        _Second | None,
        Meta(
            description="How long beyond the latency: a slow body or a stalled reply (unset: 1), a hang (unset: 600)."
        ),
    ] = None
    retry_after: Annotated[
        str | None, Meta(description="Retry-After of a 429 or 503 of this fault, as it stands; unset: as usual.")
    ] = None


class MockConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole server."""

    apps: Annotated[Mapping[str, AppConfig], Meta(description="Apps by id.")] = {}
    default: AppConfig = AppConfig()
    strict_apps: Annotated[bool, Meta(description="Refuse app ids that are not listed.")] = False
    path_prefixes: Annotated[tuple[str, ...], Meta(description="Where the API stands; the empty one is the root.")] = (
        "",
        "/api/v1",
    )
    seed: Annotated[int, Meta(description="Seeds latencies and faults.")] = 0
    latency_ms: Annotated[float, Meta(ge=0, description="Latency of replies; the median where p99 is set.")] = 0.0
    latency_p99_ms: Annotated[
        float,
        Meta(
            ge=0,
            description="Makes the latency lognormal with this 99th percentile; 0, or not above the median: constant.",
        ),
    ] = 0.0
    faults: tuple[Fault, ...] = ()

    user_interval_s: Annotated[
        float, Meta(ge=0, description="Least time between two updates of one user; 0: no such limit.")
    ] = USER_INTERVAL_S
    count_refused_users: Annotated[
        bool, Meta(description="Whether a refused update of a user starts that user's second anew.")
    ] = False
    retry_after: Annotated[
        str,
        Meta(description='Of a 429: "auto" (whole seconds until there is room), any text, or "" for none.'),
    ] = "auto"
    retry_after_header: Annotated[str, Meta(min_length=1, description="How the header is spelled.")] = "Retry-After"
    throttle_body: Annotated[
        Literal["plain", "dotted", "coded", "app_limit", "empty"],
        Meta(description="Which of the bodies seen with a 429 an app's 429 has."),
    ] = "plain"
    block: Annotated[
        Literal["none", "hold", "prolong"],
        Meta(description="After a 429 the lane refuses everything for block_s; prolong: each call starts that anew."),
    ] = "none"
    block_s: Annotated[
        _Positive | None, Meta(description="Length of that block; unset: what Retry-After says, or a second.")
    ] = None
    hold_grace_ms: Annotated[
        float, Meta(ge=0, description="Requests so soon after a 429 count as under way, not as sent inside the hold.")
    ] = 50.0

    recipient_cap: Annotated[int, Meta(ge=1, description="Recipients a request; documents have 2,000 and 20,000.")] = (
        RECIPIENT_CAP
    )
    modification_cap: Annotated[int, Meta(ge=1, description="Modifications a user update.")] = MAX_MODIFICATIONS
    modifications: Annotated[
        Literal["all", "tags"], Meta(description="What counts as one: tags, properties and deltas, or tags alone.")
    ] = "all"
    data_cap_bytes: Annotated[int, Meta(ge=0, description="Size of a message's data.")] = DATA_CAP_BYTES
    tag_cap_status: Annotated[Literal[400, 409], Meta(description="How a user over the tag cap is refused.")] = 409
    application_limit: Annotated[
        Literal["rolling", "static", "off"], Meta(description="The window of 15 minutes, or no such limit.")
    ] = "rolling"
    disabled_status: Annotated[int, Meta(ge=400, le=599, description="Status of a disabled app's replies.")] = 429

    key_counts: Annotated[
        Literal["arrival", "completion"],
        Meta(description="When an idempotency key is remembered: as its request arrives, or as it is answered."),
    ] = "arrival"
    unknown_ids: Annotated[
        Literal["silent", "named"], Meta(description="Whether a reply names ids that OneSignal does not know.")
    ] = "silent"
    unsubscribed_repeats: Annotated[int, Meta(ge=1, description="How often a reply names an unsubscribed id.")] = 1
    nobody_reply: Annotated[
        Literal["text", "object"], Meta(description="errors of a 200 with an empty id: the text, or the ids.")
    ] = "text"
    poison_reply: Annotated[
        Literal["vague", "empty", "named", "named_text"],
        Meta(description="What the 400 for a poisoned recipient says: nothing useful, [{}], or who it was."),
    ] = "vague"
    message_faults: Annotated[
        tuple[str, ...], Meta(description="Messages that hold one of these texts are refused with a vague 400.")
    ] = ()
    key_refusal: Annotated[
        Literal["403", "403_empty", "400"], Meta(description="How a wrong key is refused on notifications.")
    ] = "403"
    legacy_reply: Annotated[
        bool, Meta(description='Successes carry recipients, and errors "" where there are none.')
    ] = False

    requests_per_connection: Annotated[
        int, Meta(ge=0, description="Close a connection after so many replies, unannounced; 0: never.")
    ] = 0
    http2: Annotated[
        bool, Meta(description="Offer HTTP/2 by ALPN, and take it where a connection begins with its preface.")
    ] = True
    max_concurrent_streams: Annotated[
        int, Meta(ge=0, le=2**31 - 1, description="Requests at once on one HTTP/2 connection.")
    ] = 128
    window_bytes: Annotated[
        int, Meta(ge=1, le=2**31 - 1, description="How much of a request's body may come at once over HTTP/2.")
    ] = 1024 * 1024
    reset_scope: Annotated[
        Literal["stream", "connection"],
        Meta(description="What resets and closes without a reply take with them over HTTP/2."),
    ] = "stream"
    max_body_bytes: Annotated[int, Meta(ge=1, description="Largest request body; beyond it 413.")] = 16 * 1024 * 1024
    keep_updates: Annotated[bool, Meta(description="Keep each user's updates in the order they were applied.")] = True
    admin: Annotated[bool, Meta(description="Serve the ledger and the settings under /__mock__/.")] = True


_T = TypeVar("_T")


def parse_config(text: str | bytes) -> MockConfig:
    """Read settings from JSON. Raises SettingsError, which says where and what."""
    try:
        return msgspec.json.decode(text, type=MockConfig)
    except msgspec.DecodeError as error:
        raise SettingsError(f"mock server: {problem_in(error)}") from None


def checked(config: _T) -> _T:
    """Return the same settings, every value checked. Raises SettingsError, which says where and what."""
    return convert(msgspec.to_builtins(config), type(config))


def convert(values: object, kind: type[_T], *, strict: bool = True) -> _T:
    """Make settings of plain values; not ``strict`` takes texts for numbers too.

    Raises SettingsError, which says where and what.
    """
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(f"mock server: {problem_in(error)}") from None


def problem_in(error: msgspec.DecodeError) -> str:
    """Say where first, and then what: ``latency_ms: Expected `float` >= 0.0``."""
    problem, _, place = str(error).partition(" - at `$")
    where = place.rstrip("`").lstrip(".")
    return f"{where}: {problem}" if where else problem


def patched(config: MockConfig, patch: Mapping[str, object], *, strict: bool = True) -> MockConfig:
    """Return settings with a JSON merge patch (RFC 7396) applied: objects merge, null restores the default.

    Raises SettingsError.
    """
    return convert(_merged(msgspec.to_builtins(config), patch), MockConfig, strict=strict)


def _merged(old: object, patch: object) -> object:
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
