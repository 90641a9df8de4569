"""The mock server: opens the port, and is what code talks to.

Units: instants are seconds since the server started or was reset.
"""

import asyncio
import os
import ssl as tls
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import msgspec

from sendengine.mockserver.admin import Admin
from sendengine.mockserver.config import MockConfig, patched
from sendengine.mockserver.ledger import Ledger, Summary
from sendengine.mockserver.line import PlainLine, TlsLine, buffer
from sendengine.mockserver.service import Service
from sendengine.mockserver.summary import sum_up
from sendengine.mockserver.world import World

_BACKLOG: Final = 4096  # connections that may wait to be accepted: a client warms thousands of them at once
_TIMER_S: Final = 0.002  # a timer may fire so much too early, as uvloop's whole milliseconds have it
_TURNS = 5  # of the loop


class MockServer:
    """A OneSignal on this machine, for as long as ``async with`` lasts; it runs on the loop that enters it.

    ``port=0`` takes any free port. With ``ssl`` it speaks TLS, and that context offers HTTP/2 from then on, or does
    not, as the settings have it. Raises SettingsError for impossible settings, and
    OSError where the port is taken. Leaving it resets every connection; the ledger stays readable.
    """

    def __init__(
        self, config: MockConfig | None = None, *, host: str = "127.0.0.1", port: int = 0,
        ssl: tls.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._initial = config or MockConfig()
        self._host = host
        self._port = port
        self._ssl = ssl
        self._world: World | None = None
        self._listener: asyncio.Server | None = None
        self._edges: list[asyncio.TimerHandle] = []
        self._turning: asyncio.Task[None] | None = None
        self._buffer = buffer()
        self._reading_on: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._world = World(self._initial, clock=self._loop.time)
        admin = Admin(self._world, self)
        self._service = Service(self._world, admin, loop=self._loop)
        await self._listen()
        self._watch_outages()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for edge in self._edges:
            edge.cancel()
        if self._turning is not None:
            self._turning.cancel()
        if self._reading_on is not None:
            self._reading_on.cancel()
        self._hush()
        await _turns()  # what was accepted a moment ago becomes a connection
        self._service.stop()
        await _turns()  # and every connection sees that it is gone

    @property
    def base_url(self) -> str:
        """Where clients find the server, without a slash at the end."""
        return f"{'https' if self._ssl else 'http'}://{_bracketed(self._host)}:{self._port}"

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._port

    @property
    def config(self) -> MockConfig:
        """The settings in force."""
        return self._there.config

    @property
    def ledger(self) -> Ledger:
        """What has happened since the start or the last reset; a reset makes a new one."""
        return self._there.ledger

    @property
    def world(self) -> World:
        """Everything that the server knows, apps and users included."""
        return self._there

    @property
    def now_s(self) -> float:
        """Seconds since the start or the last reset: the clock of the ledger."""
        return self._there.now_s()

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._service.connections)

    def configure(self, config: MockConfig | None = None, /, **changes: object) -> None:
        """Go on under other settings, or with some of them changed; what they leave as it is keeps its state.

        Values may be plain (``faults=[{"kind": "503"}]``). Raises SettingsError, and changes nothing then.
        """
        new = config if config is not None else self._there.config
        self._there.configure(_changed(new, changes))
        self._service.configured()
        self._offer()
        self._watch_outages()

    def reset(self) -> None:
        """Begin anew: an empty ledger, no keys and users, full limits, faults from their start; connections stay."""
        self._there.reset()
        self._service.count_open()
        self._watch_outages()

    def enable(self, app_id: str) -> None:
        """Enable an app that the application limit has disabled."""
        app = self._there.app(app_id)
        if app is not None:
            app.enable(self._there.config, now_s=self.now_s)

    def go_away(self, *, hard: bool = False) -> None:
        """End every connection: after the replies that are under way, or ``hard``, at once.

        Over HTTP/2 that is GOAWAY, which names the last request that is answered, or was taken.
        """
        self._service.go_away(hard=hard)

    def go_away_soon(self, *, hard: bool) -> None:
        """The same when everything that is under way in this turn of the loop is done."""
        self._loop.call_soon(lambda: self.go_away(hard=hard))

    def stop_reading(self, *, for_s: float | None = None) -> None:
        """Read nothing more of the connections that are open, for so long or until `read_on`; replies go on."""
        self.read_on()
        self._service.stop_reading()
        if for_s is not None:
            self._reading_on = self._loop.call_later(for_s, self.read_on)

    def read_on(self) -> None:
        """Read again."""
        if self._reading_on is not None:
            self._reading_on.cancel()
            self._reading_on = None
        self._service.read_on()

    def summary(self, *, doubled: bool = True) -> Summary:
        """Sum up the ledger; ``doubled=False`` leaves out the audit that takes long with millions of recipients."""
        return sum_up(self._there, doubled=doubled)

    @property
    def _there(self) -> World:
        if self._world is None:
            raise RuntimeError("enter the server with 'async with' first")
        return self._world

    async def _listen(self) -> None:
        self._offer()
        self._listener = await self._loop.create_server(
            self._line, self._host, self._port, ssl=self._ssl, backlog=_BACKLOG
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    def _line(self) -> PlainLine | TlsLine:
        if self._ssl is None:
            return PlainLine(self._service, loop=self._loop)
        return TlsLine(self._service, loop=self._loop, buffer=self._buffer)

    def _offer(self) -> None:
        """Say in TLS handshakes what is spoken here."""
        if self._ssl is not None:
            self._ssl.set_alpn_protocols(["h2", "http/1.1"] if self._there.config.http2 else ["http/1.1"])

    def _hush(self) -> None:
        """Refuse new connections, from the next turn of the loop on: what this one has accepted needs the listener."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        for each in listener.sockets:
            with suppress(NotImplementedError):  # Windows
                self._loop.remove_reader(each)  # uvloop has none for it, and needs none to be taken away
        self._loop.call_soon(listener.close)

    def _watch_outages(self) -> None:
        """Look at the listener now, and whenever an outage begins or ends."""
        for edge in self._edges:
            edge.cancel()
        lead_s = self._loop.time() - self._there.now_s()
        self._edges = [
            self._loop.call_at(lead_s + at_s + _TIMER_S, self._turn)
            for at_s in self._there.faults.outage_edges()
            if at_s >= self._there.now_s()
        ]
        self._turn()

    def _turn(self) -> None:
        outage = self._there.faults.outage(self._there.now_s())
        if outage is not None:
            self._service.reset_all()
        if outage is not None and outage.kind == "outage_refuse":
            self._hush()
        elif self._listener is None and self._turning is None:
            self._turning = self._loop.create_task(self._listen())
            self._turning.add_done_callback(self._turned)

    def _turned(self, task: asyncio.Task[None]) -> None:
        self._turning = None
        if not task.cancelled():
            task.result()


async def _turns() -> None:
    """Let the loop take the steps between accepting, making and losing a connection."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def serve(
    config: MockConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl: tls.SSLContext | None = None,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[MockServer], None] | None = None,
) -> Summary:
    """Run a server until ``stop`` is set, and return its summary.

    ``on_ready`` is called when clients may come. Without ``stop`` it runs until it is cancelled, which closes the
    server. Raises SettingsError, and OSError where the port is taken.
    """
    async with MockServer(config, host=host, port=port, ssl=ssl) as server:
        if on_ready is not None:
            on_ready(server)
        await (stop or asyncio.Event()).wait()
        return server.summary()


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Say for a person why a server cannot listen; an event loop's own words repeat the address."""
    reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
    return f"{_bracketed(host)}:{port}: cannot listen: {reason}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _changed(config: MockConfig, changes: dict[str, object]) -> MockConfig:
    return patched(config, msgspec.to_builtins(changes)) if changes else config
