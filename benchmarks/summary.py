"""The newest result of each command against its targets, as a table in Markdown: what the README shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.report import Check, Result, number

_HEAD: Final = ("| benchmark | figure | found | target | |", "|---|---|---|---|---|")


def newest(folder: Path) -> list[Result]:
    """Read the last result that each command has left in ``folder``, sorted by benchmark and command.

    Raises ValueError, with the file's name, for one that cannot be read.
    """
    found: dict[str, Result] = {}
    for path in folder.glob("*.json"):
        try:
            result = msgspec.json.decode(path.read_bytes(), type=Result)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}: is no result of this version ({error}); move it away") from error
        other = found.get(result.command)
        if other is None or other.started_at < result.started_at:
            found[result.command] = result
    return sorted(found.values(), key=lambda result: (result.name, result.command))


def summary(results: list[Result]) -> Iterator[str]:
    """Write a line for each figure that has a target, and then on what it was found and how."""
    yield from _HEAD
    for result in results:
        for check in result.report.checks:
            yield _line(result.name, check)
    yield ""
    for result in results:
        busy = f"; the machine was busy (load {result.machine.load:g})" if result.machine.is_busy else ""
        yield f"- `{result.command}`, {result.started_at[:16]}, {result.took_s:.0f} s{busy}"
    for machine in dict.fromkeys(str(result.machine) for result in results):
        yield f"- {machine}"


def _line(name: str, check: Check) -> str:
    verdict = "met" if check.is_met else "**not met**"
    return f"| {name} | {check.what} | {number(check.value)} | {check.side} {number(check.bound)} | {verdict} |"
