"""Users under faults and deaths of the process: each tag, property and purchase ends as its updates in turn give.

Every value tells the job that it came from, so that the end state is judged by the jobs' outcomes alone.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from random import seed as seed_the_engine
from typing import Any

import pytest

from sendengine import (
    Accepted,
    EngineClosedError,
    Expired,
    NotSentError,
    Outcome,
    Rejected,
    ReplyLostError,
    UpdateUser,
    external_id,
)
from sendengine.settings import BatchingSettings, JournalSettings, RetrySettings, StoppingSettings
from tests.support.engines import within
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import Answer, Arrival, FakeTransport, json_reply, throttle
from tests.support.journalled import assert_nothing_left, durable
from tests.support.model import PER_USER
from tests.support.virtual_loop import run_virtually

JOBS = 60
Key = tuple[str, str]


@dataclass
class Server:
    """Applies what it gets when it comes; what it says of it, and whether it says anything, is chance."""

    chance: Random
    most: int  # modifications of a request
    fault_share: float
    values: dict[Key, str] = field(default_factory=dict)
    bought: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    is_deaf: bool = False  # to a process that was killed

    def __call__(self, arrival: Arrival) -> Answer:  # noqa: PLR0911 - an answer a return
        if self.is_deaf:
            return ConnectionError("nobody is there")
        assert 0 < size_of(arrival.body) <= self.most
        self.times[arrival.user].append(arrival.at_s)
        if self.chance.random() > self.fault_share:
            return self._apply(arrival)
        match self.chance.randrange(8):
            case 0:
                return throttle(self.chance.choice(["0", "1", "3"]))
            case 1:
                return throttle(self.chance.choice(["0", "2", "5"]), limit=PER_USER)
            case 2:
                self.times[arrival.user].pop()
                return NotSentError("refused")
            case 3:
                return ReplyLostError("before it was applied")
            case 4 | 5:
                self._apply(arrival)
                return ReplyLostError("after it was applied")
            case 6:
                self._apply(arrival)
                return json_reply(502, {})
            case _:
                return json_reply(503, {"errors": ["busy"]}, retry_after=self.chance.choice(["0", "1", "7"]))

    def _apply(self, arrival: Arrival) -> Answer:
        if "bad" in arrival.tags:
            return json_reply(self.chance.choice([400, 409, 422]), {"errors": ["no such tag"]})
        properties = {name: value for name, value in arrival.body.get("properties", {}).items() if name != "tags"}
        for name, value in {**arrival.tags, **properties}.items():
            self.values[arrival.user, name] = value
            self.seen.add(value)
        self.bought.update(one["sku"] for one in arrival.body.get("deltas", {}).get("purchases", ()))
        return json_reply(202, {"properties": {}})


def size_of(body: Mapping[str, Any]) -> int:
    """How many modifications a request has, counted anew."""
    properties, deltas = body.get("properties", {}), body.get("deltas", {})
    tags = properties.get("tags", {})
    return len(properties) - ("tags" in properties) + len(tags) + len(deltas.get("purchases", ()))


@dataclass
class World:
    """What outlives the processes; jobs are numbered in the order of their making, which is that of submitting."""

    chance: Random
    server: Server
    disk: Disk = field(default_factory=Disk)
    promised: list[UpdateUser] = field(default_factory=list)
    count: int = 0

    def next_job(self) -> UpdateUser:
        chance, number = self.chance, self.count
        self.count += 1
        names = chance.choices("abcdef", k=chance.choice([1, 1, 2, 5]))
        tags = {name: chance.choice([f"{number}", f"{number}", None]) for name in names}
        if chance.random() < 0.06:
            tags["bad"] = "1"
        skus = [f"{number}-{index}" for index in range(chance.choice([0, 0, 0, 0, 1, 4]))]
        options: dict[str, Any] = {
            "properties": {"language": f"{number}"} if chance.random() < 0.3 else {},
            "deltas": {"purchases": [{"sku": sku, "amount": "1", "iso": "EUR"} for sku in skus]} if skus else {},
            "urgency": chance.choice(["normal", "normal", "high"]),
            "expires_in_s": chance.choice([None, None, None, None, 0.05, 1.2, 20]),
            "coalesce": chance.random() > 0.1,
            "idempotency_key": f"job {number}",  # so that the disk's copy is known again
        }
        return UpdateUser(external_id(chance.choice(["u", "v"])), tags, **options)


async def live(folder: Path, world: World, *, is_last: bool) -> None:
    """One process: it submits and sends, until it dies or, the last one, until all is done."""
    chance, server = world.chance, world.server
    journal = FakeJournal(world.disk, fsync_s=chance.choice([0.001, 0.06]))
    transport = FakeTransport(server, latency_s=chance.choice([0.01, 0.2, 1.5]))
    server.times.clear()
    engine = durable(
        folder,
        transport,
        journal,
        ages=JournalSettings(),
        batching=BatchingSettings(max_modifications_per_request=server.most),
        retry=RetrySettings(lost_reply_wait_s=1, missing_retry_after_s=2),
        stopping=StoppingSettings(drain_timeout_s=3000 if is_last else 0.5, grace_s=0.1),
    )
    await engine.__aenter__()

    async def submit_some() -> None:
        while world.count < JOBS and engine.health().is_accepting:
            job = world.next_job()
            await engine.submit(job)
            world.promised.append(job)
            await asyncio.sleep(chance.choice([0, 0.001, 0.03, 0.4]))

    if is_last:
        await submit_some()
        await within(engine.drain())
        assert_nothing_left(engine, transport, world.disk)
    else:
        submitting = asyncio.ensure_future(submit_some())
        await asyncio.sleep(chance.choice([0.05, 0.3, 1.5, 6]))
        if chance.random() < 0.7:
            journal.die()
            server.is_deaf = True
        await engine.abort(grace_s=0)
        submitting.cancel()
        with contextlib.suppress(asyncio.CancelledError, EngineClosedError):
            await submitting
        server.is_deaf = False
    for times in server.times.values():
        assert all(after - before >= 0.999 for before, after in pairwise(times)), "a user's second"


@pytest.mark.parametrize("most", [6, 100])
@pytest.mark.parametrize("fault_share", [0.0, 0.15, 0.4])
@pytest.mark.parametrize("lives", [0, 4])
def test_a_user_ends_as_applying_what_was_accepted_in_turn_gives(
    tmp_path: Path, *, most: int, fault_share: float, lives: int
) -> None:
    for seed in range(3):
        seed_the_engine(seed)
        world = World(Random(seed), Server(Random(seed), most, fault_share))
        for life in range(lives + 1):
            run_virtually(live(tmp_path, world, is_last=life == lives))
        judge(world)


def judge(world: World) -> None:
    """Compare the server's users with what the outcomes say must, may and must not have been applied."""
    server, disk = world.server, world.disk
    known: dict[int, tuple[UpdateUser, Outcome]] = {}
    for place, job in disk.accepted.items():
        assert isinstance(job, UpdateUser)
        known[number_of(job)] = job, disk.settled[place]
    assert {number_of(job) for job in world.promised} <= known.keys()
    allowed: dict[Key, set[str]] = defaultdict(lambda: {""})
    for number, (job, outcome) in sorted(known.items()):
        must, may = judged(outcome, is_whole=server.most == 100)
        purchases: Any = job.deltas.get("purchases", ())
        for purchase in purchases:
            assert must <= server.bought[purchase["sku"]] <= may, (job, outcome)
        if isinstance(outcome, Expired):
            assert str(number) not in server.seen, job
        for name, value in {**job.tags, **job.properties}.items():
            key = job.user.ids[0], name
            allowed[key] = {str(value)} if must else allowed[key] | {str(value)} if may else allowed[key]
    for key, values in allowed.items():
        assert server.values.get(key, "") in values, (key, values)


def judged(outcome: Outcome, *, is_whole: bool) -> tuple[bool, bool]:
    """Whether a job must have been applied, and whether it may have been: a long one in part, although refused."""
    was_refused = isinstance(outcome, Expired) or (isinstance(outcome, Rejected) and is_whole)
    return isinstance(outcome, Accepted), not was_refused


def number_of(job: UpdateUser) -> int:
    return int(str(job.idempotency_key).removeprefix("job "))
