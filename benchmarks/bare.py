"""The contestant that every engine is measured against: a bare aiohttp loop, without pacing, retries or receipts.

It is as quick as aiohttp is by its public API: no cookies, no decompression, one timeout, bodies as bytes.

Units: seconds.
"""

import asyncio
import ssl as tls
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from benchmarks.workload import API_KEY, CERTIFICATE
from sendengine.core.wire import WireRequest

HEADERS: Final = {"Authorization": f"Key {API_KEY}", "Content-Type": "application/json"}

Permits = Callable[[], Awaitable[object]]


def trusting(base_url: str) -> tls.SSLContext | None:
    """Make a context that trusts the benchmarks' certificate, where the server needs one."""
    return tls.create_default_context(cafile=str(CERTIFICATE)) if base_url.startswith("https") else None


def open_session(base_url: str, *, connections: int) -> ClientSession:
    """Make a session for so many connections; call it on a running loop."""
    return ClientSession(
        connector=TCPConnector(limit=connections, ssl=trusting(base_url) or True),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=60),
        auto_decompress=False,
        headers=HEADERS,
    )


async def send(session: ClientSession, base_url: str, request: WireRequest) -> int:
    """Send one request, read its reply, and return its status."""
    url = URL(base_url + request.path, encoded=True)
    async with session.request(request.method, url, data=request.body) as response:
        await response.read()
        return response.status


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
            statuses[await send(session, base_url, request)] += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return statuses
