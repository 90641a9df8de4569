"""One run from the command line: engine, progress and signals around `sendengine.campaign.run.Run`."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from sendengine.campaign.run import Run, RunOptions, RunResult
from sendengine.campaign.rundir import FAILURES, RunDir
from sendengine.campaign.work import CampaignInput, LoadedInput, Work
from sendengine.cli.display import shown
from sendengine.cli.output import note
from sendengine.cli.progress import Glance, glances_of
from sendengine.cli.signals import Stop, listening
from sendengine.engine import SendEngine
from sendengine.settings import Settings
from sendengine.telemetry.collector import tune_collector


class Session(Struct, frozen=True, kw_only=True):
    """What a run needs: the ``work``, where its report goes, ``settings`` for its ``apps``, and how it ends.

    ``noun`` is what is counted (recipients, jobs), and ``lanes`` are those that it is going to use.
    """

    work: Work
    run_dir: RunDir
    settings: Settings
    apps: Collection[str]
    lanes: Mapping[str, int]
    noun: str
    options: RunOptions


async def perform(session: Session) -> RunResult:
    """Send everything, showing progress, until it is done or a signal stops it.

    The first signal lets what is on the wire finish; the second gives it up. Raises SettingsError where a key cannot
    be read, InputError where the input has changed, and StorageError; nothing was sent then.
    """
    _report_warnings()
    run = Run(session.work, run_dir=session.run_dir, options=session.options)
    stop = Stop(on_drain=run.stop, on_abort=run.abort)
    async with SendEngine(_only(session.settings, session.apps), observer=run) as engine:
        tune_collector()

        def look() -> Glance:
            progress = run.progress
            lanes = [lane for lane in glances_of(engine.stats()) if lane.requests or lane.name in session.lanes]
            return Glance(session.work.name, session.noun, progress.done, progress.total, tuple(lanes))

        with listening(stop):
            note(f"Sending; the report goes to {session.run_dir.path}. Ctrl-C stops.")
            async with shown(look):
                return await run.send(engine)


def how_to_go_on(loaded: LoadedInput, *, read: int, source: str, folder: Path) -> str:
    """Say how to send what a run that stopped early has not sent, of which it had begun ``read`` rows."""
    if not isinstance(loaded, CampaignInput):
        return (
            f"Go on: the first {read:,} jobs of {source} were begun; those of them that were not sent stand in "
            f"{folder / FAILURES}, which `sendengine send` takes. Send the rest of {source} from job {read + 1:,} on."
        )
    if loaded.campaign.is_notification:
        return (
            "Go on: give the same command again, with the files unchanged. It makes the same requests under the same "
            "keys, and what OneSignal has taken in the last 30 days it does not send again."
        )
    return "Go on: give the same command again; to set the same values once more changes nothing."


def _only(settings: Settings, apps: Collection[str]) -> Settings:
    """Leave out the apps that a run has nothing to do with: their keys need not be there."""
    return (
        replace(settings, apps={name: app for name, app in settings.apps.items() if name in apps}) if apps else settings
    )


class _ToTerminal(logging.Handler):
    """Writes warnings of the engine where everything that is said about a run goes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        note(f"{record.levelname.lower()}: {record.getMessage()}")


def _report_warnings() -> None:
    log = logging.getLogger("sendengine")
    if not log.handlers:
        log.addHandler(_ToTerminal(level=logging.WARNING))
        log.propagate = False
