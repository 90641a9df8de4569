"""An app whose key or channel is refused, or that was disabled: what waits stays, and what reopens it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sendengine import (
    Accepted,
    AppHeldError,
    CreateNotification,
    Expired,
    InvalidJobError,
    Rejected,
    UpdateUser,
    email,
    external_id,
    phone_number,
)
from sendengine.engine.app import CHANNEL_REFUSALS
from sendengine.settings import StoppingSettings
from tests.support.engines import (
    CREATE,
    UPDATE,
    assert_nothing_leaked,
    change,
    lane_of,
    make_engine,
    note,
    now_s,
    outcomes_of,
    settled,
    until,
)
from tests.support.events import listening
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, first, json_reply
from tests.support.virtual_loop import run_virtually

NO_KEY = json_reply(403, {"errors": ["Access denied.  Please include an 'Authorization: ...' header with a valid key"]})
NO_KEY_FOR_USERS = json_reply(401, {"errors": [{"code": "auth-1", "title": "This operation requires 'Authorization'"}]})
NO_PLAN = json_reply(403, {"errors": ["This API is not available for applications on your plan."]})
DISABLED = json_reply(
    429, {"errors": ["API rate limit exceeded. See the RateLimit response headers for more details."]}, retry_after="1"
)


def in_file(folder: Path, key: str = "first-key") -> dict[str, Any]:
    (folder / "key").write_text(key)
    return {"api_key": None, "api_key_file": str(folder / "key")}


def test_a_key_that_has_changed_at_its_source_is_used_without_a_hold(tmp_path: Path) -> None:
    transport = first([NO_KEY])

    async def main() -> None:
        app = in_file(tmp_path)
        async with make_engine(tmp_path, transport, app=app) as engine:
            in_file(tmp_path, "second-key")
            assert isinstance(await settled(await engine.submit(note("a"))), Accepted)
            assert engine.stats().apps["shop"].held is None

    with listening() as events:
        run_virtually(main())
    assert transport.keys == ["second-key"]
    assert len(transport.arrivals) == 2
    assert "app_held" not in events.names


def test_an_unchanged_key_is_read_again_once_and_holds_the_app(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: NO_KEY)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=in_file(tmp_path)) as engine:
            receipt = await engine.submit(note("a"))
            update = await engine.submit(change("u", a=1))
            await asyncio.sleep(60)
            assert len(transport.arrivals) <= 2  # one a lane
            assert not receipt.is_settled
            assert not update.is_settled
            stats = engine.stats()
            assert "api" in (stats.apps["shop"].held or "").lower()
            assert stats.lanes[CREATE].hold == stats.lanes[UPDATE].hold == stats.apps["shop"].held
            with pytest.raises(AppHeldError, match="resume_app"):
                await engine.submit(change("u", a=1))
            await engine.abort()

    with listening() as events:
        run_virtually(main())
    assert [fields["cause"] for fields in events.fields("app_held")] == ["key_refused"]


def test_another_key_does_not_open_a_fence(tmp_path: Path) -> None:
    transport = first([NO_KEY])

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=in_file(tmp_path)) as engine:
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(100)
            app = lane_of(engine, CREATE).app
            assert app.is_held
            app.fence("others than only_to lets through")
            in_file(tmp_path, "second-key")
            await asyncio.sleep(100)
            assert engine.stats().apps["shop"].held == "others than only_to lets through"
            assert len(transport.arrivals) == 1
            engine.resume_app("shop")
            assert isinstance(await settled(receipt), Accepted)

    with listening() as events:
        run_virtually(main())
    assert [fields["cause"] for fields in events.fields("app_held")] == ["key_refused", "outside_only_to"]


@pytest.mark.parametrize("refusal", [NO_KEY, NO_KEY_FOR_USERS, json_reply(403, {})])
def test_a_changed_key_file_reopens_a_held_app_by_itself(tmp_path: Path, refusal: Answer) -> None:
    transport = first([refusal])

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=in_file(tmp_path)) as engine:
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(100)
            assert len(transport.arrivals) == 1
            (tmp_path / "key").unlink()  # somebody is replacing it
            await asyncio.sleep(100)
            assert engine.stats().apps["shop"].held is not None
            in_file(tmp_path, "second-key")
            changed_s = now_s()
            assert isinstance(await settled(receipt), Accepted)
            assert now_s() <= changed_s + 6
            assert isinstance(await engine.send(note("b")), Accepted)

    with listening() as events:
        run_virtually(main())
    assert transport.keys == ["second-key"]
    assert [name for name in events.names if name.startswith("app_")] == ["app_held", "app_reopened"]


def test_resuming_with_the_same_bad_key_costs_one_request_and_holds_again(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: NO_KEY)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await engine.submit(note("a"))
            for attempts in (1, 2, 3):
                await asyncio.sleep(10)
                assert len(transport.arrivals) == attempts
                assert engine.stats().apps["shop"].held is not None
                engine.resume_app("shop")
            await engine.abort()

    run_virtually(main())


def test_a_refusal_of_what_was_sent_before_the_key_changed_says_nothing_about_the_new_one(tmp_path: Path) -> None:
    def behave(arrival: Arrival) -> Answer:
        return NO_KEY if arrival.number <= 10 else accept(arrival)

    transport = FakeTransport(behave, latency_s=1.0)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=in_file(tmp_path)) as engine:
            receipts = []
            for number in range(10):
                receipts.append(await engine.submit(note("a", text=str(number), urgency="high")))
                await asyncio.sleep(0.05)
            in_file(tmp_path, "second-key")
            assert [type(await settled(receipt)) for receipt in receipts] == [Accepted] * 10

    with listening() as events:
        run_virtually(main())
    assert len(transport.arrivals) == 20
    assert "app_held" not in events.names


def test_a_key_that_is_refused_uses_up_no_attempt(tmp_path: Path) -> None:
    transport = first([NO_KEY])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(1)
            engine.resume_app("shop")
            assert await settled(receipt) == Accepted(("message-2",))

    run_virtually(main())


def test_an_app_that_is_not_configured_cannot_be_resumed(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport()) as engine:
            with pytest.raises(InvalidJobError, match="shop"):
                engine.resume_app("shoe")

    run_virtually(main())


def test_resuming_an_open_app_does_no_harm(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            engine.resume_app("shop")
            assert isinstance(await engine.send(note("a")), Accepted)

    run_virtually(main())


@pytest.mark.parametrize("status", [200, 400, 403, 429])
def test_a_disabled_app_is_held_until_somebody_resumes_it_and_teaches_no_rate(tmp_path: Path, status: int) -> None:
    body = {"errors": ["API rate limit exceeded. See the RateLimit response headers for more details."]}
    transport = first([json_reply(status, body, retry_after="1")])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(note("a"))
            await asyncio.sleep(100)
            assert len(transport.arrivals) == 1
            stats = engine.stats()
            assert "dashboard" in (stats.apps["shop"].held or "")
            assert stats.lanes[CREATE].epochs == 0
            engine.resume_app("shop")
            assert await settled(receipt) == Accepted(("message-2",))

    with listening() as events:
        run_virtually(main())
    assert [fields["cause"] for fields in events.fields("app_held")] == ["app_disabled"]


def test_five_minutes_of_refusals_are_taken_for_a_disabled_app(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: json_reply(429, {"errors": ["API rate limit exceeded"]}, retry_after="5"))

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            begin_s = now_s()
            await engine.submit(note("a"))
            await until(lambda: engine.stats().apps["shop"].held is not None, step_s=1)
            assert 300 <= now_s() - begin_s <= 310
            engine.resume_app("shop")
            await asyncio.sleep(299)
            assert engine.stats().apps["shop"].held is None, "who resumes it has five minutes more"
            await until(lambda: engine.stats().apps["shop"].held is not None, step_s=1)
            await engine.abort()

    run_virtually(main())


def test_what_is_answered_to_requests_from_before_somebody_resumed_it_holds_neither_app_nor_channel_again(
    tmp_path: Path,
) -> None:
    transport = first([DISABLED, *[NO_PLAN] * CHANNEL_REFUSALS, DISABLED], latency_s=1)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            held = await engine.submit(note("a"))
            await asyncio.sleep(0.5)
            refused = [await engine.submit(mail(str(number))) for number in range(CHANNEL_REFUSALS)]
            late = await engine.submit(note("b", text="late"))
            await until(lambda: engine.stats().apps["shop"].held is not None)
            assert len(transport.arrivals) == CHANNEL_REFUSALS + 2
            engine.resume_app("shop")
            await until(lambda: all(receipt.is_settled for receipt in refused))
            await until(lambda: len(transport.arrivals) == CHANNEL_REFUSALS + 4)
            assert (engine.stats().apps["shop"].held, engine.stats().apps["shop"].held_channels) == (None, ())
            for receipt in (held, late, await engine.submit(mail("at once"))):
                assert isinstance(await settled(receipt), Accepted)

    run_virtually(main())


# Channels


def mail(text: str, **options: Any) -> CreateNotification:
    return CreateNotification(
        to=external_id("u"), channel="email", message={"email_subject": text, "email_body": "x"}, **options
    )


def no_mail(arrival: Arrival) -> Answer:
    is_mail = arrival.body.get("target_channel") == "email" or "email_to" in arrival.body
    return NO_PLAN if is_mail else accept(arrival)


def test_twenty_refusals_hold_their_channel_and_no_other(tmp_path: Path) -> None:
    transport = FakeTransport(no_mail)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            for number in range(20):
                outcome = await settled(await engine.submit(mail(str(number))))
                assert isinstance(outcome, Rejected)
                assert outcome.status == 403
            with pytest.raises(AppHeldError, match="email"):
                await engine.submit(mail("20"))
            with pytest.raises(AppHeldError, match="email"):
                await engine.submit(CreateNotification(to=email("a@example.org"), message=mail("21").message))
            assert isinstance(await engine.send(note("a")), Accepted)
            sms = CreateNotification(to=phone_number("+14155550123"), message={"contents": {"en": "x"}, "name": "y"})
            assert isinstance(await engine.send(sms), Accepted)
            assert isinstance(await engine.send(change("u", a=1)), Accepted)
            engine.resume_app("shop")
            transport.behaviour = accept
            assert isinstance(await engine.send(mail("21")), Accepted)

    with listening() as events:
        run_virtually(main())
    assert events.fields("channel_held") == [{"app": "shop", "channel": "email"}]


def test_a_success_between_starts_the_count_anew(tmp_path: Path) -> None:
    answers: list[Answer] = [*[NO_PLAN] * 19, accept(Arrival(1, 0, "POST", "", {})), *[NO_PLAN] * 19]
    transport = first(answers)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            for number in range(39):
                await settled(await engine.submit(mail(str(number))))
            assert isinstance(await engine.send(mail("last")), Accepted)

    run_virtually(main())


def test_what_waits_for_a_held_channel_stays_and_does_not_stop_the_others(tmp_path: Path) -> None:
    transport = FakeTransport(no_mail)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            lane = lane_of(engine)
            for _ in range(20):
                lane.app.channel_refused("email", sent_at_s=now_s())
            lane.app._refusals.clear()
            lane.app._held_channels.clear()
            mails = [await engine.submit(mail(str(number))) for number in range(50)]
            pushes = [await engine.submit(note("a", text=str(number))) for number in range(5)]
            lane.app._held_channels.add("email")  # before any of them was sealed
            assert [type(await settled(push)) for push in pushes] == [Accepted] * 5
            assert not any(receipt.is_settled for receipt in mails)
            assert len(transport.arrivals) == 5
            transport.behaviour = accept
            engine.resume_app("shop")
            assert [type(await settled(receipt)) for receipt in mails] == [Accepted] * 50
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_a_drain_does_not_wait_for_what_only_a_person_can_release(tmp_path: Path) -> None:
    transport = FakeTransport(no_mail)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            mails = [await engine.submit(mail(str(number))) for number in range(10)]
            for _ in range(CHANNEL_REFUSALS):
                lane_of(engine).app.channel_refused("email", sent_at_s=now_s())
            await asyncio.sleep(1)
            begin_s = now_s()
            await engine.drain()
            assert now_s() - begin_s < 1
            assert all(receipt.is_settled for receipt in mails)

    run_virtually(main())


def test_a_held_app_in_a_drain_is_not_waited_for(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: NO_KEY)

    async def main() -> None:
        begin_s = now_s()
        async with make_engine(tmp_path, transport) as engine:
            await engine.submit(note("a"))
        assert now_s() - begin_s < 2

    run_virtually(main())


def test_a_held_apps_last_request_that_comes_back_in_a_drain_ends_it(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: NO_KEY, latency_s=5)

    async def main() -> None:
        async with make_engine(tmp_path, transport, stopping=StoppingSettings(drain_timeout_s=1000)) as engine:
            await engine.submit(note("a", text="one"))
            await asyncio.sleep(4)
            await engine.submit(note("a", text="two"))
            await asyncio.sleep(2)
            assert engine.stats().apps["shop"].held is not None
            begin_s = now_s()
        assert now_s() - begin_s < 6

    run_virtually(main())


def test_pushes_without_a_channel_of_their_own_count_as_push(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: NO_PLAN)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            await outcomes_of(engine, [note("a", text=str(number)) for number in range(20)])
            with pytest.raises(AppHeldError, match="push"):
                await engine.submit(note("b"))

    run_virtually(main())


def test_deadlines_pass_while_an_app_is_held(tmp_path: Path) -> None:
    transport = FakeTransport(lambda _: NO_KEY)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            begin_s = now_s()
            receipts = [await engine.submit(note("a", expires_in_s=30))]
            await asyncio.sleep(0.05)
            receipts += [
                await engine.submit(note("b", expires_in_s=40)),
                await engine.submit(UpdateUser(external_id("u"), tags={"a": 1}, expires_in_s=50)),
            ]
            for receipt, at_s in zip(receipts, (30, 40, 50), strict=True):
                assert isinstance(await settled(receipt), Expired), receipt.job
                assert now_s() == pytest.approx(begin_s + at_s, abs=1), receipt.job
            assert engine.stats().apps["shop"].held is not None
            assert_nothing_leaked(engine, transport)

    run_virtually(main())


def test_a_parked_request_expires_although_nothing_else_happens(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            receipt = await engine.submit(mail("x", expires_in_s=40))
            for _ in range(CHANNEL_REFUSALS):
                lane_of(engine).app.channel_refused("email", sent_at_s=now_s())
            begin_s = now_s()
            assert isinstance(await settled(receipt), Expired)
            assert now_s() == pytest.approx(begin_s + 40, abs=1)
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert not transport.arrivals


def test_another_key_that_is_there_at_once_brings_a_users_requests_no_closer_together(tmp_path: Path) -> None:
    transport = first([NO_KEY_FOR_USERS], latency_s=0.05)

    async def main() -> None:
        async with make_engine(tmp_path, transport, app=in_file(tmp_path)) as engine:
            in_file(tmp_path, "second-key")
            assert isinstance(await engine.send(change("u", a=1)), Accepted)

    run_virtually(main())
    refused, again = transport.arrivals
    assert again.at_s - refused.at_s == pytest.approx(1.05)


def test_what_is_parked_is_among_the_oldest(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport()) as engine:
            await engine.submit(mail("x", expires_in_s=40))
            for _ in range(CHANNEL_REFUSALS):
                lane_of(engine).app.channel_refused("email", sent_at_s=now_s())
            await asyncio.sleep(30)
            lane = engine.stats().lanes[CREATE]
            assert lane.depth == 1
            assert lane.oldest_age_s == pytest.approx(30, abs=1)

    run_virtually(main())


def test_the_backlog_of_a_held_channel_is_set_aside_a_part_in_each_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_engine(tmp_path, FakeTransport()) as engine:
            engine.pause()
            for number in range(1000):
                engine.submit_nowait(mail(str(number)))
            await asyncio.sleep(1)  # they need not linger any more
            lane = lane_of(engine)
            for _ in range(CHANNEL_REFUSALS):
                lane.app.channel_refused("email", sent_at_s=now_s())
            engine.unpause()
            left, most = 1000, 0
            while left:
                await asyncio.sleep(0)
                before, left = left, lane.source.waiting
                most = max(most, before - left)
            assert most < 200
            assert lane.waiting == 1000
            with pytest.raises(AppHeldError):
                await engine.submit(mail("x"))

    run_virtually(main())
