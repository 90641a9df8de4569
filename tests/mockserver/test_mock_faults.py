"""Faults: which request meets one, and what it makes of the reply."""

import asyncio

import pytest

from sendengine.errors import SettingsError
from sendengine.mockserver import Fault, MockServer, parse_fault
from sendengine.mockserver.config import Lane
from sendengine.mockserver.faults import FaultPlan
from tests.mockserver.raw_client import APP, KEY, Client, Connect, Start

LANE: Lane = "create_notification"


def met(plan: FaultPlan, count: int, *, now_s: float = 0.0) -> list[str | None]:
    drawn = [plan.draw(LANE, app_id="a", now_s=now_s) for _ in range(count)]
    return [fault.kind if fault else None for fault in drawn]


def test_a_fault_spares_some_and_meets_no_more_than_its_count() -> None:
    plan = FaultPlan([Fault(kind="503", skip=2, count=2)], seed=0, now_s=0.0)
    assert met(plan, 6) == [None, None, "503", "503", None, None]


def test_a_fault_has_its_window() -> None:
    plan = FaultPlan([Fault(kind="429", from_s=1, until_s=2)], seed=0, now_s=10.0)
    assert [met(plan, 1, now_s=now_s)[0] for now_s in (10.9, 11.0, 11.9, 12.0)] == [None, "429", "429", None]


def test_a_fault_may_be_about_one_lane_and_one_app() -> None:
    plan = FaultPlan([Fault(kind="503", lane="update_user", app="a")], seed=0, now_s=0.0)
    lanes: tuple[Lane, ...] = (LANE, "update_user")
    drawn = [plan.draw(lane, app_id=app, now_s=0.0) for lane in lanes for app in ("a", "b")]
    assert [fault is not None for fault in drawn] == [False, False, True, False]


def test_the_first_fault_that_applies_is_the_one() -> None:
    plan = FaultPlan([Fault(kind="503", count=1), Fault(kind="cut", count=2)], seed=0, now_s=0.0)
    assert met(plan, 4) == ["503", "cut", "cut", None]


def test_chance_is_seeded() -> None:
    runs = [met(FaultPlan([Fault(kind="503", probability=0.3)], seed=seed, now_s=0.0), 1000) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert 250 < runs[0].count("503") < 350


def test_a_fault_is_written_as_a_word() -> None:
    assert parse_fault("503:0.03") == Fault(kind="503", probability=0.03)
    assert parse_fault("429,count=200,skip=1000, lane=create_notification,retry_after=5") == Fault(
        kind="429", count=200, skip=1000, lane=LANE, retry_after="5"
    )
    assert parse_fault("reset_after,effect=false,from_s=1.5") == Fault(kind="reset_after", effect=False, from_s=1.5)


@pytest.mark.parametrize("text", ["503:2", "504", "503,often", "503,when=now", "503,count=many", ""])
def test_a_fault_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="fault"):
        parse_fault(text)


@pytest.mark.parametrize(
    ("kind", "status", "content_type", "body"),
    [
        ("503", 503, "application/json", b'{"errors":["Service temporarily unavailable"]}'),
        ("503_text", 503, "text/plain", b"upstream connect error"),
        ("503_empty", 503, "text/plain", b""),
        ("502_html", 502, "text/html", b"<html>"),
        ("500", 500, "application/json", b"errors"),
        ("408", 408, "application/json", b"errors"),
        ("403_html", 403, "text/html", b"<html>"),
        ("400", 400, "application/json", b'{"errors":["The request could not be processed"]}'),
        ("404", 404, "application/json", b"not found"),
        ("409", 409, "application/json", b"user-2"),
        ("429", 429, "application/json", b"API rate limit exceeded"),
    ],
)
async def test_faults_of_a_status_come_before_the_effect(
    start: Start, connect: Connect, kind: str, status: int, content_type: str, body: bytes
) -> None:
    server = await start(faults=[{"kind": kind, "count": 1}])
    client = await connect(server)
    reply = await client.notify("a", key=KEY)
    assert (reply.status, reply.headers["Content-Type"].split(";")[0]) == (status, content_type)
    assert body in reply.body
    assert len(server.ledger.messages) == 0
    again = await client.notify("a", key=KEY)
    assert (again.status, again.headers.get("Idempotent-Replayed")) == (200, None)
    assert server.summary().faults == {kind: 1}


async def test_a_524_comes_after_the_effect_and_effects_are_a_choice(start: Start, connect: Connect) -> None:
    server = await start(
        faults=[
            {"kind": "524", "count": 1},
            {"kind": "503", "count": 1, "effect": True},
            {"kind": "524", "effect": False},
        ]
    )
    client = await connect(server)
    replies = [await client.notify(user) for user in "abc"]
    assert [reply.status for reply in replies] == [524, 503, 524]
    assert server.ledger.messages.deliveries() == {"external_id:a": 1, "external_id:b": 1}


async def test_a_503_may_say_when_to_come_again(start: Start, connect: Connect) -> None:
    client = await connect(await start(faults=[{"kind": "503", "retry_after": "7"}]))
    assert (await client.notify("a")).headers["Retry-After"] == "7"


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
async def test_a_reset_gives_no_reply_and_has_an_effect_or_not(start: Start, connect: Connect, kind: str) -> None:
    server = await start(faults=[{"kind": kind, "count": 1}])
    client = await connect(server)
    with pytest.raises(ConnectionResetError):
        await client.notify("a", key=KEY)
    assert len(server.ledger.messages) == (kind == "reset_after")
    again = await (await connect(server)).notify("a", key=KEY)
    assert (again.headers.get("Idempotent-Replayed") == "true") == (kind == "reset_after")
    lane = server.summary().lanes[0]
    assert (lane.replies, lane.effects) == ({"none": 1, "200": 1}, 1)


@pytest.mark.parametrize("kind", ["close_before", "close_after"])
async def test_a_peer_may_close_without_a_reply(start: Start, connect: Connect, kind: str) -> None:
    server = await start(faults=[{"kind": kind, "count": 1}])
    client = await connect(server)
    with pytest.raises(asyncio.IncompleteReadError) as raised:
        await client.notify("a")
    assert raised.value.partial == b""
    assert len(server.ledger.messages) == (kind == "close_after")


async def test_a_hanging_request_is_closed_in_the_end(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "hang", "delay_s": 0.02}])
    with pytest.raises(asyncio.IncompleteReadError):
        await (await connect(server)).notify("a")
    assert len(server.ledger.messages) == 1


async def test_a_slow_body_comes_in_pieces_and_the_next_reply_after_it(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "slow", "count": 1, "delay_s": 0.02}])
    client = await connect(server)
    client.send("POST", "/notifications", notification("a"))
    client.send("POST", "/notifications", notification("b"))
    found = [(await client.read()).json() for _ in range(2)]
    assert [reply["id"][-1] for reply in found if isinstance(reply, dict)] == ["0", "1"]


async def test_a_slow_empty_body_is_no_trouble(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "slow", "count": 1, "delay_s": 0.01}], throttle_body="empty")
    assert (await (await connect(server)).notify("a")).status == 200


async def test_a_body_may_be_cut_short(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "cut", "count": 1}])
    with pytest.raises(asyncio.IncompleteReadError):
        await (await connect(server)).notify("a")
    assert len(server.ledger.messages) == 1


@pytest.mark.parametrize(
    ("kind", "content_type", "starts"),
    [
        ("wrong_type", "text/html", b'{"id":"5e4de491-'),
        ("garbage", "application/json; charset=utf-8", b"\x00\xff"),
        ("empty", "application/json; charset=utf-8", b""),
    ],
)
async def test_a_success_may_be_unreadable(
    start: Start, connect: Connect, kind: str, content_type: str, starts: bytes
) -> None:
    server = await start(faults=[{"kind": kind, "count": 1}])
    reply = await (await connect(server)).notify("a")
    assert (reply.status, reply.headers["Content-Type"]) == (200, content_type)
    assert reply.body.startswith(starts)
    assert len(server.ledger.messages) == 1


async def test_a_storm_of_429s_is_a_hold_and_has_its_own_retry_after(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "429", "count": 3, "skip": 1, "retry_after": "9"}])
    client = await connect(server)
    replies = [await client.notify("a") for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 429, 429, 429, 200]
    assert {reply.headers["Retry-After"] for reply in replies[1:4]} == {"9"}
    assert server.summary().lanes[0].holds == 3


async def test_faults_of_users_are_met_by_users(start: Start, connect: Connect) -> None:
    server = await start(faults=[{"kind": "reset_after", "lane": "update_user", "count": 1}])
    client = await connect(server)
    assert (await client.notify("a")).status == 200
    with pytest.raises(ConnectionResetError):
        await client.update("u1", {"deltas": {"session_count": 1}})
    user = server.world.apps[APP].profiles.find("external_id", "u1")
    assert user is not None
    assert user.session_count == 1


async def test_in_an_outage_every_request_and_connection_is_reset(start: Start, connect: Connect) -> None:
    server = await start()
    client = await connect(server)
    await client.notify("a")
    server.configure(faults=[{"kind": "outage_reset"}])
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.notify("b")
    with pytest.raises((ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError)):
        await (await connect(server)).notify("c")
    assert server.summary().outage_resets == 1
    server.configure(faults=[])
    assert (await (await connect(server)).notify("d")).status == 200
    assert server.ledger.messages.deliveries() == {"external_id:a": 1, "external_id:d": 1}


async def test_an_outage_may_refuse_connections_and_ends_by_itself(start: Start, connect: Connect) -> None:
    server = await start()
    old = await connect(server)
    server.configure(faults=[{"kind": "outage_refuse", "until_s": 0.05}])
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await old.notify("a")
    with pytest.raises(ConnectionRefusedError):
        await connect(server)
    reply = await (await connected_again(server, connect)).notify("a")
    assert reply.status == 200
    assert server.now_s >= 0.05


async def connected_again(server: MockServer, connect: Connect) -> Client:
    while True:
        try:
            return await connect(server)
        except ConnectionRefusedError:
            await asyncio.sleep(0)


def notification(user: str) -> dict[str, object]:
    return {
        "app_id": APP,
        "contents": {"en": "Hi"},
        "target_channel": "push",
        "include_aliases": {"external_id": [user]},
    }
