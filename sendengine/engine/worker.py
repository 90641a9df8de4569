"""A worker stands for a connection, or a stream of one: it takes a request from its lane, sends it, and reports.

The connection is opened before the first request is taken, so that no request waits for a slow connect while another
worker comes free; the permit comes last, inside the transport, with the connection in hand.
"""

import asyncio
from typing import TYPE_CHECKING

from sendengine.engine import endings
from sendengine.engine.custody import Custody
from sendengine.engine.sealed import Sealed
from sendengine.errors import NotSentError, ReplyLostError, StorageError
from sendengine.limiter import GateClosedError

if TYPE_CHECKING:
    from sendengine.engine.lane import Lane


class StaleRequestError(Exception):
    """The request's deadline passed while it waited for its permit; internal, never leaves the engine."""


class Worker:
    """One loop of take, exchange, report. Cancelling it reports the request in hand as interrupted."""

    __slots__ = ("_lane", "_sealed", "_turn")

    def __init__(self, lane: "Lane") -> None:
        self._lane = lane
        self._sealed: Sealed | None = None
        self._turn: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """There is something to do."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def run(self) -> None:
        """Work until cancelled, or until another lane needs the connection."""
        lane = self._lane
        try:
            await lane.app.connect()
        finally:
            lane.pool.connected()
        try:
            await self._work()
        finally:
            if self._sealed is not None:
                endings.interrupted(lane, self._sealed)

    async def _work(self) -> None:  # noqa: C901 - parted in two it would cost each request a coroutine
        lane = self._lane
        custody, exchange, permit = lane.custody, lane.transport.exchange, self._permit
        while True:
            sealed = self._sealed = lane.take()
            if sealed is not None:
                try:
                    if custody is not None and not custody.has(sealed):
                        await self._keep(sealed, custody)
                    reply = await exchange(sealed.wire, permit)
                except StorageError:
                    endings.not_kept(lane, sealed)
                except GateClosedError:
                    endings.gate_closed(lane, sealed)
                except StaleRequestError:
                    endings.stale(lane, sealed)
                except (NotSentError, ReplyLostError) as error:
                    endings.unanswered(lane, sealed, error)
                else:
                    endings.answered(lane, sealed, reply)
                    del reply  # each of thousands of workers would hold its last one while it waits for the next
                self._sealed = None
            if lane.pool.must_shrink:  # before it parks, too: nobody asks those who are parked
                return
            if sealed is None:
                await self._park()

    async def _park(self) -> None:
        turn = self._turn = self._lane.loop.create_future()
        self._lane.pool.park(self)
        try:
            await turn
        finally:
            if turn.cancelled():
                self._lane.pool.forget(self)
            else:
                self._lane.pool.waking -= 1
            self._turn = None

    async def _keep(self, sealed: Sealed, custody: Custody) -> None:
        """Wait until the request is on disk. Raises StorageError where it never will be."""
        lane = self._lane
        lane.keeping += 1
        try:
            await custody.keep(sealed, lane=lane.name)
        finally:
            lane.keeping -= 1
        lane.pace.look_ahead(disk_s=2 * custody.flush_s)

    async def _permit(self) -> None:
        """Wait for the lane's permit; what it raises tells the exchange to give the connection back."""
        sealed = self._sealed
        if sealed is None:
            raise AssertionError("a permit is asked for by a request in hand")
        limiter = self._lane.limiter
        if not limiter.try_permit():
            await limiter.permit(high=sealed.is_high)
        self._lane.launch(sealed)
