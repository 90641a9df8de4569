"""What lanes learned about their true limits, taken over from earlier engines and left for later ones."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import to_builtins

from sendengine.core.backoff import Learned
from sendengine.engine.lane import Lane
from sendengine.errors import StorageError
from sendengine.journal import learned

_log = logging.getLogger("sendengine")
_FILE: Final = "learned.json"


def recall(state_dir: Path) -> learned.LaneNumbers:
    """What is known; nothing, with a warning, where the file cannot be read. Blocks."""
    try:
        return learned.load(state_dir / _FILE)
    except StorageError as error:
        _log.warning("rates learned earlier are not known: %s", error)
        return {}


def memorise(state_dir: Path, lanes: Iterable[Lane]) -> None:
    """Keep what the lanes that sent anything learned; a warning where that fails. Blocks."""
    numbers = {
        learned.lane_key(app_id=lane.app.settings.app_id, group=lane.group.value): _numbers(lane)
        for lane in lanes
        if lane.counters.requests
    }
    try:
        if numbers:
            learned.save(state_dir / _FILE, numbers)
    except StorageError as error:
        _log.warning("what was learned about rates is not kept: %s", error)


def _numbers(lane: Lane) -> learned.Numbers:
    """What is worth keeping: nothing where the lane runs as it does without any memory."""
    known = lane.pace.controller.learned
    numbers: learned.Numbers = {} if known == Learned() else to_builtins(known)
    return numbers
