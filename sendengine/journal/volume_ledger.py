"""How much of an app's application limit is used: one count for every engine and command on the machine.

Units: deliveries; ``_s`` is seconds, instants since the epoch, because processes share them.

Method: the blocks of `sendengine.core.volume.VolumeWindow`, in one file an app. A reservation reads, changes and
replaces the file under its lock, on a thread that ends with it: nothing is left running, and there is nothing to
close. A file that cannot be understood is set aside; what it held may have been the whole limit, so nothing is
granted until fifteen minutes after it was last written.
"""

from collections.abc import Callable
from logging import getLogger
from math import floor
from pathlib import Path
from time import time
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from sendengine.core.onesignal import APPLICATION_WINDOW_S
from sendengine.core.volume import LATENESS_S, VolumeWindow, WindowKind
from sendengine.errors import StorageError
from sendengine.journal import whole_file
from sendengine.journal.threads import on_a_thread
from sendengine.ports import Admission, VolumeLedger

_LONGEST_S: Final = APPLICATION_WINDOW_S + LATENESS_S  # after which any block has stopped counting
_log = getLogger(__name__)

WallClock = Callable[[], float]
"""Seconds since the epoch: `time.time`, or a test's."""


class _Content(Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Nothing is granted before ``full_until_s``."""

    blocks: tuple[tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]], ...] = ()
    full_until_s: float = 0.0
    schema: Literal[1] = 1


def open_volume_ledger(state_dir: Path, *, app_id: str, window: WindowKind) -> VolumeLedger:
    """Return the app's ledger in ``state_dir``, or, with a warning, one in memory where that cannot be written.

    It blocks for as long as a small file takes to write; call it while starting up.
    """
    path = state_dir / f"volume-{quote(app_id, safe='')}.json"
    try:
        with whole_file.locked(path):
            pass
    except StorageError as error:
        _log.warning("the application limit is counted for this process alone: %s", error)
        return MemoryVolumeLedger(window=window, now_s=time)
    return FileVolumeLedger(path, window=window, now_s=time)


class MemoryVolumeLedger:
    """A ledger that no other process sees and that ends with this one."""

    __slots__ = ("_grants", "_now_s", "_window")

    def __init__(self, *, window: WindowKind, now_s: WallClock) -> None:
        self._window = VolumeWindow(window)
        self._now_s = now_s
        self._grants = _Grants()

    async def reserve(self, deliveries: int, *, limit: int) -> Admission:
        """Reserve up to ``deliveries`` now so that the window's total stays below ``limit``."""
        admission, second = _reserve(self._window, deliveries, limit=limit, now_s=self._now_s())
        self._grants.add(second, admission.granted)
        return admission

    async def give_back(self, deliveries: int) -> None:
        """Return what was reserved last and not used."""
        for second, count in self._grants.take(deliveries):
            self._window.give_back(count, second=second)

    async def used(self) -> int:
        """Deliveries counted in the window that ends now."""
        return self._window.total(now_s=self._now_s())


class FileVolumeLedger:
    """A ledger in a file, shared by all processes that name the same one.

    Every call raises StorageError where the file cannot be read or written. Cancelling one lets its thread end by
    itself: what it was reserving may stay counted until its fifteen minutes are over.
    """

    __slots__ = ("_grants", "_kind", "_now_s", "_path")

    def __init__(self, path: Path, *, window: WindowKind, now_s: WallClock) -> None:
        self._path = path
        self._kind: WindowKind = window
        self._now_s = now_s
        self._grants = _Grants()

    async def reserve(self, deliveries: int, *, limit: int) -> Admission:
        """Reserve up to ``deliveries`` now so that the window's total stays below ``limit``; durable on return."""
        admission, second = await on_a_thread(lambda: self._reserve(deliveries, limit))
        self._grants.add(second, admission.granted)
        return admission

    async def give_back(self, deliveries: int) -> None:
        """Return what was reserved last, by this ledger, and not used."""
        if grants := self._grants.take(deliveries):
            await on_a_thread(lambda: self._give_back(grants))

    async def used(self) -> int:
        """Deliveries counted in the window that ends now."""
        return await on_a_thread(self._used)

    def _reserve(self, deliveries: int, limit: int) -> tuple[Admission, int]:
        with whole_file.locked(self._path):
            now_s = self._now_s()  # read under the lock: it may have been waited for
            content = self._content(now_s)
            if content.full_until_s > now_s:
                return Admission(0, content.full_until_s - now_s), floor(now_s)
            window = VolumeWindow(self._kind, blocks=content.blocks)
            admission, second = _reserve(window, deliveries, limit=limit, now_s=now_s)
            # Not only a grant changes them: those that a clock set back has moved must not move again.
            if window.blocks != content.blocks:
                self._write(_Content(window.blocks))
            return admission, second

    def _give_back(self, grants: list[tuple[int, int]]) -> None:
        with whole_file.locked(self._path):
            content = self._content(self._now_s())
            window = VolumeWindow(self._kind, blocks=content.blocks)
            for second, count in grants:
                window.give_back(count, second=second)
            self._write(msgspec.structs.replace(content, blocks=window.blocks))

    def _used(self) -> int:
        with whole_file.locked(self._path):
            now_s = self._now_s()
            return VolumeWindow(self._kind, blocks=self._content(now_s).blocks).total(now_s=now_s)

    def _content(self, now_s: float) -> _Content:
        """Read the file; the lock is held."""
        data = whole_file.read(self._path)
        if data is None:
            return _Content()
        try:
            content = msgspec.json.decode(data, type=_Content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._instead_of_damaged(error, now_s)
        if content.full_until_s > now_s + _LONGEST_S:  # the clock was set back
            content = msgspec.structs.replace(content, full_until_s=now_s + _LONGEST_S)
            self._write(content)
        return content

    def _instead_of_damaged(self, error: Exception, now_s: float) -> _Content:
        aside, written_s = whole_file.set_aside(self._path)
        content = _Content(full_until_s=min(now_s, written_s) + _LONGEST_S)
        self._write(content)
        _log.warning(
            "%s is damaged (%s) and now %s; nothing is sent for %.0f s, as if the limit had been used up",
            self._path, error, aside.name, max(0.0, content.full_until_s - now_s),
        )  # fmt: skip
        return content

    def _write(self, content: _Content) -> None:
        whole_file.replace_whole(self._path, msgspec.json.encode(content))


class _Grants:
    """What a ledger granted in its last fifteen minutes and may take back, the newest last."""

    __slots__ = ("_grants",)

    def __init__(self) -> None:
        self._grants: list[tuple[int, int]] = []

    def add(self, second: int, granted: int) -> None:
        if granted:
            kept = [(at, count) for at, count in self._grants if at > second - _LONGEST_S]
            self._grants = [*kept, (second, granted)]

    def take(self, deliveries: int) -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while deliveries > 0 and self._grants:
            second, granted = self._grants.pop()
            part = min(granted, deliveries)
            deliveries -= part
            taken.append((second, part))
            self.add(second, granted - part)
        return taken


def _reserve(window: VolumeWindow, deliveries: int, *, limit: int, now_s: float) -> tuple[Admission, int]:
    """Grant what there is room for below ``limit``, and say under which second it counts."""
    most = limit - 1
    granted = min(deliveries, window.room(most, now_s=now_s))
    if granted > 0:
        return Admission(granted), window.add(granted, now_s=now_s)
    again_s = window.again_in_s(most, min(1, deliveries), now_s=now_s)
    return Admission(0, min(again_s, _LONGEST_S)), floor(now_s)
