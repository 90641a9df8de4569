"""What the tests of the journal have in common: jobs, seals, and disks that are slow, full or broken."""

import asyncio
import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sendengine import CreateNotification, StorageError, external_id
from sendengine.core.wire import WireRequest
from sendengine.journal.connection import Connection, Row, Value, connect_sqlite
from sendengine.journal.outbox import Outbox
from sendengine.journal.schema import WRITE
from sendengine.journal.store import Store
from sendengine.ports import Recovered, Seal

KEY = "8250eaf6-1a58-489e-b136-7c74a864b434"
PATIENCE_S = 60
"""How long a thread is waited for: whoever takes longer hangs."""


class Disk:
    """Makes connections, and decides about what they write. All of its faults are SQLite's own errors."""

    def __init__(self) -> None:
        self.is_full = False
        self.is_broken = False
        self.writes = 0
        self.groups: list[Sequence[Value]] = []
        self.statements: list[str] = []
        self.gate = threading.Event()  # a write waits for it
        self.gate.set()
        self.arrived = threading.Event()  # a write has come to the gate

    def connect(self, path: Path) -> Connection:
        return _Faulty(connect_sqlite(path), self)

    def shut(self) -> None:
        """Let the next write come to the gate, and wait there; nothing else is under way."""
        self.arrived.clear()
        self.gate.clear()

    async def until_arrived(self) -> None:
        """Wait until a write has come to the gate."""
        assert await asyncio.to_thread(self.arrived.wait, PATIENCE_S), "no write has come to the gate"

    def pass_or_fail(self, sql: str, parameters: Sequence[Value]) -> None:
        self.statements.append(sql)
        if sql != WRITE and "wal_checkpoint" not in sql:
            return
        if sql == WRITE:
            self.arrived.set()
            if not self.gate.wait(PATIENCE_S):
                raise _error(sqlite3.OperationalError("the gate was never opened"), sqlite3.SQLITE_IOERR)
        if self.is_broken:
            raise _error(sqlite3.OperationalError("disk I/O error"), sqlite3.SQLITE_IOERR_FSYNC)
        if self.is_full:
            raise _error(sqlite3.OperationalError("database or disk is full"), sqlite3.SQLITE_FULL)
        if sql == WRITE:
            self.groups.append(parameters)


class _Faulty:
    def __init__(self, connection: Connection, disk: Disk) -> None:
        self._connection = connection
        self._disk = disk

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Iterator[Row]:
        self._disk.pass_or_fail(sql, parameters)
        return self._connection.execute(sql, parameters)

    def close(self) -> None:
        self._connection.close()


class Told:
    """Takes note of what a `Done` was told; ``await told.wait()`` returns, or raises what it was told."""

    def __init__(self) -> None:
        self.calls: list[StorageError | None] = []
        self._news = asyncio.Event()

    def __call__(self, error: StorageError | None) -> None:
        self.calls.append(error)
        self._news.set()

    async def wait(self) -> None:
        await self._news.wait()
        if self.calls[0] is not None:
            raise self.calls[0]


def no_space() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def a_job(number: int = 1, *, key: str | None = None, text: str = "Hi") -> CreateNotification:
    return CreateNotification(
        to=external_id(f"u{number}"), channel="push", message={"contents": {"en": text}}, idempotency_key=key
    )


def a_seal(*members: tuple[int, tuple[str, ...]], key: str | None = KEY, body: bytes = b'{"x":1}\n') -> Seal:
    method, path = ("POST", "/notifications") if key else ("PATCH", "/apps/a/users/by/external_id/u")
    return Seal("shop/create_notification", key, 3600 if key else None, WireRequest(method, path, body), members)


def _never(error: StorageError) -> None:
    raise AssertionError(error)


async def opened(path: Path, **options: object) -> tuple[Outbox, Recovered]:
    """Open an outbox, and return it with what it recovered."""
    outbox = await Outbox.open(path, **options)  # type: ignore[arg-type]
    return outbox, await outbox.recover(when_failed=_never)


async def accepted(outbox: Outbox, number: int = 1, **options: object) -> int:
    """Accept a job, and return its id when it is on disk."""
    told = Told()
    record = outbox.accept(a_job(number), app="shop", done=told, **options)  # type: ignore[arg-type]
    await told.wait()
    return record


async def put(store: Store, payload: bytes, *, kind: int = 1) -> int:
    """Put a record, and return its id when it is on disk."""
    told = Told()
    record = store.put(kind, payload, done=told)
    await told.wait()
    return record


async def held(path: Path) -> dict[int, bytes]:
    """What a store's file holds, by a look of its own."""
    store = await Store.open(path)
    found = {record.id: record.payload for record in store.contents().records}
    await store.aclose()
    return found


def copied(path: Path, *, into: Path) -> Path:
    """Copy a store's files as a crash would leave them, beside an open store."""
    into.mkdir(exist_ok=True)
    for each in path.parent.glob(f"{path.name}*"):
        if not each.name.endswith(".reserve"):
            (into / each.name).write_bytes(each.read_bytes())
    return into / path.name


def _error(error: sqlite3.Error, code: int) -> sqlite3.Error:
    error.sqlite_errorcode = code
    return error


Clock = Callable[[], float]
