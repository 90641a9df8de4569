"""The addresses of a host: looked up, kept for at most `DNS_TTL_S`, and all of them used.

Units: seconds on the running loop's clock.

Method: the system's order decides which family comes first; then the families take turns, so that a family without a
route costs one attempt. Within a family each caller begins with another address, so that connections spread over all.
"""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import TypeAlias

from msgspec import Struct

from sendengine.core.onesignal import DNS_TTL_S

_Where: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_Found: TypeAlias = tuple[int, int, int, str, _Where]  # as getaddrinfo has it


class Address(Struct, frozen=True):
    """Where a socket may connect to."""

    family: int
    protocol: int
    where: _Where


class Addresses:
    """One host's addresses. Make it on a running loop."""

    __slots__ = ("_families", "_host", "_looking", "_loop", "_port", "_turn", "_until_s")

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._families: list[list[Address]] = []
        self._until_s = 0.0
        self._turn = 0
        self._looking: asyncio.Task[None] | None = None

    async def next(self) -> list[Address]:
        """Return every address in the order in which to try them; each call begins with another one.

        Raises OSError where the name is not known. Cancelling it leaves a look-up to others who wait for it.
        """
        if not self._families or self._loop.time() >= self._until_s:
            await self._look_up_once()
        turn, self._turn = self._turn, self._turn + 1
        rotated = [family[turn % len(family) :] + family[: turn % len(family)] for family in self._families]
        return [address for address in chain.from_iterable(zip_longest(*rotated)) if address is not None]

    def forget(self) -> None:
        """Look the name up again next time: none of its addresses answered."""
        self._until_s = 0.0

    async def aclose(self) -> None:
        """Give up a look-up."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look_up_once(self) -> None:
        """Look up, or wait for a look-up that is under way."""
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = self._loop.create_task(self._look_up())
            looking.add_done_callback(_seen)
        await asyncio.shield(looking)

    async def _look_up(self) -> None:
        try:
            found = await self._found()
        except OSError as error:
            raise OSError(f"the name {self._host} cannot be looked up: {error}") from None
        families: dict[int, list[Address]] = {}
        for family, _, protocol, _, where in found:
            address = Address(family, protocol, where)
            known = families.setdefault(family, [])
            if address not in known:
                known.append(address)
        self._families = list(families.values())
        self._until_s = self._loop.time() + DNS_TTL_S

    async def _found(self) -> Sequence[_Found]:
        if _is_address(self._host):  # at once, without the loop's threads
            return socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        return await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _seen(task: asyncio.Task[None]) -> None:
    """Nobody may be left who waits for it."""
    if not task.cancelled():
        task.exception()
