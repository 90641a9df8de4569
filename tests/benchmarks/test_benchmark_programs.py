"""The benchmarks run, with sizes so small that their figures say nothing, and leave what they promise."""

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from errno import ENOSPC
from operator import call
from os import strerror
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from benchmarks import (
    backlog,
    campaign,
    ceilings,
    closed_at_once,
    contested,
    drawing,
    four_engines,
    journal,
    latency,
    limiter,
    loop_stall,
    lower_limit,
    mock,
    soak,
    throughput,
    updates,
)
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.arrivals import arrive, instants, percentiles_ms
from benchmarks.atceilings import BARE
from benchmarks.benchmark import Benchmark, configured, options_of
from benchmarks.fresh import in_fresh_process
from benchmarks.machine import peak_resident_bytes, this_machine
from benchmarks.mocked import MeasuredMock, Requests
from benchmarks.report import (
    Report,
    Result,
    Row,
    Spread,
    at_least,
    at_most,
    lines,
    number,
    ratios,
    row,
    save,
    spread,
)
from benchmarks.sink import Sink
from benchmarks.workload import H2
from sendengine.mockserver import MockConfig
from tests.benchmarks.local_servers import LocalMock, LocalSink

Task = TypeVar("Task")
Found = TypeVar("Found")

TINY: dict[str, Benchmark] = {
    "limiter": limiter.Pacing(rate=500, waiters=5, seconds=0.05, rounds=1),
    "mock": mock.Mock(requests=20, connections=2, rounds=1),
    "backlog": backlog.Backlog(case="packed", small=10, large=20, warm=5, rounds=1, collector="default"),
    "updates": updates.Updates(updates=20, users=5, rounds=1),
    "throughput": throughput.Throughput(jobs=20, warm=5, connections=2, rounds=1, loop="asyncio"),
    "campaign": campaign.Campaign(rows=50, packs=2, connections=2, rounds=1),
    "latency": latency.Latency(waiting=10, jobs=2, latency_ms=1, settle_s=0.02, rounds=1),
    "ceilings": ceilings.Ceilings(case="0", seconds=0.1, scale=0.1, only="direct"),
    "loop_stall": loop_stall.LoopStall(seconds=0.05, settle_s=0.02, latency_ms=1, scale=0.1, rounds=1),
    "closed_at_once": closed_at_once.ClosedAtOnce(connections=10, seconds=0.6, wait_s=0.1, scale=0.02, only="direct"),
    "journal": journal.Journal(seconds=0.03, latency_ms=1, rate=200, under_way=5),
    "contested": contested.Contested(seconds=0.3, ceiling=100, latency_ms=1, setup_s=0.05),
    "lower_limit": lower_limit.LowerLimit(case="bucket", seconds=0.1, limit=900, ceiling=600, latency_ms=1),
    "four_engines": four_engines.FourEngines(engines=2, seconds=0.3, ceiling=100, latency_ms=1, setup_s=0.1),
    "soak": soak.Soak(seconds=0.3, latency_ms=1, scale=0.05, samples=4),
}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Contestants run on threads, servers on this loop: starting interpreters would take longer than all of it."""

    async def one(function: Callable[[Task], Found], task: Task) -> Found:
        return await asyncio.to_thread(function, task)

    async def many(function: Callable[[Task], Found], tasks: Sequence[Task]) -> list[Found]:
        return await asyncio.gather(*(asyncio.to_thread(function, task) for task in tasks))

    doubles = {"in_fresh_process": one, "in_fresh_processes": many, "MeasuredMock": LocalMock, "Sink": LocalSink}
    for kind in BENCHMARKS.values():
        for name, double in doubles.items():
            if hasattr(sys.modules[kind.__module__], name):
                monkeypatch.setattr(sys.modules[kind.__module__], name, double)
    monkeypatch.setattr("benchmarks.fresh.WITHIN_S", 60.0)
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)  # contestants tune the collector of what they take for a process of their own
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", TINY)
async def test_every_benchmark_measures_and_reports(name: str) -> None:
    async with asyncio.timeout(100):
        report = await TINY[name].run()
    assert report.rows
    assert report.checks
    assert all(plot.startswith("<svg") for plot in report.plots.values())
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    assert len(lines(report)) > len(report.rows)


def test_all_are_run_here_but_the_simulation_which_has_tests_and_minutes_of_its_own() -> None:
    assert BENCHMARKS.keys() - TINY.keys() == {"simulated"}


@pytest.mark.parametrize(("name", "kind"), BENCHMARKS.items())
def test_a_benchmark_is_named_as_its_module_is(name: str, kind: type[Benchmark]) -> None:
    assert kind.__module__ == f"benchmarks.{name}"
    assert kind().command == f"python -m benchmarks {name}"


def test_a_benchmark_knows_the_command_that_runs_it_so() -> None:
    assert ceilings.Ceilings(case="300", seconds=5).command == "python -m benchmarks ceilings --case 300 --seconds 5"
    assert throughput.Throughput(only="official SDK").command == "python -m benchmarks throughput --only 'official SDK'"


async def test_the_servers_in_processes_of_their_own_answer_as_those_of_the_tests_do() -> None:
    async with Sink() as sink, MeasuredMock(MockConfig()) as server:
        assert await sink.requests() == 0
        assert sink.cpu_s >= 0
        assert server.cpu_s >= 0
        assert server.open_descriptors > 0
        assert await server.requests("create_notification") == Requests([], [], [])
        assert await server.accepted("create_notification") == 0


async def test_a_fresh_process_returns_what_it_found() -> None:
    assert await in_fresh_process(str.upper, "found") == "FOUND"


async def test_a_fresh_process_does_not_count_the_memory_of_the_one_that_started_it() -> None:
    ballast = bytearray(256 * 2**20)
    assert 0 < await in_fresh_process(call, peak_resident_bytes) < len(ballast)


@pytest.mark.usefixtures("in_this_process")
def test_the_command_runs_one_and_leaves_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--small", "5", "--large", "10", "--warm", "5", "--rounds", "1"]
    options = ["--case", "coalesced", *sizes, "--results", str(tmp_path)]
    assert main(["backlog", *options]) == 0
    [path] = tmp_path.iterdir()
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    assert (result.schema, result.name, result.options["large"]) == (1, "backlog", 10)
    assert [each.case for each in result.report.rows] == [
        "coalesced, 5 waiting",
        "coalesced, 10 waiting",
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
        (["limiter", "--seconds", "inf"], "seconds"),
        (["ceilings", "--scale", "nan"], "scale"),
        (["ceilings", "--case", "100", "--only", "h2"], "direct; aiohttp; bare aiohttp, paced"),
        (["throughput", "--only", "requests"], "official SDK"),
        (["throughput", "--only", "direct, h2", "--wire", "plain"], "direct; direct, packed"),
        (["closed_at_once", "--only", "h2"], "direct; aiohttp"),
        (["soak", "--transport", "carrier pigeon"], "direct"),
    ],
)
def test_an_impossible_option_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["limiter"], ["all"]])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_measured(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()
    assert main([*arguments, "--results", str(tmp_path / "taken" / "results")]) == 2
    assert "taken/results: cannot be made" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_the_figures_are_printed_even_where_they_cannot_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(path: Path, content: bytes) -> int:
        raise OSError(ENOSPC, strerror(ENOSPC), str(path), len(content))

    monkeypatch.setattr(Path, "write_bytes", no_space)
    sizes = ["--small", "5", "--large", "10", "--warm", "5", "--rounds", "1"]
    assert main(["backlog", "--case", "coalesced", *sizes, "--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "coalesced, 10 waiting" in said.out
    assert said.err == f"{tmp_path}: cannot be written: No space left on device\n"


def test_what_nobody_reads_is_kept_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def measured(_: Benchmark) -> Report:
        monkeypatch.setattr(sys.stdout, "write", gone)
        return Report(rows=[], checks=[])

    def gone(_: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(limiter.Pacing, "run", measured)
    with pytest.raises(BrokenPipeError):
        main(["limiter", "--results", str(tmp_path)])
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_ctrl_c_ends_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped(_: Benchmark) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(limiter.Pacing, "run", stopped)
    assert main(["limiter", "--results", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped; of what was not measured to its end nothing is kept\n"


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
        "not met x: 1, at least 2",
        "met     y: 0.500, at most 0.500",
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
    assert limiter.busiest(instants_s) == most


@pytest.mark.parametrize(("counts", "index"), [([5, 5, 5, 5], 1.0), ([8, 0, 0, 0], 0.25), ([0, 0], 0.0)])
def test_jains_index_is_one_where_all_have_the_same(counts: list[int], index: float) -> None:
    assert four_engines.jain(counts) == pytest.approx(index)


def test_jobs_come_at_the_same_instants_in_each_run_and_about_as_often_as_asked() -> None:
    drawn = list(instants(1000, seconds=10))
    assert drawn == list(instants(1000, seconds=10))
    assert drawn == sorted(drawn)
    assert 0 < drawn[0] < drawn[-1] < 10
    assert 9_500 < len(drawn) < 10_500


async def test_what_comes_late_is_started_at_once_and_counted_from_when_it_was_meant_to() -> None:
    started: list[tuple[int, float]] = []
    count = await arrive(lambda number, at_s: started.append((number, at_s)), rate=500, seconds=0.05)
    assert [each for each, _ in started] == list(range(count))
    first_s = started[0][1] - next(instants(500, seconds=1))
    assert [at_s - first_s for _, at_s in started] == pytest.approx(list(instants(500, seconds=0.05)))


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    times_s = [number / 1e3 for number in range(1000)]
    assert percentiles_ms(times_s) == pytest.approx({"p50 ms": 500, "p99 ms": 990, "p99.9 ms": 999, "max ms": 999})
    assert set(percentiles_ms([]).values()) == {0.0}


def test_rates_are_counted_in_equal_stretches_and_a_cut_one_is_left_out() -> None:
    instants_s = [5 + number / 100 for number in range(180)]  # 1.8 s: three whole stretches of half a second
    assert [middle_s for middle_s, _ in drawing.rates(instants_s)] == [0.25, 0.75, 1.25]
    assert [rate for _, rate in drawing.rates(instants_s)] == pytest.approx([100.0] * 3, abs=2)
    assert drawing.rates([]) == []


def test_plots_are_files_beside_the_result_that_names_them(tmp_path: Path) -> None:
    result = Result(
        schema=1,
        name="x",
        command="python -m benchmarks x",
        started_at="2026-01-02T03:04:05+00:00",
        took_s=1.0,
        machine=this_machine(),
        options={},
        report=Report(rows=[], checks=[], plots={"rate": "<svg/>"}),
    )
    path = save(result, folder=tmp_path)
    saved = msgspec.json.decode(path.read_bytes(), type=Result)
    assert (saved.command, saved.report.plots) == (result.command, {"rate": "x-20260102T030405Z-rate.svg"})
    assert (tmp_path / saved.report.plots["rate"]).read_text(encoding="utf-8") == "<svg/>"


@pytest.mark.parametrize(
    ("values", "growth"), [([5.0, 5.0, 5.0], 0.0), ([1.0, 2.0, 3.0], 1.0), ([3.0, 2.0, 1.0], -1.0), ([7.0], 0.0)]
)
def test_growth_is_the_rise_of_a_straight_line_against_the_mean(values: list[float], growth: float) -> None:
    assert soak.growth([float(each) for each in range(len(values))], values) == pytest.approx(growth)


@pytest.mark.parametrize(
    ("part", "wave", "steps"), [(0.0, 0.0, 0.2), (0.25, 0.4, 0.7), (0.5, 0.8, 0.4), (0.99, 0.0, 0.0), (1.0, 0.0, 0.0)]
)
def test_a_foreign_client_takes_from_nothing_to_four_fifths(part: float, wave: float, steps: float) -> None:
    assert contested.FOREIGN["wave"](part) == pytest.approx(wave, abs=0.01)
    assert contested.FOREIGN["steps"](part) == steps


def test_the_rate_is_back_when_half_a_second_has_what_there_was_before() -> None:
    before = [number / 100 for number in range(1000)]
    after = [11 + number / 100 for number in range(500)]  # a second of silence after the closing at 10 s
    found = [Requests([*before, *after], [200] * 1500, [])]
    assert closed_at_once.back_after_s(found, 10.0) == pytest.approx(1.5, abs=0.06)
    assert closed_at_once.back_after_s([Requests(before, [200] * 1000, [])], 10.0) == float("inf")


def test_recipients_of_a_campaign_are_written_once_each(tmp_path: Path) -> None:
    campaign.write_recipients(tmp_path / "r.csv", 3)
    assert (tmp_path / "r.csv").read_text(encoding="ascii") == "external_id,country\nuser-0,DE\nuser-1,DE\nuser-2,DE\n"
    campaign.write_recipients(tmp_path / "s.csv", 1000, order="shuffled")
    lines = (tmp_path / "s.csv").read_text(encoding="ascii").splitlines()[1:]
    assert sorted(lines) == sorted(f"user-{number},DE" for number in range(1000)) != lines


def test_at_two_seconds_http2_has_its_turn_alone_and_http1_one_that_connections_bind() -> None:
    assert ceilings.CASES["2000-h2"].contestants == [H2]
    assert ceilings.CASES["2000"].contestants == ["direct"]
    assert ceilings.CASES["lognormal"].contestants == ["direct", "aiohttp", H2, BARE]
