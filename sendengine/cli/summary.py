"""What came of a run, in a few lines: the report for somebody who has no time to read it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import Final

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import asdict

from sendengine.campaign.exits import CUT_SHORT
from sendengine.campaign.report import Report, render
from sendengine.campaign.rundir import FAILURES, REPORT
from sendengine.cli.output import ceiling, counted, duration
from sendengine.core.outcomes import OUTCOME_NAMES, Abandoned
from sendengine.telemetry.counters import LaneEntry

_THROTTLED: Final = "429"
_MILLISECOND_S: Final = 0.001
_LOOKED_AT_BYTES: Final = 2**20  # of the failures
_REASON_CHARACTERS: Final = 300


class _Failure(Struct, frozen=True):
    outcome: str
    reason: str


def summary_lines(report: Report, *, folder: Path, why: str = "") -> Sequence[str]:
    """Describe a report for a person; ``why`` says why the run stopped before its end."""
    jobs = report.jobs
    begun = f"{jobs.settled:,} begun" if report.exit_code in CUT_SHORT else f"{jobs.settled:,}"
    lines = [f"{report.name}: {jobs.accepted:,} of {begun} accepted" + (f"; {why}" if why else "")]
    others = {name: count for name, count in asdict(jobs).items() if count and name != "accepted"}
    if others:
        lines.append("  " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in others.items()))
    if report.recipients.unsubscribed:
        lines.append(f"  {report.recipients.unsubscribed:,} named as unsubscribed")
    for name, lane in report.lanes.items():
        lines += _lane_lines(name, lane)
    lines.append(f"  report: {folder / REPORT}")
    if jobs.not_accepted > (0 if report.durability == "memory" else jobs.abandoned):  # what is abandoned is resumed
        lines += [f"  what was not accepted, and why: {folder / FAILURES}", *_commonest_reason(folder)]
    return lines


def as_json(report: Report, *, folder: Path, why: str = "") -> Mapping[str, object]:
    """Describe a report for a program: as it stands on disk, with where that is."""
    content: dict[str, object] = orjson.loads(render(report))
    return {**content, "directory": str(folder), "why": why}


def _commonest_reason(folder: Path) -> Sequence[str]:
    """Say what most of the first failures met: a wrong address or a faulty message shows in one line."""
    lines: list[bytes] = []
    with suppress(OSError), (folder / FAILURES).open("rb") as file:
        lines = file.read(_LOOKED_AT_BYTES).splitlines()
    met: Counter[str] = Counter()
    for line in lines:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):  # damaged, or cut off at the end
            failure = msgspec.json.decode(line, type=_Failure)
            if failure.outcome != OUTCOME_NAMES[Abandoned]:  # these say nothing, and are resumed
                met[failure.reason] += 1
    if not met:
        return ()
    ((reason, count),) = met.most_common(1)
    shown = shorten(reason, _REASON_CHARACTERS, placeholder=" …")
    return (f"    most often, {count:,} of the first {met.total():,}: {shown}",)


def _lane_lines(name: str, lane: LaneEntry) -> Sequence[str]:
    latency = lane["latency_ms"]
    throttled = f"{lane['replies'].get(_THROTTLED, 0):,} 429s in {counted(lane['epochs'], 'epoch')}"
    most = ceiling(lane["ceiling"])
    rate = f"{lane['mean_rate']:,.0f}/s of {most} on average, {lane['peak_1s']:,} in the busiest second"
    times = f"p50 {latency['p50']:,.0f} ms, p99 {latency['p99']:,.0f} ms"
    lines = [f"  {name}: {counted(lane['requests'], 'request')}, {rate}, {throttled}, {times}"]
    if lane["held_s"] > _MILLISECOND_S:
        lines.append(f"    held for {duration(lane['held_s'])}")
    bound_by = {cause: share for cause, share in lane["bound_by"].items() if share >= 0.005}  # noqa: PLR2004 - half a percent
    if bound_by:
        shares = sorted(bound_by.items(), key=lambda entry: -entry[1])
        lines.append("    bound by " + ", ".join(f"{cause} {share:.0%}" for cause, share in shares))
    return lines
