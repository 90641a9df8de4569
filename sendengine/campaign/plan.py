"""What decides a campaign's packs and keys, fixed when a run begins.

The same campaign, sent again by mistake or resumed, makes the same packs with the same keys. A key follows the
content, so that no changed body ever meets an old key, which OneSignal would drop without a word:

    key = uuid5(app_id, JSON of ["campaign", name, edition, SHA-256 of the body in hex, n])

``app_id`` is the app's UUID. The JSON has no spaces. The body is `sendengine.core.wire.canonical_body` of the request;
where its ``ttl`` follows from ``expires_at``, the body that is hashed holds the deadline in its place, in whole seconds
since the epoch, for otherwise the same campaign would have other keys a second later. n is 1, 2, … for the first,
second, … request with that body: with ``dedupe`` off, a row may stand in a file twice.

A test goes under keys of its own: ["test", run, 1, …].

Units: ``_bytes`` is bytes of JSON, ``_s`` seconds.
"""

from collections import Counter
from datetime import datetime, timedelta
from hashlib import sha1, sha256
from math import ceil
from typing import Final
from uuid import UUID

import orjson
from msgspec import Struct

from sendengine.campaign.definition import Campaign
from sendengine.core.onesignal import TTL_MAX_S
from sendengine.errors import InputError

PACKING_VERSION: Final = 1
"""Goes up when the same campaign would make other packs than before; a run keeps to the version that it began with."""


class Plan(Struct, frozen=True, kw_only=True):
    """Everything that decides a campaign's packs and keys.

    ``ttl_s`` is how long OneSignal may deliver, and ``deadline`` when the last request may be sent; both None where
    the campaign does not expire.
    """

    campaign: Campaign
    app: str
    app_id: str
    max_recipients: int
    max_bytes: int
    edition: int = 1
    ttl_s: int | None = None
    deadline: datetime | None = None
    version: int = PACKING_VERSION

    def is_overdue(self, now: datetime) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and self.deadline <= now


def make_plan(
    campaign: Campaign,
    *,
    app: str,
    app_id: str,
    max_recipients: int,
    max_bytes: int,
    edition: int = 1,
    started_at: datetime,
) -> Plan:
    """Fix what decides the packs; raises InputError where the campaign has expired already."""
    deadline, ttl_s = campaign.expires_at, None
    if campaign.expires_in_s is not None:
        deadline = started_at + timedelta(seconds=campaign.expires_in_s)
    if deadline is not None:
        left_s = (deadline - started_at).total_seconds()
        if left_s <= 0:
            raise InputError(f"campaign.expires_at: {deadline.isoformat()} has passed; nothing would be delivered")
        ttl_s = min(ceil(left_s), TTL_MAX_S)
    return Plan(
        campaign=campaign,
        app=app,
        app_id=app_id,
        max_recipients=max_recipients,
        max_bytes=max_bytes,
        edition=edition,
        ttl_s=ttl_s,
        deadline=deadline,
    )


class Keys:
    """Makes the idempotency keys of a run, request by request in the order of the file."""

    __slots__ = ("_app", "_prefix", "_uses")

    def __init__(self, plan: Plan, *, test_run: str | None = None) -> None:
        self._app = UUID(plan.app_id).bytes
        self._prefix = ["campaign", plan.campaign.name, plan.edition] if test_run is None else ["test", test_run, 1]
        self._uses: Counter[bytes] = Counter()

    def key(self, body: bytes, *, may_repeat: bool) -> str:
        """Return the key of the next request; ``may_repeat`` where another request may have the same body."""
        digest = sha256(body)
        uses = 1
        if may_repeat:
            uses = self._uses[digest.digest()] = self._uses[digest.digest()] + 1
        return _uuid5(self._app, orjson.dumps([*self._prefix, digest.hexdigest(), uses]))


def _uuid5(namespace: bytes, name: bytes) -> str:
    """Return what ``str(uuid.uuid5(…))`` does, at a quarter of its cost: a key a row is a fifth of a row's work."""
    digits = sha1(namespace + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
