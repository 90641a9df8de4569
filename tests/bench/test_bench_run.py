"""A whole benchmark, on an engine with a transport without sockets and a virtual clock."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sendengine.bench.mix import Mix
from sendengine.bench.run import BenchRun, Found, Load
from sendengine.settings import CeilingSettings
from tests.support.engines import make_engine
from tests.support.fake_transport import FakeTransport, accept, json_reply, refuse, throttle
from tests.support.virtual_loop import run_virtually

MIX = Mix(updates=0.5, high=0.2, recipients=1, pack=False, users=100_000)
SLOW: dict[str, float] = {"create_notification": 50, "update_user": 50}


def bench(
    folder: Path,
    transport: FakeTransport,
    *,
    rate: float | None,
    seconds: float = 4,
    ceilings: dict[str, float] | None = None,
    mix: Mix = MIX,
    is_lifted: bool = False,
    during: Callable[[BenchRun], None] = lambda _: None,
) -> Found:
    async def main() -> Found:
        async with make_engine(folder, transport, app={"ceilings": CeilingSettings(**(ceilings or {}))}) as engine:
            run = BenchRun(
                engine, Load(mix=mix, rate=rate, seconds=seconds), app="shop", connections=100, is_lifted=is_lifted
            )
            during(run)
            return await run.measure()

    return run_virtually(main())


def test_below_the_ceilings_everything_is_accepted_at_the_servers_latency(tmp_path: Path) -> None:
    transport = FakeTransport()
    found = bench(tmp_path, transport, rate=200)
    assert (found.why, found.is_held) == ("", False)
    assert found.seconds == pytest.approx(4, abs=0.01)
    create, update = found.lanes["create_notification"], found.lanes["update_user"]
    assert (create.offered, create.accepted, create.unsettled, create.outcomes) == (400, 400, 0, {"accepted": 400})
    assert (update.offered, update.accepted, update.unsettled) == (400, 400, 0)
    assert create.offered_per_s == pytest.approx(100, rel=0.01)
    assert create.ceiling == 6000
    assert create.latency["normal"].jobs == 320
    assert create.latency["high"].jobs == 80
    assert create.latency["high"].p50_ms == pytest.approx(100, rel=0.1)
    assert create.reply.p50_ms == pytest.approx(100, rel=0.02)
    assert (create.throttled, create.retries, create.lost, create.not_sent) == (0, 0, 0, 0)
    assert 100 <= create.most_in_one_second <= 125
    assert len(transport.arrivals) == 800
    assert set(found.curves) == {
        "create_notification",
        "create_notification, high",
        "update_user",
        "update_user, high",
    }


def test_the_timeline_has_every_second(tmp_path: Path) -> None:
    found = bench(tmp_path, FakeTransport(), rate=200)
    assert [second.at_s for second in found.timeline] == pytest.approx([1, 2, 3, 4], abs=0.02)
    for second in found.timeline:
        assert second.offered_per_s == pytest.approx(200, rel=0.05)
        assert second.requests_per_s["create_notification"] == pytest.approx(100, rel=0.1)
        assert second.throttled == 0
    assert found.timeline[2].accepted_per_s == pytest.approx(200, rel=0.05)


def test_beyond_the_ceilings_latency_grows_and_the_rate_is_what_bounds(tmp_path: Path) -> None:
    transport = FakeTransport()
    found = bench(tmp_path, transport, rate=200, ceilings={"create_notification": 50, "update_user": 50})
    create = found.lanes["create_notification"]
    assert create.offered == 400
    assert create.requests + found.lanes["update_user"].requests == len(transport.arrivals)
    assert create.requests_per_s == pytest.approx(50, rel=0.1)
    assert create.most_in_one_second <= 50
    assert max(create.bound_by, key=lambda cause: create.bound_by[cause]) == "rate"
    assert create.accepted == 400  # the rest within the ten seconds in which it is waited for
    assert create.latency["normal"].max_ms == pytest.approx(4_100, rel=0.2)  # 400 jobs at 50 a second, over four
    assert create.latency["high"].p99_ms < 1_000


def test_what_does_not_settle_in_time_counts_among_the_slowest(tmp_path: Path) -> None:
    found = bench(tmp_path, FakeTransport(), rate=200, ceilings={"create_notification": 5, "update_user": 50})
    create = found.lanes["create_notification"]
    assert create.offered == 400
    assert create.unsettled == pytest.approx(400 - 14 * 5, abs=10)
    assert create.latency["normal"].jobs + create.latency["high"].jobs == 400
    assert create.latency["normal"].p50_ms > 10_000
    assert create.outcomes.keys() == {"accepted"}


def test_as_fast_as_it_goes_reaches_the_ceilings(tmp_path: Path) -> None:
    found = bench(tmp_path, FakeTransport(), rate=None, ceilings=SLOW, seconds=5)
    assert found.lanes["create_notification"].requests_per_s == pytest.approx(50, rel=0.05)
    assert found.lanes["update_user"].requests_per_s == pytest.approx(50, rel=0.05)


def test_lifted_limits_have_no_ceiling(tmp_path: Path) -> None:
    found = bench(tmp_path, FakeTransport(), rate=100, is_lifted=True)
    assert found.lanes["create_notification"].ceiling is None


def test_refusals_and_429s_are_counted(tmp_path: Path) -> None:
    transport = FakeTransport(
        lambda arrival: (
            throttle() if arrival.number == 50 else refuse() if arrival.number % 10 == 0 else accept(arrival)
        )
    )
    found = bench(tmp_path, transport, rate=100, mix=Mix(updates=0, high=0, recipients=1, pack=False, users=9999))
    assert [*found.lanes] == ["create_notification"]
    create = found.lanes["create_notification"]
    assert create.throttled == 1
    assert create.outcomes["accepted"] + create.outcomes["rejected"] == 400
    assert create.outcomes["rejected"] == pytest.approx(39, abs=2)
    assert sum(second.throttled for second in found.timeline) == 1


def test_a_stop_leaves_what_was_measured(tmp_path: Path) -> None:
    def stop(run: BenchRun) -> None:
        asyncio.get_running_loop().call_later(2.5, run.stop)

    transport = FakeTransport()
    found = bench(tmp_path, transport, rate=100, seconds=60, during=stop)
    assert found.why == "stopped before its end, as asked"
    assert found.seconds == pytest.approx(2.5, abs=0.11)
    create = found.lanes["create_notification"]
    assert create.offered == pytest.approx(125, abs=6)
    assert create.accepted + create.unsettled == create.offered
    assert create.latency["normal"].p50_ms == pytest.approx(110, rel=0.1)
    assert transport.under_way == 0


def test_a_second_stop_gives_up_the_wire(tmp_path: Path) -> None:
    def abort(run: BenchRun) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2.5, run.stop)
        loop.call_later(2.8, run.abort)

    found = bench(tmp_path, FakeTransport(latency_s=30), rate=100, seconds=60, during=abort)
    assert found.seconds == pytest.approx(2.5, abs=0.11)
    create = found.lanes["create_notification"]
    assert (create.accepted, create.unsettled, create.latency) == (0, create.offered, {})


def test_an_app_that_is_held_ends_it(tmp_path: Path) -> None:
    transport = FakeTransport(
        lambda _: json_reply(401, {"errors": ["Access denied. Please include an 'Authorization'"]})
    )
    found = bench(tmp_path, transport, rate=100, seconds=60)
    assert found.is_held
    assert found.why
    assert found.seconds < 10


def test_nothing_that_settles_leaves_figures_all_the_same(tmp_path: Path) -> None:
    found = bench(tmp_path, FakeTransport(latency_s=1000), rate=20, seconds=2)
    create = found.lanes["create_notification"]
    assert (create.accepted, create.unsettled) == (0, 20)
    assert create.latency["normal"].p50_ms > 10_000
