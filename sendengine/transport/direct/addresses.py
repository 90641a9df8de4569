"""The addresses of a host: looked up, kept for `DNS_TTL_S`, and all of them used.

Units: seconds on the running loop's clock.

Method: the system's order decides which family comes first; then the families take turns, so that a family without a
route costs one attempt. Within a family each caller begins with another address, so that connections spread over all.

Decided here: a resolver that fails, or says nothing for `PATIENCE_S`, is no reason to stop sending: the addresses that
it named last are used meanwhile, for at most `STALE_S`. A name that is no more is believed. An address that was
overtaken by one tried after it goes last for `SLOW_S`: where a family leads nowhere and says so by silence, only those
who dial in the first moment pay for it, and not each of thousands of connections.

Source: RFC 8767, section 5, has a day to three for stale answers, 1.8 s to wait for a fresh one, and 30 s between two
questions that fail. RFC 8305, section 4, lets a client that remembers put what was slow behind.
"""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import chain, islice, zip_longest
from math import inf
from typing import Final, TypeAlias

from msgspec import Struct

from sendengine.core.onesignal import DNS_TTL_S
from sendengine.transport.troubles import UnresolvedError, unresolved

_Where: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_Found: TypeAlias = tuple[int, int, int, str, _Where]  # as getaddrinfo has it


PATIENCE_S: Final = 1.8
STALE_S: Final = 86_400.0
RETRY_S: Final = 30.0  # after a look-up that failed, where the addresses before it serve
SLOW_S: Final = 60.0
MOST_KEPT: Final = 64  # of a family, however many there are
MOST_TRIED: Final = 16  # by one caller: where all refuse at once, each costs a socket


class Address(Struct, frozen=True):
    """Where a socket may connect to."""

    family: int
    protocol: int
    where: _Where


class Addresses:
    """One host's addresses. Make it on a running loop."""

    __slots__ = (
        "_asked_s",
        "_families",
        "_found_s",
        "_host",
        "_looking",
        "_loop",
        "_port",
        "_slow_until_s",
        "_turn",
        "_until_s",
    )

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._families: list[list[Address]] = []
        self._until_s = 0.0
        self._found_s = -inf  # when these were found
        self._asked_s = -inf  # when the last look-up began
        self._slow_until_s: dict[Address, float] = {}
        self._turn = 0
        self._looking: asyncio.Task[None] | None = None

    async def next(self) -> list[Address]:
        """Return the addresses to try, in their order, at most `MOST_TRIED`; each call begins with another one.

        Raises UnresolvedError where none is known. Cancelling it leaves a look-up to others who wait for it.
        """
        if self._loop.time() >= self._until_s:
            await self._renew()
        turn, self._turn = self._turn, self._turn + 1
        rotated = [family[turn % len(family) :] + family[: turn % len(family)] for family in self._families]
        known = [address for address in chain.from_iterable(zip_longest(*rotated)) if address is not None]
        if self._slow_until_s:
            now_s = self._loop.time()
            known.sort(key=lambda address: self._slow_until_s.get(address, 0.0) > now_s)
        return known[:MOST_TRIED]

    def overtaken(self, address: Address) -> None:
        """Put it last for a while: one that was tried after it was ready before it."""
        self._slow_until_s[address] = self._loop.time() + SLOW_S

    def forget(self) -> None:
        """Look the name up again next time: none of its addresses answered."""
        self._until_s = 0.0

    async def aclose(self) -> None:
        """Give up a look-up."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _renew(self) -> None:
        """Look up, or wait for a look-up that is under way; not for long where addresses are known."""
        now_s = self._loop.time()
        looking = self._looking
        if looking is None or looking.done():
            self._asked_s = now_s
            looking = self._looking = self._loop.create_task(self._look_up())
            looking.add_done_callback(_seen)
        if self._families:
            await asyncio.wait([looking], timeout=max(0.0, self._asked_s + PATIENCE_S - now_s))
        if not self._families:
            await asyncio.shield(looking)

    async def _look_up(self) -> None:
        try:
            found = await self._found()
        except OSError as error:
            now_s = self._loop.time()
            if error.errno == socket.EAI_NONAME or now_s >= self._found_s + STALE_S:
                self._families = []
            self._until_s = now_s + RETRY_S if self._families else 0.0
            raise UnresolvedError(unresolved(self._host, error)) from None
        families: dict[int, dict[Address, None]] = {}
        for family, _, protocol, _, where in found:
            families.setdefault(family, {})[Address(family, protocol, where)] = None
        slow = self._slow_until_s
        self._slow_until_s = {each: slow[each] for each in slow if each in families.get(each.family, {})}
        self._families = [list(islice(family, MOST_KEPT)) for family in families.values()]
        self._found_s = self._loop.time()
        self._until_s = self._found_s + DNS_TTL_S

    async def _found(self) -> Sequence[_Found]:
        if _is_address(self._host):  # at once, without the loop's threads
            return socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        if not found:
            raise OSError("it has no addresses")
        return found


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
