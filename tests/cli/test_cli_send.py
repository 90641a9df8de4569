"""``validate``, ``send`` and ``report`` against a mock server in a process of its own."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.request import Request, urlopen

import orjson
import pytest
from click.testing import CliRunner, Result

from sendengine.cli.commands import cli

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
CANARY = "os_v2_app_canary7f3a"
SENDENGINE = (sys.executable, "-c", "from sendengine.cli.main import main; main()")
CAMPAIGN = """\
[campaign]
name = "black-friday"
app = "shop"
channel = "push"
message.contents.en = "24 hours only"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
"""
PERSONAL = CAMPAIGN.replace("message.contents.en", 'message.template_id = "x"\nmessage.name').replace(
    "[campaign.recipients]", '[campaign.custom_data]\nfirst_name = "external_id"\n[campaign.recipients]'
)


@pytest.fixture(scope="module")
def mock_url() -> Iterator[str]:
    """One mock server for all: it takes one key, has an unsubscribed user and one that spoils a request."""
    command = [*SENDENGINE, "mock", "--json", "--api-key", CANARY, "--unsubscribed", "gone", "--poisoned", "poison"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
        assert process.stdout is not None
        yield orjson.loads(process.stdout.readline())["base_url"]
        process.terminate()
        process.communicate(timeout=20)


def admin(base_url: str, path: str, *, method: str = "GET") -> dict[str, object]:
    request = Request(f"{base_url}/__mock__/{path}", method=method)  # noqa: S310 - loopback
    with urlopen(request, timeout=20) as reply:  # noqa: S310 - loopback
        return cast("dict[str, object]", orjson.loads(reply.read()))


@pytest.fixture(autouse=True)
def _in_a_folder_with_settings(mock_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admin(mock_url, "reset", method="POST")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_KEY", CANARY)
    Path("sendengine.toml").write_text(
        f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "$SHOP_KEY"\nplan = "paid"\nbase_url = "{mock_url}"\n'
    )
    campaign("u-1", "u-2", "u-3", "u-4", "u-5")


def campaign(*ids: str, text: str = CAMPAIGN) -> None:
    Path("campaign.toml").write_text(text)
    Path("recipients.csv").write_text("external_id\n" + "".join(f"{item}\n" for item in ids))


def jobs(count: int) -> bytes:
    job = {"kind": "create_notification", "message": {"contents": {"en": "Hi"}}, "channel": "push"}
    return b"".join(orjson.dumps({**job, "to": {"external_id": [f"u-{n}"]}}) + b"\n" for n in range(count))


def run(*arguments: str, typed: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, list(arguments), input=typed, prog_name="sendengine")
    assert CANARY not in result.output, "the key was shown"
    assert "Traceback" not in result.output
    return result


def runs() -> list[Path]:
    return sorted(Path("runs").iterdir()) if Path("runs").exists() else []


def report() -> dict[str, dict[str, int]]:
    (folder,) = runs()
    return cast("dict[str, dict[str, int]]", orjson.loads((folder / "report.json").read_bytes()))


def requests_of(base_url: str, lane: str) -> int:
    lanes = cast("list[dict[str, object]]", admin(base_url, "ledger")["lanes"])
    return sum(cast("int", found["requests"]) for found in lanes if found["lane"] == lane)


# validate


def test_validate_counts_what_is_to_be_sent() -> None:
    campaign("u-1", "u-2", "u-1")
    result = run("validate", "campaign.toml")
    assert (result.exit_code, result.stdout) == (
        0,
        "black-friday: 2 recipients to send of 3 rows\n  left out: 1 duplicates\n  shop, push: 2 recipients\n",
    )


def test_validate_lists_faults_with_line_field_and_reason() -> None:
    campaign("u-1", "null", "u-2")
    result = run("validate", "campaign.toml")
    assert result.exit_code == 2
    assert "  line 3: external_id: " in result.stderr
    found = orjson.loads(run("validate", "campaign.toml", "--json").stdout)
    assert (found["rows"], found["to_send"], found["left_out"]["invalid"]) == (3, 2, 1)
    assert found["faults"][0]["line"] == 3


def test_validate_shows_twenty_faults_and_how_many_more() -> None:
    campaign(*["null"] * 25)
    lines = run("validate", "campaign.toml").stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "  and 5 more"


def test_validate_reads_standard_input() -> None:
    result = run("validate", "-", typed=jobs(3))
    assert (result.exit_code, result.stdout) == (
        0,
        "standard-input: 3 jobs to send of 3 rows\n  shop, push: 3 recipients\n",
    )
    assert not runs()


def test_an_input_that_is_not_there_is_an_error() -> None:
    for command in ("validate", "send"):
        result = run(command, "none.toml")
        assert result.exit_code == 2
        assert result.stderr == "sendengine: none.toml: there is no such file\n"


# send --dry-run


def test_a_dry_run_shows_requests_numbers_and_limit_and_sends_nothing(mock_url: str) -> None:
    campaign(*(f"u-{n}" for n in range(4500)))
    result = run("send", "campaign.toml", "--dry-run")
    assert result.exit_code == 0
    assert "black-friday: 4,500 recipients to send of 4,500 rows" in result.stdout
    assert "shop/create_notification: 3 requests, under 0.1 s at its ceiling of 6,000/s" in result.stdout
    # the mock server has 1,000,000 subscribed users: 10 times as many, of which 0.7
    assert "application limit of shop: 4,500 of 7,000,000 deliveries in 15 minutes (0.1%)" in result.stdout
    assert result.stdout.count("POST /notifications") == 3
    assert result.stdout.count("… and 1,997 more recipients") == 2
    assert result.stdout.count("… and 497 more recipients") == 1
    assert requests_of(mock_url, "create_notification") == 0
    assert not runs()


def test_a_dry_run_for_programs_has_it_all(mock_url: str) -> None:
    Path("jobs.jsonl").write_bytes(
        jobs(3) + b'{"kind":"update_user","user":{"external_id":"a/b"},"tags":{"level":5,"old":null}}\n'
    )
    found = orjson.loads(run("send", "jobs.jsonl", "--dry-run", "--json").stdout)
    assert found["requests"] == {"shop/create_notification": 3, "shop/update_user": 1}
    assert found["application_limit"] == [{"app": "shop", "deliveries": 3, "most": 7_000_000}]
    assert [sample["method"] for sample in found["samples"]] == ["POST", "POST", "POST"]
    assert found["samples"][0]["body"]["include_aliases"] == {"external_id": ["u-0"]}
    assert requests_of(mock_url, "update_user") == 0


def test_a_dry_run_works_without_a_key_and_says_that_the_limit_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_KEY")
    result = run("send", "campaign.toml", "--dry-run")
    assert result.exit_code == 0
    assert "application limit of shop: not known" in result.stdout


# send


def test_a_campaign_is_sent_and_reported(mock_url: str) -> None:
    result = run("send", "campaign.toml")
    assert result.exit_code == 0
    assert "black-friday: 5 of 5 accepted" in result.stdout
    assert "black-friday: 5 recipients to send of 5 rows" in result.stderr
    found = report()
    assert (found["jobs"]["read"], found["jobs"]["accepted"]) == (5, 5)
    assert requests_of(mock_url, "create_notification") == 1
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


def test_more_than_a_thousand_recipients_need_yes_where_nobody_can_be_asked(mock_url: str) -> None:
    campaign(*(f"u-{n}" for n in range(1001)))
    result = run("send", "campaign.toml")
    assert result.exit_code == 2
    assert (
        "black-friday: 1,001 recipients are more than 1,000, and nobody can be asked here; add --yes" in result.stderr
    )
    assert requests_of(mock_url, "create_notification") == 0
    assert not runs()
    assert run("send", "campaign.toml", "--yes").exit_code == 0
    assert requests_of(mock_url, "create_notification") == 1


@pytest.mark.parametrize(("typed", "code", "requests"), [("black-friday\n", 0, 1), ("yes\n", 2, 0)])
def test_on_a_terminal_the_campaigns_name_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, mock_url: str, typed: str, code: int, requests: int
) -> None:
    for module in ("asking", "send"):
        monkeypatch.setattr(f"sendengine.cli.{module}.is_terminal", lambda: True)
    campaign(*(f"u-{n}" for n in range(1001)))
    result = run("send", "campaign.toml", typed=typed)
    assert result.exit_code == code
    assert "1,001 of 7,000,000 deliveries in 15 minutes" in result.stderr
    assert requests_of(mock_url, "create_notification") == requests
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
def test_another_count_than_expected_stops_before_the_first_request(mock_url: str, flags: list[str], code: int) -> None:
    result = run("send", "campaign.toml", *flags)
    assert result.exit_code == code
    assert requests_of(mock_url, "create_notification") == (0 if code else 1)
    assert bool(runs()) == (not code)
    assert ("--expect 6: the input has 5 recipients to send" in result.stderr) == bool(code)


def test_a_test_goes_to_the_named_recipients_alone_under_keys_of_its_own(mock_url: str) -> None:
    result = run("send", "campaign.toml", "--test", "u-2, u-4")
    assert (result.exit_code, "  a test: to 2 recipients alone\n" in result.stderr) == (0, True)
    assert admin(mock_url, "ledger")["recipients"] == 2
    assert run("send", "campaign.toml").exit_code == 0
    ledger = admin(mock_url, "ledger")
    assert (ledger["recipients"], ledger["replays"]) == (7, 0)
    assert [folder.name.split("-", 3)[1:3] for folder in runs()] == [["black", "friday"]] * 2


def test_the_same_campaign_sent_again_by_mistake_is_refused(mock_url: str) -> None:
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
    assert admin(mock_url, "ledger")["recipients"] == 5
    campaign("u-1", "u-2", "u-3", "u-4", "u-5")
    assert run("send", "campaign.toml", "--edition", "2").exit_code == 0
    assert admin(mock_url, "ledger")["recipients"] == 10


def test_the_same_campaign_from_another_state_directory_reaches_nobody_twice(mock_url: str) -> None:
    for folder in ("here", "there"):
        with Path("sendengine.toml").open("r+") as file:
            text = file.read()
            file.seek(0)
            file.write(f'state_dir = "{folder}"\n' + text.partition("\n")[2] if text.startswith("state") else "")
            file.write("" if text.startswith("state") else f'state_dir = "{folder}"\n{text}')
        assert run("send", "campaign.toml", "--runs-dir", folder).exit_code == 0
    ledger = admin(mock_url, "ledger")
    assert (ledger["recipients"], ledger["replays"]) == (5, 1)


def test_a_jobs_file_of_the_same_content_is_refused_whatever_its_name(mock_url: str) -> None:
    Path("jobs.jsonl").write_bytes(jobs(3))
    Path("copy.jsonl").write_bytes(jobs(3))
    assert run("send", "jobs.jsonl").exit_code == 0
    result = run("send", "copy.jsonl")
    assert result.exit_code == 2
    assert "was begun before" in result.stderr
    assert run("send", "copy.jsonl", "--edition", "2").exit_code == 0
    assert admin(mock_url, "ledger")["recipients"] == 6
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


@pytest.mark.parametrize(
    "flags",
    [["--share", "0"], ["--share", "1.5"], ["--rate", "0"], ["--within", "many"], ["--max-error-rate", "101%"]],
)
def test_impossible_options_are_usage_errors(flags: list[str]) -> None:
    assert run("send", "campaign.toml", *flags).exit_code == 2
    assert not runs()


def test_invalid_rows_stop_a_send_unless_they_are_left_out(mock_url: str) -> None:
    campaign("u-1", "null", "u-2")
    result = run("send", "campaign.toml")
    assert result.exit_code == 2
    assert "1 of 3 rows cannot be sent, and nothing was sent" in result.stderr
    assert "  line 3: external_id: " in result.stderr
    assert requests_of(mock_url, "create_notification") == 0
    assert not runs()
    assert run("send", "campaign.toml", "--skip-invalid").exit_code == 0
    assert (report()["jobs"]["accepted"], report()["jobs"]["invalid"]) == (2, 1)
    assert (runs()[0] / "invalid.jsonl").read_text().count("\n") == 1


def test_recipients_that_are_refused_end_in_3_and_can_be_read_about(mock_url: str) -> None:
    campaign("u-1", "poison", "u-2")
    result = run("send", "campaign.toml")
    assert result.exit_code == 3
    assert "black-friday: 2 of 3 accepted" in result.stdout
    assert "what was not accepted, and why: " in result.stdout
    assert "poison" in (runs()[0] / "failures.jsonl").read_text()
    assert admin(mock_url, "ledger")["recipients"] == 2


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--fail-on", "unreachable"], 3)])
def test_unreachable_recipients_fail_only_where_that_is_asked_for(flags: list[str], code: int) -> None:
    campaign("gone")
    assert run("send", "campaign.toml", *flags).exit_code == code
    assert report()["jobs"]["unreachable"] == 1


def test_a_wrong_key_costs_one_request_ends_in_4_and_is_never_shown(
    mock_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "os_v2_app_wrong55")
    result = run("send", "campaign.toml")
    assert result.exit_code == 4
    assert "os_v2_app_wrong55" not in result.output
    assert "held" in result.stdout
    assert requests_of(mock_url, "create_notification") == 1
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


def test_a_state_directory_that_refuses_ends_in_5_and_leaves_no_run(mock_url: str) -> None:
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
    assert admin(mock_url, "ledger")["recipients"] == 0


def test_what_a_send_writes_is_for_its_owner_alone() -> None:
    assert run("send", "campaign.toml").exit_code == 0
    written = [*Path("runs").rglob("*"), *Path(".sendengine").rglob("*"), Path("runs"), Path(".sendengine")]
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in written}
    assert modes == {(True, 0o700), (False, 0o600)}


# report


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


# Signals


@pytest.fixture(scope="module")
def slow_url() -> Iterator[str]:
    """A mock server that takes its time, so that a signal finds something on the wire."""
    command = [*SENDENGINE, "mock", "--json", "--latency-ms", "800"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
        assert process.stdout is not None
        yield orjson.loads(process.stdout.readline())["base_url"]
        process.terminate()
        process.communicate(timeout=20)


def stopped_run(slow_url: str, *, signals: int) -> tuple[int, list[str]]:
    """Send, signal when a request is on the wire, and once more when it says that it stops."""
    before = requests_of(slow_url, "create_notification")
    settings = Path("sendengine.toml").read_text().split("base_url")[0] + f'base_url = "{slow_url}"\n'
    Path("sendengine.toml").write_text(settings)
    campaign(*(f"u-{n}" for n in range(3000)), text=PERSONAL)
    command = [*SENDENGINE, "send", "campaign.toml", "--yes"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:  # noqa: S603 - our own program
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("Sending;"):
                while requests_of(slow_url, "create_notification") == before:
                    assert process.poll() is None, said
                process.terminate()
            elif signals > 1 and line.startswith("Stopping"):
                process.terminate()
        return process.wait(timeout=30), said


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
