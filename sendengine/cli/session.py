"""One run from the command line: engine, journal, progress and signals around `sendengine.campaign.run.Run`."""

import logging
import sys
from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sendengine.campaign.control import forget_orders
from sendengine.campaign.kept import open_keeping
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.run import Progress, Run, RunOptions, RunResult
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.work import Work
from sendengine.cli.display import shown
from sendengine.cli.output import note
from sendengine.cli.progress import Glance
from sendengine.cli.signals import Stop, listening
from sendengine.engine import SendEngine
from sendengine.settings import Settings
from sendengine.telemetry.allocator import tune_allocator
from sendengine.telemetry.collector import tune_collector

SWITCH_S: Final = 0.0005
"""How long the journal's thread waits for the interpreter, several times a group; Python's own 5 ms doubles what the
slowest hundredth of acceptances takes."""


class Session(Struct, frozen=True, kw_only=True):
    """What a run needs: the ``work``, where its report goes, ``settings`` for its ``apps``, and how it ends.

    ``manifest`` is there where the run has a journal. ``lanes`` are those that it is going to use.
    """

    work: Work
    run_dir: RunDir
    settings: Settings
    apps: Collection[str]
    lanes: Mapping[str, int]
    options: RunOptions
    manifest: Manifest | None = None

    @property
    def is_resumable(self) -> bool:
        """Whether what is left when it ends can be sent by a later run."""
        return self.manifest is not None


async def perform(session: Session) -> RunResult:
    """Send everything, showing progress, until it is done or a signal stops it.

    The first signal lets what is on the wire finish; the second gives it up. Raises SettingsError where a key cannot
    be read, InputError where the input has changed, and StorageError; nothing was sent then.
    """
    _report_warnings()
    forget_orders(session.run_dir)
    kept = None
    if session.manifest is not None:
        kept = await open_keeping(
            session.run_dir,
            session.manifest,
            durability=session.options.durability,
            settings=session.settings.journal,
        )
    journal = None if kept is None else kept.journal
    try:
        run = Run(session.work, run_dir=session.run_dir, options=session.options, keeping=kept)
        stop = Stop(on_drain=run.stop, on_abort=run.abort)
        async with SendEngine(_only(session), observer=run, journal=journal) as engine:
            tune_allocator()
            tune_collector()
            sys.setswitchinterval(SWITCH_S)

            def look() -> Glance:
                progress, stats = run.progress, engine.stats()
                return Glance(
                    name=named(session.work.name, progress),
                    noun=session.work.noun,
                    done=progress.done,
                    total=progress.total,
                    lanes={name: lane for name, lane in stats.lanes.items() if lane.requests or name in session.lanes},
                    taken_at_s=stats.taken_at_s,
                )

            if kept is not None and kept.earlier is not None:
                note(f"{kept.earlier.counts.settled:,} of {session.work.total:,} {session.work.noun} are done already.")
            if kept is not None and kept.left_behind is not None:
                note(f"Left behind: {kept.left_behind}.")
            with listening(stop):
                note(f"Sending; the report goes to {session.run_dir.path}. Ctrl-C stops.")
                async with shown(look):
                    return await run.send(engine)
    finally:
        if journal is not None:
            await journal.aclose()


def named(name: str, progress: Progress) -> str:
    """What is sent, and what is out of the ordinary about it at this moment."""
    rate = None if progress.rate is None else f"at most {progress.rate:,g} requests/s in each lane, as ordered"
    told = [each for each in (progress.problem, rate) if each is not None]
    return f"{name}: {'; '.join(told)}" if told else name


def _only(session: Session) -> Settings:
    """Leave out the apps that a run has nothing to do with, whose keys need not be there; a run has its own journal."""
    settings = session.settings if session.is_resumable else replace(session.settings, journal=None)
    apps = {name: app for name, app in settings.apps.items() if name in session.apps}
    return replace(settings, apps=apps) if apps else settings


class _ToTerminal(logging.Handler):
    """Writes warnings of the engine, and what it recovered, where everything that is said about a run goes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        if record.levelno >= logging.WARNING:
            note(f"{record.levelname.lower()}: {record.getMessage()}")
        elif getattr(record, "event", None) == "recovered":
            note(record.getMessage())


def _report_warnings() -> None:
    log = logging.getLogger("sendengine")
    if not log.handlers:
        log.addHandler(_ToTerminal())
        log.setLevel(logging.INFO)
        log.propagate = False
