"""The same engine on uvloop, whose timers count whole milliseconds."""

import asyncio
from pathlib import Path

import uvloop

from sendengine import Accepted, Job
from sendengine.mockserver import AppConfig, Fault, LaneLimit, MockConfig
from sendengine.settings import CeilingSettings
from tests.support.engines import SOON, change, note
from tests.support.mocked import assert_clean, lane, mocked


def test_on_uvloop_too_nothing_is_refused_lost_or_doubled(tmp_path: Path) -> None:
    async def main() -> None:
        limits = AppConfig(create_notification=LaneLimit(rate=200), update_user=LaneLimit(rate=100))
        fault = Fault(kind="reset_after", skip=50, count=5)
        jobs: list[Job] = [note(f"u{number}", text=str(number)) for number in range(300)]
        jobs += [change(f"u{number % 75}", **{f"t{number}": number}) for number in range(150)]
        app = {"ceilings": CeilingSettings(create_notification=200, update_user=100)}
        config = MockConfig(default=limits, latency_ms=20, faults=(fault,))
        async with mocked(tmp_path, config, app=app, retry=SOON) as (engine, server):
            async for _, outcome in engine.map(jobs):
                assert isinstance(outcome, Accepted)
            found = server.summary()
            assert_clean(found)
            assert server.ledger.messages.deliveries() == {f"external_id:u{number}": 1 for number in range(300)}
            for name, limit in (("create_notification", 200), ("update_user", 100)):
                assert lane(found, name).refused == 0
                assert lane(found, name).peak_1s <= limit

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
