"""Runs whose directories were moved since: they go on there, and what was begun stays known."""

import shutil
from pathlib import Path

import pytest

from tests.cli.sending import admin, jobs, run, runs

pytestmark = pytest.mark.usefixtures("sending_folder")


def sent_from_standard_input() -> Path:
    """A run that was sent; its process died before it could say so."""
    assert run("send", "-", "--name", "orders", typed=jobs(3)).exit_code == 0
    (folder,) = runs()
    (folder / "report.json").unlink()
    Path("archive").mkdir()
    return folder


def test_a_run_of_standard_input_goes_on_where_it_was_moved_to(sending_mock: str) -> None:
    folder = sent_from_standard_input().rename("archive/orders-of-monday")
    spooled = (folder / "input.jsonl").rename("input.jsonl")
    gone = run("resume", str(folder))
    assert (gone.exit_code, "there is no such file; the run reads it from there" in gone.stderr) == (2, True)
    spooled.rename(folder / "input.jsonl")
    again = run("send", "-", typed=jobs(3))
    assert (again.exit_code, "is gone, and where it was moved to" in again.stderr) == (2, True)
    assert run("resume", str(folder)).exit_code == 0
    assert (folder / "report.json").exists()
    assert admin(sending_mock, "ledger")["recipients"] == 3


def test_a_retry_goes_on_where_it_was_moved_to(sending_mock: str) -> None:
    Path("jobs.jsonl").write_bytes(jobs(2) + jobs(1).replace(b"u-0", b"poison"))
    assert run("send", "jobs.jsonl").exit_code == 3
    assert run("retry", "latest").exit_code == 3
    (runs()[-1] / "report.json").unlink()
    Path("runs").rename("archive")
    assert run("resume", "latest", "--runs-dir", "archive").exit_code == 3
    assert run("retry", "latest", "--runs-dir", "archive").exit_code == 3
    assert admin(sending_mock, "ledger")["recipients"] == 2


def test_a_copy_under_another_name_is_not_resumed_beside_the_run() -> None:
    copy = shutil.copytree(sent_from_standard_input(), "archive/copy")
    result = run("resume", str(copy))
    assert (result.exit_code, "archive/copy: is a copy of /" in result.stderr) == (2, True)
