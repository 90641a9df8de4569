"""``send``: what is asked before, what is sent, and what it ends in, against a mock server of its own."""

import os
from pathlib import Path

import orjson
import pytest

from tests.cli.sending import (
    APP_ID,
    CAMPAIGN,
    CANARY,
    admin,
    campaign,
    jobs,
    report,
    requests_of,
    run,
    runs,
    write_settings,
)

pytestmark = pytest.mark.usefixtures("sending_folder")


def test_a_campaign_is_sent_and_reported(sending_mock: str) -> None:
    result = run("send", "campaign.toml")
    assert result.exit_code == 0
    assert "black-friday: 5 of 5 accepted" in result.stdout
    assert "black-friday: 5 recipients to send of 5 rows" in result.stderr
    found = report()
    assert (found["jobs"]["read"], found["jobs"]["accepted"]) == (5, 5)
    assert requests_of(sending_mock, "create_notification") == 1
    (folder,) = runs()
    assert CANARY.encode() not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_the_result_for_programs_is_the_report() -> None:
    result = run("send", "campaign.toml", "--json")
    shown = orjson.loads(result.stdout)
    assert {name: value for name, value in shown.items() if name not in {"directory", "why"}} == report()
    assert shown["directory"] == str(runs()[0])


def test_jobs_from_standard_input_are_kept_in_the_runs_directory() -> None:
    result = run("send", "-", "--name", "orders", typed=jobs(3))
    assert result.exit_code == 0
    assert "orders: 3 of 3 accepted" in result.stdout
    assert (runs()[0] / "input.jsonl").read_bytes() == jobs(3)
    assert runs()[0].name.split("-")[1] == "orders"


def test_more_than_a_thousand_recipients_need_yes_where_nobody_can_be_asked(sending_mock: str) -> None:
    campaign(*(f"u-{n}" for n in range(1001)))
    result = run("send", "campaign.toml")
    assert result.exit_code == 2
    assert (
        "black-friday: 1,001 recipients are more than 1,000, and nobody can be asked here; add --yes" in result.stderr
    )
    assert requests_of(sending_mock, "create_notification") == 0
    assert not runs()
    assert run("send", "campaign.toml", "--yes").exit_code == 0
    assert requests_of(sending_mock, "create_notification") == 1


@pytest.mark.parametrize(("typed", "code", "requests"), [("black-friday\n", 0, 1), ("yes\n", 2, 0)])
def test_on_a_terminal_the_campaigns_name_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, sending_mock: str, typed: str, code: int, requests: int
) -> None:
    for module in ("asking", "send"):
        monkeypatch.setattr(f"sendengine.cli.{module}.can_ask", lambda: True)
    campaign(*(f"u-{n}" for n in range(1001)))
    result = run("send", "campaign.toml", typed=typed)
    assert result.exit_code == code
    assert "1,001 of 7,000,000 deliveries in 15 minutes" in result.stderr
    assert requests_of(sending_mock, "create_notification") == requests
    assert len(runs()) == requests


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--expect", "5"], 0),
        (["--expect", "6"], 2),
        (["--expect", "6", "--within", "20%"], 0),
        (["--expect", "6", "--within", "0.1"], 2),
    ],
)
def test_another_count_than_expected_stops_before_the_first_request(
    sending_mock: str, flags: list[str], code: int
) -> None:
    result = run("send", "campaign.toml", *flags)
    assert result.exit_code == code
    assert requests_of(sending_mock, "create_notification") == (0 if code else 1)
    assert bool(runs()) == (not code)
    assert ("--expect 6: the input has 5 recipients to send" in result.stderr) == bool(code)


@pytest.mark.parametrize(
    "flags",
    [
        ["--share", "0"],
        ["--share", "1.5"],
        ["--share", "nan"],
        ["--share", "1e-320"],  # it would divide by nothing
        ["--rate", "1e-320"],
        ["--rate", "0.01"],
        ["--rate", "0"],
        ["--rate", "nan"],
        ["--rate", "inf"],
        ["--within", "many"],
        ["--max-outage", "long"],
        ["--max-outage", "-1"],
        ["--max-outage", "nan"],
        ["--max-outage", "inf"],
        ["--max-outage", "h"],
        ["--within", "2%"],  # of what?
        ["--max-error-rate", "101%"],
        ["--test", ""],  # a shell's variable that is empty must not send to everybody
        ["--test", " , "],
    ],
)
def test_impossible_options_are_usage_errors(flags: list[str]) -> None:
    result = run("send", "campaign.toml", *flags)
    assert result.exit_code == 2
    assert flags[0] in result.stderr
    assert not runs()


def test_a_campaign_has_its_name_in_its_file() -> None:
    result = run("send", "campaign.toml", "--name", "another")
    assert result.exit_code == 2
    assert "--name is for jobs" in result.stderr


@pytest.mark.parametrize("arguments", [("\udcff.jsonl",), ("jobs.jsonl", "--name", "\udcff")])
def test_a_name_that_is_no_text_is_refused(arguments: tuple[str, ...]) -> None:
    Path(os.fsdecode(arguments[0])).write_bytes(jobs(1))
    result = run("send", *arguments)
    assert result.exit_code == 2
    assert "'\\udcff" in result.stderr
    assert "the name is not UTF-8" in result.stderr
    assert not runs()


def test_a_campaign_to_nobody_begins_nothing_so_that_the_mended_file_can_be_sent(sending_mock: str) -> None:
    campaign()
    assert run("send", "campaign.toml").exit_code == 0
    campaign("u-1")
    assert run("send", "campaign.toml").exit_code == 0
    assert requests_of(sending_mock, "create_notification") == 1


def test_an_outage_stops_a_run_when_the_command_line_says_so_and_resume_may_say_otherwise(sending_mock: str) -> None:
    write_settings("http://127.0.0.1:9")
    stopped = run("send", "campaign.toml", "--max-outage", "0.2s")
    assert stopped.exit_code == 75
    assert "go on" in stopped.stderr.lower()
    assert run("resume", "latest", "--max-outage", "0").exit_code == 75
    write_settings(sending_mock)
    assert run("resume", "latest", "--max-outage", "6h").exit_code == 0


def test_invalid_rows_stop_a_send_unless_they_are_left_out(sending_mock: str) -> None:
    campaign("u-1", "null", "u-2")
    result = run("send", "campaign.toml")
    assert result.exit_code == 2
    assert "1 of 3 rows cannot be sent, and nothing was sent" in result.stderr
    assert "  line 3: external_id: " in result.stderr
    assert requests_of(sending_mock, "create_notification") == 0
    assert not runs()
    assert run("send", "campaign.toml", "--skip-invalid").exit_code == 0
    assert (report()["jobs"]["accepted"], report()["jobs"]["invalid"]) == (2, 1)
    assert (runs()[0] / "invalid.jsonl").read_text().count("\n") == 1


def test_recipients_that_are_refused_end_in_3_and_can_be_read_about(sending_mock: str) -> None:
    campaign("u-1", "poison", "u-2")
    result = run("send", "campaign.toml")
    assert result.exit_code == 3
    assert "black-friday: 2 of 3 accepted" in result.stdout
    assert "what was not accepted, and why: " in result.stdout
    assert "poison" in (runs()[0] / "failures.jsonl").read_text()
    assert admin(sending_mock, "ledger")["recipients"] == 2


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--fail-on", "unreachable"], 3)])
def test_unreachable_recipients_fail_only_where_that_is_asked_for(flags: list[str], code: int) -> None:
    campaign("gone")
    assert run("send", "campaign.toml", *flags).exit_code == code
    assert report()["jobs"]["unreachable"] == 1


def test_a_wrong_key_costs_one_request_ends_in_4_and_is_never_shown(
    sending_mock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "os_v2_app_wrong55")
    result = run("send", "campaign.toml")
    assert result.exit_code == 4
    assert "os_v2_app_wrong55" not in result.output
    assert "held" in result.stdout
    assert requests_of(sending_mock, "create_notification") == 1
    (folder,) = runs()
    assert b"os_v2_app_wrong55" not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_a_missing_key_ends_in_2_and_leaves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_KEY")
    result = run("send", "campaign.toml")
    assert result.exit_code == 2
    assert "the environment variable SHOP_KEY is not set; export it" in result.stderr
    assert not runs()


def test_a_key_of_an_app_that_is_not_used_need_not_be_there() -> None:
    with Path("sendengine.toml").open("a") as file:
        file.write(f'[apps.other]\napp_id = "{APP_ID}"\napi_key = "$NOT_SET_AT_ALL"\n')
    assert run("send", "campaign.toml").exit_code == 0


def test_an_app_that_is_not_configured_is_named() -> None:
    campaign("u-1", text=CAMPAIGN.replace('app = "shop"', 'app = "shoe"'))
    result = run("send", "campaign.toml")
    assert result.exit_code == 2
    assert "campaign.app: 'shoe' is not configured; did you mean" in result.stderr


def test_a_run_directory_that_cannot_be_made_ends_in_5() -> None:
    Path("taken").write_text("")
    result = run("send", "campaign.toml", "--runs-dir", "taken/runs")
    assert result.exit_code == 5
    assert "taken/runs: cannot be written or read" in result.stderr


def test_a_state_directory_that_refuses_ends_in_5_and_leaves_no_run(sending_mock: str) -> None:
    with Path("sendengine.toml").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(f'state_dir = "state"\n{text}')
    Path("state").mkdir()
    Path("state/begun").write_text("")
    result = run("send", "campaign.toml")
    assert result.exit_code == 5
    assert "cannot be written or read" in result.stderr
    assert runs() == []
    assert admin(sending_mock, "ledger")["recipients"] == 0


def test_what_a_send_writes_is_for_its_owner_alone() -> None:
    assert run("send", "campaign.toml").exit_code == 0
    written = [*Path("runs").rglob("*"), *Path(".sendengine").rglob("*"), Path("runs"), Path(".sendengine")]
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in written}
    assert modes == {(True, 0o700), (False, 0o600)}
