"""Small things that a run does with files: whole ones renamed into place, others for their owner alone.

Whatever the disk refuses is a StorageError that names the file.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sendengine.errors import StorageError
from sendengine.journal.whole_file import sync_directory


@contextlib.contextmanager
def as_storage_error(path: Path) -> Iterator[None]:
    """Turn what the disk says about ``path`` into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written or read: {error.strerror or error}") from None


def is_there(path: Path) -> bool:
    """Whether a file is there; raises StorageError where that cannot be seen, as in a directory of another user."""
    with as_storage_error(path):
        return path.exists()


def write_all(descriptor: int, content: bytes, *, place: int | None = None) -> None:
    """Write all of it, at ``place`` or where the file stands; raises OSError."""
    rest = memoryview(content)
    while rest:
        if place is None:
            rest = rest[os.write(descriptor, rest) :]
        else:
            done = os.pwrite(descriptor, rest, place)
            rest, place = rest[done:], place + done


def replace_whole(path: Path, content: bytes, *, is_durable: bool = True) -> None:
    """Write a file whole, or leave it as it was: it is renamed into its place. Raises StorageError."""
    draft = path.with_name(f"{path.name}.tmp")
    with as_storage_error(path):
        with _draft(draft, content, is_durable=is_durable):
            draft.replace(path)
        if is_durable:
            sync_directory(path.parent)


def make_new(path: Path, content: bytes) -> bool:
    """Make a file that must not be there, durably; False where it is there. Raises StorageError."""
    with as_storage_error(path):
        for folder in (path.parent.parent, path.parent):  # parents that mkdir makes by the way are for everybody
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _draft(path.with_name(f".{path.name}.{os.getpid()}"), content, is_durable=True) as draft:
            try:
                os.link(draft, path)  # whole at once, and only where nobody was first
            except FileExistsError:
                return False
            finally:
                draft.unlink()
        sync_directory(path.parent)
        return True


@contextlib.contextmanager
def _draft(path: Path, content: bytes, *, is_durable: bool) -> Iterator[Path]:
    """Write a file that is about to become another; nothing of it stays where that fails, as on a full disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            write_all(descriptor, content)
            if is_durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield path
    except OSError:
        path.unlink(missing_ok=True)
        raise


def set_aside(path: Path) -> Path:
    """Keep a file that is damaged under another name, and return that; raises StorageError."""
    with as_storage_error(path):
        return path.replace(path.with_name(f"{path.name}.damaged"))
