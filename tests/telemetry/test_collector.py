"""The collector's set-up, undone after the test: it is the whole process's."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from sendengine.telemetry.collector import next_sweep_s, tune_collector


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Knot:
    """Something that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_tuning_collects_rarely_and_leaves_what_start_up_made_alone() -> None:
    before = gc.get_freeze_count()
    tune_collector()
    assert gc.get_threshold() == (10_000, 10_000, 1000)
    assert gc.get_freeze_count() > before
    assert gc.isenabled()


async def test_on_a_loop_what_is_young_is_collected_by_the_clock_again_and_again() -> None:
    gc.disable()  # or it might have come to it by counting
    try:
        tune_collector()
        for _ in range(2):
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            weakref.finalize(Knot(), gone.set_result, None)
            await gone
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("interval_s", "took_s", "then_s"),
    [
        (0.04, 0.001, 0.05),
        (0.04, 0.0014, 0.05),
        (0.6, 0.001, 0.64),
        (0.08, 0.0016, 0.04),
        (0.02, 0.005, 0.02),
    ],
)
def test_collections_come_so_often_that_none_takes_long(interval_s: float, took_s: float, then_s: float) -> None:
    assert next_sweep_s(interval_s, took_s) == then_s
