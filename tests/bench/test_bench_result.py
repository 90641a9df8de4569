"""Results: into a file and out again, beside an older one, and as plots."""

import re
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from sendengine.bench.compare import Change, compared
from sendengine.bench.drawing import plots
from sendengine.bench.machine import Machine, this_machine
from sendengine.bench.result import (
    Cpu,
    Lane,
    Latency,
    Options,
    Result,
    Second,
    latency_of,
    read_result,
    rendered,
    write_files,
)
from sendengine.errors import InputError, StorageError
from sendengine.telemetry.histogram import Histogram

LATENCY = Latency(jobs=1000, p50_ms=100, p90_ms=110, p99_ms=150, p99_9_ms=200, max_ms=250)
LANE = Lane(
    offered=1000,
    offered_per_s=100,
    accepted=1000,
    accepted_per_s=98,
    unsettled=0,
    outcomes={"accepted": 1000},
    requests=1000,
    requests_per_s=99,
    ceiling=6000,
    most_in_one_second=104,
    throttled=0,
    retries=0,
    lost=0,
    not_sent=0,
    bound_by={"input": 1.0},
    latency={"normal": LATENCY},
    reply=LATENCY,
)
RESULT = Result(
    command="sendengine bench --rate 100",
    started_at="2026-11-22T06:00:00+00:00",
    target="a mock server of its own",
    partial=False,
    why="",
    seconds=10.0,
    options=Options(
        rate=100,
        seconds=10,
        updates=0,
        high=0,
        recipients=1,
        pack=False,
        users=1000,
        plan="paid",
        lifted=False,
        transport="direct",
        protocol="auto",
        connections=4000,
        latency_ms=100,
        latency_p99_ms=0,
    ),
    machine=Machine("Linux 6", "a processor", 2, "CPython 3.11", {"sendengine": "0.1", "uvloop": "0.22"}, 0.1),
    lanes={"create_notification": LANE},
    cpu=Cpu(user_s=0.5, system_s=0.1, cores=0.06, us_per_request=600, us_per_job=610),
    longest_pause_ms=3,
    submitted_late_ms=0.5,
    timeline=[
        Second(at_s=1.0, offered_per_s=100, accepted_per_s=90, requests_per_s={"create_notification": 99}, throttled=0)
    ],
    curves={"create_notification": [(0.0, 100.0), (90.0, 110.0)]},
)


@pytest.mark.parametrize(
    ("outcomes", "unsettled", "fine"),
    [
        ({"accepted": 5}, 0, True),
        ({"accepted": 4, "unreachable": 1}, 0, True),
        ({}, 0, False),
        ({"accepted": 4, "rejected": 1}, 0, False),
        ({"accepted": 4}, 1, False),  # more was offered than could be carried
    ],
)
def test_it_is_fine_where_all_that_was_offered_was_accepted(
    outcomes: dict[str, int], unsettled: int, fine: bool
) -> None:
    assert replace(LANE, outcomes=outcomes, unsettled=unsettled).is_fine == fine


def test_a_result_comes_back_from_its_file_and_from_its_folder(tmp_path: Path) -> None:
    write_files(tmp_path, [("bench.json", rendered(RESULT))])
    assert read_result(tmp_path / "bench.json") == RESULT
    assert read_result(tmp_path) == RESULT


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "is no result of `sendengine bench`"),
        ("[]", "is no result of `sendengine bench`"),
        ('{"schema": 1}', "is no result of `sendengine bench`, or a damaged one"),
        ('{"program": "sendengine bench", "schema": 2}', "has format 2, and this sendengine reads 1"),
        ('{"program": "sendengine bench", "schema": 1}', "or a damaged one"),
        ('{"program": "another", "schema": 1}', "is no result"),
        ('{"program": "sendengine bench", "schema": 1, "why": ' + "[" * 100_000, "is no result"),
        (rendered(RESULT)[:-40], "is no result"),
        (rendered(RESULT).replace('"seconds": 10.0', '"seconds": "ten"'), "damaged one: Expected `float`"),
    ],
)
def test_what_is_no_result_says_so(content: str, error: str, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(content)
    with pytest.raises(InputError, match=rf"old\.json: .*{error}"):
        read_result(file)


def test_a_result_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nix\.json: cannot be read: No such file or directory; give the bench\.json"):
        read_result(tmp_path / "nix.json")
    with pytest.raises(InputError, match=r"bench\.json: cannot be read"):
        read_result(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read: File name too long"):
        read_result(tmp_path / ("x" * 256))


def test_files_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="choose another --results-dir"):
        write_files(tmp_path / "nix", [("a", "b")])


def test_a_histogram_is_rendered_by_percentiles() -> None:
    histogram = Histogram()
    for number in range(1, 1001):
        histogram.record(number / 1e3)
    found = latency_of(histogram)
    assert (found.jobs, found.max_ms) == (1000, 1000)
    assert [found.p50_ms, found.p90_ms, found.p99_ms, found.p99_9_ms] == pytest.approx([500, 900, 990, 999], rel=0.01)


# Comparing


def test_the_same_result_twice_has_ratios_of_one_and_no_caution() -> None:
    comparison = compared(RESULT, RESULT)
    assert comparison.cautions == []
    assert {change.ratio for change in comparison.changes} == {1.0, None}  # None: no 429s in either
    assert comparison.changes[0] == Change("create_notification: accepted jobs/s", 98, 98, 1.0)


def test_a_ratio_is_new_by_old() -> None:
    slower = replace(LANE, latency={"normal": replace(LATENCY, p99_ms=300.0)}, throttled=4)
    new = replace(RESULT, lanes={"create_notification": slower}, cpu=replace(RESULT.cpu, us_per_request=300.0))
    changes = {change.what: change for change in compared(RESULT, new).changes}
    assert changes["create_notification: p99 ms"].ratio == 2.0
    assert changes["CPU, µs a request"].ratio == 0.5
    assert changes["create_notification: 429s"] == Change("create_notification: 429s", 0, 4, None)


def test_a_lane_that_only_one_has_is_there_without_a_ratio() -> None:
    new = replace(RESULT, lanes={"create_notification": LANE, "update_user": LANE})
    for old, later in ((RESULT, new), (new, RESULT)):
        change = {change.what: change for change in compared(old, later).changes}["update_user: requests/s"]
        assert (change.ratio, {change.old, change.new}) == (None, {99, None})


@pytest.mark.parametrize(
    ("new", "caution"),
    [
        (
            replace(RESULT, options=replace(RESULT.options, rate=200.0, pack=True)),
            "other options: rate 100 → 200, pack False → True",
        ),
        (
            replace(RESULT, options=replace(RESULT.options, rate=None)),
            "other options: rate 100 → none",
        ),
        (replace(RESULT, machine=replace(RESULT.machine, cores=4)), "other machine: cores 2 → 4"),
        (
            replace(RESULT, machine=replace(RESULT.machine, packages={"sendengine": "0.2", "uvloop": "0.22"})),
            "other versions: sendengine 0.1 → 0.2",
        ),
        (
            replace(RESULT, machine=replace(RESULT.machine, load=3.0)),
            "this one began on a machine with a load of 3: others were at work",
        ),
        (
            replace(RESULT, partial=True, why="stopped before its end, as asked"),
            "this one ended early: stopped before its end, as asked",
        ),
    ],
)
def test_what_else_was_different_is_a_caution(new: Result, caution: str) -> None:
    old = replace(RESULT, options=replace(RESULT.options, rate=100.0))
    assert compared(old, new).cautions == [caution]


def test_another_server_is_a_caution() -> None:
    away = replace(RESULT.options, latency_ms=None, latency_p99_ms=None)
    old = replace(RESULT, target="http://10.0.0.5:80", options=away)
    new = replace(RESULT, target="http://10.0.0.6:80", options=away)
    assert compared(old, new).cautions == ["another server: http://10.0.0.5:80 → http://10.0.0.6:80"]


# Plots


def test_the_plots_name_what_was_offered_where_and_how_to_repeat_it() -> None:
    drawn = dict(plots(RESULT))
    assert [*drawn] == ["rate.svg", "latency.svg"]
    for drawing in drawn.values():
        text = " ".join(re.sub("<[^>]+>", " ", drawing).split())
        assert "sendengine bench: 100 jobs/s for 10 s, to a mock server at 100 ms" in text
        assert "sendengine bench --rate 100" in text
        assert "a processor, 2 cores, Linux 6, CPython 3.11, sendengine 0.1" in text
    assert "its ceiling, 6,000" in drawn["rate.svg"]


def test_a_result_in_which_nothing_happened_can_be_drawn() -> None:
    empty = replace(RESULT, lanes={}, timeline=[], curves={}, partial=True, why="stopped before its end, as asked")
    assert all("stopped before its end" in text for _, text in plots(empty))


def test_this_machine_can_be_described() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.packages["sendengine"]
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Machine) == machine
    assert " core" in str(machine)
