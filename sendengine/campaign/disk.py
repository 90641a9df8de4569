"""Small things that a run does with files.

Whatever the disk refuses is a StorageError that names the file.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sendengine.errors import StorageError
from sendengine.journal.whole_file import drafted, sync_directory


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


def make_new(path: Path, content: bytes) -> bool:
    """Make a file that must not be there, durably; False where it is there. Raises StorageError."""
    with as_storage_error(path):
        for folder in (path.parent.parent, path.parent):  # parents that mkdir makes by the way are for everybody
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with drafted(path.with_name(f".{path.name}.{os.getpid()}"), content, is_durable=True) as draft:
            try:
                os.link(draft, path)  # whole at once, and only where nobody was first
            except FileExistsError:
                return False
            finally:
                draft.unlink()
        sync_directory(path.parent)
        return True
