"""What OneSignal documents: endpoints, ceilings, caps, each with its source.

Units: rates are requests per second and app; sizes are bytes or counts, as named.

Sources, all read 2026-11-21: *rate limits* is documentation.onesignal.com/reference/rate-limits,
*create message* …/reference/create-message, *users* …/reference/update-user and …/docs/users,
*tags* …/docs/add-user-data-tags, *overview* …/reference/rest-api-overview,
*idempotency* …/docs/idempotent-notification-requests, *keys* …/docs/keys-and-ids.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal, get_args

BASE_URL: Final = "https://api.onesignal.com"  # overview
AUTH_SCHEME: Final = "Key"  # keys: "Authorization: Key <token>"


class EndpointGroup(StrEnum):
    """What OneSignal counts together, and therefore shares a lane (rate limits)."""

    CREATE_NOTIFICATION = "create_notification"
    UPDATE_USER = "update_user"


Plan = Literal["free", "paid"]
Channel = Literal["push", "email", "sms"]
CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)

CREATE_CEILING: Final = MappingProxyType({"free": 150, "paid": 6000})  # rate limits
UPDATE_CEILING: Final = 1000  # rate limits: create, update and delete user or subscription, together
USER_INTERVAL_S: Final = 1.0  # rate limits: one request a second per user or subscription

MAX_MODIFICATIONS: Final = 100  # rate limits: property updates a request; tags, properties and deltas each count one
RECIPIENT_CAP: Final = 2000  # the SDK's specification; create message says 20,000; the safer reading is the default
RECIPIENT_CAP_HIGHEST: Final = 20_000  # create message
FILTER_CAP: Final = 200  # create message: entries, operators included
TTL_MAX_S: Final = 2_419_200  # create message: 28 days
DATA_CAP_BYTES: Final = 2048  # create message: "Data must be no more than 2048 bytes long"
PUSH_PAYLOAD_CAP_BYTES: Final = 4096  # create message: the whole payload of a push
CUSTOM_DATA_CAP_BYTES: Final = MappingProxyType({"push": 2048, "sms": 2048, "email": 10_240})  # create message
NAME_CAP: Final = 128  # create message: characters
COLLAPSE_ID_CAP: Final = 64  # create message: characters
LIST_CAPS: Final = MappingProxyType({"buttons": 3, "web_buttons": 2, "sms_media_urls": 10, "email_bcc": 5})
ALIAS_CAP: Final = 128  # users: characters of a label or an id

PLACEHOLDER_IDS: Final = frozenset(  # users: ids that are refused because they are a program's mistake
    {"NA", "NULL", "0", "-1", "all", "00000000-0000-0000-0000-000000000000", "null", "undefined"},
)

SERVER_LIMIT_S: Final = 100  # overview: how long OneSignal may still be at a request whose reply was lost
KEY_KEPT_DAYS: Final = 30  # idempotency: how long a repeat is answered with the first success
DNS_TTL_S: Final = 300  # overview: honour the TTL; also the longest life of a connection
APPLICATION_WINDOW_S: Final = 900  # rate limits: 15 minutes
APPLICATION_FACTOR: Final = 10  # rate limits: deliveries per subscribed user in the window; reaching it is over

DISABLED_TEXT: Final = "See the RateLimit response headers"  # rate limits, 2022: what a disabled app answers
PER_USER_LIMIT: Final = "Subscription/User Update Per Device"  # the "limit" of a 429 that concerns one user only


def notifications_path() -> str:
    """Where create-notification requests go, below the base URL."""
    return "/notifications"


def user_path(app_id: str, label: str, user_id: str) -> str:
    """Where a user is updated; ``label`` and ``user_id`` are percent-encoded already."""
    return f"/apps/{app_id}/users/by/{label}/{user_id}"


def app_path(app_id: str) -> str:
    """Where an app is viewed: its name, and ``messageable_players``."""
    return f"/apps/{app_id}"
