"""The application limit: reserved in blocks ahead of need, waited for or rejected, and given back."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sendengine import (
    Accepted,
    CreateNotification,
    NotSentError,
    Rejected,
    StorageError,
    filters,
    segments,
)
from sendengine.engine.guard import Guard
from sendengine.ports import Admission
from sendengine.settings import BatchingSettings, StoppingSettings
from tests.support.engines import (
    CREATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_engine,
    note,
    now_s,
    outcomes_of,
    pass_turns,
    settled,
    until,
)
from tests.support.events import listening
from tests.support.fake_transport import Answer, FakeTransport, json_reply, refuse
from tests.support.virtual_loop import START_S, run_virtually

TEXT = {"contents": {"en": "x"}}


@dataclass
class FakeLedger:
    """Grants at most ``room`` in all, and notes what it was asked for."""

    room: int = 1_000_000
    again_in_s: float = 100.0
    faults: int = 0
    asked: list[int] = field(default_factory=list)
    granted: int = 0
    returned: int = 0

    async def reserve(self, deliveries: int, *, limit: int) -> Admission:
        assert limit > 0
        await asyncio.sleep(0.005)
        if self.faults:
            self.faults -= 1
            raise StorageError("the disk is full")
        self.asked.append(deliveries)
        granted = min(deliveries, self.room - self.granted)
        self.granted += granted
        return Admission(granted, 0.0 if granted else self.again_in_s)

    async def give_back(self, deliveries: int) -> None:
        if self.faults:
            raise StorageError("the disk is full")
        self.granted -= deliveries
        self.returned += deliveries

    async def used(self) -> int:
        return self.granted


@dataclass
class Asking:
    """A guard, and how often it said that there may be room."""

    ledger: FakeLedger
    is_rejecting: bool = False
    calls: int = 0

    def __post_init__(self) -> None:
        self.guard = Guard(
            self.ledger, name="shop", per_second=100, is_rejecting=self.is_rejecting, when_room=self._note
        )

    def _note(self) -> None:
        self.calls += 1

    def admit(self, weight: int) -> bool:
        return self.guard.admit(weight, now_s=now_s())

    async def wait_for(self, weight: int) -> None:
        await until(lambda: self.admit(weight))


def test_nothing_goes_before_the_limit_is_known_and_everything_where_there_is_none() -> None:
    async def main() -> None:
        asking = Asking(FakeLedger())
        assert asking.guard.is_short
        asking.guard.turn_off()
        assert (asking.guard.is_short, asking.calls) == (False, 1)
        assert asking.admit(10**9)
        assert (asking.guard.share, asking.guard.limit, asking.guard.users) == (None, None, None)
        assert asking.ledger.asked == []

    run_virtually(main())


def test_a_request_weighs_its_deliveries_and_never_more_than_there_are_users() -> None:
    guard = Asking(FakeLedger()).guard
    guard.limit_to(7000, users=1000)
    for deliveries, weight in [(1, 1), (1.5, 2), (0, 0), (999.2, 1000), (5000, 1000), (None, 1000)]:
        assert guard.weigh(deliveries) == weight, deliveries


def test_reservations_are_a_seconds_sending_asked_for_before_it_is_needed() -> None:
    async def main() -> None:
        asking = Asking(FakeLedger())
        asking.guard.limit_to(10_000_000, users=10_000_000)
        waited = 0
        for _ in range(3000):  # ten a hundredth: 1,000 a second
            if not asking.admit(10):
                waited += 1
                await asking.wait_for(10)
            await asyncio.sleep(0.01)
        assert waited <= 8  # the first second learns; later the next block is there before this one is used up
        assert len(asking.ledger.asked) <= 60  # about two a second
        assert asking.ledger.granted >= 30_000
        await asking.guard.aclose()
        assert asking.ledger.granted == 30_000  # the rest was given back

    run_virtually(main())


def test_never_more_is_spent_than_was_granted() -> None:
    async def main() -> None:
        asking = Asking(FakeLedger(room=95))
        asking.guard.limit_to(95, users=50)
        spent = 0
        for step in range(300):
            weight = 1 + step % 7
            if asking.admit(weight):
                spent += weight
            await asyncio.sleep(0.02)
        assert spent <= 95
        assert spent > 85  # what is left is too little for whoever asks
        await asking.guard.aclose()
        assert asking.ledger.granted == spent

    run_virtually(main())


def test_without_room_it_waits_as_long_as_the_ledger_says_and_asks_again() -> None:
    async def main() -> None:
        asking = Asking(FakeLedger(room=0, again_in_s=100))
        asking.guard.limit_to(700, users=100)
        begin_s = now_s()
        assert not asking.admit(10)
        await asyncio.sleep(50)
        assert asking.guard.is_short
        assert asking.guard.blocked_until_s == pytest.approx(begin_s + 100, abs=0.1)
        calls = asking.calls
        asking.ledger.room = 1000
        await asyncio.sleep(51)
        assert asking.calls == calls + 1
        assert not asking.guard.is_short
        await asking.wait_for(10)
        await asking.guard.aclose()

    with listening() as events:
        run_virtually(main())
    (fields,) = events.fields("application_limit")
    assert fields == {"app": "shop", "wait_s": 100.0}


def test_a_ledger_that_fails_lets_nothing_through_and_is_asked_again() -> None:
    async def main() -> None:
        asking = Asking(FakeLedger(faults=2))
        asking.guard.limit_to(700, users=100)
        begin_s = now_s()
        await asking.wait_for(10)
        assert now_s() - begin_s >= 10  # five seconds after each failure
        await asking.guard.aclose()

    with listening() as events:
        run_virtually(main())
    assert sum("the disk is full" in line for line in events.lines) == 2


def test_a_ledger_that_fails_at_the_end_is_only_a_warning() -> None:
    async def main() -> None:
        asking = Asking(FakeLedger())
        asking.guard.limit_to(700, users=100)
        asking.admit(10)
        await asyncio.sleep(1)
        asking.ledger.faults = 1
        await asking.guard.aclose()

    with listening() as events:
        run_virtually(main())
    assert any("not given back" in line for line in events.lines)


# Through the engine


def limited(users: int, **options: Any) -> dict[str, Any]:
    return {"subscribed_users": users, **options}


def test_a_repeat_after_the_window_of_its_reservation_counts_again(tmp_path: Path) -> None:
    transport = FakeTransport(
        lambda arrival: json_reply(*((503, {}) if arrival.at_s < START_S + 1000 else (200, {"id": "m"})))
    )

    async def main() -> None:
        stopping = StoppingSettings(drain_timeout_s=10_000)
        async with make_engine(tmp_path, transport, app=limited(1000), stopping=stopping) as engine:
            receipt = await engine.submit(note(*[f"u{n}" for n in range(20)]))
            assert isinstance(await settled(receipt), Accepted)
        # The wall clock stands still here, and so the first reservation is not forgotten.
        assert await lane_of(engine).app.guard._ledger.used() == 40

    run_virtually(main())


def test_a_full_window_holds_what_waits_and_says_until_when(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=limited(10)) as engine:  # 70 deliveries
            receipts = [await engine.submit(note(*[f"u{n}" for n in range(10)], text=str(k))) for k in range(8)]
            for receipt in receipts[:7]:
                assert isinstance(await settled(receipt), Accepted)
            await asyncio.sleep(5)
            assert not receipts[7].is_settled
            stats = engine.stats()
            lane = stats.lanes[CREATE]
            assert lane.hold is not None
            assert "application limit" in lane.hold
            assert lane.hold_until_s is not None
            assert lane.hold_until_s > stats.taken_at_s
            assert lane.share_of_application_limit == 1.0
            assert (stats.apps["shop"].delivered, stats.apps["shop"].application_limit) == (70, 70)
            assert stats.apps["shop"].subscribed_users == 10
            await engine.abort()

    run_virtually(main())
    assert sum(transport.deliveries.values()) == 70


def test_a_ledger_that_cannot_be_used_is_named_as_what_holds_and_goes_on_when_it_can_be(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=limited(10)) as engine:
            ledger = tmp_path / f"volume-{engine._settings.apps['shop'].app_id}.json"
            ledger.mkdir()  # whatever the user may: it can be neither read nor replaced
            receipt = await engine.submit(note("u"))
            await until(lambda: bool(engine.health().problems))
            hold = engine.stats().lanes[CREATE].hold
            assert hold is not None
            assert hold.startswith("the volume ledger cannot be used: cannot read")
            assert engine.health().problems == (hold,)
            assert engine.health().is_alive  # a restart would not help
            ledger.rmdir()
            assert isinstance(await settled(receipt), Accepted)
            assert engine.health().problems == ()

    run_virtually(main())


def test_the_limit_of_a_share_of_the_app_is_that_share_of_it(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=limited(1000, share=0.5)) as engine:
            await engine.send(note("a"))
            assert engine.stats().apps["shop"].application_limit == 3500  # 0.7 of 10,000, and half of that

    run_virtually(main())


def test_where_the_policy_is_to_reject_everything_over_the_limit_is_rejected_at_once(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        app = limited(10, application_limit_policy="reject")
        async with make_engine(tmp_path, transport, app=app) as engine:
            begin_s = now_s()
            jobs = [note(*[f"u{n}" for n in range(10)], text=str(k)) for k in range(20)]
            ended = await outcomes_of(engine, list(jobs))
            assert [type(outcome) for outcome in ended] == [Accepted] * 7 + [Rejected] * 13
            assert all("application limit" in ended[n].errors[0] for n in range(7, 20))  # type: ignore[union-attr]
            assert now_s() - begin_s < 5
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_what_is_smaller_and_fits_still_goes_where_the_policy_is_to_reject(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        app = limited(10, application_limit_policy="reject")
        async with make_engine(tmp_path, transport, app=app) as engine:
            jobs = [note(*[f"u{n}" for n in range(9)], text=str(k)) for k in range(8)]  # 63 of 70, and one too many
            await outcomes_of(engine, list(jobs))
            assert isinstance(await engine.send(note(*[f"u{n}" for n in range(7)], text="small")), Accepted)

    run_virtually(main())


@pytest.mark.parametrize(
    ("job", "deliveries"),
    [
        (CreateNotification(to=segments("All"), message=TEXT), 1000),
        (CreateNotification(to=segments("A"), message=TEXT, expected_recipients=30), 30),
        (
            CreateNotification(to=filters([{"field": "country", "value": "DE"}]), message=TEXT),
            1000,
        ),
        (note("a", "b", "c"), 3),
    ],
)
def test_segments_and_filters_weigh_what_is_expected_or_everybody(
    tmp_path: Path, job: CreateNotification, deliveries: int
) -> None:
    transport = FakeTransport()

    async def main() -> None:
        engine = make_engine(tmp_path, transport, app=limited(1000))
        async with engine:
            await engine.send(job)
        assert await lane_of(engine).app.guard._ledger.used() == deliveries

    run_virtually(main())


def test_several_devices_a_user_weigh_more(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        engine = make_engine(tmp_path, transport, app=limited(1000, deliveries_per_recipient=1.5))
        async with engine:
            await engine.send(note("a", "b", "c"))
        assert await lane_of(engine).app.guard._ledger.used() == 5  # 4.5, rounded up

    run_virtually(main())


def test_a_retry_and_the_pieces_of_a_split_do_not_count_again(tmp_path: Path) -> None:
    answers: list[Answer] = [json_reply(429, {}, retry_after="1"), json_reply(503, {})]

    def behave(arrival: Any) -> Answer:
        if answers:
            return answers.pop(0)
        return refuse() if "u3" in arrival.ids else json_reply(200, {"id": "m"})

    transport = FakeTransport(behave)

    async def main() -> None:
        engine = make_engine(tmp_path, transport, app=limited(1000))
        async with engine:
            await settled(await engine.submit(note(*[f"u{n}" for n in range(20)])))
        assert await lane_of(engine).app.guard._ledger.used() == 20
        assert len(transport.arrivals) > 5

    run_virtually(main())


def test_updates_of_users_deliver_nothing_and_do_not_wait_for_the_limit(tmp_path: Path) -> None:
    transport = FakeTransport(view=1000, view_s=5)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app={"subscribed_users": "auto"}) as engine:
            begin_s = now_s()
            update = await engine.submit(change("u", a=1))
            message = await engine.submit(note("a", urgency="high"))
            await settled(update)
            assert now_s() - begin_s < 1
            await settled(message)
            assert now_s() - begin_s >= 5  # nobody may be told anything before the limit is known
            assert engine.stats().apps["shop"].application_limit == 7000

    run_virtually(main())


@pytest.mark.parametrize(
    "view",
    [None, NotSentError("no route"), json_reply(200, {"name": "no count"}), json_reply(200, "<html>"), "slow"],
)
def test_a_look_up_that_fails_leaves_the_guard_off_with_a_warning_and_holds_nothing(
    tmp_path: Path, view: Answer | str | None
) -> None:
    transport = FakeTransport(view_s=3600) if view == "slow" else FakeTransport(view=view)  # type: ignore[arg-type]

    async def main() -> None:
        async with make_engine(tmp_path, transport, app={"subscribed_users": "auto"}) as engine:
            assert isinstance(await settled(await engine.submit(note("a"))), Accepted)
            stats = engine.stats()
            assert stats.lanes[CREATE].share_of_application_limit is None
            assert stats.apps["shop"].subscribed_users is None
            assert stats.apps["shop"].held is None

    with listening() as events:
        run_virtually(main())
    assert events.fields("audience_unknown") == [{"app": "shop"}]
    assert "apps.shop.subscribed_users" in "\n".join(events.lines)


def test_closing_while_the_look_up_is_under_way_leaves_nothing_behind(tmp_path: Path) -> None:
    transport = FakeTransport(view=1000, view_s=9)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app={"subscribed_users": "auto"}) as engine:
            await engine.submit(note("a"))
            await pass_turns()
            await engine.abort()
            assert len(asyncio.all_tasks()) == 1

    run_virtually(main())


def test_a_pack_is_no_larger_than_the_limit_lets_it_be(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        batching = BatchingSettings(max_recipients_per_request=2000)
        app = limited(100, application_limit_share=0.05)  # 50 deliveries, and a request of 100 users weighs 100
        async with make_engine(tmp_path, transport, app=app, batching=batching) as engine:
            outcome = await settled(await engine.submit(note(*[f"u{n}" for n in range(100)])))
            assert isinstance(outcome, Rejected)
            assert "application limit" in outcome.errors[0]

    run_virtually(main())
    assert not transport.arrivals
