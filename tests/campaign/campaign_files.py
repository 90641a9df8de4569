"""Campaigns and their files for tests."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sendengine.campaign.definition import Campaign, ExcludeFile, RecipientsFile
from sendengine.campaign.packs import Pack, make_packs
from sendengine.campaign.plan import Plan, make_plan
from sendengine.campaign.survey import Survey, survey_campaign
from sendengine.core.jobs import CreateNotification, UpdateUser

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HELLO: Mapping[str, Any] = {"contents": {"en": "Hello"}}


def csv_file(folder: Path, *lines: str, name: str = "recipients.csv") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def campaign_of(
    file: Path,
    *,
    column: str = "external_id",
    target: str = "external_id",
    exclude: Path | None = None,
    **options: Any,
) -> Campaign:
    """A campaign that pushes a greeting, unless the options say something else."""
    usual: dict[str, Any] = {"channel": "push", "message": HELLO} if options.get("kind") != "update_user" else {}
    return Campaign(
        name=options.pop("name", "greeting"),
        recipients=RecipientsFile(file, column, target, create_subscriptions=True),
        exclude=None if exclude is None else ExcludeFile(exclude, column),
        **{**usual, **options},
    )


def people(folder: Path, ids: Iterable[str], **options: Any) -> Campaign:
    """A campaign to these external ids."""
    return campaign_of(csv_file(folder, "external_id", *ids), **options)


def plan_of(campaign: Campaign, *, cap: int = 2000, max_bytes: int = 1_000_000, **options: Any) -> Plan:
    return make_plan(
        campaign,
        app="shop",
        app_id=options.pop("app_id", APP_ID),
        max_recipients=cap,
        max_bytes=max_bytes,
        started_at=options.pop("started_at", NOON),
        **options,
    )


def packs_of_campaign(campaign: Campaign, **options: Any) -> tuple[Survey, list[Pack]]:
    survey = survey_campaign(campaign)
    return survey, list(make_packs(plan_of(campaign, **options), survey.selection))


def notifications(packs: Sequence[Pack]) -> list[CreateNotification]:
    return [pack.job for pack in packs if isinstance(pack.job, CreateNotification)]


def changes(packs: Sequence[Pack]) -> list[UpdateUser]:
    return [pack.job for pack in packs if isinstance(pack.job, UpdateUser)]
