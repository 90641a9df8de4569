"""The mock server from the command line, and doctor against it; both as processes, as people run them."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from sendengine.cli.commands import cli
from tests.support.programs import SENDENGINE, Program, ended, line_of, started

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
CANARY = "os_v2_app_canary7f3a"


@contextmanager
def mock(*arguments: str) -> Iterator[tuple[str, Program]]:
    """Run ``sendengine mock``; gives the first line that it says."""
    with started(*SENDENGINE, "mock", *arguments, stdout=subprocess.PIPE) as process:
        yield line_of(process), process


@pytest.fixture(scope="module")
def mock_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mock server whose switches stand in a file, and one of them on the command line too."""
    file = tmp_path_factory.mktemp("mock") / "behaviour.json"
    file.write_text(f'{{"default": {{"name": "The Shop", "subscribed_users": 7, "api_key": "{CANARY}"}}}}')
    with mock("--json", "--behaviour", str(file), "--subscribed-users", "1000") as (line, _):
        yield orjson.loads(line)["base_url"]


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments), prog_name="sendengine")
    assert CANARY not in result.output
    assert "Traceback" not in result.output
    return result


def settings_for(folder: Path, base_url: str, *, key: str = CANARY) -> str:
    path = folder / "sendengine.toml"
    path.write_text(f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "{key}"\nplan = "paid"\nbase_url = "{base_url}"\n')
    return str(path)


def test_the_mock_server_says_where_it_is_and_ends_with_a_summary() -> None:
    with mock("--json") as (line, process):
        assert orjson.loads(line)["base_url"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        output, _ = ended(process)
        assert process.returncode == 0
        assert orjson.loads(output)["notifications"] == 0


def test_the_mock_server_speaks_to_a_person_too() -> None:
    with mock() as (line, process):
        assert line.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert "notifications: 0, recipients: 0" in ended(process)[0]
        assert process.returncode == 0


def test_doctor_asks_the_app_and_finds_everything_ok_but_the_missing_tls(mock_url: str, tmp_path: Path) -> None:
    config = settings_for(tmp_path, mock_url)
    result = run("doctor", "--config", config, "--app", "shop", "--runs-dir", str(tmp_path / "runs"), "--json")
    checks = {check["name"]: check for check in orjson.loads(result.stdout)}
    assert result.exit_code == 0
    assert {name: check["result"] for name, check in checks.items() if name not in {"file descriptors", "clock"}} == {
        "settings": "ok",
        "disk, runs": "ok",
        "disk, state": "ok",
        "DNS": "ok",
        "TLS": "warn",
        "app shop": "ok",
    }
    # the switch on the command line goes before the one in the file
    assert checks["app shop"]["detail"].startswith("The Shop, the key is accepted, 1,000 subscribed users")


def test_doctor_finds_a_wrong_key_and_never_shows_it(mock_url: str, tmp_path: Path) -> None:
    result = run("doctor", "--config", settings_for(tmp_path, mock_url, key="os_v2_app_wrong"), "--app", "shop")
    assert result.exit_code == 2
    assert "fail  app shop" in result.stdout
    assert "OneSignal refused the key" in result.stdout
    assert "os_v2_app_wrong" not in result.output


def test_doctor_says_that_nothing_listens(tmp_path: Path) -> None:
    result = run("doctor", "--config", settings_for(tmp_path, "http://127.0.0.1:9"), "--app", "shop")
    assert result.exit_code == 2
    assert "fail  TLS" in result.stdout
    assert "fail  app shop" in result.stdout


def test_doctor_says_that_the_app_is_not_configured_and_checks_the_way_to_the_others(
    mock_url: str, tmp_path: Path
) -> None:
    result = run("doctor", "--config", settings_for(tmp_path, mock_url), "--app", "shoe")
    assert result.exit_code == 2
    assert "--app shoe: not in" in result.stdout
    assert "which has shop" in result.stdout
    assert result.stdout.count("fail") == 1
    assert "127.0.0.1 is 127.0.0.1" in result.stdout


def test_doctor_says_that_the_key_is_not_there(mock_url: str, tmp_path: Path) -> None:
    result = run("doctor", "--config", settings_for(tmp_path, mock_url, key="$NOT_SET_AT_ALL"), "--app", "shop")
    assert result.exit_code == 2
    assert "the environment variable NOT_SET_AT_ALL is not set" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--port", "70000"), "70000 is not in the range"),
        (("--create-notification-rate", "-1"), "create_notification"),
        (("--fault", "nonsense:0.5"), "nonsense"),
        (("--no-such-switch",), "No such option"),
        (("--host", "192.0.2.1"), "cannot listen"),
    ],
)
def test_an_impossible_mock_server_says_what_is_wrong(arguments: tuple[str, ...], error: str) -> None:
    result = run("mock", *arguments)
    assert result.exit_code == 2
    assert error in result.stderr
