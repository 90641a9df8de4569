"""429s over a socket: what they say, and what the ledger makes of those who do not listen."""

import pytest

from sendengine.mockserver import AppConfig, LaneLimit
from tests.mockserver.raw_client import APP, KEY, Connect, Start

ONE = AppConfig(create_notification=LaneLimit(rate=1, counter="bucket", burst=1, count_refused=False))


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({}, "Retry-After", "1"),
        ({"retry_after": "5"}, "Retry-After", "5"),
        ({"retry_after": "5", "retry_after_header": "RetryAfter"}, "RetryAfter", "5"),
        ({"retry_after": "soon"}, "Retry-After", "soon"),
        ({"retry_after": ""}, "Retry-After", None),
    ],
)
async def test_retry_after_is_as_set(
    start: Start, connect: Connect, settings: dict[str, object], header: str, value: str | None
) -> None:
    server = await start(default=ONE, **settings)
    client = await connect(server)
    replies = [await client.notify("a") for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 429]
    assert replies[1].headers.get(header) == value
    lane = server.summary().lanes[0]
    assert (lane.refused, lane.holds) == (1, 1 if value and value.isdecimal() else 0)


@pytest.mark.parametrize(
    ("switch", "body"),
    [
        ("plain", b'{"errors":["API rate limit exceeded"]}'),
        ("dotted", b'{"errors":["API rate limit exceeded."]}'),
        ("coded", b'{"errors":[{"code":"Rate Limit Exceeded","title":"API rate limit exceeded"}]}'),
        ("app_limit", b'{"errors":["API rate limit exceeded"],"limit":"App ID"}'),
        ("empty", b""),
    ],
)
async def test_a_429_has_one_of_the_bodies_that_were_seen(
    start: Start, connect: Connect, switch: str, body: bytes
) -> None:
    client = await connect(await start(default=ONE, throttle_body=switch))
    assert [(await client.notify("a")).body for _ in range(2)][1] == body


async def test_nothing_is_delivered_by_a_refused_request(start: Start, connect: Connect) -> None:
    server = await start(default=ONE)
    client = await connect(server)
    statuses = [(await client.notify(f"u{n}", key=KEY if n else None)).status for n in range(3)]
    assert statuses == [200, 429, 429]
    assert server.ledger.messages.deliveries() == {"external_id:u0": 1}
    assert server.ledger.replays == 0


async def test_who_does_not_wait_is_seen(start: Start, connect: Connect) -> None:
    server = await start(default=ONE, retry_after="3600", hold_grace_ms=0)
    client = await connect(server)
    for _ in range(4):
        await client.notify("a")
    lane = server.summary().lanes[0]
    assert (lane.holds, lane.inside_hold, lane.inside_hold_raw) == (3, 2, 2)
    server.configure(hold_grace_ms=3_600_000)
    server.reset()
    for _ in range(4):
        await client.notify("a")
    lane = server.summary().lanes[0]
    assert (lane.holds, lane.inside_hold, lane.inside_hold_raw) == (3, 0, 2)
    server.configure(hold_grace_ms=0)
    await client.notify("a")
    assert server.summary().lanes[0].inside_hold == 1


@pytest.mark.parametrize(("mode", "after"), [("none", 200), ("hold", 429), ("prolong", 429)])
async def test_a_429_may_block_the_lane_for_a_while(start: Start, connect: Connect, mode: str, after: int) -> None:
    server = await start(default=ONE, block=mode, block_s=3600)
    client = await connect(server)
    assert [(await client.notify("a")).status for _ in range(2)] == [200, 429]
    server.configure(default={"create_notification": {"rate": 1000}})
    assert (await client.notify("a")).status == after
    assert (await client.update("u1", {})).status == 202  # another lane


async def test_a_true_limit_below_the_documented_one(start: Start, connect: Connect) -> None:
    limit = LaneLimit(rate=4, counter="sliding_second", count_refused=True)
    server = await start(default=AppConfig(create_notification=limit))
    client = await connect(server)
    statuses = [(await client.notify("a")).status for _ in range(6)]
    assert statuses == [200] * 4 + [429] * 2
    assert server.ledger.lane(APP, "create_notification").peak_1s == 6
    assert server.ledger.lane(APP, "create_notification").accepted_peak_1s == 4


async def test_the_other_client_on_the_limit_is_in_the_summary(start: Start, connect: Connect) -> None:
    limit = LaneLimit(rate=10, foreign_rate=1000)
    server = await start(default=AppConfig(create_notification=limit))
    client = await connect(server)
    await client.notify("a")
    gate = server.world.apps[APP].gate("create_notification")
    while gate.foreign_offered == gate.foreign_taken:
        await client.notify("a")
    lane = server.summary().lanes[0]
    assert lane.foreign_offered > lane.foreign_taken > 0


async def test_new_limits_begin_afresh_and_others_keep_what_they_counted(start: Start, connect: Connect) -> None:
    server = await start(default=ONE)
    client = await connect(server)
    assert (await client.notify("a")).status == 200
    server.configure(latency_ms=0.001)
    assert (await client.notify("a")).status == 429
    server.configure(default={"create_notification": {"burst": 2}})
    assert [(await client.notify("a")).status for _ in range(3)] == [200, 200, 429]
