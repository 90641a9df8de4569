"""What errors in settings say: which key, where, what is wrong and how to mend it."""

from pathlib import Path

import pytest

from sendengine.settings import load_settings
from tests.settings.files import APP_ID, SMALLEST, error_of, written


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


def test_a_file_that_no_reader_follows_to_its_bottom_says_so(tmp_path: Path) -> None:
    file = written(tmp_path / "s.toml", f"a = {'[' * 2000}")
    assert "is not TOML: maximum recursion depth exceeded" in error_of(file)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(SMALLEST, encoding="utf-8-sig")
    assert list(load_settings(file, environment={}).apps) == ["shop"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "[transport]\nmax_conections = 5",
            "transport.max_conections in {}: there is no such setting; did you mean 'max_connections'?",
        ),
        ("[transprot]\nkind = 'x'", "transprot in {}: there is no such setting; did you mean 'transport'?"),
        (
            "[telemetry]\nkind = 'x'",
            "telemetry in {}: there is no such setting; the top of the settings has: apps, state_dir, ",
        ),
        ("base_url = 'x'", "base_url in {}: there is no such setting; it belongs under [apps.NAME]"),
        ("[transport]\nplan = 'paid'", "transport.plan in {}: there is no such setting; it belongs under [apps.NAME]"),
        ("[batching]\ntimeout_s = 5", "batching.timeout_s in {}: there is no such setting; it belongs under [tran"),
        ("[intake]\nstate_dir = 'x'", "it belongs at the top, before every [table]"),
        ("[apps.shop.journal]", "apps.shop.journal in {}: there is no such setting; it is written [journal]"),
        ("[transport.ceilings]", "there is no such setting; it is written [apps.NAME.ceilings]"),
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
        ("state_dir = ''", "state_dir in {}: must be a path, got ''"),
        ('state_dir = "a\\u0000b"', "state_dir in {}: must be a path, got '"),
        ("state_dir = '~nobody-of-that-name/x'", "state_dir in {}: there is no home directory for its ~ here"),
        ("[transport]\nca_file = ''", "transport.ca_file in {}: must be the path of a file, got ''"),
        ("[state_dir.inner]", "state_dir in {}: is no table; give it a value"),
        ("journal = true", "journal in {}: is a table and has no value of its own; it has durability, "),
        ("[journal]\ndurability = 'safe'", 'must be "durable" or "relaxed" or "memory", got \'safe\''),
        ("[journal]\nkeep_dead_s = -1", "must be a number of seconds from 0 to 31,622,400 (366 days), got -1"),
        ("[transprot]", "transprot in {}: there is no such setting; did you mean 'transport'?"),
        ("[transport.tls]", "transport.tls in {}: there is no such setting; [transport] has: kind, "),
        ("[transport.kind]", "transport.kind in {}: is no table; give it a value"),
        ("[apps.other]", "apps.other.app_id in {}: missing; give apps.other its app_id"),
        ("[apps.other.ceilings]", "apps.other.app_id in {}: missing; give apps.other its app_id"),
        (
            "[journal]\nmax_age_s = 5",
            "journal.max_age_s in {}: there is no such setting; did you mean 'max_age_high_s'?",
        ),
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
        (
            "share = 0.0001",
            "apps.shop.share in {}: leaves create_notification 0.015 requests a second; let it have one a minute at",
        ),
        ("ceilings.update_user = 1e-320", "apps.shop.ceilings in {}: leaves update_user 1e-320 requests a second"),
        ('plan = "gold"', 'apps.shop.plan in {}: must be "free" or "paid", got \'gold\''),
        ("subscribed_users = 0", 'must be a whole number from 1 up or "auto", got 0'),
        ('only_to = ["qa-1"]', 'must be a list of "kind:id" such as "external_id:qa-1", got [\'qa-1\']'),
        (
            'base_url = "http://example.com"',
            "apps.shop.base_url in {}: http:// would send the key to example.com in the clear",
        ),
        ('base_url = "api.onesignal.com"', "apps.shop.base_url in {}: must be a URL such as https://api.onesignal.com"),
        ('base_url = "https://api.onesignal.com:x"', "must be a URL such as https://api.onesignal.com"),
        ('base_url = "https://api..onesignal.com"', "must be a URL such as https://api.onesignal.com"),
        ('base_url = "https://api.onesignal.com/\\u0000"', "must be a URL such as https://api.onesignal.com"),
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
        ('api_key_file = "a\\u0000b"', "apps.shop.api_key_file in {}: must be the path of a file, got "),
        ('api_key_command = " "', "apps.shop.api_key_command in {}: must be a command such as "),
        ('api_key_command = "a\\u0000b"', "apps.shop.api_key_command in {}: must be a command such as "),
        ('plann = "paid"', "apps.shop.plann in {}: there is no such setting; did you mean 'plan'?"),
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
            "(SENDENGINE_TRANSPORT__MAXCONNECTIONS): there is no such setting; did you mean 'max_connections'?",
        ),
        ("SENDENGINE_TRANSPORT__MAX_CONNECTIONS", "many", "must be a whole number from 1 to 1,000,000, got 'many'"),
        ("SENDENGINE_TRANSPORT__MAX_CONNECTIONS", "0", "must be a whole number from 1 to 1,000,000, got '0'"),
        ("SENDENGINE_STATEDIR", "x", "there is no such setting; did you mean 'state_dir'?"),
        ("SENDENGINE_APPS__SHOP", "x", "apps.shop in the environment (SENDENGINE_APPS__SHOP): is a table"),
        ("SENDENGINE_APPS", "x", "(SENDENGINE_APPS): holds a table for each name, such as [apps.NAME]"),
        ("SENDENGINE_STATE_DIR", "", "state_dir in the environment (SENDENGINE_STATE_DIR): must be a path, got ''"),
        ("SENDENGINE_APPS__SHOP__ALLOW_INSECURE", "yes", "must be true or false, got 'yes'"),
    ],
)
def test_an_error_in_the_environment_names_the_variable(file: Path, variable: str, text: str, error: str) -> None:
    assert error in error_of(file, environment={variable: text})


def test_an_error_in_a_flag_names_the_key(file: Path) -> None:
    assert error_of(file, overrides={"apps.shop.share": 2}) == (
        "apps.shop.share from the command line or the caller: must be a number above 0 and at most 1, got 2"
    )
    assert "did you mean 'share'?" in error_of(file, overrides={"apps.shop.shre": 0.5})
