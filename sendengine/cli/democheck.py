"""Compares the demo's reports with the mock server's ledger, which shares no arithmetic with them."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from sendengine.campaign.report import Report
from sendengine.core.onesignal import EndpointGroup
from sendengine.mockserver import Summary


class Row(Struct, frozen=True):
    """One total, counted by both."""

    what: str
    reports: int
    ledger: int

    @property
    def is_equal(self) -> bool:
        """Whether both counted the same."""
        return self.reports == self.ledger


def compared(reports: Sequence[Report], ledger: Summary) -> Sequence[Row]:
    """Set the totals beside each other: by lane, and in all what was accepted beside what took effect once."""
    rows: list[Row] = []
    for group in EndpointGroup:
        told = [lane for report in reports for name, lane in report.lanes.items() if name.endswith(f"/{group.value}")]
        seen = [lane for lane in ledger.lanes if lane.lane == group.value]
        requests = sum(lane["requests"] for lane in told), sum(lane.requests for lane in seen)
        rows.append(Row(f"{group.value}: requests", *requests))
        reported, counted = Counter[str](), Counter[str]()
        for entry in told:
            reported.update(entry["replies"])
        for lane in seen:
            counted.update(lane.replies)
        rows += [
            Row(f"{group.value}: replies {status}", reported[status], counted[status])
            for status in sorted({*reported, *counted, "429"})
        ]
    accepted = sum(report.jobs.accepted for report in reports)
    doubled = ledger.doubled.effects if ledger.doubled else 0
    rows.append(Row("recipients reached, and users updated", accepted, ledger.recipients + ledger.updates - doubled))
    return rows
