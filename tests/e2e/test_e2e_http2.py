"""The whole engine over HTTP/2, on real sockets: what a server does to its connections costs time and nothing else.

The mock server's ledger judges: every job is accepted, each took effect once, and no pause was broken. Its side of the
protocol is not the client's, but it is the project's; `test_h2_servers` has others.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from sendengine import Job
from sendengine.mockserver import Fault, MockConfig, MockServer
from sendengine.mockserver.config import FaultKind
from sendengine.settings import StoppingSettings, TransportSettings
from sendengine.transport.direct.http2.liveness import PONG_S, SILENT_S
from tests.support.engines import CREATE, SOON, change, note, now_s, until
from tests.support.mocked import INSTANT_MS, all_accepted, assert_clean, lane, mocked, requests

JOBS: Final = 1000
STREAMS: Final = 50
OVER_HTTP2: Final = TransportSettings(protocol="h2", timeout_s=60, max_connections=20)
PATIENT: Final = StoppingSettings(drain_timeout_s=20)


def config(**options: object) -> MockConfig:
    options = {"latency_ms": 150, "max_concurrent_streams": STREAMS, **options}
    return MockConfig(seed=7, hold_grace_ms=INSTANT_MS, **options)  # type: ignore[arg-type]


def notifications() -> list[Job]:
    """Make jobs that cannot share a request."""
    return [note(f"u{number}", text=f"text {number}") for number in range(JOBS)]


def assert_each_once(server: MockServer) -> None:
    found = server.summary()
    one = lane(found)
    assert_clean(found)
    assert (one.effects, found.recipients) == (JOBS, JOBS)
    assert one.http2 == one.requests


async def disturbed(folder: Path, disturb: Callable[[MockServer], None], *, times: int) -> MockServer:
    """Send all jobs, and disturb the server as often, each time when more is under way."""
    async with mocked(folder, config(), wire=OVER_HTTP2, retry=SOON, stopping=PATIENT) as (engine, server):
        sending = asyncio.create_task(all_accepted(engine, notifications()))
        for number in range(1, times + 1):
            await until(lambda: requests(server) >= number * JOBS // (times + 2), step_s=0.001)  # noqa: B023 - awaited here
            disturb(server)
        await sending
        assert_each_once(server)
    return server


async def test_nothing_is_lost_or_doubled_when_nothing_happens(tmp_path: Path) -> None:
    server = await disturbed(tmp_path, lambda _: None, times=1)
    assert server.open_connections == 0


@pytest.mark.parametrize("hard", [False, True], ids=["gracefully", "hard"])
async def test_nothing_is_lost_or_doubled_when_all_connections_are_left_at_once(tmp_path: Path, *, hard: bool) -> None:
    server = await disturbed(tmp_path, lambda server: server.go_away(hard=hard), times=5)
    assert server.summary().http2_connections >= 6


async def test_nothing_is_lost_or_doubled_when_the_limit_of_streams_falls_to_one_and_rises_again(
    tmp_path: Path,
) -> None:
    limits = iter([1, 250, 1, 30])
    await disturbed(tmp_path, lambda server: server.configure(max_concurrent_streams=next(limits)), times=4)


async def test_nothing_is_lost_or_doubled_when_the_server_stops_reading(tmp_path: Path) -> None:
    """What is on those connections is lost when their pings are not answered, and sent again under the same key."""
    async with mocked(tmp_path, config(), wire=OVER_HTTP2, retry=SOON, stopping=PATIENT) as (engine, server):
        sending = asyncio.create_task(all_accepted(engine, notifications()))
        await until(lambda: requests(server) >= JOBS // 4, step_s=0.001)
        server.stop_reading()
        began_s = now_s()
        await sending
        assert SILENT_S + PONG_S <= now_s() - began_s <= SILENT_S + PONG_S + 2
        server.read_on()
        assert_each_once(server)
        assert engine.counters()[CREATE].lost > 0, "some were under way"


@pytest.mark.parametrize(("scope", "share"), [("stream", 0.03), ("connection", 0.001)])
async def test_faults_of_every_kind_cost_time_and_nothing_else(tmp_path: Path, scope: str, share: float) -> None:
    """One that takes its connection with it takes fifty requests with it."""
    kinds: tuple[FaultKind, ...] = ("503", "refused_stream", "goaway", "reset_before", "reset_after", "close_before")
    faults = tuple(Fault(kind=kind, probability=share) for kind in kinds)
    chances = config(faults=faults, reset_scope=scope)
    async with mocked(tmp_path, chances, wire=OVER_HTTP2, retry=SOON, stopping=PATIENT) as (engine, server):
        updates: list[Job] = [change(f"user {number}", tag=str(number)) for number in range(100)]
        await all_accepted(engine, notifications() + updates)
        assert_each_once(server)
        assert set(server.ledger.faults) == set(kinds)
