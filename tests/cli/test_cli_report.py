"""``report``: a run is found by its name, and what came of it is shown."""

import orjson
import pytest

from tests.cli.sending import run, runs

pytestmark = pytest.mark.usefixtures("sending_folder")


def test_a_report_is_found_by_name_by_the_start_of_it_by_directory_and_as_the_latest() -> None:
    run("send", "campaign.toml")
    (folder,) = runs()
    shown = [run("report", name) for name in (folder.name, folder.name[:12], str(folder), "latest")]
    assert {(result.exit_code, result.stdout) for result in shown} == {(0, shown[0].stdout)}
    assert "black-friday: 5 of 5 accepted" in shown[0].stdout
    assert orjson.loads(run("report", "latest", "--json").stdout)["jobs"]["accepted"] == 5


def test_a_run_is_found_from_within_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    run("send", "campaign.toml")
    (folder,) = runs()
    monkeypatch.chdir(folder)
    assert "black-friday: 5 of 5 accepted" in run("report", ".").stdout
    assert f"{folder.name}: has finished, and nothing is left to send" in (
        run("resume", ".", "--config", "../../sendengine.toml").stderr
    )


def test_an_empty_name_is_no_runs() -> None:
    run("send", "campaign.toml")
    result = run("report", "")
    assert (result.exit_code, "there is no run ''; the last are: " in result.stderr) == (2, True)


def test_a_report_that_is_not_there_says_what_there_is() -> None:
    assert "there is no run 'x'; it holds no runs" in run("report", "x").stderr
    run("send", "campaign.toml")
    (folder,) = runs()
    result = run("report", "x")
    assert result.exit_code == 2
    assert f"there is no run 'x'; the last are: {folder.name}" in result.stderr
    (folder / "report.json").unlink()
    result = run("report", folder.name)
    assert (
        "has no report.json; the run has not finished, or was killed; "
        f"to go on with it: sendengine resume {folder.name}" in result.stderr
    )


def test_a_run_goes_by_what_it_sends_too_where_no_other_sends_that() -> None:
    run("send", "campaign.toml")
    assert "black-friday: 5 of 5 accepted" in run("report", "black-friday").stdout
    assert run("status", "black-friday").exit_code == 0
    run("send", "campaign.toml", "--edition", "2")
    result = run("report", "black-friday")
    assert (result.exit_code, "2 runs send 'black-friday'; the last are: " in result.stderr) == (2, True)
    assert all(folder.name in result.stderr for folder in runs())


def test_a_journal_that_cannot_be_opened_ends_in_5_and_says_how_to_go_on() -> None:
    run("send", "campaign.toml")
    (folder,) = runs()
    (folder / "report.json").unlink()
    (folder / "journal.db").unlink()
    (folder / "journal.db").mkdir()
    result = run("resume", folder.name)
    assert result.exit_code == 5
    assert f"journal.db: Is a directory; when that is mended, go on: sendengine resume {folder.name}" in result.stderr
