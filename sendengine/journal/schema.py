"""The tables of a store, and how an older file becomes the present one.

``log`` has a row for each group of changes, its records one after another (`sendengine.journal.frames`); ``archive``
has what is looked up by name or kept for a time: callers' keys, dead letters, requests kept to be repeated.

A group reaches the disk as one statement, an insertion into the view ``changes`` whose trigger does the rest: each
statement more would wait for the interpreter's lock again, up to 5 ms beside a busy event loop, and a single one is
there whole or not at all without ``BEGIN`` and ``COMMIT``. View and trigger live with the connection, not in the file.

Units: ``at`` is whole seconds since the epoch.
"""

import sqlite3
from functools import cache
from typing import Final

from sendengine.errors import StorageError
from sendengine.journal.connection import Connection, DamagedFileError

MIGRATIONS: Final = (
    (
        "CREATE TABLE log (seq INTEGER PRIMARY KEY, records BLOB NOT NULL) STRICT",
        """\
CREATE TABLE archive (
  kind INTEGER NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID""",
        "CREATE INDEX archive_by_age ON archive (kind, at)",
    ),
    (),  # jobs may have the key of their only request: a version that passes it over would send them under another
)
"""What takes a file from each version to the next; ``user_version`` counts them."""

WRITE: Final = "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)"
"""Write a group: its number, its records, the first group to keep, and what the archive gains and loses."""

_CHANGES: Final = (
    """\
CREATE TEMP VIEW changes AS SELECT
  NULL AS seq, NULL AS records, NULL AS first_kept, NULL AS archived, NULL AS payloads, NULL AS forgotten""",
    # What is archived is a list of kind, name, at, and where its payload stands among the payloads, from and to.
    """\
CREATE TEMP TRIGGER write_changes INSTEAD OF INSERT ON changes BEGIN
  INSERT INTO log VALUES (NEW.seq, NEW.records);
  DELETE FROM log WHERE seq < NEW.first_kept;
  DELETE FROM archive WHERE (kind, name) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(NEW.forgotten));
  INSERT OR REPLACE INTO archive
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
      substr(NEW.payloads, 1 + json_extract(value, '$[3]'), json_extract(value, '$[4]') - json_extract(value, '$[3]'))
    FROM json_each(NEW.archived);
END""",
)
_MOST_VERSIONS: Final = 1000  # a greater number is no version but damage


def migrate(connection: Connection, *, name: str) -> None:
    """Bring the file to the present version, step by step, each whole or not at all.

    Raises StorageError where a newer version has written it, DamagedFileError where its tables are not as they were
    made.
    """
    (version,) = next(connection.execute("PRAGMA user_version"))
    if not isinstance(version, int) or not 0 <= version < _MOST_VERSIONS:
        raise DamagedFileError(f"{name} is damaged: its version is {version!r}")
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{name} was written by a newer sendengine: its format is {version}, and this one knows up to "
            f"{len(MIGRATIONS)}; use the newer one, or another directory"
        )
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        for statement in MIGRATIONS[number]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")
    if _tables(connection) != _expected():
        raise DamagedFileError(f"{name} is damaged: its tables are not as they were made")
    for statement in _CHANGES:
        connection.execute(statement)


def _tables(connection: Connection) -> frozenset[tuple[object, ...]]:
    return frozenset(
        tuple(row) for row in connection.execute("SELECT type, name, tbl_name, sql FROM main.sqlite_schema")
    )


@cache
def _expected() -> frozenset[tuple[object, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        for statements in MIGRATIONS:
            for statement in statements:
                connection.execute(statement)
        return _tables(connection)
    finally:
        connection.close()
