"""The beginning of a run: refused where the same was begun before, and on disk before anything is sent.

Units: seconds since the epoch.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from sendengine.campaign import manifest as manifests
from sendengine.campaign.begun import RETRIES, Begun, DamagedNoteError, Registry
from sendengine.campaign.inventory import describe
from sendengine.campaign.manifest import Ending, Manifest
from sendengine.campaign.run import RunOptions
from sendengine.campaign.rundir import JOURNAL, MANIFEST, RunDir
from sendengine.campaign.saved import identity_of, manifest_of
from sendengine.cli.carrying import command_line, resume_line
from sendengine.cli.output import note
from sendengine.cli.overview import Overview
from sendengine.cli.reading import RENAME, check_text
from sendengine.errors import InputError, StorageError
from sendengine.settings import Settings


class Beginning:
    """Of one run."""

    __slots__ = ("_edition", "_identity", "_is_entered", "_manifest", "_registry", "_shown")

    def __init__(self, shown: Overview, *, edition: int) -> None:
        self._shown = shown
        self._edition = edition
        self._manifest = manifest_of(shown.loaded, shown.work, shown.settings, edition=edition)
        check_text(self._manifest.input.path, mend=RENAME)  # the directory's part of it
        self._identity = identity_of(self._manifest, shown.loaded)
        self._manifest = replace(self._manifest, identity=self._identity)
        self._registry = Registry(shown.settings.state_dir)
        self._is_entered = False

    def check(self) -> None:
        """Raise InputError where the same was begun before."""
        if (before := self._registry.find(self._identity)) is not None:
            raise InputError(_refusal(before, edition=self._edition))

    def enter(self, run_dir: RunDir, ending: Ending) -> Manifest:
        """Write the manifest, and take note that the run begins; raises InputError where somebody was faster."""
        now_s = time.time()
        manifest = replace(
            self._manifest,
            run=run_dir.run,
            begun_at_s=now_s,
            lanes=dict(self._shown.forecast.requests),
            ending=ending,
            durability=durability_of(self._shown.settings),
        )
        manifest = manifests.save(run_dir, manifest, self._shown.work.selection)
        if not self._registry.enter(self._identity, begun_of(run_dir, manifest)):
            self.check()
        self._is_entered = True
        return manifest

    @property
    def is_known(self) -> bool:
        """Whether it is noted that the run began, as far as can be read."""
        try:
            return self._registry.find(self._identity) is not None
        except StorageError:
            return True

    def undo(self) -> None:
        """Forget it again: nothing was sent."""
        if self._is_entered:
            self._registry.withdraw(self._identity)


def registry_of(run_dir: RunDir, manifest: Manifest, settings: Settings) -> Registry:
    """Return where it is noted that a run was begun."""
    repeated = None if manifest.retry_of is None else run_dir.path.parent / manifest.retry_of
    if repeated is None or not repeated.is_dir():  # it may have been thrown away
        return Registry(settings.state_dir)
    return Registry(repeated, folder=RETRIES)


def begun_of(run_dir: RunDir, manifest: Manifest) -> Begun:
    """Describe a run that begins."""
    return Begun(run_dir.run, str(run_dir.path.absolute()), manifest.name, manifest.begun_at_s)


def claim(run_dir: RunDir, manifest: Manifest, settings: Settings) -> None:
    """See that nobody else has begun the same: a run may have died before that was noted, and was sent anew since.

    A note that is damaged is this run's where this run has begun to send; it is made anew then. Raises InputError where
    another run has begun, and StorageError.
    """
    registry = registry_of(run_dir, manifest, settings)
    try:
        found = registry.find(manifest.identity)
    except DamagedNoteError as error:
        if not run_dir.has(JOURNAL):
            raise
        note(f"warning: {error}; it is kept as {registry.set_aside(manifest.identity)}, and made anew")
        found = None
    if found is None and registry.enter(manifest.identity, begun_of(run_dir, manifest)):
        return
    found = found or registry.find(manifest.identity)
    if found is not None and not _is_of(found, run_dir, manifest):
        if found.run == manifest.run:
            raise InputError(f"{run_dir.path}: is a copy of {found.directory}, which is the one to resume")
        raise InputError(
            f"{run_dir.run}: died before it sent anything, and the same was begun since as run {found.run}, which is "
            "the one to resume"
        )
    if found is not None and not found.is_made:  # a retry, whose process died just before it could say so
        registry.confirm(manifest.identity, found)


def _is_of(found: Begun, run_dir: RunDir, manifest: Manifest) -> bool:
    """Whether a note is of this run: its directory may have another name, but is no copy of one that is there."""
    return found.run == run_dir.run or (found.run == manifest.run and not RunDir(Path(found.directory)).has(MANIFEST))


def durability_of(settings: Settings) -> str:
    """How durable a run of the command line is: as the settings say, and durable where they say nothing."""
    return "durable" if settings.journal is None else settings.journal.durability


def ending_of(options: RunOptions) -> Ending:
    """What of a run's options a later process keeps to."""
    return Ending(options.max_error_rate, options.fail_on_unreachable)


def with_limits(options: RunOptions, settings: Settings, manifest: Manifest | None) -> RunOptions:
    """Add what the settings say about how a run ends, and how durable it is."""
    return replace(
        options,
        max_outage_s=settings.retry.max_outage_s,
        stop_grace_s=settings.stopping.drain_timeout_s,
        durability="memory" if manifest is None else manifest.durability,
    )


def _refusal(before: Begun, *, edition: int) -> str:
    directory = Path(before.directory)
    here = Path.cwd()
    run_dir = RunDir(directory.relative_to(here) if directory.is_relative_to(here) else directory)
    begun_at = datetime.fromtimestamp(before.begun_at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    again = f"to send it again on purpose, to everybody: --edition {edition + 1}"
    begun = f"{before.name}: was begun before, at {begun_at}, as run {before.run}"
    if not run_dir.has(MANIFEST):
        where = f"{directory} is gone, and where it was moved to, `sendengine resume` and `report` take its directory"
        return f"{begun}; {where}; {again}"
    state = describe(run_dir).state
    if state == "finished":
        return f"{begun}, which has finished: {command_line('report', run_dir)}; {again}"
    if state == "going on":
        return f"{begun}, which is going on: {command_line('status', run_dir)}; {again}"
    return f"{begun}; to go on with it: {resume_line(run_dir)}; {again}"
