"""Small files of a run that are damaged or half gone: what they said is made anew, or left out and named."""

import shutil
from pathlib import Path

import orjson
import pytest

from tests.cli.sending import admin, campaign, run, runs

pytestmark = pytest.mark.usefixtures("sending_folder")


def sent() -> Path:
    """A campaign that was sent; its process died before it could say so."""
    assert run("send", "campaign.toml").exit_code == 0
    (folder,) = runs()
    (folder / "report.json").rename("report.json")
    return folder


def test_a_run_whose_note_that_it_was_begun_is_damaged_goes_on(sending_mock: str) -> None:
    folder = sent()
    (note,) = Path(".sendengine/begun").iterdir()
    note.write_bytes(note.read_bytes()[:30])
    refused = run("send", "campaign.toml")
    assert (refused.exit_code, "says that this was begun before" in refused.stderr) == (5, True)
    result = run("resume", "latest")
    assert (result.exit_code, "is damaged, and says that this was begun before" in result.stderr) == (0, True)
    assert sorted(path.name for path in note.parent.iterdir()) == [note.name, f"{note.name}.damaged"]
    again = run("send", "campaign.toml")
    assert (again.exit_code, f"as run {folder.name}, which has finished" in again.stderr) == (2, True)
    assert admin(sending_mock, "ledger")["recipients"] == 5


def test_a_run_that_never_sent_anything_does_not_claim_a_note_that_is_damaged() -> None:
    folder = sent()
    for journal in folder.glob("journal.db*"):
        journal.unlink()
    (note,) = Path(".sendengine/begun").iterdir()
    note.write_bytes(b"{")
    assert run("resume", "latest").exit_code == 5
    assert note.read_bytes() == b"{"


def test_a_damaged_report_is_made_anew(sending_mock: str) -> None:
    folder = sent()
    (folder / "report.json").write_bytes(b'{"schema": 1, "run')
    shown = run("report", "latest")
    assert (shown.exit_code, f"to have it made anew: sendengine resume {folder.name}" in shown.stderr) == (5, True)
    result = run("resume", "latest", "--json")
    assert (result.exit_code, "it is kept as report.json.damaged, and made anew" in result.stderr) == (0, True)
    before = orjson.loads(Path("report.json").read_bytes())
    assert orjson.loads((folder / "report.json").read_bytes())["jobs"] == before["jobs"]
    ledger = admin(sending_mock, "ledger")
    assert (ledger["recipients"], ledger["replays"]) == (5, 0)


def test_damaged_orders_are_forgotten() -> None:
    folder = sent()
    (folder / "control.json").write_bytes(b'{"number": 3, "is_pau')
    assert run("resume", "latest").exit_code == 0
    assert orjson.loads((folder / "control.json").read_bytes())["is_paused"] is False


def test_a_failure_that_cannot_be_read_is_left_out_of_a_retry_and_named() -> None:
    campaign("u-1", "poison", "u-2")
    assert run("send", "campaign.toml").exit_code == 3
    (folder,) = runs()
    failures = folder / "failures.jsonl"
    line = failures.read_bytes()
    failures.write_bytes(b"?" + line[1:])
    result = run("retry", "latest")
    assert (result.exit_code, "left out: 1 failure: cannot be read any more" in result.stderr) == (0, True)
    failures.write_bytes(line)
    assert run("retry", "latest").exit_code == 3


def test_lines_that_are_gone_are_missed(caplog: pytest.LogCaptureFixture) -> None:
    campaign("u-1", "poison", "u-2")
    assert run("send", "campaign.toml").exit_code == 3
    (folder,) = runs()
    (folder / "failures.jsonl").write_bytes(b"")
    assert run("retry", "latest").exit_code == 0
    assert "failures.jsonl: has lost its end" in caplog.text
    (folder / "report.json").unlink()
    run("resume", "latest")
    assert "failures.jsonl has lost its end: 0 of" in caplog.text


def test_a_run_that_is_half_thrown_away_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sent()

    def die(path: Path) -> None:
        (path / "journal.db").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        assert run("runs", "prune", "--older-than", "0", "--force").exit_code == 130
    refused = run("resume", folder.name)
    assert (refused.exit_code, "nothing of this run can be resumed" in refused.stderr) == (2, True)
    assert run("runs", "prune", "--older-than", "0").exit_code == 0
    assert runs() == []
