"""How a run is getting on, in a file beside its journal: what other processes see of it.

The file is renamed into its place about once a second, so that whoever reads it reads it whole.

Units: ``_s`` seconds, ``_at_s`` seconds since the epoch, ``_ms`` milliseconds; rates and ceilings are requests/s.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct, field

from sendengine.campaign.report import JobCounts
from sendengine.campaign.rundir import STATUS, RunDir
from sendengine.errors import InputError, StorageError
from sendengine.telemetry.snapshots import EngineStats

State = Literal["sending", "paused", "stopping", "finished", "stopped"]


class LaneStatus(Struct, frozen=True):
    """One lane; counts are since this process began."""

    ceiling: float
    requests: int
    in_flight: int
    waiting: int
    throttled: int
    retries: int
    p50_ms: float
    p99_ms: float
    hold: str | None
    hold_until_s: float | None


class Status(Struct, frozen=True, kw_only=True):
    """A run at one instant. ``done`` of ``total`` recipients, or jobs, have come to an outcome.

    ``problem`` says why nothing new is begun at the moment. ``order`` is the last one that the run has obeyed
    (`sendengine.campaign.control`). ``exit_code`` and ``why`` are there when it has ended.
    """

    run: str
    name: str
    noun: str
    state: State
    pid: int
    started_at_s: float
    updated_at_s: float
    done: int
    total: int
    counts: JobCounts
    lanes: Mapping[str, LaneStatus] = field(default_factory=dict)
    problem: str | None = None
    order: int = 0
    rate: float | None = None
    exit_code: int | None = None
    why: str = ""


def lanes_of(stats: EngineStats) -> Mapping[str, LaneStatus]:
    """See the lanes of an engine that have sent anything, or wait to."""
    return {
        name: LaneStatus(
            ceiling=lane.ceiling,
            requests=lane.requests,
            in_flight=lane.in_flight,
            waiting=lane.depth,
            throttled=lane.throttled,
            retries=lane.retries,
            p50_ms=lane.latency_p50_ms,
            p99_ms=lane.latency_p99_ms,
            hold=lane.hold,
            hold_until_s=lane.hold_until_s,
        )
        for name, lane in stats.lanes.items()
        if lane.requests or lane.depth or lane.in_flight
    }


def write_status(run_dir: RunDir, status: Status) -> None:
    """Put it into its place; raises StorageError."""
    run_dir.write(STATUS, msgspec.json.encode(status), is_durable=False)


def read_status(run_dir: RunDir) -> Status:
    """Read it; raises InputError where there is none, StorageError where it is damaged."""
    if not run_dir.has(STATUS):
        raise InputError(f"{run_dir.path}: has no {STATUS}; the run has not begun to send")
    try:
        return msgspec.json.decode(run_dir.read(STATUS), type=Status)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"{run_dir.path / STATUS}: is damaged: {error}") from None
