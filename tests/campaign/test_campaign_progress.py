"""What tells how far a run is: stretches of rows, the frontier, rows that were handed over; and orders."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.campaign.control import Order, forget_orders, give_order, read_order
from sendengine.campaign.handed import HandedRows
from sendengine.campaign.inventory import RunInfo, describe, to_prune
from sendengine.campaign.report import JobCounts, Report, render
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.status import Status, read_status, write_status
from sendengine.errors import InputError, StorageError
from sendengine.journal.frontier import Frontier
from sendengine.journal.stretches import Stretches
from tests.campaign.campaign_files import NOON

stretches = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair))), max_size=25
)


@given(stretches, st.integers(0, 45), st.integers(1, 6))
def test_stretches_are_a_set_of_rows(parts: list[tuple[int, int]], first: int, size: int) -> None:
    made = Stretches(parts)
    rows = {row for start, end in parts for row in range(start, end)}
    assert {row for start, end in made.pairs for row in range(start, end)} == rows
    assert all(end < later for (_, end), (later, _) in zip(made.pairs, made.pairs[1:], strict=False))
    assert made.covers(first, first + size) == set(range(first, first + size)).issubset(rows)
    assert made.prefix_end == next(row for row in range(60) if row not in rows)


def test_the_frontier_runs_a_quarter_second_ahead() -> None:
    frontier = Frontier()
    for at_s, first, end, moved_to in [
        (0.0, 0, 10, 20),  # the first item: as much again
        (0.01, 10, 20, 40),  # twenty rows in this quarter second: twenty ahead
        (0.02, 20, 30, 60),
        (0.03, 30, 40, None),  # twenty rows ahead, of forty: half is enough
        (0.04, 40, 50, 100),
        (0.05, 50, 60, None),
        (0.06, 60, 70, 140),
        (0.30, 70, 80, None),  # a new quarter; the last one had seventy
        (0.31, 80, 90, None),
        (0.32, 90, 100, None),
        (0.33, 100, 110, 180),
        (5.0, 110, 120, None),  # nothing was sent for long
        (9.0, 175, 185, 195),
    ]:
        assert frontier.pull(first, end, now_s=at_s) == moved_to, f"at {at_s} s"


@given(st.permutations(range(12)), st.integers(0, 12))
def test_rows_are_handed_over_in_any_order(order: list[int], count: int) -> None:
    rows = HandedRows()
    for row in [*order[:count], *order[:3]]:
        rows.add(row)
    done = {*order[:count], *order[:3]}
    again = HandedRows(rows.upto, rows.ahead)
    assert {row for row in range(20) if row in again} == done
    assert rows.upto not in done
    assert all(row > rows.upto for row in rows.ahead)


def test_orders_add_up_and_are_forgotten_by_the_next_process(tmp_path: Path) -> None:
    run_dir = RunDir.make(tmp_path, name="x", now=NOON)
    assert read_order(run_dir) == Order()
    assert give_order(run_dir, is_paused=True) == Order(1, is_paused=True)
    assert give_order(run_dir, rate=5.0) == Order(2, is_paused=True, rate=5.0)
    assert read_order(run_dir) == Order(2, is_paused=True, rate=5.0)
    forget_orders(run_dir)
    assert read_order(run_dir) == Order(3)
    for damaged in ("{", '{"rate": 0}'):
        (run_dir.path / "control.json").write_text(damaged)
        with pytest.raises(StorageError, match=r"control\.json: is damaged"):
            read_order(run_dir)


def status_of(**options: object) -> Status:
    usual = {
        "run": "r", "name": "n", "noun": "jobs", "state": "sending", "pid": 1, "started_at_s": 1.0,
        "updated_at_s": 2.0, "done": 3, "total": 4, "counts": JobCounts(accepted=3),
    }  # fmt: skip
    return Status(**{**usual, **options})  # type: ignore[arg-type]


def test_a_status_comes_back(tmp_path: Path) -> None:
    run_dir = RunDir.make(tmp_path, name="x", now=NOON)
    with pytest.raises(InputError, match="the run has not begun to send"):
        read_status(run_dir)
    write_status(run_dir, status_of())
    assert read_status(run_dir) == status_of()
    assert (run_dir.path / "status.json").stat().st_mode & 0o777 == 0o600
    (run_dir.path / "status.json").write_text("[]")
    with pytest.raises(StorageError, match=r"status\.json: is damaged"):
        read_status(run_dir)


# Which runs there are


def finished(run_dir: RunDir, *, exit_code: int) -> None:
    report = Report(run="r", name="n", started_at="", finished_at="", durability="memory", exit_code=exit_code)
    run_dir.write("report.json", render(report))


def test_a_run_is_described_by_what_it_left(tmp_path: Path) -> None:
    run_dir = RunDir.make(tmp_path, name="x", now=NOON)
    assert describe(run_dir) == RunInfo(run_dir.run, "killed", is_resumable=False, made_at=NOON, name=run_dir.run)
    run_dir.write("manifest.json", b"{")
    assert (describe(run_dir).state, describe(run_dir).is_resumable) == ("damaged", True)
    (run_dir.path / "manifest.json").unlink()
    for exit_code, state in ((0, "finished"), (3, "finished"), (4, "stopped"), (75, "stopped")):
        finished(run_dir, exit_code=exit_code)
        assert (describe(run_dir).state, describe(run_dir).exit_code) == (state, exit_code)
    with run_dir.locked():
        assert describe(run_dir).state == "going on"


def test_only_old_runs_that_are_over_are_thrown_away() -> None:
    def info(run: str, days: float, state: str = "finished", *, is_resumable: bool = False) -> RunInfo:
        made_at = datetime(2026, 11, 21, tzinfo=UTC) - timedelta(days=days)
        return RunInfo(run, state, is_resumable, made_at)  # type: ignore[arg-type]

    runs = [
        info("new", 1),
        info("old", 40),
        info("older", 50),
        info("alive", 60, "going on"),
        info("stopped", 70, "stopped", is_resumable=True),
    ]
    for days, keep, is_forced, chosen in [
        (30, 0, False, {"old", "older"}),
        (30, 2, False, {"older"}),
        (30, 0, True, {"old", "older", "stopped"}),
        (0, 0, False, {"new", "old", "older"}),
        (45, 0, False, {"older"}),
        (0, 9, True, set()),
    ]:
        found = to_prune(runs, now=datetime(2026, 11, 21, tzinfo=UTC), days=days, keep=keep, is_forced=is_forced)
        assert {each.run for each in found} == chosen, (days, keep)
