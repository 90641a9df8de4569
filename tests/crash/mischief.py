"""What goes wrong in a process besides its death: a disk that is full or broken, and less patience than usual.

Each is called in the process that is to suffer it, before anything else.
"""

import sqlite3
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from tests.crash.sabotage import put, replace

WRITES = "INSERT INTO changes"
"""How the statement begins that writes a group."""
FULL_FROM, FULL_FOR = 12, 5
BROKEN_FROM = 12


def full_for_a_while() -> None:
    """Some groups find no room, and the later ones do."""
    put("sendengine.journal.flushing:AGAIN_S", 0.2)
    _refuse(lambda number: FULL_FROM <= number < FULL_FROM + FULL_FOR, sqlite3.SQLITE_FULL, "database or disk is full")


def broken_for_once() -> None:
    """One group is not written, because the disk fails; the next would be."""
    _refuse(lambda number: number == BROKEN_FROM, sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error")


def hasty() -> None:
    """Try again soon after a failure."""
    for name, value in {"_FAULT_S": 0.05, "_LONGEST_S": 0.2, "_NOT_SENT_S": 0.05}.items():
        put(f"sendengine.core.retry:{name}", value)


def impatient() -> None:
    """Give up soon: a run is over in seconds in which much fails."""
    hasty()
    put("sendengine.core.retry:MOST_FAILURES", 2)


def _refuse(is_refused: Callable[[int], bool], code: int, text: str) -> None:
    numbers = count(1)

    class Faulty(sqlite3.Connection):
        """The real one, on such a disk."""

        def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
            if sql.startswith(WRITES) and is_refused(next(numbers)):
                error = sqlite3.OperationalError(text)
                error.sqlite_errorcode = code
                raise error
            return super().execute(sql, parameters)

    real = sqlite3.connect
    replace("sqlite3:connect", lambda _: lambda *args, **options: real(*args, factory=Faulty, **options))
