"""Who is told and who is not, on real sockets: unsubscribed, poisoned, a message at fault, a wrong key, the tag cap."""

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest

from sendengine import Accepted, AppHeldError, Rejected, Unreachable, external_id, subscription_id
from sendengine.core.jobs import CreateNotification
from sendengine.mockserver import AppConfig, MockConfig
from tests.support.engines import APP_ID, change, note, settled
from tests.support.mocked import assert_clean, lane, mocked, requests


@pytest.mark.parametrize("unknown_ids", ["silent", "named"])
async def test_twenty_thousand_recipients_are_ten_requests_and_the_unsubscribed_are_named(
    tmp_path: Path, unknown_ids: str
) -> None:
    ids = [f"u{number}" for number in range(20_000)]
    gone, strangers = frozenset(ids[::100]), frozenset(ids[50::100])
    app = AppConfig(unsubscribed=gone, unknown=strangers)
    config = MockConfig(default=app, unknown_ids=unknown_ids, unsubscribed_repeats=2)  # type: ignore[arg-type]
    async with mocked(tmp_path, config) as (engine, server):
        receipt = await engine.submit(note(*ids))
        outcome = await settled(receipt)
        assert isinstance(outcome, Accepted)
        named = gone if unknown_ids == "silent" else gone | strangers
        assert set(outcome.unsubscribed) == named
        assert len(outcome.unsubscribed) == len(named)
        assert len(outcome.message_ids) == 10
        found = server.summary()
        assert (found.notifications, found.recipients, found.most_recipients) == (10, 19_600, 2000)
        assert_clean(found)


@pytest.mark.parametrize(("poisoned", "recipients"), [(1, 2000), (2, 4000), (20, 4000), (200, 6000)])
async def test_poisoned_recipients_are_isolated_and_every_other_one_is_sent(
    tmp_path: Path, poisoned: int, recipients: int
) -> None:
    ids = [f"u{number}" for number in range(recipients)]
    bad = frozenset(f"u{(number * 7919) % recipients}" for number in range(poisoned))
    assert len(bad) == poisoned
    async with mocked(tmp_path, MockConfig(default=AppConfig(poisoned=bad))) as (engine, server):
        outcome = await settled(await engine.submit(note(*ids)))
        assert isinstance(outcome, Rejected)
        assert set(outcome.not_sent) == bad
        assert server.ledger.messages.deliveries() == {f"external_id:{name}": 1 for name in ids if name not in bad}
        assert_clean(server.summary())
        if poisoned == 1:
            assert requests(server) <= 1 + 30


@pytest.mark.parametrize("poison_reply", ["named", "named_text"])
async def test_a_poisoned_recipient_that_is_named_costs_one_request_more(tmp_path: Path, poison_reply: str) -> None:
    config = MockConfig(default=AppConfig(poisoned=frozenset({"u5", "u6"})), poison_reply=poison_reply)  # type: ignore[arg-type]
    async with mocked(tmp_path, config) as (engine, server):
        outcome = await settled(await engine.submit(note(*[f"u{number}" for number in range(100)])))
        assert isinstance(outcome, Rejected)
        assert set(outcome.not_sent) == {"u5", "u6"}
        assert requests(server) == 2
        assert_clean(server.summary())


async def test_a_malformed_subscription_id_spoils_itself_alone(tmp_path: Path) -> None:
    good = [f"5e4de491-0000-4000-8000-{number:012x}" for number in range(50)]
    async with mocked(tmp_path) as (engine, server):
        job = CreateNotification(to=subscription_id(*good, "not-a-uuid"), message={"contents": {"en": "x"}})
        outcome = await settled(await engine.submit(job))
        assert isinstance(outcome, Rejected)
        assert outcome.not_sent == ("not-a-uuid",)
        assert set(server.ledger.messages.deliveries()) == {f"subscription_id:{name}" for name in good}


@pytest.mark.parametrize(
    ("message", "config"),
    [
        ({"headings": {"en": "no contents"}}, {}),
        ({"contents": {"en": "cursed text"}}, {"message_faults": ["cursed"]}),
    ],
)
async def test_a_message_at_fault_costs_at_most_five_requests(
    tmp_path: Path, message: dict[str, Any], config: dict[str, Any]
) -> None:
    async with mocked(tmp_path, MockConfig(**config)) as (engine, server):
        job = CreateNotification(to=external_id(*[f"u{n}" for n in range(2000)]), channel="push", message=message)
        outcome = await settled(await engine.submit(job))
        assert isinstance(outcome, Rejected)
        assert len(outcome.not_sent) == 2000
        assert requests(server) <= 5
        assert server.summary().recipients == 0


async def test_nobody_subscribed_is_unreachable_and_no_failure_of_the_message(tmp_path: Path) -> None:
    for nobody_reply in ("text", "object"):
        config = MockConfig(default=AppConfig(unsubscribed_share=1.0), nobody_reply=nobody_reply)
        async with mocked(tmp_path, config) as (engine, _):
            assert isinstance(await settled(await engine.submit(note("a", "b"))), Unreachable)


@pytest.mark.parametrize("key_refusal", ["403", "403_empty", "400"])
async def test_a_wrong_key_costs_one_request_and_the_right_one_sends_what_waited(
    tmp_path: Path, key_refusal: str
) -> None:
    key = tmp_path / "key"
    key.write_text("wrong")
    config = MockConfig(default=AppConfig(api_key="right"), key_refusal=key_refusal)  # type: ignore[arg-type]
    app = {"api_key": None, "api_key_file": str(key)}
    async with mocked(tmp_path, config, app=app) as (engine, server):
        receipt = await engine.submit(note("a"))
        held = asyncio.Event()
        changed = engine._apps["shop"]._when_changed

        def note_the_hold(app: Any) -> None:
            changed(app)
            held.set()

        engine._apps["shop"]._when_changed = note_the_hold
        await held.wait()
        with pytest.raises(AppHeldError):
            await engine.submit(note("b"))
        assert requests(server) == 1
        key.write_text("right")
        engine.resume_app("shop")
        assert isinstance(await settled(receipt), Accepted)
        assert requests(server) == 2


async def test_at_the_tag_cap_a_users_deletions_make_room(tmp_path: Path) -> None:
    await asyncio.gather(meet_the_tag_cap(tmp_path / "400", 400), meet_the_tag_cap(tmp_path / "409", 409))


async def meet_the_tag_cap(folder: Path, status: Literal[400, 409]) -> None:
    config = MockConfig(default=AppConfig(tag_cap=3), tag_cap_status=status)
    async with mocked(folder, config) as (engine, server):
        await engine.send(change("u", a=1, b=1, c=1))
        receipts = [await engine.submit(job) for job in (change("u", a=None), change("u", d=1))]
        assert [type(await settled(receipt)) for receipt in receipts] == [Accepted] * 2
        app = server.world.app(APP_ID)
        assert app is not None
        profile = app.profiles.find("external_id", "u")
        assert profile is not None
        assert profile.tags == {"b": "1", "c": "1", "d": "1"}


async def test_no_request_has_more_modifications_than_there_may_be(tmp_path: Path) -> None:
    async with mocked(tmp_path) as (engine, server):
        receipts = [await engine.submit(change(f"u{n}", **{f"t{k}": k for k in range(150)})) for n in range(20)]
        assert {type(await settled(receipt)) for receipt in receipts} == {Accepted}
        found = server.summary()
        assert (found.most_modifications, found.updates) == (100, 40)
        assert lane(found, "update_user").refused == 0
