"""``resume``, ``retry``, ``status``, ``pause``, ``runs`` and ``dead``, against a mock server in its own process."""

import asyncio
import shutil
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from sendengine import CreateNotification, SendEngine, external_id, load_settings
from sendengine.campaign import manifest as manifests
from sendengine.campaign.begun import RETRIES, Begun, Registry, retry_identity
from sendengine.campaign.rundir import RunDir
from sendengine.cli.commands import cli
from tests.cli.sending import APP_ID, admin, behave
from tests.support.programs import LIMIT_S, SENDENGINE, Program, ended, started, until

CAMPAIGN = """\
[campaign]
name = "spring"
app = "shop"
channel = "push"
message.contents.en = "Hi"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
"""
SLOW = "create_notification = 100"


@pytest.fixture
def mock_url(any_mock: str) -> str:
    behave(any_mock, default={"poisoned": ["poison"]}, latency_ms=20)
    return any_mock


@pytest.fixture(autouse=True)
def _in_a_folder_with_settings(mock_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings(mock_url)


def settings(mock_url: str, *, ceilings: str = SLOW, more: str = "") -> None:
    Path("sendengine.toml").write_text(
        f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "k"\nplan = "paid"\nsubscribed_users = 1000000\n'
        f'base_url = "{mock_url}"\n[apps.shop.ceilings]\n{ceilings}\n[retry]\nlost_reply_wait_s = 1\n{more}'
    )


def campaign(count: int, *, cap: int = 10) -> None:
    Path("campaign.toml").write_text(CAMPAIGN)
    Path("recipients.csv").write_text("external_id\n" + "".join(f"u-{n}\n" for n in range(count)))
    with Path("sendengine.toml").open("a") as file:
        file.write(f"[batching]\nmax_recipients_per_request = {cap}\n")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments), prog_name="sendengine")
    assert "Traceback" not in result.output
    return result


def runs() -> list[Path]:
    return sorted(Path("runs").iterdir()) if Path("runs").exists() else []


def ledger(url: str) -> dict[str, Any]:
    found = admin(url, "ledger")
    assert found["doubled"]["effects"] == 0
    return found


def sending(*arguments: str) -> AbstractContextManager[Program]:
    return started(*SENDENGINE, *arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def requests(url: str) -> int:
    return sum(lane["requests"] for lane in admin(url, "ledger")["lanes"] if lane["lane"] == "create_notification")


def killed(url: str, *arguments: str, after: int = 20) -> Path:
    """Send, and kill it when the server has seen so many requests."""
    with sending(*arguments) as process:
        until(lambda: requests(url) >= after, process)
        process.send_signal(signal.SIGKILL)
        ended(process)
    return runs()[-1]


def test_a_killed_campaign_is_resumed_and_its_report_adds_up(mock_url: str) -> None:
    campaign(1000)
    folder = killed(mock_url, "send", "campaign.toml", after=70)  # the first of them have been on disk for long
    assert "killed" in run("status").stdout
    again = run("send", "campaign.toml")
    assert again.exit_code == 2
    assert f"sendengine resume {folder.name}" in again.stderr
    settings(mock_url, ceilings="create_notification = 6000")
    with Path("sendengine.toml").open("a") as file:
        file.write("[batching]\nmax_recipients_per_request = 7\n")  # the manifest's cap counts
    result = run("resume", "latest", "--json")
    assert result.exit_code == 0
    assert " of 1,000 recipients are done already." in result.stderr
    report = orjson.loads(result.stdout)
    assert (report["jobs"]["read"], report["jobs"]["accepted"], report["recipients"]["targeted"]) == (1000, 1000, 1000)
    assert ledger(mock_url)["recipients"] == 1000
    lines = [orjson.loads(line) for line in (folder / "requests.jsonl").read_bytes().splitlines()]
    assert {line["recipients"] for line in lines} == {10}
    assert sorted(line["rows"][0][0] for line in lines) == list(range(1, 1001, 10))
    over = run("resume", folder.name)
    assert (over.exit_code, "has finished, and nothing is left to send" in over.stderr) == (2, True)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_killed_jobs_file_is_resumed(mock_url: str) -> None:
    job = {"kind": "create_notification", "message": {"contents": {"en": "Hi"}}, "channel": "push", "urgency": "high"}
    Path("jobs.jsonl").write_bytes(
        b"".join(orjson.dumps({**job, "to": {"external_id": [f"u-{n}"]}}) + b"\n" for n in range(200))
    )
    folder = killed(mock_url, "send", "jobs.jsonl", "--yes")
    settings(mock_url, ceilings="create_notification = 6000")
    (folder / "journal.db").rename(folder / "gone")
    result = run("resume", "latest")
    assert (result.exit_code, "journal.db: is gone, and with it which jobs have" in result.stderr) == (2, True)
    (folder / "gone").rename(folder / "journal.db")
    result = run("resume", "latest", "--json")
    assert "jobs of an earlier process: " in result.stderr
    report = orjson.loads(result.stdout)
    assert (report["jobs"]["read"], report["jobs"]["accepted"]) == (200, 200)
    assert ledger(mock_url)["recipients"] == 200


def test_a_run_whose_input_has_changed_that_is_too_old_or_of_another_app_is_not_resumed(mock_url: str) -> None:
    campaign(1000)
    folder = killed(mock_url, "send", "campaign.toml")
    text = Path("recipients.csv").read_text()
    Path("recipients.csv").write_text(text.replace("u-999", "u-998"))
    result = run("resume", "latest")
    assert (result.exit_code, "has changed since the run began" in result.stderr) == (2, True)
    Path("recipients.csv").write_text(text)
    run_dir = RunDir(folder)
    manifest = manifests.load(run_dir)
    selection = manifests.load_selection(run_dir, manifest)
    made = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    manifests.save(run_dir, manifests.Manifest(**{**made, "begun_at_s": manifest.begun_at_s - 30 * 86_400}), selection)
    result = run("resume", "latest")
    assert (result.exit_code, "--accept-duplicates" in result.stderr) == (2, True)
    text = Path("sendengine.toml").read_text()
    Path("sendengine.toml").write_text(text.replace("8250eaf6", "9250eaf6"))
    result = run("resume", "latest")
    assert (result.exit_code, "put it back into the settings" in result.stderr) == (2, True)
    settings(mock_url, ceilings="create_notification = 6000")
    assert run("resume", "latest", "--accept-duplicates").exit_code == 0
    assert ledger(mock_url)["recipients"] == 1000


def test_a_run_is_paused_slowed_and_goes_on(mock_url: str) -> None:
    campaign(1500)
    with sending("send", "campaign.toml", "--yes") as process:
        until(lambda: bool(runs()) and requests(mock_url) > 5, process)
        name = runs()[0].name
        assert run("resume", name).stderr.count("another process is working on this run") == 1
        assert run("pause", name).stdout == f"{name}: paused\n"
        found = orjson.loads(run("status", "--json").stdout)
        assert (found["state"], found["is_going_on"], found["total"]) == ("paused", True, 1500)
        before = requests(mock_url)
        assert before < 150
        assert f"which is going on: sendengine status {name}; " in run("send", "campaign.toml", "--yes").stderr
        assert run("rate", name, "5000").exit_code == 0  # never above the settings
        assert run("continue", name).stdout == f"{name}: going on\n"
        assert process.wait(LIMIT_S) == 0
    assert ledger(mock_url)["recipients"] == 1500
    found = orjson.loads(run("status", name, "--json").stdout)
    assert (found["state"], found["is_going_on"], found["done"], found["exit_code"]) == ("finished", False, 1500, 0)
    result = run("pause", name)
    assert (result.exit_code, result.stderr) == (2, f"sendengine: {name}: is not going on, so nothing was changed\n")


def test_a_stopped_run_that_was_resumed_and_killed_is_not_taken_for_stopped(mock_url: str) -> None:
    campaign(1000)
    with sending("send", "campaign.toml") as process:
        until(lambda: requests(mock_url) >= 5, process)
        process.send_signal(signal.SIGTERM)
        said = ended(process)
    assert process.returncode == 75
    assert "is closed" not in "".join(said)
    assert "failures.jsonl" not in said[0]  # what is abandoned is no failure
    stopped = run("status").stdout
    assert "stopped before its end, as asked" in stopped
    assert "is closed" not in stopped
    (folder,) = runs()
    with sending("resume", "latest") as process:
        until(lambda: orjson.loads((folder / "status.json").read_bytes())["state"] == "sending", process)
        process.kill()
        ended(process)
    name = folder.name
    assert run("runs", "list").stdout.startswith(f"{name}  killed  ")
    shown = run("report", name)
    assert (shown.exit_code, shown.stderr) == (
        0,
        f"sendengine: {name}: was resumed since, and was killed; to go on with it: sendengine resume {name}\n",
    )


def test_what_was_certainly_not_sent_is_retried_under_new_keys(mock_url: str) -> None:
    Path("campaign.toml").write_text(CAMPAIGN)
    Path("recipients.csv").write_text("external_id\nu-1\npoison\nu-2\n")
    assert run("send", "campaign.toml").exit_code == 3
    admin(mock_url, "config", method="POST", body={"default": {"poisoned": []}})
    old = runs()[0].name
    begun = Begun("died", "died", "spring", 0.0, lines=(1,), is_made=False)  # and its directory was thrown away
    Registry(Path("runs", old), folder=RETRIES).enter(retry_identity(run="died"), begun)
    left = run("retry", old, "--reason", "gave_up")
    assert (left.exit_code, "left out: 1 failure" in left.stderr) == (0, True)
    result = run("retry", old, "--json", "--reason", "rejected")
    assert result.exit_code == 0, result.stderr
    assert orjson.loads(result.stdout)["jobs"]["accepted"] == 1
    assert ledger(mock_url)["recipients"] == 3
    assert manifests.load(RunDir(runs()[1])).retry_of == old
    again = run("retry", old)
    assert (again.exit_code, f"was retried before, as run {runs()[1].name}" in again.stderr) == (2, True)
    shutil.rmtree(runs()[1])
    assert run("retry", old).exit_code == 2  # it was thrown away, and is not forgotten


def test_jobs_sent_to_a_wrong_address_stop_and_go_on_where_that_is_mended(mock_url: str) -> None:
    settings(f"{mock_url}/nowhere")
    lines = [{"kind": "update_user", "user": {"external_id": f"u-{n}"}, "tags": {"level": n}} for n in range(60)]
    Path("jobs.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    sent = run("send", "jobs.jsonl", "--max-error-rate", "50%")
    assert sent.exit_code == 4
    assert "of the last 20 requests failed, and 50.0% may; failures.jsonl says why" in sent.stdout
    (old,) = runs()
    assert f"Go on: sendengine resume {old.name}" in sent.stderr
    again = run("resume", old.name, "--max-error-rate", "60%", "--json")
    assert (again.exit_code, orjson.loads(again.stdout)["jobs"]["rejected"]) == (4, 40)
    settings(mock_url)
    gone_on = run("resume", old.name, "--json")
    assert (gone_on.exit_code, orjson.loads(gone_on.stdout)["jobs"]["accepted"]) == (3, 20)
    assert run("retry", old.name).exit_code == 0
    assert len(admin(mock_url, "users")) == 60


def test_a_retry_that_fails_again_comes_to_its_end(mock_url: str) -> None:
    lines = [{"kind": "update_user", "user": {"external_id": f"u-{n}"}, "tags": {"level": n}} for n in range(30)]
    Path("jobs.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    settings(f"{mock_url}/nowhere")
    assert run("send", "jobs.jsonl").exit_code == 3  # a jobs file has no error budget of itself
    assert run("retry", "latest").exit_code == 3
    settings(mock_url)
    assert run("retry", "latest").exit_code == 0


def test_runs_are_listed_and_thrown_away(mock_url: str) -> None:
    campaign(1000)
    stopped = killed(mock_url, "send", "campaign.toml").name
    Path("recipients.csv").write_text("external_id\nu-1\n")
    assert run("send", "campaign.toml", "--edition", "2").exit_code == 0
    finished = runs()[1].name
    listed = run("runs", "list").stdout.splitlines()
    assert listed[0].startswith(f"{stopped}  killed")
    assert listed[0].endswith("can be resumed")
    assert listed[1] == f"{finished}  finished (exit 0)  1 of 1"
    assert [each["run"] for each in orjson.loads(run("runs", "list", "--json").stdout)] == [stopped, finished]
    for days in ("nan", "1e12", "-1"):
        refused = run("runs", "prune", "--older-than", days)
        assert (refused.exit_code, f"'{days}' is no number of days" in refused.stderr) == (2, True)
    assert run("runs", "prune", "--older-than", "30").stderr == "0 runs thrown away, 2 kept\n"
    assert run("runs", "prune", "--older-than", "0", "--dry-run").stderr == "1 run would be thrown away, 1 kept\n"
    assert run("runs", "prune", "--older-than", "0").exit_code == 0
    assert [folder.name for folder in runs()] == [stopped]
    (Path("runs") / "thesis").mkdir()  # whoever names a folder of his own as the one of runs
    assert run("runs", "prune", "--older-than", "0", "--force").exit_code == 0
    assert [folder.name for folder in runs()] == ["thesis"]


def test_dead_letters_are_listed_and_put_back(mock_url: str) -> None:
    settings(mock_url, more="[journal]\n")
    note = CreateNotification(to=external_id("poison"), channel="push", message={"contents": {"en": "Hi"}})

    async def engine_sends(*jobs: CreateNotification) -> list[str]:
        async with SendEngine(load_settings("sendengine.toml")) as engine:
            receipts = [await engine.submit(job) for job in jobs]
            receipts += [found.receipt for found in engine.recovered]
            held = await asyncio.to_thread(run, "dead", "list")
            assert "is held by a live engine" in held.stderr
            return [type(await receipt).__name__ for receipt in receipts]

    assert asyncio.run(engine_sends(note)) == ["Rejected"]
    (line,) = orjson.loads(run("dead", "list", "--json").stdout)
    assert (line["outcome"], line["maybe_sent"], line["job"]["to"]) == ("rejected", False, {"external_id": ["poison"]})
    assert line["reason"]
    for other in ("gave_up", "not_sent="):
        assert run("dead", "list", "--reason", other, "--json").stdout == "[]\n"
    assert orjson.loads(run("dead", "export").stdout) == line
    admin(mock_url, "config", method="POST", body={"default": {"poisoned": []}})
    assert run("dead", "requeue", "--reason", "gave_up").stdout == "nothing was put back\n"
    assert run("dead", "requeue").stdout.startswith("1 job put back")
    assert orjson.loads(run("dead", "list", "--json").stdout) == []
    assert asyncio.run(engine_sends()) == ["Accepted"]
    assert ledger(mock_url)["recipients"] == 1


def test_what_was_put_back_is_remembered_by_its_callers_key_with_what_came_of_it_then(mock_url: str) -> None:
    settings(mock_url, more="[journal]\n")
    note = CreateNotification(
        to=external_id("poison"), channel="push", message={"contents": {"en": "Hi"}}, idempotency_key="order 1"
    )

    async def outcomes(*jobs: CreateNotification) -> list[str]:
        async with SendEngine(load_settings("sendengine.toml")) as engine:
            receipts = [found.receipt for found in engine.recovered]
            receipts += [await engine.submit(job) for job in jobs]
            return [type(await receipt).__name__ for receipt in receipts]

    assert asyncio.run(outcomes(note)) == ["Rejected"]
    admin(mock_url, "config", method="POST", body={"default": {"poisoned": []}})
    assert asyncio.run(outcomes(note)) == ["Rejected"]  # remembered
    assert run("dead", "requeue").stdout.startswith("1 job put back")
    assert asyncio.run(outcomes()) == ["Accepted"]
    assert asyncio.run(outcomes(note)) == ["Accepted"]
    assert ledger(mock_url)["recipients"] == 1
