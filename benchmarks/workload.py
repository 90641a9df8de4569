"""The jobs of the benchmarks, the same as bytes, and settings to send them with.

Units: ceilings are requests a second.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from sendengine import AppSettings, CreateNotification, Job, Settings, UpdateUser, external_id
from sendengine.core.onesignal import CREATE_CEILING, UPDATE_CEILING, EndpointGroup
from sendengine.core.requests import NotificationRequest, UserRequest
from sendengine.core.wire import WireRequest, canonical, encode
from sendengine.settings import (
    BatchingSettings,
    CeilingSettings,
    IntakeSettings,
    RetrySettings,
    StoppingSettings,
    TransportSettings,
)

APP: Final = "bench"
APP_ID: Final = "be4c4000-0000-4000-8000-000000000001"
API_KEY: Final = "os_v2_app_bench"  # the mock server takes any key
CREATE: Final = EndpointGroup.CREATE_NOTIFICATION
UPDATE: Final = EndpointGroup.UPDATE_USER
DOCUMENTED: Final[Mapping[EndpointGroup, float]] = {CREATE: CREATE_CEILING["paid"], UPDATE: UPDATE_CEILING}
LIFTED: Final = 1e9
"""A ceiling that nothing reaches."""

CERTIFICATE: Final = Path(__file__).parents[1] / "tests" / "mockserver" / "loopback.pem"
"""Of 127.0.0.1, with its key; who trusts it trusts nobody else."""

H2: Final = "direct, h2"
_TRANSPORTS: Final[Mapping[str, Mapping[str, str]]] = {
    "direct": {"kind": "direct", "protocol": "http/1.1"},
    "aiohttp": {"kind": "aiohttp"},
    H2: {"kind": "direct", "protocol": "h2"},
}
TRANSPORTS: Final = list(_TRANSPORTS)
"""The transports, by the names that the tables use."""

_MESSAGE: Final = {"contents": {"en": "Your order has shipped, and is with you tomorrow"}}
_CONTENT: Final = canonical(_MESSAGE)
_EVERYBODY: Final = 10**11


def lane_name(group: EndpointGroup) -> str:
    """Name a lane as the engine does."""
    return f"{APP}/{group.value}"


def wire(name: str = "direct", *, base_url: str = "", connections: int = 4000) -> TransportSettings:
    """Make the settings of one of `TRANSPORTS`, which trust the certificate where ``base_url`` needs one."""
    trusted = {"ca_file": str(CERTIFICATE)} if base_url.startswith("https") else {}
    return msgspec.convert({**_TRANSPORTS[name], **trusted, "max_connections": connections}, TransportSettings)


def settings(
    state_dir: Path,
    *,
    base_url: str = "http://127.0.0.1:9",
    create: float | None = None,
    update: float | None = None,
    waiting: int = 200_000,
    transport: TransportSettings | None = None,
    batching: BatchingSettings | None = None,
    retry: RetrySettings | None = None,
) -> Settings:
    """Make settings for the app of the benchmarks; a ceiling that is not given is the documented one.

    ``waiting`` normal jobs have room; no ``transport`` is the default one. The application limit is so high that it
    is looked at and never reached.
    """
    app = AppSettings(
        app_id=APP_ID,
        api_key=API_KEY,
        plan="paid",
        base_url=base_url,
        subscribed_users=_EVERYBODY,
        ceilings=CeilingSettings(create_notification=create, update_user=update),
    )
    return Settings(
        apps={APP: app},
        state_dir=state_dir,
        batching=batching or BatchingSettings(),
        intake=IntakeSettings(max_jobs=2 * waiting, max_bytes=2**33),
        transport=transport or wire(base_url=base_url),
        retry=retry or RetrySettings(),
        stopping=StoppingSettings(drain_timeout_s=120),
    )


def job(group: EndpointGroup, number: int, *, pack: bool = False, recipients: int = 1) -> Job:
    """Make one job: a notification to so many recipients, or a change of one tag of one user."""
    if group is CREATE:
        users = [f"user-{each}" for each in range(number, number + recipients)]
        return CreateNotification(to=external_id(*users), channel="push", message=_MESSAGE, pack=pack)
    return UpdateUser(external_id(f"user-{number}"), tags={"level": number % 50})


def rendered(group: EndpointGroup, number: int, *, recipients: int = 1) -> WireRequest:
    """Make the bytes that the engine would send for `job`."""
    users = [f"user-{each}" for each in range(number, number + recipients)]
    if group is CREATE:
        return encode(NotificationRequest(APP_ID, str(uuid4()), _CONTENT, external_id(*users), "push"))
    return encode(UserRequest(APP_ID, "external_id", users[0], {"level": str(number % 50)}, {}, {}))


def jobs(group: EndpointGroup) -> Iterator[Job]:
    """Make jobs without end, each a request of its own and for somebody else."""
    return (job(group, number) for number in count())


def all_rendered(group: EndpointGroup) -> Iterator[WireRequest]:
    """Make the bytes of `jobs`."""
    return (rendered(group, number) for number in count())
