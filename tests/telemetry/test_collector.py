"""The collector's set-up, undone after the test: it is the whole process's."""

import gc
from collections.abc import Iterator

import pytest

from sendengine.telemetry.collector import tune_collector


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_tuning_collects_rarely_and_leaves_what_start_up_made_alone() -> None:
    before = gc.get_freeze_count()
    tune_collector()
    assert gc.get_threshold() == (10_000, 50, 1000)
    assert gc.get_freeze_count() > before
    assert gc.isenabled()
