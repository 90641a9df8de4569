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


def test_a_report_that_is_not_there_says_what_there_is() -> None:
    assert "there is no run 'x'; it holds no runs" in run("report", "x").stderr
    run("send", "campaign.toml")
    (folder,) = runs()
    result = run("report", "x")
    assert result.exit_code == 2
    assert f"there is no run 'x'; the last are: {folder.name}" in result.stderr
    (folder / "report.json").unlink()
    assert "has no report.json; the run has not finished, or was killed" in run("report", folder.name).stderr
