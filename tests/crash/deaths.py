"""How processes die here: at the named points, at random instants, and by a kill when the server has heard them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random
from typing import TypeAlias

from msgspec import Struct

from tests.crash.counts import kills_of
from tests.crash.processes import Order, Victim
from tests.crash.sabotage import Point
from tests.crash.scene import Scene


class Strike(Struct, frozen=True):
    """Killed from outside, when the server has so many more requests; the last is lost, or takes effect unheard."""

    after: int
    is_lost: bool = False


Death: TypeAlias = Point | Strike

_ENGINE = "sendengine.engine"
_JOURNAL = "sendengine.journal"

# Each with how many calls may go by before it.
_ANYWHERE = (
    (Point(f"{_ENGINE}.lane:Lane.launch", "after"), 20),  # the permit is there, and nothing written
    (Point(f"{_ENGINE}.worker:endings.answered", "before"), 15),  # between reply and settlement
    (Point(f"{_ENGINE}.worker:endings.answered", "after"), 15),  # settled, but not on disk
    (Point(f"{_ENGINE}.custody:Custody.keep", "after"), 15),  # sealed
    (Point(f"{_JOURNAL}.database:Database.write", "before"), 12),  # a group is not there
    (Point(f"{_JOURNAL}.database:Database.write", "during", delay_s=0.0002), 12),  # … or torn
    (Point(f"{_JOURNAL}.database:Database.write", "during", delay_s=0.001), 12),
    (Point(f"{_JOURNAL}.database:Database.write", "after"), 12),  # … or is there, and nobody knows
    (Point(f"{_JOURNAL}.database:Database.checkpoint", "before"), 2),
    (Point(f"{_JOURNAL}.database:Database.checkpoint", "during", delay_s=0.0001), 2),
    (Point(f"{_JOURNAL}.database:Database.checkpoint", "after"), 2),
    (Point(f"{_ENGINE}.lane:Lane.launch", "during", delay_s=0.01), 20),  # any instant
    (Point(f"{_ENGINE}.lane:Lane.launch", "during", delay_s=0.03), 20),
)
_OF_JOBS = (
    (Point(f"{_JOURNAL}.outbox:Outbox.accept", "after"), 25),  # taken, and not on disk
    (Point(f"{_JOURNAL}.outbox:Outbox.seal", "after"), 10),
    (Point(f"{_JOURNAL}.outbox:Outbox.settle", "before"), 10),
)
_OF_PROGRAMS = (
    *_OF_JOBS,
    (Point("tests.crash.embedded:Notebook.promise", "after"), 25),  # accepted, and its caller knows
    (Point("tests.crash.embedded:Notebook.job_settled", "after"), 15),
    (Point(f"{_JOURNAL}.outbox:Outbox.recover", "after"), 1),  # a process that dies at its start
)
_OF_CAMPAIGNS = (
    (Point(f"{_JOURNAL}.campaign_ledger:CampaignLedger.settle", "before"), 10),
    (Point(f"{_JOURNAL}.campaign_ledger:CampaignLedger.seal", "after"), 5),
)
POINTS = {
    "program": (*_ANYWHERE, *_OF_PROGRAMS),
    "workers": (*_ANYWHERE, *_OF_PROGRAMS),
    "jobs": (*_ANYWHERE, *_OF_JOBS),
    "campaign": (*_ANYWHERE, *_OF_CAMPAIGNS),
    "changes": _ANYWHERE,
}


def deaths(kind: str, chance: Random) -> Iterator[Death]:
    """Draw deaths for ever: every named point comes once before any comes again, with strikes in between."""
    while True:
        points = list(POINTS[kind])
        chance.shuffle(points)
        for number, (point, most) in enumerate(points):
            yield point._replace(nth=chance.randint(1, most), delay_s=point.delay_s * chance.uniform(0, 2))
            if number % 4 == 3:
                yield Strike(chance.randint(1, 15), is_lost=chance.random() < 0.5)


def deaths_of(kind: str, batch: int, *, lives: int) -> Sequence[Sequence[Death]]:
    """Return the deaths of one batch, for inputs of which each is killed ``lives`` times, or less often."""
    count = kills_of(kind).of_a_batch
    drawn = list(islice(deaths(kind, Random(1)), batch * count, (batch + 1) * count))
    parts = [drawn[start : start + lives] for start in range(0, count, lives)]
    return [sorted(part, key=_is_late) for part in parts]


def _is_late(death: Death) -> bool:
    """Whether it may come at any time; what an input's jobs are taken in by happens in the first of its lives."""
    return isinstance(death, Strike) or not death.target.endswith("Outbox.accept")


async def live_until(death: Death | None, scene: Scene, order: Order) -> int:
    """Run a process until it dies of this, or comes to its end; returns its exit code."""
    points = (death,) if isinstance(death, Point) else ()
    async with Victim(order._replace(points=points)) as victim:
        if isinstance(death, Strike):
            scene.strike(victim, after=death.after, is_lost=death.is_lost)
        code = await victim.end()
        scene.relent(victim)
    scene.kills += code == -9
    return code
