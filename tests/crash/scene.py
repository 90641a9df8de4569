"""A folder, and a mock server that outlives every process that is killed in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from sendengine.mockserver import AppConfig, Fault, MockConfig, MockServer
from sendengine.mockserver.protocol import Exchange
from tests.crash.inputs import APP_ID

LATENCY_MS = 25
TROUBLE = (
    Fault(kind="503_text", probability=0.04),
    Fault(kind="500", probability=0.03, effect=True),
    Fault(kind="reset_after", probability=0.03),
    Fault(kind="reset_before", probability=0.03),
)
"""A server that is not at its best: what fails has taken effect, or has not."""


class Mortal(Protocol):
    """Whom a strike kills."""

    def kill(self) -> None:
        """End it."""
        ...


class Bell(asyncio.Event):
    """Rings instead of dying, so that a test can wait for a number of requests."""

    def kill(self) -> None:
        self.set()

    async def until_rung(self) -> None:
        """Wait for it, as long as a process may take."""
        async with asyncio.timeout(60):
            await self.wait()


class Scene:
    """``kills`` counts the processes that were killed here."""

    def __init__(self, folder: Path, server: MockServer) -> None:
        self.folder = folder
        self.server = server
        self.kills = 0
        self.requests = 0
        self._strikes: dict[Mortal, tuple[int, bool]] = {}
        service: Any = server._service
        self._receive_really = service.receive
        service.receive = self._receive

    def strike(self, victim: Mortal, *, after: int, is_lost: bool) -> None:
        """Kill a process when so many more of its requests have come; the last of them is lost, or takes effect."""
        self._strikes[victim] = self.requests + after, is_lost

    def relent(self, victim: Mortal) -> None:
        """Let a process live."""
        self._strikes.pop(victim, None)

    def _receive(self, exchange: Exchange) -> None:
        self.requests += not exchange.url.startswith(b"/__mock__/")
        is_lost = False
        for victim, (due, is_lost_with_it) in tuple(self._strikes.items()):
            if self.requests >= due:
                self.relent(victim)
                victim.kill()
                is_lost = is_lost_with_it
        if is_lost:
            exchange.reset()
        else:
            self._receive_really(exchange)


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


@asynccontextmanager
async def scene_in(folder: Path, *, poisoned: frozenset[str] = frozenset(), **options: Any) -> AsyncIterator[Scene]:
    _make(folder)
    app = AppConfig(poisoned=poisoned)
    config = MockConfig(apps={APP_ID: app}, latency_ms=LATENCY_MS, user_interval_s=0, **options)
    async with MockServer(config) as server:
        yield Scene(folder, server)
