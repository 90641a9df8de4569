"""What there is to send: a campaign or a jobs file, loaded and checked, and the items that it gives to a run.

Units: rows are counted from 0.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from sendengine.campaign.blocks import Stamp
from sendengine.campaign.definition import Campaign, load_campaign
from sendengine.campaign.jobsfile import Audience, AudienceSize, JobsSurvey, app_named, read_jobs, survey_jobs
from sendengine.campaign.packs import Pack, can_begin_anew, make_packs
from sendengine.campaign.plan import Plan, make_plan
from sendengine.campaign.rehearsal import make_test_packs
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.survey import Survey, survey_campaign
from sendengine.campaign.tables import START, Mark
from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.targets import IMPLIED_CHANNEL
from sendengine.errors import InputError, InvalidJobError
from sendengine.settings import Settings

STANDARD_INPUT: Final = "-"
_JOB_BYTES: Final = 500  # of a job in a jobs file, roughly, and of each recipient that it names
_ID_BYTES: Final = 30
_NEARLY: Final = timedelta(seconds=1)


class Item(Struct, frozen=True):
    """A job, how many it counts, and the stretch of the file that it stands for: ``first_row`` up to ``end``.

    ``size_bytes`` is about the size of its request's body. A later run can begin at ``end`` where it ``is_boundary``.
    """

    job: Job
    count: int
    first_row: int
    end: int
    size_bytes: int = 0
    is_boundary: bool = True


class Items(Protocol):
    """Reads an input again, and gives its items."""

    def __call__(self, first_row: int = 0) -> Iterator[Item]:
        """Give the items from a row on; raises InputError."""
        ...


class Work(Struct, frozen=True):
    """What a run sends. ``total`` is how many recipients (jobs, of a jobs file) are sent, of ``rows`` in the file.

    ``plan`` is that of a campaign. ``items`` gives all of it, or, with the end of an item that is a boundary, what is
    behind that.
    """

    name: str
    is_campaign: bool
    rows: int
    total: int
    selection: Selection
    items: "Items"
    plan: Plan | None = None

    @property
    def noun(self) -> str:
        """What is counted."""
        return CampaignInput.noun if self.is_campaign else JobsInput.noun

    @property
    def is_overdue(self) -> bool:
        """Whether a campaign's deadline has passed: what ends now says nothing about its message.

        A moment before counts: what the engine ends at the deadline, it ends by a clock of its own.
        """
        return self.plan is not None and self.plan.is_overdue(datetime.now(UTC) + _NEARLY)


class CampaignInput(Struct, frozen=True):
    """A campaign whose files have been read once."""

    path: Path
    campaign: Campaign
    app: str
    survey: Survey

    noun = "recipients"

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.campaign.name

    @property
    def audiences(self) -> Mapping[Audience, AudienceSize]:
        """Whom it goes to."""
        campaign, count = self.campaign, self.survey.to_send
        channel = campaign.channel or IMPLIED_CHANNEL.get(campaign.recipients.target, "")
        size = AudienceSize(jobs=count, recipients=count if campaign.is_notification else 0)
        return {Audience(self.app, campaign.kind, channel): size}

    def plan(self, settings: Settings, *, now: datetime, edition: int = 1) -> Plan:
        """Fix what decides the packs; raises InputError where the campaign has expired."""
        return make_plan(
            self.campaign,
            app=self.app,
            app_id=settings.apps[self.app].app_id,
            max_recipients=settings.batching.max_recipients_per_request,
            max_bytes=settings.batching.max_request_bytes,
            edition=edition,
            started_at=now,
        )

    def work(self, plan: Plan) -> Work:
        """Return what a run of this plan sends."""
        survey = self.survey
        return campaign_work(
            plan, survey.selection, rows=survey.rows, total=survey.to_send, stamp=survey.stamp, marks=survey.marks
        )

    def test_work(self, plan: Plan, ids: Sequence[str], *, run: str, only_to: Sequence[str] = ()) -> Work:
        """Return what a test sends: the campaign to ``ids`` alone, under keys of the run; raises InputError."""
        packs = list(make_test_packs(plan, self.survey.selection, ids, run=run, only_to=only_to))
        count = sum(pack.recipients for pack in packs)

        def items(first_row: int = 0) -> Iterator[Item]:
            for pack in packs:
                if pack.first_row >= first_row:
                    yield _item(pack)

        return Work(self.name, True, count, count, Selection(), items)  # noqa: FBT003 - a record


class JobsInput(Struct, frozen=True):
    """A jobs file that has been read once."""

    path: Path
    name: str
    survey: JobsSurvey

    noun = "jobs"

    @property
    def audiences(self) -> Mapping[Audience, AudienceSize]:
        """Whom the jobs go to."""
        return self.survey.audiences

    def work(self) -> Work:
        """Return what a run of this file sends."""
        survey = self.survey
        return jobs_work(
            self.path,
            survey.selection,
            name=self.name,
            rows=survey.rows,
            total=survey.to_send,
            stamp=survey.stamp,
        )


LoadedInput = CampaignInput | JobsInput


def campaign_work(
    plan: Plan, selection: Selection, *, rows: int, total: int, stamp: Stamp, marks: Sequence[Mark]
) -> Work:
    """Return what a run of a plan sends; its file must be as it was when ``stamp`` was taken."""

    def items(first_row: int = 0) -> Iterator[Item]:
        if not can_begin_anew(selection):
            packs = make_packs(plan, selection, stamp=stamp)
            yield from (_item(pack) for pack in packs if pack.first_row >= first_row)
            return
        mark = max((mark for mark in marks if mark.row <= first_row), key=attrgetter("row"), default=START)
        for pack in make_packs(plan, selection, mark=mark, first_row=first_row, stamp=stamp):
            yield _item(pack)

    return Work(plan.campaign.name, True, rows, total, selection, items, plan)  # noqa: FBT003 - a record


def jobs_work(path: Path, selection: Selection, *, name: str, rows: int, total: int, stamp: Stamp) -> Work:
    """Return what a run of a jobs file sends; the file must be as it was when ``stamp`` was taken."""

    def items(first_row: int = 0) -> Iterator[Item]:
        for row, (line, job) in enumerate(read_jobs(path, first_row=first_row, stamp=stamp), first_row):
            if row in selection.invalid:
                continue
            if isinstance(job, InvalidJobError):
                raise InputError(f"{path}: line {line}: {job}; the file has changed while it was sent")
            yield Item(job, 1, row, row + 1, _JOB_BYTES + _ID_BYTES * _named(job))

    return Work(name, False, rows, total, selection, items)  # noqa: FBT003 - a record


def load_input(
    path: Path, settings: Settings, *, name: str | None = None, when_read: Callable[[int], None] | None = None
) -> LoadedInput:
    """Read and check a campaign file (``.toml``) or a jobs file; raises InputError.

    ``name`` is what a jobs file is called in reports, its own name by default. Standard input is spooled to a file
    first (`sendengine.campaign.rundir.RunDir.spool`). ``when_read`` is told now and then how many rows were read.
    """
    suffixes = "".join(path.suffixes[-2:]).lower()
    if suffixes.endswith(".toml"):
        campaign = load_campaign(path)
        app = _app_of(path, campaign, settings)
        survey = survey_campaign(campaign, only_to=settings.apps[app].only_to, when_read=when_read)
        return CampaignInput(path, campaign, app, survey)
    if not suffixes.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{path}: an input is a campaign (.toml) or a file of jobs (.jsonl, .jsonl.gz, or - )")
    fences = {app: settings.apps[app].only_to for app in settings.apps}
    own_name = path.name.lower().removesuffix(".gz").removesuffix(".jsonl")
    return JobsInput(path, name or own_name, survey_jobs(path, fences=fences, when_read=when_read))


def refuse_faults(loaded: LoadedInput, *, skip_invalid: bool) -> None:
    """Raise InputError with the faults of an input, unless its invalid rows are to be left out."""
    survey = loaded.survey
    if not survey.invalid or skip_invalid:
        return
    file = loaded.campaign.recipients.file if isinstance(loaded, CampaignInput) else loaded.path
    raise InputError(
        f"{file}: {survey.invalid:,} of {survey.rows:,} rows cannot be sent, and nothing was sent; "
        "mend them, or leave them out with --skip-invalid",
        faults=[str(fault) for fault in survey.faults],
    )


def _item(pack: Pack) -> Item:
    end = pack.first_row + pack.size
    return Item(pack.job, pack.recipients, pack.first_row, end, pack.size_bytes, pack.is_boundary)


def _named(job: Job) -> int:
    return len(job.to.ids) if isinstance(job, CreateNotification) else 1


def _app_of(path: Path, campaign: Campaign, settings: Settings) -> str:
    try:
        return app_named(campaign.app, settings.apps)
    except InvalidJobError as error:
        raise InputError(f"{path}: campaign.app: {error.problem}") from None
