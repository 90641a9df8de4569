"""Makes a store's file: under another name, and whole before it is renamed into its place.

So whoever finds one without tables knows that it was damaged, and takes it for no new one. Everything here blocks, and
belongs on the store's thread.
"""

import os
from pathlib import Path

from sendengine.journal.connection import OURS_ALONE, connect_sqlite, prepare
from sendengine.journal.schema import migrate
from sendengine.journal.whole_file import sync_directory


def make_file(path: Path) -> None:
    """Make it, durably; raises what SQLite and the system raise. What an earlier process left unfinished goes first."""
    fresh = path.with_name(f"{path.name}.fresh")
    try:
        for suffix in ("", "-wal", "-journal"):
            fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OURS_ALONE))
        connection = connect_sqlite(fresh)
        try:
            prepare(connection, "durable")
            migrate(connection, name=str(path))
        finally:
            connection.close()
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
