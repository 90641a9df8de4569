"""One request, as sealed: what `sendengine.core.wire` renders and every retry repeats unchanged."""

from collections.abc import Mapping

from msgspec import Struct

from sendengine.core.jobs import Json
from sendengine.core.targets import Target


class NotificationRequest(Struct, frozen=True, gc=False):
    """One create-notification request.

    ``content`` is the canonical JSON object of the message (`sendengine.core.wire.canonical`), shared by all
    requests of that message. ``key`` is the UUID under which OneSignal remembers it. ``ttl_s`` is set where a
    deadline decides how long the message may be delivered and the message says nothing itself.
    """

    app_id: str
    key: str
    content: bytes
    target: Target
    channel: str | None = None
    ttl_s: int | None = None


class UserRequest(Struct, frozen=True):
    """One update of one user. Tags are strings, and an empty one deletes; every part may be empty, not all."""

    app_id: str
    label: str
    user_id: str
    tags: Mapping[str, str]
    properties: Mapping[str, Json]
    deltas: Mapping[str, Json]


Request = NotificationRequest | UserRequest
