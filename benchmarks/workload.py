"""The jobs of the benchmarks, the same as bytes, and settings to send them with.

Units: ceilings are requests a second.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

from sendengine import AppSettings, CreateNotification, Job, Settings, UpdateUser, external_id
from sendengine.core.onesignal import CREATE_CEILING, UPDATE_CEILING, EndpointGroup
from sendengine.core.requests import NotificationRequest, UserRequest
from sendengine.core.wire import WireRequest, canonical, encode
from sendengine.settings import CeilingSettings, IntakeSettings, StoppingSettings, TransportSettings

APP: Final = "bench"
APP_ID: Final = "be4c4000-0000-4000-8000-000000000001"
API_KEY: Final = "os_v2_app_bench"  # the mock server takes any key
CREATE: Final = EndpointGroup.CREATE_NOTIFICATION
UPDATE: Final = EndpointGroup.UPDATE_USER
DOCUMENTED: Final[Mapping[EndpointGroup, float]] = {CREATE: CREATE_CEILING["paid"], UPDATE: UPDATE_CEILING}
TransportKind = Literal["direct", "aiohttp"]
LIFTED: Final = 1e9
"""A ceiling that nothing reaches."""

_MESSAGE: Final = {"contents": {"en": "Your order has shipped, and is with you tomorrow"}}
_CONTENT: Final = canonical(_MESSAGE)
_EVERYBODY: Final = 10**11


def lane_name(group: EndpointGroup) -> str:
    """Name a lane as the engine does."""
    return f"{APP}/{group.value}"


def settings(
    state_dir: Path,
    *,
    base_url: str = "http://127.0.0.1:9",
    create: float | None = None,
    update: float | None = None,
    connections: int = 4000,
    waiting: int = 200_000,
    transport: TransportKind | None = None,
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
        intake=IntakeSettings(max_jobs=2 * waiting, max_bytes=2**32),
        transport=TransportSettings(kind=transport, max_connections=connections),
        stopping=StoppingSettings(drain_timeout_s=120),
    )


def job(group: EndpointGroup, number: int, *, pack: bool = False) -> Job:
    """Make one job: a notification to one recipient, or a change of one tag of one user."""
    target = external_id(f"user-{number}")
    if group is CREATE:
        return CreateNotification(to=target, channel="push", message=_MESSAGE, pack=pack)
    return UpdateUser(target, tags={"level": number % 50})


def rendered(group: EndpointGroup, number: int, *, recipients: int = 1) -> WireRequest:
    """Make the bytes that the engine would send for `job`; or for so many notifications, packed."""
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
