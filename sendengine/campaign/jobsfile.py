"""Jobs files: JSON Lines, gzipped or not, or standard input; a first pass that checks them, a second that gives jobs.

Units: rows are counted from 0, lines from 1.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from sendengine.campaign.blocks import Digest, Stamp, file_stamp, read_blocks
from sendengine.campaign.idchecks import IdCheck
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.survey import BILLING_WARNING, FAULTS_KEPT
from sendengine.campaign.tables import Fault
from sendengine.core.joblines import read_job
from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.spelling import mend
from sendengine.core.targets import IMPLIED_CHANNEL
from sendengine.errors import InvalidJobError


class Audience(Struct, frozen=True, gc=False):
    """Whom jobs go to: ``kind`` is what they do, ``channel`` how, where it is known."""

    app: str
    kind: str
    channel: str


class AudienceSize(Struct, gc=False):
    """How many jobs go to an audience and how many recipients those name; ``uncounted`` jobs do not say how many."""

    jobs: int = 0
    recipients: int = 0
    uncounted: int = 0


class JobsSurvey(Struct, frozen=True):
    """What the first pass over a jobs file found. ``faults`` lists the first `FAULTS_KEPT` invalid lines.

    ``sha256`` is of the file, ``text_sha256`` of its text: the same, unless it is gzipped.
    """

    rows: int
    to_send: int
    invalid: int
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    audiences: Mapping[Audience, AudienceSize]
    selection: Selection
    stamp: Stamp
    sha256: str
    text_sha256: str


def survey_jobs(
    path: Path, *, fences: Mapping[str, Sequence[str]], when_read: Callable[[int], None] | None = None
) -> JobsSurvey:
    """Read, count and check the jobs of a file; raises InputError where it cannot be read.

    ``fences`` names the configured apps, each with its ``only_to``. ``when_read`` is told how many jobs have been read
    so far, now and then.
    """
    stamp = file_stamp(path)
    judge = _Judge(fences)
    selection = Selection()
    faults: list[Fault] = []
    row = -1
    digest = Digest()
    for row, (line, job) in enumerate(read_jobs(path, digest=digest)):
        try:
            judge.admit(job)
        except InvalidJobError as error:
            selection.invalid.add(row)
            if len(faults) < FAULTS_KEPT:
                faults.append(Fault(line, error.field, error.problem))
        if when_read is not None and row % 1000 == 0:
            when_read(row + 1)
    return JobsSurvey(
        rows=row + 1,
        to_send=row + 1 - len(selection.invalid),
        invalid=len(selection.invalid),
        faults=tuple(faults),
        warnings=(BILLING_WARNING,) if judge.touches_billing else (),
        audiences=judge.audiences,
        selection=selection,
        stamp=stamp,
        sha256=digest.hex,
        text_sha256=digest.text.hex,
    )


def read_jobs(
    path: Path, *, first_row: int = 0, digest: Digest | None = None, stamp: Stamp | None = None
) -> Iterator[tuple[int, Job | InvalidJobError]]:
    """Give each job of a file, or what is wrong with it, with its line; raises InputError. Empty lines are no jobs.

    Those before ``first_row`` are only counted. With ``stamp``, the file must be as it was then all the while.
    """
    number = row = 0
    for _, block in read_blocks(path, digest=digest, stamp=stamp):
        for line in block.splitlines():
            number += 1
            if not line.strip():
                continue
            row += 1
            if row <= first_row:
                continue
            try:
                yield number, read_job(line)
            except InvalidJobError as error:
                yield number, error


def app_named(name: str | None, apps: Collection[str]) -> str:
    """Which of the configured apps is meant, None being the only one there is. Raises InvalidJobError."""
    if name is None:
        if len(apps) == 1:
            return next(iter(apps))
        raise InvalidJobError("app", f"is missing; the settings have {', '.join(apps)}")
    if name not in apps:
        raise InvalidJobError("app", f"{name!r} is not configured; {mend(name, apps, what='the settings have')}")
    return name


class _Judge:
    """Decides whether a job can be sent with these settings, and adds up whom the jobs go to."""

    def __init__(self, fences: Mapping[str, Sequence[str]]) -> None:
        self.audiences: dict[Audience, AudienceSize] = {}
        self.touches_billing = False
        self._fences = fences
        self._checks: dict[tuple[str, str], IdCheck] = {}

    def admit(self, job: Job | InvalidJobError) -> None:
        """Take a job into account; raises InvalidJobError where it cannot be sent."""
        if isinstance(job, InvalidJobError):
            raise job
        app = app_named(job.app, self._fences)
        target, field = (job.to, "to") if isinstance(job, CreateNotification) else (job.user, "user")
        if target.is_listed:
            faults = self._check(app, target.name).faults(target.ids)
            if faults:
                raise InvalidJobError(f"{field}.{target.name}", next(iter(faults.values())))
        elif self._fences[app]:
            raise InvalidJobError(
                f"{field}.{target.kind}", f"reach whom they like, and app {app!r} has only_to; name the recipients"
            )
        self._count(app, job)

    def _check(self, app: str, target: str) -> IdCheck:
        check = self._checks.get((app, target))
        if check is None:
            check = self._checks[app, target] = IdCheck(target, only_to=self._fences[app])
        return check

    def _count(self, app: str, job: Job) -> None:
        if isinstance(job, CreateNotification):
            channel = job.channel or IMPLIED_CHANNEL.get(job.to.kind, "")
            audience = Audience(app, "create_notification", channel)
            size = self.audiences.setdefault(audience, AudienceSize())
            listed = len(job.to.ids) if job.to.is_listed else job.expected_recipients
            size.recipients += listed or 0
            size.uncounted += listed is None
        else:
            size = self.audiences.setdefault(Audience(app, "update_user", ""), AudienceSize())
            self.touches_billing |= (
                "last_active" in job.properties or "session_count" in job.deltas or "session_time" in job.deltas
            )
        size.jobs += 1
