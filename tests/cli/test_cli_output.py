"""What becomes of a command where its output cannot be written, or nobody reads it."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from sendengine.cli.commands import cli
from sendengine.cli.output import note
from tests.cli.sending import CAMPAIGN, PERSONAL, campaign, report, run, runs
from tests.support.programs import SENDENGINE, ended, line_of, started

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs Linux's device that is always full")


def test_what_is_said_where_standard_error_is_closed_is_said_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    note("to nobody")


def test_what_is_said_to_a_stream_that_fails_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(28, "No space left on device", text)

    monkeypatch.setattr(sys, "stderr", Failing())  # which has no descriptor either
    note("to nobody")


@pytest.mark.usefixtures("sending_folder")
def test_a_run_that_nobody_listens_to_goes_on_can_be_stopped_and_says_so_by_its_code() -> None:
    campaign("u-1", "u-2", "u-3", "u-4", "u-5", text=PERSONAL)
    command = (*SENDENGINE, "send", "campaign.toml", "--rate", "0.5")
    with started(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not line_of(process).startswith("Sending"):
            pass
        assert process.stdout is not None
        process.stdout.close()  # as `| tee log` leaves it, whose Ctrl-C comes first
        process.stdout = None
        process.send_signal(signal.SIGINT)
        ended(process)
        assert process.returncode == 75
    assert report()["jobs"]["abandoned"] > 0


@pytest.mark.usefixtures("sending_folder")
def test_standard_streams_may_be_closed_before_it_begins() -> None:
    closed = ("sh", "-c", 'exec "$@" <&- 2>&-', "sh", *SENDENGINE, "send")
    with started(*closed, "campaign.toml", stdout=subprocess.PIPE) as process:
        output, _ = ended(process)
        assert (process.returncode, output.partition("\n")[0]) == (0, "black-friday: 5 of 5 accepted")
    with started("sh", "-c", 'exec "$@" <&-', "sh", *SENDENGINE, "send", "-", stderr=subprocess.PIPE) as process:
        _, errors = ended(process)
        assert (process.returncode, errors.partition(";")[0]) == (2, "sendengine: -: standard input is closed")


@pytest.mark.usefixtures("sending_folder")
def test_what_the_locale_cannot_write_ends_no_run_in_a_traceback_and_spoils_no_json() -> None:
    campaign("u-1", text=CAMPAIGN.replace("black-friday", "Größe €"))
    there = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    with started(
        *SENDENGINE, "send", "campaign.toml", stdout=subprocess.PIPE, encoding="latin-1", env=there
    ) as process:
        output, _ = ended(process)
        assert (process.returncode, output.partition("\n")[0]) == (0, "Größe \\u20ac: 1 of 1 accepted")
    with started(
        *SENDENGINE, "report", "latest", "--json", stdout=subprocess.PIPE, encoding="utf-8", env=there
    ) as process:
        output, _ = ended(process)
        assert orjson.loads(output)["name"] == "Größe €"


@needs_full
@pytest.mark.usefixtures("sending_folder")
def test_a_full_disk_under_the_log_stops_no_run() -> None:
    with FULL.open("w") as full, started(*SENDENGINE, "send", "campaign.toml", stdout=full, stderr=full) as process:
        ended(process)
        assert process.returncode == 5  # its result could not be written either
    assert report()["jobs"]["accepted"] == 5
    with (
        FULL.open("w") as full,
        started(*SENDENGINE, "send", "campaign.toml", "--edition", "2", stdout=subprocess.PIPE, stderr=full) as process,
    ):
        output, _ = ended(process)
        assert (process.returncode, output.partition("\n")[0]) == (0, "black-friday: 5 of 5 accepted")


@needs_full
@pytest.mark.parametrize("command", [("config", "show"), ("config", "show", "--json")])
def test_a_result_that_cannot_be_written_is_an_error_and_no_traceback(command: tuple[str, ...], tmp_path: Path) -> None:
    CliRunner().invoke(cli, ["init", "--config", str(tmp_path / "s.toml")])
    full = os.open(FULL, os.O_WRONLY)
    with started(
        *SENDENGINE, *command, "--config", str(tmp_path / "s.toml"), stdout=full, stderr=subprocess.PIPE
    ) as process:
        os.close(full)
        _, errors = ended(process)
        assert errors == "sendengine: standard output cannot be written: No space left on device\n"
        assert process.returncode == 5


@pytest.mark.usefixtures("sending_folder")
def test_a_directory_whose_name_is_no_text_is_refused_before_anything_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnamed = os.fsdecode(b"\xff")
    result = run("send", "campaign.toml", "--runs-dir", unnamed)
    assert (result.exit_code, "the name is not UTF-8; the manifest has to hold it" in result.stderr) == (2, True)
    tmp_path.rename(tmp_path.parent / unnamed)
    monkeypatch.chdir(tmp_path.parent / unnamed)
    result = run("send", "campaign.toml")
    assert (result.exit_code, "the name is not UTF-8; the manifest has to hold it" in result.stderr) == (2, True)
    assert runs() == []
    result = run("send", "campaign.toml", "--runs-dir", str(tmp_path / "runs"))
    assert (result.exit_code, "the name is not UTF-8; the manifest has to hold it" in result.stderr) == (2, True)
    assert not tmp_path.exists()


@pytest.mark.usefixtures("sending_folder")
def test_a_working_directory_that_is_gone_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    given = (str(tmp_path / "campaign.toml"), "--config", str(tmp_path / "sendengine.toml"))
    result = run("send", *given)
    assert (result.exit_code, "sendengine: runs: cannot be written or read: No such" in result.stderr) == (5, True)
    assert run("send", *given, "--runs-dir", str(tmp_path / "runs")).exit_code == 0
    assert "runs cannot be written to: No such file or directory" in run("doctor", *given[1:]).stdout
