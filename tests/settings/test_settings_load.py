"""Where settings come from, and what their errors say."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import SettingsError
from sendengine.settings import AppSettings, JournalSettings, Settings, SettingValue, effective, load_settings

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
SMALLEST = f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "$ONESIGNAL_API_KEY"\n'
NO_ENVIRONMENT: Mapping[str, str] = {}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sendengine.toml"
    path.write_text(SMALLEST)
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def error_of(
    path: Path | None,
    *,
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    overrides: Mapping[str, SettingValue] | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environment=environment, overrides=overrides)
    return str(caught.value)


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


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert error_of(missing) == (
        f"{missing}: there is no such file; write one with `sendengine init`, or name another with --config"
    )


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", "[apps.shop]\nplan = free\n")
    assert "is not TOML" in error_of(file)
    assert "line 2" in error_of(file)


def test_a_file_that_is_not_text_or_no_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in error_of(file)
    assert "cannot be read: Is a directory" in error_of(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(SMALLEST, encoding="utf-8-sig")
    assert list(load_settings(file, environment={}).apps) == ["shop"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "[transport]\nmax_conections = 5",
            "transport.max_conections in {}: there is no such setting; did you mean max_connections?",
        ),
        ("[transprot]\nkind = 'x'", "transprot in {}: there is no such setting; did you mean transport?"),
        (
            "[telemetry]\nkind = 'x'",
            "telemetry in {}: there is no such setting; the top of the settings has apps, state_dir, ",
        ),
        ("transport = 5", "transport in {}: is a table and has no value of its own; it has kind, protocol, "),
        ("[state_dir]\nx = 1", "state_dir in {}: is no table; give it a value"),
        ("apps.x = 1", "apps.x in {}: is a table and has no value of its own; it has app_id, "),
        (
            "[batching]\nlinger_ms = -1",
            "batching.linger_ms in {}: must be a number of milliseconds from 0 to 60,000, got -1",
        ),
        (
            "[batching]\nlinger_ms = inf",
            "batching.linger_ms in {}: must be a number of milliseconds from 0 to 60,000, got inf",
        ),
        (
            "[batching]\nlinger_ms = '10'",
            "batching.linger_ms in {}: must be a number of milliseconds from 0 to 60,000, got '10'",
        ),
        ("[batching]\nmax_recipients_per_request = 20_001", "must be a whole number from 1 to 20,000, got 20001"),
        ("[batching]\nmax_modifications_per_request = 0", "must be a whole number from 1 to 100, got 0"),
        (
            "[transport]\nmax_connections = 0",
            "transport.max_connections in {}: must be a whole number from 1 to 1,000,000, got 0",
        ),
        ("[transport]\nkind = 'curl'", 'transport.kind in {}: must be "aiohttp" or "direct", got \'curl\''),
        (
            "[transport]\nprotocol = 'h3'",
            'transport.protocol in {}: must be "auto" or "h2" or "http/1.1", got \'h3\'',
        ),
        (
            "[transport]\nprotocol = 'h2'\nkind = 'aiohttp'",
            'transport.protocol in {}: "h2" needs kind = "direct" and no proxy; ',
        ),
        (
            "[transport]\nprotocol = 'h2'\nproxy = 'http://proxy:3128'",
            'transport.protocol in {}: "h2" needs kind = "direct" and no proxy; ',
        ),
        ("[transport]\nproxy = 'proxy:3128'", "transport.proxy in {}: must be a URL such as http://proxy.example:3128"),
        ("state_dir = 5", "state_dir in {}: must be a path, got 5"),
        ("journal = true", "journal in {}: is a table and has no value of its own; it has durability, "),
        ("[journal]\ndurability = 'safe'", 'must be "durable" or "relaxed" or "memory", got \'safe\''),
        ("[journal]\nkeep_dead_s = -1", "must be a number of seconds from 0 to 31,622,400 (366 days), got -1"),
        ("[journal]\nmax_age_s = 5", "journal.max_age_s in {}: there is no such setting; did you mean max_age_high_s?"),
    ],
)
def test_an_error_names_key_file_fault_and_remedy(tmp_path: Path, text: str, error: str) -> None:
    file = written(tmp_path / "s.toml", f"{text}\n{SMALLEST}" if text[0] != "[" else f"{SMALLEST}{text}\n")
    assert error.format(file) in error_of(file)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("share = 0", "apps.shop.share in {}: must be a number above 0 and at most 1, got 0"),
        ("share = 1.5", "apps.shop.share in {}: must be a number above 0 and at most 1, got 1.5"),
        ("share = nan", "apps.shop.share in {}: must be a number above 0 and at most 1, got nan"),
        ("share = true", "apps.shop.share in {}: must be a number above 0 and at most 1, got True"),
        ('plan = "gold"', 'apps.shop.plan in {}: must be "free" or "paid", got \'gold\''),
        ("subscribed_users = 0", 'must be a whole number from 1 up or "auto", got 0'),
        ('only_to = ["qa-1"]', 'must be a list of "kind:id" such as "external_id:qa-1", got [\'qa-1\']'),
        (
            'base_url = "http://example.com"',
            "apps.shop.base_url in {}: http:// would send the key to example.com in the clear",
        ),
        ('base_url = "api.onesignal.com"', "apps.shop.base_url in {}: must be a URL such as https://api.onesignal.com"),
        ('base_url = "https://api.onesignal.com:x"', "must be a URL such as https://api.onesignal.com"),
        ('base_url = "https://u:p@api.onesignal.com"', "may have a host, a port and a path, and nothing else"),
        ('base_url = "https://api.onesignal.com/?a=b"', "may have a host, a port and a path, and nothing else"),
        (
            "ceilings.create_notification = -5",
            "apps.shop.ceilings.create_notification in {}: must be a number of requests a second",
        ),
        (
            'api_key_file = "key"',
            "apps.shop.api_key_file in {}: stands beside api_key; keep one of api_key, api_key_file",
        ),
        ('plann = "paid"', "apps.shop.plann in {}: there is no such setting; did you mean plan?"),
    ],
)
def test_an_error_in_an_app_names_the_app(tmp_path: Path, line: str, error: str) -> None:
    file = written(tmp_path / "s.toml", f"{SMALLEST}{line}\n")
    assert error.format(file) in error_of(file)


def test_an_app_needs_its_id_and_a_source_of_its_key(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", '[apps.shop]\nplan = "paid"\n')
    assert error_of(file) == f"apps.shop.app_id in {file}: missing; give apps.shop its app_id"
    file.write_text(f'[apps.shop]\napp_id = "{APP_ID}"\n')
    assert f'apps.shop.api_key in {file}: missing; write api_key = "$ONESIGNAL_API_KEY"' in error_of(file)
    file.write_text(SMALLEST.replace("$ONESIGNAL_API_KEY", "${KEY}"))
    assert 'write it as "$NAME"' in error_of(file)


def test_a_file_without_an_app_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", "")
    assert error_of(file) == f"apps in {file}: no app is configured; give one a table [apps.NAME] with its app_id"


@pytest.mark.parametrize("name", ['"my.shop"', '"a/b"', '""', '"-x"', '"a__b"'])
def test_an_apps_name_is_plain(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / "s.toml", SMALLEST.replace("apps.shop", f"apps.{name}"))
    assert "an app's name has letters, digits and single - or _ between" in error_of(file)


@pytest.mark.parametrize(
    ("variable", "text", "error"),
    [
        (
            "SENDENGINE_TRANSPORT__MAXCONNECTIONS",
            "5",
            "(SENDENGINE_TRANSPORT__MAXCONNECTIONS): there is no such setting; did you mean max_connections?",
        ),
        ("SENDENGINE_TRANSPORT__MAX_CONNECTIONS", "many", "must be a whole number from 1 to 1,000,000, got 'many'"),
        ("SENDENGINE_TRANSPORT__MAX_CONNECTIONS", "0", "must be a whole number from 1 to 1,000,000, got '0'"),
        ("SENDENGINE_STATEDIR", "x", "there is no such setting; did you mean state_dir?"),
        ("SENDENGINE_APPS__SHOP", "x", "apps.shop in the environment (SENDENGINE_APPS__SHOP): is a table"),
        ("SENDENGINE_APPS", "x", "apps in the environment (SENDENGINE_APPS): is a table"),
        ("SENDENGINE_APPS__SHOP__ALLOW_INSECURE", "yes", "must be true or false, got 'yes'"),
    ],
)
def test_an_error_in_the_environment_names_the_variable(file: Path, variable: str, text: str, error: str) -> None:
    assert error in error_of(file, environment={variable: text})


def test_an_error_in_a_flag_names_the_key(file: Path) -> None:
    assert error_of(file, overrides={"apps.shop.share": 2}) == (
        "apps.shop.share from the command line or the caller: must be a number above 0 and at most 1, got 2"
    )
    assert "did you mean share?" in error_of(file, overrides={"apps.shop.shre": 0.5})


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
def test_a_share_is_taken_exactly_where_it_is_above_0_and_at_most_1(share: float) -> None:
    is_right = 0 < share <= 1
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


# The example file

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
NO_DEFAULT = {"api_key_file", "api_key_command", "create_notification", "update_user", "ca_file", "proxy"}


def test_the_example_file_holds_the_defaults() -> None:
    example = {each.key: each.value for each in effective(EXAMPLE, environment={})}
    defaults = {
        each.key: each.value
        for each in effective(
            None,
            environment={},
            overrides={
                "apps.shop.app_id": APP_ID,
                "apps.shop.api_key": "$ONESIGNAL_API_KEY",
                "apps.shop.plan": "paid",
                "journal.durability": "durable",  # the table need not be there; the example has it, with its defaults
            },
        )
    }
    assert example.pop("state_dir") == EXAMPLE.parent / str(defaults.pop("state_dir"))
    assert example == defaults


def test_the_example_file_names_every_key_each_with_a_comment_before_it() -> None:
    lines = EXAMPLE.read_text().splitlines()
    named = set()
    for above, line in zip(["", *lines], lines, strict=False):
        key = line.removeprefix("# ").partition(" = ")[0]
        if key.isidentifier() and " = " in line:
            named.add(key)
            assert above.startswith(("#", "[apps.shop.ceilings]")), f"{key} has no comment"
            assert line.startswith("# ") == (key in NO_DEFAULT), f"{key} is a comment exactly where it has no default"
    assert named == {each.key.rpartition(".")[2] for each in effective(EXAMPLE, environment={})}


def test_the_keys_without_a_default_may_be_uncommented() -> None:
    text = EXAMPLE.read_text()
    for key in NO_DEFAULT - {"api_key_file", "api_key_command"}:
        text = text.replace(f"# {key} = ", f"{key} = ")
    document = tomllib.loads(text)
    assert document["apps"]["shop"]["ceilings"] == {"create_notification": 6000, "update_user": 1000}
    assert document["transport"]["proxy"] == "http://proxy.example:3128"
