"""Every test here runs on asyncio's loop and on uvloop, with each transport, and leaves nothing behind."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec
import pytest
import pytest_asyncio

from sendengine.ports import Transport
from sendengine.settings import TransportSettings
from sendengine.transport import AiohttpTransport, DirectTransport
from tests.transport.h2_bridge import BridgedPeer
from tests.transport.scripted import JumpLoop, Wire

KEY = "os_v2_app_canary"

TransportMaker = Callable[..., Transport]
MAKERS: Final[Mapping[str, TransportMaker]] = {
    "aiohttp": AiohttpTransport,
    "direct": DirectTransport,
    "h2": DirectTransport,
}
PROTOCOLS: Final[Mapping[str, dict[str, str]]] = {"aiohttp": {}, "direct": {}, "h2": {"protocol": "h2"}}
_LATER: Final = ("[asyncio-h2", "[uvloop-aiohttp")
_LONG: Final = "test_transport_outage.py"  # over a hundred connections each time
HANG_S: Final = 30.0  # of real time; no test takes a tenth of it

on_asyncio = pytest.mark.asyncio(loop_factories=["asyncio"])
"""For tests that put the clock forward, which uvloop's does not allow, or that need only one of the loops."""

aiohttp_only = pytest.mark.parametrize("kind", ["aiohttp"], indirect=True)
direct_only = pytest.mark.parametrize("kind", ["direct"], indirect=True)
h2_only = pytest.mark.parametrize("kind", ["h2"], indirect=True)


def http1_only(reason: str) -> pytest.MarkDecorator:
    """Leave HTTP/2 out of a test whose rule has no meaning there; ``reason`` says why, and what says it of HTTP/2."""
    assert reason
    return pytest.mark.parametrize("kind", ["aiohttp", "direct"], indirect=True)


def cases(table: Iterable[str], *, http1: Iterable[str], reason: str) -> pytest.MarkDecorator:
    """Run a table's cases, as ``name``, with each transport, but those in ``http1`` not over HTTP/2, for a reason."""
    assert reason
    left_out = set(http1)
    both = [(kind, name) for name in table for kind in MAKERS if kind != "h2" or name not in left_out]
    return pytest.mark.parametrize(("kind", "name"), both, indirect=["kind"])


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if sys.platform == "win32":
        return {"asyncio": JumpLoop}
    import uvloop  # noqa: PLC0415 - not on Windows

    return {"asyncio": JumpLoop, "uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave one of the loops for `make slow`, where HTTP/2 and aiohttp go through what all transports go through."""
    for item in items:
        later = (*_LATER, "[uvloop-direct") if item.path.name == _LONG else _LATER
        if item.path.name.startswith("test_transport_") and any(one in item.name for one in later):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=list(MAKERS))
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the transport under test, whose protocol scripted servers speak.

    What only one does is marked with `aiohttp_only`, `direct_only` (over HTTP/1.1) or `h2_only`, and what has no
    meaning in HTTP/2 with `http1_only`.
    """
    chosen: str = request.param
    if chosen == "h2":
        monkeypatch.setattr(Wire, "peer", BridgedPeer)
        monkeypatch.setattr(Wire, "protocols", ("h2",))
    return chosen


@pytest.fixture
def make(kind: str) -> TransportMaker:
    """Make the transport under test."""

    def making(url: str, *, max_connections: int = 20, api_key: str = KEY, **settings: object) -> Transport:
        made = msgspec.convert(PROTOCOLS[kind] | settings, TransportSettings)
        return MAKERS[kind](base_url=url, api_key=api_key, settings=made, max_connections=max_connections)

    return making


@contextmanager
def _watchdog(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Cancel whatever still runs after `HANG_S`, so that a transport that hangs fails one test and not the run."""

    def bark() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel("the test hangs")

    timer = threading.Timer(HANG_S, loop.call_soon_threadsafe, [bark])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest_asyncio.fixture
async def open_transport(make: TransportMaker) -> AsyncIterator[TransportMaker]:
    """Open transports that are closed when the test is over; no task and no complaint of the loop is left then."""
    opened: list[Transport] = []
    complaints: list[Mapping[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    def opening(url: str, **options: object) -> Transport:
        opened.append(make(url, **options))
        return opened[-1]

    with _watchdog(loop):
        yield opening
    for transport in opened:
        await transport.aclose()
        assert transport.open_connections == 0
        if isinstance(transport, DirectTransport):
            assert (transport.capacity, transport._pool.busy) == (0, 0), "all room was given back"
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in left if any(name in repr(task.get_coro()) for name in ("sendengine", "aiohttp"))]
    assert complaints == []
