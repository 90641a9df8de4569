"""What ``report.json`` says about a run: how many jobs, or recipients of a campaign, came to what.

Units: ``_at`` are times as ISO 8601 has them, in UTC; rates are requests a second.
"""

from typing import Final

import msgspec
import orjson
from msgspec import Struct, field
from msgspec.structs import asdict

from sendengine.core.outcomes import OUTCOME_NAMES, Outcome
from sendengine.errors import StorageError
from sendengine.telemetry.counters import LaneEntry

SCHEMA: Final = 1


class JobCounts(Struct):
    """What came of the rows that were read: jobs, or a campaign's recipients. Each row is in one of the counts."""

    accepted: int = 0
    unreachable: int = 0
    rejected: int = 0
    gave_up: int = 0
    ambiguous: int = 0
    expired: int = 0
    abandoned: int = 0
    invalid: int = 0
    duplicates: int = 0
    excluded: int = 0

    @property
    def read(self) -> int:
        """How many rows were read."""
        return sum(asdict(self).values())

    @property
    def left_out(self) -> int:
        """How many rows were not to be sent."""
        return self.invalid + self.duplicates + self.excluded

    @property
    def settled(self) -> int:
        """How many rows were handed to the engine and have come to an outcome."""
        return self.read - self.left_out

    @property
    def not_accepted(self) -> int:
        """How many rows were to be sent, and were neither accepted nor unreachable."""
        return self.settled - self.accepted - self.unreachable

    def __add__(self, other: "JobCounts") -> "JobCounts":
        mine, others = asdict(self), asdict(other)
        return JobCounts(**{name: count + others[name] for name, count in mine.items()})

    def add(self, outcome: Outcome, count: int) -> None:
        """Count rows that came to an outcome."""
        name = OUTCOME_NAMES[type(outcome)]
        setattr(self, name, getattr(self, name) + count)


class RecipientCounts(Struct):
    """Recipients of notifications that were handed to the engine, and those that a reply named as unsubscribed."""

    targeted: int = 0
    unsubscribed: int = 0


class Report(Struct, kw_only=True):
    """A run's report."""

    schema: int = SCHEMA
    run: str
    name: str
    started_at: str
    finished_at: str
    durability: str
    exit_code: int
    jobs: JobCounts = field(default_factory=JobCounts)
    recipients: RecipientCounts = field(default_factory=RecipientCounts)
    lanes: dict[str, LaneEntry] = field(default_factory=dict)


class DamagedReportError(StorageError):
    """A report that cannot be read."""


def render(report: Report) -> bytes:
    """Write a report as ``report.json`` has it."""
    shown = msgspec.to_builtins(report)
    shown["jobs"] = {"read": report.jobs.read, **shown["jobs"]}
    return orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def parse(content: bytes) -> Report:
    """Read a report back; raises DamagedReportError, and StorageError where it is of a later version."""
    try:
        report = msgspec.json.decode(content, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedReportError(f"report.json is damaged: {error}") from None
    if report.schema != SCHEMA:
        raise StorageError(f"report.json has schema {report.schema}; this version of sendengine reads {SCHEMA}")
    return report
