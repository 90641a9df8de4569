"""When measured jobs were written, and when their replies were there: a transport that takes note of it.

A measured job is known by its recipient, ``measured-N``, so that others pass without a note.

Units: instants are seconds on ``perf_counter``.
"""

import asyncio
import re
from time import perf_counter
from typing import Final

from benchmarks.workload import CREATE
from sendengine import CreateNotification, Job, UpdateUser, external_id
from sendengine.core.jobs import Urgency
from sendengine.core.onesignal import EndpointGroup
from sendengine.ports import Permit, Reply, Transport, WireRequest

_MEASURED: Final = re.compile(rb"measured-(\d+)")


def measured_job(
    group: EndpointGroup, number: int, *, urgency: Urgency = "normal", pack: bool | None = None
) -> CreateNotification | UpdateUser:
    """Make a job that is measured, with a message of its own."""
    target = external_id(f"measured-{number}")
    if group is CREATE:
        message = {"contents": {"en": f"Your code is {number}"}}
        return CreateNotification(to=target, channel="push", message=message, urgency=urgency, pack=pack)
    return UpdateUser(target, {"level": number}, urgency=urgency)


def number_of(job: Job) -> int:
    """Return the number of a measured job, or -1."""
    target = job.to if isinstance(job, CreateNotification) else job.user
    name, _, number = target.ids[0].partition("-")
    return int(number) if name == "measured" else -1


class Stamps:
    """Instants of measured jobs, by their numbers: of the first write, and of the last reply."""

    def __init__(self) -> None:
        self.written_s: dict[int, float] = {}
        self.replied_s: dict[int, float] = {}
        self._news = asyncio.Event()

    def written(self, number: int) -> None:
        """A measured job is being written."""
        self.written_s.setdefault(number, perf_counter())
        self._news.set()

    async def reached(self, count: int) -> None:
        """Wait until so many were written."""
        while len(self.written_s) < count:
            self._news.clear()
            await self._news.wait()


class StampingTransport:
    """A transport around another one."""

    def __init__(self, inner: Transport, stamps: Stamps) -> None:
        self._inner = inner
        self._stamps = stamps

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        """Exchange; where the job is measured, note when the permit was granted and when the reply was there."""
        found = _MEASURED.search(request.body if request.method == "POST" else request.path.encode())
        if found is None:
            return await self._inner.exchange(request, permit)
        number = int(found[1])

        async def stamped() -> None:
            await permit()
            self._stamps.written(number)

        reply = await self._inner.exchange(request, stamped)
        self._stamps.replied_s[number] = perf_counter()
        return reply

    async def warm(self, count: int) -> int:
        """Pass it on."""
        return await self._inner.warm(count)

    def replace_key(self, api_key: str) -> None:
        """Pass it on."""
        self._inner.replace_key(api_key)

    @property
    def open_connections(self) -> int:
        """As many as the inner one has."""
        return self._inner.open_connections

    @property
    def capacity(self) -> int:
        """As the inner one's."""
        return self._inner.capacity

    @property
    def max_exchanges(self) -> int:
        """As the inner one's."""
        return self._inner.max_exchanges

    @property
    def protocol(self) -> str | None:
        """As the inner one's."""
        return self._inner.protocol

    async def aclose(self) -> None:
        """Pass it on."""
        await self._inner.aclose()
