"""The packer against a plain list: whatever is done in whatever order, nobody is lost, doubled, late or out of turn."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from math import inf

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sendengine.core.drafts import Pack, PackKey, Share
from sendengine.core.packing import Packer
from sendengine.core.queues import DEADLINE_MARGIN_S

MAX_RECIPIENTS, MAX_BYTES, LINGER_S = 4, 40, 2.0
GROUPS = [PackKey(content, "push", "alias", "external_id") for content in (b"{}", b'{"a":1}')]
NAMES = st.lists(
    st.sampled_from(["a", "b", "cc", "ü", 'd"d', "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"]), max_size=9
)


class Job:
    """A member, and what the packer still owes it."""

    def __init__(
        self, ids: list[str], *, group: PackKey, high: bool, alone: bool, deadline_s: float, at_s: float
    ) -> None:
        self.left = Counter(ids)
        self.group = group
        self.high = high
        self.alone = alone
        self.deadline_s = deadline_s
        self.at_s = at_s

    def give(self, ids: Iterable[str]) -> None:
        self.left.subtract(ids)
        assert min(self.left.values(), default=0) >= 0, "a recipient came out twice"
        self.left += Counter()  # drops the zeros


class Packing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.packer: Packer[Job] = Packer(max_recipients=MAX_RECIPIENTS, max_bytes=MAX_BYTES, linger_s=LINGER_S)
        self.jobs: list[Job] = []
        self.now_s = 0.0

    @rule(
        ids=NAMES,
        group=st.sampled_from(GROUPS),
        high=st.sampled_from([False, False, False, True]),
        alone=st.sampled_from([False, False, False, True]),
        within_s=st.sampled_from([inf, inf, 0.5, 1.75, 3.0, 200.0]),
    )
    def add(self, ids: list[str], group: PackKey, high: bool, alone: bool, within_s: float) -> None:
        job = Job(
            ids, group=group, high=high, alone=alone or not ids, deadline_s=self.now_s + within_s, at_s=self.now_s
        )
        self.jobs.append(job)
        self.packer.add(
            job,
            group=group,
            ids=tuple(ids),
            alone=job.alone,
            high=high,
            deadline_s=None if within_s == inf else job.deadline_s,
            now_s=self.now_s,
        )

    @rule(pause_s=st.sampled_from([0.25, 1.0, 2.0, 7.0]))
    def wait(self, pause_s: float) -> None:
        self.now_s += pause_s

    @rule(prefer_normal=st.booleans())
    def take(self, prefer_normal: bool) -> None:
        overdue = [job for job in self.jobs if job.deadline_s <= self.now_s]
        highs = [job for job in self.jobs if job.high and job not in overdue]
        due_s = self.packer.next_due_s()
        pack = self.packer.take(now_s=self.now_s, prefer_normal=prefer_normal)
        if not overdue:
            assert (pack is not None) == (due_s is not None and due_s <= self.now_s)
        if pack is None:
            assert not highs
            assert all(not job.alone and self.now_s < job.at_s + LINGER_S for job in self.jobs if job not in overdue)
            return
        self.check(pack)
        assert not any(share.member in overdue for share in pack.shares)
        assert pack.is_high or not highs or prefer_normal
        for share in pack.shares:
            share.member.give(share.ids)
        self.forget(share.member for share in pack.shares)

    def check(self, pack: Pack[Job]) -> None:
        members = [share.member for share in pack.shares]
        assert pack.ids == tuple(name for share in pack.shares for name in share.ids)
        assert len(set(pack.ids)) == len(pack.ids) <= MAX_RECIPIENTS
        in_json = sum(len(orjson.dumps(name)) + 1 for name in pack.ids)
        assert len(pack.group.content) + in_json <= MAX_BYTES or len(pack.ids) == 1
        assert {(job.group, job.high) for job in members} == {(pack.group, pack.is_high)}
        assert len(members) == 1 or not any(job.alone for job in members)
        assert pack.deadline_s == min((job.deadline_s for job in members if job.deadline_s != inf), default=None)
        for share in pack.shares:
            earlier = [job for job in self.jobs[: self.jobs.index(share.member)] if job.deadline_s > self.now_s]
            assert not any(
                name in job.left
                for job in earlier
                for name in share.ids
                if not job.alone and not share.member.alone and (job.group, job.high) == (pack.group, pack.is_high)
            ), "a recipient's jobs with one message keep their order"

    @rule()
    def expire(self) -> None:
        gone = self.packer.expire(self.now_s)
        assert {id(share.member) for share in gone} == {id(job) for job in self.jobs if job.deadline_s <= self.now_s}
        assert [share.member.deadline_s for share in gone] == sorted(share.member.deadline_s for share in gone)
        self.settle(gone)

    @precondition(lambda self: len(self.jobs) > 5)
    @rule()
    def drain_all(self) -> None:
        self.settle(list(self.packer.drain_all()))
        assert not self.jobs

    @rule(count=st.integers(1, 3))
    def drain_some(self, count: int) -> None:
        self.settle(list(islice(self.packer.drain_all(), count)))

    def settle(self, shares: list[Share[Job]]) -> None:
        for share in shares:
            share.member.give(share.ids)
            assert not share.member.left, "all that was not taken comes back"
        gone = {id(share.member) for share in shares}
        assert len(gone) == len(shares)
        self.jobs = [job for job in self.jobs if id(job) not in gone]

    def forget(self, members: Iterable[Job]) -> None:
        done = {id(job) for job in members if not job.left}
        self.jobs = [job for job in self.jobs if id(job) not in done]

    @invariant()
    def what_waits_is_counted(self) -> None:
        waiting = [job for job in self.jobs if job.deadline_s > self.now_s]
        if len(waiting) == len(self.jobs):  # of the overdue it may not know yet
            assert self.packer.members == len(self.jobs)
            assert self.packer.recipients == sum(job.left.total() for job in self.jobs)
            assert self.packer.has_high == any(job.high for job in self.jobs)

    @invariant()
    def timers_are_never_late(self) -> None:
        waiting = [job for job in self.jobs if job.deadline_s > self.now_s]
        if len(waiting) < len(self.jobs):
            return
        due_s, expiry_s = self.packer.next_due_s(), self.packer.next_expiry_s()
        assert (due_s is None) == (not self.jobs)
        for job in self.jobs:
            ripe_s = job.at_s if job.high or job.alone else min(job.at_s + LINGER_S, job.deadline_s - DEADLINE_MARGIN_S)
            assert due_s is not None
            assert due_s <= max(ripe_s, self.now_s)
            assert job.deadline_s == inf or (expiry_s is not None and expiry_s <= job.deadline_s)

    def teardown(self) -> None:
        self.settle(list(self.packer.drain_all()))
        assert not self.jobs
        assert not any(shard for shards in self.packer._lines for shard in shards), "messages are forgotten"
        assert not any(self.packer._places)


TestPacking = Packing.TestCase
TestPacking.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
