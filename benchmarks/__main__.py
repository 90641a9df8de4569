"""``python -m benchmarks NAME [options]`` runs one benchmark, ``all`` every one; ``summary`` shows the last results.

Each prints a table and leaves a file in ``benchmarks/results/``. Targets are shown as met or missed, and do not decide
about the exit code: 2 for impossible options and a folder that cannot be made, 1 where a result could not be kept,
130 after Ctrl-C, else 0.
"""

import argparse
import asyncio
import inspect
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.backlog import Backlog
from benchmarks.benchmark import Benchmark, configured, options_of
from benchmarks.campaign import Campaign
from benchmarks.ceilings import Ceilings
from benchmarks.closed_at_once import ClosedAtOnce
from benchmarks.contested import Contested
from benchmarks.four_engines import FourEngines
from benchmarks.journal import Journal
from benchmarks.latency import Latency
from benchmarks.limiter import Pacing
from benchmarks.loop_stall import LoopStall
from benchmarks.lower_limit import LowerLimit
from benchmarks.machine import this_machine
from benchmarks.mock import Mock
from benchmarks.report import RESULTS, SCHEMA, Result, lines, save
from benchmarks.simulated import Simulated
from benchmarks.soak import Soak
from benchmarks.summary import newest, summary
from benchmarks.throughput import Throughput
from benchmarks.updates import Updates
from sendengine.errors import StorageError

BENCHMARKS: Final[Mapping[str, type[Benchmark]]] = {
    "mock": Mock,
    "limiter": Pacing,
    "backlog": Backlog,
    "updates": Updates,
    "throughput": Throughput,
    "campaign": Campaign,
    "latency": Latency,
    "ceilings": Ceilings,
    "loop_stall": LoopStall,
    "closed_at_once": ClosedAtOnce,
    "journal": Journal,
    "contested": Contested,
    "lower_limit": LowerLimit,
    "simulated": Simulated,
    "four_engines": FourEngines,
    "soak": Soak,
}
"""By the names of their modules."""

_BY_THEMSELVES: Final = frozenset({"soak", "four_engines"})  # too long for "all", or a part of another one
_UNKEPT: Final = 1
_USAGE: Final = 2
_STOPPED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    given = vars(_parser().parse_args(arguments))
    name, folder = given.pop("name"), given.pop("results")
    try:
        if name == "summary":
            print("\n".join(summary(newest(folder))))
            return 0
        chosen = _chosen(name, given)
    except ValueError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return _USAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.stderr.write(f"{folder}: cannot be made: {error.strerror}\n")
        return _USAGE
    try:
        for each, benchmark in chosen.items():
            _run(each, benchmark, folder=folder)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; of what was not measured to its end nothing is kept\n")
        return _STOPPED
    except StorageError as error:
        sys.stderr.write(f"{error}\n")
        return _UNKEPT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    every = names.add_parser("all", help="every benchmark but the soak, one after another")
    _add_results(every)
    _add_results(names.add_parser("summary", help="the newest result of each command, in Markdown"))
    for name, kind in BENCHMARKS.items():
        about = inspect.getdoc(kind) or ""
        one = names.add_parser(name, help=about.splitlines()[0], description=about)
        _add_results(one)
        for option in options_of(kind):
            one.add_argument(
                f"--{option.name.replace('_', '-')}",
                choices=option.choices or None,
                metavar=None if option.choices else type(option.default).__name__.upper(),
                help=f"{option.help} (default: {option.default})",
            )
    return parser


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the JSON file goes")


def _chosen(name: str, options: Mapping[str, str | None]) -> dict[str, Benchmark]:
    if name == "all":
        return {each: kind() for each, kind in BENCHMARKS.items() if each not in _BY_THEMSELVES}
    return {name: configured(BENCHMARKS[name], options)}


def _run(name: str, benchmark: Benchmark, *, folder: Path) -> None:
    machine, started_at, begun_s = this_machine(), datetime.now(UTC), time.monotonic()
    versions = ", ".join(f"{package} {version}" for package, version in machine.packages.items())
    print(f"{benchmark.command}\n{machine.processor}, {machine.cores} cores, {machine.system}, {machine.python}")
    print(versions, flush=True)
    if machine.is_busy:
        print(f"The machine is busy (load {machine.load}): do not trust these figures.", flush=True)
    report = asyncio.run(benchmark.run())
    result = Result(
        schema=SCHEMA,
        name=name,
        command=benchmark.command,
        started_at=started_at.isoformat(timespec="seconds"),
        took_s=round(time.monotonic() - begun_s, 1),
        machine=machine,
        options=msgspec.structs.asdict(benchmark),
        report=report,
    )
    try:
        print("\n".join(lines(report)), flush=True)
    finally:  # where nobody reads on, or that disk is full, it is kept all the same
        path = save(result, folder=folder)
    print(f"{result.took_s:.0f} s; {path}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
