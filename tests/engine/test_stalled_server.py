"""A server that takes in nothing for a while finds no more waiting for it than its limit allows."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from sendengine.core.outcomes import Accepted
from sendengine.core.wire import Reply, WireRequest
from sendengine.ports import Permit
from sendengine.settings import CeilingSettings
from tests.support.engines import change, make_engine, note, now_s, outcomes_of
from tests.support.fake_transport import FakeTransport
from tests.support.virtual_loop import run_virtually

CEILING = 2000
STALLED_S = 0.1


@dataclass
class StallingTransport(FakeTransport):
    """One whose server stalls once, at ``stalls_at_s``; what comes meanwhile it takes in at the end."""

    stalls_at_s: float = 0.0
    sent_meanwhile: int = 0

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        async def permit_and_way() -> None:
            await permit()
            self.sent_meanwhile += await self._sat_out()

        reply = await super().exchange(request, permit_and_way)
        await self._sat_out()
        return reply

    async def _sat_out(self) -> bool:
        """Wait for the end of the stall, if it is on; return whether it was."""
        left_s = self.stalls_at_s + STALLED_S - now_s()
        is_on = 0 < left_s <= STALLED_S
        if is_on:
            await asyncio.sleep(left_s)
        return is_on


def test_nothing_more_is_sent_into_a_stall_and_no_second_at_the_server_is_too_full(tmp_path: Path) -> None:
    transport = StallingTransport()

    async def main() -> None:
        ceilings = CeilingSettings(create_notification=CEILING, update_user=CEILING)
        async with make_engine(tmp_path, transport, app={"ceilings": ceilings}) as engine:
            transport.stalls_at_s = now_s() + 1.5
            jobs = [note("a", text=str(number)) for number in range(2 * CEILING)]
            changes = [change(f"u{number}", a=1) for number in range(2 * CEILING)]
            outcomes = await outcomes_of(engine, [job for both in zip(jobs, changes, strict=True) for job in both])
            assert {type(outcome) for outcome in outcomes} == {Accepted}

    run_virtually(main())
    assert 0 < transport.sent_meanwhile <= 2 * CEILING * 0.01
    for method in ("POST", "PATCH"):
        arrivals_s = [arrival.at_s for arrival in transport.arrivals if arrival.method == method]
        assert all(later - first >= 1 for first, later in zip(arrivals_s, arrivals_s[CEILING:], strict=False))
