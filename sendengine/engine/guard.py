"""Keeps one app below the application limit: deliveries are reserved before their first attempt.

The ledger is shared by all engines on the machine and lives on disk, so reservations are taken in blocks of about a
second's sending, one call ahead of need, and what is left of a block is given back at the end.

Units: deliveries; seconds on the running loop's clock.
Source: OneSignal's rate-limit page: deliveries in 15 minutes stay below 10 × subscribed users; reaching it disables
the app until a person re-enables it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sendengine.core.volume import LATENESS_S
from sendengine.engine.events import announce
from sendengine.errors import StorageError
from sendengine.ports import VolumeLedger

_log = logging.getLogger("sendengine")
_AHEAD: Final = 0.5  # of a block: with less than this left the next one is asked for
_PART: Final = 100  # a block of requests that nobody has sent yet is at most this part of the limit
_FAULT_WAIT_S: Final = 5.0


class Guard:
    """One app's allowance: first pending, until `limit_to` gives it a limit or `turn_off` says that there is none.

    ``per_second`` is how many requests the app may make in a second.
    """

    def __init__(
        self, ledger: VolumeLedger, *, name: str, per_second: int, is_rejecting: bool, when_room: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._is_rejecting = is_rejecting  # where there is no room: reject, rather than wait
        self._is_full = False
        self._when_room = when_room
        self.limit: int | None = None  # most deliveries a window; None while it is off or pending
        self._users = 0
        self._allowance = 0
        self._stale = 0  # reserved so long ago that it must not be spent any more
        self._granted_at_s = 0.0
        self._used = 0
        self._per_second = per_second
        self._least_block = 0
        self._second_s = 0.0
        self._spent = 0
        self._spent_before = 0  # in the second before this one
        self._task: asyncio.Task[None] | None = None
        self._blocked_until_s = 0.0
        self.failure: str | None = None  # why the ledger cannot be used, until it is asked again
        self.is_short = True  # requests must wait: for the limit to be known, or for the ledger to have room

    @property
    def share(self) -> float | None:
        """Deliveries in the window as a part of the limit, as last seen; None while the guard is off."""
        return None if self.limit is None else self._used / self.limit if self.limit else 1.0

    @property
    def rejects(self) -> bool:
        """Whether requests are rejected at this moment, because the window is full and the policy says so."""
        return self._is_full and self._is_rejecting

    @property
    def users(self) -> int | None:
        """How many users are subscribed; None while the guard is off or pending."""
        return None if self.limit is None else self._users

    @property
    def used(self) -> int:
        """Deliveries in the window, as last seen."""
        return self._used

    @property
    def blocked_until_s(self) -> float:
        """When the ledger is asked again for room that it did not have; in the past where it had some."""
        return self._blocked_until_s

    def limit_to(self, limit: int, *, users: int) -> None:
        """Keep a window's deliveries at or below ``limit``; ``users`` is the most that one reaches."""
        self.limit = limit
        self._least_block = min(limit // _PART, self._per_second)
        self._users = users
        self.is_short = False
        self._when_room()

    def turn_off(self) -> None:
        """There is no limit to keep: everything is admitted."""
        self.limit = None
        self.is_short = False
        self._when_room()

    def weigh(self, deliveries: float | None) -> int:
        """What a request counts: its deliveries, or all subscribed users where they are unknown; never more than those.

        One request reaches each subscription once, so a list with more names than subscribers cannot deliver more.
        """
        if self.limit is None:
            return 0
        if deliveries is None:
            return self._users
        return min(int(deliveries + 0.999), self._users)

    def admit(self, weight: int, *, now_s: float) -> bool:
        """Spend ``weight`` of the allowance, or ask the ledger for more and say False; ``when_room`` is called then."""
        if self.limit is None:
            return True
        if now_s - self._granted_at_s > LATENESS_S and self._allowance:
            self._stale += self._allowance
            self._allowance = 0
        if now_s - self._second_s >= 1:
            self._spent_before, self._spent = self._spent, 0
            self._second_s = now_s
        admitted = self._allowance >= weight
        if admitted:
            self._allowance -= weight
            self._spent += weight
        self.is_short = not admitted and not self.rejects
        if self._task is None:
            block = max(weight, self._spent, self._spent_before, self._least_block)
            if not admitted or self._allowance < block * _AHEAD:
                self._task = asyncio.get_running_loop().create_task(self._reserve(block))
        return admitted

    async def aclose(self) -> None:
        """Give back what was reserved and not used."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        left, self._allowance, self._stale = self._allowance + self._stale, 0, 0
        if left:
            try:
                await self._ledger.give_back(left)
            except StorageError as error:
                _log.warning("%s: %d reserved deliveries were not given back: %s", self._name, left, error)

    async def _reserve(self, deliveries: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            stale, self._stale = self._stale, 0
            if stale:
                await self._ledger.give_back(stale)
            admission = await self._ledger.reserve(deliveries, limit=(self.limit or 0) + 1)
            self._allowance += admission.granted
            self._granted_at_s = loop.time()
            self._used = await self._ledger.used()
            wait_s = 0.0 if admission.granted else max(admission.again_in_s, 0.001)
            self._note_full(is_full=not admission.granted, wait_s=wait_s)
        except StorageError as error:
            self.failure = f"the volume ledger cannot be used: {error}"
            _log.error("%s: nothing is sent, since %s", self._name, self.failure)
            wait_s = _FAULT_WAIT_S
        self._blocked_until_s = loop.time() + wait_s
        if self.rejects:
            self.is_short = False
            self._when_room()
        if wait_s:
            await asyncio.sleep(wait_s)
        self._is_full = False
        self.failure = None
        self._task = None
        self.is_short = False
        self._when_room()

    def _note_full(self, *, is_full: bool, wait_s: float) -> None:
        self._is_full = is_full
        if is_full:
            announce(
                "application_limit",
                f"app {self._name}: the application limit has no room; "
                + ("requests are rejected" if self._is_rejecting else "sending waits")
                + f" for {wait_s:.0f} s",
                level=logging.WARNING,
                app=self._name,
                wait_s=wait_s,
            )
