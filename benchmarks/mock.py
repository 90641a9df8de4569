"""How many requests a second one core of the mock server carries.

Method: a number of connections, each of which sends its next request as soon as the last one is answered. What counts
is the CPU that the server used meanwhile, so that it does not matter how quick the sender is. Limits are counted, and
are far above. Requests are rendered before the clock starts.

Units: requests per second of the server's CPU.
"""

import asyncio
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Annotated, Final, cast
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from benchmarks.benchmark import AtLeastOne, Benchmark, LoopKind, Rounds
from benchmarks.fresh import in_fresh_process, run_on
from benchmarks.mocked import MeasuredMock
from benchmarks.report import Report, at_least, row
from benchmarks.workload import API_KEY, CREATE, UPDATE, rendered
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.wire import WireRequest
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig

_TARGET: Final = 10_000
_FIGURE: Final = "requests/CPU-s"
_TICK_S: Final = 0.01  # CPU is counted in hundredths of a second
_FAR_ABOVE: Final = LaneLimit(rate=1e6)
_CONFIG: Final = MockConfig(
    default=AppConfig(create_notification=_FAR_ABOVE, update_user=_FAR_ABOVE),
    application_limit="off",
    keep_updates=False,
)


class Case(Struct, frozen=True):
    """What is sent; ``part`` of the number of requests that was asked for."""

    group: EndpointGroup
    recipients: int = 1
    part: float = 1.0


CASES: Final[Mapping[str, Case]] = {
    "notification": Case(CREATE),
    "update": Case(UPDATE),
    "notification to 2,000": Case(CREATE, 2000, 0.02),
}


class Task(Struct, frozen=True):
    """One turn of the sender."""

    case: Case
    base_url: str
    requests: int
    connections: int
    loop: LoopKind = "uvloop"


class Mock(Benchmark, frozen=True, kw_only=True):
    """Requests a second that one core of the mock server carries."""

    requests: Annotated[AtLeastOne, Meta(description="requests in each round")] = 50_000
    connections: Annotated[AtLeastOne, Meta(description="connections that send")] = 64
    rounds: Rounds = 3

    async def run(self) -> Report:
        """Measure each kind of request in turn."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
        async with MeasuredMock(_CONFIG) as mock:
            for _ in range(self.rounds):
                for name, case in CASES.items():
                    await mock.reset()
                    found[name].append(await self._measured(case, mock))
        report = Report(rows=[row(name, rounds) for name, rounds in found.items()], checks=[])
        for each in report.rows[:2]:
            report.checks.append(at_least(f"{each.case}, {_FIGURE}", each.figures[_FIGURE].median, _TARGET))
        return report

    async def _measured(self, case: Case, mock: MeasuredMock) -> dict[str, float]:
        requests, before_s = max(1, round(self.requests * case.part)), mock.cpu_s
        wall_s = await in_fresh_process(send, Task(case, mock.base_url, requests, self.connections))
        cpu_s, accepted = mock.cpu_s - before_s, await mock.accepted(case.group.value)
        assert accepted == requests, f"{accepted} of {requests} accepted"
        return {
            _FIGURE: requests / max(cpu_s, _TICK_S),
            "µs CPU": cpu_s / requests * 1e6,
            "requests/s": requests / wall_s,
        }


def send(task: Task) -> float:
    """Send in this process, and return how many seconds it took."""
    return run_on(task.loop, _send(task))


async def _send(task: Task) -> float:
    where = urlsplit(task.base_url)
    case = task.case
    numbers = range(0, task.requests * case.recipients, case.recipients)
    requests = [_raw(rendered(case.group, number, recipients=case.recipients)) for number in numbers]
    rest, begun_s = iter(requests), perf_counter()
    loop = asyncio.get_running_loop()
    senders = [Sender(rest, loop.create_future()) for _ in range(task.connections)]
    for sender in senders:
        await loop.create_connection(lambda each=sender: each, where.hostname or "", where.port or 0)  # type: ignore[misc]
    await asyncio.gather(*(sender.done for sender in senders))
    return perf_counter() - begun_s


def _raw(request: WireRequest) -> bytes:
    head = (
        f"{request.method} {request.path} HTTP/1.1\r\nHost: mock\r\nAuthorization: Key {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n\r\n"
    )
    return head.encode() + request.body


class Sender(asyncio.Protocol):
    """One connection: the next request as soon as a whole reply is there, until there are no more."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self.done = done
        self._requests = requests
        self._reply = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its class
        self._next()

    def data_received(self, data: bytes) -> None:
        """Send the next request if this completes a reply."""
        self._reply += data
        head, end, body = self._reply.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if end and len(body) >= int(length):
            self._reply = b""
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so, where a reply was still awaited."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the mock server closed a connection"))

    def _next(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()
