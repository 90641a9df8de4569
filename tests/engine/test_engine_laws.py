"""Whatever goes wrong: every job settles once, nobody is told anything twice, and users end as they should."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from random import seed as seed_the_engine
from typing import Any

import pytest

from sendengine import (
    Abandoned,
    Accepted,
    Ambiguous,
    CreateNotification,
    Expired,
    GaveUp,
    Job,
    Receipt,
    Rejected,
    UpdateUser,
    external_id,
)
from sendengine.settings import (
    BatchingSettings,
    CeilingSettings,
    IntakeSettings,
    RetrySettings,
    StoppingSettings,
    TransportSettings,
)
from tests.support.engines import CREATE, UPDATE, assert_nothing_leaked, make_engine, note, settled, within
from tests.support.fake_transport import FakeTransport
from tests.support.model import Model, Profile, apply
from tests.support.virtual_loop import run_virtually

JOBS = 150


def options_of(chance: Random) -> dict[str, Any]:
    """Small caps, so that everything meets them; and room, connections and ceilings that are scarce now and then."""
    return {
        "batching": BatchingSettings(max_recipients_per_request=8, max_modifications_per_request=6),
        "retry": RetrySettings(lost_reply_wait_s=1, missing_retry_after_s=2),
        "stopping": StoppingSettings(drain_timeout_s=3000),
        "intake": IntakeSettings(max_jobs=chance.choice([10, 200_000])),
        "wire": TransportSettings(max_connections=chance.choice([2, 8, 4000])),
        "app": {"ceilings": CeilingSettings(create_notification=chance.choice([20, None]))},
    }


@dataclass
class Jobs:
    """Random jobs, each recipient of a notification another one."""

    chance: Random
    count: int = 0
    made: list[Job] = field(default_factory=list)

    def next(self) -> Job:
        job = self._update() if self.chance.random() < 0.5 else self._notification()
        self.made.append(job)
        return job

    def _name(self) -> str:
        self.count += 1
        prefix = self.chance.choices(["bad", "gone", "u"], [2, 5, 93])[0]
        return f"{prefix}{self.count}"

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.chance.random() < 0.2:
            options["urgency"] = "high"
        if self.chance.random() < 0.15:
            options["expires_in_s"] = self.chance.choice([0.5, 5, 60])
        return options

    def _notification(self) -> CreateNotification:
        options = self._options()
        if self.chance.random() < 0.1:
            options["idempotency_key"] = f"key {self.count}"
        if self.chance.random() < 0.2:
            options["pack"] = self.chance.choice([True, False])
        names = [self._name() for _ in range(self.chance.choice([1, 1, 1, 3, 9, 20]))]
        text = self.chance.choices(["one", "two", "three", "bad text"], [40, 30, 28, 2])[0]
        return note(*names, text=text, **options)

    def _update(self) -> UpdateUser:
        self.count += 1
        options = self._options()
        tags = {f"t{self.chance.randrange(9)}": self.count for _ in range(self.chance.choice([1, 1, 2, 8]))}
        if self.chance.random() < 0.2:
            tags[f"t{self.chance.randrange(9)}"] = ""  # type: ignore[assignment]
        if self.chance.random() < 0.05:
            tags = {"bad": 1}
        deltas: dict[str, Any] = {}
        if self.chance.random() < 0.2 and "bad" not in tags:
            deltas["session_count"] = 1
        if self.chance.random() < 0.1 and "bad" not in tags:
            deltas["purchases"] = [{"sku": f"s{self.count}-{n}", "amount": "1", "iso": "EUR"} for n in range(3)]
        if self.chance.random() < 0.1:
            options["coalesce"] = self.chance.choice([True, len(tags) + len(deltas) > 6])
        properties = {"language": f"l{self.count}"} if self.chance.random() < 0.2 else {}
        return UpdateUser(
            external_id(f"user{self.chance.randrange(8)}"), tags=tags, properties=properties, deltas=deltas, **options
        )


async def send_all(folder: Path, transport: FakeTransport, jobs: Jobs) -> list[Receipt]:
    """Submit jobs with pauses of all lengths, and wait for every one."""
    async with make_engine(folder, transport, **options_of(jobs.chance)) as engine:
        receipts = []
        for _ in range(JOBS):
            receipts.append(await within(engine.submit(jobs.next())))
            await asyncio.sleep(jobs.chance.choice([0, 0, 0.001, 0.02, 0.3]))
        for receipt in receipts:
            await settled(receipt)
        assert_nothing_leaked(engine, transport)
        stats = engine.stats()
        assert stats.lanes[CREATE].most_in_one_second <= stats.lanes[CREATE].ceiling
        assert engine.health().is_alive
    return receipts


def judge_notifications(receipts: list[Receipt], model: Model) -> None:
    assert set(model.deliveries.values()) <= {1}
    for receipt in receipts:
        job, outcome = receipt.job, receipt.outcome
        if not isinstance(job, CreateNotification):
            continue
        text = str(job.message["contents"]["en"])  # type: ignore[index,call-overload]
        reached = {name for name in job.to.ids if model.deliveries[text, name]}
        match outcome:
            case Accepted():
                assert reached == set(job.to.ids), job
                assert set(outcome.unsubscribed) == {name for name in job.to.ids if name.startswith("gone")}
            case Rejected(not_sent=missed) | Expired(not_sent=missed):
                assert reached == set(job.to.ids) - set(missed), job
            case GaveUp(not_sent=missed) | Abandoned(not_sent=missed):
                assert set(job.to.ids) - set(missed) <= reached, job
            case _:
                raise AssertionError(outcome)
        assert sorted(name for part in receipt.parts for name in part.recipients) == sorted(job.to.ids)


def judge_users(receipts: list[Receipt], model: Model) -> None:
    """Every user's end state is that of applying in turn what was accepted."""
    expected: dict[str, Profile] = defaultdict(Profile)
    uncertain: dict[str, list[str]] = defaultdict(list)
    doubtful = set()
    for receipt in receipts:
        job, outcome = receipt.job, receipt.outcome
        if not isinstance(job, UpdateUser):
            continue
        user = job.user.ids[0]
        deltas = dict(job.deltas)
        match outcome:
            case Accepted():
                pass
            case Ambiguous() if not any(isinstance(part.outcome, GaveUp) for part in receipt.parts):
                # Its tags went again; what it adds may have been counted, once.
                purchases: Any = deltas.get("purchases", [])
                uncertain[user] += [purchase["sku"] for purchase in purchases]
                uncertain[user] += ["session"] * int(str(deltas.get("session_count", 0)))
                deltas = {}
            case Rejected() | Expired() if not any(isinstance(part.outcome, Accepted) for part in receipt.parts):
                continue
            case Expired():
                raise AssertionError("a job that was on the wire has not expired")
            case _:
                doubtful.add(user)
        tags: Any = job.tags
        apply(expected[user], tags=tags, properties=dict(job.properties), deltas=deltas)
    for user, profile in expected.items():
        if user in doubtful:
            continue
        found = model.users[user]
        assert (found.tags, found.properties) == (profile.tags, profile.properties), user
        extra = list(found.skus)
        for sku in profile.skus:
            extra.remove(sku)
        assert set(extra) <= set(uncertain[user]), user
        assert len(extra) == len(set(extra)), user
        assert 0 <= found.sessions - profile.sessions <= uncertain[user].count("session"), user


@pytest.mark.parametrize("seed", range(10))
def test_chaos(tmp_path: Path, seed: int) -> None:
    seed_the_engine(seed)
    model = Model(Random(seed))
    transport = FakeTransport(model, latency_s=0.1)
    receipts = run_virtually(send_all(tmp_path, transport, Jobs(Random(seed + 1000))))
    assert all(receipt.is_settled for receipt in receipts)
    judge_notifications(receipts, model)
    judge_users(receipts, model)
    for user, times in model.arrivals.items():
        assert all(after - before >= 0.999 for before, after in pairwise(times)), user
    for method, told_s, until_s in model.holds:
        back_s = told_s + transport.latency_s
        inside = [one for one in transport.arrivals if one.method == method and back_s < one.at_s < until_s]
        assert not inside, (method, told_s)


@pytest.mark.parametrize("seed", range(5))
def test_stopping_in_the_middle_of_chaos_settles_everything_once(tmp_path: Path, seed: int) -> None:
    seed_the_engine(seed)
    model = Model(Random(seed), fault_share=0.4)
    transport = FakeTransport(model, latency_s=0.3)

    async def main() -> list[Receipt]:
        jobs = Jobs(Random(seed + 1000))
        async with make_engine(tmp_path, transport, **options_of(jobs.chance)) as engine:
            receipts = []
            for _ in range(JOBS):
                receipts.append(await within(engine.submit(jobs.next())))
                await asyncio.sleep(jobs.chance.choice([0, 0.001, 0.02]))
            await engine.abort(grace_s=jobs.chance.choice([0, 0.2, 2]))
            assert_nothing_leaked(engine, transport)
            assert sum(sum(engine._lanes[name].books.outcomes.values()) for name in (CREATE, UPDATE)) == JOBS
        return receipts

    receipts = run_virtually(main())
    assert all(receipt.is_settled for receipt in receipts)
    judge_notifications(receipts, model)
