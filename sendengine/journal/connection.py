"""A connection to a store's SQLite file, and what its errors mean.

The file is used by one connection of one process, with its write-ahead log's index in memory
(``locking_mode=EXCLUSIVE``) and without a memory map: nothing else reads it while it is open.

Units: sizes are bytes.

Source: sqlite.org: wal.html, pragma.html, rescode.html.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from sendengine.errors import StorageError

Durability: TypeAlias = Literal["durable", "relaxed"]
Value: TypeAlias = int | float | str | bytes | None
Row: TypeAlias = Sequence[Value]

OURS_ALONE: Final = 0o600

_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CACHE_KIB: Final = 16_384
_LONGEST_WAL_BYTES: Final = 33_554_432  # what is left of it after a checkpoint
_PLAIN: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOLFS,
    }
)  # fmt: skip


class Connection(Protocol):
    """As much of `sqlite3.Connection` as a store uses; tests put one in its place whose disk fails."""

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Iterator[Row]:
        """Run one statement."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


Connect: TypeAlias = Callable[[Path], Connection]


class DiskFullError(StorageError):
    """There is no room for a change; nothing of it was written, and it may be tried again."""


class DamagedFileError(StorageError):
    """What the file holds is not what was written into it."""


def afresh(error: StorageError | None) -> StorageError | None:
    """Return the same failure for somebody else to raise: one that many raise would hold the stacks of them all."""
    return None if error is None else type(error)(*error.args)


def connect_sqlite(path: Path) -> Connection:
    """Open a connection in which every statement is a transaction of its own."""
    return sqlite3.connect(path, timeout=0, isolation_level=None, cached_statements=16)


def prepare(connection: Connection, durability: Durability) -> None:
    """Take the file for this process alone, with a write-ahead log that survives what ``durability`` says."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    (mode,) = next(connection.execute("PRAGMA journal_mode = WAL"))
    if mode != "wal":
        raise DamagedFileError(f"the file cannot have a write-ahead log, its journal is {mode!r}")
    for pragma in (
        f"synchronous = {'FULL' if durability == 'durable' else 'NORMAL'}",
        "wal_autocheckpoint = 0",  # SQLite keeps its failure to itself
        f"journal_size_limit = {_LONGEST_WAL_BYTES}",
        "mmap_size = 0",
        "temp_store = MEMORY",
        f"cache_size = -{_CACHE_KIB}",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the system into DiskFullError, DamagedFileError or a plain StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error, path) from error
    except OSError as error:
        kind = DiskFullError if error.errno in _FULL_ERRORS else StorageError
        raise kind(f"cannot write {error.filename or path}: {error.strerror or error}") from error
    except (MemoryError, OverflowError, UnicodeError) as error:  # a damaged length, number or text
        raise DamagedFileError(f"{path} is damaged: {error!r}") from error


def _meaning(error: sqlite3.Error, path: Path) -> StorageError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return DiskFullError(f"cannot write {path}: {error}")
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StorageError(f"{path} is in use by another process")
    if primary == sqlite3.SQLITE_READONLY and not os.access(path, os.W_OK):
        return StorageError(f"{path} cannot be written: {error}")
    if primary in _PLAIN or primary is None:
        name = getattr(error, "sqlite_errorname", "")
        return StorageError(f"cannot read or write {path}: {error}{f' ({name})' if name else ''}")
    return DamagedFileError(f"{path} is damaged: {error}")
