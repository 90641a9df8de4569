"""Opens a connection: a name, its addresses, a socket, TLS; all within ``connect_timeout_s``.

Units: seconds on the running loop's clock.

Method: addresses are tried one after the other, the next one as soon as one has failed or is not ready within
`STAGGER_S`; the first that is ready, with TLS where that is asked for, is taken (RFC 8305). What ready means beyond
that is its protocol's to say (``greeted``): HTTP/2 begins with a greeting of the server.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

from sendengine.errors import NotSentError
from sendengine.transport.direct.addresses import Address, Addresses
from sendengine.transport.direct.sessions import ResumingContext
from sendengine.transport.direct.wheel import Timed, Wheel
from sendengine.transport.failures import FOREIGN
from sendengine.transport.spacing import Spacing
from sendengine.transport.troubles import overdue, unopened, written

STAGGER_S: Final = 0.5  # RFC 8305, section 5, has 0.1 to 2 s, and TLS is a round trip more

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_Opened = TypeVar("_Opened")


class _Limit(Timed):
    """The time that one dial has."""

    __slots__ = ("_task", "is_over")

    def __init__(self, task: "asyncio.Task[object]") -> None:
        super().__init__()
        self._task = task
        self.is_over = False

    def expire(self) -> None:
        """Interrupt it."""
        self.is_over = True
        self._task.cancel()


class Dialer(Generic[_Protocol]):
    """Dials one host. Make it on a running loop; each dial runs in a task of its own."""

    __slots__ = (
        "_addresses",
        "_greeted",
        "_host",
        "_loop",
        "_make",
        "_spacing",
        "_timeout_s",
        "_tls",
        "_wheel",
        "_where",
    )

    def __init__(
        self,
        make: Callable[[], _Protocol],
        *,
        host: str,
        port: int,
        tls: ResumingContext | None,
        timeout_s: float,
        wheel: Wheel,
        greeted: Callable[[_Protocol], Awaitable[None]] | None = None,
    ) -> None:
        """``greeted`` waits until what ``make`` has made may be used; it raises NotSentError where that fails."""
        self._make = make
        self._host = host
        self._where = written(host, port)
        self._tls = tls
        self._timeout_s = timeout_s
        self._wheel = wheel
        self._greeted = greeted
        self._addresses = Addresses(host, port)
        self._spacing = Spacing()
        self._loop = asyncio.get_running_loop()

    async def dial(self) -> _Protocol:
        """Open a connection. Raises NotSentError where that fails; cancelling it leaves no socket."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a dial runs in a task")
        limit = _Limit(task)
        limit.due_s = self._loop.time() + self._timeout_s
        self._wheel.file(limit)
        try:
            return await self._open()
        except FOREIGN as error:
            raise NotSentError(unopened(self._where, error)) from None
        except asyncio.CancelledError:
            if not limit.is_over:
                raise
            raise NotSentError(overdue(self._where, self._timeout_s)) from None
        finally:
            self._wheel.forget(limit)

    async def aclose(self) -> None:
        """Give up what is shared between dials."""
        await self._addresses.aclose()

    async def _open(self) -> _Protocol:
        addresses = await self._addresses.next()
        turn = None if self._tls is None else await self._spacing.turn()
        try:
            transport, protocol = await _first(
                self._attempt, addresses, loop=self._loop, overtaken=self._addresses.overtaken
            )
        except BaseException:
            self._addresses.forget()
            raise
        finally:
            if turn is not None:
                turn.end()
        if self._tls is not None:
            wrapped = transport.get_extra_info("ssl_object")
            if isinstance(wrapped, ssl.SSLObject):
                self._tls.opened(wrapped)
        return protocol

    async def _attempt(self, address: Address) -> tuple[asyncio.Transport, _Protocol]:
        """Open a connection to one address.

        The loop makes the socket: where uvloop (0.23) is handed one that ends within its handshake, the descriptor may
        be closed twice, and be somebody else's the second time.
        """
        tls = self._tls
        transport, protocol = await self._loop.create_connection(
            self._make,
            host=str(address.where[0]),
            port=int(address.where[1]),
            family=address.family,
            proto=address.protocol,
            ssl=tls,
            server_hostname=self._host if tls is not None else None,
            ssl_handshake_timeout=self._timeout_s + 1 if tls is not None else None,  # ours comes first
        )
        if self._greeted is not None:
            try:
                await self._greeted(protocol)
            except BaseException:
                transport.abort()
                raise
        return transport, protocol


async def _first(
    attempt: Callable[[Address], Coroutine[object, object, tuple[asyncio.Transport, _Protocol]]],
    addresses: Sequence[Address],
    *,
    loop: asyncio.AbstractEventLoop,
    overtaken: Callable[[Address], None],
) -> tuple[asyncio.Transport, _Protocol]:
    """Return what the first attempt that succeeds has opened; raises the last error where none does.

    ``overtaken`` is told of each address that was tried before that one and has neither failed nor succeeded.
    """
    if len(addresses) == 1:
        return await attempt(addresses[0])
    waiting = deque(addresses)
    racing: dict[asyncio.Task[tuple[asyncio.Transport, _Protocol]], Address] = {}  # in the order of their beginnings
    error: BaseException = OSError("the name has no addresses")
    try:
        while waiting or racing:
            if waiting:
                address = waiting.popleft()
                racing[loop.create_task(attempt(address))] = address
            done, _ = await asyncio.wait(
                racing, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                failed = task.exception()
                if failed is None:
                    for slower in _earlier(racing, task):
                        overtaken(slower)
                    del racing[task]
                    return task.result()
                del racing[task]
                error = failed
        raise error
    finally:
        del error  # it would hold this frame, and be held by it
        for task in racing:
            if not task.cancel() and task.exception() is None:
                task.result()[0].abort()


def _earlier(racing: "Mapping[asyncio.Task[_Opened], Address]", won: "asyncio.Task[_Opened]") -> Iterator[Address]:
    """Give the addresses that were tried before the one that won, and of which nothing is known yet."""
    for task, address in racing.items():
        if task is won:
            return
        if not task.done():
            yield address
