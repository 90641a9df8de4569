"""Jobs files under keys and kills: a user's changes keep their order, and no key does its work twice."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sendengine.campaign import flow, house
from tests.campaign.run_scene import HELLO, Scene, Server, change, greeting, jobs, note
from tests.support.fake_transport import Answer, Arrival, accept, json_reply

DELTAS = {"session_count": 1}


@pytest.fixture(autouse=True)
def _look_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of virtual time pass here, and each look costs real time."""
    monkeypatch.setattr(house, "_LOOK_S", 2.0)


@pytest.mark.parametrize("more", [{"idempotency_key": "k"}, {"app": "shop"}, {"urgency": "high"}])
def test_a_change_with_a_key_or_an_app_of_its_own_does_not_overtake_the_one_before_it(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    scene = Scene(tmp_path, Server())
    rows = [change("u", tags={"level": 1}), change("u", tags={"level": 2}, **more), change("u", tags={"level": 3})]
    scene.begin(jobs(tmp_path, change("first", tags={"level": 0}), *rows))
    assert scene.live() is not None
    assert [body["properties"]["tags"] for user, body in scene.server.updates if user == "u"][-1] == {"level": "3"}
    assert scene.counts == {"accepted": 4}


def test_a_key_that_an_earlier_process_has_used_is_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_ITEMS", 5)  # the last rows are not read before the stop
    keyed = change("d", deltas=DELTAS, idempotency_key="k")
    others = [note(f"u{n}", urgency="high") for n in range(60)]
    reused = change("d", tags={"level": 1}, idempotency_key="k")
    scene = Scene(tmp_path, Server())
    scene.begin(jobs(tmp_path, note("first"), keyed, *others, keyed, reused))
    scene.live(stopped_at=30)
    assert scene.live() is not None
    assert scene.server.updates == [("d", {"deltas": DELTAS})]
    assert scene.counts == {"accepted": 63, "rejected": 1}
    (failure,) = scene.lines("failures.jsonl")
    assert "was used before with another body" in failure["reason"]


@pytest.mark.parametrize("is_killed", [True, False])
def test_what_joined_a_job_that_had_not_settled_is_counted_by_a_later_process(
    tmp_path: Path, *, is_killed: bool
) -> None:
    slow = {"a"}

    def answer(arrival: Arrival) -> Answer:
        return json_reply(503, {"errors": ["later"]}) if slow.intersection(arrival.ids) else accept(arrival)

    scene = Scene(tmp_path, Server(answer))
    twice = [note("a", idempotency_key="k")] * 2
    scene.begin(jobs(tmp_path, note("first"), *twice, *(note(f"u{n}", urgency="high") for n in range(30))))
    scene.live(killed_at=25 if is_killed else None, stopped_at=None if is_killed else 25)
    slow.clear()
    assert scene.live() is not None
    assert scene.counts == {"accepted": 33}
    assert scene.server.reached == Counter(["first", "a", *(f"u{n}" for n in range(30))])


@pytest.mark.parametrize("kind", ["create_notification", "update_user"])
def test_a_campaign_whose_deadline_has_passed_expires_row_by_row(tmp_path: Path, kind: str) -> None:
    """Each settles in the step in which it is taken."""
    is_update = kind == "update_user"
    path = greeting(
        tmp_path,
        [f"u{n}" for n in range(100)],
        options=f'expires_in_s = 2\nkind = "{kind}"\n' + ("" if is_update else HELLO),
        tables='[campaign.tags]\nlevel = "level"' if is_update else "",
    )
    scene = Scene(tmp_path, Server())
    scene.begin(path, at=datetime.now(UTC) - timedelta(seconds=10))
    assert scene.live() is not None
    assert scene.counts == {"expired": 100}
    assert scene.arrivals == 0
    assert len(scene.lines("failures.jsonl")) == (100 if is_update else 50)
