"""Which file of the state directory an embedded engine writes to, where several run side by side.

An engine takes the first of ``engine-1.db``, ``engine-2.db``, … whose lock nobody holds, and adopts those others in
which an engine left jobs when it died: they are opened beside its own, and given back when they are empty. The locks
are the system's (``flock`` on ``engine-N.lock``), so they go with their process, however it ends.
"""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from logging import getLogger
from pathlib import Path

from sendengine.errors import StorageError
from sendengine.journal.connection import OURS_ALONE, Connect, connect_sqlite, errors_of
from sendengine.journal.outbox import Outbox
from sendengine.settings import JournalSettings

_Open = Callable[[Path], Awaitable[Outbox]]
_log = getLogger(__name__)


class Slots:
    """An engine's own outbox, and those that it has adopted; their locks are held until they are closed.

    ``adopted`` are in the order in which they were adopted.
    """

    __slots__ = ("_empty", "_lock", "_locks", "_open", "own")

    def __init__(self, own: Outbox, *, lock: int, open_outbox: _Open) -> None:
        self.own = own
        self._lock: int | None = lock
        self._locks: dict[Outbox, int] = {}
        self._open = open_outbox
        self._empty: dict[Path, tuple[int, int]] = {}  # slots of dead engines with nothing in them, as they were then

    @property
    def adopted(self) -> Sequence[Outbox]:
        """The slots of other engines, which have died."""
        return tuple(self._locks)

    async def adopt(self) -> Sequence[Outbox]:
        """Adopt what dead engines left in other slots; returns those that are new.

        One that cannot be read is left alone, with a warning. Cancelling it leaves none half open.
        """
        found: list[Outbox] = []
        for path in _others(self.own.store.path):
            if (lock := _lock(path)) is None:
                continue
            if self._empty.get(path) == _stamp(path):
                os.close(lock)
            elif (outbox := await self._adopted(path, lock)) is not None:
                found.append(outbox)
        return found

    async def give_back(self, outbox: Outbox) -> None:
        """Close an adopted slot in which nothing is left; whoever starts next may have it."""
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

    async def _adopted(self, path: Path, lock: int) -> Outbox | None:
        """Open a slot whose lock has been taken; where nothing is left in it, give it back at once."""
        is_needed = False
        try:
            outbox = await self._open(path)
            is_needed = not outbox.is_empty
            if is_needed:
                self._locks[outbox] = lock
                return outbox
            await outbox.aclose()
        except StorageError as error:
            _log.warning("what an earlier process left in %s is left alone: %s", path, error)
        finally:
            if not is_needed:
                self._empty[path] = _stamp(path)
                os.close(lock)
        return None


async def open_slots(state_dir: Path, settings: JournalSettings, *, connect: Connect = connect_sqlite) -> Slots:
    """Take a slot of ``state_dir``, and adopt what dead engines left in others.

    Raises StorageError where none can be had; one that cannot be adopted is left alone, with a warning.
    """
    open_outbox: _Open = partial(Outbox.open, settings=settings, connect=connect)
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


def _stamp(path: Path) -> tuple[int, int]:
    """What changes where somebody writes into a slot; one that is gone has no stamp of its own."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_mtime_ns, status.st_size


def _others(path: Path) -> list[Path]:
    return sorted(other for other in path.parent.glob("engine-*.db") if other != path)


def _first_free(state_dir: Path) -> tuple[Path, int]:
    with errors_of(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in count(1):
        path = slot_path(state_dir, number)
        if (lock := _lock(path)) is not None:
            return path, lock
    raise AssertionError("numbers do not end")


def _lock(path: Path) -> int | None:
    """Take a slot's lock; None where somebody holds it. Raises StorageError where it cannot be had at all."""
    with errors_of(path):
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OURS_ALONE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError:
            os.close(lock)
            raise
    return lock
