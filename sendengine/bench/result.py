"""What a benchmark found, as it is kept in ``bench.json``, and that file's way in and out.

Units: ``_s`` is seconds, ``_ms`` milliseconds, ``_us`` microseconds; ``_per_s`` is a second's worth, as a mean over
the time in which jobs were offered. ``jobs`` are what was offered, ``requests`` what went over the wire.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from sendengine.bench.machine import Machine
from sendengine.errors import InputError, StorageError
from sendengine.telemetry.histogram import Histogram

SCHEMA: Final = 1
FILE: Final = "bench.json"
_PROGRAM: Final = "sendengine bench"
_FINE: Final = frozenset({"accepted", "unreachable"})


class Latency(Struct, frozen=True, kw_only=True):
    """Times by percentile. ``jobs`` says how many were counted."""

    jobs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float


class Server(Struct, frozen=True, kw_only=True):
    """What the mock server's own ledger says of a lane: the witness whose counters are not the engine's."""

    requests: int
    refused: int
    most_in_one_second: int
    inside_hold: int


class Lane(Struct, frozen=True, kw_only=True):
    """One lane.

    ``latency`` is of jobs, by their urgency, from the intended start to the end, ``reply`` of requests, from write to
    whole reply. ``unsettled`` jobs had come to no end when the benchmark ended. ``ceiling`` is None where limits were
    lifted. ``most_in_one_second`` is the limiter's audit, over any second and not the clock's. ``lost`` replies never
    came, and ``not_sent`` attempts found no connection.
    """

    offered: int
    offered_per_s: float
    accepted: int
    accepted_per_s: float
    unsettled: int
    outcomes: dict[str, int]
    requests: int
    requests_per_s: float
    ceiling: float | None
    most_in_one_second: int
    throttled: int
    retries: int
    lost: int
    not_sent: int
    bound_by: dict[str, float]
    latency: dict[str, Latency]
    reply: Latency
    server: Server | None = None

    @property
    def is_fine(self) -> bool:
        """Whether all that was offered was accepted, or reached nobody, and anything was."""
        return bool(self.outcomes) and self.outcomes.keys() <= _FINE and not self.unsettled


class Cpu(Struct, frozen=True, kw_only=True):
    """What the client cost while jobs were offered, all its threads and the kernel's part included.

    Making the jobs and counting what became of them is in it. ``us_per_request`` is None where nothing was sent,
    ``us_per_job`` where nothing was accepted.
    """

    user_s: float
    system_s: float
    cores: float
    us_per_request: float | None
    us_per_job: float | None


class Second(Struct, frozen=True, kw_only=True):
    """A stretch of about a second that ends ``at_s``: jobs and requests a second, and how many 429s came."""

    at_s: float
    offered_per_s: float
    accepted_per_s: float
    requests_per_s: dict[str, float]
    throttled: int


class Options(Struct, frozen=True, kw_only=True):
    """What was asked for. ``rate`` None is as fast as it goes; ``latency_ms`` None where the server is not ours."""

    rate: float | None
    seconds: float
    updates: float
    high: float
    recipients: int
    pack: bool
    users: int
    plan: str
    lifted: bool
    transport: str
    protocol: str
    connections: int
    latency_ms: float | None
    latency_p99_ms: float | None


class Result(Struct, frozen=True, kw_only=True):
    """All of it. ``seconds`` is how long jobs were offered, less than asked for where it is ``partial``.

    ``curves`` are latencies by percentile, as pairs of per cent and milliseconds. ``submitted_late_ms`` is the 99th
    percentile of how long after its intended start a job was submitted: what of the latency is from before the engine.
    """

    program: Literal["sendengine bench"] = "sendengine bench"
    schema: Literal[1] = 1
    command: str
    started_at: str
    target: str
    partial: bool
    why: str
    seconds: float
    options: Options
    machine: Machine
    lanes: dict[str, Lane]
    cpu: Cpu
    longest_pause_ms: float
    submitted_late_ms: float
    timeline: list[Second]
    curves: dict[str, list[tuple[float, float]]]


def latency_of(histogram: Histogram) -> Latency:
    """Render what a histogram has counted."""
    p50, p90, p99, p99_9 = (round(histogram.percentile_ms(percent), 3) for percent in (50, 90, 99, 99.9))
    return Latency(
        jobs=histogram.count, p50_ms=p50, p90_ms=p90, p99_ms=p99, p99_9_ms=p99_9, max_ms=round(histogram.max_ms, 3)
    )


def read_result(path: Path) -> Result:
    """Read a result from its file, or from the folder that holds it. Raises InputError, which says what is wrong."""
    file = path
    try:
        file = path / FILE if path.is_dir() else path
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read: {error.strerror}; give the {FILE} of an earlier benchmark, or its folder"
        ) from None
    try:
        made_by = msgspec.json.decode(content, type=_Head)
    except (msgspec.DecodeError, RecursionError):  # the latter where it is nested without end
        raise InputError(f"{file}: is no result of `{_PROGRAM}`; give the {FILE} of an earlier benchmark") from None
    if made_by.program == _PROGRAM and made_by.schema != SCHEMA:
        raise InputError(f"{file}: has format {made_by.schema}, and this sendengine reads {SCHEMA}; measure it anew")
    try:
        return msgspec.json.decode(content, type=Result)
    except msgspec.DecodeError as error:
        raise InputError(f"{file}: is no result of `{_PROGRAM}`, or a damaged one: {error}") from None


def write_files(folder: Path, files: Sequence[tuple[str, str]]) -> None:
    """Write texts into a folder by their names. Raises StorageError."""
    try:
        for name, text in files:
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}; choose another --results-dir") from None


def rendered(result: Result) -> str:
    """Render a result as the text of its file."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1).decode() + "\n"


class _Head(Struct, frozen=True):
    program: str = ""
    schema: int = 0
