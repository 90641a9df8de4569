"""Every test here runs on asyncio's loop and on uvloop, and leaves no task behind."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
import pytest
import pytest_asyncio

from sendengine.ports import Transport
from sendengine.settings import TransportSettings
from sendengine.transport import AiohttpTransport
from tests.transport.scripted import JumpLoop

KEY = "os_v2_app_canary"

on_asyncio = pytest.mark.asyncio(loop_factories=["asyncio"])
"""For tests that put the clock forward, which uvloop's does not allow."""

TransportMaker = Callable[..., Transport]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if sys.platform == "win32":
        return {"asyncio": JumpLoop}
    import uvloop  # noqa: PLC0415 - not on Windows

    return {"asyncio": JumpLoop, "uvloop": uvloop.new_event_loop}


def open_aiohttp(url: str, *, max_connections: int = 20, **settings: object) -> Transport:
    made = msgspec.convert(settings, TransportSettings)
    return AiohttpTransport(base_url=url, api_key=KEY, settings=made, max_connections=max_connections)


@pytest.fixture(params=[open_aiohttp], ids=["aiohttp"])
def make(request: pytest.FixtureRequest) -> TransportMaker:
    """Make the transport under test; another one joins by joining the parameters."""
    maker: TransportMaker = request.param
    return maker


@pytest_asyncio.fixture
async def open_transport(make: TransportMaker) -> AsyncIterator[TransportMaker]:
    """Open transports that are closed when the test is over, and see that no task is left then."""
    opened: list[Transport] = []

    def opening(url: str, **options: object) -> Transport:
        opened.append(make(url, **options))
        return opened[-1]

    yield opening
    for transport in opened:
        await transport.aclose()
        assert transport.open_connections == 0
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "sendengine" in repr(task.get_coro()) or "aiohttp" in repr(task.get_coro())]
