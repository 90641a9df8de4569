"""The whole engine over HTTP/2, on real sockets: what a server does to its connections costs time and nothing else.

The mock server's ledger judges: every job is accepted, each took effect once, and no pause was broken. Its side of the
protocol is not the client's, but it is the project's; `test_h2_servers` has others.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from sendengine import Accepted, Job, SendEngine
from sendengine.mockserver import Fault, MockConfig, MockServer
from sendengine.mockserver.config import FaultKind
from sendengine.settings import StoppingSettings, TransportSettings
from sendengine.transport.direct.http2.liveness import PONG_S, SILENT_S
from tests.support.engines import CREATE, SOON, change, note
from tests.support.mocked import assert_clean, lane, mocked, requests
from tests.transport.conftest import on_asyncio
from tests.transport.scripted import jump, turns, until

pytestmark = on_asyncio

JOBS: Final = 500
STREAMS: Final = 50
OVER_HTTP2: Final = TransportSettings(protocol="h2", timeout_s=60, max_connections=20)
PATIENT: Final = StoppingSettings(drain_timeout_s=20)
BOUND_S: Final = 40.0  # of real time, and of what is put forward; no test takes a tenth of it


def config(**options: object) -> MockConfig:
    return MockConfig(latency_ms=150, seed=7, max_concurrent_streams=STREAMS, **options)  # type: ignore[arg-type]


def notifications() -> list[Job]:
    """Make jobs that cannot share a request."""
    return [note(f"u{number}", text=f"text {number}") for number in range(JOBS)]


async def all_accepted(engine: SendEngine, jobs: list[Job]) -> None:
    outcomes = [outcome async for _, outcome in engine.map(jobs)]
    assert len(outcomes) == len(jobs)
    assert {type(outcome) for outcome in outcomes} == {Accepted}


def assert_each_once(server: MockServer) -> None:
    found = server.summary()
    one = lane(found)
    assert_clean(found)
    assert (one.effects, found.recipients) == (JOBS, JOBS)
    assert one.http2 == one.requests


async def disturbed(folder: Path, disturb: Callable[[MockServer], None], *, times: int) -> MockServer:
    """Send all jobs, and disturb the server as often, each time when more is under way."""
    async with mocked(folder, config(), wire=OVER_HTTP2, retry=SOON, stopping=PATIENT) as (engine, server):
        async with asyncio.timeout(BOUND_S):
            sending = asyncio.create_task(all_accepted(engine, notifications()))
            for number in range(1, times + 1):
                await until(lambda: requests(server) >= number * JOBS // (times + 2))  # noqa: B023 - awaited here
                disturb(server)
            await sending
        assert_each_once(server)
    return server


async def test_nothing_is_lost_or_doubled_when_nothing_happens(tmp_path: Path) -> None:
    server = await disturbed(tmp_path, lambda _: None, times=1)
    assert server.open_connections == 0


@pytest.mark.parametrize("hard", [False, True], ids=["gracefully", "hard"])
async def test_nothing_is_lost_or_doubled_when_all_connections_are_left_at_once(tmp_path: Path, *, hard: bool) -> None:
    server = await disturbed(tmp_path, lambda server: server.go_away(hard=hard), times=3)
    assert server.summary().http2_connections >= 4


async def test_nothing_is_lost_or_doubled_when_the_limit_of_streams_falls_to_one_and_rises_again(
    tmp_path: Path,
) -> None:
    limits = iter([1, 250, 1, 30])
    await disturbed(tmp_path, lambda server: server.configure(max_concurrent_streams=next(limits)), times=4)


async def test_nothing_is_lost_or_doubled_when_the_server_stops_reading(tmp_path: Path) -> None:
    """What is on those connections is lost when their pings are not answered, and sent again under the same key."""
    async with mocked(tmp_path, config(), wire=OVER_HTTP2, retry=SOON, stopping=PATIENT) as (engine, server):
        sending = asyncio.create_task(all_accepted(engine, notifications()))
        await until(lambda: requests(server) >= JOBS // 4)
        server.stop_reading()
        for step_s in (SILENT_S + 0.1, PONG_S + 0.1):
            for _ in range(20):
                await turns()
            jump(step_s)
        async with asyncio.timeout(1_000):  # of which most is put forward
            while not sending.done():
                for _ in range(5):
                    await turns()
                jump(0.05)
            await sending
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
        async with asyncio.timeout(1_000):  # of which most is put forward
            sending = asyncio.create_task(all_accepted(engine, notifications() + updates))
            while not sending.done():
                for _ in range(5):
                    await turns()
                if requests(server) >= JOBS:
                    jump(0.02)  # nobody waits for what is sent again later
            await sending
        assert_each_once(server)
