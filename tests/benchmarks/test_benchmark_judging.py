"""What benchmarks make of what was measured, with made-up measurements."""

from collections.abc import Callable
from time import perf_counter
from typing import Self

import pytest

from benchmarks import atceilings, backlog, ceilings, throughput
from benchmarks.mocked import Requests
from benchmarks.throughput import BARE
from benchmarks.workload import H2
from sendengine.telemetry.histogram import Histogram
from tests.benchmarks.local_servers import LocalMock


def test_a_share_counts_the_time_in_which_nothing_was_sent_but_for_the_first_connections() -> None:
    def share(first_s: int, last_s: int) -> float:
        arrivals_s = [first_s + number / 100 for number in range(100 * (last_s - first_s) + 1)]
        return ceilings.share_reached(Requests(arrivals_s, [200] * len(arrivals_s), []), 100, seconds=60)

    assert share(5, 65) == pytest.approx(1)  # the server's clock had begun before
    assert share(0, 59) == pytest.approx(1)
    assert share(0, 10) == pytest.approx(10 / 59)  # and then nothing any more
    assert share(40, 60) == pytest.approx(20 / 59)


def test_what_was_added_is_told_of_an_engine_alone() -> None:
    bare, engine = atceilings.Watch(), atceilings.Watch()
    for watch in (bare, engine):
        watch.meant(1, perf_counter())
    engine.stamps.written(1)
    engine.stamps.replied_s[1] = perf_counter()
    for watch in (bare, engine):
        watch.over(1)
    percentiles = ("p50 ms", "p99 ms", "p99.9 ms", "max ms")
    assert [*bare.timed().figures] == [*(f"total {name}" for name in percentiles), "came late p50 ms"]
    assert bare.timed().added is None
    assert {f"added {name}" for name in percentiles} < engine.timed().figures.keys()


async def test_at_the_ceilings_nobody_is_drawn_where_nobody_had_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(function: Callable[..., object], _: atceilings.Task) -> atceilings.Sent | atceilings.Timed:
        if function is atceilings.drive:
            return atceilings.Sent(1, 1.0, 1.0, 0.0, {}, None, 0.0)
        return atceilings.Timed({"total p50 ms": 1.0}, Histogram(), None)

    monkeypatch.setattr(ceilings, "in_fresh_process", nothing)
    monkeypatch.setattr(ceilings, "MeasuredMock", LocalMock)
    drawn = (await ceilings.Ceilings(only="aiohttp").run()).plots
    assert [*drawn] == [f"{case}-{what}" for case in ("0", "100", "300", "lognormal") for what in ("rate", "latency")]
    assert [*(await ceilings.Ceilings(case="2000").run()).plots] == ["2000-rate"]


@pytest.mark.parametrize(
    ("server", "only", "answering"),
    [
        ("sink", "direct", "nginx, h2"),
        ("nginx", "direct", "nginx, h2"),
        ("mock", "direct", "mock"),
        ("sink", "ai", "sink"),
    ],
)
async def test_whom_http2_is_compared_with_asks_the_same_server(
    server: throughput.ServerKind, only: str, answering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str] = {}

    class Named:
        def __init__(self, name: str) -> None:
            self.base_url = name

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    async def turn(_: throughput.Throughput, kind: str, __: object, server: Named) -> throughput.Figures:
        asked[kind] = server.base_url
        return {"jobs/CPU-s": 1.0}

    monkeypatch.setattr(throughput.Throughput, "_turn", turn)
    monkeypatch.setattr(throughput, "nginx_program", lambda: "nginx")
    for name in ("Sink", "CountingMock"):
        monkeypatch.setattr(throughput, name, lambda name=name, **_: Named(name.removeprefix("Counting").lower()))
    monkeypatch.setattr(throughput, "Nginx", lambda *, is_h2=False, **_: Named("nginx, h2" if is_h2 else "nginx"))
    await throughput.Throughput(wire="tls", server=server, only=only, rounds=1).run()
    assert BARE in asked
    assert (H2 in asked) == (only == "direct")
    assert set(asked.values()) == {answering}


async def test_of_all_backlogs_the_dearest_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    cost_us = {10: 2.0, 100: 3.0, 1000: 2.2}

    async def measured(function: Callable[..., object], task: backlog.Task) -> object:
        if function is backlog.measure_own:
            return 100.0
        return {"µs to submit": cost_us[task.jobs], "µs to send": 0.0, "bytes": 500.0}

    monkeypatch.setattr(backlog, "in_fresh_process", measured)
    time, memory = (await backlog.Backlog(case="packed", small=10, large=1000).run()).checks
    assert (time.what, time.value) == ("packed, 100 waiting, the dearest: time × smallest", 1.5)
    assert (memory.what, memory.value) == ("packed, 1,000 waiting: bytes beside", 400)
