"""What else one could send with: httpx, and OneSignal's own SDK on threads. They come with the extra ``bench``.

Each is used as its documentation has it, with a pool as large as its workers, and is given what it needs (bodies for
httpx, models for the SDK) before the clock starts.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any, Final

from benchmarks.bare import HEADERS, trusting
from benchmarks.workload import API_KEY, APP_ID, CERTIFICATE, CREATE
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.wire import WireRequest

_TIMEOUT_S: Final = 60.0
_SLICE: Final = 50  # calls that a thread takes at a time

Call = Callable[[], object]


def is_installed(package: str) -> bool:
    """Whether a contestant's package is there."""
    return find_spec(package) is not None


def open_httpx(base_url: str, *, connections: int) -> Any:  # noqa: ANN401 - the package may be missing where types are checked
    """Make an httpx client for so many connections."""
    httpx = import_module("httpx")
    return httpx.AsyncClient(
        base_url=base_url,
        headers=HEADERS,
        timeout=_TIMEOUT_S,
        verify=trusting(base_url) or True,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


async def send_by_httpx(client: Any, requests: Iterator[WireRequest], *, workers: int) -> Counter[int]:  # noqa: ANN401 - see above
    """Send every request over ``workers`` connections, and count replies by status."""
    statuses: Counter[int] = Counter()

    async def work() -> None:
        for request in requests:
            response = await client.request(request.method, request.path, content=request.body)
            statuses[response.status_code] += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return statuses


class Sdk:
    """OneSignal's Python SDK with a pool for so many threads; leave it with `close`."""

    def __init__(self, base_url: str, *, threads: int) -> None:
        package, api = import_module("onesignal"), import_module("onesignal.api.default_api")
        self._models = import_module("onesignal.models")
        configuration = package.Configuration(
            host=base_url, rest_api_key=API_KEY, ssl_ca_cert=str(CERTIFICATE) if base_url.startswith("https") else None
        )
        configuration.connection_pool_maxsize = threads
        self._client = package.ApiClient(configuration)
        self._api = api.DefaultApi(self._client)
        self._threads = ThreadPoolExecutor(threads)
        self._count = threads

    def call(self, group: EndpointGroup, number: int) -> Call:
        """Make one call: a notification to one user, or a change of one tag."""
        user = f"user-{number}"
        if group is CREATE:
            contents = self._models.LanguageStringMap(en="Your order has shipped, and is with you tomorrow")
            notification = self._models.Notification(
                app_id=APP_ID,
                contents=contents,
                include_aliases={"external_id": [user]},
                target_channel="push",
            )
            return lambda: self._api.create_notification(notification)
        properties = self._models.PropertiesObject(tags={"level": str(number % 50)})
        change = self._models.UpdateUserRequest(properties=properties)
        return lambda: self._api.update_user(APP_ID, "external_id", user, change)

    def make(self, calls: Iterator[Call]) -> int:
        """Make every call, on as many threads as there are, and return how many; raises what a call raises."""
        if self._count == 1:
            return _make_all(list(calls))
        slices = iter(lambda: list(islice(calls, _SLICE)), [])
        return sum(self._threads.map(_make_all, slices))

    def close(self) -> None:
        """Close connections and threads."""
        self._threads.shutdown()
        self._client.close()


def _make_all(calls: list[Call]) -> int:
    for call in calls:
        call()
    return len(calls)
