"""Callers' idempotency keys: what is on the wire for them, and what a second use of one means."""

from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from sendengine import (
    Accepted,
    CreateNotification,
    Job,
    KeyReusedError,
    Receipt,
    Rejected,
    UpdateUser,
    external_id,
    filters,
    segments,
)
from sendengine.engine import keys
from sendengine.engine.keys import KeyTable, chance_of, fingerprint, portion_key, wire_key
from sendengine.engine.receipts import Receipt as ReceiptType
from sendengine.settings import BatchingSettings
from tests.support.engines import APP_ID, CREATE, SOON, assert_nothing_leaked, lane_of, make_engine, note, settled
from tests.support.fake_transport import FakeTransport, accept, first, json_reply, refuse
from tests.support.virtual_loop import run_virtually

UUID_KEY = "3b241101-e2bb-4255-8caf-4136c566a962"


def receipt_of(job: Job, outcome: Accepted | None = None) -> Receipt:
    receipt = ReceiptType(job, deadline_s=None, size_bytes=1)
    receipt._outcome = outcome
    return receipt


def test_a_uuid_is_on_the_wire_as_it_is_and_any_text_as_its_uuid5() -> None:
    assert wire_key(APP_ID, UUID_KEY) == UUID_KEY
    assert wire_key(APP_ID, UUID_KEY.upper()) == UUID_KEY
    assert wire_key(APP_ID, "shipped:991") == "1814d7f5-36e3-5804-a588-4ab894fa7396"
    assert wire_key(APP_ID, "shipped:992") != wire_key(APP_ID, "shipped:991")


def test_a_portions_key_follows_from_the_jobs_key_and_its_ids() -> None:
    key = portion_key(UUID_KEY, ("a", "b"))
    assert UUID(key)
    assert key == portion_key(UUID_KEY, ("a", "b"))
    assert len({key, portion_key(UUID_KEY, ("a", "c")), portion_key(UUID_KEY, ("a",)), UUID_KEY}) == 4


def test_portions_whose_ids_read_the_same_when_they_are_joined_have_keys_of_their_own() -> None:
    portions = [("x", "y", "z"), ("x\ny", "z"), ("x", "y\nz"), ("x\ny\nz",)]
    assert len({portion_key(UUID_KEY, ids) for ids in portions}) == len(portions)
    assert portion_key(UUID_KEY, ("x", "y")) == "ac78ba35-cbb4-549d-a692-ca8ffc23ffdd", "what an earlier version sent"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (note("a"), note("a"), True),
        (note("a"), note("b"), False),
        (note("a"), note("a", text="other"), False),
        (note("a"), note("a", urgency="high"), True),  # how fast it goes is not what it says
        (note("a"), CreateNotification(to=external_id("a"), channel="email", message=note("a").message), False),
        (UpdateUser(external_id("u"), tags={"a": 1}), UpdateUser(external_id("u"), tags={"a": "1"}), True),
        (UpdateUser(external_id("u"), tags={"a": 1}), UpdateUser(external_id("u"), properties={"a": "1"}), False),
        (UpdateUser(external_id("u"), tags={"a": 1}), UpdateUser(external_id("v"), tags={"a": 1}), False),
    ],
)
def test_the_same_body_is_the_same_job_and_nothing_else_is(one: Job, other: Job, *, is_same: bool) -> None:
    assert (fingerprint(one) == fingerprint(other)) is is_same


def test_segments_and_filters_have_fingerprints_too() -> None:
    message = {"contents": {"en": "x"}}
    jobs = [
        CreateNotification(to=segments("A"), message=message),
        CreateNotification(to=segments("A", excluded=["B"]), message=message),
        CreateNotification(to=filters([{"field": "tag", "key": "a", "relation": "=", "value": "1"}]), message=message),
    ]
    assert len({fingerprint(job) for job in jobs}) == 3


def test_the_memory_of_settled_keys_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REMEMBERED", 3)
    table = KeyTable()
    job = note("a")
    for number in range(5):
        receipt = receipt_of(job, Accepted((f"m{number}",)))
        table.register(f"k{number}", fingerprint=b"same", receipt=receipt)
        table.settle(f"k{number}", receipt)
    joined = [table.join(f"k{number}", job, fingerprint=b"same") for number in range(5)]
    assert [receipt.outcome if receipt else None for receipt in joined] == [
        None,
        None,
        Accepted(("m2",)),
        Accepted(("m3",)),
        Accepted(("m4",)),
    ]


def test_the_callers_key_alone_is_on_the_wire_and_such_a_job_goes_alone(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            jobs = [note("a"), note("b", idempotency_key=UUID_KEY), note("c", idempotency_key="shipped:991"), note("d")]
            receipts = [await engine.submit(job) for job in jobs]
            assert [type(await settled(receipt)) for receipt in receipts] == [Accepted] * 4

    run_virtually(main())
    by_ids = {tuple(arrival.ids): arrival for arrival in transport.arrivals}
    assert set(by_ids) == {("a", "d"), ("b",), ("c",)}
    assert by_ids["b",].key == UUID_KEY
    assert by_ids["c",].key == "1814d7f5-36e3-5804-a588-4ab894fa7396"


def test_the_same_key_and_body_joins_the_first_job_while_it_is_under_way_and_later(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            one = await engine.submit(note("a", idempotency_key="k"))
            assert await engine.submit(note("a", idempotency_key="k")) is one
            outcome = await settled(one)
            later = await engine.submit(note("a", idempotency_key="k"))
            assert await settled(later) == outcome
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert len(transport.arrivals) == 1


def test_another_body_under_a_used_key_raises_and_takes_no_room(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            one = await engine.submit(note("a", idempotency_key="k"))
            with pytest.raises(KeyReusedError, match="'k'"):
                await engine.submit(note("b", idempotency_key="k"))
            assert lane_of(engine).intake.jobs == 1
            await settled(one)
            with pytest.raises(KeyReusedError, match="another body"):
                engine.submit_nowait(note("b", idempotency_key="k"))
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert len(transport.arrivals) == 1


def test_a_key_of_one_app_is_free_in_another(tmp_path: Path) -> None:
    transport = FakeTransport()
    other_id = "0f6b0aa6-3b3a-4b5a-9b0a-0d4f3f1f7a11"

    async def main() -> None:
        async with make_engine(tmp_path, transport, others={"news": {"app_id": other_id}}) as engine:
            await engine.send(note("a", app="shop", idempotency_key="k"))
            await engine.send(note("b", app="news", idempotency_key="k"))

    run_virtually(main())
    one, other = transport.arrivals
    assert one.key != other.key  # uuid5 of app and text


def test_a_failed_jobs_key_keeps_its_outcome(tmp_path: Path) -> None:
    transport = first([refuse()])

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            outcome = await settled(await engine.submit(note("a", idempotency_key="k")))
            assert isinstance(outcome, Rejected)
            assert await settled(await engine.submit(note("a", idempotency_key="k"))) == outcome

    run_virtually(main())


def test_a_key_survives_every_retry_unchanged(tmp_path: Path) -> None:
    answers = [json_reply(503, {}), json_reply(429, {}, retry_after="1"), json_reply(502, "<html>")]
    transport = first(answers)

    async def main() -> None:
        async with make_engine(tmp_path, transport, retry=SOON) as engine:
            assert isinstance(await engine.send(note("a", idempotency_key="k")), Accepted)
            assert isinstance(await engine.send(note("b")), Accepted)

    run_virtually(main())
    assert [arrival.key for arrival in transport.arrivals][:4] == [wire_key(APP_ID, "k")] * 4


def test_a_job_over_the_cap_has_a_key_a_portion_and_the_same_ones_in_another_engine(tmp_path: Path) -> None:
    caps = BatchingSettings(max_recipients_per_request=2)
    seen = []

    async def main() -> None:
        transport = FakeTransport()
        async with make_engine(tmp_path, transport, batching=caps) as engine:
            outcome = await engine.send(note("a", "b", "c", idempotency_key="k"))
            assert outcome.attempts == 2
            seen.append({arrival.key: arrival.ids for arrival in transport.arrivals})

    run_virtually(main())
    run_virtually(main())
    assert seen[0] == seen[1]
    assert sorted(seen[0].values()) == [["a", "b"], ["c"]]
    assert wire_key(APP_ID, "k") not in seen[0]


def test_a_users_change_may_have_a_key_which_stays_off_the_wire(tmp_path: Path) -> None:
    transport = FakeTransport()

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            job = UpdateUser(external_id("u"), tags={"a": 1}, idempotency_key="k")
            one = await engine.submit(job)
            assert await engine.submit(job) is one
            await settled(one)
            with pytest.raises(KeyReusedError):
                await engine.submit(UpdateUser(external_id("u"), tags={"a": 2}, idempotency_key="k"))
            assert_nothing_leaked(engine, transport)

    run_virtually(main())
    assert [arrival.body for arrival in transport.arrivals] == [{"properties": {"tags": {"a": "1"}}}]


def test_keys_of_our_own_are_uuids_and_all_different(tmp_path: Path) -> None:
    transport = FakeTransport(accept)

    async def main() -> None:
        async with make_engine(tmp_path, transport) as engine:
            for number in range(20):
                await engine.submit(note("a", text=str(number)))
        assert engine.counters()[CREATE].requests == 20

    run_virtually(main())
    assert len({UUID(arrival.key) for arrival in transport.arrivals}) == 20


def test_who_sends_the_same_again_from_another_process_makes_the_same_pieces_of_what_is_refused(tmp_path: Path) -> None:
    """A trial's recipients are drawn, and drawn alike: nobody is named twice under different keys."""
    transport = FakeTransport(lambda arrival: refuse() if "bad" in arrival.ids else accept(arrival))
    ids = [*(f"u{number}" for number in range(40)), "bad", "v", "w"]

    async def main() -> None:
        for _ in range(3):
            async with make_engine(tmp_path, transport) as engine:
                await settled(await engine.submit(note(*ids, idempotency_key="k")))

    run_virtually(main())
    taken = {arrival.key: arrival.ids for arrival in transport.arrivals if "bad" not in arrival.ids}
    assert Counter(name for named in taken.values() for name in named) == Counter(set(ids) - {"bad"})


def test_what_is_drawn_with_a_key_lies_between_nought_and_one() -> None:
    drawn = [chance_of(str(number)) for number in range(1000)]
    assert all(0 <= chance < 1 for chance in drawn)
    assert len({int(chance * 10) for chance in drawn}) == 10
    assert chance_of("a") == chance_of("a")
