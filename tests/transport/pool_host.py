"""A host for tests of the pool, dialed as a test says: its connections carry one exchange each, without a socket."""

import asyncio

from sendengine.errors import NotSentError
from sendengine.ports import Reply, WireRequest
from sendengine.transport.direct.bound import ConnectionBound
from sendengine.transport.direct.contract import Connection
from sendengine.transport.direct.pool import Pool
from tests.transport.scripted import turns


class FakeConnection:
    """Keeps what `Connection` promises, for one exchange at a time, without a socket."""

    room = 1

    def __init__(self, host: "Host", number: int) -> None:
        self.host = host
        self.number = number
        self.is_usable = True
        self.is_claimed = False

    @property
    def has_room(self) -> bool:
        return self.is_usable and not self.is_claimed

    @property
    def is_gone(self) -> bool:
        return not self.is_usable

    def enter(self) -> None:
        self.host.pool.offer(self)

    def claim(self) -> int:
        assert not self.is_claimed, "nobody else has it"
        self.is_claimed = self.is_usable
        return int(self.is_usable)

    def give_back(self) -> None:
        self.is_claimed = False
        if self.is_usable:
            self.host.pool.offer(self)

    def send(self, request: WireRequest) -> asyncio.Future[Reply]:
        raise NotImplementedError

    def abandon(self, reply: asyncio.Future[Reply]) -> None:
        raise NotImplementedError

    def retire(self) -> None:
        assert not self.is_claimed, "nobody uses it"
        self.break_()

    def cut(self) -> None:
        self.break_()

    def dismiss(self) -> None:
        """End as a server does that has answered nothing."""
        self.is_usable = False
        self.host.pool.ended(self, has_served=False)
        self.host.pool.withdraw(self)
        asyncio.get_running_loop().call_soon(self.host.pool.lost, self)

    def break_(self) -> None:
        if self.is_usable:
            self.is_usable = False
            self.host.pool.withdraw(self)
            asyncio.get_running_loop().call_soon(self.host.pool.lost, self)


class Host:
    """Lets itself be dialed when it is told to."""

    def __init__(self, *, max_connections: int = 10, bound: ConnectionBound | None = None) -> None:
        self.pool = Pool(self.dial, max_connections=max_connections, bound=bound)
        self.dials: list[asyncio.Future[bool]] = []  # under way
        self.most_dials = 0
        self.opened: list[FakeConnection] = []

    async def dial(self) -> Connection:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.dials.append(answer)
        self.most_dials = max(self.most_dials, len(self.dials))
        try:
            if not await answer:
                raise NotSentError("no connection: nobody there")
        finally:
            self.dials.remove(answer)
        self.opened.append(FakeConnection(self, len(self.opened)))
        return self.opened[-1]

    def answer(self, *, with_: bool = True) -> None:
        """Let the oldest dial come to its end."""
        next(dial for dial in self.dials if not dial.done()).set_result(with_)


def numbers(*connections: Connection | None) -> list[int]:
    found = []
    for connection in connections:
        assert isinstance(connection, FakeConnection)
        assert connection.is_claimed
        found.append(connection.number)
    return found


async def opened(host: Host, count: int) -> list[Connection]:
    """Open so many, all claimed."""
    tasks = [asyncio.create_task(host.pool.obtain()) for _ in range(count)]
    await turns()
    while host.dials:
        for dial in host.dials:
            dial.set_result(True)
        await turns()
    return [await task for task in tasks]
