"""When jobs are meant to start."""

from collections import Counter
from itertools import islice, repeat
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.bench.mix import Mix
from sendengine.bench.streams import Flood, Kind, Stream, Tally
from sendengine.core.jobs import CreateNotification, Job, UpdateUser, Urgency
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.targets import external_id
from sendengine.errors import SettingsError

CREATE, UPDATE = EndpointGroup.CREATE_NOTIFICATION, EndpointGroup.UPDATE_USER
JOB = UpdateUser(external_id("u"), {"level": 1})
KIND: Kind = (UPDATE, "normal")


def stream(*, rate: float, seconds: float) -> Stream:
    return Stream(repeat(JOB), kind=KIND, rate=rate, seconds=seconds)


def take(stream: Stream | Flood, count: int) -> None:
    for _ in range(count):
        stream.take()
        stream.took()


def test_ten_a_second_for_half_a_second() -> None:
    ten = stream(rate=10, seconds=0.5)
    for at_s, due in [(0.0, 1), (0.09, 0), (0.1, 1), (0.35, 2), (0.49, 1), (0.5, 0), (9.0, 0)]:
        assert ten.due(at_s=at_s, under_way=99) == due, f"at {at_s} s"
        take(ten, due)
    assert ten.next_at_s() == inf


def test_what_was_not_submitted_stays_meant_for_its_time() -> None:
    ten = stream(rate=10, seconds=1)
    take(ten, 3)
    assert ten.next_at_s() == pytest.approx(0.3)
    assert ten.meant_at_s(at_s=0.7) == pytest.approx(0.3)
    assert ten.left(at_s=0.7) == 5
    waited = ten.waited(at_s=0.7)
    assert waited.count == 5
    assert waited.max_ms == pytest.approx(400)


def test_a_schedule_that_is_ended_owes_what_was_meant_to_start_before() -> None:
    ten = stream(rate=10, seconds=60)
    take(ten, 2)
    ten.end(at_s=0.45)
    assert ten.left(at_s=100) == 3


def test_of_a_million_that_wait_each_counts() -> None:
    fast = stream(rate=1_000_000, seconds=1)
    waited = fast.waited(at_s=1.0)
    assert waited.count == 1_000_000
    assert waited.percentile_ms(50) == pytest.approx(500, rel=0.02)
    assert waited.max_ms == pytest.approx(1000)


@given(st.floats(0.01, 1e5), st.floats(0.01, 100), st.lists(st.floats(0, 200), max_size=20))
def test_whenever_one_looks_every_job_is_due_once_and_none_before_its_time(
    rate: float, seconds: float, looks: list[float]
) -> None:
    any_stream = stream(rate=rate, seconds=seconds)
    submitted = 0
    for at_s in [*sorted(looks), 1000.0]:
        due = any_stream.due(at_s=at_s, under_way=0)
        assert due >= 0
        submitted += due
        assert submitted <= at_s * rate + 1 + 1e-6 * (1 + at_s * rate)
        for _ in range(min(due, 5)):
            assert any_stream.meant_at_s(at_s=at_s) <= at_s + 1e-3 / rate + 1e-9
            take(any_stream, 1)
        any_stream._submitted = submitted  # the rest of the batch at once: it can be millions
    assert submitted == pytest.approx(rate * seconds, abs=1.01)


def test_as_fast_as_it_goes_keeps_so_many_under_way() -> None:
    flood = Flood(repeat(JOB), depth=5)
    assert [flood.due(at_s=1.0, under_way=under_way) for under_way in (0, 3, 5, 9)] == [5, 2, 0, 0]
    assert flood.meant_at_s(at_s=1.5) == 1.5
    flood.end(at_s=2.0)
    assert (flood.due(at_s=2.0, under_way=0), flood.left(at_s=2.0), flood.waited(at_s=2.0).count) == (0, 0, 0)


@pytest.mark.parametrize("source", [stream(rate=1, seconds=9), Flood(iter([JOB, JOB]), depth=1)])
def test_a_job_that_found_no_room_is_the_next_one(source: Stream | Flood) -> None:
    first = source.take()
    assert source.take() is first


def test_a_tally_keeps_those_that_were_abandoned_apart() -> None:
    tally = Tally()
    tally.settle("accepted", after_s=0.1)
    tally.settle("abandoned", after_s=5.0)
    assert (tally.accepted, tally.latency.count, tally.waited.count) == (1, 1, 1)


# The mix

MIX = Mix(updates=0.25, high=0.5, recipients=2, pack=True, users=3)
SHARES: dict[Kind, float] = {
    (CREATE, "normal"): MIX.share(CREATE, "normal"),
    (CREATE, "high"): MIX.share(CREATE, "high"),
    (UPDATE, "normal"): MIX.share(UPDATE, "normal"),
    (UPDATE, "high"): MIX.share(UPDATE, "high"),
}


def kind_of(job: Job) -> tuple[type, Urgency]:
    return type(job), job.urgency


def test_a_mix_has_its_proportions_in_every_stretch() -> None:
    kinds = [kind_of(job) for job in islice(MIX.jobs(SHARES), 80)]
    for start in range(0, 80, 8):  # 3 + 3 notifications and 1 + 1 updates of eight jobs
        assert Counter(kinds[start : start + 8]) == {
            (CreateNotification, "normal"): 3,
            (CreateNotification, "high"): 3,
            (UpdateUser, "normal"): 1,
            (UpdateUser, "high"): 1,
        }


def test_recipients_go_round_the_users() -> None:
    jobs = list(islice(MIX.jobs({(CREATE, "normal"): 1.0}), 3))
    assert [job.to.ids for job in jobs if isinstance(job, CreateNotification)] == [
        ("user-0", "user-1"),
        ("user-2", "user-0"),
        ("user-1", "user-2"),
    ]
    assert all(isinstance(job, CreateNotification) and job.pack for job in jobs)


def test_shares_that_nothing_has_make_no_jobs() -> None:
    only = Mix(updates=1, high=0, recipients=1, pack=False, users=9)
    shares: dict[Kind, float] = {(CREATE, "normal"): 0.0, (UPDATE, "normal"): only.share(UPDATE, "normal")}
    assert {kind_of(job) for job in islice(only.jobs(shares), 10)} == {(UpdateUser, "normal")}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"recipients": 4}, "4 recipients and 3 users"),
        ({"recipients": 0}, "at least 1 recipient"),
        ({"updates": 1.5}, "from 0 to 1"),
        ({"high": -0.1}, "from 0 to 1"),
    ],
)
def test_an_impossible_mix_says_why(changes: dict[str, float], error: str) -> None:
    options = {"updates": 0.25, "high": 0.5, "recipients": 2, "pack": False, "users": 3, **changes}
    with pytest.raises(SettingsError, match=error):
        Mix(**options)  # type: ignore[arg-type]
