"""What the lanes learned about their true limits, kept across restarts in ``learned.json``.

The file maps a lane's name to its numbers: ``{"8250eaf6-…/create_notification": {"rate": 3960.0, "trim": null}}``.
What they mean is `sendengine.core.backoff`'s. Losing the file costs a few seconds of learning, so a damaged one is
ignored with a warning, and the next save replaces it. Both functions block.
"""

from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import TypeAlias

import msgspec

from sendengine.journal import whole_file

Numbers: TypeAlias = Mapping[str, float | None]
LaneNumbers: TypeAlias = Mapping[str, Numbers]
_log = getLogger(__name__)


def lane_key(*, app_id: str, group: str) -> str:
    """Name a lane in the file: what was learned belongs to OneSignal's app, whatever the settings call it."""
    return f"{app_id}/{group}"


def load(path: Path) -> dict[str, dict[str, float | None]]:
    """Return what was learned, by lane; nothing where there is no file or it is damaged. Raises StorageError."""
    data = whole_file.read(path)
    if data is None:
        return {}
    try:
        return msgspec.json.decode(data, type=dict[str, dict[str, float | None]])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.warning("%s is damaged (%s) and ignored; the lanes learn their rates anew", path, error)
        return {}


def save(path: Path, lanes: Mapping[str, Numbers]) -> None:
    """Put ``lanes`` into the file and keep what it holds of others; where two save one lane, the later stays.

    A lane without numbers is taken out. Raises StorageError.
    """
    with whole_file.locked(path):
        merged: dict[str, Numbers] = {**load(path), **lanes}
        kept = {lane: numbers for lane, numbers in merged.items() if numbers}
        whole_file.replace_whole(path, msgspec.json.encode(kept, order="sorted"))
