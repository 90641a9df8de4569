"""Where a benchmark may go."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sendengine.bench.address import check_address
from sendengine.errors import SettingsError
from sendengine.settings import BenchSettings, load_settings

API = {"api.onesignal.com": ["104.16.160.145", "2606:4700::6810:a091"], "onesignal.com": ["104.16.1.1"]}


def resolving(
    monkeypatch: pytest.MonkeyPatch, names: Mapping[str, Sequence[str]], *, canonical: Mapping[str, str] | None = None
) -> None:
    """Let names have these addresses, and no others any."""

    async def getaddrinfo(
        _loop: asyncio.AbstractEventLoop, host: str, _port: object, **_options: object
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            found: Sequence[str] = [host]
        except OSError:
            found = names.get(host, [])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        name = (canonical or {}).get(host, "")
        return [(0, 0, 0, name if not number else "", (address, 0)) for number, address in enumerate(found)]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def check(url: str, *, allowed: Sequence[str] = ()) -> str:
    async def main() -> str:
        return await check_address(url, allowed=lambda: allowed)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://127.8.9.10",
        "https://[::1]:8443/api/v1",
        "http://[::ffff:127.0.0.1]:80",
        "http://localhost:1",
        "http://mock.here:8080",
    ],
)
def test_this_machine_needs_no_list(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {"localhost": ["127.0.0.1", "::1"], "mock.here": ["127.0.0.1"]})
    assert check(f"{url}/") == url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.onesignal.com",
        "https://API.OneSignal.COM./",
        "http://api.onesignal.com:8080",
        "https://onesignal.com/api/v1",
        "https://new.api.onesignal.com",
    ],
)
@pytest.mark.parametrize("allowed", [(), ("api.onesignal.com", "104.16.160.145", "127.0.0.1")])
def test_onesignal_is_refused_by_name_whatever_the_list_and_the_resolver_say(
    url: str, allowed: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for names in (API, {}, {name: ["127.0.0.1"] for name in [*API, "new.api.onesignal.com"]}):
        resolving(monkeypatch, names)
        with pytest.raises(SettingsError, match="never goes to OneSignal's own API, and no option changes that"):
            check(url, allowed=allowed)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("https://104.16.160.145", []),
        ("https://[2606:4700::6810:a091]:443", []),
        ("https://bench.example", ["104.16.160.145"]),
        ("https://bench.example", ["127.0.0.1", "104.16.160.145"]),
        ("https://bench.example", ["10.0.0.1", "::ffff:104.16.1.1"]),
    ],
)
def test_onesignal_is_refused_by_its_addresses(url: str, addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {**API, "bench.example": addresses})
    listed = ("bench.example", "104.16.160.145", "[2606:4700::6810:a091]")
    with pytest.raises(SettingsError, match="where OneSignal's API is, and a benchmark never goes"):
        check(url, allowed=listed)


def test_another_name_of_onesignals_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {**API, "bench.example": ["104.16.160.200"]}
    edge = "api.onesignal.com.edge.example"
    resolving(monkeypatch, names, canonical={"bench.example": edge})
    assert check("https://bench.example", allowed=["bench.example"])
    resolving(monkeypatch, names, canonical={"bench.example": edge, "api.onesignal.com": edge})
    with pytest.raises(SettingsError, match=r"is api\.onesignal\.com\.edge\.example, as OneSignal's API is"):
        check("https://bench.example", allowed=["bench.example"])
    resolving(monkeypatch, {**API, "other.example": ["127.0.0.1"]}, canonical={"other.example": "api.onesignal.com."})
    with pytest.raises(SettingsError, match=r"other\.example is another name of api\.onesignal\.com"):
        check("https://other.example", allowed=["other.example"])


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://bench.example:8080", ["bench.example"]),
        ("http://bench.example:8080", ["Bench.Example.:8080"]),
        ("http://bench.example:8080", ["10.0.0.5", "10.0.0.6:8080"]),
        ("https://bench.example", ["bench.example:443"]),
        ("http://10.0.0.5:8080", ["10.0.0.5:8080"]),
        ("http://[fd00::5]:8080", ["[fd00::5]"]),
    ],
)
def test_a_test_server_on_the_list_is_fine(url: str, allowed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {**API, "bench.example": ["10.0.0.5", "10.0.0.6"]})
    assert check(url, allowed=[entry.replace(".:", ":") for entry in allowed]) == url


@pytest.mark.parametrize(
    "allowed", [[], ["bench.example:80"], ["example"], ["10.0.0.5"], ["10.0.0.5:80", "10.0.0.6:80"]]
)
def test_any_other_server_is_refused_with_what_to_write(allowed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {**API, "bench.example": ["10.0.0.5", "10.0.0.6"]})
    with pytest.raises(SettingsError, match=r'addresses = \["bench.example:8080"\] under \[bench\]'):
        check("http://bench.example:8080", allowed=allowed)


def test_where_onesignal_cannot_be_looked_up_only_private_addresses_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {})
    assert check("http://10.0.0.5:80", allowed=["10.0.0.5"])
    with pytest.raises(SettingsError, match="cannot be looked up here"):
        check("http://104.16.9.9:80", allowed=["104.16.9.9"])


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("127.0.0.1:8080", "write it as http://127.0.0.1:8080"),
        ("ftp://127.0.0.1", "write it as"),
        ("http://", "write it as"),
        ("http://127.0.0.1:99999", "write it as"),
        ("http://user:pw@127.0.0.1", "may have a host, a port and a path, and nothing else"),
        ("http://unknown.example", "the name unknown.example is not known"),
        (f"http://{'x' * 64}.example", "write it as"),
    ],
)
def test_what_is_no_address_says_so(url: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, API)
    with pytest.raises(SettingsError, match=error):
        check(url, allowed=["unknown.example"])


# The list in the settings


@pytest.mark.parametrize("address", ["api.onesignal.com", "ONESIGNAL.com:443", "x.api.onesignal.com"])
def test_onesignal_cannot_be_put_on_the_list(address: str, tmp_path: Path) -> None:
    file = tmp_path / "sendengine.toml"
    app = '[apps.shop]\napp_id = "8250eaf6-1a58-489e-b136-7c74a864b434"\napi_key = "k"\n'
    file.write_text(f'{app}[bench]\naddresses = ["{address}"]\n')
    with pytest.raises(SettingsError, match=r"bench\.addresses in .*: a benchmark never goes to OneSignal"):
        load_settings(file, environment={})


@pytest.mark.parametrize("address", ["http://test.example", "test.example/api", "", "a b", "host:port"])
def test_a_list_has_hosts_and_ports_and_nothing_else(address: str) -> None:
    with pytest.raises(SettingsError, match=r'a host, or a host and a port, such as "test\.example:8080"'):
        BenchSettings(addresses=(address,))


def test_the_list_may_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "sendengine.toml"
    file.write_text('[apps.shop]\napp_id = "8250eaf6-1a58-489e-b136-7c74a864b434"\napi_key = "k"\n')
    settings = load_settings(file, environment={"SENDENGINE_BENCH__ADDRESSES": "a.example, [fd00::1]:80"})
    assert settings.bench.addresses == ("a.example", "[fd00::1]:80")
