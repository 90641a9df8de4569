"""Shows requests as they would go over the wire, for a look before anything is sent."""

from typing import Final

import orjson
from msgspec import Struct
from msgspec.structs import replace

from sendengine.core.jobs import CreateNotification, Job, Json
from sendengine.core.requests import NotificationRequest, Request, UserRequest
from sendengine.core.wire import canonical, encode
from sendengine.engine.keys import wire_key

_IDS_SHOWN: Final = 3


class Rendered(Struct, frozen=True):
    """A request to look at; of its recipients the first three, ``more`` are not shown. Its headers hold the key."""

    method: str
    path: str
    body: Json
    more: int = 0


def render(job: Job, *, app_id: str) -> Rendered:
    """Render the request that a job becomes when it shares it with no other."""
    more = 0
    if isinstance(job, CreateNotification) and len(job.to.ids) > _IDS_SHOWN:
        more = len(job.to.ids) - _IDS_SHOWN
        job = replace(job, to=replace(job.to, ids=job.to.ids[:_IDS_SHOWN]))
    wire = encode(_request(job, app_id))
    return Rendered(wire.method, wire.path, orjson.loads(wire.body), more)


def text_of(rendered: Rendered) -> str:
    """Write it for a person."""
    lines = [f"{rendered.method} {rendered.path}"]
    lines.append(orjson.dumps(rendered.body, option=orjson.OPT_INDENT_2).decode())
    if rendered.more:
        lines.append(f"… and {rendered.more:,} more recipients")
    return "\n".join(lines)


def _request(job: Job, app_id: str) -> Request:
    if isinstance(job, CreateNotification):
        key = "chosen when it is sent" if job.idempotency_key is None else wire_key(app_id, job.idempotency_key)
        return NotificationRequest(app_id, key, canonical(job.message), job.to, job.channel)
    tags = {name: str(value) for name, value in job.tags.items()}
    return UserRequest(app_id, job.user.label, job.user.ids[0], tags, job.properties, job.deltas)
