"""Everything of a send that comes before the first request: read, check, plan, and see what it is going to do."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from msgspec import Struct

from sendengine.campaign.disk import as_storage_error
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.work import CampaignInput, LoadedInput, Work, refuse_faults
from sendengine.cli.asking import Expectation
from sendengine.cli.loop import run
from sendengine.cli.options import overrides_of
from sendengine.cli.overview import Overview, known_limits, look_up_limits, overview
from sendengine.cli.reading import RENAME, check_text, read_input
from sendengine.cli.slower import slowed
from sendengine.settings import Settings, load_settings

_SPOOLED_NAME = "standard-input"


class Choices(Struct, frozen=True, kw_only=True):
    """What a command line says about what to send, and how fast."""

    source: str
    config: Path
    name: str | None = None
    test: Sequence[str] = ()
    edition: int = 1
    expectation: Expectation | None = None
    share: float | None = None
    rate: float | None = None
    max_outage_s: float | None = None
    skip_invalid: bool = False


class RunPlace:
    """A run's directory: made when it is first needed, and taken away again where nothing was begun.

    It is locked as soon as it is made, so that nobody takes it for what a dead process left: to read an input, or to
    ask a person, may take long.
    """

    __slots__ = ("_lock", "_made", "_runs_dir")

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._made: RunDir | None = None
        self._lock = ExitStack()

    def get(self, name: str) -> RunDir:
        """Return it; ``name`` becomes part of its name where it is made now. Raises InputError and StorageError."""
        if self._made is None:
            with as_storage_error(self._runs_dir):  # the working directory may be gone
                place = self._runs_dir.absolute()
            check_text(str(place), mend=RENAME)
            self._made = RunDir.make(self._runs_dir, name=name, now=datetime.now(UTC))
            self._lock.enter_context(self._made.locked())
        return self._made

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let it be free for others afterwards."""
        with self._lock:
            yield

    def drop(self) -> None:
        """Take it away, if it was made."""
        if self._made is not None:
            shutil.rmtree(self._made.path, ignore_errors=True)
            self._made = None
        self._lock.close()


def prepare(choices: Choices, place: RunPlace, *, is_exact: bool, is_asked: bool) -> Overview:
    """Read and check the input, and work out what sending it needs.

    ``is_exact`` counts a campaign's requests, ``is_asked`` asks OneSignal for the application limits. Raises
    SettingsError, InputError and StorageError; nothing has been sent then.
    """
    settings = load_settings(choices.config, overrides=overrides_of(choices.max_outage_s))
    loaded = read_input(
        choices.source, settings, name=choices.name, spool=lambda: place.get(choices.name or _SPOOLED_NAME)
    )
    refuse_faults(loaded, skip_invalid=choices.skip_invalid)
    apps = tuple(dict.fromkeys(audience.app for audience in loaded.audiences))
    settings = slowed(settings, apps=apps, share=choices.share, rate=choices.rate)
    work = _work(loaded, choices, settings, place)
    if choices.expectation is not None:
        choices.expectation.check(work.total, noun=loaded.noun)
    most = run(lambda: look_up_limits(settings, apps)) if is_asked else known_limits(settings, apps)
    return overview(loaded, work, settings, most=most, is_exact=is_exact)


def _work(loaded: LoadedInput, choices: Choices, settings: Settings, place: RunPlace) -> Work:
    if not isinstance(loaded, CampaignInput):
        if choices.test:
            raise click.UsageError("--test is for campaigns; a jobs file says itself whom it is for")
        return loaded.work()
    if choices.name is not None:
        raise click.UsageError("--name is for jobs; a campaign's name stands in its file")
    plan = loaded.plan(settings, now=datetime.now(UTC), edition=choices.edition)
    if not choices.test:
        return loaded.work(plan)
    only_to = settings.apps[loaded.app].only_to
    return loaded.test_work(plan, choices.test, run=place.get(f"{loaded.name}-test").run, only_to=only_to)
