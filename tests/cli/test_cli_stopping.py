"""Signals: the first lets the wire finish, the second gives it up."""

import subprocess
from pathlib import Path
from typing import cast

import pytest

from sendengine.campaign.exits import Exit
from tests.cli.sending import PERSONAL, admin, behave, campaign, jobs, report, requests_of, run, runs
from tests.support.programs import LIMIT_S, SENDENGINE, started, until, watched


@pytest.fixture
def slow_url(any_mock: str, sending_folder: Path) -> str:
    """A mock server that takes its time, so that a signal finds something on the wire."""
    assert Path.cwd() == sending_folder  # whose settings say where the server is
    behave(any_mock, latency_ms=800)
    return any_mock


def stopped_run(slow_url: str, *, signals: int) -> tuple[int, list[str]]:
    """Send, signal when a request is on the wire, and once more when it says that it stops."""
    campaign(*(f"u-{n}" for n in range(3000)), text=PERSONAL)
    command = (*SENDENGINE, "send", "campaign.toml", "--yes")
    with started(*command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process, watched(process):
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("Sending;"):
                until(lambda: requests_of(slow_url, "create_notification") > 0, process)
                process.terminate()
            elif signals > 1 and line.startswith("Stopping"):
                process.terminate()
        return process.wait(LIMIT_S), said


def test_one_signal_lets_what_is_on_the_wire_finish_and_ends_in_75(slow_url: str) -> None:
    code, said = stopped_run(slow_url, signals=1)
    assert code == 75
    assert any(line.startswith("Stopping: nothing more is sent") for line in said)
    assert any(line.startswith(f"Go on: sendengine resume {runs()[0].name}") for line in said)
    found = report()
    assert cast("int", found["exit_code"]) == 75
    assert found["jobs"]["accepted"] >= 1  # what was on the wire has finished
    assert found["jobs"]["accepted"] + found["jobs"]["abandoned"] == found["jobs"]["read"]


def test_two_signals_end_in_130(slow_url: str) -> None:
    code, said = stopped_run(slow_url, signals=2)
    assert code == 130
    assert any(line.startswith("Aborting") for line in said)
    assert cast("int", report()["exit_code"]) == 130


@pytest.mark.usefixtures("sending_folder")
def test_a_signal_before_anything_is_sent_ends_in_130_and_leaves_nothing() -> None:
    with started(*SENDENGINE, "send", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: any(Path().glob("runs/*/input.jsonl")), process)
        process.terminate()
        assert process.wait(LIMIT_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "sendengine: stopped\n"
    assert runs() == []


@pytest.mark.usefixtures("sending_folder")
def test_a_signal_while_a_begun_run_still_opens_its_engine_says_how_to_go_on(
    sending_mock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that prints the key may ask somebody, who gives up: what was begun is refused from then on."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    Path("jobs.jsonl").write_bytes(jobs(3))
    with monkeypatch.context() as patch:
        patch.setattr("sendengine.cli.carrying.run", interrupted)
        result = run("send", "jobs.jsonl", "--yes")
    assert result.exit_code == Exit.ABORTED
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Go on: sendengine "))
    assert run(*line.split()[3:]).exit_code == 0
    assert admin(sending_mock, "ledger")["recipients"] == 3
