"""``sendengine bench``: against a mock server of its own, against one that runs, and never elsewhere."""

import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from sendengine.bench.result import read_result
from sendengine.errors import StorageError
from tests.cli.sending import APP_ID, admin, behave, requests_of, run
from tests.support.programs import SENDENGINE, ended, mock_server, started, until

LITTLE = ("--rate", "200", "--seconds", "0.5")
APP = f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "k"\nplan = "paid"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bench_mock(any_mock: str) -> str:
    behave(any_mock)
    return any_mock


def folders() -> list[Path]:
    return sorted(Path("bench-results").iterdir()) if Path("bench-results").exists() else []


def own_address() -> str:
    """An address of this machine that is not loopback; a test without one is skipped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it asks for the way
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_it_offers_measures_and_leaves_result_and_plots() -> None:
    result = run("bench", *LITTLE, "--latency-ms", "5", "--high", "10%")
    assert result.exit_code == 0, result.output
    (left,) = folders()
    assert sorted(path.name for path in left.iterdir()) == ["bench.json", "latency.svg", "rate.svg"]
    found = read_result(left)
    assert found.command == "sendengine bench --rate 200 --seconds 0.5 --high 0.1 --latency-ms 5"
    assert (found.partial, found.target) == (False, "a mock server of its own")
    lanes = found.lanes
    assert sum(lane.offered for lane in lanes.values()) == pytest.approx(100, abs=4)
    for lane in lanes.values():
        assert lane.accepted == lane.offered
        assert lane.server is not None
        assert lane.server.requests == lane.accepted
        assert lane.server.refused == lane.throttled == 0
        assert lane.latency["normal"].p50_ms >= 5
    assert found.cpu.us_per_request is not None
    assert max(map(len, result.stdout.splitlines())) <= 60
    assert re.search(r"Offered 200 jobs/s for \d[\d.]* s", result.stdout)  # as long as it took
    assert ["notifications", "user", "updates"] in [line.split() for line in result.stdout.splitlines()]
    assert str(left) in result.stdout


def test_programs_get_json_alone_on_standard_output_and_a_person_what_changed(bench_mock: str) -> None:
    way = ("--seconds", "0.5", "--address", bench_mock)
    first = run("bench", "--rate", "200", *way, "--updates", "0", "--json")
    assert first.exit_code == 0, first.output
    shown = orjson.loads(first.stdout)
    assert shown["result"] == orjson.loads((Path(shown["directory"]) / "bench.json").read_bytes())
    assert [*shown["result"]["lanes"]] == ["create_notification"]
    assert shown["comparison"] is None
    second = run("bench", "--rate", "100", *way, "--updates", "0", "--compare", shown["directory"])
    assert second.exit_code == 0, second.output
    assert "caution: other options: rate 200 → 100" in second.stdout
    (line,) = [line for line in second.stdout.splitlines() if line.startswith("notifications: requests/s")]
    assert float(line.split()[-1]) == pytest.approx(0.5, rel=0.2)


@pytest.mark.slow
def test_limits_lifted_as_fast_as_it_goes() -> None:
    result = run("bench", "--lift-limits", "--seconds", "0.5", "--latency-ms", "0", "--json")
    assert result.exit_code == 0, result.output
    found = orjson.loads(result.stdout)["result"]
    assert found["options"]["rate"] is None
    assert {lane["ceiling"] for lane in found["lanes"].values()} == {None}
    assert sum(lane["accepted"] for lane in found["lanes"].values()) > 200


# Other servers


def test_it_goes_to_a_server_on_this_machine(bench_mock: str) -> None:
    result = run("bench", "--rate", "200", "--seconds", "0.5", "--updates", "0", "--address", bench_mock, "--json")
    assert result.exit_code == 0, result.output
    found = orjson.loads(result.stdout)["result"]
    assert found["target"] == bench_mock
    assert found["options"]["latency_ms"] is None
    assert found["lanes"]["create_notification"]["server"] is None
    assert requests_of(bench_mock, "create_notification") == found["lanes"]["create_notification"]["accepted"] == 100


def test_this_machine_needs_no_settings_whatever_the_environment_says(
    bench_mock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENDENGINE_STATE_DIR", "elsewhere")
    assert run("bench", "--rate", "50", "--seconds", "0.2", "--address", bench_mock).exit_code == 0


def test_an_app_of_the_settings_brings_id_key_plan_and_address(bench_mock: str) -> None:
    Path("sendengine.toml").write_text(APP.replace("paid", "free") + f'base_url = "{bench_mock}"\n')
    result = run("bench", "--rate", "50", "--seconds", "0.3", "--updates", "0", "--app", "shop", "--json")
    assert result.exit_code == 0, result.output
    found = orjson.loads(result.stdout)["result"]
    assert (found["target"], found["options"]["plan"]) == (bench_mock, "free")
    assert found["lanes"]["create_notification"]["ceiling"] == 150
    lanes = cast("list[dict[str, Any]]", admin(bench_mock, "ledger")["lanes"])
    assert {lane["app"] for lane in lanes} == {APP_ID}
    assert sorted(path.name for path in Path().iterdir()) == ["bench-results", "sendengine.toml"]


def test_another_machine_needs_the_list() -> None:
    address = own_address()
    with mock_server("--host", address) as base_url:
        wanted = ("bench", "--rate", "50", "--seconds", "0.3", "--address", base_url)
        refused = run(*wanted)
        assert refused.exit_code == 2
        assert f'write addresses = ["{base_url.removeprefix("http://")}"] under [bench]' in refused.stderr
        Path("sendengine.toml").write_text(f'{APP}[bench]\naddresses = ["{address}"]\n')
        assert run(*wanted).exit_code == 0


@pytest.mark.slow
def test_refusals_end_3_and_are_shown() -> None:
    with mock_server("--fault", "400:1") as base_url:
        result = run("bench", "--rate", "50", "--seconds", "0.3", "--address", base_url)
    assert result.exit_code == 3
    assert "jobs not accepted" in result.stdout


@pytest.mark.slow
def test_a_refused_key_ends_4_early() -> None:
    with mock_server("--api-key", "another") as base_url:
        result = run("bench", "--rate", "50", "--seconds", "30", "--address", base_url)
    assert result.exit_code == 4
    assert "PARTIAL:" in result.stdout


# What must not be


@pytest.mark.parametrize("options", [(), ("--lift-limits",), ("--config", "sendengine.toml"), ("--app", "shop")])
@pytest.mark.parametrize(
    "address", ["https://api.onesignal.com", "http://API.onesignal.com.:80", "https://onesignal.com/api/v1"]
)
def test_onesignal_is_refused_whatever_is_given(
    address: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    Path("sendengine.toml").write_text(
        f'{APP}base_url = "http://127.0.0.1:9"\n[bench]\naddresses = ["104.16.160.145"]\n'
    )
    result = run("bench", "--address", address, *options)
    assert result.exit_code == 2
    assert "a benchmark never goes to OneSignal's own API, and no option changes that" in result.stderr
    assert folders() == []


@pytest.mark.parametrize("url", ["", 'base_url = "https://api.onesignal.com"\n'])
def test_onesignal_in_the_settings_is_refused_and_told_where(url: str) -> None:
    Path("sendengine.toml").write_text(APP + url)
    result = run("bench", "--app", "shop")
    assert result.exit_code == 2
    assert "apps.shop.base_url in sendengine.toml: https://api.onesignal.com: a benchmark never goes" in result.stderr


def unreachable(*_: object, **__: object) -> None:
    raise AssertionError("nothing may be looked up or connected to")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--rate", "0"), "'0' is no number of jobs/s above 0 and up to 1,000,000; leave it out"),
        (("--rate", "nan"), "'nan' is no number of jobs/s"),
        (("--rate", "fast"), "'fast' is no number of jobs/s"),
        (("--rate", "inf"), "'inf' is no number of jobs/s"),
        (("--seconds", "-1"), "'-1' is no number of seconds above 0"),
        (("--latency-ms", "-1"), "'-1' is no number of milliseconds from 0"),
        (("--updates", "120%"), "'120%' is no part"),
        (("--recipients", "3", "--users", "2"), "3 recipients and 2 users"),
        (("--compare", "nix.json"), "nix.json: cannot be read"),
        (("--compare", "pyproject.toml"), "cannot be read"),
        (("--address", "127.0.0.1:8080"), "write it as http://127.0.0.1:8080"),
        (("--address", "http://127.0.0.1:9"), "http://127.0.0.1:9: nothing answers there"),
        (("--address", "http://127.0.0.1:9", "--latency-ms", "5"), "are of the mock server that bench starts itself"),
        (("--app", "shop"), "sendengine.toml: there is no such file"),
        (("--config", "nix.toml"), "nix.toml: there is no such file; correct --config"),
        (("--latency-p99-ms", "100"), "--latency-p99-ms 100: must be above the median, which --latency-ms says is 100"),
        (("--latency-ms", "300", "--latency-p99-ms", "90"), "which --latency-ms says is 300"),
        (("--latency-ms", "0", "--latency-p99-ms", "90"), "lognormal, whose median is above 0; correct --latency-ms"),
    ],
)
def test_bad_input_says_what_where_and_how_to_mend_it(arguments: tuple[str, ...], error: str) -> None:
    result = run("bench", *arguments)
    assert result.exit_code == 2, result.output
    assert error in " ".join(result.stderr.split())
    assert folders() == []


def test_settings_that_do_not_fit_say_so(bench_mock: str) -> None:
    Path("sendengine.toml").write_text(f'{APP}base_url = "{bench_mock}"\nonly_to = ["external_id:qa"]\n')
    for arguments, error in (
        (("--app", "shoe"), "--app shoe: not in sendengine.toml, which has shop"),
        (("--app", "shop"), "apps.shop.only_to in sendengine.toml: fences the app"),
        (("--app", "shop", "--plan", "free"), "--plan: apps.shop has a plan of its own"),
    ):
        result = run("bench", *arguments)
        assert result.exit_code == 2
        assert error in result.stderr


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_measured() -> None:
    Path("results").write_text("a file")
    result = run("bench", "--seconds", "3600", "--results-dir", "results/here")
    assert result.exit_code == 5
    assert "cannot be made" in result.stderr
    assert "choose another --results-dir" in result.stderr


def test_what_one_disk_has_no_room_for_is_on_the_other(bench_mock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    way = ("bench", "--rate", "50", "--seconds", "0.2", "--address", bench_mock)
    with Path("/dev/full").open("wb") as full, started(*SENDENGINE, *way, stdout=full) as process:
        ended(process)
    assert process.returncode == 5
    (left,) = folders()
    assert read_result(left).lanes

    def no_space(folder: Path, _: object) -> None:
        raise StorageError(f"{folder}: cannot be written: No space left on device")

    monkeypatch.setattr("sendengine.cli.bench.write_files", no_space)
    result = run(*way, "--json")
    assert result.exit_code == 5
    assert "No space left on device" in result.stderr
    assert orjson.loads(result.stdout)["result"]["lanes"]


def test_an_apps_key_goes_nowhere_in_the_clear() -> None:
    address = own_address()
    Path("sendengine.toml").write_text(f'{APP}[bench]\naddresses = ["{address}"]\n')
    with mock_server("--host", address) as base_url:
        result = run("bench", "--app", "shop", "--address", base_url)
    assert result.exit_code == 2
    assert f"{base_url}: http:// would send the key to {address} in the clear" in result.stderr
    assert "set allow_insecure = true for apps.shop" in result.stderr


def test_a_certificate_that_is_not_trusted_is_named() -> None:
    with mock_server("--tls") as base_url:
        result = run("bench", "--address", base_url)
    assert result.exit_code == 2
    assert f"{base_url}: the certificate is not trusted" in result.stderr
    assert "set transport.ca_file in the settings" in result.stderr


# Stopping


def test_ctrl_c_ends_it_early_with_what_was_measured(bench_mock: str) -> None:
    command = (*SENDENGINE, "bench", "--rate", "200", "--seconds", "3600", "--address", bench_mock)
    with started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: requests_of(bench_mock, "create_notification") > 50, process)
        process.send_signal(signal.SIGINT)
        output, errors = ended(process)
    assert process.returncode == 75, errors
    assert "Stopping:" in errors
    assert "PARTIAL: stopped before its end, as asked." in output
    (left,) = folders()
    found = read_result(left)
    assert found.partial
    assert found.seconds < 60
    assert found.lanes["create_notification"].accepted >= 50


@pytest.mark.slow
def test_a_second_ctrl_c_gives_up_the_wire_and_says_so_by_its_code() -> None:
    with mock_server("--latency-ms", "600000") as base_url:
        command = (*SENDENGINE, "bench", "--rate", "20", "--seconds", "3600", "--address", base_url)
        with started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            assert "Ctrl-C ends it early" in process.stderr.readline()
            until(lambda: requests_of(base_url, "create_notification") > 0, process)
            process.send_signal(signal.SIGINT)
            while "Stopping:" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            output, _ = ended(process)
    assert process.returncode == 130
    assert "PARTIAL" in output
