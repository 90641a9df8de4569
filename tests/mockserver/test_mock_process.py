"""A mock server in a process of its own."""

import asyncio
import signal
import ssl as tls
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import orjson
import pytest

from sendengine.mockserver import AppConfig, MockConfig, MockProcess, MockServer, Summary, serve, summary_lines
from tests.mockserver.h2_client import NO_ERROR, H2Client
from tests.mockserver.raw_client import APP, Client, happened

CERTIFICATE = Path(__file__).with_name("loopback.pem")


async def connected(base_url: str) -> Client:
    where = urlsplit(base_url)
    return Client(*await asyncio.open_connection(where.hostname, where.port))


async def test_a_process_serves_is_asked_and_leaves_its_summary() -> None:
    people = frozenset(f"gone-{number}" for number in range(20_000))  # more than fits a command line
    async with MockProcess(MockConfig(default=AppConfig(unsubscribed=people))) as process:
        client = await connected(process.base_url)
        assert (await client.notify("a", "gone-1")).status == 200
        assert (await process.summary()).recipients == 1
        await process.configure(default=AppConfig(), latency_ms=1)
        assert (await client.notify("gone-1")).status == 200
        with pytest.raises(ValueError, match="recipient_cap"):
            await process.configure(recipient_cap=0)
        assert orjson.loads(await process.ask("GET", "deliveries")) == {"external_id:a": 1, "external_id:gone-1": 1}
        await process.reset()
        await client.notify("b")
        client.writer.close()
    assert process.last_summary is not None
    assert (process.last_summary.notifications, process.last_summary.recipients) == (1, 1)


async def test_a_process_may_speak_tls_and_http2_and_be_told_to_stop_reading_and_to_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sendengine.mockserver.process._END_S", 0.0)
    trust = tls.create_default_context(cafile=str(CERTIFICATE))
    trust.set_alpn_protocols(["h2"])
    async with MockProcess(certfile=CERTIFICATE) as process:
        assert process.base_url.startswith("https://")
        where = urlsplit(process.base_url)
        client = H2Client(*await asyncio.open_connection(where.hostname, where.port, ssl=trust))
        await client.greeted()
        await process.stop_reading()
        number = client.ask("GET", f"/apps/{APP}")
        await process.read_on()
        assert (await client.reply(number)).status == 200
        await process.stop_reading(for_s=0.001)
        await process.go_away()
        assert (await client.end()).code == NO_ERROR
        client.writer.close()
        assert (await process.summary()).http2_connections == 1
        process._child.send_signal(signal.SIGSTOP)  # it cannot come to its end, and is killed
    assert process.last_summary is None


async def test_a_process_that_cannot_start_says_so() -> None:
    with pytest.raises(RuntimeError, match="exit code 2"):
        await MockProcess(MockConfig(latency_ms=-1)).__aenter__()


async def test_a_signal_ends_it_with_a_summary() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sendengine.mockserver", "--fault", "503",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    client = await connected(orjson.loads(await child.stdout.readline())["base_url"])
    assert (await client.notify("a")).status == 503
    client.writer.close()
    child.send_signal(signal.SIGTERM)
    output, _ = await child.communicate()
    assert msgspec.json.decode(output, type=Summary).faults == {"503": 1}
    assert child.returncode == 0


async def test_serving_ends_when_it_is_told_to() -> None:
    stop, there = asyncio.Event(), list[MockServer]()

    async def use() -> None:
        await happened(lambda: bool(there))
        client = await connected(there[0].base_url)
        await client.notify("a")
        client.writer.close()
        stop.set()

    found, _ = await asyncio.gather(serve(MockConfig(), stop=stop, on_ready=there.append), use())
    assert found.notifications == 1


async def test_serving_can_be_cancelled() -> None:
    task = asyncio.ensure_future(serve(MockConfig()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_summary_reads_well() -> None:
    faults = [{"kind": "429", "count": 1, "retry_after": "60"}]
    async with MockServer() as server:
        server.configure(faults=faults, hold_grace_ms=0, default=AppConfig(subscribed_users=0))
        server.reset()
        client = await connected(server.base_url)
        for _ in range(3):
            await client.notify("a", "b")
        await client.update("u1", {})
        await client.ask("GET", "/nowhere")
        client.writer.close()
        lines = summary_lines(server.summary())
    assert lines[0].startswith(f"{APP} create_notification, requests: 3 (200 1, 429 2), 3 in the busiest second")
    assert lines[1] == "  429s: 2, of them 0 for a user; holds: 1"
    assert lines[2].startswith(f"{APP} update_user, requests: 1 (202 1), 1 in the busiest second")
    assert lines[3:] == [
        "notifications: 1, recipients: 2, 0 replayed, 0 ids named, 0 reached nobody",
        "user updates: 1, users: 1",
        "connections: 1 opened, 1 at once, 0 of them speak HTTP/2",
        "faults: 429 1",
        "! requests inside a Retry-After: 2",
        "! requests to unknown paths: 1",
        f"! app {APP} is disabled: it reached the application limit",
    ]


async def test_doubled_deliveries_stand_out() -> None:
    async with MockServer() as server:
        client = await connected(server.base_url)
        for _ in range(2):
            await client.notify("a")
        client.writer.close()
        lines = summary_lines(server.summary())
    assert lines[-1] == "! deliveries of the same content to the same recipient: 1, such as external_id:a"
