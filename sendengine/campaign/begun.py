"""What was begun before: so that nobody sends the same campaign, or the same jobs, twice by mistake.

A file for each, named after what identifies it, made before the first request and never twice. A campaign is
identified by app, name and edition, whatever it says now; jobs by their apps, the content of their file, and edition;
a retry by its own name, with the failures that it repeats, so that no other retry repeats them.

Units: ``_at_s`` is seconds since the epoch.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import replace

from sendengine.campaign.disk import as_storage_error, is_there, make_new
from sendengine.errors import StorageError
from sendengine.journal.whole_file import replace_whole, set_aside

FOLDER: Final = "begun"
"""Where in the state directory."""

RETRIES: Final = "retries"
"""Where in the directory of the run that is repeated, whatever the state directory is."""


class Begun(Struct, frozen=True):
    """A run that was begun: its name, and its directory; of a retry, the lines of the failures that it repeats.

    A retry is entered before it ``is_made``: one that is not, and cannot be any more, has sent nothing.
    """

    run: str
    directory: str
    name: str
    begun_at_s: float
    lines: tuple[int, ...] = ()
    is_made: bool = True


def campaign_identity(*, app_id: str, name: str, edition: int) -> str:
    """Return what identifies a campaign."""
    return _identity("campaign", app_id, name, edition)


def jobs_identity(*, app_ids: Iterable[str], digest: str, edition: int) -> str:
    """Return what identifies a jobs file; ``digest`` is of its text."""
    return _identity("jobs", sorted(app_ids), digest, edition)


def retry_identity(*, run: str) -> str:
    """Return what identifies a retry; ``run`` is its own name."""
    return _identity("retry", run)


class DamagedNoteError(StorageError):
    """Something was begun, and what the note of it says cannot be read."""


class Registry:
    """The files of one state directory; of a run's own directory, where its retries are entered."""

    __slots__ = ("_folder",)

    def __init__(self, directory: Path, *, folder: str = FOLDER) -> None:
        self._folder = directory / folder

    def find(self, identity: str) -> Begun | None:
        """Return which run was begun with this identity; raises StorageError where that cannot be read."""
        path = self._path(identity)
        return _read(path) if is_there(path) else None

    def everything(self) -> Sequence[Begun]:
        """Return all runs that were begun, the latest last; raises StorageError where one cannot be read."""
        with as_storage_error(self._folder):
            return sorted(map(_read, self._folder.glob("*.json")), key=lambda begun: begun.begun_at_s)

    def enter(self, identity: str, begun: Begun) -> bool:
        """Take note, durably, that a run begins; False where one was begun before. Raises StorageError."""
        return make_new(self._path(identity), _written(begun))

    def confirm(self, identity: str, begun: Begun) -> None:
        """Take note, durably, that a run that was entered is made, and may be sent; raises StorageError."""
        replace_whole(self._path(identity), _written(replace(begun, is_made=True)))

    def set_aside(self, identity: str) -> Path:
        """Keep a note that is damaged under another name, and return that; raises StorageError."""
        return set_aside(self._path(identity))[0]

    def withdraw(self, identity: str) -> None:
        """Forget a run that was entered and then sent nothing; raises StorageError."""
        path = self._path(identity)
        with as_storage_error(path):
            path.unlink(missing_ok=True)

    def _path(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"


def _written(begun: Begun) -> bytes:
    return orjson.dumps(msgspec.to_builtins(begun))


def _read(path: Path) -> Begun:
    try:
        with as_storage_error(path):
            return msgspec.json.decode(path.read_bytes(), type=Begun)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedNoteError(f"{path}: is damaged, and says that this was begun before: {error}") from None


def _identity(*what: object) -> str:
    return sha256(orjson.dumps(what)).hexdigest()
