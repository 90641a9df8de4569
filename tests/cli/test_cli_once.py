"""The same sent again by mistake, from here and from elsewhere; tests and dry runs count for nothing."""

import gzip
from pathlib import Path
from typing import cast

import pytest

from sendengine.cli.preparing import RunPlace
from tests.cli.sending import APP_ID, admin, campaign, jobs, report, run, runs

pytestmark = pytest.mark.usefixtures("sending_folder")


def test_a_test_goes_to_the_named_recipients_alone_under_keys_of_its_own(sending_mock: str) -> None:
    result = run("send", "campaign.toml", "--test", "u-2, u-4")
    assert (result.exit_code, "  a test: to 2 recipients alone\n" in result.stderr) == (0, True)
    assert admin(sending_mock, "ledger")["recipients"] == 2
    assert run("send", "campaign.toml").exit_code == 0
    ledger = admin(sending_mock, "ledger")
    assert (ledger["recipients"], ledger["replays"]) == (7, 0)
    assert [folder.name.split("-", 3)[1:3] for folder in runs()] == [["black", "friday"]] * 2


def test_the_same_campaign_sent_again_by_mistake_is_refused(sending_mock: str) -> None:
    assert run("send", "campaign.toml").exit_code == 0
    (folder,) = runs()
    result = run("send", "campaign.toml")
    assert result.exit_code == 2
    assert (
        f"as run {folder.name}, which has finished: sendengine report {folder.name}; to send it again" in result.stderr
    )
    assert "--edition 2" in result.stderr
    assert runs() == [folder]
    campaign("u-9", "u-8")  # whatever it says now
    assert run("send", "campaign.toml").exit_code == 2
    assert admin(sending_mock, "ledger")["recipients"] == 5
    campaign("u-1", "u-2", "u-3", "u-4", "u-5")
    assert run("send", "campaign.toml", "--edition", "2").exit_code == 0
    assert admin(sending_mock, "ledger")["recipients"] == 10


def test_an_app_is_the_same_in_capitals_and_small_letters(sending_mock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("send", "campaign.toml").exit_code == 0
    monkeypatch.setenv("SENDENGINE_APPS__SHOP__APP_ID", APP_ID.upper())
    result = run("send", "campaign.toml")
    assert (result.exit_code, "was begun before" in result.stderr) == (2, True)
    assert run("send", "campaign.toml", "--edition", "2").exit_code == 0
    assert len(list(Path(".sendengine").glob("volume-*.json"))) == 1
    assert admin(sending_mock, "ledger")["recipients"] == 10


def test_the_same_campaign_from_another_state_directory_reaches_nobody_twice(sending_mock: str) -> None:
    for folder in ("here", "there"):
        with Path("sendengine.toml").open("r+") as file:
            text = file.read()
            file.seek(0)
            file.write(f'state_dir = "{folder}"\n' + text.partition("\n")[2] if text.startswith("state") else "")
            file.write("" if text.startswith("state") else f'state_dir = "{folder}"\n{text}')
        assert run("send", "campaign.toml", "--runs-dir", folder).exit_code == 0
    ledger = admin(sending_mock, "ledger")
    assert (ledger["recipients"], ledger["replays"]) == (5, 1)


def test_a_jobs_file_of_the_same_content_is_refused_whatever_its_name(sending_mock: str) -> None:
    Path("jobs.jsonl").write_bytes(jobs(3))
    Path("copy.jsonl").write_bytes(jobs(3))
    assert run("send", "jobs.jsonl").exit_code == 0
    result = run("send", "copy.jsonl")
    assert result.exit_code == 2
    assert "was begun before" in result.stderr
    assert run("send", "copy.jsonl", "--edition", "2").exit_code == 0
    assert admin(sending_mock, "ledger")["recipients"] == 6
    Path("copy.jsonl.gz").write_bytes(gzip.compress(jobs(3)))
    assert run("send", "copy.jsonl.gz").exit_code == 2
    Path("copy.jsonl").write_bytes(jobs(4))
    assert run("send", "copy.jsonl").exit_code == 0


def test_a_dry_run_and_a_test_do_not_count_as_begun() -> None:
    assert run("send", "campaign.toml", "--dry-run").exit_code == 0
    assert run("send", "campaign.toml", "--test", "u-1").exit_code == 0
    assert run("send", "campaign.toml").exit_code == 0


def test_what_was_not_begun_after_all_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("SHOP_KEY")
        assert run("send", "campaign.toml").exit_code == 2
    result = run("send", "campaign.toml")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Run {runs()[0].name}\n")


def test_a_test_of_a_jobs_file_is_a_usage_error() -> None:
    Path("jobs.jsonl").write_bytes(jobs(3))
    result = run("send", "jobs.jsonl", "--test", "u-1")
    assert result.exit_code == 2
    assert "--test is for campaigns" in result.stderr


def test_share_and_rate_show_in_the_report() -> None:
    assert run("send", "campaign.toml", "--share", "0.5", "--rate", "100").exit_code == 0
    lane = cast("dict[str, float]", report()["lanes"]["shop/create_notification"])
    assert lane["ceiling"] == 100


def test_a_run_that_still_reads_its_input_is_not_thrown_away() -> None:
    place = RunPlace(Path("runs"))
    folder = place.get("jobs")
    assert run("runs", "prune", "--older-than", "0", "--force").exit_code == 0
    assert runs() == [folder.path]
    with place.held():
        assert folder.is_going_on
    assert not folder.is_going_on
    assert run("runs", "prune", "--older-than", "0").exit_code == 0
    assert runs() == []
