"""What doctor finds on this machine and on the way."""

import asyncio
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from sendengine.cli.checks import check_clock, check_connection, check_descriptors, check_disk, check_dns
from sendengine.settings import TransportSettings

AT_NOON_S = 1_795_262_400.0  # Sat, 21 Nov 2026 12:00:00 GMT
HEAD = "HTTP/1.1 200 OK\r\nServer: x\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\r\n"
Usage = namedtuple("Usage", "total used free")  # noqa: PYI024 - what shutil gives


@pytest.mark.parametrize(
    ("head", "now_s", "result", "detail"),
    [
        (HEAD, AT_NOON_S + 3, "ok", "agrees with the server's"),
        (HEAD, AT_NOON_S + 90, "warn", "90 s ahead of the server's"),
        (HEAD, AT_NOON_S - 7200, "warn", "7,200 s behind the server's"),
        ("HTTP/1.1 200 OK\r\n\r\n", AT_NOON_S, "warn", "the server did not say what time it is"),
        ("HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n", AT_NOON_S, "warn", "the server did not say what time it is"),
    ],
)
def test_the_clock_is_compared_with_the_servers(head: str, now_s: float, result: str, detail: str) -> None:
    check = check_clock(head, now_s=now_s)
    assert (check.result, check.detail) == (result, detail)


def test_file_descriptors_are_compared_with_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, result, detail in [
        (4000, "ok", "enough for 4,000 connections"),
        (924, "warn", "enough for 924 of 4,000 connections"),
    ]:
        monkeypatch.setattr("sendengine.cli.checks.bounded_connections", lambda _, allowed=allowed: allowed)
        check = check_descriptors(TransportSettings(max_connections=4000))
        assert (check.result, check.detail) == (result, detail)
        assert bool(check.mend) == (result != "ok")


@pytest.mark.parametrize(("free_bytes", "result"), [(5_000_000_000, "ok"), (500_000_000, "warn"), (50_000_000, "fail")])
def test_disk_room_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_bytes: int, result: str) -> None:
    monkeypatch.setattr("sendengine.cli.checks.shutil.disk_usage", lambda _: Usage(0, 0, free_bytes))
    assert check_disk("disk", tmp_path / "not" / "there" / "yet").result == result
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sendengine.cli.checks.tempfile.TemporaryFile", refused)
    check = check_disk("disk", tmp_path)
    assert (check.result, check.detail) == ("fail", f"{tmp_path} cannot be written to: Permission denied")


async def test_a_host_is_looked_up() -> None:
    assert (await check_dns("http://127.0.0.1:1")).result == "ok"


async def test_a_host_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    check = await check_dns("https://api.example")
    assert (check.result, check.detail) == ("fail", "api.example: Name or service not known")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if (await reader.read(1000)).startswith(b"HEAD"):
        writer.write(HEAD.encode())
    writer.close()
    await writer.wait_closed()


async def test_a_server_without_tls_is_a_warning_and_its_clock_is_read() -> None:
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tls, clock = await check_connection(f"http://127.0.0.1:{port}", TransportSettings())
    assert (tls.result, tls.detail) == ("warn", "connected without TLS")
    assert clock.name == "clock"


async def test_a_server_that_does_not_listen_fails() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        (check,) = await check_connection(f"https://127.0.0.1:{unused.getsockname()[1]}", TransportSettings())
    assert check.result == "fail"
    assert "transport.proxy" in check.mend


async def test_a_server_that_speaks_no_tls_fails() -> None:
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (check,) = await check_connection(f"https://127.0.0.1:{port}", TransportSettings())
    assert (check.name, check.result) == ("TLS", "fail")


async def test_behind_a_proxy_nothing_is_tried_directly() -> None:
    (check,) = await check_connection("https://api.example", TransportSettings(proxy="http://proxy:3128"))
    assert check.result == "warn"
