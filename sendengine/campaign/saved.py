"""An input as a run's manifest has it: what is left of a run is made from it, whatever the settings have become.

Units: seconds since the epoch.
"""

from msgspec.structs import replace

from sendengine.campaign.begun import campaign_identity, jobs_identity
from sendengine.campaign.jobsfile import JobsSurvey
from sendengine.campaign.manifest import Manifest, check_unchanged, input_file, load_selection
from sendengine.campaign.plan import Plan
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.work import CampaignInput, LoadedInput, Work, campaign_work, jobs_work
from sendengine.engine.past import KEY_AGE_S
from sendengine.errors import InputError
from sendengine.settings import Settings


def manifest_of(loaded: LoadedInput, work: Work, settings: Settings, *, edition: int) -> Manifest:
    """Describe what a run is going to send; it has no name yet, and has not begun."""
    is_campaign = isinstance(loaded, CampaignInput)
    path = loaded.campaign.recipients.file if isinstance(loaded, CampaignInput) else loaded.path
    apps = {audience.app for audience in loaded.audiences}
    return Manifest(
        run="",
        name=loaded.name,
        kind="campaign" if is_campaign else "jobs",
        begun_at_s=0.0,
        app_ids={app: settings.apps[app].app_id for app in sorted(apps)},
        input=input_file(path, stamp=loaded.survey.stamp, sha256=loaded.survey.sha256),
        rows=work.rows,
        total=work.total,
        edition=edition,
        plan=None if work.plan is None else _absolute(work.plan),
        marks=loaded.survey.marks if isinstance(loaded, CampaignInput) else (),
    )


def identity_of(manifest: Manifest, loaded: LoadedInput) -> str:
    """Return what identifies what a run sends, so that it is not begun twice; of jobs their text, zipped or not."""
    if manifest.plan is not None:
        return campaign_identity(app_id=manifest.plan.app_id, name=manifest.name, edition=manifest.edition)
    survey = loaded.survey
    digest = survey.text_sha256 if isinstance(survey, JobsSurvey) else survey.sha256
    return jobs_identity(app_ids=manifest.app_ids.values(), digest=digest, edition=manifest.edition)


def saved_work(run_dir: RunDir, manifest: Manifest) -> Work:
    """Return what a run sends; raises InputError where its input has changed, and StorageError."""
    path = run_dir.path / manifest.input.path
    stamp = check_unchanged(manifest.input, path)
    selection = load_selection(run_dir, manifest)
    if manifest.plan is not None:
        return campaign_work(
            manifest.plan, selection, rows=manifest.rows, total=manifest.total, stamp=stamp, marks=manifest.marks
        )
    return jobs_work(
        path,
        selection,
        name=manifest.name,
        rows=manifest.rows,
        total=manifest.total,
        stamp=stamp,
    )


def settings_for(manifest: Manifest, settings: Settings) -> Settings:
    """Return the settings with what decides the requests as it was; raises InputError where an app is another one."""
    for name, app_id in manifest.app_ids.items():
        now = settings.apps.get(name)
        if now is None or now.app_id != app_id.lower():
            what = "is not configured any more" if now is None else f"has app_id {now.app_id} now"
            raise InputError(f"app {name!r} {what}; the run was begun with {app_id}: put it back into the settings")
    if manifest.plan is None:
        return settings
    batching = replace(
        settings.batching,
        max_recipients_per_request=manifest.plan.max_recipients,
        max_request_bytes=manifest.plan.max_bytes,
    )
    return replace(settings, batching=batching)


def check_age(manifest: Manifest, *, now_s: float, duplicates_are_accepted: bool) -> None:
    """Raise InputError where OneSignal may have forgotten the keys of what was sent."""
    is_older = manifest.keys_since_s is not None  # a retry takes over requests of the run that it repeats
    age_s = now_s - manifest.oldest_key_s
    if age_s > KEY_AGE_S and not duplicates_are_accepted:
        what = "repeats requests that were begun" if is_older else "began"
        raise InputError(
            f"run {manifest.run} {what} {age_s / 86_400:.0f} days ago, and OneSignal forgets idempotency keys after "
            "30: whoever was reached by a request whose reply was lost could be reached twice; "
            "--accept-duplicates goes on all the same"
        )


def _absolute(plan: Plan) -> Plan:
    """Name the files in such a way that another working directory makes no difference."""
    campaign = plan.campaign
    recipients = replace(campaign.recipients, file=campaign.recipients.file.absolute())
    exclude = campaign.exclude and replace(campaign.exclude, file=campaign.exclude.file.absolute())
    return replace(plan, campaign=replace(campaign, recipients=recipients, exclude=exclude))
