"""A run's manifest: everything that decides what it sends, fixed and on disk before anything is begun.

A run that is resumed takes it from here, whatever the settings have become. What the first pass over the file decided
about each row stands beside it, a bit a row. Both carry check sums: a manifest with a flipped byte would make other
requests under other keys, and is refused.

Units: ``_at_s`` seconds since the epoch, ``_bytes`` bytes; rows are counted from 0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import msgspec
from msgspec import Struct, field

from sendengine.campaign.blocks import Stamp, file_digest, file_stamp
from sendengine.campaign.plan import PACKING_VERSION, Plan
from sendengine.campaign.rowsets import RowSet, Selection
from sendengine.campaign.rundir import MANIFEST, RunDir
from sendengine.campaign.tables import Mark
from sendengine.errors import InputError, StorageError

SCHEMA: Final = 1
RunKind = Literal["campaign", "jobs"]
_SETS: Final = ("invalid", "duplicates", "excluded", "repeats")


class InputFile(Struct, frozen=True):
    """A file that a run reads, as it was when it was checked; its ``path`` begins at the run's directory."""

    path: str
    size_bytes: int
    sha256: str


class SavedSet(Struct, frozen=True):
    """A set of rows that stands in a file beside the manifest."""

    file: str
    crc: int


class Ending(Struct, frozen=True):
    """What the command that began the run said about how it ends."""

    max_error_rate: float | None = None
    fail_on_unreachable: bool = False


class Manifest(Struct, frozen=True, kw_only=True):
    """What a run sends, and how it was begun.

    ``app_ids`` are the apps that it uses, by their names in the settings. ``plan`` is that of a campaign, ``lanes`` how
    many requests each lane is expected to need. ``retry_of`` names the run whose failures it repeats, and
    ``keys_since_s`` says since when keys that it takes over may be in use. ``identity`` is what is never begun twice
    (`sendengine.campaign.begun`).
    """

    run: str
    name: str
    kind: RunKind
    begun_at_s: float
    app_ids: Mapping[str, str]
    input: InputFile
    rows: int
    total: int
    edition: int = 1
    plan: Plan | None = None
    marks: tuple[Mark, ...] = ()
    selection: Mapping[str, SavedSet] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)
    ending: Ending = Ending()
    durability: str = "durable"
    retry_of: str | None = None
    keys_since_s: float | None = None
    identity: str = ""
    schema: int = SCHEMA

    @property
    def oldest_key_s(self) -> float:
        """Since when its keys may be in use, those included that it takes over from the run that it repeats."""
        return self.begun_at_s if self.keys_since_s is None else self.keys_since_s


class _File(Struct, frozen=True):
    crc: int
    manifest: msgspec.Raw


def save(run_dir: RunDir, manifest: Manifest, selection: Selection) -> Manifest:
    """Write the sets of rows and the manifest, durably, and return it as it was written; raises StorageError.

    An input of its own is named without its directory, so that the run goes on wherever it is moved to.
    """
    own = Path(manifest.input.path)
    if own.parent == run_dir.path.absolute():
        manifest = msgspec.structs.replace(manifest, input=msgspec.structs.replace(manifest.input, path=own.name))
    sets = {name: _save_set(run_dir, name, getattr(selection, name)) for name in _SETS if len(getattr(selection, name))}
    manifest = msgspec.structs.replace(manifest, selection=sets)
    content = msgspec.json.encode(manifest, enc_hook=_plain)
    run_dir.write(MANIFEST, msgspec.json.encode(_File(crc32(content), msgspec.Raw(content))))
    return manifest


def load(run_dir: RunDir) -> Manifest:
    """Read a run's manifest; raises InputError where it has none, and StorageError where it is damaged."""
    if not run_dir.has(MANIFEST):
        raise InputError(f"{run_dir.path}: has no {MANIFEST}; nothing of this run can be resumed")
    try:
        file = msgspec.json.decode(run_dir.read(MANIFEST), type=_File)
        if crc32(bytes(file.manifest)) != file.crc:
            raise StorageError(f"{run_dir.path / MANIFEST}: is damaged: its check sum is another")
        manifest = msgspec.json.decode(bytes(file.manifest), type=Manifest, dec_hook=_as_path)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"{run_dir.path / MANIFEST}: is damaged: {error}") from None
    if manifest.schema != SCHEMA:
        raise StorageError(
            f"{run_dir.path / MANIFEST}: has schema {manifest.schema}, this version of sendengine reads {SCHEMA}"
        )
    if manifest.plan is not None and manifest.plan.version != PACKING_VERSION:
        raise InputError(
            f"{run_dir.path}: was begun with version {manifest.plan.version} of the packing, and this version of "
            f"sendengine has {PACKING_VERSION}; resume it with the version that began it"
        )
    return manifest


def load_selection(run_dir: RunDir, manifest: Manifest) -> Selection:
    """Read the sets of rows that belong to a manifest; raises StorageError."""
    return Selection(**{name: _load_set(run_dir, saved) for name, saved in manifest.selection.items()})


def input_file(path: Path, *, stamp: Stamp, sha256: str) -> InputFile:
    """Describe a file that has been read."""
    return InputFile(str(path.absolute()), stamp.size_bytes, sha256)


def check_unchanged(file: InputFile, path: Path) -> Stamp:
    """Return the stamp of a file, at ``path``, that is what it was; raises InputError where it has changed."""
    try:
        stamp = file_stamp(path)
    except InputError as error:
        raise InputError(f"{error}; the run reads it from there, so put it back") from None
    if stamp.size_bytes != file.size_bytes or file_digest(path) != file.sha256:
        raise InputError(
            f"{path}: has changed since the run began, and its requests would be others under other keys; put the "
            "file back as it was, or send it as a new campaign"
        )
    return stamp


def _save_set(run_dir: RunDir, name: str, rows: RowSet) -> SavedSet:
    saved = SavedSet(f"{name}.bits", crc32(rows.bits))
    run_dir.write(saved.file, rows.bits)
    return saved


def _load_set(run_dir: RunDir, saved: SavedSet) -> RowSet:
    bits = run_dir.read(saved.file)
    if crc32(bits) != saved.crc:
        raise StorageError(f"{run_dir.path / saved.file}: is damaged: its check sum is another")
    return RowSet.of(bits)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _as_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a {kind.__name__}")
