"""A lane at its ceiling whose server refuses some soon and answers the others after seconds: the whole engine."""

from pathlib import Path

import pytest

from sendengine.core.replies import Reply
from sendengine.settings import CeilingSettings
from tests.support.engines import CREATE, make_engine, note, until
from tests.support.events import listening
from tests.support.fake_transport import Arrival, FakeTransport, accept, throttle
from tests.support.virtual_loop import run_virtually

FAST = {"ceilings": CeilingSettings(create_notification=100)}


@pytest.mark.parametrize(
    ("refused", "causes", "least", "most"),
    [
        (range(150, 154), ["misaligned"], 97, 100),  # 40 ms of sends: the server was away for a moment
        (range(150, 175), ["misaligned", "contended"], 50, 90),  # they go on: the limit is lower
    ],
)
def test_the_cause_is_read_off_what_was_sent_and_off_what_else_is_refused(
    tmp_path: Path, refused: range, causes: list[str], least: float, most: float
) -> None:
    def behave(arrival: Arrival) -> Reply:
        is_refused = arrival.number in refused
        transport.latency_s = 0.3 if is_refused else 2.0
        return throttle() if is_refused else accept(arrival)

    transport = FakeTransport(behave)

    async def main() -> float:
        async with make_engine(tmp_path, transport, app=FAST) as engine:
            for number in range(800):
                await engine.submit(note("a", text=str(number)))
            await until(lambda: len(transport.arrivals) >= 400)
            rate = engine.stats().lanes[CREATE].rate
            await engine.abort()
            return rate

    with listening() as events:
        rate = run_virtually(main())
    changes = [fields for fields in events.fields("rate_change") if fields["cause"] in {"misaligned", "contended"}]
    assert [fields["cause"] for fields in changes] == causes
    assert len([fields for fields in changes if fields["hold_s"]]) == 1
    assert least <= rate <= most
