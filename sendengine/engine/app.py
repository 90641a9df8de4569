"""One OneSignal app: its transport, its key, its guard, and whether anything may be sent for it.

A key that is refused is read again from its source once; unchanged, the app is held: what waits stays, `submit`
raises, and a changed key or `SendEngine.resume_app` reopens it. A disabled app is held until somebody resumes it.

Units: seconds on the running loop's clock.
"""

import asyncio
import logging
from collections.abc import Callable

from sendengine.core.stalls import Replies
from sendengine.engine.events import announce
from sendengine.engine.guard import Guard
from sendengine.errors import AppHeldError, SettingsError
from sendengine.journal.threads import on_a_thread
from sendengine.ports import Transport
from sendengine.settings import AppSettings, read_key

CHANNEL_REFUSALS = 20  # this many in a row, and the channel is held
_WATCH_S = 5.0  # how often a held app's key is looked at


class App:
    """State that all lanes of one app share. ``when_changed`` is called when sending may go on or must stop."""

    def __init__(
        self,
        name: str,
        *,
        settings: AppSettings,
        api_key: str,
        transport: Transport,
        guard: Guard,
        when_changed: Callable[["App"], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.transport = transport
        self.guard = guard
        self.replies = Replies()
        self.workers = 0
        self.is_paused = False  # nothing may be sent now: it is held, or its key is being looked at
        self.refuses_some = False  # held, or a channel of it is
        self.has_refusals = False  # of a channel, since that channel was last accepted
        self.key_changed_at_s = 0.0
        self.accepted_at_s = 0.0
        self._api_key = api_key
        self._when_changed = when_changed
        self._held: str | None = None
        self._is_fenced = False  # held by `fence`, which no other key ends
        self._checking: asyncio.Task[None] | None = None
        self._refusals: dict[str, int] = {}
        self._held_channels: set[str] = set()

    @property
    def held(self) -> str | None:
        """Why the app is held, and how to go on; None while it is not."""
        return self._held

    @property
    def is_held(self) -> bool:
        """Whether it is held."""
        return self._held is not None

    @property
    def held_channels(self) -> frozenset[str]:
        """Channels that OneSignal refuses to this app."""
        return frozenset(self._held_channels)

    def check_open(self, *, channel: str | None) -> None:
        """Raise AppHeldError where a job of this channel cannot be taken."""
        if self._held is not None:
            raise AppHeldError(f"app {self.name!r} is held: {self._held}")
        if channel in self._held_channels:
            raise AppHeldError(
                f"app {self.name!r}: channel {channel!r} is held, since OneSignal refused it {CHANNEL_REFUSALS} times; "
                f"check the plan and the key's permissions; then {self._way_on}"
            )

    @property
    def _way_on(self) -> str:
        return f"a program calls resume_app({self.name!r}); a run is stopped, and gone on with by 'sendengine resume'"

    async def connect(self) -> None:
        """Have room on a connection for one more worker."""
        if self.transport.capacity < self.workers:
            await self.transport.warm(self.workers)

    def hold(self, reason: str, *, cause: str) -> None:
        """Stop sending for this app until it is resumed."""
        if self._held is not None:
            return
        self._held = reason
        self.is_paused = self.refuses_some = True
        announce("app_held", f"app {self.name} is held: {reason}", level=logging.ERROR, app=self.name, cause=cause)
        self._when_changed(self)

    def fence(self, reason: str) -> None:
        """Hold it until somebody resumes it, whatever else holds it now."""
        if self._is_fenced:
            return
        self._is_fenced = True
        self._held = None
        self.hold(reason, cause="outside_only_to")

    def disabled(self, *, sent_at_s: float) -> None:
        """OneSignal answers a request as it does for an app that went over its application limit."""
        if self._is_news(sent_at_s):
            self.hold(
                "OneSignal answers as for a disabled app; an administrator re-enables it in OneSignal's dashboard "
                f"(Settings > Keys & IDs shows the state); then {self._way_on}",
                cause="app_disabled",
            )

    def resume(self) -> None:
        """Go on: forget what was held, read the key again beside the loop, and then let everything that waits go."""
        if self._checking is not None:
            self._checking.cancel()
        self._checking = asyncio.get_running_loop().create_task(self._resume())
        self.is_paused = True
        self._forget_holds("resumed")

    def key_refused(self, *, sent_at_s: float, status: int) -> None:
        """A request came back with 401, or a 403 that blames the key."""
        if self._held is not None or not self._is_news(sent_at_s):
            return
        self._checking = asyncio.get_running_loop().create_task(self._check_key(status))
        self.is_paused = True

    def channel_refused(self, channel: str, *, sent_at_s: float) -> None:
        """A 403 for this channel; after `CHANNEL_REFUSALS` without a success between, the channel is held."""
        if not self._is_news(sent_at_s):
            return
        self._refusals[channel] = self._refusals.get(channel, 0) + 1
        self.has_refusals = True
        if self._refusals[channel] == CHANNEL_REFUSALS:
            self._held_channels.add(channel)
            self.refuses_some = True
            announce(
                "channel_held",
                f"app {self.name}: channel {channel} is held after {CHANNEL_REFUSALS} refusals",
                level=logging.ERROR,
                app=self.name,
                channel=channel,
            )

    def channel_accepted(self, channel: str | None) -> None:
        """A request of this channel was accepted; None where it belongs to none."""
        if channel is not None:
            self._refusals.pop(channel, None)
            self.has_refusals = bool(self._refusals)

    def holds_channel(self, channel: str | None) -> bool:
        """Whether requests of this channel wait."""
        return channel in self._held_channels

    async def aclose(self) -> None:
        """Stop looking at the key, give back what was reserved, and close the connections."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self.guard.aclose()
        await self.transport.aclose()

    def _is_news(self, sent_at_s: float) -> bool:
        """Whether the answer to a request tells of the app as it is; not where its key was looked at meanwhile.

        A person who resumes it has mended what the answers to earlier requests tell of, which are still under way.
        """
        return sent_at_s >= self.key_changed_at_s and self._checking is None

    async def _check_key(self, status: int) -> None:
        """Read the key again; where it is the same, hold the app and watch for another."""
        key = await on_a_thread(self._read_key)
        if key is None or key == self._api_key:
            self.hold(
                f"OneSignal refused its API key (status {status}); put a valid key where the settings read it from, "
                f"which is looked at every {_WATCH_S:g} s; or, when the same key is valid again, {self._way_on}",
                cause="key_refused",
            )
            while key is None or key == self._api_key:
                await asyncio.sleep(_WATCH_S)
                key = await on_a_thread(self._read_key)
        self._replace_key(key)
        self._checking = None
        if not self._is_fenced:
            self._forget_holds("the key has changed")
        self._when_changed(self)

    async def _resume(self) -> None:
        key = await on_a_thread(self._read_key)
        self._replace_key(key or self._api_key)
        self._checking = None
        self.is_paused = self._held is not None
        self._when_changed(self)

    def _read_key(self) -> str | None:
        try:
            return read_key(self.settings)
        except SettingsError as error:
            announce("key_unreadable", f"app {self.name}: {error}", level=logging.WARNING, app=self.name)
            return None

    def _replace_key(self, key: str) -> None:
        self._api_key = key
        self.key_changed_at_s = asyncio.get_running_loop().time()
        self.transport.replace_key(key)

    def _forget_holds(self, why: str) -> None:
        if self._held is not None or self._held_channels:
            announce("app_reopened", f"app {self.name} is open again: {why}", app=self.name)
        self._held = None
        self._is_fenced = False
        self.is_paused = self._checking is not None
        self._held_channels.clear()
        self._refusals.clear()
        self.refuses_some = self.has_refusals = False
