"""Where settings come from, and which goes before which."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import SettingsError
from sendengine.settings import AppSettings, JournalSettings, Settings, SettingValue, effective, load_settings
from tests.settings.files import APP_ID, SMALLEST, error_of, written


def test_the_smallest_file_gives_the_documented_defaults(file: Path) -> None:
    settings = load_settings(file, environment={})
    app = settings.apps["shop"]
    assert (app.plan, app.base_url, app.share) == ("free", "https://api.onesignal.com", 1.0)
    assert (app.subscribed_users, app.application_limit_share, app.application_limit_window) == ("auto", 0.7, "rolling")
    assert (app.application_limit_policy, app.only_to, app.ceilings.update_user) == ("hold", (), None)
    batching = settings.batching
    assert (batching.max_recipients_per_request, batching.linger_ms, batching.max_modifications_per_request) == (
        2000,
        10,
        100,
    )
    assert settings.transport.protocol == "auto"
    assert (settings.transport.kind, settings.transport.max_connections, settings.transport.timeout_s) == (
        "direct",
        4000,
        60,
    )
    assert settings.retry.lost_reply_wait_s == 100


def test_flag_goes_before_environment_before_file_before_default(file: Path) -> None:
    file.write_text(SMALLEST + "[transport]\ntimeout_s = 40\n")
    environment = {"SENDENGINE_TRANSPORT__TIMEOUT_S": "30"}
    flag = {"transport.timeout_s": 20}
    assert load_settings(file, environment={}).transport.timeout_s == 40
    assert load_settings(file, environment=environment).transport.timeout_s == 30
    assert load_settings(file, environment=environment, overrides=flag).transport.timeout_s == 20


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("SENDENGINE_TRANSPORT__MAX_CONNECTIONS", "1000", "transport.max_connections", 1000),
        ("SENDENGINE_APPS__SHOP__PLAN", "paid", "apps.shop.plan", "paid"),
        ("SENDENGINE_APPS__SHOP__ALLOW_INSECURE", "true", "apps.shop.allow_insecure", True),
        ("SENDENGINE_APPS__SHOP__SUBSCRIBED_USERS", "120000", "apps.shop.subscribed_users", 120_000),
        ("SENDENGINE_APPS__SHOP__SUBSCRIBED_USERS", "auto", "apps.shop.subscribed_users", "auto"),
        (
            "SENDENGINE_APPS__SHOP__ONLY_TO",
            "external_id:a, email:b@c",
            "apps.shop.only_to",
            ("external_id:a", "email:b@c"),
        ),
        ("SENDENGINE_APPS__SHOP__ONLY_TO", "", "apps.shop.only_to", ()),
        ("SENDENGINE_APPS__SHOP__CEILINGS__UPDATE_USER", "500", "apps.shop.ceilings.update_user", 500.0),
        ("SENDENGINE_STATE_DIR", "/var/lib/sendengine", "state_dir", Path("/var/lib/sendengine")),
    ],
)
def test_an_environment_variable_sets_its_key(
    file: Path, variable: str, text: str, key: str, value: SettingValue
) -> None:
    (found,) = [each for each in effective(file, environment={variable: text}) if each.key == key]
    assert (found.value, found.source, found.place) == (value, "environment", f"in the environment ({variable})")


def test_a_journal_is_set_only_where_its_table_is_there_even_empty(file: Path) -> None:
    assert load_settings(file, environment={}).journal is None
    assert load_settings(file, environment={"SENDENGINE_JOURNAL__DURABILITY": "memory"}).journal == JournalSettings(
        durability="memory"
    )
    assert load_settings(file, overrides={"journal.keep_dead_s": 60}).journal == JournalSettings(keep_dead_s=60)
    file.write_text(SMALLEST + "[journal]\n")
    journal = load_settings(file, environment={}).journal
    assert journal == JournalSettings()
    assert journal is not None
    assert (journal.durability, journal.max_age_high_s, journal.max_age_normal_s) == ("durable", 900, 86_400)
    assert (journal.keep_settled_s, journal.keep_dead_s) == (0, 30 * 86_400)


def test_a_table_that_is_not_there_is_shown_as_not_set(file: Path) -> None:
    (journal,) = [each for each in effective(file, environment={}) if each.key.startswith("journal")]
    assert (journal.key, journal.value, journal.source) == ("journal", None, "default")


def test_an_app_with_a_dash_is_reached_with_an_underscore(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", SMALLEST.replace("apps.shop", "apps.My-Shop"))
    assert load_settings(file, environment={"SENDENGINE_APPS__MY_SHOP__PLAN": "paid"}).apps["My-Shop"].plan == "paid"


def test_a_variable_that_stands_for_two_apps_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", SMALLEST + SMALLEST.replace("apps.shop", "apps.Shop"))
    assert "stands for Shop and shop" in error_of(file, environment={"SENDENGINE_APPS__SHOP__PLAN": "paid"})


def test_the_environment_alone_can_configure_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"SENDENGINE_APPS__SHOP__APP_ID": APP_ID, "SENDENGINE_APPS__SHOP__API_KEY_FILE": "/run/secrets/key"}
    for path in ("sendengine.toml", None):
        settings = load_settings(path, environment=environment)
        assert list(settings.apps) == ["shop"]
        assert settings.state_dir == Path(".sendengine")


def test_another_source_of_the_key_in_the_environment_takes_the_place_of_the_files(file: Path) -> None:
    app = load_settings(file, environment={"SENDENGINE_APPS__SHOP__API_KEY_FILE": "/run/secrets/key"}).apps["shop"]
    assert (app.api_key, app.api_key_file) == (None, "/run/secrets/key")


def test_what_kubernetes_adds_for_a_service_of_our_name_is_no_setting(file: Path) -> None:
    added = {
        "SENDENGINE_SERVICE_HOST": "10.0.0.1",
        "SENDENGINE_SERVICE_PORT": "80",
        "SENDENGINE_SERVICE_PORT_HTTP": "80",
        "SENDENGINE_PORT": "tcp://10.0.0.1:80",
        "SENDENGINE_PORT_80_TCP_ADDR": "10.0.0.1",
        "SENDENGINE_API_SERVICE_HOST": "10.0.0.2",
    }
    assert load_settings(file, environment=added) == load_settings(file, environment={})


def test_paths_in_the_file_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    text = SMALLEST.replace('api_key = "$ONESIGNAL_API_KEY"', 'api_key_file = "key"')
    file = written(folder / "s.toml", text + '[transport]\nca_file = "ca.pem"\n')
    settings = load_settings(file, environment={})
    assert settings.state_dir == folder / ".sendengine"
    assert settings.apps["shop"].api_key_file == str(folder / "key")
    assert settings.transport.ca_file == str(folder / "ca.pem")
    file.write_text('state_dir = "/var/x"\n' + text)
    assert load_settings(file, environment={}).state_dir == Path("/var/x")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]:9/v1",
        "http://api.localhost:1",
        "https://x.test/api/v1",
    ],
)
def test_http_is_allowed_to_this_machine_and_a_path_prefix_is_kept(url: str) -> None:
    assert AppSettings(app_id=APP_ID, api_key="k", base_url=f"{url}/").base_url == url


def test_http_to_another_machine_needs_permission() -> None:
    app = AppSettings(app_id=APP_ID, api_key="k", base_url="http://mock.internal:8080", allow_insecure=True)
    assert app.base_url == "http://mock.internal:8080"


def test_settings_made_in_code_are_checked_too() -> None:
    settings = Settings(apps={"shop": AppSettings(app_id=APP_ID, api_key="k")})
    assert settings.apps["shop"].plan == "free"
    with pytest.raises(SettingsError, match=r"AppSettings\.share: must be a number above 0 and at most 1, got 7"):
        AppSettings(app_id=APP_ID, api_key="k", share=7)
    with pytest.raises(SettingsError, match=r"AppSettings\.api_key: missing"):
        AppSettings(app_id=APP_ID)
    with pytest.raises(SettingsError, match=r"Settings\.apps: no app is configured"):
        Settings(apps={})
    with pytest.raises(SettingsError, match=r"Settings\.apps: must be a table of AppSettings, got a dict of str"):
        Settings(apps={"shop": "k"})  # type: ignore[dict-item]
    with pytest.raises(SettingsError, match=r"Settings\.journal: must be a table of JournalSettings, got str"):
        Settings(apps=settings.apps, journal="durable")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"Settings\.batching: must be a table of BatchingSettings, got int"):
        Settings(apps=settings.apps, batching=5)  # type: ignore[arg-type]


def test_lists_and_paths_made_in_code_are_brought_into_their_kinds() -> None:
    app = AppSettings(app_id=APP_ID, api_key="k", only_to=["external_id:a"])  # type: ignore[arg-type]
    settings = Settings(apps={"shop": app}, state_dir="x")  # type: ignore[arg-type]
    assert (settings.apps["shop"].only_to, settings.state_dir) == (("external_id:a",), Path("x"))


@given(st.floats())
def test_a_share_is_taken_exactly_where_it_leaves_a_request_a_minute_and_is_at_most_1(share: float) -> None:
    is_right = 150 * share >= 1 / 60 and share <= 1
    try:
        app = AppSettings(app_id=APP_ID, api_key="k", share=share)
    except SettingsError:
        assert not is_right
    else:
        assert is_right
        assert app.share == share


@given(st.text(), st.text())
def test_any_environment_gives_settings_or_a_settings_error(name: str, text: str) -> None:
    environment = {
        "SENDENGINE_APPS__SHOP__APP_ID": APP_ID,
        "SENDENGINE_APPS__SHOP__API_KEY": "k",
        f"SENDENGINE_{name}": text,
    }
    try:
        load_settings(None, environment=environment)
    except SettingsError as error:
        assert f"SENDENGINE_{name}" in str(error)  # noqa: PT017 - most names are wrong, and a few are right


def test_effective_settings_name_every_key_with_its_source(file: Path) -> None:
    file.write_text(SMALLEST + "[transport]\ntimeout_s = 40\n")
    found = {
        each.key: each
        for each in effective(
            file, environment={"SENDENGINE_BATCHING__LINGER_MS": "5"}, overrides={"apps.shop.share": 0.5}
        )
    }
    for key, value, source, place in [
        ("transport.timeout_s", 40, "file", f"in {file}"),
        ("batching.linger_ms", 5, "environment", "in the environment (SENDENGINE_BATCHING__LINGER_MS)"),
        ("apps.shop.share", 0.5, "flag", "from the command line or the caller"),
        ("apps.shop.api_key", "$ONESIGNAL_API_KEY", "file", f"in {file}"),
        ("apps.shop.ceilings.update_user", None, "default", ""),
        ("state_dir", file.parent / ".sendengine", "default", ""),
    ]:
        each = found[key]
        assert (each.value, each.source, each.place) == (value, source, place), key
