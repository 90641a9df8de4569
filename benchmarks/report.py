"""What a benchmark found: figures with their spread, checks against targets, as a table and as JSON.

Units: as the names of figures say.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sendengine.bench.machine import Machine
from sendengine.errors import StorageError

SCHEMA: Final = 1
RESULTS: Final = Path(__file__).parent / "results"
_GAP: Final = "  "


class Spread(Struct, frozen=True):
    """A figure over its rounds: median, lowest and highest."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        text = number(self.median)
        return text if self.rounds == 1 else f"{text} ({number(self.low)}–{number(self.high)})"


class Row(Struct, frozen=True):
    """One contestant or case, with its figures by name."""

    case: str
    figures: dict[str, Spread]


class Check(Struct, frozen=True):
    """One figure against its target: at least or at most ``bound``."""

    what: str
    value: float
    side: Literal["at least", "at most"]
    bound: float
    is_met: bool

    def __str__(self) -> str:
        verdict = "met    " if self.is_met else "not met"
        return f"{verdict} {self.what}: {number(self.value)}, {self.side} {number(self.bound)}"


class Report(Struct, frozen=True, kw_only=True):
    """All of it. ``notes`` are lines for a person; ``plots`` are SVG drawings by name, saved as files of their own."""

    rows: list[Row]
    checks: list[Check]
    notes: list[str] = []
    plots: dict[str, str] = {}


class Result(Struct, frozen=True, kw_only=True):
    """The file that a run leaves: a report, how it was made, and on what; ``plots`` in it name files beside it."""

    schema: int
    name: str
    command: str
    started_at: str
    took_s: float
    machine: Machine
    options: dict[str, object]
    report: Report


def spread(values: Sequence[float]) -> Spread:
    """Sum up one figure's rounds; at least one."""
    return Spread(median(values), min(values), max(values), len(values))


def row(case: str, rounds: Sequence[Mapping[str, float]]) -> Row:
    """Sum up a contestant's rounds, each with the same figures."""
    return Row(case, {name: spread([figures[name] for figures in rounds]) for name in rounds[0]})


def ratios(case: str, *, name: str, ours: Sequence[float], others: Sequence[float]) -> Row:
    """Compare two contestants round by round, since each round's turns stood side by side."""
    return row(case, [{name: mine / other} for mine, other in zip(ours, others, strict=True)])


def at_least(what: str, value: float, bound: float) -> Check:
    """Check that a figure is large enough."""
    return Check(what, value, "at least", bound, value >= bound)


def at_most(what: str, value: float, bound: float) -> Check:
    """Check that a figure is small enough."""
    return Check(what, value, "at most", bound, value <= bound)


def number(value: float) -> str:
    """Write a number with three or four digits that say something."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}"


def lines(report: Report) -> list[str]:
    """Write a report for a person: a table for each set of figures, then notes and checks."""
    text: list[str] = []
    group: list[Row] = []
    for each in report.rows:
        if group and group[0].figures.keys() != each.figures.keys():
            text += [*_table(group), ""]
            group = []
        group.append(each)
    return [*text, *_table(group), "", *report.notes, *map(str, report.checks)]


def save(result: Result, *, folder: Path = RESULTS) -> Path:
    """Write a result as JSON and its plots as SVG, named after its benchmark and start, and return where.

    Raises StorageError where the folder cannot be written.
    """
    stamp = datetime.fromisoformat(result.started_at).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{result.name}-{stamp}.json"
    files = {name: f"{result.name}-{stamp}-{name}.svg" for name in result.report.plots}
    kept = replace(result, report=replace(result.report, plots=files))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            (folder / file).write_text(result.report.plots[name], encoding="utf-8")
        path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}") from None
    return path


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    cells = [["", *rows[0].figures], *([each.case, *map(str, each.figures.values())] for each in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return [_line(line, widths) for line in cells]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return _GAP.join((first, *others)).rstrip()
