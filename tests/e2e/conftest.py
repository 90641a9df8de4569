"""Engine and server share one loop, whose clock is virtual: every limit, pause and latency is exact."""

import asyncio
from collections.abc import Callable, Mapping

from tests.support.virtual_loop import VirtualLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualLoop}
