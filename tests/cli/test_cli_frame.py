"""The frame of the command line: errors, exit codes, init and config."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from sendengine.campaign.exits import Exit, exit_of
from sendengine.campaign.inventory import describe
from sendengine.campaign.rundir import RunDir
from sendengine.cli.checks import check_disk
from sendengine.cli.commands import cli
from sendengine.cli.output import counted, duration
from sendengine.core.outcomes import Expired
from sendengine.errors import (
    AppHeldError,
    InputError,
    InvalidJobError,
    KeyReusedError,
    SendEngineError,
    SendFailedError,
    SettingsError,
    StorageError,
)
from sendengine.settings import load_settings
from tests.cli.sending import APP_ID, CAMPAIGN, CANARY


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONESIGNAL_API_KEY", raising=False)


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), input=typed, prog_name="sendengine")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), 2),
        (InputError("x"), 2),
        (InvalidJobError("to", "x"), 2),
        (KeyReusedError("x"), 2),
        (AppHeldError("x"), 4),
        (StorageError("x"), 5),
        (SendFailedError(Expired()), 1),
        (SendEngineError("x"), 1),
    ],
)
def test_each_error_ends_in_its_exit_code(error: SendEngineError, code: int) -> None:
    assert exit_of(error) == code


def test_the_exit_codes_are_the_documented_ones() -> None:
    assert [code.value for code in Exit] == [0, 1, 2, 3, 4, 5, 75, 130]


def test_a_usage_error_ends_in_2_and_says_what_to_do() -> None:
    result = run("config", "show", "--confg", "x")
    assert result.exit_code == 2
    assert "No such option '--confg'" in result.stderr
    assert run("snd").exit_code == 2


def test_a_settings_error_is_one_line_and_no_traceback() -> None:
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "sendengine: sendengine.toml: there is no such file; write one with `sendengine init`, "
        "or name another with --config\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.01, "under 0.1 s"),
        (0.42, "0.4 s"),
        (9.96, "10.0 s"),
        (10, "10 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (11_400, "3 h 10 min"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_count_has_its_noun() -> None:
    assert [counted(0, "request"), counted(1, "request"), counted(2000, "request")] == [
        "0 requests",
        "1 request",
        "2,000 requests",
    ]


# What cannot be looked at

TOO_LONG = "x" * 300  # for a file's name: the system says so wherever it is looked for, as it does of what is forbidden
SETTINGS = f"""\
state_dir = "{TOO_LONG}"
[apps.shop]
app_id = "{APP_ID}"
api_key = "{CANARY}"
base_url = "http://127.0.0.1:9"
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("send", "campaign.toml", "--yes"), 5),
        (("status", TOO_LONG), 5),
        (("report", TOO_LONG), 5),
        (("resume", TOO_LONG), 5),
        (("retry", TOO_LONG), 5),
        (("pause", TOO_LONG), 5),
        (("dead", "list"), 5),
        (("init", "--yes", "--config", TOO_LONG), 2),
        (("bench", "--seconds", "1", "--config", TOO_LONG), 2),
    ],
)
def test_a_place_that_cannot_be_looked_at_is_named_in_one_line(arguments: tuple[str, ...], code: int) -> None:
    Path("sendengine.toml").write_text(SETTINGS)
    Path("campaign.toml").write_text(CAMPAIGN)
    Path("recipients.csv").write_text("external_id\nu-1\n")
    result = run(*arguments)
    assert (result.exit_code, type(result.exception)) == (code, SystemExit)
    (last,) = [line for line in result.stderr.splitlines() if line.startswith("sendengine: ")]
    assert TOO_LONG in last


def test_a_run_that_cannot_be_looked_at_is_listed_and_never_thrown_away_unasked(tmp_path: Path) -> None:
    unseen = RunDir(tmp_path / f"20261122T184213.017Z-{TOO_LONG}")
    found = describe(unseen)
    assert (found.state, found.is_resumable) == ("damaged", True)


def test_a_directory_that_cannot_be_looked_at_is_judged_by_the_one_around_it(tmp_path: Path) -> None:
    assert check_disk("state", tmp_path / TOO_LONG).result in {"ok", "warn"}


def test_a_campaign_whose_file_cannot_have_that_name_is_refused() -> None:
    Path("sendengine.toml").write_text(SETTINGS)
    Path("campaign.toml").write_text(CAMPAIGN.replace("recipients.csv", "a\\u0000.csv"))
    result = run("validate", "campaign.toml")
    assert (result.exit_code, result.stderr) == (
        2,
        "sendengine: campaign.toml: campaign.recipients.file: expected a file's path\n",
    )


# init


def test_init_writes_settings_campaign_and_recipients_that_load() -> None:
    result = run("init", "--app-id", APP_ID, "--plan", "paid")
    assert result.exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["campaign.toml", "recipients.csv", "sendengine.toml"]
    app = load_settings("sendengine.toml", environment={}).apps["shop"]
    assert (app.app_id, app.plan, app.api_key) == (APP_ID, "paid", "$ONESIGNAL_API_KEY")
    assert result.stdout.endswith("\nNext: export ONESIGNAL_API_KEY, then: sendengine doctor --app shop\n")
    assert Path("sendengine.toml").stat().st_mode & 0o777 == 0o600


def test_init_elsewhere_says_the_command_with_the_place() -> None:
    result = run("init", "--config", "our shop/s.toml")
    put = "put the app's id into our shop/s.toml, export ONESIGNAL_API_KEY"
    assert f"Next: {put}, then: sendengine doctor --app shop --config 'our shop/s.toml'" in result.stdout


def test_init_overwrites_nothing_where_nobody_can_be_asked() -> None:
    Path("campaign.toml").write_text("mine")
    result = run("init")
    assert result.exit_code == 2
    assert "campaign.toml is there already, and nothing was written; overwrite it with --yes" in result.stderr
    assert Path("campaign.toml").read_text() == "mine"
    assert not Path("sendengine.toml").exists()


@pytest.mark.parametrize(("answer", "is_kept"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_init_asks_before_it_overwrites(monkeypatch: pytest.MonkeyPatch, answer: str, is_kept: bool) -> None:
    monkeypatch.setattr("sendengine.cli.init.can_ask", lambda: True)
    Path("campaign.toml").write_text("mine")
    result = run("init", typed=answer)
    assert result.exit_code == 0
    assert "campaign.toml is there already. Overwrite it?" in result.stderr
    assert (Path("campaign.toml").read_text() == "mine") == is_kept
    assert Path("sendengine.toml").exists()


def test_an_interrupted_question_ends_in_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sendengine.cli.init.can_ask", lambda: True)
    Path("campaign.toml").write_text("mine")
    result = run("init", typed="")
    assert result.exit_code == 130
    assert Path("campaign.toml").read_text() == "mine"


def test_init_with_yes_overwrites_and_with_json_says_what() -> None:
    Path("campaign.toml").write_text("mine")
    result = run("init", "--yes", "--json")
    assert orjson.loads(result.stdout) == {"written": ["sendengine.toml", "campaign.toml", "recipients.csv"]}
    assert "first-campaign" in Path("campaign.toml").read_text()


def test_init_leaves_files_for_their_owner_alone_even_where_they_were_for_everybody() -> None:
    Path("campaign.toml").write_text("mine")
    Path("campaign.toml").chmod(0o644)
    assert run("init", "--yes").exit_code == 0
    assert Path("campaign.toml").stat().st_mode & 0o777 == 0o600


def test_init_refuses_an_id_that_is_none_and_does_not_show_it() -> None:
    result = run("init", "--app-id", CANARY)
    assert result.exit_code == 2
    assert "--app-id" in result.stderr
    assert "must be a UUID" in result.stderr
    assert CANARY not in result.output
    assert not Path("sendengine.toml").exists()


def test_init_where_it_cannot_write_says_so() -> None:
    Path("taken").write_text("")
    result = run("init", "--config", "taken/sendengine.toml")
    assert result.exit_code == 2
    assert "taken/sendengine.toml: cannot be written" in result.stderr


# config


def test_config_check_says_what_is_missing_and_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    result = run("config", "check")
    assert result.exit_code == 2
    assert "fail  apps.shop.app_id: is still the one that `sendengine init` wrote" in result.stdout
    assert "fail  apps.shop: api_key: the environment variable ONESIGNAL_API_KEY is not set" in result.stdout
    run("init", "--yes", "--app-id", APP_ID)
    monkeypatch.setenv("ONESIGNAL_API_KEY", CANARY)
    result = run("config", "check")
    assert (result.exit_code, result.stdout) == (
        0,
        "ok    apps.shop: the key is there (from api_key, the environment variable ONESIGNAL_API_KEY)\n",
    )


def test_config_check_finds_a_key_that_others_can_read_and_a_missing_certificate_file() -> None:
    file = Path("s.toml")
    file.write_text(f'[apps.a]\napp_id = "{APP_ID}"\napi_key = "{CANARY}"\n[transport]\nca_file = "ca.pem"\n')
    file.chmod(0o644)
    result = run("config", "check", "--config", "s.toml", "--json")
    assert result.exit_code == 2
    found = orjson.loads(result.stdout)
    assert [(each["is_right"], each["text"]) for each in found["findings"]] == [
        (True, "apps.a: the key is there (from api_key)"),
        (False, f"transport.ca_file: {Path('ca.pem').absolute()} is not there"),
        (False, "s.toml holds a key and others can read it; run: chmod 600 s.toml"),
    ]
    assert CANARY not in result.output


def test_config_check_finds_an_app_that_has_two_tables() -> None:
    file = Path("s.toml")
    tables = [
        f'[apps.{name}]\napp_id = "{id_}"\napi_key = "k"\n' for name, id_ in (("a", APP_ID), ("b", APP_ID.upper()))
    ]
    file.write_text("".join(tables))
    file.chmod(0o600)
    result = run("config", "check", "--config", "s.toml")
    assert result.exit_code == 2
    assert "fail  apps.b.app_id: is the app of apps.a too" in result.stdout


def test_config_show_names_values_and_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    run("init", "--app-id", APP_ID)
    monkeypatch.setenv("SENDENGINE_TRANSPORT__MAX_CONNECTIONS", "1000")
    lines = {line.split()[0]: line for line in run("config", "show").stdout.splitlines()}
    for key, value in [
        ("apps.shop.app_id", f"{APP_ID}  (in sendengine.toml)"),
        ("apps.shop.share", "1.0  (default)"),
        ("apps.shop.allow_insecure", "false  (default)"),
        ("apps.shop.only_to", "[]  (default)"),
        ("apps.shop.ceilings.update_user", "(not set)  (default)"),
        ("transport.max_connections", "1000  (in the environment (SENDENGINE_TRANSPORT__MAX_CONNECTIONS))"),
    ]:
        assert lines[key].endswith(f"  {value}"), key


def test_config_show_masks_keys_in_text_and_json() -> None:
    Path("sendengine.toml").write_text(f'[apps.a]\napp_id = "{APP_ID}"\napi_key = "{CANARY}"\n')
    for flags in ([], ["--json"]):
        result = run("config", "show", *flags)
        assert result.exit_code == 0
        assert CANARY not in result.output
        assert "••••" in result.output
    assert {each["key"]: each["source"] for each in orjson.loads(result.stdout)}["apps.a.api_key"] == "file"


# The console script


def test_without_click_the_console_script_says_how_to_install_it() -> None:
    code = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'click' else found(name)\n"
        "from sendengine.cli.main import main\n"
        "assert 'click' not in sys.modules\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own code
    assert done.returncode == 2
    assert done.stderr == (
        "sendengine: the command line needs click; install it with: python -m pip install 'sendengine[cli]'\n"
    )


@pytest.mark.parametrize(
    ("handler", "code", "said"), [("default_int_handler", 130, "\nsendengine: stopped\n"), ("SIG_IGN", 0, "")]
)
def test_ctrl_c_while_modules_are_loaded_ends_in_130_and_one_line_unless_it_is_ignored(
    handler: str, code: int, said: str
) -> None:
    program = (
        "import signal, sys\n"
        "from sendengine.cli.main import main\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'sendengine.cli.send': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"signal.signal(signal.SIGINT, signal.{handler})\n"
        "sys.argv = ['sendengine', '--version']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own code
    assert (done.returncode, done.stderr) == (code, said)


def test_a_loaded_command_line_takes_ctrl_c_as_before() -> None:
    program = (
        "import signal, sys\n"
        "from sendengine.cli.main import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv = ['sendengine', '--version']\n"
        "try: main()\n"
        "except SystemExit: print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own code
    assert done.stdout.endswith("True\n")


def test_the_version_is_shown() -> None:
    assert run("--version").stdout.startswith("sendengine, version ")
