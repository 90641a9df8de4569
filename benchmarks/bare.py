"""The contestant that every engine is measured against: a bare aiohttp loop, without pacing, retries or receipts.

It is as quick as aiohttp is by its public API: no cookies, no decompression, one timeout, bodies as bytes.

Units: seconds.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from benchmarks.workload import API_KEY
from sendengine.core.wire import WireRequest

_HEADERS: Final = {"Authorization": f"Key {API_KEY}", "Content-Type": "application/json"}

Permits = Callable[[], Awaitable[None]]


def open_session(*, connections: int) -> ClientSession:
    """Make a session for so many connections; call it on a running loop."""
    return ClientSession(
        connector=TCPConnector(limit=connections),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=60),
        auto_decompress=False,
        headers=_HEADERS,
    )


async def send_all(
    session: ClientSession,
    base_url: str,
    requests: Iterator[WireRequest],
    *,
    workers: int,
    permit: Permits | None = None,
) -> Counter[int]:
    """Send every request over ``workers`` connections, each after its ``permit``, and count replies by status."""
    statuses: Counter[int] = Counter()

    async def work() -> None:
        for request in requests:
            if permit is not None:
                await permit()
            url = URL(base_url + request.path, encoded=True)
            async with session.request(request.method, url, data=request.body) as response:
                await response.read()
                statuses[response.status] += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return statuses
