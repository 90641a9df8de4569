"""What the README shows is made from the files that runs have left."""

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.machine import this_machine
from benchmarks.report import Check, Report, Result, at_least, at_most, save
from benchmarks.summary import newest, summary


def leave(folder: Path, name: str, at: str, *checks: Check, option: str = "") -> None:
    save(
        Result(
            schema=1,
            name=name,
            command=f"python -m benchmarks {name}{option}",
            started_at=f"2026-01-02T{at}:00+00:00",
            took_s=12.3,
            machine=this_machine(),
            options={},
            report=Report(rows=[], checks=list(checks)),
        ),
        folder=folder,
    )


def test_the_newest_of_each_command_counts(tmp_path: Path) -> None:
    leave(tmp_path, "journal", "03:04", at_least("share", 0.5, 0.95))
    leave(tmp_path, "journal", "05:06", at_least("share", 0.97, 0.95))
    leave(tmp_path, "journal", "04:05", at_least("share", 0.7, 0.95))
    leave(tmp_path, "journal", "02:05", at_least("share", 0.8, 0.95), option=" --rounds 2")
    leave(tmp_path, "backlog", "01:02", at_most("bytes", 650.0, 600.0))
    lines = list(summary(newest(tmp_path)))
    assert lines[:5] == [
        "| benchmark | figure | found | target | |",
        "|---|---|---|---|---|",
        "| backlog | bytes | 650 | at most 600 | **not met** |",
        "| journal | share | 0.970 | at least 0.950 | met |",
        "| journal | share | 0.800 | at least 0.950 | **not met** |",
    ]
    assert any(line.startswith("- `python -m benchmarks journal`, 2026-01-02T05:06, 12 s") for line in lines)
    assert lines[-1] == f"- {this_machine()}"


def test_a_file_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"old\.json: is no result of this version"):
        newest(tmp_path)


def test_the_command_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path, "backlog", "01:02", at_most("bytes", 590.0, 600.0))
    assert main(["summary", "--results", str(tmp_path)]) == 0
    assert "| backlog | bytes | 590 | at most 600 | met |" in capsys.readouterr().out
    (tmp_path / "old.json").write_text("[]", encoding="utf-8")
    assert main(["summary", "--results", str(tmp_path)]) == 2
    assert "old.json" in capsys.readouterr().err
