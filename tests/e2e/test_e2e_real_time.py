"""The same on clocks that nobody holds still: only what holds however slow the machine is, is looked at."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from sendengine import Accepted, Job
from sendengine.mockserver import AppConfig, Fault, LaneLimit, MockConfig
from sendengine.settings import CeilingSettings, TransportSettings
from tests.support.engines import CREATE, SOON, UPDATE, change, note
from tests.support.mocked import assert_clean, mocked

LATE_MS = 20_000  # how long a reply may lie unread on a machine that has other work
OVER_HTTP2 = TransportSettings(protocol="h2")


@pytest.mark.parametrize(
    ("loop_factory", "wire"),
    [
        pytest.param(asyncio.SelectorEventLoop, None, id="asyncio", marks=pytest.mark.slow),
        pytest.param(uvloop.new_event_loop, None, id="uvloop"),  # whose timers count whole milliseconds
        pytest.param(uvloop.new_event_loop, OVER_HTTP2, id="uvloop-h2"),
    ],
)
def test_nothing_is_lost_or_doubled(
    tmp_path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop], wire: TransportSettings | None
) -> None:
    async def main() -> None:
        limits = AppConfig(create_notification=LaneLimit(rate=400), update_user=LaneLimit(rate=200))
        fault = Fault(kind="reset_after", skip=50, count=5)
        jobs: list[Job] = [note(f"u{number}", text=str(number)) for number in range(300)]
        jobs += [change(f"u{number % 75}", **{f"t{number}": number}) for number in range(150)]
        app = {"ceilings": CeilingSettings(create_notification=400, update_user=200)}
        config = MockConfig(default=limits, latency_ms=20, faults=(fault,), hold_grace_ms=LATE_MS)
        async with mocked(tmp_path, config, app=app, retry=SOON, wire=wire) as (engine, server):
            async for _, outcome in engine.map(jobs):
                assert isinstance(outcome, Accepted)
            assert_clean(server.summary())
            assert server.ledger.messages.deliveries() == {f"external_id:u{number}": 1 for number in range(300)}
            for name, limit in ((CREATE, 400), (UPDATE, 200)):
                assert engine.stats().lanes[name].most_in_one_second <= limit

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
