"""An engine on real sockets, and the mock server that judges it by its own ledger."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sendengine import Accepted, Job, SendEngine
from sendengine.mockserver import MockConfig, MockServer
from sendengine.mockserver.ledger import LaneSummary, Summary
from tests.support.engines import APP_ID, make_settings

INSTANT_MS = 0.001
"""The grace of a server whose clock is virtual: what comes in the instant in which it says 429 was under way."""


@asynccontextmanager
async def mocked(
    folder: Path, config: MockConfig | None = None, *, app: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[SendEngine, MockServer]]:
    """An engine whose app lives on a mock server of its own; ``options`` are those of `make_settings`."""
    async with MockServer(config) as server:
        settings = make_settings(folder, app={"base_url": server.base_url, **(app or {})}, **options)
        async with SendEngine(settings) as engine:
            yield engine, server


async def all_accepted(engine: SendEngine, jobs: Sequence[Job]) -> None:
    """Send jobs, of which each is accepted."""
    outcomes = [outcome async for _, outcome in engine.map(jobs)]
    assert len(outcomes) == len(jobs)
    assert {type(outcome) for outcome in outcomes} == {Accepted}


def lane(found: Summary, name: str = "create_notification") -> LaneSummary:
    """One lane of a summary."""
    return next(one for one in found.lanes if one.lane == name and one.app == APP_ID)


def requests(server: MockServer, name: str = "create_notification") -> int:
    """How many requests arrived in one lane."""
    return server.ledger.requests(name)  # type: ignore[arg-type]


def assert_clean(found: Summary) -> None:
    """Nothing that a client which keeps the rules ever causes."""
    assert found.doubled is not None
    assert found.doubled.effects == 0, found.doubled.sample
    assert (found.doubled_keys, found.reused_keys, found.unrouted, found.unparsable) == (0, 0, 0, 0)
    assert [
        (one.inside_hold, one.user_inside_hold) for one in found.lanes if one.inside_hold or one.user_inside_hold
    ] == []
    assert found.disabled_apps == ()
