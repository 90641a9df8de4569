"""A transport within the process, behind a gate: while it is shut, everything that is submitted waits.

Units: requests.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from sendengine.ports import Permit, Reply, WireRequest

_JSON: Final = {"content-type": "application/json"}
_REPLIES: Final[Mapping[str, Reply]] = {
    "POST": Reply(200, _JSON, b'{"id":"5e4de491-0000-4000-8000-000000000001","external_id":null}'),
    "PATCH": Reply(202, _JSON, b'{"properties":{}}'),
}


class GatedTransport:
    """Opens no connection until it is opened itself; then as many as are wanted, and answers within the process."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()
        self._connections = 0
        self.requests = 0

    def open(self) -> None:
        """Let every connection open from now on."""
        self._gate.set()

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Answer as OneSignal does when all is well, a turn of the loop after the permit."""
        await permit()
        self.requests += 1
        await asyncio.sleep(0)
        return _REPLIES[request.method]

    async def warm(self, count: int) -> int:
        """Wait for the gate, then count."""
        await self._gate.wait()
        self._connections = max(self._connections, count)
        return self._connections

    def replace_key(self, api_key: str) -> None:
        """Nobody looks at keys here."""

    @property
    def open_connections(self) -> int:
        """As many as were ever wanted."""
        return self._connections

    @property
    def capacity(self) -> int:
        """One exchange a connection."""
        return self._connections

    @property
    def max_exchanges(self) -> int:
        """The settings' bound on connections holds."""
        return 0

    @property
    def protocol(self) -> str | None:
        """None is spoken."""
        return None

    async def aclose(self) -> None:
        """Forget them."""
        self._connections = 0
