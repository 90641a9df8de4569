"""Engines and jobs for tests."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sendengine import (
    AppSettings,
    CreateNotification,
    Job,
    Outcome,
    Receipt,
    SendEngine,
    Settings,
    UpdateUser,
    external_id,
)
from sendengine.engine.lane import Lane
from sendengine.engine.users import UserSource
from sendengine.settings import BatchingSettings, IntakeSettings, RetrySettings, StoppingSettings, TransportSettings
from tests.support.fake_transport import FakeTransport

T = TypeVar("T")

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
CREATE = "shop/create_notification"
UPDATE = "shop/update_user"
KEY = "os_v2_app_canary"
MOMENT_S = 1e-6  # what float seconds lose
SOON = RetrySettings(lost_reply_wait_s=1)
_LONG_S = 4_000.0  # of virtual time: whoever waits longer waits for ever


def make_settings(
    state_dir: Path,
    *,
    app: Mapping[str, Any] | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    batching: BatchingSettings | None = None,
    intake: IntakeSettings | None = None,
    wire: TransportSettings | None = None,
    retry: RetrySettings | None = None,
    stopping: StoppingSettings | None = None,
) -> Settings:
    """Settings of an app ``shop``, and of ``others`` by name."""
    shop = {"app_id": APP_ID, "api_key": KEY, "plan": "paid", "subscribed_users": 10_000_000}
    apps = {"shop": {**shop, **(app or {})}}
    for name, options in (others or {}).items():
        apps[name] = {**shop, **options}
    return Settings(
        apps={name: AppSettings(**options) for name, options in apps.items()},
        state_dir=state_dir,
        batching=batching or BatchingSettings(),
        intake=intake or IntakeSettings(),
        transport=wire or TransportSettings(),
        retry=retry or RetrySettings(),
        stopping=stopping or StoppingSettings(),
    )


def make_engine(state_dir: Path, transport: FakeTransport, **options: Any) -> SendEngine:
    return SendEngine(make_settings(state_dir, **options), open_transport=lambda *_: transport)


def note(*ids: str, text: str = "Hi", **options: Any) -> CreateNotification:
    return CreateNotification(to=external_id(*ids), channel="push", message={"contents": {"en": text}}, **options)


def change(user: str, **tags: str | int | None) -> UpdateUser:
    return UpdateUser(external_id(user), tags=tags)


def lane_of(engine: SendEngine, name: str = CREATE) -> Lane:
    """A lane's insides: for what must not leak."""
    return engine._lanes[name]


def remembered(source: UserSource) -> int:
    """How many users a source keeps in memory: what must not grow."""
    return sum(map(len, source._users))


def assert_nothing_leaked(engine: SendEngine, transport: FakeTransport) -> None:
    """Every job has settled, and nothing of it is left anywhere."""
    assert transport.under_way == 0
    for lane in engine._lanes.values():
        assert (lane.intake.jobs, lane.intake.size_bytes) == (0, 0), lane
        assert lane.books.unsettled == 0, lane
        assert lane.waiting == 0, lane
        assert lane.in_flight == 0, lane
        assert lane.approaching == 0, lane
        assert lane.limiter.waiting == 0, lane


async def within(what: Awaitable[T], *, seconds: float = _LONG_S) -> T:
    """Wait, but not for ever: what hangs fails its test instead of stopping it."""
    async with asyncio.timeout(seconds):
        return await what


async def settled(receipt: Receipt) -> Outcome:
    return await within(receipt)


async def outcomes_of(engine: SendEngine, jobs: list[Job]) -> list[Outcome]:
    """Submit jobs in order, and wait for all of them."""
    receipts = [await within(engine.submit(job)) for job in jobs]
    return [await settled(receipt) for receipt in receipts]


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def until(is_so: Callable[[], bool], *, step_s: float = 0.01) -> None:
    """Let virtual time pass until a condition holds."""
    async with asyncio.timeout(_LONG_S):
        while not is_so():  # noqa: ASYNC110 - virtual time costs nothing, and nobody announces what is waited for
            await asyncio.sleep(step_s)


async def pass_turns(count: int = 20) -> None:
    """Let everything run that is ready to."""
    for _ in range(count):
        await asyncio.sleep(0)
