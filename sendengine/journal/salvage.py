"""Makes a new store of what can still be read of a damaged one, and keeps the damaged file beside it.

The new file is written whole under another name before the damaged one is renamed; a process that dies in between
leaves one of the two in its place, or the new one ready to be put there. Everything here blocks, and belongs on the
store's thread.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from sendengine.journal.connection import OURS_ALONE, DamagedFileError, Row, connect_sqlite, errors_of, prepare
from sendengine.journal.database import StoredGroup, read_group, write_group
from sendengine.journal.frames import framed
from sendengine.journal.schema import migrate

_MOST_PROBED: Final = 100_000  # rows that are asked for one by one where neither end of the table leads to them
_UNREADABLE: Final = (sqlite3.Error, DamagedFileError, MemoryError, OverflowError, UnicodeError)


def finish_salvage(path: Path) -> None:
    """Put a new file into its place that an earlier process had ready, or throw away one that it had not."""
    new = _new(path)
    with errors_of(path):
        if new.exists() and not path.exists():
            new.rename(path)
        else:
            _unlink(new)


def salvage(path: Path, *, why: str) -> str:
    """Replace the damaged file, and say what was read of it and where it is. Raises StorageError."""
    groups, archived = _readable(path)
    new, kept = _new(path), path.with_name(f"{path.name}.damaged")
    with errors_of(new):
        _unlink(new)
        _write(new, groups, archived)
        for suffix in ("-wal", ""):  # SQLite pairs them by their names
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).replace(kept.with_name(kept.name + suffix))
        new.rename(path)
    return f"{why}; {len(groups)} of its groups of changes could be read and are served, the file is kept as {kept}"


def _readable(path: Path) -> tuple[list[StoredGroup], list[Row]]:
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    except _UNREADABLE:
        return [], []
    try:
        return _groups(connection), _archive(connection)
    finally:
        connection.close()


def _groups(connection: sqlite3.Connection) -> list[StoredGroup]:
    """Read the log from both ends towards the damage, and then what may stand between, one by one."""
    ahead = list(_each(connection, "SELECT seq, records FROM log ORDER BY seq"))
    rows = dict(ahead)
    back = dict(_each(connection, "SELECT seq, records FROM log ORDER BY seq DESC"))
    if ahead and back:
        last = ahead[-1][0]
        for seq in range(last + 1, min(last + _MOST_PROBED, *back)):
            rows.update(_each(connection, "SELECT seq, records FROM log WHERE seq = ?", (seq,)))
    rows.update(back)
    groups = {group.seq: group for group in map(read_group, sorted(rows.items()))}
    return [groups[seq] for seq in sorted(groups)]


def _archive(connection: sqlite3.Connection) -> list[Row]:
    rows: dict[Row, Row] = {}
    for order in ("", "DESC"):
        sql = f"SELECT kind, name, at, payload FROM archive ORDER BY kind {order}, name {order}"  # noqa: S608 - no input
        try:
            rows.update(((kind, name), (kind, name, at, data)) for kind, name, at, data in connection.execute(sql))
        except _UNREADABLE:
            continue
    return list(rows.values())


def _each(connection: sqlite3.Connection, sql: str, parameters: tuple[int, ...] = ()) -> Iterator[tuple[int, bytes]]:
    """Yield rows of the log as far as they can be read."""
    try:
        for seq, data in connection.execute(sql, parameters):
            if isinstance(seq, int) and isinstance(data, bytes):
                yield seq, data
    except _UNREADABLE:
        return


def _write(path: Path, groups: list[StoredGroup], archived: list[Row]) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OURS_ALONE))
    connection = connect_sqlite(path)
    try:
        prepare(connection, "durable")
        migrate(connection, name=str(path))
        connection.execute("BEGIN IMMEDIATE")
        for seq, group in enumerate(groups, start=1):  # without the gaps that missing ones leave
            frames = [framed(each.id, each.kind, each.payload) for each in group.records]
            frames += [each.data for each in group.damaged]
            records = write_group(seq, frames, removed=group.removed, next_id=group.next_id)
            connection.execute("INSERT INTO log VALUES (?, ?)", (seq, records))
        for row in archived:
            with suppress(sqlite3.IntegrityError):  # what is no row of the archive
                connection.execute("INSERT OR REPLACE INTO archive VALUES (?, ?, ?, ?)", row)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _unlink(new: Path) -> None:
    for suffix in ("", "-wal", "-journal"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
