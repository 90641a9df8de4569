"""A run's directory: made before anything is recorded as begun, readable by its owner only.

It holds ``manifest.json``, what was fixed before anything was begun; ``journal.db``, how far the run is; lines of JSON:
``requests.jsonl``, ``failures.jsonl``, ``unreachable.jsonl``, ``invalid.jsonl``; ``status.json`` and ``control.json``,
by which other processes watch and steer it; and ``report.json``. Its name begins with the time, so that names sort by
time. Whatever the disk refuses is a StorageError.

Units: times are UTC.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Self

from sendengine.campaign.disk import as_storage_error, is_there
from sendengine.campaign.linefiles import LineFile
from sendengine.errors import InputError, StorageError
from sendengine.journal.whole_file import replace_whole, set_aside, sync_directory

REPORT: Final = "report.json"
MANIFEST: Final = "manifest.json"
JOURNAL: Final = "journal.db"
STATUS: Final = "status.json"
CONTROL: Final = "control.json"
REQUESTS: Final = "requests.jsonl"
INPUT: Final = "input.jsonl"  # what came on standard input; of a retry, its new jobs
FAILURES: Final = "failures.jsonl"
FAILURE_SUMS: Final = "failures.sums"
UNREACHABLE: Final = "unreachable.jsonl"
INVALID: Final = "invalid.jsonl"
_LOCK: Final = "lock"
_LONGEST_NAME: Final = 60
_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[a-z0-9-]+")
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_S: Final = 0.02


class RunDir:
    """One run's directory."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, runs_dir: Path, *, name: str, now: datetime) -> Self:
        """Make a new directory under ``runs_dir``; raises StorageError."""
        moment = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z"
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_NAME] or "run"
        with as_storage_error(runs_dir):
            runs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            while True:
                path = runs_dir / f"{moment}-{slug}-{secrets.token_hex(2)}"
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o700)
                    sync_directory(runs_dir)
                    return cls(path)

    @property
    def run(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def has_a_runs_name(self) -> bool:
        """Whether its name is one that `make` gives; anything else under a runs directory is somebody else's."""
        return _NAME.fullmatch(self.run) is not None

    def lines(self, file: str, *, size_bytes: int | None = None, is_durable: bool = False) -> LineFile:
        """Open a file of lines for appending, cut back to ``size_bytes`` where that is given; raises StorageError."""
        return LineFile(self.path / file, size_bytes=size_bytes, is_durable=is_durable)

    def write(self, file: str, content: bytes, *, is_durable: bool = True) -> None:
        """Write a file whole, or leave it as it was: it is renamed into its place. Raises StorageError."""
        replace_whole(self.path / file, content, is_durable=is_durable)

    def has(self, file: str) -> bool:
        """Whether a file is there; raises StorageError where that cannot be seen."""
        return is_there(self.path / file)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on this run; raises InputError where one does, and StorageError."""
        with as_storage_error(self.path):
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _taken(descriptor):
                raise InputError(f"{self.path}: another process is working on this run; `sendengine status` watches it")
            yield
        finally:
            os.close(descriptor)

    @property
    def is_going_on(self) -> bool:
        """Whether a process is working on this run."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def read(self, file: str) -> bytes:
        """Read a file; raises StorageError."""
        path = self.path / file
        with as_storage_error(path):
            if path.is_fifo():  # to open one that nobody writes into would wait for ever
                raise StorageError(f"{path}: is a pipe, and no file of a run; put back what stood there")
            return path.read_bytes()

    def set_aside(self, file: str) -> Path:
        """Keep a file that is damaged under another name, and return that; raises StorageError."""
        return set_aside(self.path / file)[0]

    def spool(self, source: BinaryIO) -> Path:
        """Copy a stream, such as standard input, into the directory, and return where; raises StorageError."""
        path = self.path / INPUT
        with as_storage_error(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())  # there is no other copy of it
            sync_directory(self.path)
        return path


def find_runs(runs_dir: Path) -> list[RunDir]:
    """Return the runs of a directory, the latest last; raises StorageError."""
    with as_storage_error(runs_dir):
        return [RunDir(path) for path in sorted(runs_dir.iterdir()) if path.is_dir()] if runs_dir.is_dir() else []


def _taken(descriptor: int) -> bool:
    """Take the lock; who only looks whether it is taken holds it for an instant, and is waited for."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False
