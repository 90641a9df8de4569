"""Faults of every kind on real sockets: each notification takes effect once, each user ends as it should."""

from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from sendengine import Accepted, Job, UpdateUser, external_id
from sendengine.mockserver import AppConfig, Fault, MockConfig, MockServer
from sendengine.mockserver.config import FaultKind
from sendengine.settings import StoppingSettings, TransportSettings
from tests.support.engines import APP_ID, CREATE, SOON, note
from tests.support.mocked import assert_clean, lane, mocked

PATIENT = StoppingSettings(drain_timeout_s=120)


def faults(**shares: float) -> tuple[Fault, ...]:
    """Faults by kind, with an underscore before a digit at the front."""
    return tuple(
        Fault(kind=kind.lstrip("_"), probability=share)  # type: ignore[arg-type]
        for kind, share in shares.items()
    )


def updates(count: int, users: int, chance: Random) -> tuple[list[Job], dict[str, dict[str, str]]]:
    """Random tag updates, and what the users become by applying them in turn."""
    jobs: list[Job] = []
    expected: dict[str, dict[str, str]] = defaultdict(dict)
    for number in range(count):
        user, tag = f"user {number % users}", f"t{chance.randrange(6)}"
        value = "" if chance.random() < 0.2 else str(number)
        jobs.append(UpdateUser(external_id(user), tags={tag: value}))
        if value:
            expected[user][tag] = value
        else:
            expected[user].pop(tag, None)
    return jobs, expected


def assert_users(server: MockServer, expected: dict[str, dict[str, str]]) -> None:
    app = server.world.app(APP_ID)
    assert app is not None
    for user, tags in expected.items():
        profile = app.profiles.find("external_id", user)
        assert (profile.tags if profile else {}) == tags, user


@pytest.mark.parametrize(
    ("key_counts", "unknown_ids", "count"), [("arrival", "silent", 1500), ("completion", "named", 800)]
)
async def test_every_notification_takes_effect_once_and_every_user_ends_as_applying_in_turn_has_it(
    tmp_path: Path, key_counts: Literal["arrival", "completion"], unknown_ids: Literal["silent", "named"], count: int
) -> None:
    """Under both readings of what the documents leave open."""
    config = MockConfig(
        default=AppConfig(unknown_share=0.05),
        latency_ms=20,
        latency_p99_ms=2000,
        seed=5,
        key_counts=key_counts,
        unknown_ids=unknown_ids,
        faults=faults(_503=0.03, reset_before=0.03, reset_after=0.03, _502_html=0.02),
    )
    notifications: list[Job] = [note(f"u{number}", f"v{number}", text=f"text {number}") for number in range(count)]
    changes, expected = updates(count, count // 6, Random(1))
    mixed = [job for pair in zip(notifications, changes, strict=True) for job in pair]
    async with mocked(tmp_path, config, retry=SOON, stopping=PATIENT) as (engine, server):
        async for job, outcome in engine.map(mixed):
            # Where all of a request's recipients are unknown, nobody can be reached.
            assert isinstance(outcome, Accepted) or not isinstance(job, UpdateUser), outcome
        found = server.summary()
        assert_clean(found)
        assert_users(server, expected)
        app = server.world.app(APP_ID)
        assert app is not None
        ids = [f"{kind}{number}" for kind in "uv" for number in range(count)]
        reached = app.audience.split(ids, creates=False).reached
        assert server.ledger.messages.deliveries() == {f"external_id:{name}": 1 for name in reached}
        assert found.replays > 0
        assert {"503", "reset_before", "reset_after", "502_html"} == set(found.faults)
        counters = engine.counters()[CREATE]
        assert counters.requests == lane(found).requests + counters.not_sent


ODD: tuple[FaultKind, ...] = (
    "503_text", "503_empty", "500", "524", "408", "403_html", "close_before", "close_after", "hang", "stall", "slow",
    "cut", "wrong_type", "garbage", "empty",
)  # fmt: skip


async def test_no_strange_reply_loses_or_doubles_anything(tmp_path: Path) -> None:
    odd = tuple(Fault(kind=kind, count=5, skip=30 * place, delay_s=10) for place, kind in enumerate(ODD))
    config = MockConfig(latency_ms=10, seed=3, faults=odd)
    count = 1000
    jobs: list[Job] = [note(f"u{number}", text=f"text {number}") for number in range(count)]
    changes, expected = updates(count, count // 2, Random(2))
    wire = TransportSettings(timeout_s=5)
    async with mocked(tmp_path, config, retry=SOON, stopping=PATIENT, wire=wire) as (engine, server):
        async for _, outcome in engine.map([*jobs, *changes]):
            assert isinstance(outcome, Accepted), outcome
        assert_clean(server.summary())
        assert_users(server, expected)
        assert server.ledger.messages.deliveries() == {f"external_id:u{number}": 1 for number in range(count)}
        assert set(server.ledger.faults) == set(ODD)


async def test_alias_ids_with_slashes_spaces_and_letters_of_any_alphabet_arrive_whole(tmp_path: Path) -> None:
    names = [
        "a/b",
        "a b",
        " lead",
        "Müller",
        "日本語",
        "a?b=c&d#e",
        "100%",
        "%2F",
        "..",
        ".",
        "a+b",
        "\\",
        '"',
        "😀",
        "x" * 128,
    ]
    config = MockConfig(default=AppConfig(unsubscribed=frozenset({"Müller"})))
    async with mocked(tmp_path, config) as (engine, server):
        outcome = await engine.send(note(*names))
        assert outcome.unsubscribed == ("Müller",)
        for name in names:
            await engine.send(UpdateUser(external_id(name), tags={"name": name}))
        assert set(server.ledger.messages.deliveries()) == {f"external_id:{name}" for name in names if name != "Müller"}
        assert_users(server, {name: {"name": name} for name in names})
        assert_clean(server.summary())
