"""The benchmarks run, with sizes so small that their figures say nothing, and leave what they promise."""

import asyncio
import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from benchmarks import backlog, ceilings, four_engines, journal, latency, lower_limit, mock, pacing, throughput
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.benchmark import Benchmark, configured, options_of
from benchmarks.fresh import in_fresh_process
from benchmarks.mocked import Requests
from benchmarks.report import Report, Result, Row, Spread, at_least, at_most, lines, number, ratios, row, spread

Task = TypeVar("Task")
Found = TypeVar("Found")

TINY: dict[str, Benchmark] = {
    "limiter": pacing.Pacing(rate=500, waiters=5, seconds=0.05, rounds=1),
    "mock": mock.Mock(requests=20, connections=2, rounds=1),
    "backlog": backlog.Backlog(case="packed", small=10, large=20, rounds=1, collector="default"),
    "throughput": throughput.Throughput(jobs=20, warm=5, connections=2, rounds=1, loop="asyncio"),
    "ceilings": ceilings.Ceilings(seconds=0.3, latency_ms=1),
    "latency": latency.Latency(waiting=10, jobs=2, latency_ms=1, settle_s=0.02),
    "journal": journal.Journal(seconds=0.1, latency_ms=1, rate=200),
    "lower_limit": lower_limit.LowerLimit(case="bucket", seconds=0.1, limit=900, ceiling=600, latency_ms=1),
    "four_engines": four_engines.FourEngines(engines=2, seconds=0.3, ceiling=100, latency_ms=1, setup_s=0.2),
}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Contestants run on threads: starting interpreters would take longer than all of these tests."""

    async def one(function: Callable[[Task], Found], task: Task) -> Found:
        return await asyncio.to_thread(function, task)

    async def many(function: Callable[[Task], Found], tasks: Sequence[Task]) -> list[Found]:
        return await asyncio.gather(*(asyncio.to_thread(function, task) for task in tasks))

    for module in (backlog, ceilings, journal, latency, lower_limit, mock, pacing, throughput):
        monkeypatch.setattr(module, "in_fresh_process", one)
    monkeypatch.setattr(four_engines, "in_fresh_processes", many)
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)  # contestants tune the collector of what they take for a process of their own
    gc.unfreeze()


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", TINY)
async def test_every_benchmark_measures_and_reports(name: str) -> None:
    report = await TINY[name].run()
    assert report.rows
    assert report.checks
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    assert len(lines(report)) > len(report.rows)


def test_all_are_run_here_but_the_simulation_which_has_tests_and_minutes_of_its_own() -> None:
    assert BENCHMARKS.keys() - TINY.keys() == {"contested"}


async def test_a_fresh_process_returns_what_it_found() -> None:
    assert await in_fresh_process(str.upper, "found") == "FOUND"


@pytest.mark.usefixtures("in_this_process")
def test_the_command_runs_one_and_leaves_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--case", "coalesced", "--small", "5", "--large", "10", "--rounds", "1", "--results", str(tmp_path)]
    assert main(["backlog", *options]) == 0
    [path] = tmp_path.iterdir()
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    assert (result.schema, result.name, result.options["large"]) == (1, "backlog", 10)
    assert [each.case for each in result.report.rows] == [
        "coalesced, 5 waiting",
        "coalesced, 10 waiting",
        "coalesced, 10 against 5",
    ]
    assert result.machine.cores >= 1
    assert {"aiohttp", "sendengine", "uvloop"} <= result.machine.packages.keys()
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize("kind", BENCHMARKS.values(), ids=str)
def test_every_option_says_what_it_is_and_its_default_is_possible(kind: type[Benchmark]) -> None:
    assert all(option.help for option in options_of(kind))
    assert configured(kind, {option.name: str(option.default) for option in options_of(kind)}) == kind()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["backlog", "--small", "0"], "small"),
        (["ceilings", "--seconds", "soon"], "seconds"),
        (["four_engines", "--engines", "1"], "engines"),
    ],
)
def test_an_impossible_option_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_figure_is_shown_as_its_median_with_lowest_and_highest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert [number(value) for value in (1234.5, 123.45, 12.345, 1.2345, 0.0, 7.0)] == [
        "1,234", "123.5", "12.35", "1.234", "0", "7",
    ]  # fmt: skip


def test_ratios_compare_the_turns_of_one_round() -> None:
    assert ratios("a to b", name="ratio", ours=[2.0, 9.0], others=[1.0, 3.0]) == Row(
        "a to b", {"ratio": Spread(2.5, 2.0, 3.0, 2)}
    )


def test_rows_with_the_same_figures_share_a_table() -> None:
    report = Report(
        rows=[row("a", [{"x": 1.0}]), row("longer", [{"x": 2000.0}]), row("c", [{"y": 0.5}])],
        checks=[at_least("x", 1.0, 2.0), at_most("y", 0.5, 0.5)],
        notes=["A note."],
    )
    assert lines(report) == [
        "            x",
        "a           1",
        "longer  2,000",
        "",
        "       y",
        "c  0.500",
        "",
        "A note.",
        "MISSED x: 1, at least 2",
        "met    y: 0.500, at most 0.500",
    ]


def test_time_inside_of_holds_counts_once_and_only_within_the_stretch() -> None:
    requests = Requests(
        arrivals_s=[0.0, 1.0, 1.2, 2.5, 9.0],
        statuses=[200, 429, 429, 200, 200],
        holds=[(1.2, 2.2), (1.0, 2.0), (9.0, 12.0)],
    )
    assert requests.held_s(from_s=0.0, until_s=10.0) == pytest.approx(1.2 + 1.0)
    assert requests.held_s(from_s=1.5, until_s=2.1) == pytest.approx(0.6)
    assert requests.count((200,), from_s=0.0, until_s=9.0) == 2


@pytest.mark.parametrize(("instants_s", "most"), [([], 0), ([0.0, 0.5, 1.0], 2), ([0.0, 0.9, 1.1, 1.2, 1.8], 4)])
def test_the_busiest_second_may_begin_anywhere(instants_s: list[float], most: int) -> None:
    assert pacing.busiest(instants_s) == most


@pytest.mark.parametrize(("counts", "index"), [([5, 5, 5, 5], 1.0), ([8, 0, 0, 0], 0.25), ([0, 0], 0.0)])
def test_jains_index_is_one_where_all_have_the_same(counts: list[int], index: float) -> None:
    assert four_engines.jain(counts) == pytest.approx(index)
