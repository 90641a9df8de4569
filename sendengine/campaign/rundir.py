"""A run's directory: made before anything is recorded as begun, readable by its owner only.

It holds ``report.json`` and lines of JSON: ``requests.jsonl``, ``failures.jsonl``, ``unreachable.jsonl``,
``invalid.jsonl``. Its name begins with the time, so that names sort by time. Lines gather in memory and are written
together by whoever calls `LineFile.flush`, off the event loop. Whatever the disk refuses is a StorageError.

Units: times are UTC.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Self

import orjson

from sendengine.errors import StorageError

REPORT: Final = "report.json"
REQUESTS: Final = "requests.jsonl"
FAILURES: Final = "failures.jsonl"
UNREACHABLE: Final = "unreachable.jsonl"
INVALID: Final = "invalid.jsonl"
_SPOOLED: Final = "input.jsonl"
_LONGEST_NAME: Final = 60


class LineFile:
    """Lines of JSON, appended in memory and written by `flush`, which may run on another thread."""

    __slots__ = ("_descriptor", "_held", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[bytes] = []
        with _as_storage_error(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, line: object) -> None:
        """Hold a line until the next `flush`; ``line`` is anything that has a JSON form."""
        self._held.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    @property
    def waiting(self) -> int:
        """How many lines have not been written yet."""
        return len(self._held)

    def flush(self) -> None:
        """Write what is held; raises StorageError, and the lines are lost then."""
        held, self._held = self._held, []
        if held:
            with _as_storage_error(self.path):
                _write_all(self._descriptor, b"".join(held))

    def close(self) -> None:
        """Write what is held, and close."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)


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
        with _as_storage_error(runs_dir):
            runs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            while True:
                path = runs_dir / f"{moment}-{slug}-{secrets.token_hex(2)}"
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o700)
                    return cls(path)

    @property
    def run(self) -> str:
        """The run's name."""
        return self.path.name

    def lines(self, file: str) -> LineFile:
        """Open a file of lines for appending; raises StorageError."""
        return LineFile(self.path / file)

    def write(self, file: str, content: bytes) -> None:
        """Write a file whole, or leave it as it was: it is renamed into its place. Raises StorageError."""
        path = self.path / file
        draft = path.with_suffix(".tmp")
        with _as_storage_error(path):
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            draft.replace(path)

    def read(self, file: str) -> bytes:
        """Read a file; raises StorageError."""
        path = self.path / file
        with _as_storage_error(path):
            return path.read_bytes()

    def spool(self, source: BinaryIO) -> Path:
        """Copy a stream, such as standard input, into the directory, and return where; raises StorageError."""
        path = self.path / _SPOOLED
        with _as_storage_error(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as copy:
            shutil.copyfileobj(source, copy)
        return path


def find_runs(runs_dir: Path) -> list[RunDir]:
    """Return the runs of a directory, the latest last; raises StorageError."""
    with _as_storage_error(runs_dir):
        return [RunDir(path) for path in sorted(runs_dir.iterdir()) if path.is_dir()] if runs_dir.is_dir() else []


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written or read: {error.strerror or error}") from None
