"""Killed at any instant: what was accepted is sent, once, and users end as applying their updates in turn gives."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from random import seed as seed_the_engine
from typing import Any

import pytest

from sendengine import (
    Accepted,
    EngineClosedError,
    Expired,
    GaveUp,
    IntakeFullError,
    Job,
    Outcome,
    SendEngine,
    StorageError,
    UpdateUser,
    external_id,
)
from sendengine.settings import BatchingSettings, JournalSettings, RetrySettings, StoppingSettings
from tests.support.engines import note, within
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import Answer, Arrival, FakeTransport
from tests.support.journalled import FakeSlots, assert_nothing_left, durable
from tests.support.model import Model
from tests.support.virtual_loop import run_virtually

JOBS = 64
LIVES = 6


@dataclass
class Killed:
    """A server that no longer hears a process that was killed."""

    model: Model
    is_dead: bool = False

    def __call__(self, arrival: Arrival) -> Answer:
        if self.is_dead:
            return ConnectionError("nobody is there")
        return self.model(arrival)


@dataclass
class World:
    """What outlives every process: the disks, the server, and what callers were told."""

    chance: Random
    monkeypatch: pytest.MonkeyPatch
    disks: list[Disk]
    model: Model = field(default_factory=lambda: Model(Random(0), fault_share=0.0))
    promised: list[Job] = field(default_factory=list)
    refused: list[Job] = field(default_factory=list)
    count: int = 0

    @property
    def accepted(self) -> list[Job]:
        """The jobs that any disk took, in the order in which they were submitted."""
        jobs = [job for disk in self.disks for job in disk.accepted.values()]
        return sorted(jobs, key=number_of)

    @property
    def outcomes(self) -> Mapping[int, Outcome]:
        """What came of the jobs, by their numbers."""
        return {number_of(job): disk.settled[number] for disk in self.disks for number, job in disk.accepted.items()}

    def next_job(self) -> Job:
        self.count += 1
        user = f"user{self.chance.randrange(6)}"
        urgent: dict[str, Any] = {"urgency": self.chance.choice(["high", "normal"])}
        hasty: dict[str, Any] = {"expires_in_s": self.chance.choice([None, None, None, 0.05, 1.2, 6.0])}
        match self.chance.randrange(7):
            case 0:
                deltas = {"session_count": 1}
                return UpdateUser(external_id(user), tags={"level": self.count}, deltas=deltas, **hasty)
            case 1 | 2:
                return UpdateUser(external_id(user), tags={"level": self.count}, **urgent, **hasty)
            case 3:
                tags = {"level": self.count, **{f"tag{number}": number for number in range(9)}}
                return UpdateUser(external_id(user), tags=tags)
            case 4:
                return note(f"u{self.count}", text="one", idempotency_key=f"key-{self.count}")
            case 5:
                names = [f"{self.chance.choices(['u', 'bad'], [12, 1])[0]}{self.count}-{n}" for n in range(11)]
                return note(*names, text="two", **hasty)
            case _:
                return note(f"u{self.count}", text=self.chance.choice(["one", "two"]), **urgent, **hasty)


def number_of(job: Job) -> int:
    """Jobs are numbered as they are made: users by their level, notifications in their recipients' names."""
    if isinstance(job, UpdateUser):
        return int(str(job.tags["level"]))
    return int(job.to.ids[0].lstrip("ubad").partition("-")[0])


@dataclass
class Life:
    """One process: its engine, its journals, and the server as it sees it."""

    engine: SendEngine
    journals: list[FakeJournal]
    server: Killed
    transport: FakeTransport

    @classmethod
    async def begin(cls, folder: Path, world: World, *, stopping: StoppingSettings) -> "Life":
        chance = world.chance
        journals = [FakeJournal(disk, fsync_s=chance.choice([0.001, 0.01, 0.06])) for disk in world.disks]
        own, *others = chance.sample(journals, len(journals))
        server = Killed(world.model)
        transport = FakeTransport(server, latency_s=chance.choice([0.01, 0.2]))
        if others:
            FakeSlots(own, others).become_the_slots(world.monkeypatch)
        engine = durable(
            folder,
            transport,
            None if others else own,
            ages=JournalSettings(),
            batching=BatchingSettings(max_recipients_per_request=8, max_modifications_per_request=6),
            retry=RetrySettings(lost_reply_wait_s=1, missing_retry_after_s=2),
            stopping=stopping,
        )
        await engine.__aenter__()
        return cls(engine, journals, server, transport)

    async def end(self, chance: Random) -> None:
        match chance.randrange(6):
            case 0:
                await self.engine.abort(grace_s=chance.choice([0, 0.1]))
            case 1:
                await self.engine.drain()
            case 2:
                chance.choice(self.journals).fail_with = StorageError("EIO")
                await asyncio.sleep(chance.choice([0, 0.05, 0.3]))
                await self.engine.abort(grace_s=chance.choice([0, 0.1]))
            case _:
                for journal in self.journals:
                    journal.die()
                self.server.is_dead = True
                await self.engine.abort(grace_s=0)


async def live(folder: Path, world: World) -> None:
    """One process: it submits and sends until it is killed, or stopped."""
    life = await Life.begin(folder, world, stopping=StoppingSettings(drain_timeout_s=0.5, grace_s=0.1))
    submitting = asyncio.ensure_future(submit_some(life.engine, world))
    await asyncio.sleep(world.chance.choice([0.004, 0.05, 0.3, 1.5]))
    ending = asyncio.ensure_future(life.end(world.chance))
    await asyncio.sleep(world.chance.choice([0, 0.02]))
    submitting.cancel()
    await within(ending)
    with contextlib.suppress(asyncio.CancelledError, EngineClosedError, StorageError):
        await submitting


async def live_on(folder: Path, world: World) -> None:
    """The last process: it sends what is left."""
    life = await Life.begin(folder, world, stopping=StoppingSettings(drain_timeout_s=3000))
    await within(life.engine.drain())
    for disk in world.disks:
        assert_nothing_left(life.engine, life.transport, disk)


async def submit_some(engine: SendEngine, world: World) -> None:
    while world.count < JOBS and engine.health().is_accepting:
        job = world.next_job()
        match world.chance.randrange(7):
            case 0:
                engine.submit_nowait(job)
            case 1:
                await engine.submit_row(job, row=world.count)
            case 2:
                try:
                    await engine.submit(job, timeout_s=world.chance.choice([0.001, 0.008]))
                    world.promised.append(job)
                except IntakeFullError:
                    world.refused.append(job)
            case 3:
                with contextlib.suppress(TimeoutError):  # cancelled at any of its awaits
                    async with asyncio.timeout(world.chance.choice([0.001, 0.006, 0.008])):
                        await engine.submit(job)
                        world.promised.append(job)
            case _:
                await engine.submit(job)
                world.promised.append(job)
        await asyncio.sleep(world.chance.choice([0, 0.001, 0.03]))


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 60))])
def test_a_process_killed_again_and_again_loses_nothing_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = Random(seed)
    seed_the_engine(seed)
    world = World(chance, monkeypatch, [Disk() for _ in range(chance.choice([1, 1, 2]))])
    world.model = Model(Random(seed), fault_share=chance.choice([0.0, 0.15]))
    for _ in range(LIVES):
        run_virtually(live(tmp_path, world))
    run_virtually(live_on(tmp_path, world))
    taken = {id(job) for job in world.accepted}
    assert all(id(job) in taken for job in world.promised)
    assert not any(id(job) in taken for job in world.refused)
    judge_notifications(world)
    judge_users(world)


def judge_notifications(world: World) -> None:
    """Whoever was to get a message has it, once, unless the job says that it did not go."""
    deliveries = world.model.deliveries
    assert set(deliveries.values()) <= {1}
    expected: set[tuple[str, str]] = set()
    for job in world.accepted:
        if isinstance(job, UpdateUser):
            continue
        outcome = world.outcomes[number_of(job)]
        text = str(job.message["contents"]["en"])  # type: ignore[index,call-overload]
        missed = set() if isinstance(outcome, Accepted) else set(outcome.not_sent)
        for name in job.to.ids:
            expected.add((text, name))
            if name not in missed:
                assert deliveries[text, name] == 1, (name, outcome)
            elif isinstance(outcome, GaveUp):
                continue
            else:
                assert not deliveries[text, name], (name, outcome)
                assert name.startswith("bad") or job.expires_in_s is not None, (name, outcome)
    assert set(+deliveries) <= expected


def judge_users(world: World) -> None:
    """The last update that took effect is the last one, and no delta was counted twice."""
    last: dict[str, int] = {}
    perhaps: dict[str, set[int]] = defaultdict(set)
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for job in world.accepted:
        if not isinstance(job, UpdateUser):
            continue
        user, level, outcome = job.user.ids[0], number_of(job), world.outcomes[number_of(job)]
        if isinstance(outcome, Accepted):
            last[user] = level
            perhaps[user].clear()
        elif not isinstance(outcome, Expired):
            perhaps[user].add(level)
        if job.deltas and not isinstance(outcome, Expired):
            least[user] += isinstance(outcome, Accepted)
            most[user] += 1
    for user, level in last.items():
        assert int(world.model.users[user].tags["level"]) in {level, *perhaps[user]}, user
    for user, profile in world.model.users.items():
        assert least[user] <= profile.sessions <= most[user], user
