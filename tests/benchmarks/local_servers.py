"""The benchmarks' servers on the tests' own loop: starting interpreters would take longer than the tests themselves."""

import asyncio
import ssl
from pathlib import Path
from typing import Self

from benchmarks.mocked import Requests
from benchmarks.sink import Counted, Reading, Tally
from benchmarks.workload import CERTIFICATE
from sendengine.mockserver import MockConfig, MockServer, Summary
from sendengine.mockserver.config import Lane


def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


class LocalMock:
    """What the benchmarks use of `benchmarks.mocked.MeasuredMock`."""

    cpu_s = 1.0
    open_descriptors = 10

    def __init__(self, config: MockConfig | None = None, *, certfile: Path | None = None) -> None:
        self._server = MockServer(config, ssl=server_tls() if certfile else None)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.base_url = self._server.base_url
        return self

    async def __aexit__(self, *_: object) -> None:
        for _turn in range(5):  # what a contestant has connected last becomes a connection
            await asyncio.sleep(0)
        await self._server.__aexit__(None, None, None)

    async def reset(self) -> None:
        self._server.reset()

    async def configure(self, **changes: object) -> None:
        self._server.configure(**changes)

    async def summary(self, *, doubled: bool = True) -> Summary:
        return self._server.summary(doubled=doubled)

    async def requests(self, lane: Lane) -> Requests:
        for (_, name), ledger in self._server.ledger.lanes.items():
            if name == lane:
                return Requests(list(ledger.arrivals), list(ledger.statuses), list(ledger.holds))
        return Requests([], [], [])

    async def accepted(self, lane: Lane) -> int:
        return sum(found.accepted for found in self._server.summary(doubled=False).lanes if found.lane == lane)


class LocalSink:
    """What the benchmarks use of `benchmarks.sink.Sink`."""

    def __init__(self, *, is_tls: bool = False) -> None:
        self._tls = server_tls() if is_tls else None
        self._tally = Tally()
        self._connections: list[Reading] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for _turn in range(5):
            await asyncio.sleep(0)
        self._server.close()
        for connection in self._connections:
            connection.abort()
        await asyncio.sleep(0)

    def _connection(self) -> Reading:
        self._connections.append(Reading(self._tally))
        return self._connections[-1]

    async def counted(self) -> Counted:
        return self._tally.counted

    async def requests(self) -> int:
        return self._tally.counted.requests
