"""Which file of the state directory an embedded engine writes to, where several run side by side.

An engine takes the first of ``engine-1.db``, ``engine-2.db``, … whose lock nobody holds, and adopts those others in
which an engine left jobs when it died: they are opened beside its own, and given back when they are empty. The locks
are the system's (``flock`` on ``engine-N.lock``), so they go with their process, however it ends. A process that is
forked off has its parent's files, and lets go of these: it would hold the locks for as long as it lives.
"""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from logging import getLogger
from pathlib import Path
from typing import Final, TypeAlias
from weakref import WeakSet

from sendengine.errors import StorageError
from sendengine.journal.connection import OURS_ALONE, errors_of
from sendengine.journal.outbox import Outbox
from sendengine.settings import JournalSettings

_Open: TypeAlias = Callable[[Path], Awaitable[Outbox]]
_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]
_log = getLogger(__name__)


class Slots:
    """An engine's own outbox, and those that it has adopted; their locks are held until they are closed.

    ``adopted`` are in the order in which they were adopted.
    """

    __slots__ = ("__weakref__", "_empty", "_lock", "_locks", "_open", "_refused", "own")

    def __init__(self, own: Outbox, *, lock: int, open_outbox: _Open) -> None:
        self.own = own
        self._lock: int | None = lock
        self._locks: dict[Outbox, int] = {}
        self._open = open_outbox
        self._empty: dict[Path, _Stamp] = {}  # slots of dead engines with nothing in them, as they were then
        self._refused: dict[Path, str] = {}  # slots that could not be had, and why: said once
        _HELD.add(self)

    @property
    def adopted(self) -> Sequence[Outbox]:
        """The slots of other engines, which have died."""
        return tuple(self._locks)

    async def adopt(self) -> Sequence[Outbox]:
        """Adopt what dead engines left in other slots; returns those that are new.

        One that cannot be locked or read is left alone, with a warning, and tried again the next time. Raises
        StorageError where the directory cannot be read. Cancelling it leaves none half open.
        """
        found: list[Outbox] = []
        own = self.own.store.path
        for path in slot_paths(own.parent):
            if path == own:
                continue
            try:
                if (lock := take_lock(path)) is None:
                    continue
                outbox = await self._adopted(path, lock)
            except StorageError as error:
                self._refuse(path, error)
                continue
            self._refused.pop(path, None)
            if outbox is not None:
                found.append(outbox)
        return found

    async def give_back(self, outbox: Outbox) -> None:
        """Close an adopted slot; whatever is left in it is for whoever adopts it next."""
        await outbox.aclose()
        if (lock := self._locks.pop(outbox, None)) is not None:
            os.close(lock)

    async def aclose(self) -> None:
        """Close the outboxes, where that is not done yet, and release the locks; never raises StorageError."""
        for outbox in self.adopted:
            await self.give_back(outbox)
        await self.own.aclose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def forget(self) -> None:
        """Close the locks alone: this is a copy of the process that has them."""
        for lock in (self._lock, *self._locks.values()):
            if lock is not None:
                os.close(lock)
        self._lock, self._locks = None, {}

    async def _adopted(self, path: Path, lock: int) -> Outbox | None:
        """Open a slot whose lock has been taken; where nothing is left in it, give it back at once.

        Raises StorageError, having given it back.
        """
        is_needed = False
        try:
            if self._empty.get(path) == _stamp(path):
                return None
            outbox = await self._open(path)
            is_needed = not outbox.is_empty
            if is_needed:
                self._locks[outbox] = lock
                return outbox
            await outbox.aclose()
            self._empty[path] = _stamp(path)  # while it is locked, and nobody writes into it
        finally:
            if not is_needed:
                os.close(lock)
        return None

    def _refuse(self, path: Path, error: StorageError) -> None:
        why = str(error)
        if self._refused.get(path) != why:
            self._refused[path] = why
            _log.warning("what an earlier process left in %s is left alone: %s", path, why)


_HELD: Final[WeakSet[Slots]] = WeakSet()


def _forget_all() -> None:
    for slots in tuple(_HELD):
        slots.forget()


os.register_at_fork(after_in_child=_forget_all)


async def open_slots(state_dir: Path, settings: JournalSettings) -> Slots:
    """Take a slot of ``state_dir``, and adopt what dead engines left in others.

    Raises StorageError where none can be had; one that cannot be locked or adopted is left alone, with a warning.
    """
    open_outbox: _Open = partial(Outbox.open, settings=settings)
    path, lock = _first_free(state_dir)
    try:
        slots = Slots(await open_outbox(path), lock=lock, open_outbox=open_outbox)
    except BaseException:
        os.close(lock)
        raise
    try:
        await slots.adopt()
    except BaseException:
        await asyncio.shield(slots.aclose())
        raise
    return slots


def slot_path(state_dir: Path, number: int) -> Path:
    """Name the file of a slot; they are counted from 1."""
    return state_dir / f"engine-{number}.db"


def slot_paths(state_dir: Path) -> list[Path]:
    """Name the files of all slots that there are. Raises StorageError."""
    with errors_of(state_dir):
        return sorted(state_dir.glob("engine-*.db"))


def take_lock(path: Path) -> int | None:
    """Take a slot's lock; None where somebody holds it. Raises StorageError where it cannot be had at all.

    It is held until the descriptor that is returned is closed.
    """
    descriptor = _open_lock(path)
    return descriptor if _is_locked(path, descriptor) else None


def _stamp(path: Path) -> _Stamp:
    """What changes where somebody writes into a slot.

    That goes into the log beside the file, which an engine that is killed leaves there.
    """
    return _state(path), _state(path.with_name(f"{path.name}-wal"))


def _state(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:  # it is gone
        return (0, 0, 0)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _first_free(state_dir: Path) -> tuple[Path, int]:
    """Take the first slot that nobody has; one whose lock is there and cannot be opened is somebody else's."""
    with errors_of(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in count(1):
        path = slot_path(state_dir, number)
        was_there = os.path.lexists(_lock_path(path))
        try:
            descriptor = _open_lock(path)
        except StorageError as error:
            if not was_there:  # nor can any other be made
                raise
            _log.warning("%s is left alone: %s", path, error)
            continue
        if _is_locked(path, descriptor):
            return path, descriptor
    raise AssertionError("numbers do not end")


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _open_lock(path: Path) -> int:
    with errors_of(path):
        return os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OURS_ALONE)


def _is_locked(path: Path, descriptor: int) -> bool:
    """Take the lock; where that cannot be, close it."""
    with errors_of(path):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
    return True
