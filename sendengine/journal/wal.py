"""Finds out whether a write-ahead log lost more than its unfinished end.

SQLite reads a log up to the first frame whose checksum is wrong, and says nothing about the rest: after a crash that is
the group that was being written. But a group is begun only when the one before it is on disk, so where a whole group
and something behind it follow the wrong frame, what was on disk has been damaged, and a person has to know.

Format: sqlite.org/fileformat2.html#walformat: a header of 32 bytes with salts at 16, and frames of 24 bytes and a page,
which begin with the page's number, the size of the file after a commit (0 elsewhere), and the salts.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from sendengine.journal.reserve import Reserve

_HEADER_BYTES: Final = 32
_FRAME_BYTES: Final = 24
_MAGIC: Final = frozenset({0x377F0682, 0x377F0683})


class LogSurvey(Struct, frozen=True):
    """How many frames a log has that belong together, and which of them end a group, counted from 1."""

    frames: int
    ends: Sequence[int]

    def lost_groups(self, read: int) -> int:
        """How many groups were on disk and are lost where only so many frames could be read."""
        return sum(1 for end in self.ends if read < end < self.frames)


def lost_log(database: Path) -> str | None:
    """Say so where a process that was killed left a log beside its reserve, and somebody took it away; None usually.

    To be asked before the database is opened, which makes a new one. Nothing is known where there is no reserve.
    """
    log = database.with_name(f"{database.name}-wal")
    if not Reserve(database).is_kept or os.access(log, os.F_OK) or not os.access(database, os.F_OK):
        return None
    return f"{log} is gone: what was written into it last is lost; jobs may be missing, and others be sent once more"


def survey_log(database: Path) -> LogSurvey:
    """Look at the frames of a database's log, without trusting any of them; nothing where there is no log."""
    try:
        data = database.with_name(f"{database.name}-wal").read_bytes()
    except OSError:
        return LogSurvey(0, ())
    page_bytes = int.from_bytes(data[8:12], "big")
    if int.from_bytes(data[:4], "big") not in _MAGIC or not 512 <= page_bytes <= 65_536:  # noqa: PLR2004 - SQLite's
        return LogSurvey(0, ())
    salts, length = data[16:24], _FRAME_BYTES + page_bytes
    ends: list[int] = []
    number = 0
    for start in range(_HEADER_BYTES, len(data) - length + 1, length):
        if data[start + 8 : start + 16] != salts:
            break
        number += 1
        if any(data[start + 4 : start + 8]):
            ends.append(number)
    return LogSurvey(number, ends)
