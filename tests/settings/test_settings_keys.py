"""Keys are read from where they are, and never shown."""

import sys
import traceback
from pathlib import Path

import orjson
import pytest
from rich.pretty import pretty_repr

from sendengine.errors import SettingsError
from sendengine.settings import (
    AppSettings,
    Settings,
    TransportSettings,
    effective,
    key_source,
    load_settings,
    read_key,
    read_keys,
)

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
CANARY = "os_v2_app_canary7f3a"


def app_with(
    *, api_key: str | None = None, api_key_file: str | None = None, api_key_command: str | None = None
) -> AppSettings:
    return AppSettings(app_id=APP_ID, api_key=api_key, api_key_file=api_key_file, api_key_command=api_key_command)


def python(code: str) -> str:
    return f'"{sys.executable}" -c "{code}"'


def test_a_key_is_read_from_each_source_and_stripped(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{CANARY}\r\n")
    assert read_key(app_with(api_key=f" {CANARY} ")) == CANARY
    assert read_key(app_with(api_key="$KEY"), environment={"KEY": f"{CANARY}\n"}) == CANARY
    assert read_key(app_with(api_key_file=str(file))) == CANARY
    assert read_key(app_with(api_key_command=python(f"print('{CANARY}')"))) == CANARY


def test_the_environment_is_read_when_the_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_with(api_key="$SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "first")
    assert read_key(app) == "first"
    monkeypatch.setenv("SOME_KEY", "second")
    assert read_key(app) == "second"


def test_a_command_is_not_read_by_a_shell() -> None:
    assert read_key(app_with(api_key_command="echo $(id);ls")) == "$(id);ls"


def test_a_source_is_described_without_the_key() -> None:
    assert key_source(app_with(api_key=CANARY)) == "api_key"
    assert key_source(app_with(api_key="$KEY")) == "api_key, the environment variable KEY,"
    assert key_source(app_with(api_key_file="/k")) == "api_key_file, /k,"
    assert key_source(app_with(api_key_command=f"echo {CANARY}")) == "api_key_command"


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (app_with(api_key="$NOT_SET"), "the environment variable NOT_SET is not set; export it"),
        (app_with(api_key="$EMPTY"), "the environment variable EMPTY, holds no key"),
        (app_with(api_key="$TWO_LINES"), "holds more than a key"),
        (app_with(api_key="$SPACES"), "holds more than a key"),
        (app_with(api_key="$ACCENTS"), "holds more than a key"),
        (app_with(api_key_file="/no/such/key"), "/no/such/key cannot be read: No such file or directory"),
        (app_with(api_key_file="~nobody-of-that-name/key"), "there is no home directory for its ~ here"),
        (app_with(api_key_command="no-such-program-at-all"), "'no-such-program-at-all' cannot be run: No such file"),
        (
            app_with(api_key=f"${CANARY}"),
            "the environment variable •••• (which looks like a key) is not set; export it",
        ),
        (app_with(api_key_file=CANARY), "•••• (which looks like a key) cannot be read: No such file or directory"),
        (app_with(api_key_command=CANARY), "'•••• (which looks like a key)' cannot be run: No such file"),
        (app_with(api_key_command="echo 'x"), "its quotes do not pair"),
        (app_with(api_key_command=python(f"print('{CANARY}'); raise SystemExit(3)")), "ended with status 3"),
        (app_with(api_key_command=python(f"print('{CANARY}'); print(2)")), "holds more than a key"),
    ],
)
def test_what_cannot_be_a_key_is_refused_without_showing_it(app: AppSettings, error: str) -> None:
    environment = {
        "EMPTY": " \n",
        "TWO_LINES": f"{CANARY}\nexport X=1",
        "SPACES": f"Key {CANARY}",
        "ACCENTS": f"{CANARY}é",
    }
    with pytest.raises(SettingsError) as caught:
        read_key(app, environment=environment)
    assert error in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_key_in_a_file_of_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\x00\xff\xfe")
    with pytest.raises(SettingsError, match="holds more than a key"):
        read_key(app_with(api_key_file=str(file)))


def test_a_literal_key_shows_in_no_rendering_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "sendengine.toml"
    file.write_text(
        f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "{CANARY}"\n'
        f'[apps.other]\napp_id = "{APP_ID}"\napi_key_command = "echo {CANARY}"\n'
        f'[apps.a]\napp_id = "{APP_ID}"\napi_key = "${CANARY}"\n'
        f'[apps.b]\napp_id = "{APP_ID}"\napi_key_command = "{CANARY}"\n'
        f'[apps.c]\napp_id = "{APP_ID}"\napi_key_file = "{CANARY}"\n'
        f'[transport]\nproxy = "http://me:{CANARY}@proxy:3128"\n'
    )
    settings = load_settings(file, environment={})
    shown = [repr(settings), str(settings), pretty_repr(settings), f"{settings.apps['shop']}"]
    shown += [repr(each) for each in effective(file, environment={})]
    assert CANARY not in "".join(shown)
    assert "api_key='••••'" in shown[0]
    assert "api_key_command='echo ••••'" in shown[0]
    assert "http://••••@proxy:3128" in shown[0]


def test_what_is_no_secret_is_shown() -> None:
    assert "api_key='$KEY'" in repr(app_with(api_key="$KEY"))
    assert "api_key_command='get-key'" in repr(app_with(api_key_command="get-key"))
    assert "proxy='http://proxy:3128'" in repr(TransportSettings(proxy="http://proxy:3128"))


@pytest.mark.parametrize(
    "lines",
    [
        f'app_id = "{CANARY}"\napi_key = "$KEY"',
        f'app_id = "{APP_ID}"\napi_key = ["{CANARY}"]',
        f'app_id = "{APP_ID}"\napi_key = "${{{CANARY}}}"',
        f'app_id = "{APP_ID}"\napi_key = "$KEY"\nplan = "{CANARY}"',
        f'app_id = "{APP_ID}"\napi_key = "$KEY"\nbase_url = "https://{CANARY}@api.onesignal.com"',
        f'app_id = "{APP_ID}"\napi_key = {CANARY}',
        f'app_id = "{APP_ID}"\napi_kye = "{CANARY}"',
    ],
)
def test_a_key_in_the_wrong_place_shows_in_no_error(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "sendengine.toml"
    file.write_text(f"[apps.shop]\n{lines}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environment={})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_settings_are_equal_by_value_and_frozen() -> None:
    one, other = (Settings(apps={"shop": app_with(api_key=CANARY)}) for _ in range(2))
    assert one == other
    with pytest.raises(AttributeError):
        one.state_dir = Path("x")  # type: ignore[misc]
    with pytest.raises(TypeError, match="not JSON serializable"):
        orjson.dumps(one)


def test_the_keys_of_several_apps_are_read_together_and_a_missing_one_names_its_app() -> None:
    apps = {"shop": app_with(api_key="one"), "news": app_with(api_key="two")}
    assert read_keys(apps) == {"shop": "one", "news": "two"}
    with pytest.raises(SettingsError, match=r"^apps\.news: .*THERE_IS_NO_SUCH_VARIABLE"):
        read_keys(apps | {"news": app_with(api_key="$THERE_IS_NO_SUCH_VARIABLE")})
