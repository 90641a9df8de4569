"""A small file that is whole at every instant, also where several processes share it.

A change is made to a copy that then takes its place; of a file that is shared, under a lock in a file beside it
(``NAME.lock``). A process that dies in between leaves the old file or the new one, and its lock goes with it. Only the
user may read what is written (0600). Everything here blocks, and belongs on a thread.

Units: ``_s`` is seconds.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sendengine.errors import StorageError

LOCK_TRIES: Final = 500
LOCK_PAUSE_S: Final = 0.01  # 500 of them are five seconds; a change takes milliseconds

_OURS_ALONE: Final = 0o600


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` against other processes and other threads.

    Its directory is made where it is missing. Raises StorageError where the directory cannot be written, or the
    lock does not come free within five seconds: a process that was stopped in the middle of a change would
    otherwise stop all others.
    """
    lock = _open_lock(path)
    try:
        _take(lock, path)
        yield
    finally:
        os.close(lock)


def read(path: Path) -> bytes | None:
    """Return what ``path`` holds, None where there is no such file; StorageError where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error) from error


def replace_whole(path: Path, data: bytes, *, is_durable: bool = True) -> None:
    """Make ``data`` what ``path`` holds, or leave it as it was. Raises StorageError.

    Where several processes write it, the caller has its lock.
    """
    try:
        with drafted(path.with_name(f"{path.name}.new"), data, is_durable=is_durable) as draft:
            draft.replace(path)
        if is_durable:
            sync_directory(path.parent)
    except OSError as error:
        raise _cannot("write", path, error) from error


@contextmanager
def drafted(path: Path, data: bytes, *, is_durable: bool) -> Iterator[Path]:
    """Write a file that is about to become another; nothing of it stays where that fails, as on a full disk.

    Raises OSError.
    """
    path.unlink(missing_ok=True)  # what a crash left of an earlier one, so that its mode and owner do not matter
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OURS_ALONE)
    try:
        try:
            write_all(descriptor, data)
            if is_durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield path
    except OSError:
        path.unlink(missing_ok=True)
        raise


def write_all(descriptor: int, content: bytes, *, place: int | None = None) -> None:
    """Write all of it, at ``place`` or where the file stands; raises OSError."""
    rest = memoryview(content)
    while rest:
        if place is None:
            rest = rest[os.write(descriptor, rest) :]
        else:
            done = os.pwrite(descriptor, rest, place)
            rest, place = rest[done:], place + done


def set_aside(path: Path) -> tuple[Path, float]:
    """Rename a damaged file, so that a person can look at it; its new name, and when it was written (epoch seconds).

    An earlier one of that name is replaced. Raises StorageError.
    """
    try:
        written_s = path.stat().st_mtime
        return path.replace(path.with_name(f"{path.name}.damaged")), written_s
    except OSError as error:
        raise _cannot("rename", path, error) from error


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OURS_ALONE)
    except OSError as error:
        raise _cannot("write", path, error) from error


def _take(lock: int, path: Path) -> None:
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)  # on a thread of its own, never on the loop
        except OSError as error:
            raise _cannot("lock", path, error) from error
        else:
            return
    raise StorageError(f"{path} is locked by another process for {LOCK_TRIES * LOCK_PAUSE_S:.0f} s; is one stopped?")


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on disk; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(act: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot {act} {path}: {error.strerror or error}")
