"""A job for a million has as many workers as its requests, and not as many as it is jobs."""

from pathlib import Path

import pytest

from sendengine import Accepted
from sendengine.settings import CeilingSettings
from tests.support.engines import make_engine, note, settled
from tests.support.fake_transport import FakeTransport
from tests.support.virtual_loop import run_virtually

PER_REQUEST = 2000
REQUESTS = 60


@pytest.mark.parametrize("jobs", [1, 4, REQUESTS])
def test_a_large_job_is_sent_as_fast_as_many_small_ones(tmp_path: Path, jobs: int) -> None:
    transport = FakeTransport(latency_s=30.0, connect_s=0.2)

    async def main() -> None:
        engine = make_engine(tmp_path, transport, app={"ceilings": CeilingSettings(create_notification=1000)})
        each = REQUESTS * PER_REQUEST // jobs
        async with engine:
            receipts = [
                await engine.submit(note(*[f"{job}-{number}" for number in range(each)], text=f"m{job}"))
                for job in range(jobs)
            ]
            assert {type(await settled(receipt)) for receipt in receipts} == {Accepted}

    run_virtually(main())
    assert transport.most_under_way == len(transport.arrivals) == REQUESTS
    # 0.2 s for each connection, and each request that goes lets two others begin: 1, 3, 9, 27, 60
    assert transport.arrivals[-1].at_s - transport.arrivals[0].at_s < 1.5


def test_a_small_job_opens_one_connection(tmp_path: Path) -> None:
    transport = FakeTransport(latency_s=1.0, connect_s=0.2)

    async def main() -> None:
        engine = make_engine(tmp_path, transport, app={"ceilings": CeilingSettings(create_notification=1000)})
        async with engine:
            receipt = await engine.submit(note(*[f"u-{number}" for number in range(PER_REQUEST)]))
            assert isinstance(await settled(receipt), Accepted)
            assert transport.open_connections == 1

    run_virtually(main())
