"""What a run leaves on disk, who may read it, and what happens when the disk will not have it."""

import errno
import io
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from sendengine.campaign.begun import Begun, Registry
from sendengine.campaign.inventory import describe
from sendengine.campaign.report import JobCounts, RecipientCounts, Report, parse, render
from sendengine.campaign.rundir import RunDir, find_runs
from sendengine.core.outcomes import Accepted, Ambiguous, Unreachable
from sendengine.errors import InputError, StorageError
from sendengine.telemetry.counters import LaneCounters

NOW = datetime(2026, 11, 21, 22, 30, 15, 123_000, tzinfo=UTC)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made(folder: Path, *, now: datetime = NOW, name: str = "x") -> RunDir:
    return RunDir.make(folder / "runs", name=name, now=now)


def test_a_run_directory_is_its_owners_and_its_name_begins_with_the_time(tmp_path: Path) -> None:
    run_dir = made(tmp_path, name="Black Friday/ü!")
    assert run_dir.run[:-4] == "20261121T223015.123Z-black-friday-"
    assert mode(run_dir.path) == mode(tmp_path / "runs") == 0o700
    lines = run_dir.lines("requests.jsonl")
    lines.append({"a": 1})
    assert lines.waiting == 1
    lines.close()
    run_dir.write("report.json", b"{}")
    assert run_dir.read("report.json") == b"{}"
    assert {path.name: mode(path) for path in run_dir.path.iterdir()} == {
        "requests.jsonl": 0o600,
        "report.json": 0o600,
    }


def test_names_sort_by_time_and_never_meet(tmp_path: Path) -> None:
    later = [made(tmp_path, now=NOW + timedelta(milliseconds=n)).run for n in (2, 1, 60_000, 0)]
    assert [run.run for run in find_runs(tmp_path / "runs")] == [later[3], later[1], later[0], later[2]]
    assert len({made(tmp_path).run for _ in range(20)}) == 20
    assert find_runs(tmp_path / "none") == []


def test_a_name_without_letters_is_a_run_all_the_same(tmp_path: Path) -> None:
    assert made(tmp_path, name="!?").run.startswith("20261121T223015.123Z-run-")


def test_lines_are_written_together_and_appended(tmp_path: Path) -> None:
    run_dir = made(tmp_path)
    for _ in range(2):
        lines = run_dir.lines("failures.jsonl")
        lines.append({"to": ["ü"]})
        lines.flush()
        lines.flush()
        lines.append([1])
        lines.close()
    assert run_dir.read("failures.jsonl") == '{"to":["ü"]}\n[1]\n'.encode() * 2


def test_a_file_of_lines_is_cut_back_to_what_was_committed(tmp_path: Path) -> None:
    run_dir = made(tmp_path)
    lines = run_dir.lines("failures.jsonl")
    for number in range(3):
        lines.append(number)
        lines.flush()
    lines.close()
    again = run_dir.lines("failures.jsonl", size_bytes=4)
    assert (run_dir.read("failures.jsonl"), again.size_bytes) == (b"0\n1\n", 4)
    again.append(7)
    write = again.take()
    assert write is not None
    assert again.size_bytes == 6  # it has its place before it is written,
    write()
    write()  # and may be written there again
    assert run_dir.read("failures.jsonl") == b"0\n1\n7\n"
    assert again.take() is None
    again.close()


def test_a_run_is_worked_on_by_one_process_at_a_time(tmp_path: Path) -> None:
    run_dir = made(tmp_path)
    assert not run_dir.is_going_on
    with run_dir.locked():
        assert run_dir.is_going_on
        with pytest.raises(InputError, match="another process is working on this run"), run_dir.locked():
            pass
    assert not run_dir.is_going_on
    with run_dir.locked():
        pass


def test_standard_input_is_spooled(tmp_path: Path) -> None:
    path = made(tmp_path).spool(io.BytesIO(b"line\n" * 50_000))
    assert path.name == "input.jsonl"
    assert path.stat().st_size == 250_000
    assert mode(path) == 0o600


def test_a_full_disk_is_a_storage_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = made(tmp_path)
    lines = run_dir.lines("requests.jsonl")
    lines.append({})

    def no_space(descriptor: int, content: memoryview, place: int = 0) -> int:
        del descriptor, content, place
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", no_space)
        patch.setattr(os, "pwrite", no_space)
        with pytest.raises(StorageError, match=r"requests\.jsonl: cannot be written or read: No space left on device"):
            lines.flush()
        with pytest.raises(StorageError, match=r"report\.json"):
            run_dir.write("report.json", b"{}")
        with pytest.raises(StorageError, match="No space left on device"):
            Registry(tmp_path).enter("who", Begun("r", "runs/r", "spring", 0.0))
    assert list(tmp_path.rglob("*.new")) == []
    assert list((tmp_path / "begun").iterdir()) == []
    lines.close()
    assert not (run_dir.path / "report.json").exists()


def test_a_file_in_the_place_of_the_runs_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match="runs"):
        made(tmp_path)
    with pytest.raises(StorageError, match="nothing"):
        RunDir(tmp_path / "nothing").lines("requests.jsonl")


def test_a_pipe_in_the_place_of_a_runs_file_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    run_dir = made(tmp_path)
    os.mkfifo(run_dir.path / "manifest.json")
    with pytest.raises(StorageError, match=r"manifest\.json: is a pipe"):
        run_dir.read("manifest.json")
    assert describe(run_dir).state == "damaged"


# The report


def test_a_report_has_the_schema_of_the_contract_and_comes_back(tmp_path: Path) -> None:
    counters = LaneCounters()
    counters.sent(now_s=1.0)
    counters.replied(200, latency_s=0.1)
    report = Report(
        run="r",
        name="n",
        started_at="2026-11-21T22:30:15.123+00:00",
        finished_at="2026-11-21T22:30:16.123+00:00",
        durability="memory",
        exit_code=3,
        jobs=JobCounts(accepted=3, rejected=2, invalid=1),
        recipients=RecipientCounts(targeted=5, unsubscribed=1),
        lanes={"shop/create_notification": counters.entry(ceiling=6000)},
    )
    shown = orjson.loads(render(report))
    assert list(shown) == [
        "schema", "run", "name", "started_at", "finished_at", "durability", "exit_code", "jobs", "recipients", "lanes",
    ]  # fmt: skip
    assert shown["schema"] == 1
    assert list(shown["jobs"].items()) == [
        ("read", 6), ("accepted", 3), ("unreachable", 0), ("rejected", 2), ("gave_up", 0), ("ambiguous", 0),
        ("expired", 0), ("abandoned", 0), ("invalid", 1), ("duplicates", 0), ("excluded", 0),
    ]  # fmt: skip
    assert shown["recipients"] == {"targeted": 5, "unsubscribed": 1}
    assert list(shown["lanes"]["shop/create_notification"]) == [
        "ceiling", "requests", "replies", "epochs", "peak_1s", "mean_rate", "held_s", "latency_ms", "bound_by",
    ]  # fmt: skip
    assert parse(render(report)) == report
    del tmp_path


def test_counts_add_up() -> None:
    counts = JobCounts(invalid=2, duplicates=3, excluded=5)
    counts.add(Accepted(), 7)
    counts.add(Unreachable(), 11)
    counts.add(Ambiguous("x"), 13)
    assert (counts.read, counts.left_out, counts.settled, counts.not_accepted) == (41, 10, 31, 13)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"schema": 1}'])
def test_a_damaged_report_is_a_storage_error(content: bytes) -> None:
    with pytest.raises(StorageError, match=r"report\.json is damaged"):
        parse(content)


def test_a_report_of_a_later_version_is_refused() -> None:
    report = Report(run="r", name="n", started_at="", finished_at="", durability="memory", exit_code=0, schema=2)
    with pytest.raises(StorageError, match="has schema 2"):
        parse(render(report))
