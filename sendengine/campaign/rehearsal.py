"""A campaign sent to a few named recipients alone, before it is sent to all: under keys that the campaign never uses.

Units: none.
"""

from collections.abc import Iterator, Mapping, Sequence

from sendengine.campaign.definition import Campaign
from sendengine.campaign.idchecks import IdCheck, same_recipient_key
from sendengine.campaign.packs import Pack, Rows, Writer, kept_rows, packs_of
from sendengine.campaign.plan import Keys, Plan
from sendengine.campaign.recipients import read_recipients
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.tables import Reading
from sendengine.core.jobs import Json
from sendengine.errors import InputError


def make_test_packs(
    plan: Plan, selection: Selection, ids: Sequence[str], *, run: str, only_to: Sequence[str] = ()
) -> Iterator[Pack]:
    """Make the jobs of a test; raises InputError where an id is malformed, excluded, or has no row that it needs.

    Data of the file comes from the row of each id; for a notification to somebody who is not in the file, from the
    first row that would be sent. The rows of the packs count the ids of the test.
    """
    wanted = list(dict.fromkeys(ids))
    _check(plan.campaign, wanted, only_to)
    cells = _cells_of(plan, selection, wanted) if plan.campaign.columns else {}
    rows = Rows(range(len(wanted)), wanted, cells)
    return packs_of([rows], Writer(plan, Selection(), Keys(plan, test_run=run)))


def _check(campaign: Campaign, ids: Sequence[str], only_to: Sequence[str]) -> None:
    target = campaign.recipients.target
    if faults := IdCheck(target, only_to=only_to).faults(ids):
        raise InputError(f"--test: {next(iter(faults.values()))}", faults=list(faults.values()))
    if campaign.exclude is None:
        return
    key_of = same_recipient_key(target)
    keys = dict(zip(key_of(ids), ids, strict=True))
    for chunk in read_recipients(Reading(campaign.exclude.file, campaign.exclude.column)):
        for key in keys.keys() & set(key_of(chunk.ids)):
            raise InputError(f"--test: {keys[key]!r} stands in {campaign.exclude.file}, which is never sent to")


def _cells_of(plan: Plan, selection: Selection, ids: Sequence[str]) -> Mapping[str, Sequence[Json]]:
    """Find the cells of each id, in the order of the ids."""
    columns = plan.campaign.columns
    missing = set(ids)
    found: dict[str, tuple[Json, ...]] = {}
    first: tuple[Json, ...] | None = None
    for rows in kept_rows(plan, selection):
        if first is None:
            first = tuple(rows.cells[column][0] for column in columns)
        for item in missing.intersection(rows.ids):
            index = rows.ids.index(item)
            found[item] = tuple(rows.cells[column][index] for column in columns)
        missing.difference_update(found)
        if not missing:
            break
    if missing and (first is None or not plan.campaign.is_notification):
        raise InputError(f"--test: {min(missing)!r} has no row in {plan.campaign.recipients.file} to take values from")
    rows_by_id = [found.get(item, first) or () for item in ids]
    return dict(zip(columns, zip(*rows_by_id, strict=True), strict=True))
