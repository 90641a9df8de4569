"""The mock server in a process of its own, and what it cost.

Units: instants are seconds since the server started or was reset.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.machine import cpu_s_of, open_descriptors
from sendengine.mockserver import AppConfig, LaneLimit, MockConfig, MockProcess
from sendengine.mockserver.config import Lane

UNLIMITED: Final = MockConfig(
    default=AppConfig(create_notification=LaneLimit(counter="off"), update_user=LaneLimit(counter="off")),
    user_interval_s=0,
    application_limit="off",
    keep_updates=False,
)
"""Nothing is limited."""

ACCEPTED: Final = (200, 202)
THROTTLED: Final = 429


class Requests(Struct, frozen=True):
    """Every request of one lane, and every hold: when its 429 was written, and until when it asked to wait."""

    arrivals_s: list[float]
    statuses: list[int]
    holds: list[tuple[float, float]]

    @property
    def accepted_s(self) -> list[float]:
        """When those arrived that were accepted."""
        pairs = zip(self.arrivals_s, self.statuses, strict=True)
        return [at_s for at_s, status in pairs if status in ACCEPTED]

    def count(self, statuses: Sequence[int], *, from_s: float, until_s: float) -> int:
        """Count the requests of a stretch that were answered so."""
        wanted = frozenset(statuses)
        pairs = zip(self.arrivals_s, self.statuses, strict=True)
        return sum(1 for at_s, status in pairs if from_s <= at_s < until_s and status in wanted)

    def held_s(self, *, from_s: float, until_s: float) -> float:
        """Return how much of a stretch lay inside of holds; overlapping ones count once."""
        total_s, reached_s = 0.0, from_s
        for written_s, over_s in sorted(self.holds):
            start_s, end_s = max(written_s, reached_s), min(over_s, until_s)
            if end_s > start_s:
                total_s += end_s - start_s
                reached_s = end_s
        return total_s


class MeasuredMock(MockProcess):
    """A mock server whose CPU is counted."""

    @property
    def cpu_s(self) -> float:
        """The CPU that the server has used so far."""
        return cpu_s_of(self._child.pid)

    @property
    def open_descriptors(self) -> int:
        """How many files and sockets the server has open."""
        return open_descriptors(self._child.pid)

    async def requests(self, lane: Lane) -> Requests:
        """Return every request of a lane; nothing where none came."""
        found = msgspec.json.decode(await self.ask("GET", f"requests?lane={lane}"), type=list[Requests])
        return found[0] if found else Requests([], [], [])

    async def accepted(self, lane: Lane) -> int:
        """Return how many requests of a lane were answered with success."""
        summary = await self.summary(doubled=False)
        return sum(found.accepted for found in summary.lanes if found.lane == lane)
